//! SQL, backups and exports.

use super::{ServiceReply, parse_consistency};
use crate::auth::AuthService;
use crate::caller::{Caller, Permission};
use bytes::Bytes;
use debros_engine::{CallOptions, Engine, TargetDatabase};
use debros_p2p::EventSource;
use debros_proto::rpc::{self, Event, Statement, event, response};
use debros_proto::{Code, Error, Result, limits, sql};
use futures::StreamExt as _;
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

/// Bytes of a file in one event.
const CHUNK_BYTES: usize = 256 << 10;
/// Progress events that may wait for a slow reader; more are left out.
const WAITING_EVENTS: usize = 8;

pub(super) async fn query(
    engine: &dyn Engine,
    caller: &Caller,
    request: rpc::QueryRequest,
    mut options: CallOptions,
) -> Result<ServiceReply> {
    let statement =
        request.statement.ok_or_else(|| Error::invalid("the query has no statement"))?;
    options.consistency = parse_consistency(request.consistency)?;
    // Only SQLite knows whether a statement writes, so the engine checks the permission to write.
    options.read_only = !caller.may(Permission::DbWrite);
    let written = engine.query(&database_of(caller)?, statement, options).await?;
    Ok(ServiceReply::from_write(written, |result| {
        response::Result::Query(rpc::QueryResponse { result: Some(result) })
    }))
}

pub(super) async fn transaction(
    engine: &dyn Engine,
    caller: &Caller,
    request: rpc::TransactionRequest,
    options: CallOptions,
) -> Result<ServiceReply> {
    if request.statements.is_empty() {
        return Err(Error::invalid("the transaction has no statements"));
    }
    let written = engine.transaction(&database_of(caller)?, request.statements, options).await?;
    Ok(ServiceReply::from_write(written, |results| {
        response::Result::Transaction(rpc::TransactionResponse { results })
    }))
}

pub(super) async fn create_table(
    engine: &dyn Engine,
    caller: &Caller,
    request: rpc::CreateTableRequest,
    options: CallOptions,
) -> Result<ServiceReply> {
    if request.schema.len() > limits::MAX_SQL_BYTES {
        let message = format!("the schema has more than {} bytes", limits::MAX_SQL_BYTES);
        return Err(Error::new(Code::SqlTooLong, message));
    }
    let pieces = sql::split(&request.schema)?;
    if pieces.is_empty() {
        return Err(Error::invalid(
            "the schema is empty: it takes CREATE TABLE, INDEX, VIEW and TRIGGER statements",
        ));
    }
    for (index, piece) in pieces.iter().enumerate() {
        if !is_create_statement(piece.text) {
            let message = format!(
                "line {}: only CREATE TABLE, INDEX, VIEW and TRIGGER statements make a schema; send others as a transaction",
                piece.line
            );
            return Err(Error::new(Code::StatementNotAllowed, message).at_statement(index));
        }
    }
    let statements = pieces.into_iter().map(|piece| Statement::from(piece.text)).collect();
    let written = engine.transaction(&database_of(caller)?, statements, options).await?;
    Ok(ServiceReply::from_write(written, |_| {
        response::Result::CreateTable(rpc::CreateTableResponse {})
    }))
}

pub(super) async fn drop_table(
    engine: &dyn Engine,
    caller: &Caller,
    request: rpc::DropTableRequest,
    options: CallOptions,
) -> Result<ServiceReply> {
    if request.table.is_empty() || request.table.contains('\0') {
        return Err(Error::invalid("the table's name is empty or holds a NUL character"));
    }
    // The name is quoted, so that whatever stands in it is a name and nothing else.
    let drop = format!("DROP TABLE \"{}\"", request.table.replace('"', "\"\""));
    match engine.query(&database_of(caller)?, drop.into(), options).await {
        Ok(written) => Ok(ServiceReply::from_write(written, |_| {
            response::Result::DropTable(rpc::DropTableResponse {})
        })),
        Err(error) if error.code == Code::Sql && error.message.contains("no such table") => {
            let shown = debros_proto::ids::excerpt(&request.table);
            Err(Error::new(Code::NotFound, format!("there is no table \"{shown}\"")))
        }
        Err(error) => Err(error),
    }
}

pub(super) async fn schema(
    engine: &dyn Engine,
    caller: &Caller,
    options: CallOptions,
) -> Result<ServiceReply> {
    let tables = engine.schema(caller.namespace()?, options).await?;
    Ok(response::Result::Schema(rpc::SchemaResponse { tables }).into())
}

pub(super) async fn list_backups(engine: &dyn Engine) -> Result<ServiceReply> {
    let backups = engine.backups().await?.into_iter().map(backup_message).collect();
    Ok(response::Result::ListBackups(rpc::ListBackupsResponse { backups }).into())
}

pub(super) fn backup(engine: Arc<dyn Engine>, caller: &Caller) -> ServiceReply {
    let by = caller.identity().subject.clone();
    long_operation(|events| async move {
        let made = engine.backup(progress_to(events)).await?;
        tracing::info!(name = made.name, size = made.size, by, "a backup was made and verified");
        Ok(rpc::Done { checksum: made.checksum.clone(), backup: Some(backup_message(made)) })
    })
}

