//! How large all databases together are, and what each namespace takes, against how large they may
//! be.

use debros_proto::{Namespace, lock};
use std::collections::HashMap;
use std::ops::{AddAssign, Neg};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

/// Bytes that deletes and their idempotency records may use past a limit: a full database must let
/// itself be emptied.
pub(super) const RESERVE: u64 = 1 << 20;

/// What the system's database holds of a namespace, or a change to that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SystemUsage {
    /// Key-value pairs.
    pub(super) pairs: i64,
    /// Bytes of their keys and values.
    pub(super) pair_bytes: i64,
    /// Bytes that pairs and idempotency records take in the file, with what stands around them.
    pub(super) space: i64,
}

impl AddAssign for SystemUsage {
    fn add_assign(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.pair_bytes += other.pair_bytes;
        self.space += other.space;
    }
}

impl Neg for SystemUsage {
    type Output = Self;
    fn neg(self) -> Self {
        Self { pairs: -self.pairs, pair_bytes: -self.pair_bytes, space: -self.space }
    }
}

/// What a namespace takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NamespaceUsage {
    /// Bytes of its own file: its SQL database, with the idempotency records of that.
    pub(super) file: u64,
    /// What the system's file holds of it.
    pub(super) system: SystemUsage,
}

impl NamespaceUsage {
    /// Bytes that count against the quota.
    pub(super) fn total(self) -> u64 {
        self.file.saturating_add(self.system_space())
    }

    fn system_space(self) -> u64 {
        u64::try_from(self.system.space).unwrap_or(0)
    }
}

/// What has no room for a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpaceExhausted {
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

/// The sizes of all files, and what namespaces hold in the system's. A file is counted as its
/// pages, so that what waits in its log counts too.
#[derive(Debug)]
pub(super) struct SizeAccounting {
    max: u64,
    namespace_quota: Option<u64>,
    owner_quota: Option<u64>,
    total: AtomicU64,
    taken: Mutex<SizeTotals>,
}

#[derive(Debug, Default)]
struct SizeTotals {
    system: u64,
    namespaces: HashMap<Namespace, NamespaceUsage>,
    /// The owner of a namespace, where it is a wallet.
    owners: HashMap<Namespace, Arc<str>>,
    /// Bytes that all namespaces of an owner take, and how many they are.
    owned: HashMap<Arc<str>, (u64, usize)>,
}

impl SizeTotals {
    fn of(&self, namespace: &Namespace) -> NamespaceUsage {
        self.namespaces.get(namespace).copied().unwrap_or_default()
    }

    fn change_usage<T>(
        &mut self,
        namespace: &Namespace,
        act: impl FnOnce(&mut NamespaceUsage) -> T,
    ) -> T {
        let (before, after, outcome);
        if let Some(usage) = self.namespaces.get_mut(namespace) {
            before = usage.total();
            outcome = act(usage);
            after = usage.total();
            if *usage == NamespaceUsage::default() {
                self.namespaces.remove(namespace);
            }
        } else {
            let mut usage = NamespaceUsage::default();
            (before, outcome, after) = (0, act(&mut usage), usage.total());
            if usage != NamespaceUsage::default() {
                self.namespaces.insert(namespace.clone(), usage);
            }
        }
        if before != after
            && let Some((bytes, _)) =
                self.owners.get(namespace).and_then(|owner| self.owned.get_mut(owner))
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
        let owner = self
            .owned
            .get_key_value(owner.as_str())
            .map_or_else(|| owner.into(), |(owner, _)| Arc::clone(owner));
        let (bytes, count) = self.owned.entry(Arc::clone(&owner)).or_default();
        (*bytes, *count) = (bytes.saturating_add(taken), *count + 1);
        self.owners.insert(namespace, owner);
    }
}

