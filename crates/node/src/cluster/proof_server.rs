//! The side that is called: has another node prove that it is of the cluster, and proves the same
//! to it. What was said in the first call is kept for the connection that it came on, for one
//! second call and a few seconds: a proof that is sent again, or on another connection, meets
//! nothing that it fits.

use super::cluster_key::{ClusterKey, Direction, KEY_BYTES, KeyId, ProofExchange, random_bytes};
use super::cluster_state::{ClusterState, Incarnation, name_taken_error};
use super::members::Members;
use super::node_record::NodeRecord;
use super::prove::PROOF_VERSION;
use debros_p2p::{CallContext, ConnectionId, PeerId, TrustLevel};
use debros_proto::{Code, Error, Result, lock, rpc};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long the second call may take to come.
const PROOF_WAIT: Duration = Duration::from_secs(10);
/// First calls that wait for their second one.
const MAX_WAITING: usize = 1024;

/// What a first call left for the second.
struct BegunExchange {
    key: ClusterKey,
    exchange: ProofExchange,
    at: Instant,
}

/// Answers the two calls of a proof.
pub(crate) struct ProofServer {
    state: Arc<ClusterState>,
    members: Arc<Members>,
    waiting: Mutex<HashMap<ConnectionId, BegunExchange>>,
}

impl ProofServer {
    pub(crate) fn new(state: Arc<ClusterState>, members: Arc<Members>) -> Self {
        Self { state, members, waiting: Mutex::default() }
    }

    /// The first call.
    ///
    /// # Errors
    /// A sentence that says why the caller is no node of this cluster.
    pub(crate) async fn hello(
        &self,
        context: &CallContext,
        request: rpc::NodeHelloRequest,
    ) -> Result<rpc::NodeHelloResponse> {
        let (peer, connection) = caller_of(context)?;
        let keyring = self.state.keyring()?;
        check_version(request.protocol_version)?;
        if request.cluster_id != keyring.cluster_id() {
            return Err(other_cluster_error(&request.cluster_id, keyring.cluster_id()));
        }
        self.check_registered(&peer)?;
        if let Some(other) = self.state.node_named(&request.name, &peer) {
            return Err(name_taken_error(&request.name, &other));
        }
        let incarnation = parse_incarnation(&request.incarnation)?;
        self.check_only_one(&peer, &incarnation).await?;
        let key = keyring
            .keys()
            .find(|key| {
                let id: KeyId = key.id();
                request.key_ids.iter().any(|theirs| *theirs == id[..])
            })
            .ok_or_else(|| {
                Error::new(
                    Code::Forbidden,
                    "the keys of the two nodes differ, also those from before: it is the key of another cluster, or the node was away \
                     for too long. Remove the node and let it join again with a token and an empty data folder",
                )
            })?;
        let exchange = ProofExchange {
            dialer: peer,
            listener: self.state.own.peer_id,
            dialer_nonce: parse_nonce(&request.nonce)?,
            listener_nonce: random_bytes::<KEY_BYTES>()?,
        };
        let answer = rpc::NodeHelloResponse {
            cluster_id: keyring.cluster_id().to_owned(),
            nonce: exchange.listener_nonce.to_vec().into(),
            key_id: key.id().to_vec().into(),
            proof: key.proof(Direction::FromListener, &exchange).to_vec().into(),
            current_key_id: keyring.current().id().to_vec().into(),
            incarnation: self.state.own.incarnation.to_vec().into(),
        };
        self.keep(connection, BegunExchange { key: key.clone(), exchange, at: Instant::now() })?;
        Ok(answer)
    }

    /// The second call.
    ///
    /// # Errors
    /// `forbidden` when the proof does not hold, or no first call came before on this connection.
    pub(crate) fn check_proof(
        &self,
        context: &CallContext,
        request: &rpc::NodeProofRequest,
    ) -> Result<rpc::NodeProofResponse> {
        let (peer, connection) = caller_of(context)?;
        let begun = lock(&self.waiting)
            .remove(&connection)
            .filter(|begun| begun.at.elapsed() < PROOF_WAIT && begun.exchange.dialer == peer)
            .ok_or_else(|| {
                Error::new(
                    Code::Forbidden,
                    "no proof was begun on this connection, or too long ago: begin with node_hello",
                )
            })?;
        if !begun.key.holds(&request.proof, Direction::FromDialer, &begun.exchange) {
            return Err(Error::new(
                Code::Forbidden,
                "the proof of the cluster's key does not hold",
            ));
        }
        // It may have been removed since.
        self.check_registered(&peer)?;
        let keyring = self.state.keyring()?;
        if begun.key != *keyring.current() {
            tracing::info!(%peer, "a node with an older key of the cluster gets the present one");
            return Ok(rpc::NodeProofResponse { newer_key: Some(keyring.current().to_message()) });
        }
        if let Some(trust) = &context.trust {
            trust.raise_level(TrustLevel::Node);
        }
        self.members.wake(&peer);
        Ok(rpc::NodeProofResponse { newer_key: None })
    }

