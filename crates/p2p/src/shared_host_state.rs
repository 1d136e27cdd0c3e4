//! What a host's handles read without asking the task that owns the swarm.

use crate::admission::ReservedPeers;
use crate::peer_table::PeerTable;
use crate::peer_trust::PeerTrustTable;
use debros_proto::lock;
use libp2p::Multiaddr;
use std::sync::{Arc, Mutex, MutexGuard};

/// What hosts read without asking the task.
pub(crate) struct SharedHostState {
    pub(crate) listen_addresses: Mutex<Vec<Multiaddr>>,
    pub(crate) peers: Mutex<PeerTable>,
    pub(crate) trusts: Arc<PeerTrustTable>,
    pub(crate) reserved: Arc<ReservedPeers>,
}

impl SharedHostState {
    pub(crate) fn lock_listen_addresses(&self) -> MutexGuard<'_, Vec<Multiaddr>> {
        lock(&self.listen_addresses)
    }

    pub(crate) fn lock_peers(&self) -> MutexGuard<'_, PeerTable> {
        lock(&self.peers)
    }
}
