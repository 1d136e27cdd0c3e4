//! The databases of the engine: the system's, always open, and those of namespaces, opened when
//! they are used.

mod closing;
mod expiry_sweep;
mod namespace_files;
mod startup;

use super::closing_set::ClosingSet;
use super::conn::SqliteConnection;
use super::data_folder::DataFolder;
use super::database_handle::{DatabaseHandle, SharedResources};
use super::export_limiter::ExportLimiter;
use super::fair_queue::closed_error;
use super::file_record::{self, FileRecord, is_nonempty_file};
use super::integrity;
use super::namespace_locks::{AdmissionTicket, NamespaceLocks};
use super::open_failure::OpenFailure;
use crate::StorageReport;
use debros_proto::{Code, Error, Namespace, Result, lock};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How often it is looked whether a database is quiet.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// All databases.
pub(super) struct DatabaseManager {
    pub(super) shared: SharedResources,
    pub(super) system: DatabaseHandle,
    open_databases: Mutex<HashMap<Namespace, OpenDatabase>>,
    /// Counts uses, to find the database that was used longest ago.
    uses: AtomicU64,
    closing: Arc<ClosingSet>,
    /// What a new file of a namespace holds; made with the first.
    new_file: OnceLock<Vec<u8>>,
    closed: AtomicBool,
    /// Which namespaces' callers are let in.
    pub(super) namespace_locks: Arc<NamespaceLocks>,
    /// Held while a backup, restore or deletion runs.
    pub(super) maintenance_lock: Mutex<()>,
    /// Which of them began last.
    pub(super) maintenance_name: Mutex<&'static str>,
    pub(super) folder: DataFolder,
    /// Which namespaces' files were made.
    pub(super) file_record: FileRecord,
    pub(super) export_limiter: Arc<ExportLimiter>,
    /// Namespaces whose files were found to be missing.
    lost: Mutex<BTreeSet<Namespace>>,
}

struct OpenDatabase {
    slot: Arc<DatabaseSlot>,
    last_use: u64,
}

/// A namespace's database, once it is open. Opening the same one twice at a time is prevented by
/// the lock.
#[derive(Default)]
struct DatabaseSlot {
    opening: Mutex<()>,
    database: OnceLock<Arc<DatabaseHandle>>,
}

impl DatabaseManager {
    /// The namespaces that have a database, and those that should have one: its file was lost. In
    /// order.
    pub(super) fn list_namespaces(&self) -> std::io::Result<BTreeSet<Namespace>> {
        let mut namespaces = self.folder.list_namespaces()?;
        namespaces.append(&mut self.file_record.names());
        Ok(namespaces)
    }

    /// The namespaces of which any file is there, or should be.
    pub(super) fn list_remnants(&self) -> std::io::Result<BTreeSet<Namespace>> {
        let mut namespaces = self.folder.list_remnants()?;
        namespaces.append(&mut self.file_record.names());
        Ok(namespaces)
    }

    /// Whether a namespace has a database, or should have one.
    pub(super) fn has_database(&self, namespace: &Namespace) -> bool {
        self.file_record.contains(namespace) || self.folder.namespace_path(namespace).exists()
    }

    /// Passes unless a namespace's file was there and is not any more. Its names are noted.
    pub(super) fn check_not_lost(&self, namespace: &Namespace) -> Result<()> {
        let path = self.folder.namespace_path(namespace);
        match is_nonempty_file(&path) {
            Err(error) => Err(OpenFailure::Io(error).into_caller_error(&path)),
            Ok(false) if self.file_record.contains(namespace) => {
                if lock(&self.lost).insert(namespace.clone()) {
                    tracing::error!(path = %path.display(), "the namespace's database file is missing or empty");
                }
                Err(file_record::namespace_lost_error())
            }
            Ok(_) => {
                lock(&self.lost).remove(namespace);
                Ok(())
            }
        }
    }

    /// The namespaces whose files are missing, were removed or replaced, as far as that is known.
    /// In order.
    pub(super) fn lost_namespaces(&self) -> BTreeSet<Namespace> {
        let mut lost = lock(&self.lost).clone();
        let opened = self.all_open().into_iter();
        lost.extend(
            opened.filter(|(_, database)| database.is_displaced()).map(|(namespace, _)| namespace),
        );
        lost
    }