impl SizeAccounting {
    /// `max` bytes for all databases, `namespace_quota` for all that one namespace has, and
    /// `owner_quota` for all that the namespaces of one owner have; `None`: as much as there is.
    pub(super) fn new(max: u64, namespace_quota: Option<u64>, owner_quota: Option<u64>) -> Self {
        Self {
            max,
            namespace_quota,
            owner_quota,
            total: AtomicU64::new(0),
            taken: Mutex::default(),
        }
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
    pub(super) fn namespace_usage(&self, namespace: &Namespace) -> NamespaceUsage {
        self.lock_totals().of(namespace)
    }

    /// What a namespace takes, and the quotas that hold for it.
    pub(super) fn quotas(&self, namespace: &Namespace) -> (NamespaceUsage, [Option<Quota>; 2]) {
        self.quotas_in(&self.lock_totals(), namespace)
    }

    fn quotas_in(
        &self,
        taken: &SizeTotals,
        namespace: &Namespace,
    ) -> (NamespaceUsage, [Option<Quota>; 2]) {
        let usage = taken.of(namespace);
        let own = self.namespace_quota.map(|max| Quota {
            of: QuotaOf::Namespace,
            taken: usage.total(),
            max,
        });
        let owned = self.owner_quota.and_then(|max| {
            let (taken, _) = *taken.owned.get(taken.owners.get(namespace)?)?;
            Some(Quota { of: QuotaOf::Owner, taken, max })
        });
        (usage, [own, owned])
    }

    /// Says whose a namespace is now; `None`: no wallet's.
    pub(super) fn set_owner(&self, namespace: Namespace, owner: Option<String>) {
        self.lock_totals().set_owner(namespace, owner);
    }

    /// Says whose all namespaces are, in place of what was said before.
    pub(super) fn set_owners(&self, owners: impl IntoIterator<Item = (Namespace, Option<String>)>) {
        let mut taken = self.lock_totals();
        taken.owners.clear();
        taken.owned.clear();
        owners.into_iter().for_each(|(namespace, owner)| taken.set_owner(namespace, owner));
    }

    /// Says how large a file is now, the system's or a namespace's; 0 when it is gone.
    pub(super) fn set_file_size(&self, owner: Option<&Namespace>, bytes: u64) {
        self.set_file_size_in(&mut self.lock_totals(), owner, bytes);
    }

    fn set_file_size_in(&self, taken: &mut SizeTotals, owner: Option<&Namespace>, bytes: u64) {
        let before = match owner {
            None => std::mem::replace(&mut taken.system, bytes),
            Some(namespace) => {
                taken.change_usage(namespace, |usage| std::mem::replace(&mut usage.file, bytes))
            }
        };
        // Changed under the lock only, so the sum cannot be missed.
        self.total.store(self.total() + bytes - before, Relaxed);
    }

    /// Says how large a file is about to be, if there is room for that. A file that does not grow
    /// always has room.
    ///
    /// The room that [`allowed_size`](Self::allowed_size) promised may be another's by now: all
    /// files that grow at the same time were promised the same. Here one of them gets it.
    ///
    /// # Errors
    /// What is full; then nothing was noted.
    pub(super) fn grow_file(
        &self,
        owner: Option<&Namespace>,
        bytes: u64,
        with_reserve: bool,
    ) -> Result<(), SpaceExhausted> {
        let reserve = if with_reserve { RESERVE } else { 0 };
        let mut taken = self.lock_totals();
        let before = owner.map_or(taken.system, |namespace| taken.of(namespace).file);
        if bytes > before {
            if self.total() - before + bytes > self.max.saturating_add(reserve) {
                return Err(SpaceExhausted::Node { total: self.total(), max: self.max });
            }
            let quotas = owner.map_or([None, None], |owner| self.quotas_in(&taken, owner).1);
            let is_full = |quota: &Quota| {
                quota.taken.saturating_sub(before).saturating_add(bytes)
                    > quota.max.saturating_add(reserve)
            };
            if let Some(quota) = quotas.into_iter().flatten().find(is_full) {
                return Err(SpaceExhausted::Quota(quota));
            }
        }
        self.set_file_size_in(&mut taken, owner, bytes);
        Ok(())
    }

    /// Adds what commits have changed in what the system's file holds of namespaces.
    pub(super) fn add_system_usage(
        &self,
        changes: impl IntoIterator<Item = (Namespace, SystemUsage)>,
    ) {
        let mut taken = self.lock_totals();
        for (namespace, change) in changes {
            taken.change_usage(&namespace, |usage| usage.system += change);
        }
    }

    /// Says what the system's file holds of each namespace, in place of what was said before.
    pub(super) fn replace_system_usage(&self, held: HashMap<Namespace, SystemUsage>) {
        let mut taken = self.lock_totals();
        let before: Vec<Namespace> = taken.namespaces.keys().cloned().collect();
        for namespace in before.iter().filter(|namespace| !held.contains_key(namespace)) {
            taken.change_usage(namespace, |usage| usage.system = SystemUsage::default());
        }
        for (namespace, held) in held {
            taken.change_usage(&namespace, |usage| usage.system = held);
        }
    }

    /// What the system's file holds of each namespace.
    pub(super) fn all_system_usage(&self) -> Vec<(Namespace, SystemUsage)> {
        let taken = self.lock_totals();
        let held =
            taken.namespaces.iter().map(|(namespace, usage)| (namespace.clone(), usage.system));
        held.filter(|(_, held)| *held != SystemUsage::default()).collect()
    }

    /// How large a file of `own` bytes may become, as things are now. Files that grow at the same
    /// time are all promised what is left; [`grow_file`](Self::grow_file) decides.
    pub(super) fn allowed_size(
        &self,
        owner: Option<&Namespace>,
        own: u64,
        with_reserve: bool,
    ) -> u64 {
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
    fn lock_totals(&self) -> MutexGuard<'_, SizeTotals> {
        lock(&self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::{NamespaceUsage, Quota, QuotaOf, SizeAccounting, SpaceExhausted, SystemUsage};
    use debros_proto::Namespace;
    use std::collections::HashMap;

    #[test]
    fn what_is_gone_is_forgotten_and_the_sum_is_that_of_the_files() {
        let sizes = SizeAccounting::new(1000, Some(300), None);
        let (a, b) = (Namespace::new("a").unwrap(), Namespace::new("b").unwrap());
        let held = SystemUsage { pairs: 1, pair_bytes: 60, space: 100 };
        sizes.set_file_size(None, 500);
        assert_eq!(sizes.grow_file(Some(&a), 200, false), Ok(()));
        assert_eq!(
            sizes.grow_file(Some(&b), 400, false),
            Err(SpaceExhausted::Node { total: 700, max: 1000 })
        );
        sizes.add_system_usage([(a.clone(), held), (b.clone(), held)]);
        assert_eq!(
            (sizes.total(), sizes.namespace_usage(&a)),
            (700, NamespaceUsage { file: 200, system: held })
        );
        // Both were promised what is left, and one gets it.
        let promised = sizes.allowed_size(None, 500, false);
        assert_eq!(sizes.grow_file(None, promised, false), Ok(()));
        let full = SpaceExhausted::Node { total: 1000, max: 1000 };
        assert_eq!(sizes.grow_file(Some(&a), 201, false), Err(full));
        assert_eq!(sizes.grow_file(Some(&a), 201, true), Ok(()), "the reserve");
        assert_eq!(sizes.grow_file(Some(&a), 200, false), Ok(()), "it gets smaller");
        sizes.set_file_size(None, 500);
        // Of 300 there are 200 for the file; in all there are 300 left.
        assert_eq!(
            (sizes.allowed_size(Some(&a), 200, false), sizes.allowed_size(None, 500, false)),
            (200, 800)
        );
        assert_eq!(sizes.allowed_size(Some(&a), 200, true), 200 + super::RESERVE);
        // So much fits in all, and not into the quota beside the pairs.
        let quota = Quota { of: QuotaOf::Namespace, taken: 100, max: 300 };
        assert_eq!(sizes.grow_file(Some(&b), 201, false), Err(SpaceExhausted::Quota(quota)));
        sizes.add_system_usage([(b.clone(), -held)]);
        sizes.set_file_size(Some(&a), 0);
        assert_eq!(
            (sizes.total(), sizes.namespace_usage(&b), sizes.all_system_usage()),
            (500, NamespaceUsage::default(), vec![(a.clone(), held)])
        );
        sizes.replace_system_usage(HashMap::from([(b.clone(), held)]));
        assert_eq!(
            (sizes.namespace_usage(&a), sizes.namespace_usage(&b).total()),
            (NamespaceUsage::default(), 100)
        );
    }

    #[test]
    fn the_namespaces_of_one_owner_have_a_limit_together() {
        let sizes = SizeAccounting::new(1000, Some(300), Some(400));
        let [a, b, c] = ["a", "b", "c"].map(|name| Namespace::new(name).unwrap());
        let owner = || Some("0x1".to_owned());
        let taken = |namespace: &Namespace| sizes.quotas(namespace).1[1].map(|quota| quota.taken);
        sizes.set_owners([(a.clone(), owner()), (c.clone(), None)]);
        sizes.grow_file(Some(&a), 250, false).unwrap();
        sizes.grow_file(Some(&b), 150, false).unwrap();
        assert_eq!((taken(&a), taken(&b), taken(&c)), (Some(250), None, None));
        // What the namespace has already counts from the moment in which it becomes the owner's.
        sizes.set_owner(b.clone(), owner());
        let held = SystemUsage { pairs: 1, pair_bytes: 10, space: 30 };
        sizes.add_system_usage([(a.clone(), held)]);
        assert_eq!((taken(&a), taken(&b)), (Some(430), Some(430)));
        // Over the limit a file may not grow, and others grow as before.
        assert_eq!(
            (sizes.allowed_size(Some(&b), 150, false), sizes.allowed_size(Some(&b), 150, true)),
            (120, 120 + super::RESERVE)
        );
        sizes.set_file_size(Some(&b), 0);
        let quota = Quota { of: QuotaOf::Owner, taken: 280, max: 400 };
        assert_eq!(
            (sizes.grow_file(Some(&b), 121, false), sizes.grow_file(Some(&c), 300, false)),
            (Err(SpaceExhausted::Quota(quota)), Ok(()))
        );
        sizes.replace_system_usage(HashMap::from([(b.clone(), held)]));
        assert_eq!(taken(&a), Some(280));
        sizes.set_owner(a.clone(), None);
        assert_eq!((taken(&a), taken(&b)), (None, Some(30)));
        sizes.set_owners([(a.clone(), owner())]);
        assert_eq!((taken(&a), taken(&b)), (Some(250), None));
    }
}
