//! What each calling peer holds of this process at the moment, over all its streams, against its limits.

use crate::limits::Limits;
use libp2p::PeerId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A count with an upper bound.
pub(crate) struct Meter {
    used: AtomicUsize,
    limit: usize,
}

impl Meter {
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit }
    }

    /// Takes some if they fit.
    pub(crate) fn take(self: &Arc<Self>, amount: usize) -> Option<Held> {
        let before = self.used.fetch_add(amount, Ordering::Relaxed);
        let held = Held { meter: self.clone(), amount };
        // Dropping gives back what does not fit. Two who take at the same time may both be refused at the edge.
        (before.saturating_add(amount) <= self.limit).then_some(held)
    }

    /// A part of size zero, to be set later.
    fn none(self: &Arc<Self>) -> Held {
        Held { meter: self.clone(), amount: 0 }
    }
}

/// A part of a meter; dropping it gives it back.
pub(crate) struct Held {
    meter: Arc<Meter>,
    amount: usize,
}

impl Held {
    /// Holds another amount from now on, whether it fits or not: for what has arrived already.
    fn set(&mut self, amount: usize) {
        if amount > self.amount {
            self.meter.used.fetch_add(amount - self.amount, Ordering::Relaxed);
        } else {
            self.meter.used.fetch_sub(self.amount - amount, Ordering::Relaxed);
        }
        self.amount = amount;
    }

    fn fits(&self) -> bool {
        self.meter.used.load(Ordering::Relaxed) <= self.meter.limit
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.meter.used.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

/// The bytes of a frame that is still arriving, counted against its peer and against all.
pub(crate) struct Arriving {
    of_peer: Held,
    of_all: Held,
}

impl Arriving {
    /// Less than this is not worth counting.
    const FREE: usize = 64 << 10;

    pub(crate) fn new(of_peer: &Arc<Meter>, of_all: &Arc<Meter>) -> Self {
        Self { of_peer: of_peer.none(), of_all: of_all.none() }
    }

    /// So many bytes are held now; says whether that is within the limits.
    pub(crate) fn hold(&mut self, bytes: usize) -> bool {
        let bytes = if bytes < Self::FREE { 0 } else { bytes };
        if bytes == self.of_peer.amount {
            return true;
        }
        self.of_peer.set(bytes);
        self.of_all.set(bytes);
        bytes == 0 || (self.of_peer.fits() && self.of_all.fits())
    }
}

/// One peer's use, shared by its streams.
pub(crate) struct Quota {
    pub(crate) streams: Arc<Meter>,
    pub(crate) calls: Arc<Meter>,
    pub(crate) event_streams: Arc<Meter>,
    pub(crate) request_bytes: Arc<Meter>,
    pub(crate) waiting_answer_bytes: Arc<Meter>,
}

/// The peers that have streams open. A peer without any takes no memory.
#[derive(Default)]
pub(crate) struct Quotas {
    by_peer: Mutex<HashMap<PeerId, (Arc<Quota>, usize)>>,
}

impl Quotas {
    /// The peer's use; it is forgotten when the last entry of the peer is dropped.
    pub(crate) fn enter(self: &Arc<Self>, peer: PeerId, limits: &Limits) -> Entry {
        let mut by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        let (quota, entries) = by_peer.entry(peer).or_insert_with(|| {
            let quota = Quota {
                streams: Arc::new(Meter::new(limits.streams_per_peer)),
                calls: Arc::new(Meter::new(limits.calls_per_peer)),
                event_streams: Arc::new(Meter::new(limits.event_streams_per_peer)),
                request_bytes: Arc::new(Meter::new(limits.request_bytes_per_peer)),
                waiting_answer_bytes: Arc::new(Meter::new(limits.waiting_answer_bytes_per_peer)),
            };
            (Arc::new(quota), 0)
        });
        *entries += 1;
        Entry { quota: quota.clone(), peer, quotas: self.clone() }
    }
}

/// Keeps a peer's use in memory.
pub(crate) struct Entry {
    pub(crate) quota: Arc<Quota>,
    peer: PeerId,
    quotas: Arc<Quotas>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut by_peer = self.quotas.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
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
    use super::{Meter, Quotas};
    use crate::limits::Limits;
    use libp2p::PeerId;
    use std::sync::Arc;

    #[test]
    fn a_meter_gives_what_fits_and_takes_it_back() {
        let meter = Arc::new(Meter::new(10));
        let mut six = meter.take(6).unwrap();
        assert!(meter.take(5).is_none());
        assert!(meter.take(4).is_some(), "a refusal holds nothing");
        six.set(12);
        assert!(!six.fits());
        six.set(1);
        assert!(six.fits() && meter.take(9).is_some());
        drop(six);
        assert!(meter.take(10).is_some());
    }

    #[test]
    fn a_peer_without_streams_is_forgotten() {
        let quotas = Arc::new(Quotas::default());
        let (peer, limits) = (PeerId::random(), Limits::default());
        let first = quotas.enter(peer, &limits);
        let second = quotas.enter(peer, &limits);
        assert!(Arc::ptr_eq(&first.quota, &second.quota));
        drop(first);
        assert_eq!(quotas.by_peer.lock().unwrap().len(), 1);
        drop(second);
        assert!(quotas.by_peer.lock().unwrap().is_empty());
    }
}
