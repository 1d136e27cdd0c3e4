//! Writes that happen once: the answer is kept in the same commit as the write, under the caller's
//! idempotency key.
//!
//! A key is one in its namespace, whatever it comes with, but its record has to be in the file of
//! its write. So a call with a key holds it (`key_locks.rs`) and looks into the other file before
//! the write begins.

use super::conn::SqliteConnection;
use super::counted_rows::delete_counted_rows;
use super::size_accounting::SystemUsage;
use super::writer_conn::WriterConnection;
use super::{error_mapping, usage_ledger};
use crate::{IdempotencyKey, WriteOutcome};
use debros_proto::limits::IDEMPOTENCY_WINDOW_MS;
use debros_proto::rpc::{StatementResult, TransactionResponse};
use debros_proto::{Code, Error, Namespace, Result, now_ms};
use prost::Message;
use rusqlite::OptionalExtension;

/// Makes the table in a namespace's database, when that is made. The system's database has it from
/// a migration.
pub(super) const CREATE: &str = "/*debros*/ CREATE TABLE IF NOT EXISTS _debros_idempotency (
    ns TEXT NOT NULL, key TEXT NOT NULL, request_hash BLOB NOT NULL, answer BLOB NOT NULL, expires_at INTEGER NOT NULL,
    UNIQUE (ns, key)
)";
const FIND: &str = "/*debros*/ SELECT request_hash, answer, expires_at FROM _debros_idempotency
    WHERE ns = ?1 AND key = ?2";
const IS_KEPT: &str = "/*debros*/ SELECT EXISTS (SELECT 1 FROM _debros_idempotency
    WHERE ns = ?1 AND key = ?2 AND expires_at > ?3)";
const KEEP: &str = "/*debros*/ INSERT OR REPLACE INTO _debros_idempotency (ns, key, request_hash, answer, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5)";
const EXPIRED: &str =
    "/*debros*/ SELECT rowid, ns, octet_length(key), octet_length(answer) FROM _debros_idempotency
    WHERE expires_at <= ?1 LIMIT 1000";
const ALL: &str =
    "/*debros*/ SELECT rowid, ns, octet_length(key), octet_length(answer) FROM _debros_idempotency
    WHERE ns = ?1 LIMIT 1000";
const DELETE: &str = "/*debros*/ DELETE FROM _debros_idempotency WHERE rowid = ?1";

/// In which file a write is, and so the record of its key.
#[derive(Clone, Copy, Debug)]
pub(super) enum RecordFile {
    /// The system's, with the records of many namespaces.
    System,
    /// A namespace's own.
    Namespace,
}

impl RecordFile {
    /// Whose record it is in that file.
    fn record_namespace(self, idempotency_key: &IdempotencyKey) -> &str {
        match self {
            RecordFile::System => idempotency_key.namespace.as_str(),
            RecordFile::Namespace => "",
        }
    }
}

/// Runs `act` unless the key is known, and keeps its answer. Inside a transaction, and a savepoint:
/// what `act` did must be undone when keeping the answer fails.
pub(super) fn run_once<M, T>(
    conn: &mut WriterConnection,
    target: RecordFile,
    idempotency_key: Option<&IdempotencyKey>,
    act: impl FnOnce(&mut WriterConnection) -> Result<T>,
    to_message: impl FnOnce(&T) -> M,
    from_message: impl FnOnce(M) -> T,
) -> Result<WriteOutcome<T>>
where
    M: Message + Default,
{
    let Some(idempotency_key) = idempotency_key else {
        return act(conn).map(|value| WriteOutcome { value, replayed: false });
    };
    let (answer, expired) = find_record(conn, target, idempotency_key)?;
    if let Some(answer) = answer {
        let message = M::decode(answer.as_slice()).map_err(|error| {
            tracing::error!(%error, "a kept answer cannot be read");
            Error::internal("the answer kept for this idempotency key cannot be read")
        })?;
        return Ok(WriteOutcome { value: from_message(message), replayed: true });
    }
    let before = conn.db.total_changes();
    let value = act(conn)?;
    // Room that is kept for deletes is not for records of what deleted nothing: there would be no
    // end of them.
    if conn.reserve_use.has_reserve() && conn.db.total_changes() == before {
        return Err(Error::new(Code::DatabaseFull, "there is no room for an idempotency record"));
    }
    let answer = to_message(&value).encode_to_vec();
    if let Some(ledger) = &conn.ledger {
        let mut change = usage_ledger::record_usage(
            target.record_namespace(idempotency_key),
            idempotency_key.key.len(),
            answer.len(),
        );
        if let Some(expired) = expired {
            change += -expired;
        }
        ledger.record_change(&idempotency_key.namespace, change, conn.reserve_use.has_reserve())?;
    }
    let expires_at = now_ms().saturating_add(IDEMPOTENCY_WINDOW_MS);
    conn.prepare_internal(KEEP)
        .and_then(|mut keep| {
            keep.execute((
                target.record_namespace(idempotency_key),
                &idempotency_key.key,
                &idempotency_key.request_hash[..],
                answer,
                expires_at,
            ))
        })
        .map_err(error_mapping::map_sqlite_error)?;
    Ok(WriteOutcome { value, replayed: false })
}

