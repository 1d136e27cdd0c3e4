//! A namespace's database as one file.

use super::{checksum, copy, of_copy, of_io};
use crate::ExportFile;
use crate::embedded::conn::Conn;
use crate::embedded::failure;
use crate::embedded::functions;
use crate::embedded::integrity::{self, Depth};
use crate::embedded::store::Store;
use crate::embedded::stores::Stores;
use crate::embedded::tenant::to_users_names;
use debros_proto::{Code, Error, Namespace, Result, hex};
use debros_sql::INTERNAL_PREFIX;
use rusqlite::Connection;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Copies a namespace's database, as it is now and without the engine's own tables, into a temporary file. Blocks.
pub(in crate::embedded) fn export(stores: &Stores, namespace: &Namespace) -> Result<ExportFile> {
    let store = stores.open_for_caller(namespace)?;
    export_of(stores, namespace, &store)
}

fn export_of(stores: &Stores, namespace: &Namespace, store: &Arc<Store>) -> Result<ExportFile> {
    store.check_in_place()?;
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
    // It was read by its path, where by now there may be the database of whoever made the namespace again.
    if !stores.is_still(namespace, store) {
        stores.check_there(namespace)?;
        let message = "the namespace was deleted or restored while it was exported; try again";
        return Err(Error::new(Code::Unavailable, message).retry_after(Duration::from_secs(1)));
    }
    let packed = packed(&export.path);
    let findings = tidy(&export.path, namespace, &packed.path).map_err(of_copy)?;
    if let Some(findings) = findings {
        // Pages are copied as they are: nothing before this looks into them.
        tracing::error!(path = %store.path().display(), findings, "the database is damaged, as the copy of it shows");
        return Err(failure::damaged());
    }
    fs::rename(&packed.path, &export.path).map_err(|error| of_io(&export.path, &error))?;
    (export.checksum, export.size) = checksum(&export.path, |_| {}).map_err(|error| of_io(&export.path, &error))?;
    Ok(export)
}

/// A file beside an export's, which goes with what is returned.
fn packed(path: &Path) -> ExportFile {
    ExportFile { path: path.with_extension("packed"), checksum: String::new(), size: 0 }
}

/// Gives everything the user's own names, drops the engine's tables, and writes what is left into a new file, in which no byte
/// is of anything else. Returns what is wrong with the file, if anything is.
fn tidy(path: &Path, namespace: &Namespace, packed: &Path) -> rusqlite::Result<Option<String>> {
    let db = Connection::open(path)?;
    if let Some(findings) = integrity::findings(&db, Depth::Quick)? {
        return Ok(Some(findings));
    }
    db.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA secure_delete = ON")?;
    to_users_names(&db, namespace)?;
    db.close().map_err(|(_, error)| error)?;
    // Opened again, so that SQLite reads the names that it has now.
    let db = Connection::open(path)?;
    functions::install(&db)?;
    let tables = db
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1")?
        .query_map([INTERNAL_PREFIX], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    db.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA secure_delete = ON")?;
    for table in tables {
        db.execute_batch(&format!("DROP TABLE \"{table}\""))?;
    }
    // Samples of keys, which a program without this option of SQLite's would take for a table of the user's.
    db.execute_batch("DROP TABLE IF EXISTS sqlite_stat4")?;
    // A database in which nothing was ever made is a file of no bytes, which not every program takes for one.
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    db.pragma_update(None, "user_version", version)?;
    // Pages that were changed still hold parts of the old names. INTO keeps rowids, which VACUUM alone does not.
    db.execute("VACUUM INTO ?1", [packed.to_string_lossy()])?;
    db.close().map_err(|(_, error)| error)?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::export_of;
    use crate::embedded::config::EmbeddedConfig;
    use crate::embedded::stores::Stores;
    use debros_proto::{Code, Namespace};

    /// The one who asked for the old database must not get that of the next owner of the name.
    #[test]
    fn an_export_is_never_of_a_namespace_that_was_made_again_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::open(EmbeddedConfig::new(folder.path())).unwrap_or_else(|error| panic!("{error}"));
        let namespace = Namespace::new("app").unwrap();
        let old = stores.open_namespace(&namespace).unwrap();
        assert!(export_of(&stores, &namespace, &old).is_ok());
        stores.remove(&namespace).unwrap();
        let new = stores.open_namespace(&namespace).unwrap();
        assert_eq!(export_of(&stores, &namespace, &old).unwrap_err().code, Code::Unavailable);
        assert!(export_of(&stores, &namespace, &new).is_ok());
        let left = std::fs::read_dir(stores.folder.tmp()).unwrap().count();
        assert_eq!(left, 0, "exports leave nothing behind");
    }
}
