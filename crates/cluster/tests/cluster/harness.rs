//! Databases of a cluster, and what connects them.

use crate::support::{own_address, program};
use async_trait::async_trait;
use debros_cluster::{
    ClusterConfig, ClusterDatabase, ClusterEngine, CommittedEntries, LeaderLink, LocalState,
};
use debros_engine::embedded::EmbeddedConfig;
use debros_engine::{CallOptions, CallerKey, Engine, IdempotencyKey, TargetDatabase};
use debros_proto::rpc::{
    Consistency, LeaderWriteRequest, LeaderWriteResponse, Statement, StatementResult, Value,
};
use debros_proto::{Code, Error, Namespace, Result};
use debros_rqlite::{RqliteLog, Rqlited, RqlitedConfig};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Far more than anything takes here; other programs run on the same processors.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The databases that can be reached, by name.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<HashMap<String, Arc<ClusterDatabase>>>>);

impl Network {
    fn find(&self, node: &str) -> Result<Arc<ClusterDatabase>> {
        let found = self.0.lock().unwrap().get(node).cloned();
        found.ok_or_else(|| Error::new(Code::Unavailable, "the node is not there"))
    }

    pub(crate) fn disconnect(&self, node: &str) {
        self.0.lock().unwrap().remove(node);
    }
}

#[async_trait]
impl LeaderLink for Network {
    async fn position(&self, leader: &str, confirm: bool) -> Result<u64> {
        self.find(leader)?.position(confirm).await
    }

    async fn write(
        &self,
        leader: &str,
        request: LeaderWriteRequest,
        deadline: Instant,
    ) -> Result<LeaderWriteResponse> {
        self.find(leader)?.serve_write(request, deadline).await
    }

    async fn checksum(&self, node: &str, database: &str, entry: u64) -> Result<Option<[u8; 32]>> {
        self.find(node)?.checksum(database, entry).await
    }

    async fn follow(&self, leader: &str) -> Result<tokio::sync::mpsc::Receiver<CommittedEntries>> {
        let mut entries = self.find(leader)?.follow()?;
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok(entries) = entries.recv().await {
                if sender.send(entries).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }
}

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) rqlited: Rqlited,
    pub(crate) database: Arc<ClusterDatabase>,
}

impl Node {
    pub(crate) fn engine(&self) -> Arc<ClusterEngine> {
        self.database.engine()
    }
}

pub(crate) struct Cluster {
    pub(crate) folder: TempDir,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    raft: Vec<SocketAddr>,
    settings: Settings,
}

/// What a test has otherwise than others.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) configure: fn(&mut EmbeddedConfig),
    pub(crate) max_log: u64,
    pub(crate) compare_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            configure: |_| {},
            max_log: 256 << 20,
            compare_interval: Duration::from_secs(60 * 60),
        }
    }
}

