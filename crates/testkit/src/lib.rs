//! A test network in two lines. For development only: nothing that ships depends on this.
//!
//! ```no_run
//! # async fn run() {
//! let node = debros_testkit::TestNode::start().await;
//! let client = node.client("my-app").await;
//! client.storage().put("k", "v").await.unwrap();
//! # }
//! ```
//!
//! Everything runs on free ports of the loopback address, in a folder that is removed with the
//! node. A failure to start panics: in a test that is the right message.

use debros_client::{Client, Config};
use debros_engine::Engine;
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_gateway::{Gateway, GatewayConfig};
use debros_node::{Multiaddr, Node, NodeConfig};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A node of this process with a folder of its own.
pub struct TestNode {
    node: Node,
    folder: TempDir,
    /// The engine that it shares with others.
    shared: Option<Arc<dyn Engine>>,
}

/// A node that was stopped, with its folder.
pub struct StoppedNode {
    folder: TempDir,
    shared: Option<Arc<dyn Engine>>,
    addresses: Vec<Multiaddr>,
}

impl StoppedNode {
    /// The folder of all the node's files, under `node/`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the node again on its addresses, with settings of the test's own.
    pub async fn start(self, change: impl FnOnce(&mut NodeConfig)) -> TestNode {
        let Self { folder, shared, addresses } = self;
        TestNode::start_in(folder, shared, |config| {
            config.listen_addresses = addresses;
            change(config);
        })
        .await
    }
}

impl TestNode {
    /// A node with default settings.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A node with settings of the test's own.
    pub async fn start_with(change: impl FnOnce(&mut NodeConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(folder, None, change).await
    }

    /// A node on a shared engine, as the nodes of a network share one database. It has a folder of
    /// its own for everything else.
    pub async fn start_on(engine: Arc<dyn Engine>, change: impl FnOnce(&mut NodeConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(folder, Some(engine), change).await
    }

    async fn start_in(
        folder: TempDir,
        shared: Option<Arc<dyn Engine>>,
        change: impl FnOnce(&mut NodeConfig),
    ) -> Self {
        let mut config = NodeConfig::new(folder.path().join("node"));
        config.listen_addresses = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddr")];
        config.max_connections = 1000;
        config.database.backup_interval = None;
        // A test of the cluster's database says so: it needs rqlited, which few tests do.
        config.cluster.is_wanted = false;
        change(&mut config);
        let started = match &shared {
            Some(engine) => Node::start_on(config, Arc::clone(engine)).await,
            None => Node::start(config).await,
        };
        let node = started.unwrap_or_else(|error| panic!("the node does not start: {error}"));
        Self { node, folder, shared }
    }

    /// Stops the node and starts it again on its folder and its addresses.
    pub async fn restart(self) -> Self {
        self.restart_with(|_| {}).await
    }

    /// As [`restart`](TestNode::restart), with settings of the test's own: those of the first start
    /// are not kept.
    pub async fn restart_with(self, change: impl FnOnce(&mut NodeConfig)) -> Self {
        self.restart_between(|| {}, change).await
    }

    /// As [`restart`](TestNode::restart), changing the folder while no node uses it.
    pub async fn restart_after(self, act: impl FnOnce()) -> Self {
        self.restart_between(act, |_| {}).await
    }

    async fn restart_between(
        self,
        act: impl FnOnce(),
        change: impl FnOnce(&mut NodeConfig),
    ) -> Self {
        let stopped = self.stop().await;
        act();
        stopped.start(change).await
    }

    /// Stops the node, and keeps its folder and its addresses.
    pub async fn stop(self) -> StoppedNode {
        let Self { node, folder, shared } = self;
        let mut addresses = node.listen_addresses();
        for address in &mut addresses {
            // Listening takes an address without the peer id at its end.
            address.pop();
        }
        node.shutdown(in_ten_seconds()).await;
        StoppedNode { folder, shared, addresses }
    }

    /// The running node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The folder of all the node's files, under `node/`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where a client dials the node.
    pub fn address(&self) -> String {
        self.node.listen_addresses().first().expect("the node listens").to_string()
    }

    /// A new API key with all rights in a namespace.
    pub async fn api_key(&self, namespace: &str) -> String {
        self.api_key_with(namespace, "admin", &[]).await
    }

    /// A new API key with a role and scopes.
    pub async fn api_key_with(&self, namespace: &str, role: &str, scopes: &[&str]) -> String {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let made = self
            .operator_client("")
            .operator()
            .create_api_key(namespace, "test", role, scopes)
            .await;
        made.expect("an API key").api_key
    }

    /// A client over P2P with a new key for a namespace.
    pub async fn client(&self, namespace: &str) -> Client {
        let key = self.api_key(namespace).await;
        self.client_with(namespace, &key).await
    }

    /// A client over P2P with a credential.
    pub async fn client_with(&self, namespace: &str, credential: &str) -> Client {
        let config = Config::new(namespace).bootstrap_peer(self.address()).credential(credential);
        Client::connect(config).await.expect("a connection to the node")
    }

    /// A client over P2P without a credential.
    pub async fn client_without_credential(&self) -> Client {
        self.client_with("", "").await
    }

    /// A client in this process with the operator's credential.
    pub fn operator_client(&self, namespace: &str) -> Client {
        Client::local(
            self.node.handler(),
            &Config::new(namespace).credential(self.node.operator_credential()),
        )
    }

    /// A gateway inside the node, on a free port.
    pub async fn gateway(&self) -> Gateway {
        self.gateway_with(|_| {}).await
    }

    /// A gateway inside the node with settings of the test's own.
    pub async fn gateway_with(&self, change: impl FnOnce(&mut GatewayConfig)) -> Gateway {
        let mut config = GatewayConfig::new("127.0.0.1:0");
        config.operator_credential = Some(self.node.operator_credential().to_owned());
        change(&mut config);
        let client = Client::local(self.node.handler(), &Config::new(""));
        Gateway::start(config, client, None)
            .await
            .unwrap_or_else(|error| panic!("the gateway does not start: {error}"))
    }

    /// Stops the node in order.
    pub async fn shutdown(self) {
        self.node.shutdown(in_ten_seconds()).await;
    }
}

/// An engine in a folder, for nodes that share one.
///
/// # Panics
/// When it does not open.
pub async fn engine(folder: &Path) -> Arc<dyn Engine> {
    let config = EmbeddedConfig::new(folder.join("db"));
    let opened =
        tokio::task::spawn_blocking(move || EmbeddedEngine::open(config)).await.expect("a thread");
    Arc::new(opened.unwrap_or_else(|error| panic!("the engine does not open: {error}")))
}

fn in_ten_seconds() -> Instant {
    Instant::now() + Duration::from_secs(10)
}