    /// Refuses a second program with the identity of a node that is connected.
    ///
    /// # Errors
    /// `conflict` when the other one answers.
    pub(crate) async fn check_only_one(
        &self,
        peer: &PeerId,
        incarnation: &Incarnation,
    ) -> Result<()> {
        if !self.members.has_other_incarnation(peer, incarnation).await {
            return Ok(());
        }
        tracing::warn!(%peer, "two programs run with the identity of one node; the second one is refused");
        Err(Error::new(
            Code::Conflict,
            format!(
                "a node with this identity, {peer}, is connected already: two nodes were started with copies of one identity.key. \
                 Give one of them a data folder of its own and let it join with a token"
            ),
        ))
    }

    fn check_registered(&self, peer: &PeerId) -> Result<()> {
        let nodes = self.state.nodes();
        match nodes.get(peer) {
            Some(node) if node.is_removed() => Err(removed_error(node)),
            Some(_) if self.state.is_live(peer) => Ok(()),
            Some(_) => Err(Error::new(
                Code::Unavailable,
                "the node that was asked is no node of the cluster any more: it was removed",
            )),
            None => Err(Error::new(
                Code::Forbidden,
                format!("the cluster knows no node {peer}: it has to join with a token"),
            )),
        }
    }

    fn keep(&self, connection: ConnectionId, begun: BegunExchange) -> Result<()> {
        let mut waiting = lock(&self.waiting);
        if waiting.len() >= MAX_WAITING {
            waiting.retain(|_, begun| begun.at.elapsed() < PROOF_WAIT);
        }
        if waiting.len() >= MAX_WAITING && !waiting.contains_key(&connection) {
            return Err(Error::new(Code::Overloaded, "too many proofs are under way")
                .retry_after(PROOF_WAIT));
        }
        waiting.insert(connection, begun);
        Ok(())
    }
}

/// The calling peer and its connection.
fn caller_of(context: &CallContext) -> Result<(PeerId, ConnectionId)> {
    context.peer.zip(context.connection).ok_or_else(|| {
        Error::new(Code::Forbidden, "only another node can prove that it is one, on its connection")
    })
}

/// # Errors
/// `unimplemented` for another version than this one.
pub(crate) fn check_version(version: u32) -> Result<()> {
    if version == PROOF_VERSION {
        return Ok(());
    }
    Err(Error::new(
        Code::Unimplemented,
        format!(
            "this node speaks version {PROOF_VERSION} of the protocol between nodes, and the other one version {version}: bring \
             both to the same version of the program"
        ),
    ))
}

/// The error of a node or a token of another cluster.
pub(crate) fn other_cluster_error(theirs: &str, own: &str) -> Error {
    let theirs = debros_proto::ids::excerpt(theirs);
    Error::new(Code::Conflict, format!("this node is of the cluster {own}, not of {theirs}"))
}

/// The error of a node that was removed.
pub(crate) fn removed_error(node: &NodeRecord) -> Error {
    let at = debros_proto::time::rfc3339(node.removed_at.unwrap_or_default());
    Error::new(
        Code::Forbidden,
        format!(
            "the node {} was removed from the cluster at {at}, and its identity cannot come back: start it with an empty data \
             folder and a new token",
            node.peer_id
        ),
    )
}

pub(crate) fn parse_incarnation(bytes: &[u8]) -> Result<Incarnation> {
    bytes.try_into().map_err(|_| Error::invalid("an incarnation has 16 bytes"))
}

fn parse_nonce(bytes: &[u8]) -> Result<[u8; KEY_BYTES]> {
    bytes.try_into().map_err(|_| Error::invalid(format!("a nonce has {KEY_BYTES} bytes")))
}
