//! SQL.

use crate::{Client, Error, Result, expect_answer};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, Consistency, Statement, StatementResult, Table, Value};

/// SQL in the caller's namespace: SQLite's dialect, ACID transactions.
#[derive(Clone, Copy, Debug)]
pub struct Database<'a> {
    pub(crate) client: &'a Client,
}

impl Database<'_> {
    /// Runs one statement, reading or writing, with positional arguments.
    ///
    /// # Errors
    /// `sql_error`, `constraint`, `statement_not_allowed`, `statement_timeout`, `result_too_large`,
    /// …
    pub async fn query(
        &self,
        sql: impl Into<String>,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<StatementResult> {
        self.query_at(Statement::new(sql, args), Consistency::Weak).await
    }

    /// Runs one statement; a read as fresh as asked for.
    ///
    /// # Errors
    /// As [`query`](Database::query).
    pub async fn query_at(
        &self,
        statement: Statement,
        consistency: Consistency,
    ) -> Result<StatementResult> {
        let query =
            rpc::QueryRequest { statement: Some(statement), consistency: consistency.into() };
        expect_answer!(self.client.call(Call::Query(query)).await?, Query)?
            .result
            .ok_or_else(|| Error::internal("the node answered a query without a result"))
    }

    /// Runs statements in order, all or none, and returns one result for each.
    ///
    /// # Errors
    /// As [`query`](Database::query), with the failed statement's index in [`Error::statement`].
    /// Nothing was changed.
    pub async fn transaction(
        &self,
        statements: impl IntoIterator<Item = impl Into<Statement>>,
    ) -> Result<Vec<StatementResult>> {
        let statements = statements.into_iter().map(Into::into).collect();
        let transaction = rpc::TransactionRequest { statements };
        expect_answer!(self.client.call(Call::Transaction(transaction)).await?, Transaction)
            .map(|answer| answer.results)
    }

    /// Runs a script of CREATE TABLE, INDEX, VIEW and TRIGGER statements, all or none.
    ///
    /// # Errors
    /// `statement_not_allowed` for any other statement, and as [`query`](Database::query).
    pub async fn create_table(&self, schema: impl Into<String>) -> Result<()> {
        let create = rpc::CreateTableRequest { schema: schema.into() };
        expect_answer!(self.client.call(Call::CreateTable(create)).await?, CreateTable).map(|_| ())
    }

    /// Drops a table by its name.
    ///
    /// # Errors
    /// `not_found` when there is no such table.
    pub async fn drop_table(&self, table: impl Into<String>) -> Result<()> {
        let drop = rpc::DropTableRequest { table: table.into() };
        expect_answer!(self.client.call(Call::DropTable(drop)).await?, DropTable).map(|_| ())
    }

    /// The namespace's tables, with columns and indexes.
    ///
    /// # Errors
    /// `forbidden`, `unavailable`, …
    pub async fn schema(&self) -> Result<Vec<Table>> {
        expect_answer!(self.client.call(Call::Schema(rpc::SchemaRequest {})).await?, Schema)
            .map(|answer| answer.tables)
    }
}
