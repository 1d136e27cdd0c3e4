//! How large all databases together are, and what each namespace takes, against how large they may be.

use debros_proto::Namespace;
use std::collections::HashMap;
use std::ops::{AddAssign, Neg};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes that deletes and their idempotency records may use past a limit: a full database must let itself be emptied.
pub(super) const RESERVE: u64 = 1 << 20;

/// What the system's database holds of a namespace, or a change to that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Key-value pairs.
    pub(super) pairs: i64,
    /// Bytes of their keys and values.
    pub(super) pair_bytes: i64,
    /// Bytes that pairs and idempotency records take in the file, with what stands around them.
    pub(super) space: i64,
}

impl AddAssign for Held {
    fn add_assign(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.pair_bytes += other.pair_bytes;
        self.space += other.space;
    }
}

impl Neg for Held {
    type Output = Self;
    fn neg(self) -> Self {
        Self { pairs: -self.pairs, pair_bytes: -self.pair_bytes, space: -self.space }
    }
}

/// What a namespace takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Bytes of its own file: its SQL database, with the idempotency records of that.
    pub(super) file: u64,
    /// What the system's file holds of it.
    pub(super) held: Held,
}

impl Usage {
    /// Bytes that count against the quota.
    pub(super) fn total(self) -> u64 {
        self.file.saturating_add(self.held_space())
    }

    fn held_space(self) -> u64 {
        u64::try_from(self.held.space).unwrap_or(0)
    }
}

/// What has no room for a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All databases together.
    Node {
        /// Bytes of all files.
        total: u64,
        /// Bytes that they may have.
        max: u64,
    },
    /// The namespace.
    Namespace {
        /// Bytes that it takes.
        taken: u64,
        /// Bytes that it may take.
        quota: u64,
    },
}

/// The sizes of all files, and what namespaces hold in the system's. A file is counted as its pages, so that what waits in
/// its log counts too.
#[derive(Debug)]
pub(super) struct Sizes {
    max: u64,
    quota: Option<u64>,
    total: AtomicU64,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    system: u64,
    namespaces: HashMap<Namespace, Usage>,
}

impl Taken {
    fn change<T>(&mut self, namespace: &Namespace, act: impl FnOnce(&mut Usage) -> T) -> T {
        let Some(usage) = self.namespaces.get_mut(namespace) else {
            let mut usage = Usage::default();
            let outcome = act(&mut usage);
            if usage != Usage::default() {
                self.namespaces.insert(namespace.clone(), usage);
            }
            return outcome;
        };
        let outcome = act(usage);
        if *usage == Usage::default() {
            self.namespaces.remove(namespace);
        }
        outcome
    }
}

impl Sizes {
    /// `max` bytes for all databases, and `quota` bytes for all that one namespace has; `None`: as much as there is.
    pub(super) fn new(max: u64, quota: Option<u64>) -> Self {
        Self { max, quota, total: AtomicU64::new(0), taken: Mutex::default() }
    }

    /// Bytes of all files.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// The limit of all files together.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// The limit of each namespace.
    pub(super) fn quota(&self) -> Option<u64> {
        self.quota
    }

    /// What a namespace takes.
    pub(super) fn of(&self, namespace: &Namespace) -> Usage {
        self.taken().namespaces.get(namespace).copied().unwrap_or_default()
    }

    /// Says how large a file is now, the system's or a namespace's; 0 when it is gone.
    pub(super) fn set(&self, owner: Option<&Namespace>, bytes: u64) {
        let mut taken = self.taken();
        let before = match owner {
            None => std::mem::replace(&mut taken.system, bytes),
            Some(namespace) => taken.change(namespace, |usage| std::mem::replace(&mut usage.file, bytes)),
        };
        // Changed under the lock only, so the sum can not be missed.
        self.total.store(self.total() + bytes - before, Relaxed);
    }

