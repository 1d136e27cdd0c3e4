//! A namespace's database as one file.

use super::{checksum_file, copy_pages};
use crate::ExportFile;
use crate::embedded::conn::SqliteConnection;
use crate::embedded::copy_error::{map_copy_error, map_io_error};
use crate::embedded::database_handle::DatabaseHandle;
use crate::embedded::database_manager::DatabaseManager;
use crate::embedded::error_mapping;
use crate::embedded::functions;
use crate::embedded::integrity::{self, CheckDepth};
use crate::embedded::tenant::restore_user_names;
use debros_proto::{Code, Error, Namespace, Result, hex};
use debros_sql::INTERNAL_PREFIX;
use rusqlite::Connection;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Instructions of SQLite's machine between two looks at whether the caller is there.
const STEPS_PER_LOOK: i32 = 10_000;

/// Copies a namespace's database, as it is now and without the engine's own tables, into a
/// temporary file. Blocks.
///
/// It ends when `has_left` says that the caller has gone.
pub(in crate::embedded) fn export_namespace(
    databases: &DatabaseManager,
    namespace: &Namespace,
    has_left: &Arc<AtomicBool>,
) -> Result<ExportFile> {
    let database = databases.open_for_caller(namespace)?;
    export_database(databases, namespace, &database, has_left)
}

fn export_database(
    databases: &DatabaseManager,
    namespace: &Namespace,
    database: &Arc<DatabaseHandle>,
    has_left: &Arc<AtomicBool>,
) -> Result<ExportFile> {
    let bytes = databases.shared.sizes.namespace_usage(namespace).file;
    let permit = databases.export_limiter.permit_export(
        namespace,
        bytes,
        &databases.folder.temp_path(),
        databases.shared.config.max_temp_size,
    )?;
    let goes_on = || match has_left.load(Relaxed) {
        true => Err(Error::new(Code::Unavailable, "the caller has left")),
        false => databases.check_open(),
    };
    database.check_in_place()?;
    let source = SqliteConnection::reader(database.path()).map_err(map_copy_error)?;
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| {
        tracing::error!(%error, "the system gives no random bytes");
        Error::internal("the export cannot be named")
    })?;
    let path =
        databases.folder.temp_path().join(format!("{namespace}-{}.db", hex::encode(&random)));
    // From here on the file is removed whatever happens.
    let mut export = ExportFile { path, checksum: String::new(), size: 0, permit: None };
    copy_pages(&source, &export.path, goes_on, |_| {})?;
    // It was read by its path, where by now there may be the database of the next owner of the
    // namespace again.
    if !databases.is_current(namespace, database) {
        databases.check_not_deleting(namespace)?;
        let message = "the namespace was deleted or restored while it was exported; try again";
        return Err(Error::new(Code::Unavailable, message).retry_after(Duration::from_secs(1)));
    }
    let packed = packed_file(&export.path);
    let tidied = rewrite_for_user(&export.path, namespace, &packed.path, has_left);
    goes_on()?;
    let findings = tidied.map_err(map_copy_error)?;
    if let Some(findings) = findings {
        // Pages are copied as they are: nothing before this looks into them.
        tracing::error!(path = %database.path().display(), findings, "the database is damaged, as the copy of it shows");
        return Err(error_mapping::database_damaged_error());
    }
    fs::rename(&packed.path, &export.path).map_err(|error| map_io_error(&export.path, &error))?;
    (export.checksum, export.size) =
        checksum_file(&export.path, |_| {}).map_err(|error| map_io_error(&export.path, &error))?;
    goes_on()?;
    permit.mark_made(export.size);
    export.permit = Some(Box::new(permit));
    Ok(export)
}

/// A file beside an export's, which goes with what is returned.
fn packed_file(path: &Path) -> ExportFile {
    ExportFile {
        path: path.with_extension("packed"),
        checksum: String::new(),
        size: 0,
        permit: None,
    }
}

/// Gives everything the user's own names, drops the engine's tables, and writes what is left into a
/// new file, in which no byte is of anything else. Returns what is wrong with the file, if anything
/// is.
fn rewrite_for_user(
    path: &Path,
    namespace: &Namespace,
    packed: &Path,
    has_left: &Arc<AtomicBool>,
) -> rusqlite::Result<Option<String>> {
    let open = || {
        let (mut db, has_left) = (Connection::open(path)?, Arc::clone(has_left));
        db.progress_handler(STEPS_PER_LOOK, Some(move || has_left.load(Relaxed)))?;
        Ok::<_, rusqlite::Error>(db)
    };
    let db = open()?;
    if let Some(findings) = integrity::check_integrity(&db, CheckDepth::Quick)? {
        return Ok(Some(findings));
    }
    db.execute_batch(
        "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA secure_delete = ON",
    )?;
    // While the user's tables have their prefix, and so other names than the engine's.
    let tables = db
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1")?
        .query_map([INTERNAL_PREFIX], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    restore_user_names(&db, namespace)?;
    db.close().map_err(|(_, error)| error)?;
    // Opened again, so that SQLite reads the names that it has now.
    let db = open()?;
    functions::register_linear_functions(&db)?;
    db.execute_batch(
        "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA secure_delete = ON",
    )?;
    for table in tables {
        db.execute_batch(&format!("DROP TABLE \"{table}\""))?;
    }
    // Samples of keys, which a program without this option of SQLite's would take for a table of
    // the user's.
    db.execute_batch("DROP TABLE IF EXISTS sqlite_stat4")?;
    // A database in which nothing was ever made is a file of no bytes, which not every program
    // takes for one.
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    db.pragma_update(None, "user_version", version)?;
    // Pages that were changed still hold parts of the old names. INTO keeps rowids, which VACUUM
    // alone does not.
    db.execute("VACUUM INTO ?1", [packed.to_string_lossy()])?;
    db.close().map_err(|(_, error)| error)?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::export_database;
    use crate::embedded::config::EmbeddedConfig;
    use crate::embedded::database_handle::DatabaseHandle;
    use crate::embedded::database_manager::DatabaseManager;
    use debros_proto::{Code, Namespace};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    /// A caller that asked for the old database must not get that of the next owner of the name.
    #[test]
    fn an_export_is_never_of_a_namespace_that_was_made_again_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let databases = DatabaseManager::open(EmbeddedConfig::new(folder.path()), None)
            .unwrap_or_else(|error| panic!("{error}"));
        let namespace = Namespace::new("app").unwrap();
        let old = databases.open_namespace(&namespace).unwrap();
        let here = Arc::<AtomicBool>::default();
        let export_of =
            |of: &Arc<DatabaseHandle>| export_database(&databases, &namespace, of, &here);
        let first = export_of(&old).unwrap();
        // One of a namespace at a time, as long as its file is there.
        assert_eq!(export_of(&old).unwrap_err().code, Code::Overloaded);
        drop(first);
        here.store(true, Relaxed);
        assert!(export_of(&old).unwrap_err().message.contains("left"));
        here.store(false, Relaxed);
        databases.remove_database(&namespace).unwrap();
        let new = databases.open_namespace(&namespace).unwrap();
        assert_eq!(export_of(&old).unwrap_err().code, Code::Unavailable);
        assert!(export_of(&new).is_ok());
        let left = std::fs::read_dir(databases.folder.temp_path()).unwrap().count();
        assert_eq!(left, 0, "exports leave nothing behind");
    }
}
