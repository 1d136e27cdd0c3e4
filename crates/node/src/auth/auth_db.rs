//! The database behind authentication, and what all of its parts are set up with.

use super::deleting_namespaces::DeletingNamespaces;
use crate::clock::Clock;
use debros_auth::Wallet;
use debros_engine::{CallOptions, CallerKey, Engine, TargetDatabase};
use debros_proto::rpc::{Consistency, Row, Statement, StatementResult, Value};
use debros_proto::{Namespace, Result};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one read or one write may wait for the database.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Shared by all parts of the service.
pub(crate) struct AuthDb {
    pub(super) engine: Arc<dyn Engine>,
    pub(crate) clock: Clock,
    /// Namespaces in which every verified wallet is a writer.
    open_namespaces: HashSet<Namespace>,
    /// Wallets that may run the node.
    admin_wallets: HashSet<Wallet>,
    /// Other nodes serve the same database, and have verified credentials of their own.
    pub(super) is_shared: bool,
    /// Namespaces that are being deleted.
    pub(super) deleting: DeletingNamespaces,
}

impl AuthDb {
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        clock: Clock,
        open: impl IntoIterator<Item = Namespace>,
        admins: impl IntoIterator<Item = Wallet>,
    ) -> Self {
        let (open, admins) = (open.into_iter().collect(), admins.into_iter().collect());
        Self {
            engine,
            clock,
            open_namespaces: open,
            admin_wallets: admins,
            is_shared: false,
            deleting: DeletingNamespaces::default(),
        }
    }

    /// Says whether other nodes serve the same database.
    pub(crate) fn shared(self, is_shared: bool) -> Self {
        Self { is_shared, ..self }
    }

    /// Whether every verified wallet may act in the namespace.
    pub(crate) fn is_open(&self, namespace: &Namespace) -> bool {
        self.open_namespaces.contains(namespace)
    }

    /// Whether the wallet may run the node.
    pub(crate) fn is_admin(&self, wallet: Wallet) -> bool {
        self.admin_wallets.contains(&wallet)
    }

    /// Runs one statement that reads.
    pub(crate) async fn query_rows(&self, statement: Statement) -> Result<Vec<Row>> {
        Ok(self.engine.query(&TargetDatabase::System, statement, call_options()).await?.value.rows)
    }

    /// Runs statements, all or none.
    pub(crate) async fn run_transaction(
        &self,
        statements: Vec<Statement>,
    ) -> Result<Vec<StatementResult>> {
        Ok(self
            .engine
            .transaction(&TargetDatabase::System, statements, call_options())
            .await?
            .value)
    }
}

pub(super) fn call_options() -> CallOptions {
    CallOptions {
        consistency: Consistency::Weak,
        deadline: Instant::now() + TIMEOUT,
        idempotency_key: None,
        caller: CallerKey::default(),
        read_only: false,
    }
}

/// A part of a statement that is true or not, with its arguments in order.
#[derive(Clone, Debug)]
pub(super) struct SqlCondition {
    pub(super) sql: String,
    pub(super) args: Vec<Value>,
}

impl SqlCondition {
    pub(super) fn new(sql: impl Into<String>, args: impl IntoIterator<Item = Value>) -> Self {
        Self { sql: sql.into(), args: args.into_iter().collect() }
    }

    pub(super) fn always() -> Self {
        Self::new("1", [])
    }

    pub(super) fn never() -> Self {
        Self::new("0", [])
    }

    pub(super) fn and(mut self, other: SqlCondition) -> Self {
        self.sql = format!("({}) AND ({})", self.sql, other.sql);
        self.args.extend(other.args);
        self
    }

    pub(super) fn not(mut self) -> Self {
        self.sql = format!("NOT ({})", self.sql);
        self
    }

    pub(super) fn or(mut self, other: SqlCondition) -> Self {
        self.sql = format!("({}) OR ({})", self.sql, other.sql);
        self.args.extend(other.args);
        self
    }
}

/// A statement that ends in a condition: a transaction runs a list and cannot branch, so what must
/// not happen in every case carries its condition with it. `sql` goes up to the word before the
/// condition.
pub(super) fn statement_if(
    sql: &str,
    args: impl IntoIterator<Item = Value>,
    condition: SqlCondition,
) -> Statement {
    Statement::new(format!("{sql} ({})", condition.sql), args.into_iter().chain(condition.args))
}

/// Whether a statement of a transaction changed a row.
pub(super) fn has_changed_row(results: &[StatementResult], index: usize) -> bool {
    results.get(index).and_then(|result| result.rows_affected).is_some_and(|rows| rows > 0)
}

/// Reading columns by place.
pub(crate) trait RowColumns {
    /// Text; empty for NULL.
    fn text(&self, index: usize) -> &str;
    /// A number; 0 for NULL.
    fn integer(&self, index: usize) -> i64;
}

impl RowColumns for Row {
    fn text(&self, index: usize) -> &str {
        self.values.get(index).and_then(|value| value.as_text()).unwrap_or_default()
    }

    fn integer(&self, index: usize) -> i64 {
        self.values.get(index).and_then(|value| value.as_integer()).unwrap_or_default()
    }
}
