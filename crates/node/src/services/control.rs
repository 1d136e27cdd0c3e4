//! The node and its peers.

use super::NodeServices;
use crate::caller::{Caller, Permission};
use crate::config::NodeBuildInfo;
use debros_engine::CallOptions;
use debros_p2p::{Host, Multiaddr, PeerId};
use debros_proto::rpc::{self, response};
use debros_proto::{Code, Error, Result, now_ms};
use std::time::{Duration, Instant};

/// How long a dial on an operator's behalf may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// What the node reports about itself.
#[derive(Clone, Debug)]
pub(crate) struct NodeFacts {
    pub(crate) node_id: String,
    pub(crate) build: NodeBuildInfo,
    pub(crate) engine: &'static str,
    pub(crate) started: Instant,
    /// Milliseconds since the Unix epoch.
    pub(crate) started_at: i64,
}

impl NodeServices {
    pub(super) fn status(&self) -> rpc::StatusResponse {
        let host = self.host.get();
        let addresses = host.map(Host::listen_addresses).unwrap_or_default();
        rpc::StatusResponse {
            peer_id: host.map(|host| host.peer_id().to_string()).unwrap_or_default(),
            node_id: self.facts.node_id.clone(),
            version: self.facts.build.version.clone(),
            commit: self.facts.build.commit.clone(),
            started_at: self.facts.started_at,
            uptime_ms: u64::try_from(self.facts.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            peer_count: host
                .map_or(0, |host| u32::try_from(host.connected_peers()).unwrap_or(u32::MAX)),
            database_size: self.engine.size(),
            engine: self.facts.engine.to_owned(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            now: now_ms(),
        }
    }

    /// The full nodes among the peers, and for operators all peers: clients and gateways belong to
    /// other tenants, and when they come and go and how far away they are is private.
    pub(super) fn peers(&self, caller: &Caller) -> Result<response::Result> {
        let sees_all = caller.may(Permission::Operate);
        let peers = self.running_host()?.peers().into_iter().filter(|peer| sees_all || peer.serves);
        let peers = peers.map(|peer| rpc::Peer {
            id: peer.id.to_string(),
            addresses: peer.addresses.iter().map(ToString::to_string).collect(),
            connected: peer.connected,
            last_seen: peer.last_seen_ms,
            agent: peer.agent,
            rtt_us: peer.rtt.map_or(0, |rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        });
        Ok(response::Result::Peers(rpc::PeersResponse { peers: peers.collect() }))
    }

    pub(super) async fn connect_peer(
        &self,
        request: rpc::ConnectPeerRequest,
        options: &CallOptions,
    ) -> Result<response::Result> {
        let address: Multiaddr = request.multiaddr.parse().map_err(|error| {
            let shown = debros_proto::ids::excerpt(&request.multiaddr);
            Error::invalid(format!(
                "\"{shown}\" is not a multiaddr ({error}): write /ip4/<address>/tcp/4001/p2p/<peer id>"
            ))
        })?;
        let left = options.deadline.saturating_duration_since(Instant::now());
        let peer = self.running_host()?.connect(address, left.min(DIAL_TIMEOUT)).await?;
        Ok(response::Result::ConnectPeer(rpc::ConnectPeerResponse { peer_id: peer.to_string() }))
    }

    pub(super) async fn disconnect_peer(
        &self,
        request: rpc::DisconnectPeerRequest,
    ) -> Result<response::Result> {
        let peer: PeerId = request.peer_id.parse().map_err(|error| {
            let shown = debros_proto::ids::excerpt(&request.peer_id);
            Error::invalid(format!("\"{shown}\" is not a peer id ({error})"))
        })?;
        let disconnected = self.running_host()?.disconnect(peer).await;
        Ok(response::Result::DisconnectPeer(rpc::DisconnectPeerResponse { disconnected }))
    }

    fn running_host(&self) -> Result<&Host> {
        self.host.get().ok_or_else(|| Error::new(Code::Unavailable, "the node is starting"))
    }
}

pub(super) fn who_am_i(caller: &Caller) -> response::Result {
    let identity = caller.identity();
    response::Result::WhoAmI(rpc::WhoAmIResponse {
        method: identity.auth_method().to_owned(),
        subject: identity.subject.clone(),
        namespace: caller.namespace().map(ToString::to_string).unwrap_or_default(),
        role: identity.scopes.role_within(identity.role).name().to_owned(),
        scopes: identity.scopes.names(),
        key_prefix: identity.prefix.clone(),
        created_at: identity.created_at,
        expires_at: identity.expires_at,
        wallet: identity.wallet.map(|wallet| wallet.to_string()).unwrap_or_default(),
        operator: caller.may(Permission::Operate),
    })
}
