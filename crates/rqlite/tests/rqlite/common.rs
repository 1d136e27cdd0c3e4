//! Starting nodes, and faults between us and them.

use crate::support::{own_address, program};
use bytes::Bytes;
use debros_rqlite::{NewEntry, Rqlited, RqlitedConfig, certificates};
use rustix::process::{Pid, Signal, kill_process};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Far more than anything takes here; other programs run on the same processors.
pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const KEY: [u8; 32] = [7; 32];

/// A node alone in a folder.
pub(crate) async fn alone(folder: &Path) -> Rqlited {
    let config = RqlitedConfig::alone(program(), folder.to_owned(), "n1");
    let node = Rqlited::start(config).await.unwrap();
    assert!(node.wait_serving(LONG).await, "{:?}", node.state().borrow());
    node
}

/// Nodes of one cluster, whose Raft ports speak mutual TLS.
pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    pub(crate) nodes: Vec<Rqlited>,
    pub(crate) raft: Vec<SocketAddr>,
}

impl Cluster {
    pub(crate) async fn start(count: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let raft: Vec<_> = (0..count).map(|_| own_address()).collect();
        let mut nodes = Vec::new();
        for (number, address) in raft.iter().enumerate() {
            let mut config = member(folder.path(), &format!("n{number}"), &KEY);
            config.raft = *address;
            config.join = raft.iter().map(ToString::to_string).collect();
            config.bootstrap_expect = Some(count);
            nodes.push(Rqlited::start(config).await.unwrap());
        }
        for node in &nodes {
            assert!(node.wait_serving(LONG).await, "{:?}", node.state().borrow());
        }
        Self { folder, nodes, raft }
    }

    /// The node that says that it leads.
    pub(crate) async fn leader(&self) -> usize {
        let until = Instant::now() + LONG;
        loop {
            for (number, node) in self.nodes.iter().enumerate() {
                if node.client().is_leader().await == Ok(true) {
                    return number;
                }
            }
            assert!(Instant::now() < until, "no node leads");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn stop(self) {
        for node in self.nodes {
            node.stop(Duration::from_secs(10)).await;
        }
    }
}

/// A node with certificates and password of a cluster key.
pub(crate) fn member(folder: &Path, name: &str, key: &[u8; 32]) -> RqlitedConfig {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let mut config = RqlitedConfig::alone(program(), folder.clone(), name);
    config.tls = Some(certificates::write(key, &[], &folder).unwrap());
    config.join_password = Some(certificates::join_password(key));
    config
}

/// Ends one of our own children the hard way.
pub(crate) fn kill(node: &Rqlited) -> u32 {
    let pid = node.pid().expect("it runs");
    signal(pid, Signal::KILL);
    pid
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

pub(crate) fn entry(entry: u64, body: impl Into<Bytes>) -> NewEntry {
    NewEntry { entry, body: body.into() }
}

pub(crate) fn soon() -> Instant {
    Instant::now() + LONG
}

/// Passes calls on and loses as many answers as it is told.
pub(crate) struct AnswerThief {
    pub(crate) address: SocketAddr,
    to_lose: Arc<AtomicUsize>,
}

impl AnswerThief {
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let to_lose = Arc::new(AtomicUsize::new(0));
        let losing = Arc::clone(&to_lose);
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let losing = Arc::clone(&losing);
                tokio::spawn(async move {
                    let _ = pass_on(caller, server, &losing).await;
                });
            }
        });
        Self { address, to_lose }
    }

    pub(crate) fn lose(&self, answers: usize) {
        self.to_lose.store(answers, Ordering::SeqCst);
    }

    pub(crate) fn left(&self) -> usize {
        self.to_lose.load(Ordering::SeqCst)
    }
}

async fn pass_on(
    mut caller: TcpStream,
    server: SocketAddr,
    to_lose: &AtomicUsize,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    loop {
        let Some(request) = read_message(&mut caller).await? else { return Ok(()) };
        server.write_all(&request).await?;
        let Some(answer) = read_message(&mut server).await? else { return Ok(()) };
        let lost = to_lose
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok();
        if lost {
            return Ok(());
        }
        caller.write_all(&answer).await?;
    }
}

/// A head and as much body as its Content-Length says.
async fn read_message(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut message = Vec::new();
    loop {
        if let Some(end) = message.windows(4).position(|part| part == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&message[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if message.len() >= end + 4 + length {
                return Ok(Some(message));
            }
        }
        if stream.read_buf(&mut message).await? == 0 {
            return Ok(None);
        }
    }
}
