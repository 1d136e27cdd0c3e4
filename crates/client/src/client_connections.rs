//! Which node a call goes to, and whether it is sent again.

use crate::Config;
use crate::connection_keeper::{ConnectionKeeper, NodeChannels};
use debros_p2p::{Channel, EventStream, Host, HostConfig, Keypair, Multiaddr, PeerId};
use debros_proto::rpc::{Request, Response};
use debros_proto::{Code, Error, Result, lock};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The agent that this client states to nodes.
const AGENT: &str = concat!("debros-client/", env!("CARGO_PKG_VERSION"));
/// How long a call waits for a node while there is none: time for one that restarts, and short
/// enough that the caller sees an outage soon.
const WAIT_FOR_NODE: Duration = Duration::from_millis(2500);
/// How long calls that are under way may take to finish when the client closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections of a client, shared by its clones.
pub(crate) enum ClientConnections {
    Local(Channel),
    Remote(RemoteNodes),
}

pub(crate) struct RemoteNodes {
    host: Host,
    nodes: Arc<NodeChannels>,
    channels: watch::Receiver<Vec<Option<Channel>>>,
    closed: watch::Sender<bool>,
    keepers: Mutex<JoinSet<()>>,
    retry_attempts: u32,
    retry_delay: Duration,
}

impl fmt::Debug for ClientConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientConnections::Local(_) => f.write_str("Local"),
            ClientConnections::Remote(remote) => write!(f, "Remote({})", remote.host.peer_id()),
        }
    }
}

impl ClientConnections {
    pub(crate) fn local(channel: Channel) -> Self {
        ClientConnections::Local(channel)
    }

