//! A connection to one SQLite file, set up the one way that the engine uses.

use super::authorizer::{RightsKind, StatementAuthorizer, StatementRights, StatementTraits};
use super::connection_limits::{
    BRIEF_LENGTH, BUSY_TIME, CACHED_STATEMENTS, CACHED_TRAITS, CACHED_TRAITS_BYTES, MAX_LENGTH,
    STEPS_PER_POLL,
};
use super::deadline::{RunningStatement, RunningStatementGuard, StatementDeadline, Stopwatch};
use super::error_mapping;
use super::functions;
use super::prepared_statement::refresh_schema;
use super::temp_file_watch::TempFileWatch;
use debros_proto::{Error, Result};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{CachedStatement, Connection, OpenFlags};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The engine's own statements start with this, so that a user's statement can never be answered
/// from the cache with one of them, which was compiled with more rights.
pub(super) const INTERNAL_SQL_MARK: &str = "/*debros*/";

/// One connection, used by one thread at a time.
pub(super) struct SqliteConnection {
    pub(super) db: Connection,
    pub(super) authorizer: Arc<StatementAuthorizer>,
    traits: RefCell<HashMap<Box<str>, (StatementTraits, RightsKind)>>,
    traits_bytes: Cell<usize>,
    /// Goes up when the schema may have changed through this connection.
    schema_changes: Arc<AtomicU64>,
    deadline: Arc<StatementDeadline>,
    temp_file_watch: Arc<TempFileWatch>,
    /// Of the catalogue whose schema this reading connection compiles for; 0: none yet.
    generation: Cell<u64>,
    /// The commit whose snapshot this reading connection keeps; `None`: every statement reads the
    /// newest.
    snapshot_commit: Cell<Option<u64>>,
}

impl SqliteConnection {
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

    /// Sets an open connection up: limits, functions, authorizer and progress handler.
    pub(super) fn configure(mut db: Connection) -> rusqlite::Result<SqliteConnection> {
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        db.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        db.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_LENGTH as i32)?;
        functions::register_linear_functions(&db)?;
        db.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
        db.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        let deadline = Arc::<StatementDeadline>::default();
        let authorizer = StatementAuthorizer::install(&mut db, Arc::clone(&deadline))?;
        let temp_file_watch = Arc::<TempFileWatch>::default();
        let (clock, watch) = (Arc::clone(&deadline), Arc::clone(&temp_file_watch));
        db.progress_handler(
            STEPS_PER_POLL,
            Some(move || clock.has_expired_at_poll() || watch.must_interrupt()),
        )?;
        let schema_changes = Arc::default();
        Ok(SqliteConnection {
            db,
            authorizer,
            traits: RefCell::default(),
            traits_bytes: Cell::new(0),
            schema_changes,
            deadline,
            temp_file_watch,
            generation: Cell::new(0),
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

    /// Reads from now on what the newest commit left, and keeps that snapshot when `newest` names
    /// the commit.
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

    /// The commit whose snapshot this connection keeps.
    pub(super) fn snapshot_commit(&self) -> Option<u64> {
        self.snapshot_commit.get()
    }

    /// Ends the kept snapshot.
    pub(super) fn end_snapshot(&self) -> rusqlite::Result<()> {
        if self.snapshot_commit.take().is_some() && !self.db.is_autocommit() {
            self.prepare_internal("/*debros*/ COMMIT")?.raw_execute()?;
        }
        Ok(())
    }

    /// Reads what is newest now until what is returned is dropped, whatever is committed meanwhile.
    pub(super) fn pin_snapshot(&self) -> Result<PinnedSnapshot<'_>> {
        let begin = self.prepare_internal("/*debros*/ BEGIN").and_then(|mut sql| sql.raw_execute());
        begin.map_err(error_mapping::map_sqlite_error)?;
        let pinned = PinnedSnapshot(self);
        // BEGIN alone reads nothing: the first statement after it chooses the snapshot.
        refresh_schema(self)?;
        Ok(pinned)
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

    /// Until what is returned is dropped, statements are interrupted when their caller goes away.
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

    /// Whether this connection has compiled for another schema than that of this catalogue. From
    /// now on it has not: the caller has it look, as `prepared_statement::refresh_schema_for` does.
    pub(super) fn replace_generation(&self, generation: u64) -> bool {
        self.generation.replace(generation) != generation
    }

    /// Remembers what the authorizer saw of a statement that was compiled with these rights.
    pub(super) fn remember_traits(&self, sql: &str, traits: StatementTraits, kind: RightsKind) {
        let mut known = self.traits.borrow_mut();
        if known.len() >= CACHED_TRAITS || self.traits_bytes.get() + sql.len() > CACHED_TRAITS_BYTES
        {
            known.clear();
            self.traits_bytes.set(0);
            // The cache must not answer with a statement whose traits are gone.
            self.db.flush_prepared_statement_cache();
        }
        if known.insert(sql.into(), (traits, kind)).is_none() {
            self.traits_bytes.set(self.traits_bytes.get() + sql.len());
        }
    }

    /// What the authorizer saw of a statement that came out of the cache; `None` when it was
    /// compiled with other rights than these, or by something of which nothing is known.
    pub(super) fn recall_traits(&self, sql: &str, kind: RightsKind) -> Option<StatementTraits> {
        self.traits.borrow().get(sql).filter(|(_, of)| *of == kind).map(|(traits, _)| *traits)
    }
}

/// See [`SqliteConnection::pin_snapshot`].
pub(super) struct PinnedSnapshot<'conn>(&'conn SqliteConnection);

impl Drop for PinnedSnapshot<'_> {
    fn drop(&mut self) {
        // An error of the file's takes the transaction away. A connection that cannot end it is not
        // used again: the pool looks.
        if !self.0.db.is_autocommit() {
            let _ =
                self.0.prepare_internal("/*debros*/ COMMIT").and_then(|mut sql| sql.raw_execute());
        }
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
        let conn =
            SqliteConnection::configure(rusqlite::Connection::open_in_memory().unwrap()).unwrap();
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