pub(super) fn restore(
    engine: Arc<dyn Engine>,
    auth: Arc<AuthService>,
    caller: &Caller,
    name: String,
) -> ServiceReply {
    let by = caller.identity().subject.clone();
    long_operation(|events| async move {
        tracing::info!(name = debros_proto::ids::excerpt(&name), by, "a restore begins");
        let restored = engine.restore(&name, progress_to(events)).await;
        // Also when it failed: it may have failed late, and no row from before may stay cached.
        let learned = auth.reload_after_restore().await;
        restored.and(learned)?;
        tracing::info!(name, by, "the backup was put back");
        Ok(rpc::Done::default())
    })
}

pub(super) async fn export(engine: &dyn Engine, caller: &Caller) -> Result<ServiceReply> {
    let file = engine.export(caller.namespace()?).await?;
    let reader = tokio::fs::File::open(&file.path).await.map_err(|error| {
        tracing::error!(%error, path = %file.path.display(), "the exported file cannot be read");
        Error::internal("the exported file cannot be read")
    })?;
    // The stream owns the file: it is deleted when the last chunk was sent, or when the caller
    // cancels.
    let chunks = futures::stream::try_unfold(
        (reader, file, false),
        |(mut reader, file, done)| async move {
            if done {
                return Ok(None);
            }
            let mut chunk = vec![0; CHUNK_BYTES];
            let length = reader.read(&mut chunk).await.map_err(|error| {
            tracing::error!(%error, path = %file.path.display(), "the exported file cannot be read");
            Error::internal("the exported file cannot be read")
        })?;
            chunk.truncate(length);
            let kind = if length == 0 {
                event::Kind::Done(rpc::Done { checksum: file.checksum.clone(), backup: None })
            } else {
                event::Kind::Chunk(Bytes::from(chunk))
            };
            Ok(Some((Event { kind: Some(kind) }, (reader, file, length == 0))))
        },
    );
    Ok(stream_reply(Box::pin(chunks)))
}

fn database_of(caller: &Caller) -> Result<TargetDatabase> {
    Ok(TargetDatabase::Namespace(caller.namespace()?.clone()))
}

fn is_create_statement(statement: &str) -> bool {
    let words = sql::leading_words(statement, 3);
    let mut words = words.iter().map(String::as_str);
    let made = match (words.next(), words.next()) {
        (Some("CREATE"), Some("UNIQUE" | "VIRTUAL")) => words.next(),
        (Some("CREATE"), second) => second,
        _ => None,
    };
    matches!(made, Some("TABLE" | "INDEX" | "VIEW" | "TRIGGER"))
}

fn backup_message(info: debros_engine::BackupInfo) -> rpc::Backup {
    rpc::Backup {
        name: info.name,
        created_at: info.created_at,
        size: info.size,
        checksum: info.checksum,
        missing: info.missing.iter().map(ToString::to_string).collect(),
    }
}

fn stream_reply(events: EventSource) -> ServiceReply {
    ServiceReply::Stream { result: response::Result::StreamOpened(rpc::StreamOpened {}), events }
}

/// Runs an operation beside the stream of its progress: it goes on when the caller cancels, because
/// half a backup or restore is of no use.
fn long_operation<F, O>(operation: F) -> ServiceReply
where
    F: FnOnce(mpsc::Sender<Result<Event>>) -> O + Send + 'static,
    O: Future<Output = Result<rpc::Done>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
    tokio::spawn(async move {
        let outcome = operation(sender.clone()).await;
        if let Err(error) = &outcome {
            tracing::warn!(code = %error.code, error = %error.message, "a backup or restore failed");
        }
        let last = outcome.map(|done| Event { kind: Some(event::Kind::Done(done)) });
        // The caller may have left; the operation's outcome is in the log.
        let _ = sender.send(last).await;
    });
    stream_reply(Box::pin(
        futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|event| (event, receiver))
        })
        .fuse(),
    ))
}

fn progress_to(events: mpsc::Sender<Result<Event>>) -> debros_engine::ProgressFn {
    Box::new(move |done, total| {
        let progress = Event { kind: Some(event::Kind::Progress(rpc::Progress { done, total })) };
        // A reader that is behind does not need every step.
        let _ = events.try_send(Ok(progress));
    })
}

#[cfg(test)]
mod tests {
    use super::is_create_statement;

    #[test]
    fn only_create_statements_make_a_schema() {
        for good in [
            "CREATE TABLE t(a)",
            "create unique index i on t(a)",
            "/* x */ CREATE VIEW v AS SELECT 1",
            "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END",
            "CREATE VIRTUAL TABLE f USING fts5(a)",
        ] {
            assert!(is_create_statement(good), "{good}");
        }
        for bad in [
            "SELECT 1",
            "DROP TABLE t",
            "CREATE",
            "CREATE TEMP TABLE t(a)",
            "ATTACH 'x' AS y",
            "WITH a AS (SELECT 1) SELECT 1",
        ] {
            assert!(!is_create_statement(bad), "{bad}");
        }
    }
}