    /// Says how large a namespace's new file is, if there is room for it.
    ///
    /// # Errors
    /// What is full; then nothing was noted.
    pub(super) fn add(&self, namespace: &Namespace, bytes: u64) -> Result<(), Full> {
        let mut taken = self.taken();
        let usage = taken.namespaces.get(namespace).copied().unwrap_or_default();
        let others = self.total() - usage.file;
        if others + bytes > self.max {
            return Err(Full::Node { total: self.total(), max: self.max });
        }
        if let Some(quota) = self.quota
            && usage.held_space().saturating_add(bytes) > quota
        {
            return Err(Full::Namespace { taken: usage.total(), quota });
        }
        taken.change(namespace, |usage| usage.file = bytes);
        self.total.store(others + bytes, Relaxed);
        Ok(())
    }

    /// Adds what commits have changed in what the system's file holds of namespaces.
    pub(super) fn hold(&self, changes: impl IntoIterator<Item = (Namespace, Held)>) {
        let mut taken = self.taken();
        for (namespace, change) in changes {
            taken.change(&namespace, |usage| usage.held += change);
        }
    }

    /// Says what the system's file holds of each namespace, in place of what was said before.
    pub(super) fn hold_exactly(&self, held: HashMap<Namespace, Held>) {
        let mut taken = self.taken();
        taken.namespaces.retain(|_, usage| {
            usage.held = Held::default();
            usage.file > 0
        });
        for (namespace, held) in held {
            taken.change(&namespace, |usage| usage.held = held);
        }
    }

    /// What the system's file holds of each namespace.
    pub(super) fn all_held(&self) -> Vec<(Namespace, Held)> {
        let taken = self.taken();
        let held = taken.namespaces.iter().map(|(namespace, usage)| (namespace.clone(), usage.held));
        held.filter(|(_, held)| *held != Held::default()).collect()
    }

    /// How large a file of `own` bytes may become. Two files that grow at the very same moment are both promised what is
    /// left, so a limit can be passed by that much once.
    pub(super) fn allowed(&self, owner: Option<&Namespace>, own: u64, with_reserve: bool) -> u64 {
        let reserve = if with_reserve { RESERVE } else { 0 };
        let of_all = own + (self.max + reserve).saturating_sub(self.total());
        match owner.zip(self.quota) {
            Some((namespace, quota)) => {
                let others = self.of(namespace).held_space();
                of_all.min(quota.saturating_add(reserve).saturating_sub(others))
            }
            None => of_all,
        }
    }

    /// Nothing that panics runs while the lock is held.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Full, Held, Sizes, Usage};
    use debros_proto::Namespace;
    use std::collections::HashMap;

    #[test]
    fn what_is_gone_is_forgotten_and_the_sum_is_that_of_the_files() {
        let sizes = Sizes::new(1000, Some(300));
        let (a, b) = (Namespace::new("a").unwrap(), Namespace::new("b").unwrap());
        let held = Held { pairs: 1, pair_bytes: 60, space: 100 };
        sizes.set(None, 500);
        assert_eq!(sizes.add(&a, 200), Ok(()));
        assert_eq!(sizes.add(&b, 400), Err(Full::Node { total: 700, max: 1000 }));
        sizes.hold([(a.clone(), held), (b.clone(), held)]);
        assert_eq!((sizes.total(), sizes.of(&a)), (700, Usage { file: 200, held }));
        // Of 300 there are 200 for the file; in all there are 300 left.
        assert_eq!((sizes.allowed(Some(&a), 200, false), sizes.allowed(None, 500, false)), (200, 800));
        assert_eq!(sizes.allowed(Some(&a), 200, true), 200 + super::RESERVE);
        // So much fits in all, and not into the quota beside the pairs.
        assert_eq!(sizes.add(&b, 201), Err(Full::Namespace { taken: 100, quota: 300 }));
        sizes.hold([(b.clone(), -held)]);
        sizes.set(Some(&a), 0);
        assert_eq!((sizes.total(), sizes.of(&b), sizes.all_held()), (500, Usage::default(), vec![(a.clone(), held)]));
        sizes.hold_exactly(HashMap::from([(b.clone(), held)]));
        assert_eq!((sizes.of(&a), sizes.of(&b).total()), (Usage::default(), 100));
    }
}
