//! `/v1/auth`: sign-in with a wallet, sessions, API keys. The node decides all of it; what is
//! decided here is only where a caller signs in (`site.rs`), how often (`rate.rs`), and what the
//! sign-in page may do (`login.rs`).

pub(crate) mod jwks;
pub(crate) mod keys;
pub(crate) mod login;
pub(crate) mod proof;
pub(crate) mod sessions;
pub(crate) mod who_am_i;

use axum::response::Response;
use http::HeaderValue;
use http::header::CACHE_CONTROL;

use crate::error::HandlerResult;

/// A field's text; an empty one is a field that was left out, as clients in languages without
/// optional fields send it.
fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Marks an answer with a secret in it, so that no cache keeps it.
fn no_store(answer: HandlerResult) -> HandlerResult {
    answer.map(|mut response: Response| {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    })
}
