//! `/v1/auth`: sign-in with a wallet, sessions, API keys. The node decides all of it. The gateway
//! decides only under which name a caller signs in (`public_origin.rs`), how often
//! (`sign_in_limits.rs`), and what the sign-in page may do (`login.rs`).

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

/// A field's text. An empty one counts as missing, because clients in languages without optional
/// fields send it so.
fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Marks an answer with a secret, so that no cache stores it.
fn no_store(answer: HandlerResult) -> HandlerResult {
    answer.map(|mut response: Response| {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    })
}
