//! `/v1/namespaces`: the caller's namespaces, their contents, and deleting one.

use crate::api_call::ApiCall;
use crate::error::{ApiError, ErrorBody, HandlerResult};
use crate::health::timestamp;
use crate::respond::{OK, json};
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use debros_client::NamespacePage;
use debros_client::rpc::NamespaceInfo;
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// A namespace and its contents.
#[derive(Serialize, utoipa::ToSchema)]
pub struct NamespaceAnswer {
    name: String,
    /// The caller's role there: `reader`, `writer`, `admin`, `owner` or `operator`.
    #[schema(example = "owner")]
    role: String,
    /// A wallet, in lower case with 0x; `operator` if the node's operator owns the namespace; null:
    /// nobody.
    owner: Option<String>,
    /// Null: not known.
    created_at: Option<String>,
    /// Bytes that its SQL database takes.
    size: u64,
    /// The part of `size` that is free again; later writes use it first. A file does not shrink.
    free: u64,
    /// Tables, virtual ones too.
    tables: u64,
    /// Rows of its tables; those of virtual tables are not counted.
    rows: u64,
    /// False: there was no time to count all rows, there are at least so many.
    rows_are_exact: bool,
    /// Key-value pairs, with those that have expired and were not swept yet.
    keys: u64,
    /// Bytes of their keys and values.
    key_bytes: u64,
    /// False: a node of an earlier version had no time to count all pairs, there are at least so
    /// many with so many bytes.
    keys_are_exact: bool,
    /// Bytes that count against `quota`: the SQL database, the pairs and the idempotency records,
    /// with their overhead.
    taken: u64,
    /// Bytes that all of it may take; null: no limit of its own.
    quota: Option<u64>,
    /// Why its SQL database cannot be read, as when it is damaged: its tables and rows are not
    /// known then. Null: it can.
    problem: Option<String>,
}

/// Namespaces in order of name.
#[derive(Serialize, utoipa::ToSchema)]
pub struct NamespacesAnswer {
    items: Vec<NamespaceAnswer>,
    count: usize,
    /// More follow: send it as `cursor` for the next page. A page may be shorter than its limit,
    /// and empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// The namespace's name once more.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteNamespaceBody {
    confirm: String,
}

/// The deleted namespace.
#[derive(Serialize, utoipa::ToSchema)]
pub struct DeleteNamespaceAnswer {
    #[schema(example = "ok")]
    status: &'static str,
    deleted: NamespaceAnswer,
}

type NamespaceParam = Result<Path<String>, PathRejection>;

/// Lists the namespaces in which the caller's wallet is owner or has a role.
///
/// A key that does not manage its namespace sees that one; operators see all.
#[utoipa::path(
    get, path = "/v1/namespaces", tag = "namespaces", operation_id = "namespaces_list",
    params(
        ("prefix" = Option<String>, Query, description = "Only names that start with this."),
        ("limit" = Option<u32>, Query, description = "At most so many: 100 unless given, 1,000 at most."),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before."),
    ),
    responses((status = 200, body = NamespacesAnswer)),
)]
pub(crate) async fn list(mut call: ApiCall) -> HandlerResult {
    let [prefix, limit, cursor] = call.query.take_only(["prefix", "limit", "cursor"])?;
    let (prefix, cursor) = (prefix.unwrap_or_default(), cursor.unwrap_or_default());
    let limit = match limit.as_deref().map(str::parse::<u32>) {
        None => 0,
        Some(Ok(limit)) if limit > 0 => limit,
        Some(_) => return Err(ApiError::invalid("limit is not a whole number of at least 1")),
    };
    let page = if call.lent_access().is_some() {
        // The lent credential could see all.
        let own =
            call.client.namespaces().get().await.map(Some).or_else(|error| match error.code {
                debros_proto::Code::NotFound => Ok(None),
                _ => Err(error),
            })?;
        let namespaces = own
            .into_iter()
            .filter(|own| own.name.starts_with(&prefix) && own.name > cursor)
            .collect();
        NamespacePage { namespaces, ..NamespacePage::default() }
    } else {
        call.client.namespaces().list(prefix, cursor, limit).await?
    };
    let next_cursor = Some(page.next).filter(|_| page.more);
    let items: Vec<NamespaceAnswer> =
        page.namespaces.into_iter().map(|info| namespace_answer(&call, info)).collect();
    json(StatusCode::OK, &NamespacesAnswer { count: items.len(), items, next_cursor })
}

