//! What a namespace's file holds beside the namespace's own objects.
//!
//! `_debros_catalogue` has the schema as SQLite lists it, in the user's own words; `_debros_moment`
//! the time of the open write, `_debros_idempotency` the answers of keyed writes, `_debros_about`
//! what the file is.

use crate::embedded::{error_mapping, idempotency};
use debros_proto::{Error, Namespace, Result};
use debros_sql::catalogue::{CatalogueChanges, CatalogueEntry, EntryKind};
use debros_sql::{Catalogue, HeaderField, MOMENT_DDL};
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

/// The list of the first format: without what was made along with something, and without the order
/// in which kinds mixed.
const LIST_1: &str =
    "SELECT 0, kind, name, name, sql FROM _debros_catalogue WHERE kind <> 'statistics'
    ORDER BY CASE kind WHEN 'table' THEN 1 WHEN 'view' THEN 2 WHEN 'index' THEN 3 ELSE 4 END, id";
const HAS_STATISTICS_1: &str =
    "SELECT EXISTS (SELECT 1 FROM _debros_catalogue WHERE kind = 'statistics')";

/// Whether a file has the tables, and so the form, of this program.
pub(super) fn is_current(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row(
        "SELECT 1 FROM sqlite_schema WHERE name = '_debros_about' AND type = 'table'",
        [],
        |_| Ok(()),
    )
    .optional()
    .map(|found| found.is_some())
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
    match read_format(db)? {
        1 => read_format_1_entries(db),
        _ => query_entries(db, LIST),
    }
}

fn query_entries(db: &Connection, sql: &str) -> rusqlite::Result<Vec<CatalogueEntry>> {
    let mut list = db.prepare(sql)?;
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

fn read_format_1_entries(db: &Connection) -> rusqlite::Result<Vec<CatalogueEntry>> {
    let mut entries = query_entries(db, LIST_1)?;
    if db.query_row(HAS_STATISTICS_1, [], |row| row.get(0))? {
        let name = "sqlite_stat1".to_owned();
        let sql = Some("ANALYZE".to_owned());
        entries.push(CatalogueEntry {
            position: 0,
            kind: EntryKind::Table,
            name: name.clone(),
            table: name,
            sql,
        });
    }
    for (position, entry) in (1..).zip(&mut entries) {
        entry.position = position;
    }
    Ok(entries)
}

fn read_format(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("SELECT value FROM _debros_about WHERE name = 'format'", [], |row| row.get(0))
}

/// Rewrites the list of the first format in this one's. In a transaction.
fn upgrade_entries(db: &Connection, catalogue: &Catalogue) -> Result<()> {
    let put = catalogue.entries()?;
    let write = || {
        db.execute_batch("DROP TABLE _debros_catalogue")?;
        db.execute_batch(TABLES)?;
        save_changes(db, &CatalogueChanges { put, removed: Vec::new() })?;
        db.execute("UPDATE _debros_about SET value = ?1 WHERE name = 'format'", [FORMAT])
            .map(|_| ())
    };
    write().map_err(error_mapping::map_sqlite_error)
}

/// The catalogue of the namespace whose file it is. A file of an earlier format becomes one of
/// this.
///
/// # Errors
/// What SQLite says; `internal` when the file is of a later program.
pub(in crate::embedded) fn load_catalogue(
    db: &mut Connection,
    namespace: &Namespace,
) -> Result<Catalogue> {
    let format = read_format(db).map_err(error_mapping::map_sqlite_error)?;
    if format > FORMAT {
        tracing::error!(%namespace, format, known = FORMAT, "the file is of a newer version of the node");
        return Err(Error::internal(
            "the namespace's database was made by a newer version of the node: start that one",
        ));
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
    if format < FORMAT {
        let transaction = db
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(error_mapping::map_sqlite_error)?;
        upgrade_entries(&transaction, &catalogue)?;
        transaction.commit().map_err(error_mapping::map_sqlite_error)?;
    }
    Ok(catalogue)
}
