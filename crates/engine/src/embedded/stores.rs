//! The databases of the engine: the system's, always open, and those of namespaces, opened when they are used.

mod failures;

use super::config::{EmbeddedConfig, OpenError};
use super::conn::Conn;
use super::copies::Exports;
use super::doors::{Admission, Doors};
use super::file_record::{self, FileRecord, holds_anything};
use super::folder::{self, Folder, unless_missing, write_synced};
use super::guard;
use super::job::Undo;
use super::kv;
use super::leaving::{Leaver, Leaving};
use super::ledger::Ledger;
use super::metrics::Metrics;
use super::queue::{Budget, closed};
use super::reserve::Reserve;
use super::size::{Full, Sizes};
use super::store::{Failure, Shared, Store, Write};
use super::{failure, integrity, process, tenant};
use crate::migrations::{self, MIGRATIONS};
use debros_proto::{Code, Error, Namespace, Result, now_ms};
use debros_sql::Rewriter;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The engine's own work has no caller who waits.
pub(super) const FAR: Duration = Duration::from_secs(24 * 60 * 60);

/// How often it is looked whether a database is quiet.
const LOOK: Duration = Duration::from_millis(10);

/// KiB of the system's database, where all key-value pairs are, in the writer's memory.
const SYSTEM_CACHE: u32 = 16_384;
/// KiB of a namespace's database in the writer's memory: many are open.
const NAMESPACE_CACHE: u32 = 2048;

/// Databases that are closed at once when descriptors are short.
const SOME: usize = 4;
/// How much of the time to close is kept for the system's database.
const FOR_THE_SYSTEM: Duration = Duration::from_secs(1);
/// How long all that end at once may take for it, when the engine closes.
const SOON: Duration = Duration::from_millis(500);

/// Namespaces whose files are missing that the log names at start.
const LOGGED: usize = 100;

/// Bytes of rewritten statements that are remembered, of all namespaces together.
const REWRITTEN_BYTES: usize = 32 << 20;

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

/// Enters the namespaces that have a database and no row: what is there already belongs to the operator, and must not
/// become a stranger's who signs in for it first.
fn enter_files(conn: &Conn, files: &BTreeSet<Namespace>) {
    let entered = conn.db.unchecked_transaction().and_then(|transaction| {
        let mut own = conn.own(
            "/*debros*/ INSERT INTO namespaces (name, created_at, owner) VALUES (?1, ?2, 'operator')
            ON CONFLICT (name) DO NOTHING",
        )?;
        files.iter().try_for_each(|namespace| own.execute((namespace.as_str(), now_ms())).map(|_| ()))?;
        drop(own);
        transaction.commit()
    });
    // Where no row can be written, no stranger can be entered either, and reads go on.
    if let Err(error) = entered {
        tracing::warn!(%error, "namespaces without an owner could not be given to the operator");
    }
}

