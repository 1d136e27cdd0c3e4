//! What the tests of this crate share: a node that answers in a few ways, and how to start hosts.
#![allow(dead_code, unreachable_pub, reason = "every test binary uses another part")]

use bytes::Bytes;
use debros_p2p::{
    CallContext, Channel, EventSource, Handler, Host, HostConfig, Keypair, Multiaddr, PeerLimits,
    Reply,
};
use debros_proto::rpc::{self, event::Kind, request::Call, response::Result as Answer};
use debros_proto::{Code, Error};
use futures::future::BoxFuture;
use futures::stream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

pub mod raw;

pub const LONG: Duration = Duration::from_secs(60);

/// A node whose answers depend on the key or topic that it is asked for.
#[derive(Default)]
pub struct TestNode {
    /// Calls that wait for `release`.
    pub waiting: AtomicUsize,
    pub entered: Notify,
    pub release: tokio_util::sync::CancellationToken,
    /// Calls and streams that were dropped before their end.
    pub dropped: Arc<Dropped>,
    /// Events that were taken out of endless streams.
    pub produced: Arc<AtomicUsize>,
}

#[derive(Default)]
pub struct Dropped {
    count: AtomicUsize,
    changed: Notify,
}

impl Dropped {
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    pub async fn reaches(&self, count: usize) {
        loop {
            let changed = self.changed.notified();
            if self.count() >= count {
                return;
            }
            changed.await;
        }
    }
}

struct Guard(Option<Arc<Dropped>>);

impl Guard {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(dropped) = &self.0 {
            dropped.count.fetch_add(1, Ordering::SeqCst);
            dropped.changed.notify_waiters();
        }
    }
}

impl TestNode {
    pub async fn until_waiting(&self, count: usize) {
        loop {
            let entered = self.entered.notified();
            if self.waiting.load(Ordering::SeqCst) >= count {
                return;
            }
            entered.await;
        }
    }
}

/// The node of a started host, which `Host::start` wants as a trait object.
pub struct Shared(pub Arc<TestNode>);

impl Handler for Shared {
    fn call(
        &self,
        context: CallContext,
        request: rpc::Request,
    ) -> BoxFuture<'static, Result<Reply, Error>> {
        let node = self.0.clone();
        Box::pin(async move {
            match request.call {
                Some(Call::Get(get)) => node.get(&get.key, context).await,
                // Answers with the size, so that large requests have small answers.
                Some(Call::Put(put)) if put.key == "wait" => node.wait().await,
                Some(Call::Put(put)) => {
                    let answer = rpc::PutResponse { version: 1, size: put.value.len() as u64 };
                    Ok(Reply::Response(response(Answer::Put(answer))))
                }
                Some(Call::Subscribe(subscribe)) => Ok(node.subscribe(&subscribe.topic)),
                _ => Err(Error::new(Code::Unimplemented, "not in this test")),
            }
        })
    }
}

impl TestNode {
    async fn get(&self, key: &str, context: CallContext) -> Result<Reply, Error> {
        match key.split_once(' ').unwrap_or((key, "")) {
            ("wait", _) => self.wait().await,
            ("never", _) => {
                let _guard = Guard(Some(self.dropped.clone()));
                self.waiting.fetch_add(1, Ordering::SeqCst);
                self.entered.notify_waiters();
                std::future::pending().await
            }
            // As a node does that has seen a valid credential.
            ("prove", _) => {
                context.trust.unwrap().raise_level(debros_p2p::TrustLevel::Member);
                Ok(value("proven".into()))
            }
            ("deadline", _) => {
                let left = context.deadline.saturating_duration_since(Instant::now());
                Ok(value(left.as_millis().to_string().into()))
            }
            ("peer", _) => {
                Ok(value(context.peer.map(|peer| peer.to_string()).unwrap_or_default().into()))
            }
            ("late", millis) => {
                tokio::time::sleep(Duration::from_millis(millis.parse().unwrap())).await;
                Ok(value(Bytes::from(key.to_owned())))
            }
            ("size", bytes) => Ok(value(vec![7; bytes.parse().unwrap()].into())),
            ("panic", _) => panic!("this is part of the test"),
            ("missing", _) => Err(Error::new(Code::NotFound, "no such key")),
            _ => Ok(value(Bytes::from(key.to_owned()))),
        }
    }

    async fn wait(&self) -> Result<Reply, Error> {
        let guard = Guard(Some(self.dropped.clone()));
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.entered.notify_waiters();
        self.release.cancelled().await;
        guard.done();
        Ok(value("waited".into()))
    }

