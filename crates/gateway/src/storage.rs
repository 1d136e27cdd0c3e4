//! `/v1/storage`: key-value pairs, raw or in JSON.

use crate::api_call::ApiCall;
use crate::conditional::{ReadOutcome, etag, read_outcome, write_condition};
use crate::error::{ApiError, ErrorBody, HandlerResult};
use crate::respond::{OK, json, response_with_type};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use debros_client::PutOptions;
use debros_proto::Code;
use debros_proto::json::{decode_base64, encode_base64};
use debros_proto::limits::MAX_LIST_LIMIT;
use http::header::{CONTENT_SECURITY_POLICY, ETAG};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

/// If a browser shows a value as a page after all, the page has no origin and no scripts.
const SANDBOX: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// A key and its value.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutBody {
    /// 1 to 1,024 bytes of UTF-8.
    key: String,
    /// The value in base64, up to 4 MiB of bytes.
    #[schema(content_encoding = "base64")]
    value: String,
}

/// A key.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyBody {
    /// 1 to 1,024 bytes of UTF-8.
    key: String,
}

/// The stored key.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct PutAnswer<'a> {
    #[schema(example = "ok")]
    status: &'static str,
    key: &'a str,
    /// Bytes stored.
    size: u64,
    /// Changes at every put; also in the header ETag.
    version: u64,
}

/// A value.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ValueAnswer {
    /// The value in base64.
    #[schema(content_encoding = "base64")]
    value: String,
}

/// The deleted key.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeleteAnswer<'a> {
    #[schema(example = "ok")]
    status: &'static str,
    key: &'a str,
    /// False: there was nothing to delete.
    deleted: bool,
}

/// Whether a key exists.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ExistsAnswer {
    exists: bool,
}

/// Keys in byte order.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ListAnswer {
    keys: Vec<String>,
    /// What to send as `cursor` for the next page; missing on the last one.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    next_cursor: String,
}

impl ListAnswer {
    /// Keys, and the cursor for the following ones; empty: there are none.
    pub fn new(keys: Vec<String>, next_cursor: String) -> Self {
        Self { keys, next_cursor }
    }
}

/// Stores a value: the raw body if the query names the key, else the value is in JSON.
#[utoipa::path(
    post, path = "/v1/storage/put", tag = "storage", operation_id = "storage_put",
    params(
        ("key" = Option<String>, Query, description = "The key. With it the body is the value, whatever its content type."),
        ("ttl" = Option<u64>, Query, description = "Forget the value after this many seconds, at least 1."),
    ),
    request_body(description = "Raw bytes with `key` in the query, else JSON.", content(
        (PutBody = "application/json"), (String = "application/octet-stream"),
    )),
    responses((status = 201, body = PutAnswer), (status = 412, body = ErrorBody), (status = 413, body = ErrorBody)),
)]
pub(crate) async fn put(mut call: ApiCall) -> HandlerResult {
    let [key, ttl] = call.query.take_only(["key", "ttl"])?;
    let (key, value) = match key {
        Some(key) => (key, call.read_value().await?),
        None => {
            let body: PutBody = call.read_json().await?;
            (body.key, Bytes::from(decode_base64(&body.value)?))
        }
    };
    store_value(call, key, value, ttl).await
}

/// Stores the raw body.
#[utoipa::path(
    put, path = "/v1/storage", tag = "storage", operation_id = "storage_put_value",
    params(
        ("key" = String, Query, description = "1 to 1,024 bytes of UTF-8."),
        ("ttl" = Option<u64>, Query, description = "Forget the value after this many seconds, at least 1."),
    ),
    request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 201, body = PutAnswer), (status = 412, body = ErrorBody), (status = 413, body = ErrorBody)),
)]
pub(crate) async fn put_value(mut call: ApiCall) -> HandlerResult {
    let [key, ttl] = call.query.take_only(["key", "ttl"])?;
    let value = call.read_value().await?;
    store_value(call, require_key(key)?, value, ttl).await
}

