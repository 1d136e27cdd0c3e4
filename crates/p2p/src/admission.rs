//! Which connections are let in: so many in all, so many per peer, so many that have not finished their handshake.
//!
//! libp2p-connection-limits does the same but keeps an entry for every peer that was ever connected, which a stranger
//! with ever new identities can grow without end.

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure, ListenFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("all {0} connections are in use: raise node.max_connections, or connect to another node")]
    All(u32),
    #[error("the peer has {0} connections already")]
    OfPeer(u32),
    #[error("{0} connections are in their handshake already")]
    Pending(u32),
    #[error("{0} connections from the same IP address are in their handshake already")]
    PendingOfAddress(u32),
    #[error("the host is stopping")]
    Stopping,
}

/// One IP address may have this part of the connections that are in their handshake.
const PENDING_SHARE: u32 = 4;

pub(crate) struct Admission {
    max: u32,
    max_per_peer: u32,
    max_pending: u32,
    pub(crate) stopping: bool,
    /// Incoming connections in their handshake, with where they come from.
    pending: HashMap<ConnectionId, Option<IpAddr>>,
    established: u32,
    per_peer: HashMap<PeerId, u32>,
}

impl Admission {
    pub(crate) fn new(max: u32, max_per_peer: u32, max_pending: u32) -> Self {
        Self {
            max,
            max_per_peer,
            max_pending,
            stopping: false,
            pending: HashMap::new(),
            established: 0,
            per_peer: HashMap::new(),
        }
    }

    fn admit(&mut self, connection: ConnectionId, peer: &PeerId) -> Result<(), ConnectionDenied> {
        self.pending.remove(&connection);
        let refused = if self.stopping {
            Refused::Stopping
        } else if self.established >= self.max {
            Refused::All(self.max)
        } else if self.per_peer.get(peer).is_some_and(|count| *count >= self.max_per_peer) {
            Refused::OfPeer(self.max_per_peer)
        } else {
            return Ok(());
        };
        Err(ConnectionDenied::new(refused))
    }
}

impl NetworkBehaviour for Admission {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if self.stopping {
            return Err(ConnectionDenied::new(Refused::Stopping));
        }
        // Refused before the handshake: cheap for us, and the peer learns it at once.
        if self.established >= self.max {
            return Err(ConnectionDenied::new(Refused::All(self.max)));
        }
        if self.pending.len() >= self.max_pending as usize {
            return Err(ConnectionDenied::new(Refused::Pending(self.max_pending)));
        }
        // Connections that never finish their handshake cost their sender nothing: one machine must not fill the room.
        let from = ip(remote);
        let max_per_ip = (self.max_pending / PENDING_SHARE).max(1);
        if self.pending.values().filter(|other| **other == from).count() >= max_per_ip as usize {
            return Err(ConnectionDenied::new(Refused::PendingOfAddress(max_per_ip)));
        }
        self.pending.insert(connection, from);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(connection, &peer).map(|()| dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(connection, &peer).map(|()| dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, .. }) => {
                self.established += 1;
                *self.per_peer.entry(peer_id).or_default() += 1;
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, .. }) => {
                self.established = self.established.saturating_sub(1);
                if let Some(count) = self.per_peer.get_mut(&peer_id) {
                    *count -= 1;
                    if *count == 0 {
                        self.per_peer.remove(&peer_id);
                    }
                }
            }
            FromSwarm::DialFailure(DialFailure { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.pending.remove(&connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.into()),
        _ => None,
    }
}
