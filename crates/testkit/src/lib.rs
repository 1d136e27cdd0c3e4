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
//! Everything runs on free ports of the loopback address, in a folder that goes away with the node. A failure to start
//! panics: in a test that is the message one wants.

use debros_client::{Client, Config};
use debros_gateway::{Gateway, GatewayConfig};
use debros_node::{Node, NodeConfig};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A node of this process with a folder of its own.
pub struct TestNode {
    node: Node,
    folder: TempDir,
}

impl TestNode {
    /// A node with default settings.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A node with settings of the test's own.
    pub async fn start_with(change: impl FnOnce(&mut NodeConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(folder, change).await
    }

    async fn start_in(folder: TempDir, change: impl FnOnce(&mut NodeConfig)) -> Self {
        let mut config = NodeConfig::new(folder.path().join("node"));
        config.listen_addresses = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddr")];
        config.max_connections = 1000;
        config.database.backup_interval = None;
        change(&mut config);
        let node = Node::start(config).await.unwrap_or_else(|error| panic!("the node does not start: {error}"));
        Self { node, folder }
    }

    /// Stops the node and starts it again on its folder and its addresses.
    pub async fn restart(self) -> Self {
        let Self { node, folder } = self;
        let mut addresses = node.listen_addresses();
        for address in &mut addresses {
            // Listening takes an address without the peer id at its end.
            address.pop();
        }
        node.shutdown(in_ten_seconds()).await;
        Self::start_in(folder, |config| config.listen_addresses = addresses).await
    }

    /// The running node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The folder that holds everything the node keeps, under `node/`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where a client dials the node.
    pub fn address(&self) -> String {
        self.node.listen_addresses().first().expect("the node listens").to_string()
    }

    /// A new API key that may do everything in a namespace.
    pub async fn api_key(&self, namespace: &str) -> String {
        self.api_key_with(namespace, "admin", &[]).await
    }

    /// A new API key with a role and scopes.
    pub async fn api_key_with(&self, namespace: &str, role: &str, scopes: &[&str]) -> String {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let made = self.operator("").operator().create_api_key(namespace, "test", role, scopes).await;
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

    /// A client in this process with the operator's credential.
    pub fn operator(&self, namespace: &str) -> Client {
        Client::local(self.node.handler(), &Config::new(namespace).credential(self.node.operator_credential()))
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
        Gateway::start(config, client, None).await.unwrap_or_else(|error| panic!("the gateway does not start: {error}"))
    }

    /// Stops the node in order.
    pub async fn shutdown(self) {
        self.node.shutdown(in_ten_seconds()).await;
    }
}

fn in_ten_seconds() -> Instant {
    Instant::now() + Duration::from_secs(10)
}
