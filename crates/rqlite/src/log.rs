//! The log of `docs/CLUSTER.md`, in three tables of rqlite.
//!
//! Raft orders all that is written here. So what a statement finds of the term, and what it does
//! after it, cannot be apart: an entry of an earlier leader comes before the claim of the later one,
//! or never. And every statement can be sent again when its answer was lost.

mod append;
mod read;

pub use append::{AppendError, MAX_BATCH_BYTES, NewEntry};
pub use read::{Entry, ReadError};

use crate::client::{ClientError, ReadLevel, RqliteClient, Statement, StatementResult};
use serde_json::Value;
use std::time::Duration;

/// How long calls take at most that are given no other time: a leader that hangs is not waited for.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Rows that one statement of [`RqliteLog::trim`] deletes: each is applied by every node while
/// appends wait.
const TRIM_CHUNK: u64 = 500;

/// Who may append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The term; 0 before the first claim.
    pub term: u64,
    /// The node that claimed it; empty before the first claim.
    pub node: String,
}

/// The log, by way of the own `rqlited`.
#[derive(Clone, Debug)]
pub struct RqliteLog {
    client: RqliteClient,
    timeout: Duration,
}

impl RqliteLog {
    /// The log behind a client.
    pub fn new(client: RqliteClient) -> Self {
        Self { client, timeout: TIMEOUT }
    }

    /// The same log, with another time for the calls that take no deadline (2 s).
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The client behind it.
    pub fn client(&self) -> &RqliteClient {
        &self.client
    }

    /// Makes the tables, if they are not there.
    ///
    /// # Errors
    /// What the client says; it can be repeated after any.
    pub async fn create_tables(&self) -> Result<(), ClientError> {
        let statements = [
            "CREATE TABLE IF NOT EXISTS log (entry INTEGER PRIMARY KEY, term INTEGER NOT NULL, body TEXT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS leader (id INTEGER PRIMARY KEY CHECK (id = 1), term INTEGER NOT NULL, node TEXT NOT NULL)",
            "CREATE TABLE IF NOT EXISTS holders (node TEXT PRIMARY KEY, durable INTEGER NOT NULL)",
            "INSERT INTO leader (id, term, node) VALUES (1, 0, '') ON CONFLICT (id) DO NOTHING",
        ];
        let statements = statements.map(Statement::new);
        self.client.execute(&statements, self.timeout).await.map(|_| ())
    }

    /// Who may append now.
    ///
    /// # Errors
    /// What the client says.
    pub async fn leadership(&self, level: ReadLevel) -> Result<Leadership, ClientError> {
        let statement = Statement::new("SELECT term, node FROM leader WHERE id = 1");
        let result = self.client.query(&statement, level, self.timeout).await?;
        let row = result.values.first().ok_or_else(|| unexpected("there is no leader's row"))?;
        Ok(Leadership { term: number(row, 0)?, node: text(row, 1)?.to_owned() })
    }

    /// Claims the term after `expected_term` for `node`. `Some` is the new term; `None` when the
    /// term is another than expected, so that another node was first, or the caller knew an old one.
    ///
    /// After [`ClientError::Unknown`] call it again with the same arguments: a claim that was made
    /// after all is found, not made twice. `node` must not claim twice at the same time.
    ///
    /// # Errors
    /// What the client says.
    pub async fn claim(&self, node: &str, expected_term: u64) -> Result<Option<u64>, ClientError> {
        let statement = Statement::new(
            "UPDATE leader SET term = term + 1, node = ?1 WHERE id = 1 AND term = ?2 RETURNING term",
        )
        .bind(node)
        .bind(expected_term);
        let result = self.execute(statement).await?;
        if let Some(row) = result.values.first() {
            return number(row, 0).map(Some);
        }
        // The claim whose answer was lost, if it is ours. It may be, also when this read fails.
        let now = self.leadership(ReadLevel::Strong).await;
        let now = now.map_err(|error| ClientError::Unknown(error.to_string()))?;
        Ok((now.term == expected_term + 1 && now.node == node).then_some(now.term))
    }

    /// Says that `node` has all entries up to this one on its disk. Never lowers what it said
    /// before: a node that lost its files is [forgotten](Self::forget_holder) first.
    ///
    /// # Errors
    /// What the client says; it can be repeated after any.
    pub async fn report_durable(&self, node: &str, entry: u64) -> Result<(), ClientError> {
        let statement = Statement::new(
            "INSERT INTO holders (node, durable) VALUES (?1, ?2) \
             ON CONFLICT (node) DO UPDATE SET durable = max(durable, excluded.durable)",
        );
        self.execute(statement.bind(node).bind(entry)).await.map(|_| ())
    }

    /// The nodes that are waited for before entries are deleted, each with what it said last.
    ///
    /// # Errors
    /// What the client says.
    pub async fn holders(&self, level: ReadLevel) -> Result<Vec<(String, u64)>, ClientError> {
        let statement = Statement::new("SELECT node, durable FROM holders ORDER BY node");
        let result = self.client.query(&statement, level, self.timeout).await?;
        result.values.iter().map(|row| Ok((text(row, 0)?.to_owned(), number(row, 1)?))).collect()
    }

    /// Waits for a node no more. It needs a copy of the files when it returns.
    ///
    /// # Errors
    /// What the client says; it can be repeated after any.
    pub async fn forget_holder(&self, node: &str) -> Result<(), ClientError> {
        let statement = Statement::new("DELETE FROM holders WHERE node = ?1").bind(node);
        self.execute(statement).await.map(|_| ())
    }

    /// Deletes the entries up to `through`, and says how many. The newest entry stays in any case:
    /// it is what tells the number of the next one.
    ///
    /// # Errors
    /// What the client says; some may be deleted then, and it can be repeated.
    pub async fn trim(&self, through: u64) -> Result<u64, ClientError> {
        let mut deleted = 0;
        loop {
            let statement = Statement::new(
                "DELETE FROM log WHERE entry <= min(?1, (SELECT min(entry) FROM log) + ?2, \
                 (SELECT max(entry) FROM log) - 1)",
            );
            let result = self.execute(statement.bind(through).bind(TRIM_CHUNK - 1)).await?;
            deleted += result.rows_affected;
            if result.rows_affected < TRIM_CHUNK {
                return Ok(deleted);
            }
        }
    }

    async fn execute(&self, statement: Statement) -> Result<StatementResult, ClientError> {
        let mut results = self.client.execute(&[statement], self.timeout).await?;
        results.pop().ok_or_else(|| unexpected("there is no result"))
    }

    async fn query_number(&self, sql: &str, level: ReadLevel) -> Result<u64, ClientError> {
        let result = self.client.query(&Statement::new(sql), level, self.timeout).await?;
        let row = result.values.first().ok_or_else(|| unexpected("there is no row"))?;
        number(row, 0)
    }
}

fn number(row: &[Value], column: usize) -> Result<u64, ClientError> {
    row.get(column).and_then(Value::as_u64).ok_or_else(|| unexpected("a number is missing"))
}

fn text(row: &[Value], column: usize) -> Result<&str, ClientError> {
    row.get(column).and_then(Value::as_str).ok_or_else(|| unexpected("a text is missing"))
}

/// An answer of another form than the statement has.
fn unexpected(what: &str) -> ClientError {
    ClientError::Unknown(format!("in the answer {what}"))
}
