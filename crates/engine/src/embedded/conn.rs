//! A connection to one SQLite file, set up the one way that the engine uses.

use super::deadline::Deadline;
use super::functions;
use super::gate::{Facts, Gate, Kind, Rights};
use super::spill::Spill;
use super::tenant::Seat;
use debros_proto::Error;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Action;
use rusqlite::limits::Limit;
use rusqlite::{CachedStatement, Connection, OpenFlags};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The engine's own statements start with this, so that a user's statement can never be answered from the cache with
/// one of them, which was compiled with more rights.
pub(super) const OWN: &str = "/*debros*/";

/// Bytes of the largest string, BLOB or row.
pub(super) const MAX_LENGTH: usize = 33 << 20;
/// Bytes of the largest value or row that a statement meets which is run [`briefly`](Conn::briefly).
pub(super) const BRIEF_LENGTH: usize = 64 << 10;
/// Virtual-machine instructions between two looks at the clock: a few microseconds, or so many times what the longest
/// instruction takes, which is some 10 ms with values of `MAX_LENGTH`.
const STEPS_PER_LOOK: i32 = 200;
/// Compiled statements kept per connection.
const CACHED_STATEMENTS: usize = 128;
/// Remembered facts about statements, per connection.
const KEPT_FACTS: usize = 1024;

/// How long a connection waits for a lock of another one's.
pub(super) const BUSY_TIME: Duration = Duration::from_secs(5);

/// One connection, used by one thread at a time.
pub(super) struct Conn {
    pub(super) db: Connection,
    pub(super) gate: Arc<Gate>,
    facts: RefCell<HashMap<Box<str>, (Facts, Kind)>>,
    /// The namespace whose file this writes; `None` on readers, and on the system's file.
    pub(super) seat: Option<Seat>,
    /// Goes up when the schema may have changed through this connection.
    schema_changes: Arc<AtomicU64>,
    deadline: Arc<Deadline>,
    spill: Arc<Spill>,
    /// The rowid of the last row that any INSERT made, a trigger's too. `i64::MIN`: none since it was reset.
    inserted: Arc<AtomicI64>,
    /// The last version given to a key-value value.
    pub(super) last_version: Cell<u64>,
    /// The commit whose moment this reading connection keeps; `None`: every statement reads the newest.
    kept: Cell<Option<u64>>,
}

