//! Which callers are admitted: none of a namespace that is being deleted, and none while the node
//! changes hands.
//!
//! A write can wait for long after its caller was let in. What it then does must not go to the next
//! owner of the namespace's name, so its job asks again, on the writer's thread: the deletion wipes
//! there as well, so the job comes before that, or learns of it.

use debros_proto::{Code, Error, Namespace, Result, lock};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Namespaces of which it is remembered when they were shut last.
const MAX_REMEMBERED: usize = 1000;

/// That a caller was let into a namespace, and when: after how many times that any was shut.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdmissionTicket(u64);

/// Says which namespaces are shut.
#[derive(Debug, Default)]
pub(super) struct NamespaceLocks {
    state: Mutex<LockState>,
    /// How many are shut, which is looked at by every call.
    locked_count: AtomicUsize,
    /// A backup of another network is being put back: names have other owners from one moment to
    /// the next.
    ownership_changes: AtomicBool,
    /// How many times any was shut.
    lock_count: AtomicU64,
}

#[derive(Debug, Default)]
struct LockState {
    /// Namespaces that are being deleted, and whether it is under way: a deletion that failed is
    /// still to be finished.
    deleting: BTreeMap<Namespace, bool>,
    /// At which of the times namespaces were shut last.
    locked_at: HashMap<Namespace, u64>,
    /// All are taken to have been shut at this time: of some it is forgotten.
    all_locked_at: u64,
}

impl LockState {
    /// Forgets the oldest where there are too many.
    fn note_locked(&mut self, namespace: &Namespace, time: u64) {
        self.locked_at.insert(namespace.clone(), time);
        if self.locked_at.len() <= MAX_REMEMBERED {
            return;
        }
        let oldest = self.locked_at.iter().min_by_key(|(_, time)| **time);
        if let Some((namespace, time)) = oldest.map(|(namespace, time)| (namespace.clone(), *time))
        {
            self.locked_at.remove(&namespace);
            self.all_locked_at = self.all_locked_at.max(time);
        }
    }
}

/// Callers of a namespace are refused as long as this is there, and after it when the deletion is
/// still to be finished.
pub(super) struct NamespaceLockGuard {
    locks: Arc<NamespaceLocks>,
    namespace: Namespace,
    stays_locked: bool,
}

impl NamespaceLockGuard {
    /// Says whether callers are refused until another deletion of the namespace or the end of the
    /// program: what they wrote would be deleted by the next start.
    pub(super) fn set_stays_locked(&mut self, stays: bool) {
        self.stays_locked = stays;
    }
}

impl Drop for NamespaceLockGuard {
    fn drop(&mut self) {
        let mut state = self.locks.state();
        if self.stays_locked {
            state.deleting.insert(self.namespace.clone(), false);
        } else {
            state.deleting.remove(&self.namespace);
        }
        self.locks.locked_count.store(state.deleting.len(), SeqCst);
    }
}

impl NamespaceLocks {
    /// Lets a caller into a namespace.
    ///
    /// # Errors
    /// `unavailable`: it is being deleted, or the node changes hands.
    pub(super) fn admit_caller(&self, namespace: &Namespace) -> Result<AdmissionTicket> {
        // First: what is shut after this is refused by the number.
        let admission = AdmissionTicket(self.lock_count.load(SeqCst));
        if self.ownership_changes.load(SeqCst) {
            return Err(ownership_change_error());
        }
        if self.locked_count.load(SeqCst) > 0 && self.state().deleting.contains_key(namespace) {
            return Err(being_deleted_error());
        }
        Ok(admission)
    }

    /// Refuses a call that was admitted before the namespace was shut.
    ///
    /// # Errors
    /// `unavailable`.
    pub(super) fn check_still_admitted(
        &self,
        namespace: &Namespace,
        admission: AdmissionTicket,
    ) -> Result<()> {
        if self.lock_count.load(SeqCst) == admission.0 {
            return Ok(());
        }
        let state = self.state();
        let shut_at = state.locked_at.get(namespace).copied().unwrap_or(0).max(state.all_locked_at);
        if shut_at > admission.0 { Err(deleted_meanwhile_error()) } else { Ok(()) }
    }