    /// Starts dialling; nothing is connected yet when this returns.
    pub(crate) async fn start(config: &Config) -> Result<Self> {
        config.validate()?;
        let addresses = config
            .bootstrap_peers
            .iter()
            .map(|text| {
                text.parse::<Multiaddr>().map_err(|error| {
                    let shown = debros_proto::ids::excerpt(text);
                    Error::invalid(format!(
                        "\"{shown}\" is not a multiaddr ({error}): write /ip4/<address>/tcp/4001/p2p/<peer id>"
                    ))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        // A client has no standing in the network that an identity would have to be kept for.
        let host_config = HostConfig::client(Keypair::generate_ed25519(), AGENT);
        let host = Host::start(host_config, None).await.map_err(|error| {
            Error::new(Code::Unavailable, format!("the P2P host does not start: {error}"))
        })?;
        let nodes = Arc::new(NodeChannels::new(addresses.len()));
        let open = nodes.channels.subscribe();
        let mut keepers = JoinSet::new();
        for (slot, address) in addresses.into_iter().enumerate() {
            let keeper = ConnectionKeeper::new(
                host.clone(),
                Arc::clone(&nodes),
                slot,
                address,
                &config.introductions,
            );
            keepers.spawn(keeper.run());
        }
        Ok(ClientConnections::Remote(RemoteNodes {
            host,
            nodes,
            channels: open,
            closed: watch::Sender::new(false),
            keepers: Mutex::new(keepers),
            retry_attempts: config.retry_attempts,
            retry_delay: config.retry_delay,
        }))
    }

    /// Starts dialling and waits for the first connection.
    pub(crate) async fn dial(config: &Config) -> Result<Self> {
        let connections = Self::start(config).await?;
        if let ClientConnections::Remote(remote) = &connections
            && let Err(error) = remote.wait_for_first_channel(config.connect_timeout).await
        {
            connections.close().await;
            return Err(error);
        }
        Ok(connections)
    }

    pub(crate) fn is_local(&self) -> bool {
        matches!(self, ClientConnections::Local(_))
    }

    pub(crate) fn peer_id(&self) -> Option<PeerId> {
        match self {
            ClientConnections::Local(_) => None,
            ClientConnections::Remote(remote) => Some(remote.host.peer_id()),
        }
    }

    pub(crate) fn node(&self) -> Option<PeerId> {
        match self {
            ClientConnections::Local(_) => None,
            ClientConnections::Remote(remote) => {
                remote.current_channel().and_then(|channel| channel.peer())
            }
        }
    }

    /// Whether the client was closed by its owner.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            ClientConnections::Local(_) => false,
            ClientConnections::Remote(remote) => *remote.closed.borrow(),
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        match self {
            ClientConnections::Local(channel) => !channel.is_closed(),
            ClientConnections::Remote(remote) => remote.current_channel().is_some(),
        }
    }

    pub(crate) fn dial_lost_nodes(&self) {
        if let ClientConnections::Remote(remote) = self
            && remote.current_channel().is_none()
        {
            remote.nodes.request_dial_until(Instant::now() + WAIT_FOR_NODE);
        }
    }

    /// Makes a call. In process there is one node and one attempt; else the call goes to the first
    /// node that is connected, and is sent again where that can do no harm.
    pub(crate) async fn call(&self, request: Request, deadline: Instant) -> Result<Response> {
        let remote = match self {
            ClientConnections::Local(channel) => {
                return channel.call(request, time_left(deadline)?).await;
            }
            ClientConnections::Remote(remote) => remote,
        };
        let mut unknown = None;
        let answer = remote.call_until_answered(request, deadline, &mut unknown).await;
        match (answer, unknown) {
            // An earlier attempt may have done it, whatever a later one says of itself.
            (Err(error), Some(unknown)) if error.says_nothing_was_done() => Err(unknown),
            (answer, _) => answer,
        }
    }

    /// Opens a stream. What a stream does is not repeated here: only its owner can decide whether
    /// that makes sense.
    pub(crate) async fn open(
        &self,
        request: Request,
        deadline: Instant,
    ) -> Result<(Response, EventStream)> {
        match self {
            ClientConnections::Local(channel) => channel.open(request, time_left(deadline)?).await,
            ClientConnections::Remote(remote) => {
                remote.wait_for_channel(deadline).await?.open(request, time_left(deadline)?).await
            }
        }
    }

    pub(crate) async fn close(&self) {
        if let ClientConnections::Remote(remote) = self {
            remote.closed.send_replace(true);
            lock(&remote.keepers).abort_all();
            remote.host.shutdown(Instant::now() + CLOSE_TIMEOUT).await;
        }
    }
}

impl RemoteNodes {
    /// Sends a call, and again where that can do no harm. Notes in `unknown` that an attempt may
    /// have done what was asked for.
    async fn call_until_answered(
        &self,
        request: Request,
        deadline: Instant,
        unknown: &mut Option<Error>,
    ) -> Result<Response> {
        let mut pause = self.retry_delay;
        let mut channel = self.wait_for_channel(deadline).await?;
        for _ in 1..self.retry_attempts {
            let error = match channel.call(request.clone(), time_left(deadline)?).await {
                Err(error) if request.may_repeat_after(&error) => error,
                answer => return answer,
            };
            if error.code == Code::UnknownOutcome {
                *unknown = Some(error.clone());
            }
            // This node cannot answer now; another one may, at once.
            if error.code == Code::Unavailable
                && let Some(other) = self.other_channel(channel.peer())
            {
                channel = other;
                continue;
            }
            let wait = error.retry_after.unwrap_or(pause);
            if Instant::now() + wait >= deadline || *self.closed.borrow() {
                return Err(error);
            }
            tracing::debug!(code = %error.code, ?wait, "a call is sent again");
            tokio::time::sleep(wait).await;
            pause *= 2;
            channel = self.wait_for_channel(deadline).await?;
        }
        channel.call(request, time_left(deadline)?).await
    }

    /// Another open channel than the one to `failed`, if there is one; else that one.
    fn other_channel(&self, failed: Option<PeerId>) -> Option<Channel> {
        let open = self.channels.borrow();
        let mut open = open.iter().flatten().filter(|channel| !channel.is_closed());
        open.find(|channel| channel.peer() != failed).cloned()
    }

    fn current_channel(&self) -> Option<Channel> {
        if *self.closed.borrow() {
            return None;
        }
        self.channels.borrow().iter().flatten().find(|channel| !channel.is_closed()).cloned()
    }

    /// A channel to a node, as soon as there is one. A call that waits here has lost nodes dialled
    /// at once.
    async fn wait_for_channel(&self, deadline: Instant) -> Result<Channel> {
        if let Some(channel) = self.current_channel() {
            return Ok(channel);
        }
        let deadline = deadline.min(Instant::now() + WAIT_FOR_NODE);
        self.nodes.request_dial_until(deadline);
        let (mut open, mut closed) = (self.channels.clone(), self.closed.subscribe());
        let waited = tokio::time::timeout_at(deadline.into(), async {
            tokio::select! {
                found = open.wait_for(|channels| channels.iter().flatten().any(|channel| !channel.is_closed())) => found.is_ok(),
                _ = closed.wait_for(|closed| *closed) => false,
            }
        });
        let found = waited.await.unwrap_or(false);
        if *self.closed.borrow() {
            return Err(Error::new(Code::Unavailable, "the client was closed"));
        }
        self.current_channel().filter(|_| found).ok_or_else(|| self.unreachable_error())
    }

    async fn wait_for_first_channel(&self, timeout: Duration) -> Result<()> {
        let mut open = self.channels.clone();
        let mut failures = self.nodes.failures.subscribe();
        let attempts = self.retry_attempts;
        let result = tokio::time::timeout(timeout, async {
            tokio::select! {
                found = open.wait_for(|channels| channels.iter().any(Option::is_some)) => found.is_ok(),
                _ = failures.wait_for(|failures| failures.iter().all(|(count, _)| *count >= attempts)) => false,
            }
        })
        .await;
        if result == Ok(true) { Ok(()) } else { Err(self.unreachable_error()) }
    }

    fn unreachable_error(&self) -> Error {
        let reasons: Vec<String> = self
            .nodes
            .failures
            .borrow()
            .iter()
            .filter(|(_, reason)| !reason.is_empty())
            .map(|(_, reason)| reason.clone())
            .collect();
        let reasons =
            if reasons.is_empty() { "no answer yet".to_owned() } else { reasons.join("; ") };
        Error::new(Code::Unavailable, "no node can be reached")
            .with_detail(reasons)
            .retry_after(Duration::from_secs(1))
    }
}

fn time_left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::new(
            Code::DeadlineExceeded,
            "no answer within the time the caller allowed",
        ));
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use crate::{Client, Config, Scope};
    use debros_p2p::{CallContext, Handler, Host, HostConfig, Keypair, Multiaddr, Reply};
    use debros_proto::rpc;
    use debros_proto::{Code, Error};
    use futures::future::BoxFuture;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Answers its first call as one whose fate is not known, and is stopping from then on.
    #[derive(Default)]
    struct LosesFirst(AtomicUsize);

    impl Handler for LosesFirst {
        fn call(
            &self,
            _: CallContext,
            _: rpc::Request,
        ) -> BoxFuture<'static, Result<Reply, Error>> {
            let code = match self.0.fetch_add(1, Ordering::Relaxed) {
                0 => Code::UnknownOutcome,
                _ => Code::Unavailable,
            };
            Box::pin(async move { Err(Error::new(code, "as told")) })
        }
    }

