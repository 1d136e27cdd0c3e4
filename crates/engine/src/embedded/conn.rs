//! A connection to one SQLite file, set up the one way that the engine uses.

use super::authorizer::{RightsKind, StatementAuthorizer, StatementRights, StatementTraits};
use super::deadline::{RunningStatement, RunningStatementGuard, StatementDeadline, Stopwatch};
use super::functions;
use super::owners::ChangedOwners;
use super::temp_file_watch::TempFileWatch;
use super::tenant::WriterSchema;
use super::usage_ledger::UsageLedger;
use debros_proto::{Code, Error, Result};
use rusqlite::config::DbConfig;
use rusqlite::hooks::Action;
use rusqlite::limits::Limit;
use rusqlite::{CachedStatement, Connection, OpenFlags};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The engine's own statements start with this, so that a user's statement can never be answered
/// from the cache with one of them, which was compiled with more rights.
pub(super) const INTERNAL_SQL_MARK: &str = "/*debros*/";

/// Bytes of the largest string, BLOB or row.
pub(super) const MAX_LENGTH: usize = 33 << 20;
/// Bytes of the largest value or row that a statement meets which is run
/// [`limit_steps`](SqliteConnection::limit_steps).
pub(super) const BRIEF_LENGTH: usize = 64 << 10;
/// Virtual-machine instructions between two looks at the clock: a few microseconds, or so many
/// times what the longest instruction takes, which is some 10 ms with values of `MAX_LENGTH`.
const STEPS_PER_POLL: i32 = 200;
/// Compiled statements kept per connection.
const CACHED_STATEMENTS: usize = 128;
/// Remembered facts about statements, per connection.
const CACHED_TRAITS: usize = 1024;
/// Bytes of the texts of these statements, per connection.
const CACHED_TRAITS_BYTES: usize = 512 << 10;

/// How long a connection waits for a lock of another one's.
pub(super) const BUSY_TIME: Duration = Duration::from_secs(5);

/// One connection, used by one thread at a time.
pub(super) struct SqliteConnection {
    pub(super) db: Connection,
    pub(super) authorizer: Arc<StatementAuthorizer>,
    traits: RefCell<HashMap<Box<str>, (StatementTraits, RightsKind)>>,
    traits_bytes: Cell<usize>,
    /// The namespace whose file this writes; `None` on readers, and on the system's file.
    pub(super) writer_schema: Option<WriterSchema>,
    /// Counts what namespaces have in the system's file, on the connection that writes that.
    pub(super) ledger: Option<UsageLedger>,
    /// What the job that runs may write, and has written.
    pub(super) reserve_use: ReserveUse,
    /// Goes up when the schema may have changed through this connection.
    schema_changes: Arc<AtomicU64>,
    deadline: Arc<StatementDeadline>,
    temp_file_watch: Arc<TempFileWatch>,
    last_insert: Arc<LastInsertTracker>,
    /// Rows of the system's table of namespaces that the open transaction has changed.
    pub(super) changed_owners: Arc<ChangedOwners>,
    /// Of the catalogue whose schema this reading connection compiles for; 0: none yet.
    generation: Cell<u64>,
    /// The last version given to a key-value value.
    pub(super) last_version: Cell<u64>,
    /// The commit whose moment this reading connection keeps; `None`: every statement reads the
    /// newest.
    snapshot_commit: Cell<Option<u64>>,
}

/// What the job that runs may write, and has written.
#[derive(Debug, Default)]
pub(super) struct ReserveUse {
    /// It uses the reserve of a full database.
    has_reserve: Cell<bool>,
    /// It may use it as long as it only removes.
    is_refused: Cell<bool>,
    /// Whether all its statements only remove, that which is failing now among them; `None`: there
    /// was none yet.
    only_removes: Cell<Option<bool>>,
}

impl ReserveUse {
    /// Another job begins. `has_reserve`: it may go over the limits by the reserve, and where it is
    /// not sure that it removes (`is_sure`) then only as long as it does.
    pub(super) fn begin_job(&self, has_reserve: bool, is_sure: bool) {
        self.has_reserve.set(has_reserve);
        self.is_refused.set(has_reserve && !is_sure);
        self.only_removes.set(None);
    }

