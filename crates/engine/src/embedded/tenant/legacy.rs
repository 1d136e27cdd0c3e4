//! Files of earlier versions, whose objects have the user's names without the namespace's prefix.
//!
//! A copy is brought up to date and looked at, and then put in the file's place: at every moment
//! the file is wholly the old one or wholly the new one.

use super::format;
use super::object_renaming::{RenamedTexts, rename_objects};
use crate::embedded::data_folder::sync_folder;
use crate::embedded::error_mapping;
use crate::embedded::integrity::{self, CheckDepth};
use debros_proto::{Error, Namespace, Result};
use debros_sql::catalogue::CatalogueChanges;
use debros_sql::{Catalogue, ExecutionContext, ForeignKeys, INTERNAL_PREFIX, rewrite};
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A file that is removed when this is dropped.
#[derive(Debug)]
pub(in crate::embedded) struct TempCopy(PathBuf);

impl TempCopy {
    pub(in crate::embedded) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempCopy {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the next start empties the folder.
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether a file holds anything of a user's.
pub(super) fn has_objects(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE substr(tbl_name, 1, length(?1)) <> ?1)",
        [INTERNAL_PREFIX],
        |row| row.get(0),
    )
}

/// Brings a namespace's file up to date, which must not be open.
///
/// # Errors
/// What cannot be brought up to date, in the log and in the error. The file is then as it was.
pub(in crate::embedded) fn convert_file(
    path: &Path,
    namespace: &Namespace,
    tmp: &Path,
) -> Result<()> {
    tracing::warn!(path = %path.display(), "the database has the form of an earlier version; it is brought up to date");
    // What is in the log goes into the file, and the log away: it would be taken for that of the
    // new file.
    let old = Connection::open(path).map_err(error_mapping::map_sqlite_error)?;
    let mode: String = old
        .query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))
        .map_err(error_mapping::map_sqlite_error)?;
    old.close().map_err(|(_, error)| error_mapping::map_sqlite_error(error))?;
    if mode != "delete" {
        return Err(conversion_error(path, "another program has the file open"));
    }
    let copy = make_current_copy(path, namespace, tmp)?;
    let replace = File::open(copy.path())
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(copy.path(), path))
        .and_then(|()| path.parent().map_or(Ok(()), sync_folder));
    replace.map_err(|error| conversion_error(path, &error.to_string()))
}

/// A copy of a backup's file that is up to date; `None` when the file is.
///
/// # Errors
/// As [`convert_file`].
pub(in crate::embedded) fn current_copy(
    path: &Path,
    namespace: &Namespace,
    tmp: &Path,
) -> Result<Option<TempCopy>> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(error_mapping::map_sqlite_error)?;
    let is_old = format::is_current(&db)
        .and_then(|current| Ok(!current && has_objects(&db)?))
        .map_err(error_mapping::map_sqlite_error)?;
    drop(db);
    if is_old { make_current_copy(path, namespace, tmp).map(Some) } else { Ok(None) }
}

fn make_current_copy(path: &Path, namespace: &Namespace, tmp: &Path) -> Result<TempCopy> {
    let copy = TempCopy(tmp.join(format!("{namespace}-converted.db")));
    fs::copy(path, copy.path()).map_err(|error| conversion_error(path, &error.to_string()))?;
    convert_copy(copy.path(), namespace).map_err(|why| conversion_error(path, &why))?;
    Ok(copy)
}

fn convert_copy(path: &Path, namespace: &Namespace) -> std::result::Result<(), String> {
    let db = Connection::open(path).map_err(error_text)?;
    db.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF")
        .map_err(error_text)?;
    let (catalogue, texts) = rewrite_schema(namespace, &db)?;
    let prefix = namespace.prefix();
    rename_objects(&db, &texts, &|name| format!("{prefix}{name}")).map_err(error_text)?;
    db.close().map_err(|(_, error)| error_text(error))?;
    let mut db = Connection::open(path).map_err(error_text)?;
    if let Some(findings) = integrity::check_integrity(&db, CheckDepth::Full).map_err(error_text)? {
        return Err(findings);
    }
    let put = catalogue.entries().map_err(|error| error.message)?;
    format::create_tables(&db).map_err(error_text)?;
    format::save_changes(&db, &CatalogueChanges { put, removed: Vec::new() })
        .map_err(error_text)?;
    format::load_catalogue(&mut db, namespace).map_err(|error| error.message)?;
    db.close().map_err(|(_, error)| error_text(error))
}

/// An object that the user made.
struct UserObject {
    kind: String,
    name: String,
    sql: String,
}

/// What the user made, in the order in which it was made.
fn old_objects(db: &Connection) -> rusqlite::Result<Vec<UserObject>> {
    db.prepare(
        "SELECT s.type, s.name, s.sql FROM sqlite_schema AS s
         WHERE s.sql IS NOT NULL AND substr(s.tbl_name, 1, 7) <> 'sqlite_' AND substr(s.tbl_name, 1, length(?1)) <> ?1
           AND NOT EXISTS (SELECT 1 FROM pragma_table_list AS l WHERE l.name = s.name AND l.type = 'shadow')
         ORDER BY s.rowid",
    )?
    .query_map([INTERNAL_PREFIX], |row| Ok(UserObject { kind: row.get(0)?, name: row.get(1)?, sql: row.get(2)? }))?
    .collect()
}

fn has_statistics(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat1')",
        [],
        |row| row.get(0),
    )
}

/// The same schema under the namespace's names: the catalogue, and the texts for the file.
fn rewrite_schema(
    namespace: &Namespace,
    db: &Connection,
) -> std::result::Result<(Catalogue, RenamedTexts), String> {
    let mut catalogue = Catalogue::new(namespace).map_err(|error| error.message)?;
    let mut texts = RenamedTexts::new();
    for object in old_objects(db).map_err(error_text)? {
        let refused =
            |error: Error| format!("the {} {}: {}", object.kind, object.name, error.message);
        let rewritten = rewrite(&object.sql, &catalogue, ForeignKeys::Enforced).map_err(refused)?;
        let mut none = |bytes: &mut [u8]| bytes.fill(0);
        let mut context = ExecutionContext { now_ms: 0, random: &mut none };
        let text = rewritten.fill_sql(&mut context).into_owned();
        catalogue.apply(&object.sql).map_err(refused)?;
        texts.insert((object.kind, object.name), text);
    }
    if has_statistics(db).map_err(error_text)? {
        catalogue.apply("ANALYZE").map_err(|error| error.message)?;
    }
    Ok((catalogue, texts))
}

fn error_text(error: rusqlite::Error) -> String {
    error.to_string()
}

fn conversion_error(path: &Path, why: &str) -> Error {
    tracing::error!(path = %path.display(), why, "the namespace's database cannot be brought up to date");
    Error::internal(format!(
        "the namespace's database was made by an earlier version and cannot be brought up to date: {why}; start that \
         version, change what is named here, and start this one again"
    ))
}