impl Cluster {
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_set_up(count, Settings::default()).await
    }

    /// As [`start`](Cluster::start), with other settings of the engines.
    pub(crate) async fn start_with(count: usize, configure: fn(&mut EmbeddedConfig)) -> Self {
        Self::start_set_up(count, Settings { configure, ..Settings::default() }).await
    }

    /// As [`start`](Cluster::start), with other settings.
    pub(crate) async fn start_set_up(count: usize, settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let raft: Vec<_> = (0..count).map(|_| own_address()).collect();
        let network = Network::default();
        let mut cluster = Self { folder, nodes: Vec::new(), network, raft, settings };
        cluster.start_nodes().await;
        cluster
    }

    async fn start_nodes(&mut self) {
        let mut rqliteds = Vec::new();
        for number in 0..self.raft.len() {
            rqliteds.push(start_rqlited(self.folder.path(), number, &self.raft).await);
        }
        for (number, rqlited) in rqliteds.into_iter().enumerate() {
            assert!(rqlited.wait_serving(LONG).await, "{:?}", rqlited.state().borrow());
            if number == 0 {
                RqliteLog::new(rqlited.client()).create_tables().await.unwrap();
            }
            let node = self.start_database(number, rqlited);
            self.nodes.push(node);
        }
        for node in &self.nodes {
            assert!(node.database.wait_ready(LONG).await, "{:?}", node.database.status());
        }
    }

    /// Ends all nodes, and starts them again.
    pub(crate) async fn restart_all(&mut self) {
        self.stop_nodes().await;
        self.start_nodes().await;
    }

    /// Ends all nodes. Returns the folder and the nodes' names, which are those of their folders.
    pub(crate) async fn close(mut self) -> (TempDir, Vec<String>) {
        let names = self.nodes.iter().map(|node| node.name.clone()).collect();
        self.stop_nodes().await;
        (self.folder, names)
    }

    /// The node that leads, when one does.
    pub(crate) async fn leader(&self) -> usize {
        let until = Instant::now() + LONG;
        loop {
            if let Some(leader) = self.nodes.iter().position(|node| node.database.is_leader()) {
                return leader;
            }
            assert!(Instant::now() < until, "no node leads");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Takes a node away as a power cut would take its programs.
    pub(crate) async fn kill(&mut self, number: usize) {
        let node = self.nodes.remove(number);
        self.network.disconnect(&node.name);
        if let Some(pid) = node.rqlited.pid() {
            kill(pid);
        }
        let engine = node.engine();
        node.rqlited.stop(LONG).await;
        drop(node.database);
        engine.close_by(Instant::now() + LONG).await;
        drop(engine);
    }

    /// Starts a node again that was taken away.
    pub(crate) async fn restart(&mut self, name: &str) {
        let node = self.restart_unready(name).await;
        assert!(node.wait_ready(LONG).await, "{:?}", node.status());
    }

    /// As [`restart`](Cluster::restart), without waiting until it serves.
    pub(crate) async fn restart_unready(&mut self, name: &str) -> Arc<ClusterDatabase> {
        let number: usize = name.trim_start_matches('n').parse().unwrap();
        let rqlited = start_rqlited(self.folder.path(), number, &self.raft).await;
        assert!(rqlited.wait_serving(LONG).await, "{:?}", rqlited.state().borrow());
        let node = self.start_database(number, rqlited);
        let database = Arc::clone(&node.database);
        self.nodes.push(node);
        database
    }

    pub(crate) async fn stop(mut self) {
        self.stop_nodes().await;
    }

    async fn stop_nodes(&mut self) {
        for node in self.nodes.drain(..) {
            self.network.disconnect(&node.name);
            node.database.step_down();
            node.engine().close_by(Instant::now() + LONG).await;
            node.rqlited.stop(Duration::from_secs(10)).await;
        }
    }

    fn start_database(&self, number: usize, rqlited: Rqlited) -> Node {
        start_database(self.folder.path(), number, rqlited, &self.network, self.settings)
    }
}

async fn start_rqlited(folder: &Path, number: usize, raft: &[SocketAddr]) -> Rqlited {
    let data = folder.join(format!("n{number}/rqlite"));
    std::fs::create_dir_all(&data).unwrap();
    let mut config = RqlitedConfig::alone(program(), data, format!("n{number}"));
    config.raft = raft[number];
    config.join = raft.iter().map(ToString::to_string).collect();
    config.bootstrap_expect = Some(u32::try_from(raft.len()).unwrap());
    config.join_password = Some("the same everywhere".to_owned());
    Rqlited::start(config).await.unwrap()
}

fn start_database(
    folder: &Path,
    number: usize,
    rqlited: Rqlited,
    network: &Network,
    settings: Settings,
) -> Node {
    let name = format!("n{number}");
    let data = folder.join(&name).join("db");
    std::fs::create_dir_all(&data).unwrap();
    let state = LocalState::read(&data).unwrap();
    let state = state.unwrap_or(LocalState {
        cluster: "test".to_owned(),
        durable: 0,
        begins: false,
        non_voter: false,
        raft_peers: Vec::new(),
    });
    let mut engine =
        EmbeddedConfig { max_namespace_size: Some(32 << 20), ..EmbeddedConfig::new(data) };
    (settings.configure)(&mut engine);
    let Settings { max_log, compare_interval, .. } = settings;
    let config = ClusterConfig { node: name.clone(), engine, state, max_log, compare_interval };
    let log = RqliteLog::new(rqlited.client());
    let database =
        Arc::new(ClusterDatabase::start(config, log, Arc::new(network.clone())).unwrap());
    network.0.lock().unwrap().insert(name.clone(), Arc::clone(&database));
    Node { name, rqlited, database }
}

fn kill(pid: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    // It may have ended by itself.
    let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL);
}

pub(crate) fn namespace() -> Namespace {
    Namespace::new("app").unwrap()
}

pub(crate) fn options(consistency: Consistency) -> CallOptions {
    CallOptions {
        consistency,
        deadline: Instant::now() + LONG,
        idempotency_key: None,
        caller: CallerKey::default(),
        read_only: false,
    }
}

pub(crate) fn keyed(key: &str) -> CallOptions {
    let idempotency_key =
        IdempotencyKey { namespace: namespace(), key: key.to_owned(), request_hash: [7; 32] };
    CallOptions { idempotency_key: Some(idempotency_key), ..options(Consistency::Weak) }
}

pub(crate) async fn query(
    engine: &dyn Engine,
    sql: &str,
    options: CallOptions,
) -> Result<StatementResult> {
    let database = TargetDatabase::Namespace(namespace());
    engine.query(&database, Statement::from(sql), options).await.map(|outcome| outcome.value)
}

pub(crate) fn integer(result: &StatementResult) -> i64 {
    use debros_proto::rpc::value::Kind;
    match &result.rows[0].values[0] {
        Value { kind: Some(Kind::Integer(number)) } => *number,
        other => panic!("{other:?}"),
    }
}
