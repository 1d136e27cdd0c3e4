//! The one writer: takes the waiting writes into one transaction, commits, and then acknowledges
//! all of them.

use anyhow::Result;
use axum::body::Bytes;
use rusqlite::{Connection, types::Value};
use std::path::Path;
use std::sync::mpsc;
use tokio::sync::oneshot;

/// Writes that one transaction takes at most.
const BATCH: usize = 1024;

/// A write and its waiting caller.
pub(super) enum QueuedWrite {
    Put { key: String, value: Bytes, reply: oneshot::Sender<Result<(), String>> },
    Sql { sql: String, args: Vec<Value>, reply: oneshot::Sender<Result<ChangeCounts, String>> },
}

/// What a statement changed.
#[derive(Debug)]
pub(super) struct ChangeCounts {
    pub(super) rows_affected: usize,
    pub(super) last_insert_id: i64,
}

/// An acknowledgement that waits for the commit.
enum PendingAck {
    Put(oneshot::Sender<Result<(), String>>, Result<(), String>),
    Sql(oneshot::Sender<Result<ChangeCounts, String>>, Result<ChangeCounts, String>),
}

impl PendingAck {
    fn send(self, commit: Result<(), String>) {
        // If the caller has left, nobody receives it, and that is fine.
        match self {
            PendingAck::Put(reply, result) => drop(reply.send(commit.and(result))),
            PendingAck::Sql(reply, result) => drop(reply.send(commit.and(result))),
        }
    }
}

/// Creates the table and starts the thread.
pub(super) fn start(path: &Path) -> Result<mpsc::Sender<QueuedWrite>> {
    let connection = super::open_database(path)?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    )?;
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("writer".into()).spawn(move || run(&connection, &receiver))?;
    Ok(sender)
}

fn run(connection: &Connection, queue: &mpsc::Receiver<QueuedWrite>) {
    let mut acknowledgements = Vec::with_capacity(BATCH);
    while let Ok(first) = queue.recv() {
        let commit = run_batch(connection, first, queue, &mut acknowledgements)
            .map_err(|error| error.to_string());
        for acknowledgement in acknowledgements.drain(..) {
            acknowledgement.send(commit.clone());
        }
        if commit.is_err() && !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
    }
}

fn run_batch(
    connection: &Connection,
    first: QueuedWrite,
    queue: &mpsc::Receiver<QueuedWrite>,
    acknowledgements: &mut Vec<PendingAck>,
) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    acknowledgements.push(apply_write(connection, first));
    while acknowledgements.len() < BATCH
        && let Ok(write) = queue.try_recv()
    {
        acknowledgements.push(apply_write(connection, write));
    }
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

/// Applies one write. A failing write does not affect the others of its batch: SQLite undoes the
/// single statement.
fn apply_write(connection: &Connection, write: QueuedWrite) -> PendingAck {
    match write {
        QueuedWrite::Put { key, value, reply } => {
            let put = || -> rusqlite::Result<()> {
                let sql = "INSERT INTO kv (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value";
                connection.prepare_cached(sql)?.execute((&key, value.as_ref()))?;
                Ok(())
            };
            PendingAck::Put(reply, put().map_err(|error| error.to_string()))
        }
        QueuedWrite::Sql { sql, args, reply } => {
            let execute = || -> rusqlite::Result<ChangeCounts> {
                let rows_affected =
                    connection.prepare_cached(&sql)?.execute(rusqlite::params_from_iter(args))?;
                Ok(ChangeCounts { rows_affected, last_insert_id: connection.last_insert_rowid() })
            };
            PendingAck::Sql(reply, execute().map_err(|error| error.to_string()))
        }
    }
}