impl Stores {
    /// Opens the folder and the system's database, and brings that up to date.
    pub(super) fn open(config: EmbeddedConfig) -> Result<Stores, OpenError> {
        let folder = Folder::open(&config.data_dir)?;
        if config.backup_dir.exists() {
            folder::make_private(&config.backup_dir).map_err(|error| OpenError::io(&config.backup_dir, error))?;
        }
        let process = process::set_up(&folder.tmp(), config.max_memory, config.max_temp_size);
        process.map_err(|error| OpenError::database(folder.tmp(), &error, &config.backup_dir))?;
        let path = folder.system();
        let of_record = |error| OpenError::file_record(&config.file_record, error);
        let recorded = FileRecord::read(&config.file_record, folder.path()).map_err(of_record)?;
        let is_restoring = folder.restoring().map_err(|error| OpenError::io(folder.path(), error))?.is_some();
        let has_system = holds_anything(&path).map_err(|error| OpenError::io(&path, error))?;
        if let Some(recorded) = &recorded
            && !has_system
            && !is_restoring
        {
            let here = std::fs::canonicalize(folder.path()).unwrap_or_else(|_| folder.path().to_owned());
            let elsewhere = recorded.elsewhere.as_deref();
            return Err(OpenError::Lost {
                restore: path.with_file_name(folder::RESTORE),
                path,
                backup_dir: config.backup_dir,
                record: config.file_record,
                elsewhere: elsewhere.map_or(String::new(), |other| {
                    format!(" in the folder {}, in place of which {} is there now", other.display(), here.display())
                }),
            });
        }
        let (mut recorded, elsewhere) = recorded.map_or_else(Default::default, |of| (of.names, of.elsewhere));
        if let Some(other) = elsewhere {
            tracing::warn!(
                record = %config.file_record.display(), recorded = %other.display(), folder = %folder.path().display(),
                "the record of the databases names another folder; from now on it is of this one, where what it names must be"
            );
        }
        let was_clean = folder.take_clean()?;
        let files = folder.namespaces().map_err(|error| OpenError::io(folder.path(), error))?;
        let check_system = was_clean.is_none();
        let unchecked = was_clean.unwrap_or_else(|| files.clone());
        let reserve = Arc::new(Reserve::open(folder.path()));
        let sizes = Arc::new(Sizes::new(config.max_size, config.max_namespace_size, config.max_owner_size));
        for namespace in &files {
            let path = folder.namespace(namespace);
            sizes.set(Some(namespace), std::fs::metadata(&path).map_or(0, |file| file.len()));
        }
        let rewriter = Arc::new(Rewriter::new(REWRITTEN_BYTES));
        let waiting = Arc::new(Budget::new(config.waiting_bytes));
        let shared = Shared { config, sizes, reserve, metrics: Arc::new(Metrics::new()), waiting, rewriter };
        // Those whose deletion was interrupted are nobody's: they go in a moment.
        let going = folder.deleting().map_err(|error| OpenError::io(folder.path(), error))?;
        let staying = &files - &going;
        let system = Store::open(&path, SYSTEM_CACHE, &shared, |conn| {
            if check_system {
                check(conn)?;
            }
            // What is deleted here is overwritten: what a namespace had must not be in the pages that others get.
            conn.db.execute_batch("PRAGMA secure_delete = ON")?;
            migrations::apply(&mut conn.db, MIGRATIONS, now_ms()).map_err(Failure::Migration)?;
            enter_files(conn, &staying);
            let ledger = Ledger::new(Arc::clone(&shared.sizes));
            ledger.load(conn, !check_system)?;
            conn.ledger = Some(ledger);
            Ok(())
        })
        .map_err(|failure| failure.of_system(&path, &shared.config.backup_dir))?;
        let lost = find_lost(&folder, &(&recorded - &going));
        recorded.extend(files);
        let record = &shared.config.file_record;
        let record =
            FileRecord::begin(record, folder.path(), recorded).map_err(|error| OpenError::io(record, error))?;
        let leaving = Arc::<Leaving>::default();
        *lock(&leaving.unchecked) = unchecked;
        Ok(Stores {
            shared,
            system,
            open: Mutex::default(),
            uses: AtomicU64::new(0),
            leaving,
            new_file: OnceLock::new(),
            closed: AtomicBool::new(false),
            doors: Arc::default(),
            copying: Mutex::default(),
            running: Mutex::default(),
            folder,
            record,
            exports: Arc::default(),
            lost: Mutex::new(lost),
        })
    }

    /// Forgets that a namespace's database is to be checked, and puts its damaged file aside.
    pub(super) fn put_aside(&self, namespace: &Namespace) -> std::io::Result<()> {
        let path = self.folder.namespace(namespace);
        for suffix in ["", "-wal", "-shm"] {
            let file = path.with_extension(format!("db{suffix}"));
            unless_missing(std::fs::rename(&file, path.with_extension(format!("damaged{suffix}"))))?;
        }
        self.record.strike_out(namespace)?;
        lock(&self.lost).remove(namespace);
        lock(&self.leaving.unchecked).remove(namespace);
        self.shared.sizes.set(Some(namespace), 0);
        Ok(())
    }

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

