//! The one connection that writes a file: a plain connection, and what only the writer has of the
//! open transaction, the pending schema and the pending usage.

use super::authorizer::StatementRights;
use super::changed_owners::ChangedOwners;
use super::conn::SqliteConnection;
use super::connection_limits::BUSY_TIME;
use super::last_insert::LastInsertTracker;
use super::replication::{ChangeRecorder, EntryApplier, RecorderMark, prepare_position};
use super::reserve_use::ReserveUse;
use super::size_accounting::SizeAccounting;
use super::tenant_schema::{SchemaSwapGuard, WriterSchema};
use super::usage_ledger::UsageLedger;
use debros_sql::Catalogue;
use rusqlite::hooks::Action;
use rusqlite::{Connection, OpenFlags};
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;

/// The connection that writes a file. As a [`SqliteConnection`] it runs statements.
pub(super) struct WriterConnection {
    conn: SqliteConnection,
    /// The pending schema of the namespace whose file this is; `None` on the system's file.
    pub(super) writer_schema: Option<WriterSchema>,
    /// Counts what namespaces have in the system's file; `None` on a namespace's file.
    pub(super) ledger: Option<UsageLedger>,
    /// What the job that runs may write, and has written.
    pub(super) reserve_use: ReserveUse,
    /// The last version given to a key-value value.
    pub(super) last_version: Cell<u64>,
    /// What the open transaction changes; `None` on a node that is alone.
    pub(super) recorder: Option<ChangeRecorder>,
    /// Applies what other nodes have changed; opened when the first of it comes.
    pub(super) applier: Option<EntryApplier>,
    last_insert: Arc<LastInsertTracker>,
    /// Rows of the system's table of namespaces that the open transaction has changed.
    changed_owners: Arc<ChangedOwners>,
}

/// A point of the open transaction, to go back to with a savepoint.
pub(super) struct PendingMark {
    catalogue: Option<Arc<Catalogue>>,
    usage: usize,
    recorded: RecorderMark,
}

