//! What each calling peer holds of this process at the moment, over all its streams, against its
//! limits.

use crate::limits::PeerLimits;
use debros_proto::lock;
use libp2p::PeerId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A count with an upper bound.
pub(crate) struct BoundedCounter {
    used: AtomicUsize,
    limit: usize,
}

impl BoundedCounter {
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit }
    }

    /// Takes some if they fit.
    pub(crate) fn try_acquire(self: &Arc<Self>, amount: usize) -> Option<CounterPermit> {
        let before = self.used.fetch_add(amount, Ordering::Relaxed);
        let held = CounterPermit { meter: self.clone(), amount };
        // Dropping gives back what does not fit. Two that take at the same time may both be refused
        // at the edge.
        (before.saturating_add(amount) <= self.limit).then_some(held)
    }

    /// A part of size zero, to be set later.
    fn empty_permit(self: &Arc<Self>) -> CounterPermit {
        CounterPermit { meter: self.clone(), amount: 0 }
    }
}

/// A part of a meter; dropping it gives it back.
pub(crate) struct CounterPermit {
    meter: Arc<BoundedCounter>,
    amount: usize,
}

impl CounterPermit {
    /// Holds another amount from now on, whether it fits or not: for what has arrived already.
    fn resize(&mut self, amount: usize) {
        if amount > self.amount {
            self.meter.used.fetch_add(amount - self.amount, Ordering::Relaxed);
        } else {
            self.meter.used.fetch_sub(self.amount - amount, Ordering::Relaxed);
        }
        self.amount = amount;
    }

    fn is_within_limit(&self) -> bool {
        self.meter.used.load(Ordering::Relaxed) <= self.meter.limit
    }
}

impl Drop for CounterPermit {
    fn drop(&mut self) {
        self.meter.used.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

/// The bytes of a frame that is still arriving, counted against its peer and against all.
pub(crate) struct ArrivingBytes {
    of_peer: CounterPermit,
    of_all: CounterPermit,
}

impl ArrivingBytes {
    /// Less than this is not worth counting.
    const FREE: usize = 64 << 10;

    pub(crate) fn new(of_peer: &Arc<BoundedCounter>, of_all: &Arc<BoundedCounter>) -> Self {
        Self { of_peer: of_peer.empty_permit(), of_all: of_all.empty_permit() }
    }

    /// So many bytes are held now; says whether that is within the limits.
    pub(crate) fn resize_and_check(&mut self, bytes: usize) -> bool {
        let bytes = if bytes < Self::FREE { 0 } else { bytes };
        if bytes == self.of_peer.amount {
            return true;
        }
        self.of_peer.resize(bytes);
        self.of_all.resize(bytes);
        bytes == 0 || (self.of_peer.is_within_limit() && self.of_all.is_within_limit())
    }
}

/// One peer's use, shared by its streams.
pub(crate) struct PeerQuota {
    pub(crate) streams: Arc<BoundedCounter>,
    pub(crate) calls: Arc<BoundedCounter>,
    pub(crate) event_streams: Arc<BoundedCounter>,
    pub(crate) request_bytes: Arc<BoundedCounter>,
    pub(crate) waiting_answer_bytes: Arc<BoundedCounter>,
}

/// The peers that have streams open. A peer without any takes no memory.
#[derive(Default)]
pub(crate) struct PeerQuotaTable {
    by_peer: Mutex<HashMap<PeerId, (Arc<PeerQuota>, usize)>>,
}

impl PeerQuotaTable {
    /// The peer's use; it is removed when the last entry of the peer is dropped.
    pub(crate) fn acquire_quota(
        self: &Arc<Self>,
        peer: PeerId,
        limits: &PeerLimits,
    ) -> PeerQuotaGuard {
        let mut by_peer = lock(&self.by_peer);
        let (quota, entries) = by_peer.entry(peer).or_insert_with(|| {
            let quota = PeerQuota {
                streams: Arc::new(BoundedCounter::new(limits.streams_per_peer)),
                calls: Arc::new(BoundedCounter::new(limits.calls_per_peer)),
                event_streams: Arc::new(BoundedCounter::new(limits.event_streams_per_peer)),
                request_bytes: Arc::new(BoundedCounter::new(limits.request_bytes_per_peer)),
                waiting_answer_bytes: Arc::new(BoundedCounter::new(
                    limits.waiting_answer_bytes_per_peer,
                )),
            };
            (Arc::new(quota), 0)
        });
        *entries += 1;
        PeerQuotaGuard { quota: quota.clone(), peer, quotas: self.clone() }
    }
}

/// Keeps a peer's use in memory.
pub(crate) struct PeerQuotaGuard {
    pub(crate) quota: Arc<PeerQuota>,
    peer: PeerId,
    quotas: Arc<PeerQuotaTable>,
}

impl Drop for PeerQuotaGuard {
    fn drop(&mut self) {
        let mut by_peer = lock(&self.quotas.by_peer);
        if let Some((_, entries)) = by_peer.get_mut(&self.peer) {
            *entries -= 1;
            if *entries == 0 {
                by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BoundedCounter, PeerQuotaTable};
    use crate::limits::PeerLimits;
    use libp2p::PeerId;
    use std::sync::Arc;

    #[test]
    fn a_meter_gives_what_fits_and_takes_it_back() {
        let meter = Arc::new(BoundedCounter::new(10));
        let mut six = meter.try_acquire(6).unwrap();
        assert!(meter.try_acquire(5).is_none());
        assert!(meter.try_acquire(4).is_some(), "a refusal holds nothing");
        six.resize(12);
        assert!(!six.is_within_limit());
        six.resize(1);
        assert!(six.is_within_limit() && meter.try_acquire(9).is_some());
        drop(six);
        assert!(meter.try_acquire(10).is_some());
    }

    #[test]
    fn a_peer_without_streams_is_forgotten() {
        let quotas = Arc::new(PeerQuotaTable::default());
        let (peer, limits) = (PeerId::random(), PeerLimits::default());
        let first = quotas.acquire_quota(peer, &limits);
        let second = quotas.acquire_quota(peer, &limits);
        assert!(Arc::ptr_eq(&first.quota, &second.quota));
        drop(first);
        assert_eq!(quotas.by_peer.lock().unwrap().len(), 1);
        drop(second);
        assert!(quotas.by_peer.lock().unwrap().is_empty());
    }
}