    /// Closes a namespace's database, if it is open: whoever comes next opens it anew. Blocks.
    pub(super) fn close_one(&self, namespace: &Namespace) -> Result<()> {
        let slot = self.slot(namespace)?;
        let _opening = lock(&slot.opening);
        if slot.store.get().is_some_and(|store| !store.close()) {
            lock(&self.leaving.unchecked).insert(namespace.clone());
        }
        self.forget(namespace, &slot);
        Ok(())
    }

    fn open_file(&self, namespace: &Namespace, is_limited: bool) -> Result<Store> {
        let path = self.folder.namespace(namespace);
        self.leaving.wait(namespace);
        self.check_not_lost(namespace)?;
        let is_new = !path.exists();
        self.make_file(namespace, &path, is_limited)?;
        let must_check = lock(&self.leaving.unchecked).contains(namespace);
        let open = || {
            Store::open(&path, NAMESPACE_CACHE, &self.shared, |conn| {
                if must_check {
                    check(conn)?;
                }
                tenant::settle(conn, namespace, &self.shared.rewriter)?;
                // Nobody looks after a closed database, so what expired meanwhile goes now.
                guard::sweep(conn, now_ms()).map(|_| ()).map_err(Failure::Told)
            })
        };
        let store = match open() {
            Err(Failure::Old) => tenant::convert(&path, namespace, &self.folder.tmp())
                .and_then(|()| open().map_err(|failure| failure.of_namespace(&path)))?,
            opened => opened.map_err(|failure| failure.of_namespace(&path))?,
        };
        match self.record.add(namespace) {
            // It was there and not recorded: it can be read, and what is in it be deleted, on a full disk too.
            Err(error) if !is_new => {
                tracing::warn!(%namespace, %error, "that the database is there can not be recorded");
            }
            recorded => recorded.map_err(|error| Failure::Io(error).of_namespace(&path))?,
        }
        lock(&self.leaving.unchecked).remove(namespace);
        Ok(store)
    }

    /// Makes a namespace's file when there is none. It is written whole, which takes two waits for the disk; SQLite would
    /// take many more. Where it `is_limited`, it has to fit beside the others.
    fn make_file(&self, namespace: &Namespace, path: &Path, is_limited: bool) -> Result<()> {
        if path.exists() {
            return Ok(());
        }
        let bytes = match self.new_file.get() {
            Some(bytes) => bytes,
            None => {
                let made = tenant::new_file(&self.folder.tmp()).map_err(|failure| failure.of_namespace(path))?;
                self.new_file.get_or_init(|| made)
            }
        };
        // The file that is put there is not empty, so SQLite would take the log of one that was there before for its own.
        for ending in ["db-wal", "db-shm"] {
            unless_missing(std::fs::remove_file(path.with_extension(ending)))
                .map_err(|error| Failure::Io(error).of_namespace(path))?;
        }
        let (sizes, size) = (&self.shared.sizes, bytes.len() as u64);
        if is_limited {
            sizes.add(namespace, size).map_err(|full| match full {
                Full::Node { total, max } => failure::node_full("a new namespace's database", total, max),
                Full::Quota(quota) => failure::quota_exceeded(quota),
            })?;
        } else {
            sizes.set(Some(namespace), size);
        }
        write_synced(path, bytes).map_err(|error| {
            sizes.set(Some(namespace), 0);
            Failure::Io(error).of_namespace(path)
        })
    }

    /// Deletes a namespace's database, open or damaged as it may be, so that the namespace has none. What it had accepted
    /// is finished first. Whoever comes meanwhile waits, or is told to try again, and then makes a new one. Blocks.
    pub(super) fn remove(&self, namespace: &Namespace) -> Result<()> {
        self.take_away(namespace, |path| std::fs::remove_file(path))
    }

