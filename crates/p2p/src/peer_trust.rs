//! What a connected peer has proven, and when it was last of use: what decides which peers keep a
//! place when all are taken.

use debros_proto::lock;
use debros_proto::network::caller_network;
use libp2p::PeerId;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A peer without a running call that made none for this long is idle.
pub(crate) const IDLE_AFTER: Duration = Duration::from_secs(30);

/// What a peer has proven on its present connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrustLevel {
    /// Nothing. Identities cost nothing.
    Stranger,
    /// It carries calls with a credential that is valid here.
    Member,
    /// It holds the operator's credential.
    Operator,
    /// It is a node of the cluster: it holds the cluster's key.
    Node,
}

/// One connected peer, shared by all of its connections and streams; removed with its last
/// connection.
#[derive(Debug)]
pub struct PeerTrust {
    network: Option<IpAddr>,
    level: AtomicU8,
    running: AtomicUsize,
    since: Instant,
    /// Milliseconds from `since` to the begin or end of the last call.
    used_ms: AtomicU64,
}

impl PeerTrust {
    /// A peer that has proven nothing, reached at an address.
    pub fn stranger(address: Option<IpAddr>) -> Self {
        Self {
            network: address.map(caller_network),
            level: AtomicU8::new(TrustLevel::Stranger as u8),
            running: AtomicUsize::new(0),
            since: Instant::now(),
            used_ms: AtomicU64::new(0),
        }
    }

    /// Notes that the peer has proven this much. What it has proven before stays.
    pub fn raise_level(&self, level: TrustLevel) {
        // Read first: each call comes here, and nearly all change nothing.
        if self.level.load(Ordering::Relaxed) < level as u8 {
            self.level.fetch_max(level as u8, Ordering::Relaxed);
        }
    }

    /// Takes back what the peer has proven: it is no node of the cluster any more.
    pub fn revoke(&self) {
        self.level.store(TrustLevel::Stranger as u8, Ordering::Relaxed);
    }

    /// What the peer has proven.
    pub fn level(&self) -> TrustLevel {
        match self.level.load(Ordering::Relaxed) {
            0 => TrustLevel::Stranger,
            1 => TrustLevel::Member,
            2 => TrustLevel::Operator,
            _ => TrustLevel::Node,
        }
    }

    /// Where the peer came from: an IPv4 address, or the /64 of an IPv6 one. Unlike its peer id it
    /// is not for free.
    pub fn network(&self) -> Option<IpAddr> {
        self.network
    }

    pub(crate) fn begin_call(self: &Arc<Self>) -> RunningCallGuard {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.note_use();
        RunningCallGuard(Arc::clone(self))
    }

    fn note_use(&self) {
        let used = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used_ms.store(used, Ordering::Relaxed);
    }

    pub(crate) fn last_use(&self) -> Instant {
        self.since + Duration::from_millis(self.used_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        self.running.load(Ordering::Relaxed) == 0
            && now.saturating_duration_since(self.last_use()) >= IDLE_AFTER
    }
}

/// A call or event stream of a peer that runs.
pub(crate) struct RunningCallGuard(Arc<PeerTrust>);

impl Drop for RunningCallGuard {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.note_use();
    }
}

/// All connected peers.
#[derive(Default)]
pub(crate) struct PeerTrustTable(Mutex<HashMap<PeerId, Arc<PeerTrust>>>);

impl PeerTrustTable {
    /// The peer's entry, made by its first connection.
    pub(crate) fn get_or_insert(&self, peer: PeerId, address: Option<IpAddr>) -> Arc<PeerTrust> {
        let mut peers = lock(&self.0);
        Arc::clone(peers.entry(peer).or_insert_with(|| Arc::new(PeerTrust::stranger(address))))
    }

    /// The entry of a connected peer.
    pub(crate) fn get(&self, peer: &PeerId) -> Option<Arc<PeerTrust>> {
        lock(&self.0).get(peer).map(Arc::clone)
    }

    /// The peer's last connection is gone.
    pub(crate) fn remove_peer(&self, peer: &PeerId) {
        lock(&self.0).remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::{PeerTrust, TrustLevel};
    use std::sync::Arc;

    #[test]
    fn what_was_proven_stays() {
        let trust = PeerTrust::stranger(Some("2001:db8::2:3:4:5".parse().unwrap()));
        assert_eq!(
            (trust.level(), trust.network()),
            (TrustLevel::Stranger, Some("2001:db8::".parse().unwrap()))
        );
        trust.raise_level(TrustLevel::Operator);
        trust.raise_level(TrustLevel::Member);
        assert_eq!(trust.level(), TrustLevel::Operator);
        trust.raise_level(TrustLevel::Node);
        assert_eq!(trust.level(), TrustLevel::Node);
        trust.revoke();
        assert_eq!(trust.level(), TrustLevel::Stranger);
    }

    #[test]
    fn a_peer_with_a_running_call_is_not_idle() {
        let trust = Arc::new(PeerTrust::stranger(None));
        let later = trust.since + super::IDLE_AFTER * 2;
        assert!(trust.is_idle(later) && !trust.is_idle(trust.since));
        let call = trust.begin_call();
        assert!(!trust.is_idle(later));
        drop(call);
        assert!(trust.is_idle(later));
    }
}
