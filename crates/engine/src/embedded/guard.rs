//! Writes that happen once: the answer is kept in the same commit as the write, under the caller's idempotency key.

use super::conn::Conn;
use super::failure;
use crate::{Guard, Written};
use debros_proto::limits::IDEMPOTENCY_WINDOW_MS;
use debros_proto::rpc::{StatementResult, TransactionResponse};
use debros_proto::{Code, Error, Result, now_ms};
use prost::Message;
use rusqlite::OptionalExtension;

/// Makes the table in a namespace's database, when that is made. The system's database has it from a migration.
pub(super) const CREATE: &str = "/*debros*/ CREATE TABLE IF NOT EXISTS _debros_idempotency (
    ns TEXT NOT NULL, key TEXT NOT NULL, request_hash BLOB NOT NULL, answer BLOB NOT NULL, expires_at INTEGER NOT NULL,
    UNIQUE (ns, key)
)";
const FIND: &str = "/*debros*/ SELECT request_hash, answer FROM _debros_idempotency
    WHERE ns = ?1 AND key = ?2 AND expires_at > ?3";
const KEEP: &str = "/*debros*/ INSERT OR REPLACE INTO _debros_idempotency (ns, key, request_hash, answer, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5)";
const SWEEP: &str = "/*debros*/ DELETE FROM _debros_idempotency WHERE rowid IN
    (SELECT rowid FROM _debros_idempotency WHERE expires_at <= ?1 LIMIT 1000)";

const WIPE: &str = "/*debros*/ DELETE FROM _debros_idempotency WHERE rowid IN
    (SELECT rowid FROM _debros_idempotency WHERE ns = ?1 LIMIT 1000)";

/// Whose records: the file is a namespace's own, or the system's with the records of many namespaces.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    File,
    Named(debros_proto::Namespace),
}

impl Owner {
    fn name(&self) -> &str {
        match self {
            Owner::File => "",
            Owner::Named(namespace) => namespace.as_str(),
        }
    }
}

/// Runs `act` unless the guard's key is known, and keeps its answer. Inside a transaction, and a savepoint: what `act`
/// did must be undone when keeping the answer fails.
pub(super) fn once<M, T>(
    conn: &mut Conn,
    owner: &Owner,
    guard: Option<&Guard>,
    act: impl FnOnce(&mut Conn) -> Result<T>,
    to_message: impl FnOnce(&T) -> M,
    from_message: impl FnOnce(M) -> T,
) -> Result<Written<T>>
where
    M: Message + Default,
{
    let Some(guard) = guard else {
        return act(conn).map(|value| Written { value, replayed: false });
    };
    if let Some(answer) = find(conn, owner, guard)? {
        let message = M::decode(answer.as_slice()).map_err(|error| {
            tracing::error!(%error, "a kept answer can not be read");
            Error::internal("the answer kept for this idempotency key can not be read")
        })?;
        return Ok(Written { value: from_message(message), replayed: true });
    }
    let value = act(conn)?;
    let answer = to_message(&value).encode_to_vec();
    let expires_at = now_ms().saturating_add(IDEMPOTENCY_WINDOW_MS);
    conn.own(KEEP)
        .and_then(|mut keep| keep.execute((owner.name(), &guard.key, &guard.request_hash[..], answer, expires_at)))
        .map_err(failure::of)?;
    Ok(Written { value, replayed: false })
}

/// One statement, once, in a file of the statement's own database.
pub(super) fn statement_once(
    conn: &mut Conn,
    guard: Option<&Guard>,
    act: impl FnOnce(&mut Conn) -> Result<StatementResult>,
) -> Result<Written<StatementResult>> {
    once(conn, &Owner::File, guard, act, StatementResult::clone, |result| result)
}

/// Several statements, once, in a file of their own database.
pub(super) fn statements_once(
    conn: &mut Conn,
    guard: Option<&Guard>,
    act: impl FnOnce(&mut Conn) -> Result<Vec<StatementResult>>,
) -> Result<Written<Vec<StatementResult>>> {
    let to_message = |results: &Vec<StatementResult>| TransactionResponse { results: results.clone() };
    once(conn, &Owner::File, guard, act, to_message, |response| response.results)
}

fn find(conn: &Conn, owner: &Owner, guard: &Guard) -> Result<Option<Vec<u8>>> {
    let known: Option<(Vec<u8>, Vec<u8>)> = conn
        .own(FIND)
        .and_then(|mut find| {
            find.query_row((owner.name(), &guard.key, now_ms()), |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(failure::of)?;
    match known {
        Some((hash, _)) if hash != guard.request_hash => Err(Error::new(
            Code::IdempotencyMismatch,
            "the idempotency key was used before with another request: use a new key for each request",
        )),
        known => Ok(known.map(|(_, answer)| answer)),
    }
}

/// Deletes up to 1,000 of a namespace's records in the system's file. Returns how many.
pub(super) fn wipe(conn: &Conn, namespace: &debros_proto::Namespace) -> rusqlite::Result<usize> {
    conn.own(WIPE)?.execute([namespace.as_str()])
}

/// Deletes up to 1,000 records that have expired. Returns how many.
pub(super) fn sweep(conn: &Conn, now_ms: i64) -> rusqlite::Result<usize> {
    conn.own(SWEEP)?.execute([now_ms])
}
