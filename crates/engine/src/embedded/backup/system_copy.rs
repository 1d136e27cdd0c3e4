//! Who may act stays as it is now when a backup is put back.
//!
//! A backup brings data back. Were it to bring keys, sessions and roles back as well, everything
//! that was revoked since would be good again, without anybody having said so. So before the
//! system's database is replaced, the copy that replaces it is given the present tables of
//! [`KEPT_BY_RESTORE`]. Data and tables then come in the one transaction that replaces the file:
//! after a crash there are either the old ones or the kept ones, and a restore that is finished
//! later keeps what it finds.
//!
//! A name is not a namespace: an owner who deleted a namespace left no data to the next owner of
//! its name. So what the backup has of a namespace goes back only to that namespace (see
//! `REASSIGNED_NAMES`). Otherwise the backup's is left out, and the present one is as every
//! namespace that was made since.
//!
//! A backup of another network (its secret is another one: a new machine, whose tables are empty)
//! brings its tables, and its sessions have ended: a caller that held their tokens when the copy
//! was made is not known.

use crate::embedded::copy_error::{map_copy_error, map_io_error};
use crate::embedded::data_folder::DataFolder;
use crate::migrations::{self, KEPT_BY_RESTORE, MIGRATIONS};
use debros_proto::{Error, Namespace, Result, now_ms};
use rusqlite::{Connection, OptionalExtension as _, Transaction};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Names that belong to another namespace now than in the backup. They are the same when the owner
/// is, or the time at which the namespace was made: it changes hands without that. What the backup
/// has without a row or an owner is the operator's. One that is being deleted now, or nobody's,
/// takes nothing that comes back.
const REASSIGNED_NAMES: &str = "SELECT p.name FROM present.namespaces p LEFT JOIN temp.backups b ON b.name = p.name
    WHERE p.owner <> '' AND p.owner <> coalesce(nullif(b.owner, ''), 'operator') AND p.created_at IS NOT b.created_at
    ORDER BY p.name";

/// For the connections that change the copy. A half copy is thrown away; what is deleted from a
/// whole one is overwritten, because its free pages are put back with the others.
const PREPARE: &str =
    "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY;
    PRAGMA secure_delete = ON";

/// What the system's database holds of a namespace.
const LEAVE_OUT: [&str; 3] = [
    "DELETE FROM main.kv WHERE ns = ?1",
    "DELETE FROM main.apps WHERE namespace = ?1",
    "DELETE FROM main._debros_idempotency WHERE ns = ?1",
];

/// A backup's copy of the system's database, to be changed before it is put in place. It goes with
/// this.
pub(super) struct SystemCopy {
    path: PathBuf,
    /// The backup's namespaces: name, time in milliseconds since the Unix epoch, owner.
    namespaces: Vec<(String, i64, String)>,
    /// What was left out of the copy.
    left_out: BTreeSet<Namespace>,
}

