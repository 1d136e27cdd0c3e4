//! What the leader does for another node.

use crate::database_name::{database_of, namespace_of};
use crate::errors::not_leader_error;
use crate::progress::Progress;
use debros_engine::embedded::EmbeddedEngine;
use debros_engine::{CallOptions, CallerKey, Engine as _, IdempotencyKey};
use debros_proto::rpc::leader_write_request::Write;
use debros_proto::rpc::leader_write_response::Result as Answer;
use debros_proto::rpc::{
    Consistency, DeleteResponse, LeaderWriteRequest, LeaderWriteResponse, PutResponse,
    TransactionResponse,
};
use debros_proto::{Code, Error, Key, Result};
use std::time::Instant;

/// Does a write that another node passed on.
///
/// # Errors
/// `not_leader`; the write's own.
pub(crate) async fn serve_write(
    engine: &EmbeddedEngine,
    progress: &Progress,
    request: LeaderWriteRequest,
    deadline: Instant,
) -> Result<LeaderWriteResponse> {
    if !progress.is_leader() {
        return Err(not_leader_error());
    }
    let LeaderWriteRequest {
        namespace,
        key_namespace,
        key,
        request_hash,
        caller,
        read_only,
        write,
    } = request;
    let idempotency_key = if key_namespace.is_empty() {
        None
    } else {
        let request_hash = request_hash[..].try_into();
        Some(IdempotencyKey {
            namespace: namespace_of(&key_namespace)?,
            key,
            request_hash: request_hash.map_err(|_| malformed("the hash has not 32 bytes"))?,
        })
    };
    let options = CallOptions {
        consistency: Consistency::Weak,
        deadline,
        idempotency_key,
        caller: CallerKey(caller),
        read_only,
    };
    let database = database_of(&namespace)?;
    let (replayed, result) = match write.ok_or_else(|| malformed("it names no write"))? {
        Write::Query(query) => {
            let statement = query.statement.unwrap_or_default();
            let done = engine.query(&database, statement, options).await?;
            (done.replayed, Answer::Query(done.value))
        }
        Write::Transaction(transaction) => {
            let done = engine.transaction(&database, transaction.statements, options).await?;
            (done.replayed, Answer::Transaction(TransactionResponse { results: done.value }))
        }
        Write::Put(put) => {
            let (namespace, key) = (namespace_of(&namespace)?, Key::new(&put.key)?);
            let (condition, size) = (put.condition.unwrap_or_default(), put.value.len() as u64);
            let done = engine
                .kv_put(&namespace, &key, put.value, condition, put.ttl_seconds, options)
                .await?;
            (done.replayed, Answer::Put(PutResponse { version: done.value, size }))
        }
        Write::Delete(delete) => {
            let (namespace, key) = (namespace_of(&namespace)?, Key::new(&delete.key)?);
            let condition = delete.condition.unwrap_or_default();
            let done = engine.kv_delete(&namespace, &key, condition, options).await?;
            (done.replayed, Answer::Delete(DeleteResponse { deleted: done.value }))
        }
        Write::DeleteNamespace(also) => {
            engine.delete_namespace(&namespace_of(&namespace)?, also.statements, deadline).await?;
            (false, Answer::DeletedNamespace(true))
        }
    };
    Ok(LeaderWriteResponse { replayed, position: progress.head(), result: Some(result) })
}

fn malformed(what: &str) -> Error {
    Error::new(Code::Malformed, format!("the write that a node passed on is malformed: {what}"))
}