    /// A statement of the job is about to write.
    ///
    /// # Errors
    /// `database_full` when the job may only remove, and this does not.
    pub(super) fn check_write(&self, removes: bool) -> Result<()> {
        if self.is_refused.get() && !removes {
            return Err(Error::new(
                Code::DatabaseFull,
                "what adds something may not use what is kept for deletes",
            ));
        }
        self.only_removes.set(Some(removes && self.only_removes.get().unwrap_or(true)));
        Ok(())
    }

    /// Whether the job has written nothing but what removes.
    pub(super) fn only_removes(&self) -> bool {
        self.only_removes.get() == Some(true)
    }

    pub(super) fn has_reserve(&self) -> bool {
        self.has_reserve.get()
    }
}

/// Whether the last inserted row is one of the statement that runs. SQLite tells the row alone, and
/// keeps it where nothing was inserted: it is new when it is another than before, or when the same
/// rowid was inserted again.
#[derive(Debug, Default)]
struct LastInsertTracker {
    /// The last inserted row before the statement.
    before: AtomicI64,
    /// A row of that number was inserted since.
    is_repeated: AtomicBool,
    /// Tables that were given a row of the last number there is since, as SQLite names them.
    at_end: Mutex<Vec<String>>,
    /// There are such.
    any_at_end: AtomicBool,
}

impl LastInsertTracker {
    fn note_max_rowid(&self, table: &str) {
        let mut tables = self.lock_tables_at_max_rowid();
        if !tables.iter().any(|noted| noted == table) {
            tables.push(table.to_owned());
        }
        self.any_at_end.store(true, Relaxed);
    }

