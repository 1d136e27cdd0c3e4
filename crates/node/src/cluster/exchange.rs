//! What nodes tell each other of the register: those whose databases do not share it yet, or are
//! behind, learn of new and removed nodes in this way.

use super::cluster_state::ClusterState;
use super::node_record::NodeRecord;
use super::prove::{call_node, unexpected_answer};
use debros_p2p::Channel;
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, response};
use debros_proto::{Error, Result};

/// Nodes of one message.
const MAX_NODES: usize = 10_000;

/// Sends the register to another node and learns what that one's has beyond it.
///
/// # Errors
/// The other node's, or those of the database.
pub(super) async fn exchange_nodes(state: &ClusterState, channel: &Channel) -> Result<()> {
    let nodes = state.nodes().values().map(NodeRecord::to_message).collect();
    let call = Call::ExchangeNodes(rpc::ExchangeNodesRequest { nodes });
    match call_node(channel, call).await? {
        response::Result::ExchangeNodes(answer) => learn_nodes(state, &answer.nodes).await,
        _ => Err(unexpected_answer()),
    }
}

/// Learns what another node's register has beyond this one's.
///
/// # Errors
/// `invalid_argument` when something in it has the wrong form; then nothing is learned.
pub(super) async fn learn_nodes(state: &ClusterState, nodes: &[rpc::ClusterNode]) -> Result<()> {
    if nodes.len() > MAX_NODES {
        return Err(Error::invalid(format!("a cluster has at most {MAX_NODES} nodes")));
    }
    let records = nodes.iter().map(NodeRecord::from_message).collect::<Result<_>>()?;
    state.learn(records).await.map(|_| ())
}
