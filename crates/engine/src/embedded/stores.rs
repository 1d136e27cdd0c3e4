//! The databases of the engine: the system's, always open, and those of namespaces, opened when they are used.

mod closing;
mod expiry_sweep;
mod failures;
mod namespace_files;
mod startup;

use super::conn::Conn;
use super::copies::Exports;
use super::doors::{Admission, Doors};
use super::file_record::{self, FileRecord, holds_anything};
use super::folder::Folder;
use super::integrity;
use super::leaving::Leaving;
use super::queue::closed;
use super::store::{Failure, Shared, Store};
use debros_proto::{Code, Error, Namespace, Result};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The engine's own work has no caller who waits.
pub(super) const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// How often it is looked whether a database is quiet.
const LOOK: Duration = Duration::from_millis(10);

/// All databases.
pub(super) struct Stores {
    pub(super) shared: Shared,
    pub(super) system: Store,
    open: Mutex<HashMap<Namespace, Entry>>,
    /// Counts uses, to tell which database was used longest ago.
    uses: AtomicU64,
    leaving: Arc<Leaving>,
    /// What a new file of a namespace holds; made with the first.
    new_file: OnceLock<Vec<u8>>,
    closed: AtomicBool,
    /// Which namespaces' callers are let in.
    pub(super) doors: Arc<Doors>,
    /// Held while a backup, restore or deletion runs.
    pub(super) copying: Mutex<()>,
    /// Which of them began last.
    pub(super) running: Mutex<&'static str>,
    pub(super) folder: Folder,
    /// Which namespaces' files were made.
    pub(super) record: FileRecord,
    pub(super) exports: Arc<Exports>,
    /// Namespaces whose files were found to be missing.
    lost: Mutex<BTreeSet<Namespace>>,
}

struct Entry {
    slot: Arc<Slot>,
    used: u64,
}

/// A namespace's store, once it is open. Opening the same one twice at a time is prevented by the lock.
#[derive(Default)]
struct Slot {
    opening: Mutex<()>,
    store: OnceLock<Arc<Store>>,
}

impl Stores {
    /// The namespaces that have a database, and those that should have one: its file was lost. In order.
    pub(super) fn namespaces(&self) -> std::io::Result<BTreeSet<Namespace>> {
        let mut namespaces = self.folder.namespaces()?;
        namespaces.append(&mut self.record.names());
        Ok(namespaces)
    }

    /// The namespaces of which any file is there, or should be.
    pub(super) fn remnants(&self) -> std::io::Result<BTreeSet<Namespace>> {
        let mut namespaces = self.folder.remnants()?;
        namespaces.append(&mut self.record.names());
        Ok(namespaces)
    }

    /// Whether a namespace has a database, or should have one.
    pub(super) fn has_database(&self, namespace: &Namespace) -> bool {
        self.record.has(namespace) || self.folder.namespace(namespace).exists()
    }

    /// Passes unless a namespace's file was there and is not any more. Its names are noted.
    pub(super) fn check_not_lost(&self, namespace: &Namespace) -> Result<()> {
        let path = self.folder.namespace(namespace);
        match holds_anything(&path) {
            Err(error) => Err(Failure::Io(error).of_namespace(&path)),
            Ok(false) if self.record.has(namespace) => {
                if lock(&self.lost).insert(namespace.clone()) {
                    tracing::error!(path = %path.display(), "the namespace's database file is missing or empty");
                }
                Err(file_record::lost())
            }
            Ok(_) => {
                lock(&self.lost).remove(namespace);
                Ok(())
            }
        }
    }

    /// The namespaces whose files are missing, were removed or replaced, as far as that is known. In order.
    pub(super) fn lost(&self) -> BTreeSet<Namespace> {
        let mut lost = lock(&self.lost).clone();
        let opened = self.all_opened().into_iter();
        lost.extend(opened.filter(|(_, store)| store.is_displaced()).map(|(namespace, _)| namespace));
        lost
    }

