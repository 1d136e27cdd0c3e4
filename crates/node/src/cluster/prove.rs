//! The side that begins: proves to another node that this one is of the cluster, and has the other
//! one prove the same.

use super::cluster_key::{ClusterKey, Direction, ProofExchange, random_bytes};
use super::cluster_state::{ClusterState, Incarnation};
use debros_p2p::{Channel, PeerId, TrustLevel};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, response};
use debros_proto::{Code, Error, Result};
use std::time::Duration;

/// The version of the two calls.
pub(crate) const PROOF_VERSION: u32 = 1;
/// How long each call may take.
pub(crate) const NODE_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The first proof may show that one of the two has an old key, the second one is with the present
/// one. A third is needed when it is replaced meanwhile.
const ATTEMPTS: usize = 3;

/// What one exchange came to.
enum Proven {
    /// Both have the present key.
    Yes(Incarnation),
    /// One of the two had an old key and has the present one now.
    Again,
}

/// Proves both ends of a channel to each other. From then on the other node may make the calls of
/// nodes here, and this one there. Whichever has an old key of the cluster gets the present one.
///
/// # Errors
/// The other node's reason; `conflict` when the other one holds another cluster's key.
pub(crate) async fn prove_to(
    state: &ClusterState,
    peer: PeerId,
    channel: &Channel,
) -> Result<Incarnation> {
    for _ in 0..ATTEMPTS {
        if let Proven::Yes(incarnation) = exchange_proofs(state, peer, channel).await? {
            return Ok(incarnation);
        }
    }
    Err(Error::new(Code::Unavailable, "the cluster's key is being replaced"))
}

async fn exchange_proofs(state: &ClusterState, peer: PeerId, channel: &Channel) -> Result<Proven> {
    let keyring = state.keyring()?;
    let nonce = random_bytes()?;
    let hello = rpc::NodeHelloRequest {
        cluster_id: keyring.cluster_id().to_owned(),
        nonce: nonce.to_vec().into(),
        protocol_version: PROOF_VERSION,
        key_ids: keyring.key_ids().map(|id| id.to_vec().into()).collect(),
        name: state.own.name.clone(),
        incarnation: state.own.incarnation.to_vec().into(),
    };
    let response::Result::NodeHello(answer) = call_node(channel, Call::NodeHello(hello)).await?
    else {
        return Err(unexpected_answer());
    };
    let key: ClusterKey = keyring
        .keys()
        .find(|key| key.id() == *answer.key_id)
        .cloned()
        .ok_or_else(|| not_proven(peer))?;
    let exchange = ProofExchange {
        dialer: state.own.peer_id,
        listener: peer,
        dialer_nonce: nonce,
        listener_nonce: answer.nonce.as_ref().try_into().map_err(|_| unexpected_answer())?,
    };
    let incarnation = answer.incarnation.as_ref().try_into().map_err(|_| unexpected_answer())?;
    if answer.cluster_id != keyring.cluster_id()
        || !key.holds(&answer.proof, Direction::FromListener, &exchange)
    {
        return Err(not_proven(peer));
    }
    let is_current = key == *keyring.current();
    // Before the other side learns that it is proven: it may call at once.
    if is_current
        && state.is_live(&peer)
        && let Some(trust) = state.host()?.trust(&peer)
    {
        trust.raise_level(TrustLevel::Node);
    }
    let proof = key.proof(Direction::FromDialer, &exchange).to_vec().into();
    let proof = Call::NodeProof(rpc::NodeProofRequest { proof });
    let response::Result::NodeProof(answered) = call_node(channel, proof).await? else {
        return Err(unexpected_answer());
    };
    if answered.newer_key.is_some() {
        let newer = ClusterKey::from_message(answered.newer_key)?;
        state.adopt_key(newer).await?;
        return Ok(Proven::Again);
    }
    if is_current && *answer.current_key_id == key.id() {
        return Ok(Proven::Yes(incarnation));
    }
    let replace = rpc::ReplaceClusterKeyRequest { key: Some(keyring.current().to_message()) };
    call_node(channel, Call::ReplaceClusterKey(replace)).await?;
    Ok(Proven::Again)
}

/// Makes a call that only nodes make.
///
/// # Errors
/// The other node's, or those of a channel.
pub(crate) async fn call_node(channel: &Channel, call: Call) -> Result<response::Result> {
    let request = rpc::Request { call: Some(call), ..Default::default() };
    let answer = channel.call(request, NODE_CALL_TIMEOUT).await?;
    answer.result.ok_or_else(unexpected_answer)
}

pub(crate) fn unexpected_answer() -> Error {
    Error::internal("the other node answered with something else than it was asked for")
}

fn not_proven(peer: PeerId) -> Error {
    Error::new(
        Code::Conflict,
        format!(
            "{peer} does not hold this cluster's key: it is a node of another cluster, or an impostor"
        ),
    )
}
