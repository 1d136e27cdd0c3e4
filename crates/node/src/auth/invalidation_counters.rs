//! Which cached checks of credentials are still good after a change.

use debros_proto::Namespace;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of changes.
const NAMESPACE_COUNTERS: usize = 256;

/// Counts the changes that invalidate outcomes: one with an older number is discarded. A check that
/// was under way during the change carries the older number too.
///
/// Namespaces share a fixed number of counters, by a secret hash: one that changes roles all day
/// invalidates few others, and cannot choose which.
pub(super) struct InvalidationCounters {
    everywhere: AtomicU64,
    counters: Vec<AtomicU64>,
    hasher: RandomState,
}

/// The numbers of the changes that an outcome has seen.
#[derive(Clone, Copy)]
pub(super) struct InvalidationStamp {
    everywhere: u64,
    index: usize,
    in_namespace: u64,
}

impl InvalidationCounters {
    pub(super) fn new() -> Self {
        Self {
            everywhere: AtomicU64::new(0),
            counters: (0..NAMESPACE_COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The numbers now, for an outcome in a namespace; without one, for what is valid nowhere.
    pub(super) fn current_stamp(&self, namespace: Option<&Namespace>) -> InvalidationStamp {
        let place = namespace.map_or(0, |namespace| self.counter_index(namespace));
        InvalidationStamp {
            everywhere: self.everywhere.load(Ordering::Acquire),
            index: place,
            in_namespace: self.counters[place].load(Ordering::Acquire),
        }
    }

    /// Whether nothing has changed since that an outcome may rest on.
    pub(super) fn is_current(&self, as_of: InvalidationStamp) -> bool {
        self.everywhere.load(Ordering::Acquire) == as_of.everywhere
            && self.counters[as_of.index].load(Ordering::Acquire) == as_of.in_namespace
    }

    fn counter_index(&self, namespace: &Namespace) -> usize {
        // At most 255.
        self.hasher.hash_one(namespace) as usize % NAMESPACE_COUNTERS
    }

    /// Discards all outcomes of earlier checks in this namespace: a credential was revoked, or a
    /// role changed. Coarse, and cannot miss one; it costs one query of the database for each
    /// credential in use there.
    pub(super) fn invalidate_namespace(&self, namespace: &Namespace) {
        self.counters[self.counter_index(namespace)].fetch_add(1, Ordering::AcqRel);
    }

    /// As [`invalidate_namespace`](InvalidationCounters::invalidate_namespace) for all namespaces:
    /// the tables were replaced, or a signing key was removed.
    pub(super) fn invalidate_all(&self) {
        self.everywhere.fetch_add(1, Ordering::AcqRel);
    }
}

impl InvalidationStamp {
    /// For an outcome of two reads, of which the one that all namespaces share came `before`.
    pub(super) fn with_everywhere_of(self, before: InvalidationStamp) -> Self {
        Self { everywhere: before.everywhere, ..self }
    }
}
