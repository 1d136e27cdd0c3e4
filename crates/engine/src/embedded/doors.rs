//! Who is let in: nobody whose namespace is being deleted, and nobody while the node changes hands.
//!
//! A write can wait for long after its caller was let in. What it then does must not go to the next owner of the
//! namespace's name, so its job asks again, on the writer's thread: the deletion wipes there as well, so the job comes
//! before that, or learns of it.

use debros_proto::{Code, Error, Namespace, Result};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Namespaces of which it is remembered when they were shut last.
const REMEMBERED: usize = 1000;

/// That a caller was let into a namespace, and when: after how many times that any was shut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission(u64);

/// Says which namespaces are shut.
#[derive(Debug, Default)]
pub(super) struct Doors {
    state: Mutex<State>,
    /// How many are shut, which is looked at by every call.
    are_shut: AtomicUsize,
    /// A backup of another network is being put back: names have other owners from one moment to the next.
    changes_hands: AtomicBool,
    /// How many times any was shut.
    times: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Namespaces that are being deleted, and whether somebody is at it: a deletion that failed is still to be finished.
    deleting: BTreeMap<Namespace, bool>,
    /// At which of the times namespaces were shut last.
    shut_at: HashMap<Namespace, u64>,
    /// All are taken to have been shut at this time: of some it is forgotten.
    all_shut_at: u64,
}

impl State {
    /// Forgets the oldest where there are too many.
    fn note(&mut self, namespace: &Namespace, time: u64) {
        self.shut_at.insert(namespace.clone(), time);
        if self.shut_at.len() <= REMEMBERED {
            return;
        }
        let oldest = self.shut_at.iter().min_by_key(|(_, time)| **time);
        if let Some((namespace, time)) = oldest.map(|(namespace, time)| (namespace.clone(), *time)) {
            self.shut_at.remove(&namespace);
            self.all_shut_at = self.all_shut_at.max(time);
        }
    }
}

/// Callers of a namespace are refused as long as this is there, and after it when the deletion is still to be finished.
pub(super) struct Shut {
    doors: Arc<Doors>,
    namespace: Namespace,
    stays: bool,
}

impl Shut {
    /// Says whether callers are refused until another deletion of the namespace or the end of the program: what they wrote
    /// would be deleted by the next start.
    pub(super) fn stays(&mut self, stays: bool) {
        self.stays = stays;
    }
}

impl Drop for Shut {
    fn drop(&mut self) {
        let mut state = self.doors.state();
        if self.stays {
            state.deleting.insert(self.namespace.clone(), false);
        } else {
            state.deleting.remove(&self.namespace);
        }
        self.doors.are_shut.store(state.deleting.len(), SeqCst);
    }
}

impl Doors {
    /// Lets a caller into a namespace.
    ///
    /// # Errors
    /// `unavailable`: it is being deleted, or the node changes hands.
    pub(super) fn admit(&self, namespace: &Namespace) -> Result<Admission> {
        // First: whoever is shut after this is refused by the number.
        let admission = Admission(self.times.load(SeqCst));
        if self.changes_hands.load(SeqCst) {
            return Err(changing_hands());
        }
        if self.are_shut.load(SeqCst) > 0 && self.state().deleting.contains_key(namespace) {
            return Err(being_deleted());
        }
        Ok(admission)
    }

    /// Refuses whoever was let in before the namespace was shut.
    ///
    /// # Errors
    /// `unavailable`.
    pub(super) fn check_still(&self, namespace: &Namespace, admission: Admission) -> Result<()> {
        if self.times.load(SeqCst) == admission.0 {
            return Ok(());
        }
        let state = self.state();
        let shut_at = state.shut_at.get(namespace).copied().unwrap_or(0).max(state.all_shut_at);
        if shut_at > admission.0 { Err(deleted_meanwhile()) } else { Ok(()) }
    }

    /// Refuses callers of a namespace until what is returned is dropped. Another's is not taken over; that of a deletion which
    /// is still to be finished is, and stays unless it is said otherwise.
    pub(super) fn shut(self: &Arc<Self>, namespace: &Namespace) -> Result<Shut> {
        let mut state = self.state();
        let stays = match state.deleting.get(namespace) {
            Some(true) => return Err(being_deleted()),
            Some(false) => true,
            None => false,
        };
        state.deleting.insert(namespace.clone(), true);
        self.are_shut.store(state.deleting.len(), SeqCst);
        let time = self.times.fetch_add(1, SeqCst) + 1;
        state.note(namespace, time);
        Ok(Shut { doors: Arc::clone(self), namespace: namespace.clone(), stays })
    }

    /// A namespace that is being deleted, if there is one.
    pub(super) fn any_deleting(&self) -> Option<Namespace> {
        self.state().deleting.keys().next().cloned()
    }

    /// Says whether callers of all namespaces are refused: who was let in by the owners of before must not come to the data of
    /// those who follow, nor the other way round.
    pub(super) fn change_hands(&self, under_way: bool) {
        let mut state = self.state();
        self.changes_hands.store(under_way, SeqCst);
        if under_way {
            state.all_shut_at = self.times.fetch_add(1, SeqCst) + 1;
            state.shut_at.clear();
        }
    }

    /// Nothing that panics runs while the lock is held.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn changing_hands() -> Error {
    Error::new(
        Code::Unavailable,
        "a backup of another network is being put back; if that failed, the node's operator has to restore again",
    )
    .retry_after(Duration::from_secs(1))
}

fn being_deleted() -> Error {
    Error::new(Code::Unavailable, "the namespace is being deleted; try again when that is done")
        .retry_after(Duration::from_secs(1))
}

fn deleted_meanwhile() -> Error {
    Error::new(
        Code::Unavailable,
        "the namespace was deleted, or other owners' data put back, while the write waited; nothing was changed",
    )
    .retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::{Doors, REMEMBERED};
    use debros_proto::Namespace;
    use std::sync::Arc;

    #[test]
    fn who_was_let_in_before_the_namespace_was_shut_is_refused_after_it() {
        let doors = Arc::<Doors>::default();
        let (a, b) = (Namespace::new("a").unwrap(), Namespace::new("b").unwrap());
        let early = doors.admit(&a).unwrap();
        let shut = doors.shut(&a).unwrap();
        assert!(doors.admit(&a).is_err() && doors.check_still(&a, early).is_err());
        let beside = doors.admit(&b).unwrap();
        drop(shut);
        let late = doors.admit(&a).unwrap();
        assert!(doors.check_still(&a, early).is_err());
        assert!(doors.check_still(&a, late).is_ok());
        assert!(doors.check_still(&b, early).is_ok() && doors.check_still(&b, beside).is_ok());
        // What is forgotten lets nobody in, and keeps nobody out who came after it.
        for index in 0..REMEMBERED {
            drop(doors.shut(&Namespace::new(&format!("n{index}")).unwrap()).unwrap());
        }
        assert!(doors.check_still(&a, early).is_err() && doors.check_still(&b, early).is_err());
        assert!(doors.check_still(&a, late).is_ok() && doors.check_still(&b, beside).is_ok());
        doors.change_hands(true);
        doors.change_hands(false);
        assert!(doors.check_still(&b, beside).is_err());
        assert!(doors.check_still(&b, doors.admit(&b).unwrap()).is_ok());
    }
}
