//! Which entry of the log a file holds, written in the transaction that brings it there.

use rusqlite::{Connection, OptionalExtension as _};

/// Makes the table in a file of a node that is part of a cluster.
///
/// # Errors
/// SQLite's.
pub(in crate::embedded) fn prepare_position(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS _debros_position (id INTEGER PRIMARY KEY, entry INTEGER NOT NULL) STRICT",
    )
}

/// The last entry that the file holds; 0: none.
///
/// # Errors
/// SQLite's.
pub(in crate::embedded) fn read_position(db: &Connection) -> rusqlite::Result<u64> {
    let entry: Option<i64> = db
        .prepare_cached("/*debros*/ SELECT entry FROM main._debros_position WHERE id = 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(entry.and_then(|entry| u64::try_from(entry).ok()).unwrap_or(0))
}

/// Says which entry the file holds when the open transaction is committed.
///
/// # Errors
/// SQLite's.
pub(in crate::embedded) fn write_position(db: &Connection, entry: u64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "/*debros*/ INSERT INTO main._debros_position (id, entry) VALUES (1, ?1)
         ON CONFLICT (id) DO UPDATE SET entry = excluded.entry",
    )?
    .execute([i64::try_from(entry).unwrap_or(i64::MAX)])
    .map(|_| ())
}