    /// What an operator has to know of where the data is.
    pub(super) fn storage_report(&self) -> StorageReport {
        let (shared, path) = (&self.shared, self.folder.path());
        let opened = self.all_open().into_iter();
        let mut damaged: Vec<Namespace> = opened
            .filter(|(_, database)| database.check_undamaged().is_err())
            .map(|(namespace, _)| namespace)
            .collect();
        damaged.sort();
        StorageReport {
            disk_free: super::data_folder::available_space(path).ok(),
            disk_reserve: shared.reserve.report(),
            max_size: shared.config.max_size,
            max_temp_size: shared.config.max_temp_size,
            damaged_namespaces: damaged,
            is_system_damaged: self.system.check_undamaged().is_err(),
        }
    }

    /// Refuses callers after the end.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Relaxed) { Err(closed_error()) } else { Ok(()) }
    }

    /// Refuses callers after the end, those of a namespace that is being deleted, and all while the
    /// node changes hands.
    pub(super) fn check_not_deleting(&self, namespace: &Namespace) -> Result<()> {
        self.admit_write(namespace).map(|_| ())
    }

    /// As [`check_not_deleting`](DatabaseManager::check_not_deleting), for a write, which asks
    /// again by what is returned when it runs.
    pub(super) fn admit_write(&self, namespace: &Namespace) -> Result<AdmissionTicket> {
        self.check_open()?;
        self.namespace_locks.admit_caller(namespace)
    }

    /// Waits until nothing runs or waits in a namespace's database, at the latest until `deadline`.
    /// Whether that is so. Blocks.
    pub(super) fn wait_until_idle(&self, namespace: &Namespace, deadline: Instant) -> bool {
        let is_quiet = || {
            let database = lock(&self.open_databases)
                .get(namespace)
                .and_then(|entry| entry.slot.database.get().cloned());
            database.is_none_or(|database| database.is_idle())
        };
        loop {
            if is_quiet() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.closed.load(Relaxed) {
                return false;
            }
            std::thread::sleep(left.min(POLL_INTERVAL));
        }
    }

    /// The database of a namespace, if it is open.
    fn find_open(&self, namespace: &Namespace) -> Option<Arc<DatabaseHandle>> {
        let mut open = lock(&self.open_databases);
        let entry = open.get_mut(namespace)?;
        entry.last_use = self.uses.fetch_add(1, Relaxed);
        entry.slot.database.get().cloned()
    }

    /// The database of a namespace, opened or made when it is not there.
    pub(super) async fn open_or_create(
        self: &Arc<Self>,
        namespace: &Namespace,
    ) -> Result<Arc<DatabaseHandle>> {
        self.check_not_deleting(namespace)?;
        if let Some(database) = self.find_open(namespace) {
            return Ok(database);
        }
        let (databases, namespace) = (Arc::clone(self), namespace.clone());
        tokio::task::spawn_blocking(move || databases.open_for_caller(&namespace))
            .await
            .unwrap_or_else(|error| {
                tracing::error!(%error, "opening a database broke off");
                Err(Error::internal("the database could not be opened; the node's log has more"))
            })
    }

    fn acquire_slot(&self, namespace: &Namespace) -> Result<Arc<DatabaseSlot>> {
        let mut open = lock(&self.open_databases);
        self.check_open()?;
        let used = self.uses.fetch_add(1, Relaxed);
        Ok(Arc::clone(
            &open
                .entry(namespace.clone())
                .or_insert_with(|| OpenDatabase { slot: Arc::default(), last_use: used })
                .slot,
        ))
    }

    /// As [`open_or_create`](DatabaseManager::open_or_create), on this thread.
    pub(super) fn open_for_caller(&self, namespace: &Namespace) -> Result<Arc<DatabaseHandle>> {
        self.open_checked(namespace, true, |databases| databases.check_not_deleting(namespace))
    }

    /// As [`open_for_caller`](DatabaseManager::open_for_caller), for a holder of
    /// `maintenance_lock`: nothing is deleted meanwhile, and a namespace whose deletion waits for
    /// that, or failed in the middle, is opened too.
    pub(super) fn open_namespace(&self, namespace: &Namespace) -> Result<Arc<DatabaseHandle>> {
        self.open_checked(namespace, true, DatabaseManager::check_open)
    }

    /// As [`open_namespace`](DatabaseManager::open_namespace), for what a backup puts there,
    /// however full the node is.
    pub(super) fn open_for_restore(&self, namespace: &Namespace) -> Result<Arc<DatabaseHandle>> {
        self.open_checked(namespace, false, DatabaseManager::check_open)
    }

    /// As [`open_for_restore`](DatabaseManager::open_for_restore); a database whose file was
    /// removed or replaced is closed before.
    pub(super) fn open_in_place(&self, namespace: &Namespace) -> Result<Arc<DatabaseHandle>> {
        let database = self.open_for_restore(namespace)?;
        if database.check_in_place().is_ok() {
            return Ok(database);
        }
        drop(database);
        self.close_namespace(namespace)?;
        self.open_for_restore(namespace)
    }

    fn open_checked(
        &self,
        namespace: &Namespace,
        is_limited: bool,
        check: impl FnOnce(&DatabaseManager) -> Result<()>,
    ) -> Result<Arc<DatabaseHandle>> {
        let slot = self.acquire_slot(namespace)?;
        let opening = lock(&slot.opening);
        // Under the lock that a deletion takes, so that nothing is made after it.
        check(self)?;
        if let Some(database) = slot.database.get() {
            return Ok(Arc::clone(database));
        }
        let opened = match self.open_file(namespace, is_limited) {
            // The node is short of descriptors or memory: an idle database gives some back.
            Err(error) if error.code == Code::Overloaded && self.close_some_idle() => {
                self.open_file(namespace, is_limited)
            }
            // SQLite makes files of its own beside one that it opens, and the caller may want to
            // delete.
            Err(_) if self.shared.reserve.release_if_full() => {
                self.open_file(namespace, is_limited)
            }
            opened => opened,
        };
        let database = Arc::new(opened?);
        // Nothing else sets it: the lock is held.
        let database = Arc::clone(slot.database.get_or_init(|| database));
        drop(opening);
        drop(slot);
        self.close_idle();
        Ok(database)
    }

    /// The files of the open databases of namespaces.
    pub(super) fn open_paths(&self) -> Vec<std::path::PathBuf> {
        self.all_open().into_iter().map(|(_, database)| database.path().to_owned()).collect()
    }

    /// Waits until no database is being closed that is now.
    pub(super) fn wait_until_closed(&self) {
        self.closing.names().iter().for_each(|namespace| self.closing.wait_until_closed(namespace));
    }

    /// Whether a database is still the one of the namespace: the namespace was not deleted since,
    /// and made again.
    pub(super) fn is_current(&self, namespace: &Namespace, database: &Arc<DatabaseHandle>) -> bool {
        self.check_not_deleting(namespace).is_ok()
            && self.find_open(namespace).is_some_and(|opened| Arc::ptr_eq(&opened, database))
    }

    /// Notes when the outcome of a namespace's call shows that its database is damaged. Then it
    /// takes no writes until it is restored, and is checked when it is opened again.
    pub(super) fn note_damage<T>(&self, namespace: &Namespace, outcome: &Result<T>) {
        if !outcome.as_ref().is_err_and(|error| error.code == Code::Corrupt) {
            return;
        }
        if let Some(database) = self.find_open(namespace)
            && database.set_damaged(true)
        {
            tracing::error!(%namespace, "the namespace's database is damaged: it takes no writes until it is restored");
            lock(&self.closing.unchecked).insert(namespace.clone());
        }
    }

    /// A closed database is of no use any more. One that was not open is opened here by those that
    /// wait; the table and the caller are two.
    fn evict_slot(&self, namespace: &Namespace, slot: &Arc<DatabaseSlot>) {
        let mut open = lock(&self.open_databases);
        if slot.database.get().is_some() || Arc::strong_count(slot) == 2 {
            open.remove(namespace);
        }
    }

    /// The open databases of namespaces.
    fn all_open(&self) -> Vec<(Namespace, Arc<DatabaseHandle>)> {
        let open = lock(&self.open_databases);
        open.iter()
            .filter_map(|(namespace, entry)| {
                Some((namespace.clone(), Arc::clone(entry.slot.database.get()?)))
            })
            .collect()
    }
}

fn check_after_unclean_stop(conn: &SqliteConnection) -> Result<(), OpenFailure> {
    match integrity::check_integrity(&conn.db, integrity::CheckDepth::Quick)? {
        None => Ok(()),
        Some(findings) => Err(OpenFailure::Corrupt(findings)),
    }
}

#[cfg(test)]
mod tests;