    /// The last attempt's "nothing was done" stood for a write that an earlier one had made.
    #[tokio::test]
    async fn what_an_attempt_may_have_done_is_not_denied_by_a_later_one() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let key = Keypair::generate_ed25519();
        let listen: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
        let mut config = HostConfig::client(key.clone(), "test");
        config.listen.push(listen.clone());
        let calls = Arc::new(LosesFirst::default());
        let node = Host::start(config, Some(Arc::clone(&calls) as Arc<dyn Handler>)).await.unwrap();
        let address = format!("{listen}/p2p/{}", key.public().to_peer_id());
        let client = Client::connect(Config::new("app").bootstrap_peer(address)).await.unwrap();
        let scope = Scope { idempotency_key: "once".to_owned(), ..client.scope().clone() };
        let put = client.scoped(scope).storage().put("k", "v").await;
        assert_eq!(put.unwrap_err().code, Code::UnknownOutcome);
        assert_eq!(calls.0.load(Ordering::Relaxed), 3, "it was sent again");
        // Without a key it is not sent again; what surely did nothing is told as that.
        let put = client.storage().put("k", "v").await;
        assert_eq!(put.unwrap_err().code, Code::Unavailable);
        client.close().await;
        node.shutdown(std::time::Instant::now()).await;
    }
}
