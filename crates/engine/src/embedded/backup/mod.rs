//! Copies of the databases: backups, putting them back, and exports.
//!
//! Copies are made with SQLite's backup interface, from a connection of its own that holds one read
//! transaction: the copy is of one snapshot, the steps never start over, and writers go on (the log
//! is not written back meanwhile, so it grows by what they write). `VACUUM INTO` would do the same
//! with more work and may renumber rowids.

mod create;
mod export;
mod file_copies;
mod manifest;
mod restore;
mod system_copy;

pub use create::is_backup_name;
pub(super) use create::{create_backup, list_backups};
pub(super) use export::export_namespace;
pub(super) use file_copies::copy_files;
pub(super) use restore::{
    finish_interrupted_restore, forget_interrupted_restore, replace_by_file, restore_backup,
};

use super::authorizer::StatementRights;
use super::conn::SqliteConnection;
use super::copy_error::map_copy_error;
use super::database_manager::DatabaseManager;
use debros_proto::{Code, Error, Result, lock};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::path::Path;
use std::sync::{MutexGuard, TryLockError};
use std::time::Duration;

/// Pages between two looks at whether the copy goes on: 4 MiB.
const STEP_PAGES: i32 = 1024;

/// When to try again while one of them runs.
const WAIT: Duration = Duration::from_secs(2);

/// Lets one backup, restore or deletion run at a time; `what` names this one to the others.
pub(super) fn exclusive_maintenance<'s>(
    databases: &'s DatabaseManager,
    what: &'static str,
) -> Result<MutexGuard<'s, ()>> {
    let mut running = lock(&databases.maintenance_name);
    // Under the other lock, so that no other reads what the one before was.
    let guard = match databases.maintenance_lock.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => {
            let message = format!("{running} is running; try again when it is done");
            return Err(Error::new(Code::Conflict, message).retry_after(WAIT));
        }
    };
    *running = what;
    Ok(guard)
}

/// Copies the database that `source` reads, as it is now, into a new file. `on_bytes` gets each
/// step's bytes; before each step `goes_on` decides whether the copy continues.
fn copy_pages(
    source: &SqliteConnection,
    target: &Path,
    goes_on: impl Fn() -> Result<()>,
    mut on_bytes: impl FnMut(u64),
) -> Result<()> {
    let _within =
        tracing::error_span!("copy", from = source.db.path(), to = %target.display()).entered();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(target, flags).map_err(map_copy_error)?;
    // A half copy is thrown away, so nothing needs to be durable before the end.
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        .map_err(map_copy_error)?;
    source.authorizer.set_rights(StatementRights::Internal);
    let snapshot = source.db.unchecked_transaction().map_err(map_copy_error)?;
    // The transaction begins with the first thing that is read.
    let pages: u32 =
        snapshot.query_row("PRAGMA page_count", [], |row| row.get(0)).map_err(map_copy_error)?;
    let page_size: u32 =
        snapshot.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(map_copy_error)?;
    let backup = Backup::new(&source.db, &mut copy).map_err(map_copy_error)?;
    let mut left = pages;
    loop {
        goes_on()?;
        let step = backup.step(STEP_PAGES).map_err(map_copy_error)?;
        let now_left = u32::try_from(backup.progress().remaining).unwrap_or(0);
        on_bytes(u64::from(left.saturating_sub(now_left)) * u64::from(page_size));
        left = now_left;
        match step {
            StepResult::Done => break,
            StepResult::More => {}
            // Nothing else knows the copy, and the snapshot needs no lock.
            _ => return Err(Error::internal("the copy is locked by another program")),
        }
    }
    drop(backup);
    snapshot.finish().map_err(map_copy_error)?;
    copy.close().map_err(|(_, error)| map_copy_error(error))
}

/// The SHA-256 of a file in hex, and its size. `on_bytes` gets each part's bytes.
fn checksum_file(path: &Path, mut on_bytes: impl FnMut(u64)) -> io::Result<(String, u64)> {
    let mut file = debros_proto::regular_file::open(path)?;
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((debros_proto::hex::encode(&hash.finalize()), size));
        }
        hash.update(&buffer[..count]);
        size += count as u64;
        on_bytes(count as u64);
    }
}
