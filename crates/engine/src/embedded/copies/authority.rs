//! Who may act stays as it is now when a backup is put back.
//!
//! A backup brings data back. Were it to bring keys, sessions and roles back as well, everything that was revoked since
//! would be good again, without anybody having said so. So before the system's database is replaced, the copy that
//! replaces it is given the present tables of [`KEPT_BY_RESTORE`]. Data and tables then come in the one transaction that
//! replaces the file: after a crash there are either the old ones or the kept ones, and a restore that is finished later
//! keeps what it finds.
//!
//! A backup of another network (its secret is another one: a new machine, whose tables are empty) brings its tables, and
//! its sessions have ended: who held their tokens when the copy was made is not known.

use super::of_copy;
use crate::embedded::folder::Folder;
use crate::migrations::{self, KEPT_BY_RESTORE, MIGRATIONS};
use debros_proto::{Error, Namespace, Result, now_ms};
use rusqlite::{Connection, OptionalExtension as _, Transaction};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A backup's copy of the system's database, to be changed before it is put in place. It goes with this.
pub(super) struct SystemCopy(PathBuf);

impl SystemCopy {
    /// Copies the backup's file and brings it up to date.
    pub(super) fn of(backup: &Path, folder: &Folder) -> Result<Self> {
        let copy = Self(folder.tmp().join("restored-system.db"));
        fs::copy(backup, copy.path()).map_err(|error| super::of_io(copy.path(), &error))?;
        let mut db = Connection::open(copy.path()).map_err(of_copy)?;
        // A half copy is thrown away.
        db.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF").map_err(of_copy)?;
        migrations::apply(&mut db, MIGRATIONS, now_ms()).map_err(|error| {
            tracing::error!(%error, "the backup's tables can not be brought up to date");
            Error::internal(
                "the backup's tables can not be brought up to date; nothing was changed, and the log has more",
            )
        })?;
        db.close().map_err(|(_, error)| of_copy(error))?;
        Ok(copy)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Puts the present tables of those who may act into the copy, and gives the data that nobody owns there to the
    /// operator. `present` is the system's database, in which nobody else writes meanwhile.
    pub(super) fn keep_authority(&self, present: &Path, files: &BTreeSet<Namespace>) -> Result<()> {
        let mut db = Connection::open(self.path()).map_err(of_copy)?;
        db.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF").map_err(of_copy)?;
        db.execute("ATTACH ?1 AS present", [present.to_string_lossy()]).map_err(of_copy)?;
        let transaction = db.transaction().map_err(of_copy)?;
        if is_same_network(&transaction).map_err(of_copy)? {
            keep_present(&transaction).map_err(of_copy)?;
        } else {
            tracing::warn!(
                "the backup is of another network: its keys, members and owners are in effect now, and its sessions have ended"
            );
            take_backups(&transaction).map_err(of_copy)?;
        }
        own_data(&transaction, files).map_err(of_copy)?;
        transaction.commit().map_err(of_copy)?;
        db.execute("DETACH present", []).map_err(of_copy)?;
        db.close().map_err(|(_, error)| of_copy(error))
    }
}

impl Drop for SystemCopy {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            // What stays is deleted at the next start.
            let _ = fs::remove_file(self.0.with_extension(format!("db{suffix}")));
        }
    }
}

/// Whether the backup was made by a node of this network: they share a secret, which is made once.
fn is_same_network(db: &Transaction<'_>) -> rusqlite::Result<bool> {
    let secret = |of: &str| {
        let sql = format!("SELECT value FROM {of}.secrets WHERE name = 'challenge'");
        db.query_row(&sql, [], |row| row.get::<_, Vec<u8>>(0)).optional()
    };
    let present = secret("present")?;
    Ok(present.is_some() && present == secret("main")?)
}

fn keep_present(db: &Transaction<'_>) -> rusqlite::Result<()> {
    for table in KEPT_BY_RESTORE {
        // Both have the columns of the newest step, in its order.
        db.execute_batch(&format!("DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM present.{table}"))?;
    }
    Ok(())
}

/// The backup's tables, in which no session is open, and nothing good that is known here to be revoked.
fn take_backups(db: &Transaction<'_>) -> rusqlite::Result<()> {
    db.execute("UPDATE main.sessions SET revoked_at = ?1 WHERE revoked_at IS NULL", [now_ms()])?;
    db.execute_batch(
        "UPDATE main.api_keys SET revoked_at = (SELECT revoked_at FROM present.api_keys p WHERE p.id = main.api_keys.id)
         WHERE revoked_at IS NULL AND id IN (SELECT id FROM present.api_keys WHERE revoked_at IS NOT NULL);
         INSERT INTO main.signing_keys SELECT * FROM present.signing_keys WHERE removed_at IS NOT NULL
         ON CONFLICT (kid) DO UPDATE SET removed_at = excluded.removed_at",
    )
}

/// Enters namespaces that come back with data and have no row: the first stranger who signs in must not own them. A row
/// without an owner is that of a namespace which is gone.
fn own_data(db: &Transaction<'_>, files: &BTreeSet<Namespace>) -> rusqlite::Result<()> {
    db.execute("DELETE FROM main.namespaces WHERE owner = ''", [])?;
    db.execute(
        "INSERT INTO main.namespaces (name, created_at, owner)
         SELECT ns, ?1, 'operator' FROM (
             SELECT DISTINCT ns FROM main.kv WHERE substr(ns, 1, 1) <> '_' UNION SELECT namespace FROM main.apps
         ) WHERE true ON CONFLICT (name) DO NOTHING",
        [now_ms()],
    )?;
    let mut own = db.prepare(
        "INSERT INTO main.namespaces (name, created_at, owner) VALUES (?1, ?2, 'operator') ON CONFLICT (name) DO NOTHING",
    )?;
    files.iter().try_for_each(|namespace| own.execute((namespace.as_str(), now_ms())).map(|_| ()))
}
