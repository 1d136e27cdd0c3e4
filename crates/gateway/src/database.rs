//! `/v1/db`: SQL.

use crate::api_call::ApiCall;
use crate::error::{ApiError, ErrorBody, HandlerResult};
use crate::json_body::BLOCKING_JSON_BYTES;
use crate::respond::{Done, OK, done, json, json_response, to_json_bytes};
use crate::sql_body::{SqlArgs, StatementList};
use debros_client::rpc::{Consistency, Statement, StatementResult, Table};
use debros_proto::Error;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::PartialSchema;
use utoipa::openapi::schema::{KnownFormat, OneOfBuilder, SchemaFormat, Type};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};

/// One statement.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryBody {
    /// One SQL statement in SQLite's dialect, up to 1 MiB.
    #[schema(example = "SELECT id, name FROM users WHERE id = ?")]
    sql: String,
    #[serde(default)]
    #[schema(value_type = Option<Vec<SqlValue>>)]
    args: SqlArgs,
    /// How fresh a read must be.
    #[serde(default)]
    consistency: Freshness,
}

/// How fresh a read must be: `none` (local replica, may lag), `weak` (the leader's data),
/// `linearizable`, `strong`.
#[derive(Clone, Copy, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Freshness {
    None,
    #[default]
    Weak,
    Linearizable,
    Strong,
}

/// Statements that are applied all or not at all.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransactionBody {
    /// Each a SQL text, or an object of text and arguments. Up to 1,000.
    #[schema(value_type = Vec<TransactionStatement>)]
    statements: StatementList,
}

/// A script of CREATE statements.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateBody {
    /// CREATE TABLE, INDEX, VIEW and TRIGGER statements, separated by semicolons.
    #[schema(example = "CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, name TEXT)")]
    schema: String,
}

/// The table to drop.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DropBody {
    table: String,
}

/// A name for the document; the values themselves are `debros_proto`'s.
pub(crate) struct SqlValue;

impl utoipa::ToSchema for SqlValue {}

impl PartialSchema for SqlValue {
    fn schema() -> RefOr<Schema> {
        let integer = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
        let of = |kind| ObjectBuilder::new().schema_type(kind);
        let blob = of(Type::Object)
            .property("$blob", of(Type::String).content_encoding("base64"))
            .required("$blob");
        let any = OneOfBuilder::new()
            .description(Some(
                "A value: null, an integer of up to 64 bits (larger ones go as text), a number, a text, or a BLOB. \
                 Infinities are 9e999 and -9e999. As an argument also a boolean, which becomes 0 or 1.",
            ))
            .item(of(Type::Null))
            .item(integer)
            .item(of(Type::Number))
            .item(of(Type::String))
            .item(of(Type::Boolean))
            .item(blob)
            .build();
        RefOr::T(Schema::OneOf(any))
    }
}

/// A statement of a transaction.
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "a shape for the document; `StatementList` reads it")]
pub(crate) enum TransactionStatement {
    Text(String),
    WithArguments { sql: String, args: Option<Vec<SqlValue>> },
}

/// The result of a statement.
#[derive(utoipa::ToSchema)]
#[allow(
    dead_code,
    reason = "a shape for the document; `StatementResult` is written by debros_proto"
)]
pub(crate) struct QueryAnswer {
    columns: Vec<String>,
    /// Rows of values, in the order of the columns.
    rows: Vec<Vec<SqlValue>>,
    /// How many rows there are.
    count: u64,
    /// For a write: rows inserted, changed or deleted.
    rows_affected: Option<u64>,
    /// For a write: the rowid of the row inserted last, 0 when there was none.
    last_insert_id: Option<i64>,
}

/// The results of the statements, one for each.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct TransactionAnswer {
    #[schema(example = "ok")]
    status: &'static str,
    #[schema(value_type = Vec<QueryAnswer>)]
    results: Vec<StatementResult>,
}

/// The namespace's tables.
#[derive(Serialize, utoipa::ToSchema)]
pub struct SchemaAnswer {
    tables: Vec<TableAnswer>,
}

/// A table or view.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct TableAnswer {
    name: String,
    /// `table`, `view` or `virtual`.
    kind: String,
    /// The CREATE text.
    sql: String,
    columns: Vec<ColumnAnswer>,
    indexes: Vec<IndexAnswer>,
}

/// A column.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ColumnAnswer {
    name: String,
    /// The declared type, empty when none was declared.
    r#type: String,
    nullable: bool,
    /// The default's SQL text.
    default: Option<String>,
    primary_key: bool,
}

/// An index.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct IndexAnswer {
    name: String,
    unique: bool,
    /// Column names in order; empty for an expression.
    columns: Vec<String>,
    /// The CREATE text; null for an index that a constraint made.
    sql: Option<String>,
}

