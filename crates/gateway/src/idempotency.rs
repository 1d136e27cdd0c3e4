//! The caller's idempotency key, which makes a write happen once, and the mark of a replayed
//! answer.

use crate::error::ApiError;
use debros_client::Scope;
use debros_proto::limits::MAX_IDEMPOTENCY_KEY_BYTES;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Whether the answer to a request was given before. The client that acts for the caller learns it
/// from the node; the answer's headers are written when the handler is done.
#[derive(Clone)]
pub(crate) struct ReplayedFlag(Arc<AtomicBool>);

impl ReplayedFlag {
    /// Attaches the flag to a request that has a key.
    pub(crate) fn attach<B>(request: &mut Request<B>) -> Option<Self> {
        if !request.headers().contains_key(IDEMPOTENCY_KEY) {
            return None;
        }
        let replayed = Self(Arc::default());
        request.extensions_mut().insert(replayed.clone());
        Some(replayed)
    }

    /// Marks the answer with `Idempotent-Replayed: true` if it was given before.
    pub(crate) fn set_header(&self, headers: &mut HeaderMap) {
        if self.0.load(Relaxed) {
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
    }
}

/// Passes the key on. Reads do not use it.
pub(crate) fn forward_key(
    request: &http::request::Parts,
    scope: &mut Scope,
) -> Result<(), ApiError> {
    if request.method != Method::GET && request.method != Method::HEAD {
        scope.idempotency_key = parse_key(&request.headers)?;
        scope.replayed =
            request.extensions.get::<ReplayedFlag>().map(|replayed| Arc::clone(&replayed.0));
    }
    Ok(())
}

fn parse_key(headers: &HeaderMap) -> Result<String, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(String::new());
    };
    let good = (1..=MAX_IDEMPOTENCY_KEY_BYTES).contains(&value.len())
        && value.as_bytes().iter().all(|byte| matches!(byte, b' '..=b'~'))
        && values.next().is_none();
    match value.to_str() {
        Ok(key) if good => Ok(key.to_owned()),
        _ => Err(ApiError::invalid(format!(
            "the Idempotency-Key header takes one key of 1 to {MAX_IDEMPOTENCY_KEY_BYTES} printable ASCII characters"
        ))),
    }
}
