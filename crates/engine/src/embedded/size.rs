//! How large all databases together are, and what each namespace takes, against how large they may be.

use debros_proto::Namespace;
use std::collections::HashMap;
use std::ops::{AddAssign, Neg};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// The namespace, or its owner.
    Quota(Quota),
}

/// A limit that holds for a namespace beside the limit of all files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    /// What is limited.
    pub(super) of: QuotaOf,
    /// Bytes that it takes.
    pub(super) taken: u64,
    /// Bytes that it may take.
    pub(super) max: u64,
}

/// What a quota limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuotaOf {
    /// The namespace alone.
    Namespace,
    /// All namespaces of its owner together.
    Owner,
}

impl Quota {
    /// Bytes that are left.
    pub(super) fn left(self) -> u64 {
        self.max.saturating_sub(self.taken)
    }
}

/// The sizes of all files, and what namespaces hold in the system's. A file is counted as its pages, so that what waits in
/// its log counts too.
#[derive(Debug)]
pub(super) struct Sizes {
    max: u64,
    namespace_quota: Option<u64>,
    owner_quota: Option<u64>,
    total: AtomicU64,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    system: u64,
    namespaces: HashMap<Namespace, Usage>,
    /// Who owns a namespace, where it is a wallet.
    owners: HashMap<Namespace, Arc<str>>,
    /// Bytes that all namespaces of an owner take, and how many they are.
    owned: HashMap<Arc<str>, (u64, usize)>,
}

impl Taken {
    fn of(&self, namespace: &Namespace) -> Usage {
        self.namespaces.get(namespace).copied().unwrap_or_default()
    }

    fn change<T>(&mut self, namespace: &Namespace, act: impl FnOnce(&mut Usage) -> T) -> T {
        let (before, after, outcome);
        if let Some(usage) = self.namespaces.get_mut(namespace) {
            before = usage.total();
            outcome = act(usage);
            after = usage.total();
            if *usage == Usage::default() {
                self.namespaces.remove(namespace);
            }
        } else {
            let mut usage = Usage::default();
            (before, outcome, after) = (0, act(&mut usage), usage.total());
            if usage != Usage::default() {
                self.namespaces.insert(namespace.clone(), usage);
            }
        }
        if before != after
            && let Some((bytes, _)) = self.owners.get(namespace).and_then(|owner| self.owned.get_mut(owner))
        {
            *bytes = bytes.saturating_add(after).saturating_sub(before);
        }
        outcome
    }

    fn set_owner(&mut self, namespace: Namespace, owner: Option<String>) {
        let taken = self.of(&namespace).total();
        if let Some(before) = self.owners.remove(&namespace)
            && let Some((bytes, count)) = self.owned.get_mut(&before)
        {
            (*bytes, *count) = (bytes.saturating_sub(taken), *count - 1);
            if *count == 0 {
                self.owned.remove(&before);
            }
        }
        let Some(owner) = owner else { return };
        let owner =
            self.owned.get_key_value(owner.as_str()).map_or_else(|| owner.into(), |(owner, _)| Arc::clone(owner));
        let (bytes, count) = self.owned.entry(Arc::clone(&owner)).or_default();
        (*bytes, *count) = (bytes.saturating_add(taken), *count + 1);
        self.owners.insert(namespace, owner);
    }
}

impl Sizes {
    /// `max` bytes for all databases, `namespace_quota` for all that one namespace has, and `owner_quota` for all that the
    /// namespaces of one owner have; `None`: as much as there is.
    pub(super) fn new(max: u64, namespace_quota: Option<u64>, owner_quota: Option<u64>) -> Self {
        Self { max, namespace_quota, owner_quota, total: AtomicU64::new(0), taken: Mutex::default() }
    }

    /// Bytes of all files.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// The limit of all files together.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// What a namespace takes.
    pub(super) fn of(&self, namespace: &Namespace) -> Usage {
        self.taken().of(namespace)
    }

    /// What a namespace takes, and the quotas that hold for it.
    pub(super) fn quotas(&self, namespace: &Namespace) -> (Usage, [Option<Quota>; 2]) {
        self.quotas_in(&self.taken(), namespace)
    }

    fn quotas_in(&self, taken: &Taken, namespace: &Namespace) -> (Usage, [Option<Quota>; 2]) {
        let usage = taken.of(namespace);
        let own = self.namespace_quota.map(|max| Quota { of: QuotaOf::Namespace, taken: usage.total(), max });
        let owned = self.owner_quota.and_then(|max| {
            let (taken, _) = *taken.owned.get(taken.owners.get(namespace)?)?;
            Some(Quota { of: QuotaOf::Owner, taken, max })
        });
        (usage, [own, owned])
    }

