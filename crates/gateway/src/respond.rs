//! Answers that are not errors.

use axum::body::Body;
use axum::response::Response;
use debros_proto::Error;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::error::{ApiError, HandlerResult};

/// `application/json`.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A JSON answer.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> HandlerResult {
    to_json_bytes(value).map(|body| json_response(status, body))
}

pub(crate) fn to_json_bytes(value: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        Error::internal("the answer cannot be written as JSON").into()
    })
}

pub(crate) fn json_response(status: StatusCode, body: Vec<u8>) -> Response {
    response_with_type(status, JSON, Body::from(body))
}

pub(crate) fn response_with_type(
    status: StatusCode,
    content_type: HeaderValue,
    body: Body,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// `{"status":"ok"}`.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Done {
    #[schema(example = "ok")]
    status: &'static str,
}

/// The value of `status` in the answer to a mutation.
pub(crate) const OK: &str = "ok";

/// `{"status":"ok"}`.
pub(crate) fn done(status: StatusCode) -> HandlerResult {
    json(status, &Done { status: OK })
}