async fn store_value(
    call: ApiCall,
    key: String,
    value: Bytes,
    ttl: Option<String>,
) -> HandlerResult {
    let ttl_seconds = ttl.as_deref().map(parse_ttl).transpose()?;
    let options = PutOptions { condition: write_condition(&call.headers)?, ttl_seconds };
    let put = call.client.storage().put_with(key.as_str(), value, options).await?;
    let mut answer = json(
        StatusCode::CREATED,
        &PutAnswer { status: OK, key: &key, size: put.size, version: put.version },
    )?;
    answer.headers_mut().insert(ETAG, etag(put.version));
    Ok(answer)
}

/// Returns the raw value.
#[utoipa::path(
    get, path = "/v1/storage/get", tag = "storage", operation_id = "storage_get",
    params(("key" = String, Query, description = "1 to 1,024 bytes of UTF-8.")),
    responses(
        (status = 200, description = "The value, exactly as stored.", body = String,
         content_type = "application/octet-stream", headers(("ETag" = String, description = "The value's version."))),
        (status = 304, description = "If-None-Match named this version."),
        (status = 404, body = ErrorBody),
    ),
)]
pub(crate) async fn get(mut call: ApiCall) -> HandlerResult {
    let [key] = call.query.take_only(["key"])?;
    send_value(call, require_key(key)?).await
}

/// Returns the raw value.
#[utoipa::path(
    get, path = "/v1/storage", tag = "storage", operation_id = "storage_get_value",
    params(("key" = String, Query, description = "1 to 1,024 bytes of UTF-8.")),
    responses(
        (status = 200, description = "The value, exactly as stored.", body = String,
         content_type = "application/octet-stream", headers(("ETag" = String, description = "The value's version."))),
        (status = 304, description = "If-None-Match named this version."),
        (status = 404, body = ErrorBody),
    ),
)]
pub(crate) async fn get_value(call: ApiCall) -> HandlerResult {
    get(call).await
}

/// Returns the value in JSON, or raw if the query names the key.
#[utoipa::path(
    post, path = "/v1/storage/get", tag = "storage", operation_id = "storage_get_json",
    params(("key" = Option<String>, Query, description = "With it the answer is the raw value.")),
    request_body(content = Option<KeyBody>, description = "Needed without `key` in the query."),
    responses(
        (status = 200, content(
            (ValueAnswer = "application/json"), (String = "application/octet-stream"),
        )),
        (status = 404, body = ErrorBody),
    ),
)]
pub(crate) async fn get_json(mut call: ApiCall) -> HandlerResult {
    let [key] = call.query.take_only(["key"])?;
    if let Some(key) = key {
        return send_value(call, key).await;
    }
    let KeyBody { key } = call.read_json().await?;
    let entry = call.client.storage().get(key).await?.ok_or_else(key_not_found)?;
    let mut answer = json(StatusCode::OK, &ValueAnswer { value: encode_base64(&entry.value) })?;
    answer.headers_mut().insert(ETAG, etag(entry.version));
    Ok(answer)
}

async fn send_value(call: ApiCall, key: String) -> HandlerResult {
    let entry = call.client.storage().get(key).await?.ok_or_else(key_not_found)?;
    let mut answer = match read_outcome(&call.headers, entry.version)? {
        ReadOutcome::Send => {
            let mut value = response_with_type(StatusCode::OK, OCTETS, Body::from(entry.value));
            value.headers_mut().insert(CONTENT_SECURITY_POLICY, SANDBOX);
            value
        }
        ReadOutcome::NotModified => {
            let mut unchanged = Response::new(Body::empty());
            *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
            unchanged
        }
        ReadOutcome::Failed => {
            return Err(ApiError::new(
                Code::PreconditionFailed,
                "the value has another version than If-Match names",
            ));
        }
    };
    answer.headers_mut().insert(ETAG, etag(entry.version));
    Ok(answer)
}