    /// Says whose a namespace is now; `None`: no wallet's.
    pub(super) fn set_owner(&self, namespace: Namespace, owner: Option<String>) {
        self.taken().set_owner(namespace, owner);
    }

    /// Says whose all namespaces are, in place of what was said before.
    pub(super) fn set_owners(&self, owners: impl IntoIterator<Item = (Namespace, Option<String>)>) {
        let mut taken = self.taken();
        taken.owners.clear();
        taken.owned.clear();
        owners.into_iter().for_each(|(namespace, owner)| taken.set_owner(namespace, owner));
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
        let (usage, quotas) = self.quotas_in(&taken, namespace);
        let others = self.total() - usage.file;
        if others + bytes > self.max {
            return Err(Full::Node { total: self.total(), max: self.max });
        }
        let is_full = |quota: &Quota| quota.taken.saturating_sub(usage.file).saturating_add(bytes) > quota.max;
        if let Some(quota) = quotas.into_iter().flatten().find(is_full) {
            return Err(Full::Quota(quota));
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
        let before: Vec<Namespace> = taken.namespaces.keys().cloned().collect();
        for namespace in before.iter().filter(|namespace| !held.contains_key(namespace)) {
            taken.change(namespace, |usage| usage.held = Held::default());
        }
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
        let Some(namespace) = owner else { return of_all };
        let (usage, quotas) = self.quotas(namespace);
        let allowed = |quota: Quota| {
            let others = quota.taken.saturating_sub(usage.file);
            quota.max.saturating_add(reserve).saturating_sub(others)
        };
        quotas.into_iter().flatten().map(allowed).fold(of_all, u64::min)
    }

    /// Nothing that panics runs while the lock is held.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Full, Held, Quota, QuotaOf, Sizes, Usage};
    use debros_proto::Namespace;
    use std::collections::HashMap;

    #[test]
    fn what_is_gone_is_forgotten_and_the_sum_is_that_of_the_files() {
        let sizes = Sizes::new(1000, Some(300), None);
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
        let quota = Quota { of: QuotaOf::Namespace, taken: 100, max: 300 };
        assert_eq!(sizes.add(&b, 201), Err(Full::Quota(quota)));
        sizes.hold([(b.clone(), -held)]);
        sizes.set(Some(&a), 0);
        assert_eq!((sizes.total(), sizes.of(&b), sizes.all_held()), (500, Usage::default(), vec![(a.clone(), held)]));
        sizes.hold_exactly(HashMap::from([(b.clone(), held)]));
        assert_eq!((sizes.of(&a), sizes.of(&b).total()), (Usage::default(), 100));
    }

    #[test]
    fn the_namespaces_of_one_owner_have_a_limit_together() {
        let sizes = Sizes::new(1000, Some(300), Some(400));
        let [a, b, c] = ["a", "b", "c"].map(|name| Namespace::new(name).unwrap());
        let owner = || Some("0x1".to_owned());
        let taken = |namespace: &Namespace| sizes.quotas(namespace).1[1].map(|quota| quota.taken);
        sizes.set_owners([(a.clone(), owner()), (c.clone(), None)]);
        sizes.add(&a, 250).unwrap();
        sizes.add(&b, 150).unwrap();
        assert_eq!((taken(&a), taken(&b), taken(&c)), (Some(250), None, None));
        // What the namespace has already counts from the moment in which it becomes the owner's.
        sizes.set_owner(b.clone(), owner());
        let held = Held { pairs: 1, pair_bytes: 10, space: 30 };
        sizes.hold([(a.clone(), held)]);
        assert_eq!((taken(&a), taken(&b)), (Some(430), Some(430)));
        // Over the limit a file may not grow, and others grow as before.
        assert_eq!(
            (sizes.allowed(Some(&b), 150, false), sizes.allowed(Some(&b), 150, true)),
            (120, 120 + super::RESERVE)
        );
        sizes.set(Some(&b), 0);
        let quota = Quota { of: QuotaOf::Owner, taken: 280, max: 400 };
        assert_eq!((sizes.add(&b, 121), sizes.add(&c, 300)), (Err(Full::Quota(quota)), Ok(())));
        sizes.hold_exactly(HashMap::from([(b.clone(), held)]));
        assert_eq!(taken(&a), Some(280));
        sizes.set_owner(a.clone(), None);
        assert_eq!((taken(&a), taken(&b)), (None, Some(30)));
        sizes.set_owners([(a.clone(), owner())]);
        assert_eq!((taken(&a), taken(&b)), (Some(250), None));
    }
}
