//! Reads: one connection for each worker thread, used in the request's handler.

use super::json;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _};
use std::cell::RefCell;
use std::path::Path;

thread_local! {
    static CONNECTION: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

/// The outcome of a statement that was tried as a read.
pub(super) enum QueryAttempt {
    /// The result as JSON.
    Rows(Vec<u8>),
    /// It writes; the arguments are returned.
    Writes(Vec<Value>),
}

fn with_connection<T>(
    path: &Path,
    run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, String> {
    CONNECTION.with_borrow_mut(|slot| {
        let connection = match slot {
            Some(connection) => connection,
            None => slot.insert(super::open_database(path).map_err(|error| format!("{error:#}"))?),
        };
        run(connection).map_err(|error| error.to_string())
    })
}

/// The value of a key.
pub(super) fn get(path: &Path, key: &str) -> Result<Option<Vec<u8>>, String> {
    with_connection(path, |connection| {
        connection
            .prepare_cached("SELECT value FROM kv WHERE key = ?")?
            .query_row([key], |row| row.get(0))
            .optional()
    })
}

/// Runs a statement if it only reads.
pub(super) fn query(path: &Path, sql: &str, args: Vec<Value>) -> Result<QueryAttempt, String> {
    with_connection(path, |connection| {
        let mut statement = connection.prepare_cached(sql)?;
        if !statement.readonly() {
            return Ok(QueryAttempt::Writes(args));
        }
        json::rows(&mut statement, args).map(QueryAttempt::Rows)
    })
}
