//! `/v1/network`: the node and its peers.

use crate::api_call::ApiCall;
use crate::error::{ErrorBody, HandlerResult};
use crate::health::timestamp;
use crate::respond::{OK, json};
use debros_client::rpc::{Peer, StatusResponse};
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// The node that answers.
#[derive(Serialize, utoipa::ToSchema)]
pub struct NodeAnswer {
    /// The configured node id, or the peer id.
    node_id: String,
    peer_id: String,
    connected: bool,
    peer_count: u32,
    /// Bytes, all databases of the node together.
    database_size: u64,
    /// Seconds.
    uptime: u64,
    started_at: String,
    version: String,
    commit: String,
    /// `embedded` or `rqlite`.
    engine: String,
    /// Where the node listens, with `/p2p/<peer id>`.
    addresses: Vec<String>,
}

/// A peer that the node knows.
#[derive(Serialize, utoipa::ToSchema)]
pub struct PeerAnswer {
    id: String,
    addresses: Vec<String>,
    connected: bool,
    /// Null: never.
    last_seen: Option<String>,
    /// Its description of itself, such as `debros/0.1.0`.
    agent: String,
    /// Round-trip time of the last ping in microseconds; null when unknown.
    rtt_us: Option<u64>,
}

/// The peer to dial.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectBody {
    #[schema(
        example = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
    )]
    multiaddr: String,
}

/// The peer to disconnect.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DisconnectBody {
    peer_id: String,
}

/// The dialled peer.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ConnectAnswer {
    #[schema(example = "ok")]
    status: &'static str,
    peer_id: String,
}

/// Whether there was a connection to close.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DisconnectAnswer {
    #[schema(example = "ok")]
    status: &'static str,
    disconnected: bool,
}

/// Returns the state of the node.
#[utoipa::path(
    get, path = "/v1/network/status", tag = "network", operation_id = "network_status",
    responses((status = 200, body = NodeAnswer)),
)]
pub(crate) async fn status(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    call.verify_caller().await?;
    let status = call.client.network().status().await?;
    json(StatusCode::OK, &NodeAnswer::from(status))
}

/// Lists the full nodes that the node knows. Operators see its clients and gateways too.
#[utoipa::path(
    get, path = "/v1/network/peers", tag = "network", operation_id = "network_peers",
    responses((status = 200, body = Vec<PeerAnswer>)),
)]
pub(crate) async fn peers(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let peers: Vec<PeerAnswer> =
        call.client.network().peers().await?.into_iter().map(PeerAnswer::from).collect();
    json(StatusCode::OK, &peers)
}

/// Has the node dial a peer. Operators only.
#[utoipa::path(
    post, path = "/v1/network/connect", tag = "network", operation_id = "network_connect", request_body = ConnectBody,
    responses((status = 200, body = ConnectAnswer), (status = 403, body = ErrorBody)),
)]
pub(crate) async fn connect(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    call.operator_client()?;
    let ConnectBody { multiaddr } = call.read_json().await?;
    let peer_id = call.operator_client()?.operator().connect_peer(multiaddr).await?;
    json(StatusCode::OK, &ConnectAnswer { status: OK, peer_id })
}

/// Closes the node's connections to a peer. Operators only.
#[utoipa::path(
    post, path = "/v1/network/disconnect", tag = "network", operation_id = "network_disconnect",
    request_body = DisconnectBody,
    responses((status = 200, body = DisconnectAnswer), (status = 403, body = ErrorBody)),
)]
pub(crate) async fn disconnect(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    call.operator_client()?;
    let DisconnectBody { peer_id } = call.read_json().await?;
    let disconnected = call.operator_client()?.operator().disconnect_peer(peer_id).await?;
    json(StatusCode::OK, &DisconnectAnswer { status: OK, disconnected })
}

impl From<StatusResponse> for NodeAnswer {
    fn from(status: StatusResponse) -> Self {
        Self {
            node_id: status.node_id,
            peer_id: status.peer_id,
            connected: true,
            peer_count: status.peer_count,
            database_size: status.database_size,
            uptime: status.uptime_ms / 1000,
            started_at: timestamp(status.started_at),
            version: status.version,
            commit: status.commit,
            engine: status.engine,
            addresses: status.addresses,
        }
    }
}

impl From<Peer> for PeerAnswer {
    fn from(peer: Peer) -> Self {
        Self {
            id: peer.id,
            addresses: peer.addresses,
            connected: peer.connected,
            last_seen: (peer.last_seen > 0).then(|| timestamp(peer.last_seen)),
            agent: peer.agent,
            rtt_us: (peer.rtt_us > 0).then_some(peer.rtt_us),
        }
    }
}
