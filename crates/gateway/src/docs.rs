//! `/docs`: a page to read and try the interface. Everything on it comes from the program itself.

use crate::error::{ApiError, HandlerResult};
use crate::respond::{JSON, response_with_type};
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Redirect};
use debros_proto::Code;
use http::header::{CONTENT_ENCODING, CONTENT_SECURITY_POLICY};
use http::{HeaderValue, StatusCode};
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use utoipa_swagger_ui::Config;

/// The document as the test keeps it: nothing is built at run time.
const DOCUMENT: &str = include_str!("../openapi.json");

/// The page's own scripts only, and calls only to this gateway. Its stylesheet sets styles on
/// elements.
const DOCS_CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    // The page would otherwise ask a server on the internet whether the document is valid.
    Arc::new(Config::from("/v1/openapi.json").validator_url("none").try_it_out_enabled(true))
});

/// `GET /v1/openapi.json`.
pub(crate) async fn document() -> HandlerResult {
    Ok(response_with_type(StatusCode::OK, JSON, Body::from(DOCUMENT)))
}

/// `GET /docs`.
pub(crate) async fn redirect() -> HandlerResult {
    Ok(Redirect::permanent("/docs/").into_response())
}

/// `GET /docs/…`.
pub(crate) async fn file(request: Request) -> HandlerResult {
    let path = request.uri().path().strip_prefix("/docs/").unwrap_or_default();
    let found = utoipa_swagger_ui::serve(path, Arc::clone(&CONFIG)).map_err(|error| {
        tracing::error!(%error, "a file of the documentation cannot be made");
        ApiError::new(Code::Internal, "the page cannot be made")
    })?;
    let file = found.ok_or_else(|| ApiError::new(Code::NotFound, "there is no such page"))?;
    let content_type = HeaderValue::from_str(&file.content_type)
        .unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"));
    let body = match file.bytes {
        Cow::Borrowed(bytes) => Body::from(bytes),
        Cow::Owned(bytes) => Body::from(bytes),
    };
    let mut response = response_with_type(StatusCode::OK, content_type, body);
    let headers = response.headers_mut();
    if file.gzpipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(CONTENT_SECURITY_POLICY, DOCS_CONTENT_POLICY);
    Ok(response)
}
