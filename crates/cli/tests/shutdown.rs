//! SIGTERM under load: what was accepted is answered and kept, and then the process is gone. A
//! second signal ends it at once.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test prints what it draws and finds"
)]

#[allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::http::Http;
use support::socket::{Frame, Socket};
use support::{Gateway, Node, PATIENCE};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What the graceful stop may take: 10 seconds, and room for a busy machine.
const STOP: Duration = Duration::from_secs(30);
const CLIENTS: usize = 32;
/// Requests answered before the signal is sent.
const LOAD: usize = 500;

/// What is shared by the clients that put the load on.
struct Load {
    address: SocketAddr,
    key: String,
    answered: AtomicUsize,
    enough: Notify,
    stopping: AtomicBool,
}

/// A client's last request: whether it was wholly sent before the signal, and answered.
struct Fate {
    acknowledged: Vec<String>,
    lost_before_the_signal: Option<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_accepted_request_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("node"));
    let key = node.api_key("stop");
    stop_under_load(node, None, key).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_accepted_request_is_answered_by_a_separate_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("node"));
    let key = node.api_key("stop");
    let gateway = Gateway::start(&node);
    stop_under_load(node, Some(gateway), key).await;
}

/// Stops the gateway, or the node that has it inside, and looks at what became of the requests.
async fn stop_under_load(mut node: Node, mut gateway: Option<Gateway>, key: String) {
    let address = gateway.as_ref().map_or(node.address, |gateway| gateway.address);
    let load = Arc::new(Load {
        address,
        key: key.clone(),
        answered: AtomicUsize::new(0),
        enough: Notify::new(),
        stopping: AtomicBool::new(false),
    });
    let mut listener = Socket::open(address, &key, "stop").await;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(run_client(client, Arc::clone(&load)));
    }
    load.enough.notified().await;
    let mut uploads = Vec::new();
    for number in 0..8 {
        uploads.push(Upload::start(address, &key, number).await);
    }

    load.stopping.store(true, Ordering::SeqCst);
    gateway.as_ref().map_or(&node.program, |gateway| &gateway.program).signal("TERM");
    for upload in &mut uploads {
        assert_eq!(
            upload.finish().await,
            Some(201),
            "an upload that was accepted before the signal"
        );
    }
    let fates = clients.join_all().await;
    let stopped = match &mut gateway {
        Some(gateway) => gateway.program.wait(STOP),
        None => node.program.wait(STOP),
    };
    assert!(stopped.expect("gone in time").success(), "the exit status shows an ordered stop");
    let lost: Vec<_> =
        fates.iter().filter_map(|fate| fate.lost_before_the_signal.as_ref()).collect();
    assert!(
        lost.is_empty(),
        "{} requests were sent before the signal and not answered: {lost:?}",
        lost.len()
    );
    assert!(
        matches!(listener.next().await, Frame::Close(Some(1001 | 1012))),
        "a WebSocket gets a close frame"
    );

    // What was acknowledged is there when the node is back.
    let node = if gateway.is_some() { node } else { Node::start(&node.data_dir) };
    let http = Http::new(node.address, &key);
    for key in fates.iter().flat_map(|fate| &fate.acknowledged) {
        assert_eq!(http.get_value(key).await.ok().body, key.as_bytes());
    }
    for number in 0..uploads.len() {
        assert_eq!(http.get_value(&format!("upload-{number}")).await.ok().body.len(), Upload::SIZE);
    }
}

/// Puts on one connection until the server ends it.
async fn run_client(client: usize, load: Arc<Load>) -> Fate {
    let mut fate = Fate { acknowledged: Vec::new(), lost_before_the_signal: None };
    let mut stream = TcpStream::connect(load.address).await.expect("the gateway listens");
    for number in 0.. {
        let name = format!("{client}-{number}");
        let request = format!(
            "PUT /v1/storage?key={name} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{name}",
            load.key,
            name.len(),
        );
        let sent = stream.write_all(request.as_bytes()).await.is_ok();
        let before_the_signal = sent && !load.stopping.load(Ordering::SeqCst);
        let Some(head) = read_head(&mut stream).await.filter(|_| sent) else {
            if before_the_signal {
                fate.lost_before_the_signal = Some(name);
            }
            return fate;
        };
        assert!(head.starts_with("HTTP/1.1 201"), "{head}");
        fate.acknowledged.push(name);
        if load.answered.fetch_add(1, Ordering::SeqCst) + 1 == LOAD {
            load.enough.notify_one();
        }
        if head.to_ascii_lowercase().contains("\r\nconnection: close") {
            return fate;
        }
    }
    fate
}

/// A put of which the server has read the head, and is waiting for the body.
struct Upload {
    stream: TcpStream,
}

impl Upload {
    const SIZE: usize = 100_000;

    async fn start(address: SocketAddr, key: &str, number: usize) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("the gateway listens");
        let head = format!(
            "PUT /v1/storage?key=upload-{number} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {key}\r\n\
             Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            Self::SIZE,
        );
        stream.write_all(head.as_bytes()).await.expect("the gateway reads");
        let mut answer = [0; 25];
        stream.read_exact(&mut answer).await.expect("an interim answer");
        assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
        Self { stream }
    }

    /// Sends the body and returns the status of the answer.
    async fn finish(&mut self) -> Option<u16> {
        self.stream.write_all(&vec![b'u'; Self::SIZE]).await.ok()?;
        read_head(&mut self.stream).await?.split(' ').nth(1)?.parse().ok()
    }
}

/// Reads an answer, and returns it from its status line to the end of its body; `None` when it does
/// not come.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.to_ascii_lowercase().split_once("content-length: ").map_or(0, |(_, rest)| {
                    rest.lines()
                        .next()
                        .and_then(|line| line.trim().parse::<usize>().ok())
                        .expect("a length")
                });
            if body.len() >= length {
                return Some(text);
            }
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_the_process_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(&folder.path().join("node"));
    let key = node.api_key("stop");
    // Its body never comes, so that the ordered stop has something to wait for.
    let _upload = Upload::start(node.address, &key, 0).await;
    node.program.signal("TERM");
    let started = Instant::now();
    // The first signal has arrived when nobody can connect any more.
    while TcpStream::connect(node.address).await.is_ok() {
        assert!(started.elapsed() < PATIENCE, "the listener is still open");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(node.program.is_running(), "it waits for what it has accepted");
    node.program.signal("TERM");
    let status = node.program.wait(PATIENCE).expect("it ends");
    // It did not wait for the ordered stop, which ends otherwise.
    assert_eq!(status.code(), Some(143), "the exit status shows that something was cut off");
    let output = node.program.output();
    assert!(output.contains("a second signal: ending at once"), "{output}");
    // Nothing of that does harm.
    Node::start(&node.data_dir).stop();
}