    fn subscribe(&self, topic: &str) -> Reply {
        let opened = response(Answer::Subscribe(rpc::SubscribeResponse {}));
        let source: EventSource = match topic.split_once(' ').unwrap_or((topic, "")) {
            ("count", to) => Box::pin(stream::iter(
                (0..to.parse().unwrap()).map(|number: u64| Ok(missed(number))),
            )),
            ("fail", _) => {
                Box::pin(stream::iter([Ok(missed(0)), Err(Error::new(Code::Conflict, "gone"))]))
            }
            ("silent", _) => {
                let guard = Guard(Some(self.dropped.clone()));
                Box::pin(stream::poll_fn(move |_| {
                    let _ = &guard;
                    std::task::Poll::Pending
                }))
            }
            (_, size) => {
                let size = size.parse().unwrap_or(0);
                let guard = Guard(Some(self.dropped.clone()));
                let produced = self.produced.clone();
                Box::pin(stream::poll_fn(move |_| {
                    let _ = &guard;
                    produced.fetch_add(1, Ordering::SeqCst);
                    let message = rpc::Message { topic: String::new(), data: vec![1; size].into() };
                    std::task::Poll::Ready(Some(Ok(rpc::Event {
                        kind: Some(Kind::Message(message)),
                    })))
                }))
            }
        };
        Reply::Stream(opened, source)
    }
}

pub fn missed(count: u64) -> rpc::Event {
    rpc::Event { kind: Some(Kind::Missed(rpc::Missed { count })) }
}

pub fn response(result: Answer) -> rpc::Response {
    rpc::Response { replayed: false, result: Some(result) }
}

pub fn value(value: Bytes) -> Reply {
    let entry = rpc::Entry { value, ..Default::default() };
    Reply::Response(response(Answer::Get(rpc::GetResponse { entry: Some(entry) })))
}

pub fn get(key: impl Into<String>) -> rpc::Request {
    let get = rpc::GetRequest { key: key.into(), ..Default::default() };
    rpc::Request { call: Some(Call::Get(get)), ..Default::default() }
}

pub fn put(key: &str, value: impl Into<Bytes>) -> rpc::Request {
    let put = rpc::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
    rpc::Request { call: Some(Call::Put(put)), ..Default::default() }
}

pub fn subscribe(topic: &str) -> rpc::Request {
    let subscribe = rpc::SubscribeRequest { topic: topic.into() };
    rpc::Request { call: Some(Call::Subscribe(subscribe)), ..Default::default() }
}

/// The value of a get's answer.
pub fn value_of(response: rpc::Response) -> Bytes {
    match response.result {
        Some(Answer::Get(get)) => get.entry.unwrap().value,
        other => panic!("not the answer of a get: {other:?}"),
    }
}

pub fn config(listen: &[&str]) -> HostConfig {
    HostConfig {
        keypair: Keypair::generate_ed25519(),
        listen: listen.iter().map(|address| address.parse().unwrap()).collect(),
        max_connections: 50,
        agent: "debros/test".into(),
        idle_timeout: LONG,
        limits: PeerLimits::default(),
    }
}

pub const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// A node on a TCP port, with its limits changed.
pub async fn node_with(change: impl FnOnce(&mut HostConfig)) -> (Host, Arc<TestNode>) {
    let mut config = config(&[TCP]);
    change(&mut config);
    let node = Arc::new(TestNode::default());
    (Host::start(config, Some(Arc::new(Shared(node.clone())))).await.unwrap(), node)
}

pub async fn node() -> (Host, Arc<TestNode>) {
    node_with(|_| {}).await
}

pub async fn client() -> Host {
    Host::start(config(&[]), None).await.unwrap()
}

pub fn address(host: &Host) -> Multiaddr {
    host.listen_addresses().remove(0)
}

/// A node or a client with a key that a test keeps.
pub async fn start_with_key(key: &Keypair, serves: bool) -> Host {
    let mut config = config(if serves { &[TCP] } else { &[] });
    config.keypair = key.clone();
    let handler = serves.then(|| Arc::new(Shared(Arc::default())) as Arc<dyn Handler>);
    Host::start(config, handler).await.unwrap()
}

/// A client with a channel to a node.
pub async fn connect(node: &Host) -> (Host, Channel) {
    let client = client().await;
    let channel = channel(&client, node).await;
    (client, channel)
}

pub async fn channel(client: &Host, node: &Host) -> Channel {
    let peer = client.connect(address(node), LONG).await.unwrap();
    client.open(peer).await.unwrap()
}

/// Waits for something that has no event.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Everything works for a newcomer.
pub async fn assert_serves(node: &Host) {
    let (_client, channel) = connect(node).await;
    assert_eq!(value_of(channel.call(get("still here"), LONG).await.unwrap()), "still here");
}

/// Passes the bytes of one connection on to a node, which sees them come from another address of
/// this machine; until it is cut: from then on both sides hear nothing, and no end. Returns where
/// to dial the node.
pub async fn proxy(node: &Host, from: &str) -> (Multiaddr, tokio_util::sync::CancellationToken) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = listener.local_addr().unwrap().port();
    let far = address(node).iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let cut = tokio_util::sync::CancellationToken::new();
    tokio::spawn({
        let cut = cut.clone();
        async move {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = socket.connect(([127, 0, 0, 1], far.unwrap()).into()).await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                () = cut.cancelled() => std::future::pending().await,
            }
        }
    });
    (format!("/ip4/127.0.0.1/tcp/{near}/p2p/{}", node.peer_id()).parse().unwrap(), cut)
}
