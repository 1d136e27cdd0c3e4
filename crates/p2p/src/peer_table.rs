//! The peers that are connected, and the last ones that were.

use debros_proto::now_ms;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Addresses kept of one peer.
const MAX_ADDRESSES: usize = 16;
/// Bytes kept of what a peer says it is.
const MAX_AGENT_BYTES: usize = 128;

/// A peer that is or was connected.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its id.
    pub id: PeerId,
    /// Addresses that it says it listens on, or where it was reached.
    pub addresses: Vec<Multiaddr>,
    /// Whether a connection is open now.
    pub connected: bool,
    /// When it was last heard of, milliseconds since the Unix epoch.
    pub last_seen_ms: i64,
    /// What it says it is, e.g. `debros/0.1.0`; empty until it said so.
    pub agent: String,
    /// Whether it says that it answers calls, as nodes do and clients do not; false until it said
    /// so.
    pub serves: bool,
    /// Round-trip time of the last ping.
    pub rtt: Option<Duration>,
}

/// An open connection to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerConnection {
    /// Its number in this process.
    pub id: ConnectionId,
    /// This host dialled.
    pub is_outbound: bool,
}

pub(crate) struct PeerTable {
    by_id: HashMap<PeerId, PeerInfo>,
    /// The open connections of each peer, oldest first.
    connections: HashMap<PeerId, Vec<PeerConnection>>,
    /// Peers no longer connected, longest gone first. May hold ids that came back.
    disconnected_ids: VecDeque<PeerId>,
    max_disconnected: usize,
}

impl PeerTable {
    pub(crate) fn new(remembered: usize) -> Self {
        Self {
            by_id: HashMap::new(),
            connections: HashMap::new(),
            disconnected_ids: VecDeque::new(),
            max_disconnected: remembered,
        }
    }

    /// `reached_at` is the address that was dialled, if it was this side that dialled.
    pub(crate) fn mark_connected(&mut self, id: PeerId, reached_at: Option<&Multiaddr>) {
        let peer = self.by_id.entry(id).or_insert_with(|| PeerInfo {
            id,
            addresses: Vec::new(),
            connected: true,
            last_seen_ms: 0,
            agent: String::new(),
            serves: false,
            rtt: None,
        });
        peer.connected = true;
        peer.last_seen_ms = now_ms();
        if let Some(address) = reached_at
            && peer.addresses.is_empty()
        {
            peer.addresses.push(address.clone());
        }
        self.disconnected_ids.retain(|gone| *gone != id);
    }

    pub(crate) fn add_connection(&mut self, id: PeerId, connection: PeerConnection) {
        self.connections.entry(id).or_default().push(connection);
    }

    pub(crate) fn remove_connection(&mut self, id: PeerId, connection: ConnectionId) {
        if let Some(open) = self.connections.get_mut(&id) {
            open.retain(|known| known.id != connection);
            if open.is_empty() {
                self.connections.remove(&id);
            }
        }
    }

    pub(crate) fn connections(&self, id: &PeerId) -> Vec<PeerConnection> {
        self.connections.get(id).cloned().unwrap_or_default()
    }

    pub(crate) fn record_identify(
        &mut self,
        id: PeerId,
        agent: &str,
        serves: bool,
        addresses: Vec<Multiaddr>,
    ) {
        let Some(peer) = self.by_id.get_mut(&id) else { return };
        peer.last_seen_ms = now_ms();
        peer.agent = truncate_agent(agent);
        peer.serves = serves;
        if !addresses.is_empty() {
            peer.addresses = addresses;
            peer.addresses.truncate(MAX_ADDRESSES);
        }
    }

    pub(crate) fn record_ping(&mut self, id: PeerId, rtt: Duration) {
        let Some(peer) = self.by_id.get_mut(&id) else { return };
        peer.last_seen_ms = now_ms();
        peer.rtt = Some(rtt);
    }

    /// The last connection to the peer has closed.
    pub(crate) fn mark_disconnected(&mut self, id: PeerId) {
        let Some(peer) = self.by_id.get_mut(&id) else { return };
        peer.connected = false;
        peer.rtt = None;
        peer.last_seen_ms = now_ms();
        self.disconnected_ids.push_back(id);
        while self.disconnected_ids.len() > self.max_disconnected {
            if let Some(oldest) = self.disconnected_ids.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }

    /// Connected peers first, then those last seen latest.
    pub(crate) fn list(&self) -> Vec<PeerInfo> {
        let mut peers: Vec<PeerInfo> = self.by_id.values().cloned().collect();
        peers.sort_by_key(|peer| (!peer.connected, -peer.last_seen_ms, peer.id));
        peers
    }

    pub(crate) fn is_connected(&self, id: &PeerId) -> bool {
        self.by_id.get(id).is_some_and(|peer| peer.connected)
    }

    pub(crate) fn count_connected(&self) -> usize {
        self.by_id.len() - self.disconnected_ids.len()
    }
}

/// At most so many bytes, cut between characters, without control characters: it ends in logs and
/// terminals.
fn truncate_agent(agent: &str) -> String {
    let mut short = String::new();
    for character in agent.chars().filter(|character| !character.is_control()) {
        if short.len() + character.len_utf8() > MAX_AGENT_BYTES {
            break;
        }
        short.push(character);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::{MAX_ADDRESSES, MAX_AGENT_BYTES, PeerTable};
    use libp2p::{Multiaddr, PeerId};
    use std::time::Duration;

    #[test]
    fn past_peers_are_remembered_up_to_a_number() {
        let mut peers = PeerTable::new(3);
        let ids: Vec<PeerId> = (0..10).map(|_| PeerId::random()).collect();
        for id in &ids {
            peers.mark_connected(*id, None);
            peers.mark_disconnected(*id);
        }
        peers.mark_connected(ids[8], None);
        assert_eq!(peers.count_connected(), 1);
        let listed: Vec<PeerId> = peers.list().iter().map(|peer| peer.id).collect();
        assert_eq!(listed.len(), 3);
        assert_eq!(listed[0], ids[8], "connected ones come first");
        assert!(
            peers.is_connected(&ids[8])
                && !peers.is_connected(&ids[9])
                && !peers.is_connected(&ids[0])
        );
    }

    #[test]
    fn what_a_peer_says_of_itself_is_cut_to_size() {
        let mut peers = PeerTable::new(1);
        let id = PeerId::random();
        let address: Multiaddr = "/ip4/192.0.2.1/tcp/4001".parse().unwrap();
        peers.record_identify(id, "ghost", true, vec![]);
        assert!(peers.list().is_empty(), "only connected peers are kept");
        peers.mark_connected(id, Some(&address));
        peers.record_identify(id, &"é\u{1b}".repeat(10_000), true, vec![address; 1000]);
        peers.record_ping(id, Duration::from_millis(3));
        let peer = peers.list().remove(0);
        assert_eq!(peer.agent, "é".repeat(MAX_AGENT_BYTES / 2));
        assert_eq!(peer.addresses.len(), MAX_ADDRESSES);
        assert_eq!(peer.rtt, Some(Duration::from_millis(3)));
    }
}