    /// Refuses callers after the end.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Relaxed) { Err(closed()) } else { Ok(()) }
    }

    /// Refuses callers after the end, those of a namespace that is being deleted, and all while the node changes hands.
    pub(super) fn check_there(&self, namespace: &Namespace) -> Result<()> {
        self.admit(namespace).map(|_| ())
    }

    /// As [`check_there`](Stores::check_there), for a write, which asks again by what is returned when it runs.
    pub(super) fn admit(&self, namespace: &Namespace) -> Result<Admission> {
        self.check_open()?;
        self.doors.admit(namespace)
    }

    /// Waits until nothing runs or waits in a namespace's database, at the latest until `deadline`. Whether that is so. Blocks.
    pub(super) fn is_quiet_by(&self, namespace: &Namespace, deadline: Instant) -> bool {
        let is_quiet = || {
            let store = lock(&self.open).get(namespace).and_then(|entry| entry.slot.store.get().cloned());
            store.is_none_or(|store| store.is_quiet())
        };
        loop {
            if is_quiet() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.closed.load(Relaxed) {
                return false;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// The store of a namespace, if it is open.
    fn opened(&self, namespace: &Namespace) -> Option<Arc<Store>> {
        let mut open = lock(&self.open);
        let entry = open.get_mut(namespace)?;
        entry.used = self.uses.fetch_add(1, Relaxed);
        entry.slot.store.get().cloned()
    }

    /// The store of a namespace, opened or made when it is not there.
    pub(super) async fn namespace(self: &Arc<Self>, namespace: &Namespace) -> Result<Arc<Store>> {
        self.check_there(namespace)?;
        if let Some(store) = self.opened(namespace) {
            return Ok(store);
        }
        let (stores, namespace) = (Arc::clone(self), namespace.clone());
        tokio::task::spawn_blocking(move || stores.open_for_caller(&namespace)).await.unwrap_or_else(|error| {
            tracing::error!(%error, "opening a database broke off");
            Err(Error::internal("the database could not be opened; the node's log has more"))
        })
    }

    fn slot(&self, namespace: &Namespace) -> Result<Arc<Slot>> {
        let mut open = lock(&self.open);
        self.check_open()?;
        let used = self.uses.fetch_add(1, Relaxed);
        Ok(Arc::clone(&open.entry(namespace.clone()).or_insert_with(|| Entry { slot: Arc::default(), used }).slot))
    }

    /// As [`namespace`](Stores::namespace), on this thread.
    pub(super) fn open_for_caller(&self, namespace: &Namespace) -> Result<Arc<Store>> {
        self.open_checked(namespace, true, |stores| stores.check_there(namespace))
    }

    /// As [`open_for_caller`](Stores::open_for_caller), for who holds `copying`: nothing is deleted meanwhile, and a namespace
    /// whose deletion waits for that, or failed in the middle, is opened too.
    pub(super) fn open_namespace(&self, namespace: &Namespace) -> Result<Arc<Store>> {
        self.open_checked(namespace, true, Stores::check_open)
    }

    /// As [`open_namespace`](Stores::open_namespace), for what a backup puts there, however full the node is.
    pub(super) fn open_for_restore(&self, namespace: &Namespace) -> Result<Arc<Store>> {
        self.open_checked(namespace, false, Stores::check_open)
    }

    /// As [`open_for_restore`](Stores::open_for_restore); a database whose file was removed or replaced is closed before.
    pub(super) fn open_in_place(&self, namespace: &Namespace) -> Result<Arc<Store>> {
        let store = self.open_for_restore(namespace)?;
        if store.check_in_place().is_ok() {
            return Ok(store);
        }
        drop(store);
        self.close_one(namespace)?;
        self.open_for_restore(namespace)
    }

    fn open_checked(
        &self,
        namespace: &Namespace,
        is_limited: bool,
        check: impl FnOnce(&Stores) -> Result<()>,
    ) -> Result<Arc<Store>> {
        let slot = self.slot(namespace)?;
        let opening = lock(&slot.opening);
        // Under the lock that a deletion takes, so that nothing is made after it.
        check(self)?;
        if let Some(store) = slot.store.get() {
            return Ok(Arc::clone(store));
        }
        let opened = match self.open_file(namespace, is_limited) {
            // The node is short of descriptors or memory: a database that nobody uses gives some back.
            Err(error) if error.code == Code::Overloaded && self.close_some() => self.open_file(namespace, is_limited),
            // SQLite makes files of its own beside one that it opens, and whoever comes may want to delete.
            Err(_) if self.shared.reserve.release_if_full() => self.open_file(namespace, is_limited),
            opened => opened,
        };
        let store = Arc::new(opened?);
        // Nobody else sets it: the lock is held.
        let store = Arc::clone(slot.store.get_or_init(|| store));
        drop(opening);
        drop(slot);
        self.close_idle();
        Ok(store)
    }

    /// Whether a store is still the one of the namespace: the namespace was not deleted since, and made again.
    pub(super) fn is_still(&self, namespace: &Namespace, store: &Arc<Store>) -> bool {
        self.check_there(namespace).is_ok() && self.opened(namespace).is_some_and(|opened| Arc::ptr_eq(&opened, store))
    }

    /// Whether the outcome of a namespace's call tells that its database is damaged. Then it takes no writes until it is
    /// restored, and is checked when it is opened again.
    pub(super) fn note_damage<T>(&self, namespace: &Namespace, outcome: &Result<T>) {
        if !outcome.as_ref().is_err_and(|error| error.code == Code::Corrupt) {
            return;
        }
        if let Some(store) = self.opened(namespace)
            && store.mark_damaged(true)
        {
            tracing::error!(%namespace, "the namespace's database is damaged: it takes no writes until it is restored");
            lock(&self.leaving.unchecked).insert(namespace.clone());
        }
    }

    /// A closed store is of no use any more. One that was not open is opened here by those who wait; the table and the caller
    /// are two.
    fn forget(&self, namespace: &Namespace, slot: &Arc<Slot>) {
        let mut open = lock(&self.open);
        if slot.store.get().is_some() || Arc::strong_count(slot) == 2 {
            open.remove(namespace);
        }
    }

    /// The open stores of namespaces.
    fn all_opened(&self) -> Vec<(Namespace, Arc<Store>)> {
        let open = lock(&self.open);
        open.iter()
            .filter_map(|(namespace, entry)| Some((namespace.clone(), Arc::clone(entry.slot.store.get()?))))
            .collect()
    }
}

fn check(conn: &Conn) -> Result<(), Failure> {
    match integrity::findings(&conn.db, integrity::Depth::Quick)? {
        None => Ok(()),
        Some(findings) => Err(Failure::Corrupt(findings)),
    }
}

/// Nothing that panics runs while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
