//! The connection's counters, `last_insert_rowid()` and `changes()`: set to the values that the
//! caller's own statements have left.
//!
//! Statements call SQLite's own functions, because their values change from row to row and in
//! triggers. But many callers use the connection, and the engine itself does too. So before a
//! statement that reads them, the counters are set to the values of a connection of the caller's
//! own.

use rusqlite::Connection;

/// Rows are inserted here for their effect on the counters. The table belongs to the connection and
/// is no part of any file.
const TABLE: &str = "CREATE TEMP TABLE IF NOT EXISTS _debros_counters (id INTEGER PRIMARY KEY)";

/// The last inserted row is `?1`, and `?2` rows were changed, at least one: each insertion replaces
/// the row before, so that the table never has more than one.
const INSERT: &str =
    "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
    INSERT OR REPLACE INTO temp._debros_counters (id) SELECT ?1 FROM n";

/// Sets `changes()` to 0 and leaves `last_insert_rowid()`: a DELETE that finds no row.
const NO_CHANGES: &str = "DELETE FROM temp._debros_counters WHERE 0";

/// The values of `last_insert_rowid()` and `changes()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounters {
    /// The rowid of the last row that a statement inserted, 0 when none did.
    pub last_insert_rowid: i64,
    /// How many rows the last INSERT, UPDATE or DELETE changed, 0 when there was none.
    pub changes: u64,
}

impl ConnectionCounters {
    /// The counters of a connection.
    pub fn of(db: &Connection) -> Self {
        Self { last_insert_rowid: db.last_insert_rowid(), changes: db.changes() }
    }
}

/// Sets the counters of a writing connection to these values, with the authorizer off. Takes time
/// with the number of changed rows, a microsecond or so for each, which are no more than the
/// caller's last statement changed.
///
/// # Errors
/// SQLite's error.
pub fn restore_counters(db: &Connection, counters: ConnectionCounters) -> rusqlite::Result<()> {
    if ConnectionCounters::of(db) == counters {
        return Ok(());
    }
    db.execute_batch(TABLE)?;
    let changes = i64::try_from(counters.changes).unwrap_or(i64::MAX);
    db.prepare_cached(INSERT)?.execute([counters.last_insert_rowid, changes])?;
    if changes == 0 {
        db.prepare_cached(NO_CHANGES)?.execute([])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{ConnectionCounters, restore_counters};

    #[test]
    fn a_connections_counters_can_be_set_to_any_values() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2), (3)").unwrap();
        for (last_insert_rowid, changes) in
            [(0, 0), (7, 1), (7, 0), (-5, 3), (i64::MAX, 1000), (i64::MIN, 0), (0, 2)]
        {
            let counters = ConnectionCounters { last_insert_rowid, changes };
            restore_counters(&db, counters).unwrap();
            assert_eq!(ConnectionCounters::of(&db), counters);
            let asked: (i64, i64) = db
                .query_row("SELECT last_insert_rowid(), changes()", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .unwrap();
            assert_eq!(asked, (last_insert_rowid, i64::try_from(changes).unwrap()));
        }
    }
}