impl SystemCopy {
    /// Copies the backup's file and brings it up to date.
    pub(super) fn create(backup: &Path, folder: &DataFolder) -> Result<Self> {
        let path = folder.temp_path().join("restored-system.db");
        let mut copy = Self { path, namespaces: Vec::new(), left_out: BTreeSet::new() };
        fs::copy(backup, copy.path()).map_err(|error| map_io_error(copy.path(), &error))?;
        let mut db = Connection::open(copy.path()).map_err(map_copy_error)?;
        db.execute_batch(PREPARE).map_err(map_copy_error)?;
        migrations::apply_migrations(&mut db, MIGRATIONS, now_ms()).map_err(|error| {
            tracing::error!(%error, "the backup's tables cannot be brought up to date");
            Error::internal(
                "the backup's tables cannot be brought up to date; nothing was changed, and the log has more",
            )
        })?;
        copy.namespaces = read_namespaces(&db).map_err(map_copy_error)?;
        db.close().map_err(|(_, error)| map_copy_error(error))?;
        Ok(copy)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the backup was made by a node of this network, whose system's database is `present`.
    pub(super) fn is_of_this_network(&self, present: &Path) -> Result<bool> {
        let mut db = Connection::open(self.path()).map_err(map_copy_error)?;
        db.execute("ATTACH ?1 AS present", [present.to_string_lossy()]).map_err(map_copy_error)?;
        let same = db
            .transaction()
            .and_then(|transaction| is_same_network(&transaction))
            .map_err(map_copy_error)?;
        db.close().map_err(|(_, error)| map_copy_error(error))?;
        Ok(same)
    }

    /// Puts the present tables of those who may act into the copy, and gives the data that nobody
    /// owns there to the operator. `present` is the system's database, in which nothing else writes
    /// meanwhile; `files` are the namespaces whose databases the backup has.
    ///
    /// Returns the namespaces that are others than the backup's of their names: their databases
    /// must not be put back.
    pub(super) fn merge_auth_tables(
        &mut self,
        present: &Path,
        files: &BTreeSet<Namespace>,
    ) -> Result<BTreeSet<Namespace>> {
        let mut db = Connection::open(self.path()).map_err(map_copy_error)?;
        db.execute_batch(PREPARE).map_err(map_copy_error)?;
        db.execute("ATTACH ?1 AS present", [present.to_string_lossy()]).map_err(map_copy_error)?;
        let transaction = db.transaction().map_err(map_copy_error)?;
        enter_backup_namespaces(&transaction, &self.namespaces).map_err(map_copy_error)?;
        if is_same_network(&transaction).map_err(map_copy_error)? {
            // Also what a run before this one left out: it is gone from the copy.
            self.left_out.extend(delete_reassigned(&transaction, files).map_err(map_copy_error)?);
            copy_present_tables(&transaction).map_err(map_copy_error)?;
        } else {
            tracing::warn!(
                "the backup is of another network: its keys, members and owners are in effect now, and its sessions have ended"
            );
            revoke_in_backup_tables(&transaction).map_err(map_copy_error)?;
        }
        assign_unowned_data(&transaction, &(files - &self.left_out)).map_err(map_copy_error)?;
        transaction.commit().map_err(map_copy_error)?;
        db.execute("DETACH present", []).map_err(map_copy_error)?;
        db.close().map_err(|(_, error)| map_copy_error(error))?;
        if !self.left_out.is_empty() {
            let names: Vec<&str> = self.left_out.iter().map(Namespace::as_str).collect();
            tracing::warn!(
                namespaces = names.join(", "),
                "namespaces of these names were deleted since the backup, and others made: what the backup has is not put \
                 back, and they are empty now as all that were made since"
            );
        }
        Ok(self.left_out.clone())
    }
}

impl Drop for SystemCopy {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            // What stays is deleted at the next start.
            let _ = fs::remove_file(self.path.with_extension(format!("db{suffix}")));
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

fn read_namespaces(db: &Connection) -> rusqlite::Result<Vec<(String, i64, String)>> {
    let mut rows = db.prepare("SELECT name, created_at, owner FROM namespaces")?;
    rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
}

/// Enters the backup's namespaces where statements find them, also when the copy has the present
/// ones.
fn enter_backup_namespaces(
    db: &Transaction<'_>,
    namespaces: &[(String, i64, String)],
) -> rusqlite::Result<()> {
    db.execute_batch(
        "CREATE TEMP TABLE backups (name TEXT PRIMARY KEY, created_at INTEGER, owner TEXT) WITHOUT ROWID",
    )?;
    let mut note = db.prepare("INSERT INTO temp.backups VALUES (?1, ?2, ?3)")?;
    namespaces
        .iter()
        .try_for_each(|row| note.execute(rusqlite::params![row.0, row.1, row.2]).map(|_| ()))
}

/// Deletes from the copy what the backup has of namespaces whose names belong to others now, and
/// names those of which it has something.
fn delete_reassigned(
    db: &Transaction<'_>,
    files: &BTreeSet<Namespace>,
) -> rusqlite::Result<BTreeSet<Namespace>> {
    let mut taken = db.prepare(REASSIGNED_NAMES)?;
    let taken: Vec<String> =
        taken.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut left_out = BTreeSet::new();
    for name in taken {
        let mut gone = 0;
        for sql in LEAVE_OUT {
            gone += db.prepare_cached(sql)?.execute([&name])?;
        }
        if let Ok(namespace) = Namespace::new(&name)
            && (gone > 0 || files.contains(&namespace))
        {
            left_out.insert(namespace);
        }
    }
    Ok(left_out)
}

fn copy_present_tables(db: &Transaction<'_>) -> rusqlite::Result<()> {
    for table in KEPT_BY_RESTORE {
        // Both have the columns of the newest step, in its order.
        db.execute_batch(&format!(
            "DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM present.{table}"
        ))?;
    }
    Ok(())
}

/// The backup's tables, in which no session is open, and nothing good that is known here to be
/// revoked.
fn revoke_in_backup_tables(db: &Transaction<'_>) -> rusqlite::Result<()> {
    db.execute("UPDATE main.sessions SET revoked_at = ?1 WHERE revoked_at IS NULL", [now_ms()])?;
    db.execute_batch(
        "UPDATE main.api_keys SET revoked_at = (SELECT revoked_at FROM present.api_keys p WHERE p.id = main.api_keys.id)
         WHERE revoked_at IS NULL AND id IN (SELECT id FROM present.api_keys WHERE revoked_at IS NOT NULL);
         INSERT INTO main.signing_keys SELECT * FROM present.signing_keys WHERE removed_at IS NOT NULL
         ON CONFLICT (kid) DO UPDATE SET removed_at = excluded.removed_at",
    )
}

/// Enters namespaces that come back with data and have no row: the first stranger that signs in
/// must not own them. A row without an owner is that of a namespace which is gone. They keep the
/// time that the backup has, by which the same backup knows them again.
fn assign_unowned_data(db: &Transaction<'_>, files: &BTreeSet<Namespace>) -> rusqlite::Result<()> {
    db.execute("DELETE FROM main.namespaces WHERE owner = ''", [])?;
    db.execute(
        "INSERT INTO main.namespaces (name, created_at, owner)
         SELECT ns, coalesce((SELECT created_at FROM temp.backups WHERE name = ns), ?1), 'operator' FROM (
             SELECT DISTINCT ns FROM main.kv WHERE substr(ns, 1, 1) <> '_' UNION SELECT namespace FROM main.apps
         ) WHERE true ON CONFLICT (name) DO NOTHING",
        [now_ms()],
    )?;
    let mut own = db.prepare(
        "INSERT INTO main.namespaces (name, created_at, owner)
         VALUES (?1, coalesce((SELECT created_at FROM temp.backups WHERE name = ?1), ?2), 'operator')
         ON CONFLICT (name) DO NOTHING",
    )?;
    files.iter().try_for_each(|namespace| own.execute((namespace.as_str(), now_ms())).map(|_| ()))
}