/// Deletes a key, which is in the query or in JSON.
#[utoipa::path(
    post, path = "/v1/storage/delete", tag = "storage", operation_id = "storage_delete",
    params(("key" = Option<String>, Query, description = "The key; else it stands in the body.")),
    request_body(content = Option<KeyBody>, description = "Needed without `key` in the query."),
    responses((status = 200, body = DeleteAnswer), (status = 412, body = ErrorBody)),
)]
pub(crate) async fn delete(mut call: ApiCall) -> HandlerResult {
    let [key] = call.query.take_only(["key"])?;
    let key = match key {
        Some(key) => key,
        None => call.read_json::<KeyBody>().await?.key,
    };
    remove_key(call, key).await
}

/// Deletes a key.
#[utoipa::path(
    delete, path = "/v1/storage", tag = "storage", operation_id = "storage_delete_value",
    params(("key" = String, Query, description = "1 to 1,024 bytes of UTF-8.")),
    responses((status = 200, body = DeleteAnswer), (status = 412, body = ErrorBody)),
)]
pub(crate) async fn delete_value(mut call: ApiCall) -> HandlerResult {
    let [key] = call.query.take_only(["key"])?;
    remove_key(call, require_key(key)?).await
}

async fn remove_key(call: ApiCall, key: String) -> HandlerResult {
    let condition = write_condition(&call.headers)?;
    let deleted = call.client.storage().delete_if(key.as_str(), condition).await?;
    json(StatusCode::OK, &DeleteAnswer { status: OK, key: &key, deleted })
}

/// Returns whether there is a value.
#[utoipa::path(
    get, path = "/v1/storage/exists", tag = "storage", operation_id = "storage_exists",
    params(("key" = String, Query, description = "1 to 1,024 bytes of UTF-8.")),
    responses((status = 200, body = ExistsAnswer)),
)]
pub(crate) async fn exists(mut call: ApiCall) -> HandlerResult {
    let [key] = call.query.take_only(["key"])?;
    let exists = call.client.storage().exists(require_key(key)?).await?;
    json(StatusCode::OK, &ExistsAnswer { exists })
}

/// Lists keys in their order, a page at a time.
#[utoipa::path(
    get, path = "/v1/storage/list", tag = "storage", operation_id = "storage_list",
    params(
        ("prefix" = Option<String>, Query, description = "Only keys that start with it."),
        ("limit" = Option<u32>, Query, description = "Keys on a page: 1 to 1,000, default 100."),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before."),
    ),
    responses((status = 200, body = ListAnswer)),
)]
pub(crate) async fn list(mut call: ApiCall) -> HandlerResult {
    let [prefix, limit, cursor] = call.query.take_only(["prefix", "limit", "cursor"])?;
    let limit = limit.map_or(Ok(0), |limit| match limit.parse() {
        Ok(number @ 1..=MAX_LIST_LIMIT) => Ok(number),
        _ => Err(ApiError::invalid(format!(
            "limit is not a whole number from 1 to {MAX_LIST_LIMIT}"
        ))),
    })?;
    let page = call
        .client
        .storage()
        .list(prefix.unwrap_or_default(), limit, cursor.unwrap_or_default())
        .await?;
    json(StatusCode::OK, &ListAnswer::new(page.keys, page.next_cursor))
}

fn require_key(key: Option<String>) -> Result<String, ApiError> {
    key.ok_or_else(|| ApiError::invalid("the query parameter \"key\" is missing"))
}

fn parse_ttl(text: &str) -> Result<u64, ApiError> {
    match text.parse() {
        Ok(seconds @ 1..) => Ok(seconds),
        _ => Err(ApiError::invalid("ttl is not a whole number of seconds, at least 1")),
    }
}

fn key_not_found() -> ApiError {
    ApiError::new(Code::NotFound, "the key does not exist")
}
