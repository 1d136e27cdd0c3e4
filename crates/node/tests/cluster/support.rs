//! Nodes that form clusters.

use debros_client::rpc::ClusterStatusResponse;
use debros_node::{Clock, JoinToken, Node, NodeConfig, NodeStartError, PeerId};
use debros_testkit::TestNode;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// Long enough for any machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The first node of a cluster.
pub(crate) async fn first_node(name: &str) -> TestNode {
    let node = TestNode::start_with(|config| config.node_id = name.into()).await;
    node.operator_client("").cluster().init().await.unwrap();
    node
}

/// A join token of a node.
pub(crate) async fn token(node: &TestNode) -> JoinToken {
    token_text(node).await.parse().unwrap()
}

pub(crate) async fn token_text(node: &TestNode) -> String {
    node.operator_client("").cluster().create_join_token().await.unwrap().token
}

/// A new node that joins with a token.
pub(crate) async fn join_with(name: &str, token: JoinToken) -> TestNode {
    TestNode::start_with(|config| {
        config.node_id = name.into();
        config.cluster.join = Some(token);
    })
    .await
}

/// A new node that joins the cluster of a node.
pub(crate) async fn join(name: &str, at: &TestNode) -> TestNode {
    join_with(name, token(at).await).await
}

/// What a node says that cannot join or start.
pub(crate) async fn refused(folder: &Path, change: impl FnOnce(&mut NodeConfig)) -> String {
    let mut config = NodeConfig::new(folder.join("node"));
    config.listen_addresses = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    config.database.backup_interval = None;
    config.cluster.is_wanted = false;
    change(&mut config);
    match Node::start(config).await {
        Err(NodeStartError::Cluster(error)) => error.message,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the node started"),
    }
}

/// A new folder, and what a node says that wants to join from there.
pub(crate) async fn refused_to_join(name: &str, token: JoinToken) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let error = refused(folder.path(), |config| {
        config.node_id = name.into();
        config.cluster.join = Some(token);
    })
    .await;
    (folder, error)
}

/// Waits until a node has proven connections to exactly these.
pub(crate) async fn connected(node: &TestNode, others: &[&TestNode]) {
    let mut wanted: Vec<PeerId> = others.iter().map(|other| other.node().peer_id()).collect();
    wanted.sort_unstable();
    let mut changes = node.node().members().changes();
    let there = changes.wait_for(|members| members.keys().copied().eq(wanted.iter().copied()));
    if tokio::time::timeout(LONG, there).await.is_err() {
        let has = node.node().members().connected();
        panic!("{} has {:?} and not {wanted:?}", node.node().peer_id(), has.keys());
    }
}

/// Waits until each of the nodes is connected to all others.
pub(crate) async fn all_connected(nodes: &[&TestNode]) {
    for node in nodes {
        let id = node.node().peer_id();
        let others: Vec<&TestNode> =
            nodes.iter().copied().filter(|other| other.node().peer_id() != id).collect();
        connected(node, &others).await;
    }
}

pub(crate) async fn status(node: &TestNode) -> ClusterStatusResponse {
    node.operator_client("").cluster().status().await.unwrap()
}

/// The names of the nodes, with their roles.
pub(crate) async fn roles(node: &TestNode) -> Vec<String> {
    let nodes = status(node).await.nodes.into_iter().filter_map(|status| status.node);
    nodes.map(|node| format!("{} {}", node.name, node.role)).collect()
}

/// The first lines of the key's file: the cluster's id, and the key.
pub(crate) fn cluster_key(node: &TestNode) -> String {
    let text = std::fs::read_to_string(node.folder().join("node/cluster.key")).unwrap();
    text.lines().find(|line| line.starts_with("key ")).unwrap().to_owned()
}

/// A clock for a node that shall expire something.
pub(crate) fn clock() -> Clock {
    Clock::movable()
}
