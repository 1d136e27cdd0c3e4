//! What a namespace's file holds beside the namespace's own objects.
//!
//! `_debros_catalogue` has the text of every object in the user's own words, `_debros_moment` the time of the open write,
//! `_debros_idempotency` the answers of guarded writes, `_debros_about` what the file is.

use crate::embedded::guard;
use debros_proto::{Error, Namespace, Result};
use debros_sql::catalogue::{Changes, Entry, EntryKind};
use debros_sql::{Catalogue, MOMENT_DDL};
use rusqlite::{Connection, OptionalExtension as _};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS _debros_catalogue (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, sql TEXT NOT NULL, UNIQUE (kind, name)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS _debros_about (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;";
const FORMAT: i64 = 1;

const PUT: &str = "/*debros*/ INSERT INTO _debros_catalogue (kind, name, sql) VALUES (?1, ?2, ?3)
    ON CONFLICT (kind, name) DO UPDATE SET sql = excluded.sql";
const REMOVE: &str = "/*debros*/ DELETE FROM _debros_catalogue WHERE kind = ?1 AND name = ?2";
const LIST: &str = "SELECT kind, name, sql FROM _debros_catalogue ORDER BY id";

/// Whether a file has the tables, and so the form, of this program.
pub(super) fn is_current(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row("SELECT 1 FROM sqlite_schema WHERE name = '_debros_about' AND type = 'table'", [], |_| Ok(()))
        .optional()
        .map(|found| found.is_some())
}

/// Makes the tables.
pub(super) fn make(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(TABLES)?;
    db.execute_batch(MOMENT_DDL)?;
    db.execute_batch(guard::CREATE)?;
    db.execute("INSERT OR IGNORE INTO _debros_about (name, value) VALUES ('format', ?1)", [FORMAT])?;
    Ok(())
}

/// Writes down when the file was made, in milliseconds since the Unix epoch, unless it is known. It is durable with the
/// first write that anybody waits for.
pub(super) fn date(db: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    if created_at(db)?.is_some() {
        return Ok(());
    }
    db.execute_batch("PRAGMA synchronous = OFF")?;
    let dated = db.execute("INSERT INTO _debros_about (name, value) VALUES ('created_at', ?1)", [now_ms]);
    db.execute_batch("PRAGMA synchronous = FULL")?;
    dated.map(|_| ())
}

/// When the file was made, in milliseconds since the Unix epoch.
pub(super) fn created_at(db: &Connection) -> rusqlite::Result<Option<i64>> {
    db.query_row("SELECT value FROM _debros_about WHERE name = 'created_at'", [], |row| row.get(0)).optional()
}

/// Writes down what changed in the schema.
pub(super) fn keep(db: &Connection, changes: &Changes) -> rusqlite::Result<()> {
    // What goes first makes room for what comes under its name.
    for entry in &changes.removed {
        db.prepare_cached(REMOVE)?.execute((entry.kind.as_str(), &entry.name))?;
    }
    for entry in &changes.put {
        db.prepare_cached(PUT)?.execute((entry.kind.as_str(), &entry.name, &entry.sql))?;
    }
    Ok(())
}

/// The schema in the user's own words, in the order in which it can be made again.
pub(super) fn entries(db: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut list = db.prepare(LIST)?;
    let mut rows = list.query([])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let kind: String = row.get(0)?;
        let Some(kind) = EntryKind::from_name(&kind) else { continue };
        entries.push(Entry { kind, name: row.get(1)?, sql: row.get(2)? });
    }
    Ok(entries)
}

/// The catalogue of the namespace whose file it is.
///
/// # Errors
/// What SQLite says; `internal` when the texts do not make a schema.
pub(in crate::embedded) fn load(db: &Connection, namespace: &Namespace) -> Result<Catalogue> {
    let entries = entries(db).map_err(crate::embedded::failure::of)?;
    Catalogue::load(namespace, &entries).map_err(|error| {
        tracing::error!(%error, "the schema that is kept of a namespace can not be read");
        Error::internal("the namespace's schema can not be read; the node's log has more")
    })
}
