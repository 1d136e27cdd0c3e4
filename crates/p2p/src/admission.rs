//! Which connections are accepted: a limit for all, for each peer, and for those that have not
//! finished their handshake. When all places are taken, `eviction.rs` says which one makes room for
//! a newcomer.
//!
//! libp2p-connection-limits does the same but keeps an entry for each peer that was ever connected,
//! which a stranger with ever new identities can grow without end.

use crate::eviction::{ConnectionSlot, choose_victim};
use crate::limits::PeerLimits;
use crate::peer_trust::PeerTrustTable;
use debros_proto::lock;
use debros_proto::network::caller_network;
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{
    ConnectionClosed, ConnectionEstablished, DialFailure, ListenFailure,
};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use metrics::Counter;
use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum ConnectionRefused {
    #[error(
        "all {0} connections are in use: raise node.max_connections, or connect to another node"
    )]
    All(u32),
    #[error("the peer has {0} connections already")]
    OfPeer(u32),
    #[error("{0} connections are in their handshake already")]
    Pending(u32),
    #[error("{0} connections from the same network address are in their handshake already")]
    PendingOfAddress(u32),
    #[error("the host is stopping")]
    Stopping,
}

/// One IP address may have this part of the connections that are in their handshake.
const PENDING_SHARE: u32 = 4;

/// Peers whose connections are not counted and never make room: the nodes of the cluster. Their ids
/// are proven by the handshake of every connection.
#[derive(Default)]
pub(crate) struct ReservedPeers(Mutex<HashSet<PeerId>>);

impl ReservedPeers {
    pub(crate) fn replace(&self, peers: HashSet<PeerId>) {
        *lock(&self.0) = peers;
    }

    fn contains(&self, peer: &PeerId) -> bool {
        lock(&self.0).contains(peer)
    }

    fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

pub(crate) struct AdmissionBehaviour {
    max: u32,
    max_per_peer: u32,
    max_pending: u32,
    pub(crate) stopping: bool,
    /// Incoming connections in their handshake, with where they come from.
    pending: HashMap<ConnectionId, Option<IpAddr>>,
    /// Established connections that have a place.
    slots: HashMap<ConnectionId, (PeerId, ConnectionSlot)>,
    /// Established connections that made room for others and are closing.
    displaced: HashMap<ConnectionId, PeerId>,
    to_close: VecDeque<(PeerId, ConnectionId)>,
    per_peer: HashMap<PeerId, u32>,
    trust_table: Arc<PeerTrustTable>,
    reserved: Arc<ReservedPeers>,
    displacements: Counter,
}

impl AdmissionBehaviour {
    pub(crate) fn new(
        max: u32,
        limits: &PeerLimits,
        trusts: Arc<PeerTrustTable>,
        reserved: Arc<ReservedPeers>,
        displacements: Counter,
    ) -> Self {
        Self {
            max,
            max_per_peer: limits.connections_per_peer,
            max_pending: limits.pending_connections,
            stopping: false,
            pending: HashMap::new(),
            slots: HashMap::new(),
            displaced: HashMap::new(),
            to_close: VecDeque::new(),
            per_peer: HashMap::new(),
            trust_table: trusts,
            reserved,
            displacements,
        }
    }

    /// The connections that are counted.
    fn counted(&self) -> impl Iterator<Item = (ConnectionId, &ConnectionSlot)> + Clone {
        let slots = self.slots.iter().filter(|(_, (peer, _))| !self.reserved.contains(peer));
        slots.map(|(id, (_, slot))| (*id, slot))
    }

    fn is_full(&self) -> bool {
        self.slots.len() >= self.max as usize && self.counted().count() >= self.max as usize
    }

    /// The connection that would make room for a newcomer from a network.
    fn find_victim(&self, newcomer: Option<IpAddr>) -> Option<ConnectionId> {
        // Closing takes a moment: no more connections than there are places close at a time.
        if self.displaced.len() >= self.max as usize {
            return None;
        }
        choose_victim(self.counted(), self.max, newcomer, Instant::now())
    }

    fn admit(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.pending.remove(&connection);
        if self.stopping {
            return Err(ConnectionDenied::new(ConnectionRefused::Stopping));
        }
        if self.per_peer.get(&peer).is_some_and(|count| *count >= self.max_per_peer) {
            return Err(ConnectionDenied::new(ConnectionRefused::OfPeer(self.max_per_peer)));
        }
        if !self.reserved.contains(&peer) && self.is_full() {
            let victim = self
                .find_victim(network_of(address))
                .ok_or_else(|| ConnectionDenied::new(ConnectionRefused::All(self.max)))?;
            if let Some((peer, _)) = self.slots.remove(&victim) {
                self.displaced.insert(victim, peer);
                self.to_close.push_back((peer, victim));
                self.displacements.increment(1);
            }
        }
        Ok(())
    }

    fn note_established(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        endpoint: &ConnectedPoint,
    ) {
        let address = endpoint.get_remote_address();
        let place = ConnectionSlot {
            network: network_of(address),
            is_outbound: endpoint.is_dialer(),
            since: Instant::now(),
            trust: self.trust_table.get_or_insert(peer, ip_of(address)),
        };
        self.slots.insert(connection, (peer, place));
        *self.per_peer.entry(peer).or_default() += 1;
    }

    fn note_closed(&mut self, connection: ConnectionId, peer: &PeerId) {
        self.slots.remove(&connection);
        self.displaced.remove(&connection);
        if let Some(count) = self.per_peer.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(peer);
                self.trust_table.remove_peer(peer);
            }
        }
    }
}

impl NetworkBehaviour for AdmissionBehaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if self.stopping {
            return Err(ConnectionDenied::new(ConnectionRefused::Stopping));
        }
        // Refused before the handshake: cheap for this host, and the peer sees it at once.
        let from = network_of(remote);
        // Where nodes of a cluster are expected, the handshake says whether this is one.
        if self.reserved.is_empty() && self.is_full() && self.find_victim(from).is_none() {
            return Err(ConnectionDenied::new(ConnectionRefused::All(self.max)));
        }
        if self.pending.len() >= self.max_pending as usize {
            return Err(ConnectionDenied::new(ConnectionRefused::Pending(self.max_pending)));
        }
        // Connections that never finish their handshake cost their sender nothing: one machine must
        // not fill the room.
        let max_per_ip = (self.max_pending / PENDING_SHARE).max(1);
        if self.pending.values().filter(|other| **other == from).count() >= max_per_ip as usize {
            return Err(ConnectionDenied::new(ConnectionRefused::PendingOfAddress(max_per_ip)));
        }
        self.pending.insert(connection, from);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(connection, peer, remote).map(|()| dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(connection, peer, address).map(|()| dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                self.note_established(connection_id, peer_id, endpoint);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.note_closed(connection_id, &peer_id);
            }
            FromSwarm::DialFailure(DialFailure { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.pending.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // Filled while the swarm is polled, which polls here again before it rests.
        self.to_close.pop_front().map_or(Poll::Pending, |(peer_id, connection)| {
            Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(connection),
            })
        })
    }
}

/// The network that an address belongs to, which counts as one caller.
fn network_of(address: &Multiaddr) -> Option<IpAddr> {
    ip_of(address).map(caller_network)
}

pub(crate) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.into()),
        _ => None,
    }
}
