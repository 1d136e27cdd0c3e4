//! Closing one file: no new work, the end of what was accepted, the log written back.

use super::{DatabaseHandle, lock};
use crate::embedded::authorizer::StatementRights;
use crate::embedded::disk_reserve::DiskReserve;
use crate::embedded::writer_conn::WriterConnection;
use rusqlite::config::DbConfig;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

impl DatabaseHandle {
    /// Whether new work is refused: it is closed, or being closed.
    pub(in crate::embedded) fn is_closing(&self) -> bool {
        self.writes.is_closed()
    }

    /// Refuses new work; what was accepted is still finished.
    pub(in crate::embedded) fn refuse_new_work(&self) {
        self.writes.close();
        self.reads.close();
        self.brief_reads.close();
    }

    /// After [`refuse_new_work`](DatabaseHandle::refuse_new_work), waits until everything is
    /// finished, at the latest until `deadline`. Whether it is, so that
    /// [`close`](DatabaseHandle::close) takes no longer than the disk.
    pub(in crate::embedded) fn wait_until_finished(&self, deadline: Instant) -> bool {
        self.threads.wait_until_ended(deadline)
    }

    /// Closes without waiting for a thread that is in the middle of a step which does not end. What
    /// was acknowledged is on the disk.
    pub(in crate::embedded) fn abandon(&self) {
        tracing::error!(path = %self.path.display(), "a statement does not end; the database is left without waiting for it");
        self.pool.closed.store(true, Relaxed);
        lock(&self.readers).clear();
        lock(&self.brief_reader).take();
        lock(&self.writer).take();
    }

    /// Finishes what was accepted, writes the log back and closes the file. Blocks. False when
    /// something went wrong, so that the file should be checked when it is opened again.
    pub(in crate::embedded) fn close(&self) -> bool {
        self.refuse_new_work();
        let mut readers = std::mem::take(&mut *lock(&self.readers));
        readers.extend(lock(&self.brief_reader).take());
        let mut well = readers.into_iter().all(|thread| thread.join().is_ok());
        self.pool.closed.store(true, Relaxed);
        lock(&self.pool.idle).clear();
        let writer = lock(&self.writer).take();
        if let Some(thread) = writer {
            match thread.join() {
                Ok(conn) => {
                    well &= close_connection(
                        conn,
                        &self.path,
                        self.pool.check_in_place().is_ok(),
                        &self.reserve,
                    );
                }
                Err(_) => well = false,
            }
        }
        well
    }
}

impl Drop for DatabaseHandle {
    fn drop(&mut self) {
        self.close();
    }
}

fn close_connection(
    conn: WriterConnection,
    path: &Path,
    is_in_place: bool,
    reserve: &DiskReserve,
) -> bool {
    if !is_in_place {
        // What lies under the name now may be another database with its log, which SQLite would
        // delete by its name.
        let kept = conn.db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        tracing::error!(path = %path.display(), ?kept, "the database's file was removed or replaced: what was written to it since is in no file with a name");
        return false;
    }
    conn.authorizer.set_rights(StatementRights::Internal);
    if !save_usage(&conn, reserve) {
        return false;
    }
    let checkpoint: rusqlite::Result<i64> =
        conn.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    let closed = conn.close();
    match checkpoint.and_then(|busy| closed.map(|()| busy)) {
        Ok(_) => true,
        Err(error) => {
            // Nothing is lost: the log is read again when the file is opened.
            tracing::warn!(path = %path.display(), %error, "the database could not be closed cleanly");
            false
        }
    }
}

/// Writes down what namespaces have. False: the next start has to count.
fn save_usage(conn: &WriterConnection, reserve: &DiskReserve) -> bool {
    let Some(ledger) = &conn.ledger else { return true };
    // The limit is for what others write.
    let save = || {
        conn.db
            .query_row("PRAGMA max_page_count = 4294967294", [], |_| Ok(()))
            .and_then(|()| ledger.save_counts(conn))
    };
    let saved = save().or_else(|error| if reserve.release_if_full() { save() } else { Err(error) });
    if let Err(error) = &saved {
        tracing::warn!(%error, "what namespaces have cannot be written down; the next start counts it");
    }
    saved.is_ok()
}
