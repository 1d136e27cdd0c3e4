//! The connections that read one file, kept for the next read.

use super::conn::SqliteConnection;
use super::error_mapping;
use super::fair_queue::closed_error;
use super::file_identity::{self, FileIdentity};
use super::read_snapshots::ReadSnapshots;
use debros_proto::{Result, lock};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tracing::Span;

/// Connections that only read.
pub(super) struct ReaderPool {
    path: PathBuf,
    span: Span,
    pub(super) idle: Mutex<Vec<SqliteConnection>>,
    max_idle: usize,
    /// No connection is opened any more: the file may be gone.
    pub(super) closed: AtomicBool,
    pub(super) snapshots: ReadSnapshots,
    identity: FileIdentity,
    /// The files are not in their places, as of the last look.
    is_displaced: AtomicBool,
}

impl ReaderPool {
    /// Connections to a file, of which so many are kept when they are idle.
    pub(super) fn new(path: &Path, span: Span, keep: usize) -> std::io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            span,
            idle: Mutex::default(),
            max_idle: keep,
            closed: AtomicBool::new(false),
            snapshots: ReadSnapshots::default(),
            identity: FileIdentity::read(path)?,
            is_displaced: AtomicBool::new(false),
        })
    }

    /// Passes while the file and its log are the ones under their names. That they are not is
    /// logged once.
    pub(super) fn check_in_place(&self) -> Result<()> {
        match self.identity.check_in_place() {
            Ok(()) => {
                if self.is_displaced.swap(false, Relaxed) {
                    tracing::info!(path = %self.path.display(), "the database's file is in its place again");
                }
                Ok(())
            }
            Err(what) => {
                if !self.is_displaced.swap(true, Relaxed) {
                    tracing::error!(path = %self.path.display(), what, "the database's file is not in its place any more: nothing is written");
                }
                Err(file_identity::displaced_error())
            }
        }
    }

    /// Whether the file was not in its place at the last look.
    pub(super) fn is_displaced(&self) -> bool {
        self.is_displaced.load(Relaxed)
    }

    pub(super) fn acquire(&self) -> Result<SqliteConnection> {
        let idle = lock(&self.idle).pop();
        match idle {
            Some(conn) => Ok(conn),
            None if self.closed.load(Relaxed) => Err(closed_error()),
            // By its name, under which there may be another file.
            None => self.check_in_place().and_then(|()| {
                self.span.in_scope(|| {
                    SqliteConnection::reader(&self.path).map_err(error_mapping::map_sqlite_error)
                })
            }),
        }
    }

    pub(super) fn release(&self, conn: SqliteConnection) {
        if conn.snapshot_commit().is_none() && !conn.db.is_autocommit() {
            // The next read on it would see what was there when that transaction began.
            tracing::error!(path = %self.path.display(), "a reader left a transaction open");
            return;
        }
        let mut idle = lock(&self.idle);
        // Asked under the lock, so that the writer either finds the connection here or is found by
        // it.
        if conn.snapshot_commit().is_some()
            && conn.snapshot_commit() != self.snapshots.newest_commit()
            && conn.end_snapshot().is_err()
        {
            return;
        }
        if idle.len() < self.max_idle {
            idle.push(conn);
        }
    }

    /// Ends kept snapshots and lets none be kept until [`ReadSnapshots::resume`].
    pub(super) fn suspend_snapshots(&self) {
        self.snapshots.suspend();
        lock(&self.idle).retain(|conn| conn.end_snapshot().is_ok());
    }
}
