//! FTS4 indexes that merge by themselves. They do so while a COMMIT is under way, which is too late
//! for the log, so in a cluster the setting is taken back as soon as it is made. An index merges
//! all the same when a level of it has 16 segments.

use debros_row_capture::{RowEvent, RowOperation};
use rusqlite::{Connection, OptionalExtension as _};

/// The end of the name of the table that holds the setting.
const STAT_TABLE: &str = "_stat";
/// The setting's row.
const SETTING: i64 = 2;

/// The full-text index, if it is one, whose setting an event writes.
pub(super) fn index_of_setting<'e>(event: &RowEvent<'e>) -> Option<&'e str> {
    let writes = event.operation != RowOperation::Delete && event.new_rowid == SETTING;
    if writes { event.table.strip_suffix(STAT_TABLE) } else { None }
}

/// The indexes of a file that have the setting.
///
/// # Errors
/// SQLite's.
pub(super) fn indexes_with_setting(db: &Connection) -> rusqlite::Result<Vec<String>> {
    let all = "/*debros*/ SELECT name FROM main.sqlite_schema WHERE sql LIKE 'CREATE VIRTUAL TABLE%fts4%'";
    let names: Vec<String> =
        db.prepare(all)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut found = Vec::new();
    for name in names {
        let stat = quote(&format!("{name}{STAT_TABLE}"));
        let value = format!("SELECT value FROM main.{stat} WHERE id = {SETTING} AND value <> 0");
        // Other modules have the word in their arguments, and no such table.
        let is_set = db.prepare(&value).and_then(|mut value| value.exists([]));
        if is_set.unwrap_or(false) {
            found.push(name);
        }
    }
    Ok(found)
}

/// Takes the setting of an index back, in the file and in the connection's memory, which no
/// ROLLBACK changes. Does nothing where the name is another table's.
///
/// # Errors
/// SQLite's.
pub(super) fn turn_off(db: &Connection, index: &str) -> rusqlite::Result<()> {
    let is_index = "/*debros*/ SELECT 1 FROM main.sqlite_schema
        WHERE name = ?1 AND (sql LIKE 'CREATE VIRTUAL TABLE%fts4%' OR sql LIKE 'CREATE VIRTUAL TABLE%fts3%')";
    let found = db.prepare(is_index)?.query_row([index], |_| Ok(())).optional()?;
    if found.is_none() {
        return Ok(());
    }
    let name = quote(index);
    db.execute(&format!("INSERT INTO main.{name}({name}) VALUES ('automerge=0')"), []).map(|_| ())
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