    /// Refuses callers of a namespace until what is returned is dropped. Another's is not taken
    /// over; that of a deletion which is still to be finished is, and stays unless it is said
    /// otherwise.
    pub(super) fn lock_namespace(
        self: &Arc<Self>,
        namespace: &Namespace,
    ) -> Result<NamespaceLockGuard> {
        let mut state = self.state();
        let stays = match state.deleting.get(namespace) {
            Some(true) => return Err(being_deleted_error()),
            Some(false) => true,
            None => false,
        };
        state.deleting.insert(namespace.clone(), true);
        self.locked_count.store(state.deleting.len(), SeqCst);
        let time = self.lock_count.fetch_add(1, SeqCst) + 1;
        state.note_locked(namespace, time);
        Ok(NamespaceLockGuard {
            locks: Arc::clone(self),
            namespace: namespace.clone(),
            stays_locked: stays,
        })
    }

    /// A deletion that failed here was finished by another node of the cluster.
    pub(super) fn forget_unfinished(&self, namespace: &Namespace) {
        let mut state = self.state();
        if state.deleting.get(namespace) == Some(&false) {
            state.deleting.remove(namespace);
        }
        self.locked_count.store(state.deleting.len(), SeqCst);
    }

    /// A namespace that is being deleted, if there is one.
    pub(super) fn find_deleting(&self) -> Option<Namespace> {
        self.state().deleting.keys().next().cloned()
    }

    /// Says whether callers of all namespaces are refused: what the owners of before admitted must
    /// not reach the data of those that follow, nor the other way round.
    pub(super) fn set_ownership_change(&self, under_way: bool) {
        let mut state = self.state();
        self.ownership_changes.store(under_way, SeqCst);
        if under_way {
            state.all_locked_at = self.lock_count.fetch_add(1, SeqCst) + 1;
            state.locked_at.clear();
        }
    }

    /// Nothing that panics runs while the lock is held.
    fn state(&self) -> MutexGuard<'_, LockState> {
        lock(&self.state)
    }
}

fn ownership_change_error() -> Error {
    Error::new(
        Code::Unavailable,
        "a backup of another network is being put back; if that failed, the node's operator has to restore again",
    )
    .retry_after(Duration::from_secs(1))
}

fn being_deleted_error() -> Error {
    Error::new(Code::Unavailable, "the namespace is being deleted; try again when that is done")
        .retry_after(Duration::from_secs(1))
}

fn deleted_meanwhile_error() -> Error {
    Error::new(
        Code::Unavailable,
        "the namespace was deleted, or other owners' data put back, while the write waited; nothing was changed",
    )
    .retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::{MAX_REMEMBERED, NamespaceLocks};
    use debros_proto::Namespace;
    use std::sync::Arc;

    #[test]
    fn who_was_let_in_before_the_namespace_was_shut_is_refused_after_it() {
        let locks = Arc::<NamespaceLocks>::default();
        let (a, b) = (Namespace::new("a").unwrap(), Namespace::new("b").unwrap());
        let early = locks.admit_caller(&a).unwrap();
        let shut = locks.lock_namespace(&a).unwrap();
        assert!(locks.admit_caller(&a).is_err() && locks.check_still_admitted(&a, early).is_err());
        let beside = locks.admit_caller(&b).unwrap();
        drop(shut);
        let late = locks.admit_caller(&a).unwrap();
        assert!(locks.check_still_admitted(&a, early).is_err());
        assert!(locks.check_still_admitted(&a, late).is_ok());
        assert!(
            locks.check_still_admitted(&b, early).is_ok()
                && locks.check_still_admitted(&b, beside).is_ok()
        );
        // What is forgotten admits no call, and refuses none that came after it.
        for index in 0..MAX_REMEMBERED {
            drop(locks.lock_namespace(&Namespace::new(&format!("n{index}")).unwrap()).unwrap());
        }
        assert!(
            locks.check_still_admitted(&a, early).is_err()
                && locks.check_still_admitted(&b, early).is_err()
        );
        assert!(
            locks.check_still_admitted(&a, late).is_ok()
                && locks.check_still_admitted(&b, beside).is_ok()
        );
        locks.set_ownership_change(true);
        locks.set_ownership_change(false);
        assert!(locks.check_still_admitted(&b, beside).is_err());
        assert!(locks.check_still_admitted(&b, locks.admit_caller(&b).unwrap()).is_ok());
    }
}