    fn lock_tables_at_max_rowid(&self) -> MutexGuard<'_, Vec<String>> {
        self.at_end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SqliteConnection {
    /// Opens the one connection of a file that writes; the file is made when it is missing. `cache`
    /// is how many KiB of it stay in memory.
    pub(super) fn writer(path: &Path, cache: u32) -> rusqlite::Result<SqliteConnection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(BUSY_TIME)?;
        // FULL: a commit is on the disk before anybody is told of it. The log is written back every
        // 16 MiB, because each write-back costs two more waits for the disk. One that became longer
        // is cut when it begins anew.
        db.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 33554432;
             PRAGMA cache_size = -{cache}; PRAGMA mmap_size = 268435456;"
        ))?;
        Self::configure(db)
    }

    /// Opens a connection that can only read. The file must exist and have been opened by a writer.
    pub(super) fn reader(path: &Path) -> rusqlite::Result<SqliteConnection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(BUSY_TIME)?;
        db.execute_batch(
            "PRAGMA query_only = ON; PRAGMA cache_size = -2048; PRAGMA mmap_size = 268435456;",
        )?;
        Self::configure(db)
    }

    fn configure(mut db: Connection) -> rusqlite::Result<SqliteConnection> {
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        db.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        db.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_LENGTH as i32)?;
        functions::register_linear_functions(&db)?;
        db.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
        db.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        let deadline = Arc::<StatementDeadline>::default();
        let gate = StatementAuthorizer::install(&mut db, Arc::clone(&deadline))?;
        let (clock, spill) = (Arc::clone(&deadline), Arc::<TempFileWatch>::default());
        let room = Arc::clone(&spill);
        db.progress_handler(
            STEPS_PER_POLL,
            Some(move || clock.has_expired_at_poll() || room.must_interrupt()),
        )?;
        let inserted = Arc::<LastInsertTracker>::default();
        let hook = Arc::clone(&inserted);
        let changed_owners = Arc::<ChangedOwners>::default();
        let owners = Arc::clone(&changed_owners);
        db.update_hook(Some(move |action: Action, _: &str, table: &str, rowid: i64| {
            if action == Action::SQLITE_INSERT && rowid == hook.before.load(Relaxed) {
                hook.is_repeated.store(true, Relaxed);
            }
            if action == Action::SQLITE_INSERT && rowid == i64::MAX {
                hook.note_max_rowid(table);
            }
            owners.note(table, rowid);
        }))?;
        let schema_changes = Arc::default();
        Ok(SqliteConnection {
            db,
            authorizer: gate,
            traits: RefCell::default(),
            traits_bytes: Cell::new(0),
            writer_schema: None,
            ledger: None,
            reserve_use: ReserveUse::default(),
            schema_changes,
            deadline,
            temp_file_watch: spill,
            last_insert: inserted,
            changed_owners,
            generation: Cell::new(0),
            last_version: Cell::new(0),
            snapshot_commit: Cell::new(None),
        })
    }

    /// Prepares one of the engine's own statements; its text starts with [`INTERNAL_SQL_MARK`].
    pub(super) fn prepare_internal(
        &self,
        sql: &'static str,
    ) -> rusqlite::Result<CachedStatement<'_>> {
        debug_assert!(sql.starts_with(INTERNAL_SQL_MARK), "{sql}");
        self.authorizer.set_rights(StatementRights::Internal);
        self.db.prepare_cached(sql)
    }

    /// Reads from now on what the newest commit left, and keeps that moment when `newest` names the
    /// commit.
    pub(super) fn refresh_snapshot(&self, newest: Option<u64>) -> rusqlite::Result<()> {
        // An error of the file's takes the transaction away.
        let kept = self.snapshot_commit.get().filter(|_| !self.db.is_autocommit());
        if kept.is_some() && kept == newest {
            return Ok(());
        }
        self.end_snapshot()?;
        if newest.is_some() {
            self.prepare_internal("/*debros*/ BEGIN")?.raw_execute()?;
            self.snapshot_commit.set(newest);
        }
        Ok(())
    }

    /// The commit whose moment this connection keeps.
    pub(super) fn snapshot_commit(&self) -> Option<u64> {
        self.snapshot_commit.get()
    }

    /// Keeps no moment any more.
    pub(super) fn end_snapshot(&self) -> rusqlite::Result<()> {
        if self.snapshot_commit.take().is_some() && !self.db.is_autocommit() {
            self.prepare_internal("/*debros*/ COMMIT")?.raw_execute()?;
        }
        Ok(())
    }

    /// Forgets every compiled statement and what is known of it.
    pub(super) fn forget_statements(&self) {
        self.db.flush_prepared_statement_cache();
        self.traits.borrow_mut().clear();
        self.traits_bytes.set(0);
        self.note_schema_change();
    }

    /// Counts the changes to the schema; what is known of statements from before a change may be
    /// wrong after it.
    pub(super) fn schema_changes(&self) -> &Arc<AtomicU64> {
        &self.schema_changes
    }

    /// The schema changes, or has changed.
    pub(super) fn note_schema_change(&self) {
        self.schema_changes.fetch_add(1, Relaxed);
    }

    /// Statements that run until [`clear_limits`](SqliteConnection::clear_limits) are interrupted
    /// at this time.
    pub(super) fn set_deadline(&self, deadline: Instant) {
        self.deadline.set(deadline);
        self.temp_file_watch.begin_statement();
    }

    /// Statements that run until [`clear_limits`](SqliteConnection::clear_limits) are interrupted
    /// when this thread has run for so long.
    pub(super) fn limit_cpu_time(&self, time: Duration) {
        self.deadline.set_cpu_time(time);
    }

    /// Until what is returned is dropped, statements are interrupted when the caller goes away for
    /// whom they run.
    pub(super) fn interrupt_with_caller<'r>(
        &self,
        running: &'r RunningStatement,
    ) -> RunningStatementGuard<'r> {
        running.attach_deadline(&self.deadline)
    }

    /// Why the statement was interrupted, if it was for want of room for temporary files.
    pub(super) fn temp_space_error(&self) -> Option<Error> {
        self.temp_file_watch.interrupt_error()
    }

    /// Statements may run as long as they like.
    pub(super) fn clear_limits(&self) {
        self.deadline.clear();
        self.temp_file_watch.end_statement();
    }

    /// Statements that run until what is returned is dropped are broken off after some 2,000 steps
    /// of SQLite's machine, or some milliseconds since `watch` began, and fail with `too_large`
    /// where they meet a value that makes a single step long.
    pub(super) fn limit_steps(&self, watch: &Stopwatch) -> rusqlite::Result<StepBudgetGuard<'_>> {
        let shortened = self.limit_lengths(BRIEF_LENGTH)?;
        self.deadline.limit_polls(watch);
        Ok(StepBudgetGuard(shortened))
    }

    /// Until what is returned is dropped, statements fail with `too_large` where they meet a longer
    /// value.
    pub(super) fn limit_lengths(&self, bytes: usize) -> rusqlite::Result<LengthLimitGuard<'_>> {
        self.db.set_limit(Limit::SQLITE_LIMIT_LENGTH, bytes as i32)?;
        Ok(LengthLimitGuard(self))
    }

    /// From here on [`last_inserted_rowid`](SqliteConnection::last_inserted_rowid) looks for a row.
    pub(super) fn reset_last_insert(&self) {
        self.last_insert.before.store(self.db.last_insert_rowid(), Relaxed);
        self.last_insert.is_repeated.store(false, Relaxed);
        if self.last_insert.any_at_end.swap(false, Relaxed) {
            self.last_insert.lock_tables_at_max_rowid().clear();
        }
    }

    /// Whether a table, as SQLite names it, was given a row of the last number there is since they
    /// were forgotten, also by a statement that failed later.
    pub(super) fn has_max_rowid(&self, table: &str) -> bool {
        self.last_insert.any_at_end.load(Relaxed)
            && self.last_insert.lock_tables_at_max_rowid().iter().any(|given| given == table)
    }

    /// The row that SQLite names as the last inserted one, if that was inserted since they were
    /// forgotten. What triggers insert is not named.
    pub(super) fn last_inserted_rowid(&self) -> Option<i64> {
        let rowid = self.db.last_insert_rowid();
        (rowid != self.last_insert.before.load(Relaxed)
            || self.last_insert.is_repeated.load(Relaxed))
        .then_some(rowid)
    }

    /// Whether this connection has compiled for another schema than that of this catalogue. From
    /// now on it has not: the caller has it look, as `sql::see` does.
    pub(super) fn replace_generation(&self, generation: u64) -> bool {
        self.generation.replace(generation) != generation
    }

    /// Remembers what the authorizer saw of a statement that was compiled with these rights.
    pub(super) fn remember_traits(&self, sql: &str, facts: StatementTraits, kind: RightsKind) {
        let mut known = self.traits.borrow_mut();
        if known.len() >= CACHED_TRAITS || self.traits_bytes.get() + sql.len() > CACHED_TRAITS_BYTES
        {
            known.clear();
            self.traits_bytes.set(0);
            // The cache must not answer with a statement whose facts are gone.
            self.db.flush_prepared_statement_cache();
        }
        if known.insert(sql.into(), (facts, kind)).is_none() {
            self.traits_bytes.set(self.traits_bytes.get() + sql.len());
        }
    }

    /// What the authorizer saw of a statement that came out of the cache; `None` when it was
    /// compiled with other rights than these, or by somebody of whom nothing is known.
    pub(super) fn recall_traits(&self, sql: &str, kind: RightsKind) -> Option<StatementTraits> {
        self.traits.borrow().get(sql).filter(|(_, of)| *of == kind).map(|(facts, _)| *facts)
    }
}

