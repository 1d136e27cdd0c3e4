//! What a namespace's file holds beside the namespace's own objects.
//!
//! `_debros_catalogue` has the schema as SQLite lists it, in the user's own words; `_debros_moment`
//! the time of the open write, `_debros_idempotency` the answers of keyed writes, `_debros_about`
//! what the file is.

use crate::embedded::{error_mapping, idempotency};
use debros_proto::{Error, Namespace, Result};
use debros_sql::catalogue::{CatalogueChanges, CatalogueEntry, EntryKind};
use debros_sql::{Catalogue, HeaderField, INTERNAL_PREFIX, MOMENT_DDL};
use rusqlite::{Connection, OptionalExtension as _};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS _debros_catalogue (
        position INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, tbl_name TEXT NOT NULL, sql TEXT
    ) STRICT;
    CREATE TABLE IF NOT EXISTS _debros_about (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;";
const FORMAT: i64 = 2;

const PUT: &str =
    "/*debros*/ INSERT OR REPLACE INTO _debros_catalogue (position, kind, name, tbl_name, sql)
    VALUES (?1, ?2, ?3, ?4, ?5)";
const REMOVE: &str = "/*debros*/ DELETE FROM _debros_catalogue WHERE position = ?1";
const LIST: &str =
    "SELECT position, kind, name, tbl_name, sql FROM _debros_catalogue ORDER BY position";

/// Whether a file has the engine's tables.
pub(super) fn has_tables(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row(
        "SELECT 1 FROM sqlite_schema WHERE name = '_debros_about' AND type = 'table'",
        [],
        |_| Ok(()),
    )
    .optional()
    .map(|found| found.is_some())
}

/// Whether a file holds anything that is not the engine's, so that tables of the engine would not
/// make it a namespace's.
pub(super) fn has_other_objects(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE substr(tbl_name, 1, length(?1)) <> ?1)",
        [INTERNAL_PREFIX],
        |row| row.get(0),
    )
}

/// A file that no release has written.
pub(super) fn unreleased_form_error(namespace: &Namespace) -> Error {
    tracing::error!(
        %namespace,
        "the database is a file from before release 0.1.0, or of another program: it is not read, and left as it is"
    );
    Error::internal(
        "the namespace's database is a file from before release 0.1.0, or of another program: this \
         node does not read it and leaves it as it is; take its data out with sqlite3",
    )
}

/// Makes the tables.
pub(super) fn create_tables(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(TABLES)?;
    db.execute_batch(MOMENT_DDL)?;
    db.execute_batch(idempotency::CREATE)?;
    db.execute(
        "INSERT OR IGNORE INTO _debros_about (name, value) VALUES ('format', ?1)",
        [FORMAT],
    )?;
    Ok(())
}

/// Writes down when the file was made, in milliseconds since the Unix epoch, unless it is known. It
/// is durable with the first write that anybody waits for.
pub(super) fn record_created_at(db: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    if created_at(db)?.is_some() {
        return Ok(());
    }
    db.execute_batch("PRAGMA synchronous = OFF")?;
    let dated =
        db.execute("INSERT INTO _debros_about (name, value) VALUES ('created_at', ?1)", [now_ms]);
    db.execute_batch("PRAGMA synchronous = FULL")?;
    dated.map(|_| ())
}

/// When the file was made, in milliseconds since the Unix epoch.
pub(super) fn created_at(db: &Connection) -> rusqlite::Result<Option<i64>> {
    db.query_row("SELECT value FROM _debros_about WHERE name = 'created_at'", [], |row| row.get(0))
        .optional()
}

/// Writes down what changed in the schema.
pub(super) fn save_changes(db: &Connection, changes: &CatalogueChanges) -> rusqlite::Result<()> {
    for position in &changes.removed {
        db.prepare_cached(REMOVE)?.execute([position])?;
    }
    for entry in &changes.put {
        db.prepare_cached(PUT)?.execute((
            entry.position,
            entry.kind.as_str(),
            &entry.name,
            &entry.table,
            &entry.sql,
        ))?;
    }
    Ok(())
}

/// The schema in the user's own words, in the order in which it was made.
pub(super) fn read_entries(db: &Connection) -> rusqlite::Result<Vec<CatalogueEntry>> {
    let mut list = db.prepare(LIST)?;
    let mut rows = list.query([])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let kind: String = row.get(1)?;
        let Some(kind) = EntryKind::from_name(&kind) else { continue };
        entries.push(CatalogueEntry {
            position: row.get(0)?,
            kind,
            name: row.get(2)?,
            table: row.get(3)?,
            sql: row.get(4)?,
        });
    }
    Ok(entries)
}

fn read_format(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("SELECT value FROM _debros_about WHERE name = 'format'", [], |row| row.get(0))
}

/// The catalogue of the namespace whose file it is.
///
/// # Errors
/// What SQLite says; `internal` when the file is of a later program, or has a form from before the
/// first release.
pub(super) fn load_catalogue(db: &Connection, namespace: &Namespace) -> Result<Catalogue> {
    let format = read_format(db).map_err(error_mapping::map_sqlite_error)?;
    if format > FORMAT {
        tracing::error!(%namespace, format, known = FORMAT, "the file is of a newer version of the node");
        return Err(Error::internal(
            "the namespace's database was made by a newer version of the node: start that one",
        ));
    }
    if format < FORMAT {
        return Err(unreleased_form_error(namespace));
    }
    let entries = read_entries(db).map_err(error_mapping::map_sqlite_error)?;
    let mut catalogue = Catalogue::load(namespace, &entries, |entry, why| {
        tracing::warn!(
            %namespace, kind = entry.kind.as_str(), name = entry.name, why,
            "an object of the schema cannot be recreated: statements that use it fail with this error"
        );
    })?;
    for field in HeaderField::ALL {
        let value = db
            .pragma_query_value(None, field.name(), |row| row.get(0))
            .map_err(error_mapping::map_sqlite_error)?;
        if value != 0 {
            catalogue.set_header(field, value)?;
        }
    }
    Ok(catalogue)
}