    /// As [`remove`](Stores::remove), but for the operator the files stay, in `folder`, which is there.
    pub(super) fn set_aside(&self, namespace: &Namespace, folder: &Path) -> Result<()> {
        self.take_away(namespace, |path| std::fs::rename(path, folder.join(path.file_name().unwrap_or_default())))
    }

    fn take_away(&self, namespace: &Namespace, take: impl Fn(&Path) -> std::io::Result<()>) -> Result<()> {
        let slot = self.slot(namespace)?;
        // Nobody opens the file while it goes: a write to a file without a name would be acknowledged and lost.
        let _opening = lock(&slot.opening);
        self.leaving.wait(namespace);
        if let Some(store) = slot.store.get() {
            store.close();
        }
        let path = self.folder.namespace(namespace);
        // What a restore put aside goes too.
        for ending in folder::ENDINGS {
            unless_missing(take(&path.with_extension(ending))).map_err(|error| {
                tracing::error!(path = %path.display(), %error, "the namespace's database can not be removed");
                Error::internal("the database can not be removed; the node's log has more")
            })?;
        }
        self.record.strike_out(namespace).map_err(|error| {
            tracing::error!(path = %path.display(), %error, "that the database was removed can not be recorded");
            Error::internal("the removal of the database can not be recorded; the node's log has more")
        })?;
        lock(&self.lost).remove(namespace);
        lock(&self.leaving.unchecked).remove(namespace);
        self.shared.sizes.set(Some(namespace), 0);
        self.forget(namespace, &slot);
        Ok(())
    }

    /// A closed store is of no use any more. One that was not open is opened here by those who wait; the table and the caller
    /// are two.
    fn forget(&self, namespace: &Namespace, slot: &Arc<Slot>) {
        let mut open = lock(&self.open);
        if slot.store.get().is_some() || Arc::strong_count(slot) == 2 {
            open.remove(namespace);
        }
    }

    /// Closes databases that nobody uses until no more are open than there should be.
    fn close_idle(&self) {
        let most = self.shared.config.open_databases.max(1);
        self.leaving.close(self.idle_over(most));
    }

    /// Closes some databases that nobody uses, on this thread. False: there is none.
    fn close_some(&self) -> bool {
        let open = lock(&self.open).len();
        let leavers = self.idle_over(open.saturating_sub(SOME));
        let are_any = !leavers.is_empty();
        drop(leavers);
        are_any
    }

    /// Takes databases that nobody uses out of the table, the longest unused first, until it holds no more than `most`.
    fn idle_over(&self, most: usize) -> Vec<Leaver> {
        let mut leavers = Vec::new();
        let mut open = lock(&self.open);
        while open.len() > most {
            let oldest = open.iter().filter(|(_, entry)| is_idle(&entry.slot)).min_by_key(|(_, entry)| entry.used);
            let Some(namespace) = oldest.map(|(namespace, _)| namespace.clone()) else { break };
            let store = open.remove(&namespace).and_then(|entry| entry.slot.store.get().cloned());
            // Under the lock, so that whoever opens it again finds it named.
            leavers.push(self.leaving.begin(namespace, store));
        }
        leavers
    }

    /// The open stores of namespaces.
    fn all_opened(&self) -> Vec<(Namespace, Arc<Store>)> {
        let open = lock(&self.open);
        open.iter()
            .filter_map(|(namespace, entry)| Some((namespace.clone(), Arc::clone(entry.slot.store.get()?))))
            .collect()
    }

    /// Deletes what has expired, a thousand rows at a time so that other writes come between. What one database refuses is
    /// said when the others were swept; one that is closed meanwhile is none of them any more.
    pub(super) async fn sweep(&self, now_ms: i64) -> Result<u64> {
        let mut swept =
            sweep(&self.system, now_ms, kv::sweep).await? + sweep(&self.system, now_ms, guard::sweep).await?;
        let mut refused = None;
        for (namespace, store) in self.all_opened() {
            match sweep(&store, now_ms, guard::sweep).await {
                Ok(count) => swept += count,
                Err(_) if store.is_refusing() => {}
                Err(error) => {
                    tracing::warn!(%namespace, error = error.message, "what expired in a database can not be deleted");
                    refused.get_or_insert(error);
                }
            }
        }
        self.check_open()?;
        refused.map_or(Ok(swept), Err)
    }