impl WriterConnection {
    /// Opens the one connection of a file that writes; the file is made when it is missing. `cache`
    /// is how many KiB of it stay in memory.
    pub(super) fn open(path: &Path, cache: u32) -> rusqlite::Result<WriterConnection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(BUSY_TIME)?;
        // FULL: a commit is on the disk before it is answered. The log is written back every 16
        // MiB, because each write-back costs two more waits for the disk. One that became longer is
        // cut when it restarts.
        db.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 33554432;
             PRAGMA cache_size = -{cache}; PRAGMA mmap_size = 268435456;"
        ))?;
        let mut conn = SqliteConnection::configure(db)?;
        let last_insert = Arc::<LastInsertTracker>::default();
        let changed_owners = Arc::<ChangedOwners>::default();
        let (inserted, owners) = (Arc::clone(&last_insert), Arc::clone(&changed_owners));
        conn.db.update_hook(Some(move |action: Action, _: &str, table: &str, rowid: i64| {
            if action == Action::SQLITE_INSERT {
                inserted.note_insert(table, rowid);
            }
            owners.note(table, rowid);
        }))?;
        Ok(WriterConnection {
            conn,
            writer_schema: None,
            ledger: None,
            reserve_use: ReserveUse::default(),
            last_version: Cell::new(0),
            recorder: None,
            applier: None,
            last_insert,
            changed_owners,
        })
    }

    /// Makes it a file of a cluster's node: what is written is recorded for the log, which also makes
    /// it durable.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn start_recording(&mut self) -> rusqlite::Result<()> {
        self.conn.db.execute_batch("PRAGMA synchronous = NORMAL")?;
        prepare_position(&self.conn.db)?;
        self.recorder = Some(ChangeRecorder::install(&mut self.conn.db)?);
        Ok(())
    }

    /// Rows of the system's table of namespaces that another node has changed.
    pub(super) fn note_changed_owners(&self, rowids: impl Iterator<Item = i64>) {
        rowids.for_each(|rowid| self.changed_owners.note_row(rowid));
    }

    /// From here on [`last_inserted_rowid`](WriterConnection::last_inserted_rowid) looks for a row.
    pub(super) fn reset_last_insert(&self) {
        self.last_insert.reset(self.db.last_insert_rowid());
    }

    /// Whether a table, as SQLite names it, was given a row of the last number there is since
    /// [`reset_last_insert`](WriterConnection::reset_last_insert), also by a statement that failed
    /// later.
    pub(super) fn has_max_rowid(&self, table: &str) -> bool {
        self.last_insert.has_max_rowid(table)
    }

    /// The row that SQLite names as the last inserted one, if that was inserted since
    /// [`reset_last_insert`](WriterConnection::reset_last_insert). What triggers insert is not
    /// named.
    pub(super) fn last_inserted_rowid(&self) -> Option<i64> {
        let rowid = self.db.last_insert_rowid();
        self.last_insert.is_new(rowid).then_some(rowid)
    }

    /// Counts from now on what namespaces have in this file, which is the system's.
    ///
    /// # Errors
    /// SQLite's, when the counts cannot be read.
    pub(super) fn start_ledger(
        &mut self,
        sizes: &Arc<SizeAccounting>,
        is_clean: bool,
    ) -> rusqlite::Result<()> {
        let ledger = UsageLedger::new(Arc::clone(sizes), Arc::clone(&self.changed_owners));
        ledger.load_counts(self, is_clean)?;
        self.ledger = Some(ledger);
        Ok(())
    }

    /// Where the open transaction is.
    ///
    /// # Errors
    /// SQLite's, when what was changed so far cannot be read.
    pub(super) fn pending_mark(&self) -> rusqlite::Result<PendingMark> {
        let recorded = match &self.recorder {
            Some(recorder) => {
                self.authorizer.set_rights(StatementRights::Internal);
                recorder.savepoint(&self.db)?
            }
            None => RecorderMark::default(),
        };
        Ok(PendingMark {
            catalogue: self.writer_schema.as_ref().and_then(WriterSchema::staged_catalogue),
            usage: self.ledger.as_ref().map_or(0, UsageLedger::savepoint),
            recorded,
        })
    }

    /// Forgets what the open transaction made of the schema and of namespaces' usage after `mark`.
    pub(super) fn rollback_pending(&self, mark: PendingMark) {
        if let Some(schema) = &self.writer_schema {
            schema.rollback_to(mark.catalogue);
        }
        if let Some(ledger) = &self.ledger {
            ledger.rollback_to(mark.usage);
        }
        if let Some(recorder) = &self.recorder {
            recorder.rollback_to(mark.recorded);
        }
    }

    /// Forgets all that the open transaction made of the schema and of namespaces' usage.
    pub(super) fn discard_pending(&self) {
        if let Some(schema) = &self.writer_schema {
            schema.rollback_to(None);
        }
        if let Some(ledger) = &self.ledger {
            ledger.discard_changes();
        }
        if let Some(recorder) = &self.recorder {
            recorder.rollback_to(RecorderMark::default());
        }
    }

    /// The schema that the open transaction has made, and the guard that keeps readers from seeing
    /// its COMMIT half done. `None` when the schema stays.
    pub(super) fn begin_schema_swap(&self) -> Option<(SchemaSwapGuard<'_>, Arc<Catalogue>)> {
        let schema = self.writer_schema.as_ref()?;
        schema.staged_catalogue().map(|catalogue| (schema.begin_swap(), catalogue))
    }

    /// The transaction is committed: its usage counts for others.
    pub(super) fn commit_usage(&self) {
        if let Some(ledger) = &self.ledger {
            ledger.commit_changes(self);
        }
    }

    /// Closes the file, so that what SQLite reports of it is known.
    ///
    /// # Errors
    /// SQLite's; the connection is closed all the same.
    pub(super) fn close(self) -> rusqlite::Result<()> {
        self.conn.db.close().map_err(|(_, error)| error)
    }
}

impl Deref for WriterConnection {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        &self.conn
    }
}

impl DerefMut for WriterConnection {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.conn
    }
}
