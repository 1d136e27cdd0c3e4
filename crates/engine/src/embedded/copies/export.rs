//! A namespace's database as one file.

use super::{checksum, copy, of_copy, of_io};
use crate::ExportFile;
use crate::embedded::conn::Conn;
use crate::embedded::failure;
use crate::embedded::integrity::{self, Depth};
use crate::embedded::stores::Stores;
use crate::embedded::tenant::to_users_names;
use debros_proto::{Error, Namespace, Result, hex};
use debros_sql::INTERNAL_PREFIX;
use rusqlite::Connection;
use std::path::Path;

/// Copies a namespace's database, as it is now and without the engine's own tables, into a temporary file. Blocks.
pub(in crate::embedded) fn export(stores: &Stores, namespace: &Namespace) -> Result<ExportFile> {
    let store = stores.open_for_caller(namespace)?;
    let source = Conn::reader(store.path()).map_err(of_copy)?;
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| {
        tracing::error!(%error, "the system gives no random bytes");
        Error::internal("the export can not be named")
    })?;
    let path = stores.folder.tmp().join(format!("{namespace}-{}.db", hex::encode(&random)));
    // From here on the file is removed whatever happens.
    let mut export = ExportFile { path, checksum: String::new(), size: 0 };
    copy(&source, &export.path, stores, |_| {})?;
    let findings = tidy(&export.path, namespace).map_err(of_copy)?;
    if let Some(findings) = findings {
        // Pages are copied as they are: nothing before this looks into them.
        tracing::error!(path = %store.path().display(), findings, "the database is damaged, as the copy of it shows");
        return Err(failure::damaged());
    }
    (export.checksum, export.size) = checksum(&export.path, |_| {}).map_err(|error| of_io(&export.path, &error))?;
    Ok(export)
}

/// Gives everything the user's own names, drops the engine's tables and overwrites what they held. Returns what is wrong
/// with the file, if anything is.
fn tidy(path: &Path, namespace: &Namespace) -> rusqlite::Result<Option<String>> {
    let db = Connection::open(path)?;
    if let Some(findings) = integrity::findings(&db, Depth::Quick)? {
        return Ok(Some(findings));
    }
    db.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA secure_delete = ON")?;
    to_users_names(&db, namespace)?;
    db.close().map_err(|(_, error)| error)?;
    // Opened again, so that SQLite reads the names that it has now.
    let db = Connection::open(path)?;
    let tables = db
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1")?
        .query_map([INTERNAL_PREFIX], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    db.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA secure_delete = ON")?;
    for table in tables {
        db.execute_batch(&format!("DROP TABLE \"{table}\""))?;
    }
    // A database in which nothing was ever made is a file of no bytes, which not every program takes for one.
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    db.pragma_update(None, "user_version", version)?;
    db.close().map_err(|(_, error)| error)?;
    Ok(None)
}