impl Conn {
    /// Opens the one connection of a file that writes; the file is made when it is missing. `cache` is how many KiB of it
    /// stay in memory.
    pub(super) fn writer(path: &Path, cache: u32) -> rusqlite::Result<Conn> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(BUSY_TIME)?;
        // FULL: a commit is on the disk before anybody is told of it. The log is written back every 16 MiB, because
        // each write-back costs two more waits for the disk. One that became longer is cut when it begins anew.
        db.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 33554432;
             PRAGMA cache_size = -{cache}; PRAGMA mmap_size = 268435456;"
        ))?;
        Self::finish(db)
    }

    /// Opens a connection that can only read. The file must exist and have been opened by a writer.
    pub(super) fn reader(path: &Path) -> rusqlite::Result<Conn> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(BUSY_TIME)?;
        db.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -2048; PRAGMA mmap_size = 268435456;")?;
        Self::finish(db)
    }

    fn finish(mut db: Connection) -> rusqlite::Result<Conn> {
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        db.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        db.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_LENGTH as i32)?;
        functions::install(&db)?;
        db.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
        // A LIKE takes time in proportion to the pattern's length times the text's, and can not be interrupted.
        db.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000)?;
        db.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        let deadline = Arc::<Deadline>::default();
        let gate = Gate::install(&mut db, Arc::clone(&deadline))?;
        let (clock, spill) = (Arc::clone(&deadline), Arc::<Spill>::default());
        let room = Arc::clone(&spill);
        db.progress_handler(STEPS_PER_LOOK, Some(move || clock.is_over_at_look() || room.is_too_much()))?;
        let inserted = Arc::new(AtomicI64::new(i64::MIN));
        let last = Arc::clone(&inserted);
        db.update_hook(Some(move |action: Action, _: &str, _: &str, rowid: i64| {
            if action == Action::SQLITE_INSERT {
                last.store(rowid, Relaxed);
            }
        }))?;
        let schema_changes = Arc::default();
        Ok(Conn {
            db,
            gate,
            facts: RefCell::default(),
            seat: None,
            schema_changes,
            deadline,
            spill,
            inserted,
            last_version: Cell::new(0),
            kept: Cell::new(None),
        })
    }

    /// Prepares one of the engine's own statements; its text starts with [`OWN`].
    pub(super) fn own(&self, sql: &'static str) -> rusqlite::Result<CachedStatement<'_>> {
        debug_assert!(sql.starts_with(OWN), "{sql}");
        self.gate.enter(Rights::Own);
        self.db.prepare_cached(sql)
    }

    /// Reads from now on what the newest commit left, and keeps that moment when `newest` names the commit.
    pub(super) fn read_at(&self, newest: Option<u64>) -> rusqlite::Result<()> {
        // An error of the file's takes the transaction away.
        let kept = self.kept.get().filter(|_| !self.db.is_autocommit());
        if kept.is_some() && kept == newest {
            return Ok(());
        }
        self.let_go()?;
        if newest.is_some() {
            self.own("/*debros*/ BEGIN")?.raw_execute()?;
            self.kept.set(newest);
        }
        Ok(())
    }

    /// The commit whose moment this connection keeps.
    pub(super) fn kept(&self) -> Option<u64> {
        self.kept.get()
    }

    /// Keeps no moment any more.
    pub(super) fn let_go(&self) -> rusqlite::Result<()> {
        if self.kept.take().is_some() && !self.db.is_autocommit() {
            self.own("/*debros*/ COMMIT")?.raw_execute()?;
        }
        Ok(())
    }

    /// Forgets every compiled statement and what is known of it.
    pub(super) fn forget_statements(&self) {
        self.db.flush_prepared_statement_cache();
        self.facts.borrow_mut().clear();
        self.note_schema_change();
    }

    /// Counts the changes to the schema; what is known of statements from before a change may be wrong after it.
    pub(super) fn schema_changes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.schema_changes)
    }

    /// The schema changes, or has changed.
    pub(super) fn note_schema_change(&self) {
        self.schema_changes.fetch_add(1, Relaxed);
    }

    /// Statements that run until [`unlimited`](Conn::unlimited) are interrupted at this time.
    pub(super) fn limit(&self, deadline: Instant) {
        self.deadline.set(deadline);
        self.spill.begin();
    }

    /// Why the statement was interrupted, if it was for want of room for temporary files.
    pub(super) fn spilled(&self) -> Option<Error> {
        self.spill.why()
    }

    /// Statements may run as long as they like.
    pub(super) fn unlimited(&self) {
        self.deadline.clear();
        self.spill.end();
    }

    /// Statements that run until what is returned is dropped are broken off after some 2,000 steps of SQLite's machine, and
    /// fail with `too_large` where they meet a value that makes a single step long.
    pub(super) fn briefly(&self) -> rusqlite::Result<Briefly<'_>> {
        self.db.set_limit(Limit::SQLITE_LIMIT_LENGTH, BRIEF_LENGTH as i32)?;
        self.deadline.brief();
        Ok(Briefly(self))
    }

    /// Forgets the last inserted row.
    pub(super) fn forget_inserted(&self) {
        self.inserted.store(i64::MIN, Relaxed);
    }

    /// Whether the row that SQLite names as the last inserted one was inserted since it was forgotten.
    pub(super) fn inserted(&self) -> Option<i64> {
        let rowid = self.db.last_insert_rowid();
        (self.inserted.load(Relaxed) == rowid).then_some(rowid)
    }

    /// Remembers what the authorizer saw of a statement that was compiled with these rights.
    pub(super) fn remember(&self, sql: &str, facts: Facts, kind: Kind) {
        let mut known = self.facts.borrow_mut();
        if known.len() >= KEPT_FACTS {
            known.clear();
            // The cache must not answer with a statement whose facts are gone.
            self.db.flush_prepared_statement_cache();
        }
        known.insert(sql.into(), (facts, kind));
    }

    /// What the authorizer saw of a statement that came out of the cache; `None` when it was compiled with other rights
    /// than these, or by somebody of whom nothing is known.
    pub(super) fn recall(&self, sql: &str, kind: Kind) -> Option<Facts> {
        self.facts.borrow().get(sql).filter(|(_, of)| *of == kind).map(|(facts, _)| *facts)
    }
}

/// See [`Conn::briefly`].
pub(super) struct Briefly<'conn>(&'conn Conn);

impl Drop for Briefly<'_> {
    fn drop(&mut self) {
        self.0.unlimited();
        // Fails for a number that is none, which this is not.
        let _ = self.0.db.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_LENGTH as i32);
    }
}