/// Returns what a namespace contains, and how much of its quota it takes.
#[utoipa::path(
    get, path = "/v1/namespaces/{namespace}", tag = "namespaces", operation_id = "namespaces_get",
    params(("namespace" = String, Path, description = "The credential's own; operators name any.")),
    responses(
        (status = 200, body = NamespaceAnswer),
        (status = 403, body = ErrorBody),
        (status = 404, description = "Nobody has used it yet.", body = ErrorBody),
    ),
)]
pub(crate) async fn get(namespace: NamespaceParam, mut call: ApiCall) -> HandlerResult {
    let [] = call.query.take_only([])?;
    let info = call.client_in(&read_namespace(namespace)?)?.namespaces().get().await?;
    json(StatusCode::OK, &namespace_answer(&call, info))
}

/// Deletes a namespace with everything in it, the caller's session too.
///
/// For its owner, signed in with the wallet that owns it, and for operators. The name has to be
/// confirmed, in the query or in the body.
#[utoipa::path(
    delete, path = "/v1/namespaces/{namespace}", tag = "namespaces", operation_id = "namespaces_delete",
    request_body(content = Option<DeleteNamespaceBody>, description = "In place of `confirm` in the query."),
    params(
        ("namespace" = String, Path, description = "The credential's own; operators name any."),
        ("confirm" = Option<String>, Query, description = "The namespace's name once more."),
    ),
    responses(
        (status = 200, body = DeleteNamespaceAnswer),
        (status = 400, description = "It was not confirmed with its name; nothing was done.", body = ErrorBody),
        (status = 403, body = ErrorBody),
        (status = 404, description = "Nobody has used it yet.", body = ErrorBody),
        (status = 409, description = "A backup, a restore or another deletion is running: again after `Retry-After`.", body = ErrorBody),
    ),
)]
pub(crate) async fn delete(namespace: NamespaceParam, mut call: ApiCall) -> HandlerResult {
    let [in_query] = call.query.take_only(["confirm"])?;
    let client = call.own_client_in(&read_namespace(namespace)?)?;
    let confirm = match in_query {
        Some(confirm) => confirm,
        None if call.has_body() => call.read_small_json::<DeleteNamespaceBody>().await?.confirm,
        None => String::new(),
    };
    let deleted = client.namespaces().delete(confirm).await?;
    json(
        StatusCode::OK,
        &DeleteNamespaceAnswer { status: OK, deleted: namespace_answer(&call, deleted) },
    )
}

fn read_namespace(path: NamespaceParam) -> Result<String, ApiError> {
    path.map(|Path(value)| value).map_err(|_| ApiError::invalid("the path is not UTF-8"))
}

fn namespace_answer(call: &ApiCall, info: NamespaceInfo) -> NamespaceAnswer {
    let mut answer = NamespaceAnswer::from(info);
    if call.lent_access().is_some() {
        // The client with the gateway's lent credential is not used.
        "writer".clone_into(&mut answer.role);
    }
    answer
}

impl From<Vec<NamespaceInfo>> for NamespacesAnswer {
    fn from(namespaces: Vec<NamespaceInfo>) -> Self {
        let items: Vec<NamespaceAnswer> =
            namespaces.into_iter().map(NamespaceAnswer::from).collect();
        Self { count: items.len(), items, next_cursor: None }
    }
}

impl From<NamespaceInfo> for DeleteNamespaceAnswer {
    fn from(deleted: NamespaceInfo) -> Self {
        Self { status: OK, deleted: deleted.into() }
    }
}

impl From<NamespaceInfo> for NamespaceAnswer {
    fn from(info: NamespaceInfo) -> Self {
        Self {
            name: info.name,
            role: info.role,
            owner: Some(info.owner).filter(|owner| !owner.is_empty()),
            created_at: (info.created_at > 0).then(|| timestamp(info.created_at)),
            size: info.sql_bytes,
            free: info.free_bytes,
            tables: info.tables,
            rows: info.rows,
            rows_are_exact: info.rows_are_exact,
            keys: info.keys,
            key_bytes: info.key_bytes,
            keys_are_exact: info.keys_are_exact,
            taken: info.taken_bytes,
            quota: info.max_bytes,
            problem: Some(info.problem).filter(|problem| !problem.is_empty()),
        }
    }
}
