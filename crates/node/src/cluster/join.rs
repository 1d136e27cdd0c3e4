//! How a node enters a cluster with a join token: the side that enters, and the side that lets it
//! in.

use super::cluster_key::ClusterKey;
use super::cluster_state::{ClusterState, name_taken_error};
use super::exchange::learn_nodes;
use super::join_token::{JoinToken, hash_secret};
use super::keyring::Keyring;
use super::node_record::{NodeDescription, NodeRecord};
use super::proof_server::{
    ProofServer, check_version, other_cluster_error, parse_incarnation, removed_error,
};
use super::prove::{PROOF_VERSION, unexpected_answer};
use super::register::{JoiningNode, TokenState};
use debros_p2p::{Channel, PeerId};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, response};
use debros_proto::{Code, Error, Result};
use std::time::Duration;

/// How long each step on the way to the node of the token may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// Enters the cluster of a token; does nothing when the node is in it already. A failure leaves the
/// node as it was, and the same token can be used again by it.
///
/// # Errors
/// What the node of the token says, or why it cannot be reached.
pub(super) async fn join_cluster(state: &ClusterState, token: &JoinToken) -> Result<()> {
    let _alone = state.changing.lock().await;
    if let Some(keyring) = state.find_keyring() {
        if keyring.cluster_id() == token.cluster_id() {
            tracing::info!("the node is in the cluster of the join token already");
            return Ok(());
        }
        return Err(other_cluster_error(token.cluster_id(), keyring.cluster_id()));
    }
    if token.peer_id() == state.own.peer_id {
        return Err(Error::new(
            Code::Conflict,
            "the join token is of a node with this node's own identity: identity.key was copied. Start this one with an empty data \
             folder",
        ));
    }
    let channel = dial(state, token).await?;
    let own = state.own_description()?;
    let request = rpc::JoinClusterRequest {
        cluster_id: token.cluster_id().to_owned(),
        secret: token.secret().to_vec().into(),
        protocol_version: PROOF_VERSION,
        addresses: own.address_texts(),
        name: own.name,
        raft_address: own.raft_address,
        version: own.version,
        incarnation: state.own.incarnation.to_vec().into(),
    };
    let call = Some(Call::JoinCluster(request));
    let request = rpc::Request { call, ..Default::default() };
    let answer = channel.call(request, STEP_TIMEOUT).await?;
    let Some(response::Result::JoinCluster(answer)) = answer.result else {
        return Err(unexpected_answer());
    };
    let keyring = Keyring::joined(token.cluster_id(), ClusterKey::from_message(answer.key)?)?;
    // The key last: with it the node is one of the cluster.
    state.register.make_tables().await?;
    learn_nodes(state, &answer.nodes).await?;
    state.enter_cluster(keyring).await?;
    tracing::info!(cluster = token.cluster_id(), "the node has joined the cluster");
    Ok(())
}

/// A channel to the node of the token. The connection's handshake proves that it is that peer.
async fn dial(state: &ClusterState, token: &JoinToken) -> Result<Channel> {
    let host = state.host()?;
    let mut failed = Error::invalid("the join token holds no address");
    for address in token.addresses() {
        match host.connect(address.clone(), STEP_TIMEOUT).await {
            Ok(peer) if peer == token.peer_id() => return host.open(peer).await,
            Ok(_) => failed = unexpected_answer(),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Lets a new node in that shows the secret of a token: uses the token up, enters the node in the
/// register, and returns the key.
///
/// # Errors
/// A sentence that says why the node does not get in; then nothing has changed.
pub(super) async fn admit_node(
    state: &ClusterState,
    proofs: &ProofServer,
    peer: PeerId,
    request: rpc::JoinClusterRequest,
) -> Result<()> {
    let keyring = state.keyring()?;
    check_version(request.protocol_version)?;
    if request.cluster_id != keyring.cluster_id() {
        return Err(other_cluster_error(&request.cluster_id, keyring.cluster_id()));
    }
    let description = NodeDescription::parse(
        &request.name,
        &request.addresses,
        &request.raft_address,
        &request.version,
    )?;
    let token_hash = hash_secret(&request.secret);
    check_token(state.register.token_state(token_hash, peer).await?)?;
    proofs.check_only_one(&peer, &parse_incarnation(&request.incarnation)?).await?;
    let node = JoiningNode { peer_id: peer, description: &description, token_hash };
    if state.register.enter_with_token(&node).await? {
        tracing::info!(%peer, name = description.name, "a node has joined the cluster");
        return Ok(());
    }
    // The transaction did nothing: what stood in its way is in the register, or came this moment.
    state.reload().await?;
    if let Some(removed) = state.nodes().get(&peer).filter(|node| node.is_removed()) {
        return Err(removed_error(removed));
    }
    if let Some(other) = state.node_named(&description.name, &peer) {
        return Err(name_taken_error(&description.name, &other));
    }
    check_token(state.register.token_state(token_hash, peer).await?)?;
    Err(Error::new(Code::Conflict, "another node joined at the same time: try again"))
}

/// What a node that was let in is given.
pub(super) fn welcome(state: &ClusterState) -> Result<rpc::JoinClusterResponse> {
    Ok(rpc::JoinClusterResponse {
        key: Some(state.keyring()?.current().to_message()),
        nodes: state.nodes().values().map(NodeRecord::to_message).collect(),
    })
}

fn check_token(state: TokenState) -> Result<()> {
    let (code, message) = match state {
        TokenState::Good => return Ok(()),
        TokenState::Unknown => (
            Code::Forbidden,
            "the cluster knows no such join token: make another one with `network-node token` on a node of the cluster",
        ),
        TokenState::Expired => (
            Code::Forbidden,
            "the join token has expired, it is good for one hour: make another one with `network-node token`",
        ),
        TokenState::UsedByAnother => (
            Code::Conflict,
            "the join token has let another node in already, it is good for one: make another one with `network-node token`",
        ),
    };
    Err(Error::new(code, message))
}