/// Runs one statement, reading or writing.
#[utoipa::path(
    post, path = "/v1/db/query", tag = "database", operation_id = "db_query", request_body = QueryBody,
    responses((status = 200, body = QueryAnswer), (status = 409, description = "A constraint refused it.", body = ErrorBody)),
)]
pub(crate) async fn query(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let QueryBody { sql, args, consistency } = call.read_json().await?;
    if let Some(refused) = args.refused {
        return Err(ApiError::invalid(refused));
    }
    let statement = Statement { sql, args: args.values };
    let result = call.client.database().query_at(statement, consistency.into()).await?;
    let size = estimate_json_size(std::slice::from_ref(&result));
    write_json(size, result).await
}

/// Runs statements in order, all or none.
///
/// `PRAGMA foreign_keys = OFF` holds until it is turned on again or the transaction ends, so that a
/// migration can recreate a table that others refer to. Before the commit every reference is
/// checked, and one that leads nowhere refuses the whole transaction. `PRAGMA defer_foreign_keys =
/// ON` holds until the end of the transaction.
#[utoipa::path(
    post, path = "/v1/db/transaction", tag = "database", operation_id = "db_transaction", request_body = TransactionBody,
    responses(
        (status = 200, body = TransactionAnswer),
        (status = 409, description = "A constraint refused it: nothing was applied.", body = ErrorBody),
    ),
)]
pub(crate) async fn transaction(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let TransactionBody { statements } = call.read_json().await?;
    if let Some(refusal) = statements.refused {
        return Err(refusal.into());
    }
    let results = call.client.database().transaction(statements.statements).await?;
    let size = estimate_json_size(&results);
    write_json(size, TransactionAnswer { status: OK, results }).await
}

/// Runs one CREATE TABLE statement.
#[utoipa::path(
    post, path = "/v1/db/create-table", tag = "database", operation_id = "db_create_table", request_body = CreateBody,
    responses((status = 201, body = Done)),
)]
pub(crate) async fn create_table(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let CreateBody { schema } = call.read_json().await?;
    call.client.database().create_table(schema).await?;
    done(StatusCode::CREATED)
}

/// Drops a table with its rows.
#[utoipa::path(
    post, path = "/v1/db/drop-table", tag = "database", operation_id = "db_drop_table", request_body = DropBody,
    responses((status = 200, body = Done), (status = 404, body = ErrorBody)),
)]
pub(crate) async fn drop_table(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let DropBody { table } = call.read_json().await?;
    call.client.database().drop_table(table).await?;
    done(StatusCode::OK)
}

/// Describes the tables and views: columns, indexes, and the SQL that made them.
#[utoipa::path(
    get, path = "/v1/db/schema", tag = "database", operation_id = "db_schema",
    responses((status = 200, body = SchemaAnswer)),
)]
pub(crate) async fn schema(mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    json(StatusCode::OK, &SchemaAnswer::from(call.client.database().schema().await?))
}

impl From<Vec<Table>> for SchemaAnswer {
    fn from(tables: Vec<Table>) -> Self {
        Self { tables: tables.into_iter().map(table_answer).collect() }
    }
}

fn table_answer(table: Table) -> TableAnswer {
    let columns = table.columns.into_iter().map(|column| ColumnAnswer {
        name: column.name,
        r#type: column.r#type,
        nullable: column.nullable,
        default: column.default,
        primary_key: column.primary_key,
    });
    let indexes = table.indexes.into_iter().map(|index| IndexAnswer {
        name: index.name,
        unique: index.unique,
        columns: index.columns,
        sql: index.sql,
    });
    TableAnswer {
        name: table.name,
        kind: table.kind,
        sql: table.sql,
        columns: columns.collect(),
        indexes: indexes.collect(),
    }
}

impl From<Freshness> for Consistency {
    fn from(freshness: Freshness) -> Self {
        match freshness {
            Freshness::None => Consistency::None,
            Freshness::Weak => Consistency::Weak,
            Freshness::Linearizable => Consistency::Linearizable,
            Freshness::Strong => Consistency::Strong,
        }
    }
}

/// Roughly the bytes of JSON that the results make.
fn estimate_json_size(results: &[StatementResult]) -> usize {
    let values = results.iter().flat_map(|result| &result.rows).flat_map(|row| &row.values);
    values.map(|value| value.size() + 4).sum()
}

async fn write_json(size: usize, answer: impl Serialize + Send + 'static) -> HandlerResult {
    if size <= BLOCKING_JSON_BYTES {
        return json(StatusCode::OK, &answer);
    }
    let written = tokio::task::spawn_blocking(move || to_json_bytes(&answer)).await;
    let body =
        written.unwrap_or_else(|_| Err(Error::internal("writing the answer failed").into()))?;
    Ok(json_response(StatusCode::OK, body))
}
