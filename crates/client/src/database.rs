//! SQL.

use crate::{Client, Error, Result, expect_answer};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, Consistency, Statement, StatementResult, Table, Value};
use debros_proto::sql::is_read_statement;

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

    /// Runs one statement; a read as fresh as requested.
    ///
    /// # Errors
    /// As [`query`](Database::query).
    pub async fn query_at(
        &self,
        statement: Statement,
        consistency: Consistency,
    ) -> Result<StatementResult> {
        let query = rpc::QueryRequest {
            // A read whose answer is lost is sent again; a write only under an idempotency key.
            only_reads: is_read_statement(&statement.sql),
            statement: Some(statement),
            consistency: consistency.into(),
        };
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

#[cfg(test)]
mod tests {
    use crate::{Client, Code, Config, Error, Handler};
    use debros_p2p::{CallContext, Reply};
    use debros_proto::rpc::Request;
    use futures::future::BoxFuture;
    use std::sync::{Arc, Mutex};

    /// Notes of each request whether losing its answer leaves the outcome unknown, and refuses it.
    #[derive(Default)]
    struct Noted(Mutex<Vec<bool>>);

    impl Handler for Noted {
        fn call(
            &self,
            _: CallContext,
            request: Request,
        ) -> BoxFuture<'static, Result<Reply, Error>> {
            self.0.lock().unwrap().push(request.may_write());
            Box::pin(async { Err(Error::new(Code::Unavailable, "noted")) })
        }
    }

    #[tokio::test]
    async fn a_query_says_when_it_only_reads() {
        let noted = Arc::new(Noted::default());
        let client = Client::local(noted.clone(), &Config::new("test"));
        let statements = [
            "SELECT 1",
            " -- hi\n values (1)",
            "INSERT INTO t VALUES (1)",
            "WITH a AS (SELECT 1) SELECT 1",
        ];
        for sql in statements {
            client.database().query(sql, []).await.unwrap_err();
        }
        assert_eq!(*noted.0.lock().unwrap(), [false, false, true, true]);
    }
}
