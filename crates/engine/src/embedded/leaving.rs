//! Closing databases that nobody uses, beside those who open others: closing waits for the disk.

use super::store::Store;
use debros_proto::Namespace;
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Databases that may be under way; whoever adds one more closes it himself.
const BEHIND: usize = 8;

/// The databases that are being closed.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    names: Mutex<BTreeSet<Namespace>>,
    gone: Condvar,
    /// Databases that may have been left in disorder and were not looked at since.
    pub(super) unchecked: Mutex<BTreeSet<Namespace>>,
}

/// A database that is closed when this is dropped.
pub(super) struct Leaver {
    leaving: Arc<Leaving>,
    namespace: Namespace,
    store: Option<Arc<Store>>,
}

impl Leaving {
    /// Says that a database is being closed, until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>, namespace: Namespace, store: Option<Arc<Store>>) -> Leaver {
        lock(&self.names).insert(namespace.clone());
        Leaver { leaving: Arc::clone(self), namespace, store }
    }

    /// Closes databases: on a thread of its own as long as few are under way.
    pub(super) fn close(&self, leavers: Vec<Leaver>) {
        if leavers.is_empty() {
            return;
        }
        if lock(&self.names).len() > BEHIND {
            drop(leavers);
            return;
        }
        // Without a thread they are closed here, as what is not run is dropped.
        let _ = std::thread::Builder::new().name("db-closer".to_owned()).spawn(move || drop(leavers));
    }

    /// Waits until a database is closed. One that is closed removes its log by name: nobody may have made a new file of
    /// that name before.
    pub(super) fn wait(&self, namespace: &Namespace) {
        let mut names = lock(&self.names);
        while names.contains(namespace) {
            names = self.gone.wait(names).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until all are closed.
    pub(super) fn wait_for_all(&self) {
        let mut names = lock(&self.names);
        while !names.is_empty() {
            names = self.gone.wait(names).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Leaver {
    fn drop(&mut self) {
        if self.store.take().is_some_and(|store| !store.close()) {
            lock(&self.leaving.unchecked).insert(self.namespace.clone());
        }
        lock(&self.leaving.names).remove(&self.namespace);
        self.leaving.gone.notify_all();
    }
}

/// Nothing that panics runs while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