/// One statement, once.
pub(super) fn run_statement_once(
    conn: &mut WriterConnection,
    target: RecordFile,
    idempotency_key: Option<&IdempotencyKey>,
    act: impl FnOnce(&mut WriterConnection) -> Result<StatementResult>,
) -> Result<WriteOutcome<StatementResult>> {
    run_once(conn, target, idempotency_key, act, StatementResult::clone, |result| result)
}

/// Several statements, once.
pub(super) fn run_statements_once(
    conn: &mut WriterConnection,
    target: RecordFile,
    idempotency_key: Option<&IdempotencyKey>,
    act: impl FnOnce(&mut WriterConnection) -> Result<Vec<StatementResult>>,
) -> Result<WriteOutcome<Vec<StatementResult>>> {
    let to_message =
        |results: &Vec<StatementResult>| TransactionResponse { results: results.clone() };
    run_once(conn, target, idempotency_key, act, to_message, |response| response.results)
}

/// The answer that is kept, or what the record of one that has expired counts for.
fn find_record(
    conn: &SqliteConnection,
    target: RecordFile,
    idempotency_key: &IdempotencyKey,
) -> Result<(Option<Vec<u8>>, Option<SystemUsage>)> {
    let known: Option<(Vec<u8>, Vec<u8>, i64)> = conn
        .prepare_internal(FIND)
        .and_then(|mut find| {
            find.query_row(
                (target.record_namespace(idempotency_key), &idempotency_key.key),
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .optional()
        })
        .map_err(error_mapping::map_sqlite_error)?;
    match known {
        None => Ok((None, None)),
        Some((_, answer, expires_at)) if expires_at <= now_ms() => Ok((
            None,
            Some(usage_ledger::record_usage(
                target.record_namespace(idempotency_key),
                idempotency_key.key.len(),
                answer.len(),
            )),
        )),
        Some((hash, _, _)) if hash != idempotency_key.request_hash => Err(mismatch_error()),
        Some((_, answer, _)) => Ok((Some(answer), None)),
    }
}

/// Refuses a key that is kept in this file, which is not that of the write it comes with now: it
/// came with another before.
pub(super) fn check_key_unused(
    conn: &SqliteConnection,
    target: RecordFile,
    idempotency_key: &IdempotencyKey,
) -> Result<()> {
    let is_kept: bool = conn
        .prepare_internal(IS_KEPT)
        .and_then(|mut find| {
            find.query_row(
                (target.record_namespace(idempotency_key), &idempotency_key.key, now_ms()),
                |row| row.get(0),
            )
        })
        .map_err(error_mapping::map_sqlite_error)?;
    if is_kept { Err(mismatch_error()) } else { Ok(()) }
}

fn mismatch_error() -> Error {
    Error::new(
        Code::IdempotencyMismatch,
        "the idempotency key was used before with another request: use a new key for each request",
    )
}

/// Deletes up to 1,000 of a namespace's records in the system's file. Returns how many.
pub(super) fn delete_chunk(conn: &WriterConnection, namespace: &Namespace) -> Result<usize> {
    delete_counted_rows(conn, ALL, [namespace.as_str()], DELETE, usage_ledger::record_usage)
}

/// Deletes up to 1,000 records that have expired. Returns how many.
pub(super) fn sweep_expired(conn: &WriterConnection, now_ms: i64) -> Result<usize> {
    delete_counted_rows(conn, EXPIRED, [now_ms], DELETE, usage_ledger::record_usage)
}