    /// Finishes what was accepted and closes everything. Blocks, until `deadline` for statements and then for the disk. The
    /// marker of a clean stop is put when the system's database is in order; it names those that may not be.
    pub(super) fn close(&self, deadline: Instant) {
        if self.closed.swap(true, Relaxed) {
            return;
        }
        let for_namespaces = deadline.checked_sub(FOR_THE_SYSTEM).unwrap_or(deadline);
        // A backup sees that the engine is closed and gives up; a restore is finished at the next start.
        let _copying = lock(&self.copying);
        let entries: Vec<(Namespace, Entry)> = lock(&self.open).drain().collect();
        let mut busy = Vec::new();
        for (namespace, entry) in entries {
            // Whoever is opening it is waited for.
            let _opened = lock(&entry.slot.opening);
            if let Some(store) = entry.slot.store.get() {
                store.refuse();
                busy.push((namespace, Arc::clone(store)));
            }
        }
        // Most end at once: they are closed before anything is waited for that may take all the time there is.
        let soon = for_namespaces.min(Instant::now() + SOON);
        for last in [soon, for_namespaces] {
            busy.retain(|(namespace, store)| {
                let ends = store.ends_by(last);
                if ends && !store.close() {
                    lock(&self.leaving.unchecked).insert(namespace.clone());
                }
                !ends
            });
        }
        let mut left = self.leaving.wait_for_all(for_namespaces);
        busy.iter().for_each(|(_, store)| store.give_up());
        left.extend(busy.into_iter().map(|(namespace, _)| namespace));
        lock(&self.leaving.unchecked).extend(left.iter().cloned());
        self.system.refuse();
        if !self.system.ends_by(deadline) {
            self.system.give_up();
            return;
        }
        if self.system.close()
            && let Err(error) = self.folder.put_clean(&lock(&self.leaving.unchecked))
        {
            tracing::warn!(%error, "the marker of a clean stop could not be written; the next start checks the databases");
        }
        // A statement that still runs has its file open: the folder is free when the process ends.
        if left.is_empty() {
            self.folder.unlock();
        }
    }
}

/// Those of the recorded namespaces whose files are missing or empty, each in the log.
fn find_lost(folder: &Folder, recorded: &BTreeSet<Namespace>) -> BTreeSet<Namespace> {
    let is_lost = |namespace: &&Namespace| !holds_anything(&folder.namespace(namespace)).unwrap_or(true);
    let lost: BTreeSet<Namespace> = recorded.iter().filter(is_lost).cloned().collect();
    for namespace in lost.iter().take(LOGGED) {
        let path = folder.namespace(namespace);
        tracing::error!(path = %path.display(), "a namespace's database file is missing or empty: the namespace is not served");
    }
    if lost.len() > LOGGED {
        tracing::error!(count = lost.len(), "so are other namespaces' database files");
    }
    lost
}

async fn sweep(store: &Store, now_ms: i64, some: fn(&Conn, i64) -> Result<usize>) -> Result<u64> {
    let mut swept = 0;
    loop {
        let write = Write::clearing(Undo::Savepoint);
        let count = store.write(write, move |conn| some(conn, now_ms)).await?;
        swept += count as u64;
        if count == 0 {
            return Ok(swept);
        }
    }
}

/// Only the table of open databases holds it, and none of its threads is at work: a caller can go away while his statement
/// runs, and closing would wait for that.
fn is_idle(slot: &Arc<Slot>) -> bool {
    Arc::strong_count(slot) == 1
        && slot.store.get().is_some_and(|store| Arc::strong_count(store) == 1 && store.is_quiet())
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