/// See [`SqliteConnection::limit_steps`].
pub(super) struct StepBudgetGuard<'conn>(LengthLimitGuard<'conn>);

impl Drop for StepBudgetGuard<'_> {
    fn drop(&mut self) {
        self.0.0.clear_limits();
    }
}

/// See [`SqliteConnection::limit_lengths`].
pub(super) struct LengthLimitGuard<'conn>(&'conn SqliteConnection);

impl Drop for LengthLimitGuard<'_> {
    fn drop(&mut self) {
        // Fails for a number that is none, which this is not.
        let _ = self.0.db.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_LENGTH as i32);
    }
}

#[cfg(test)]
mod tests {
    use super::{CACHED_TRAITS_BYTES, RightsKind, SqliteConnection, StatementTraits};

    #[test]
    fn what_is_known_of_long_texts_takes_no_more_than_that_of_short_ones() {
        let folder = tempfile::tempdir().unwrap();
        let conn = SqliteConnection::writer(&folder.path().join("a.db"), 1024).unwrap();
        for index in 0..100 {
            let text = format!("SELECT {index} /*{}*/", "x".repeat(15_000));
            conn.remember_traits(&text, StatementTraits::default(), RightsKind::Internal);
            conn.remember_traits(&text, StatementTraits::default(), RightsKind::Internal);
            assert!(conn.recall_traits(&text, RightsKind::Internal).is_some());
            let kept: usize = conn.traits.borrow().keys().map(|text| text.len()).sum();
            assert!(kept <= CACHED_TRAITS_BYTES && kept == conn.traits_bytes.get(), "{kept}");
        }
        conn.forget_statements();
        assert_eq!((conn.traits.borrow().len(), conn.traits_bytes.get()), (0, 0));
    }
}
