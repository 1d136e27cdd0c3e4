//! Files of earlier versions, whose objects have the user's names without the namespace's prefix.
//!
//! A copy is brought up to date and looked at, and then put in the file's place: at every moment the file is wholly the
//! old one or wholly the new one.

use super::format;
use super::names::{Texts, rename};
use crate::embedded::failure;
use crate::embedded::folder::sync_folder;
use crate::embedded::integrity::{self, Depth};
use debros_proto::{Error, Namespace, Result};
use debros_sql::catalogue::Changes;
use debros_sql::{Catalogue, INTERNAL_PREFIX, Moment, rewrite};
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A file that is removed when this is dropped.
#[derive(Debug)]
pub(in crate::embedded) struct Copy(PathBuf);

impl Copy {
    pub(in crate::embedded) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Copy {
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

/// Brings a namespace's file up to date, which nobody has open.
///
/// # Errors
/// What can not be brought up to date, in the log and in the error. The file is then as it was.
pub(in crate::embedded) fn convert(path: &Path, namespace: &Namespace, tmp: &Path) -> Result<()> {
    tracing::warn!(path = %path.display(), "the database has the form of an earlier version; it is brought up to date");
    // What is in the log goes into the file, and the log away: it would be taken for that of the new file.
    let old = Connection::open(path).map_err(failure::of)?;
    let mode: String = old.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0)).map_err(failure::of)?;
    old.close().map_err(|(_, error)| failure::of(error))?;
    if mode != "delete" {
        return Err(refuse(path, "another program has the file open"));
    }
    let copy = current_of(path, namespace, tmp)?;
    let replace = File::open(copy.path())
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(copy.path(), path))
        .and_then(|()| path.parent().map_or(Ok(()), sync_folder));
    replace.map_err(|error| refuse(path, &error.to_string()))
}

/// A copy of a backup's file that is up to date; `None` when the file is.
///
/// # Errors
/// As [`convert`].
pub(in crate::embedded) fn current_copy(path: &Path, namespace: &Namespace, tmp: &Path) -> Result<Option<Copy>> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failure::of)?;
    let is_old = format::is_current(&db).and_then(|current| Ok(!current && has_objects(&db)?)).map_err(failure::of)?;
    drop(db);
    if is_old { current_of(path, namespace, tmp).map(Some) } else { Ok(None) }
}

fn current_of(path: &Path, namespace: &Namespace, tmp: &Path) -> Result<Copy> {
    let copy = Copy(tmp.join(format!("{namespace}-converted.db")));
    fs::copy(path, copy.path()).map_err(|error| refuse(path, &error.to_string()))?;
    convert_copy(copy.path(), namespace).map_err(|why| refuse(path, &why))?;
    Ok(copy)
}

fn convert_copy(path: &Path, namespace: &Namespace) -> std::result::Result<(), String> {
    let db = Connection::open(path).map_err(text)?;
    db.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF").map_err(text)?;
    let (catalogue, texts) = rewritten(namespace, &db)?;
    let prefix = namespace.prefix();
    rename(&db, &texts, &|name| format!("{prefix}{name}")).map_err(text)?;
    db.close().map_err(|(_, error)| text(error))?;
    let mut db = Connection::open(path).map_err(text)?;
    if let Some(findings) = integrity::findings(&db, Depth::Full).map_err(text)? {
        return Err(findings);
    }
    let put = catalogue.entries().map_err(|error| error.message)?;
    format::make(&db).map_err(text)?;
    format::keep(&db, &Changes { put, removed: Vec::new() }).map_err(text)?;
    format::load(&mut db, namespace).map_err(|error| error.message)?;
    db.close().map_err(|(_, error)| text(error))
}

/// An object that the user made.
struct Made {
    kind: String,
    name: String,
    sql: String,
}

/// What the user made, in the order in which it was made.
fn old_objects(db: &Connection) -> rusqlite::Result<Vec<Made>> {
    db.prepare(
        "SELECT s.type, s.name, s.sql FROM sqlite_schema AS s
         WHERE s.sql IS NOT NULL AND substr(s.tbl_name, 1, 7) <> 'sqlite_' AND substr(s.tbl_name, 1, length(?1)) <> ?1
           AND NOT EXISTS (SELECT 1 FROM pragma_table_list AS l WHERE l.name = s.name AND l.type = 'shadow')
         ORDER BY s.rowid",
    )?
    .query_map([INTERNAL_PREFIX], |row| Ok(Made { kind: row.get(0)?, name: row.get(1)?, sql: row.get(2)? }))?
    .collect()
}

fn has_statistics(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_stat1')", [], |row| row.get(0))
}

/// The same schema under the namespace's names: the catalogue, and the texts for the file.
fn rewritten(namespace: &Namespace, db: &Connection) -> std::result::Result<(Catalogue, Texts), String> {
    let mut catalogue = Catalogue::new(namespace).map_err(|error| error.message)?;
    let mut texts = Texts::new();
    for object in old_objects(db).map_err(text)? {
        let refused = |error: Error| format!("the {} {}: {}", object.kind, object.name, error.message);
        let rewritten = rewrite(&object.sql, &catalogue).map_err(refused)?;
        let mut none = |bytes: &mut [u8]| bytes.fill(0);
        let mut moment = Moment { now_ms: 0, random: &mut none };
        let text = rewritten.sql(&mut moment).into_owned();
        catalogue.apply(&object.sql).map_err(refused)?;
        texts.insert((object.kind, object.name), text);
    }
    if has_statistics(db).map_err(text)? {
        catalogue.apply("ANALYZE").map_err(|error| error.message)?;
    }
    Ok((catalogue, texts))
}

fn text(error: rusqlite::Error) -> String {
    error.to_string()
}

fn refuse(path: &Path, why: &str) -> Error {
    tracing::error!(path = %path.display(), why, "the namespace's database can not be brought up to date");
    Error::internal(format!(
        "the namespace's database was made by an earlier version and can not be brought up to date: {why}; start that \
         version, change what is named here, and start this one again"
    ))
}
