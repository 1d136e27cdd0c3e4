//! How large the log of a file may become.
//!
//! SQLite writes the log back into the file as far as no reader has an older snapshot, and restarts
//! it when no reader is in it. Readers that overlap each other would let it grow for as long as
//! something is written. So a log over its bound is emptied before the next group that is run after
//! it was seen (it is looked at every 10 ms), and as long as readers hold it, nothing is added to
//! it. That ends: with no writes, those that read an old snapshot are done within the time of one
//! statement, then the whole log can be written back, and every read that begins after that reads
//! the file alone and holds nothing.

use crate::embedded::authorizer::StatementRights;
use crate::embedded::conn::SqliteConnection;
use crate::embedded::connection_limits::BUSY_TIME;
use crate::embedded::reader_pool::ReaderPool;
use debros_proto::{Code, Error};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The time between two looks at how large the log is. Not at each group: Linux gives a file that
/// was looked at a new time of change with the next write, and then fdatasync writes that too.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long the writer waits for readers, which most often are done in less.
const PATIENCE: Duration = Duration::from_millis(100);

/// The log of one file.
pub(super) struct WriteAheadLog {
    database: PathBuf,
    path: PathBuf,
    max: u64,
    next_look: Instant,
}

impl WriteAheadLog {
    /// The log of a database's file, which is emptied when it has more bytes than `max`.
    pub(super) fn new(database: &Path, max: u64) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self { database: database.to_owned(), path: path.into(), max, next_look: Instant::now() }
    }

    /// Empties the log when it is too large. False: it still is, because a reader is in it. Outside
    /// of transactions.
    pub(super) fn is_within_limit(
        &mut self,
        conn: &SqliteConnection,
        readers: &ReaderPool,
    ) -> bool {
        let now = Instant::now();
        if now < self.next_look {
            return true;
        }
        if self.size_on_disk() <= self.max {
            self.next_look = now + POLL_INTERVAL;
            return true;
        }
        self.truncate(conn, readers)
    }

    /// Empties the log and gives back what it takes. False: a reader is in it. Outside of
    /// transactions.
    pub(super) fn truncate(&self, conn: &SqliteConnection, readers: &ReaderPool) -> bool {
        readers.suspend_snapshots();
        let emptied = checkpoint_truncate(conn);
        readers.snapshots.resume();
        emptied.unwrap_or_else(|error| {
            tracing::warn!(log = %self.path.display(), %error, "the database's log cannot be written back");
            false
        })
    }

    /// Whether the disk has room for what the log would add to the file, which is to have `size`
    /// bytes. A try without it would take what is left on a full disk, and still not empty the log.
    pub(super) fn fits_into_file(&self, size: u64) -> bool {
        let taken = std::fs::metadata(&self.database).map_or(0, |file| allocated_bytes(&file));
        let folder = self.database.parent().unwrap_or(Path::new("."));
        super::super::data_folder::available_space(folder)
            .is_ok_and(|left| left >= size.saturating_sub(taken))
    }

    fn size_on_disk(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |log| log.len())
    }
}

/// Bytes that a file has on its disk; parts that were never written have none.
fn allocated_bytes(file: &std::fs::Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::blocks(file) * 512;
    #[cfg(not(unix))]
    file.len()
}

/// Writes the log back into the database and cuts it to nothing. False: a reader is in it.
pub(in crate::embedded) fn checkpoint_truncate(conn: &SqliteConnection) -> rusqlite::Result<bool> {
    conn.authorizer.set_rights(StatementRights::Internal);
    conn.db.busy_timeout(PATIENCE)?;
    let is_busy =
        conn.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
    conn.db.busy_timeout(BUSY_TIME)?;
    Ok(!is_busy?)
}

/// The error of a write that would make the log longer.
pub(super) fn log_held_error() -> Error {
    Error::new(
        Code::Overloaded,
        "queries that run for long still read what was written meanwhile, and the database's log takes no more until they \
         are done; nothing was changed, try again",
    )
    .retry_after(Duration::from_secs(1))
}
