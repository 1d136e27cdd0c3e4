//! Whether a request showed that its caller's credential is valid.

use crate::connection_state::ConnectionState;
use crate::fair_budget::CallerBuckets;
use axum::body::Body;
use axum::response::Response;
use http::{Request, StatusCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether a handler acted for a caller whose credential, or whose connection, is not known to be
/// valid yet.
#[derive(Clone)]
pub(crate) struct CredentialUse(Arc<AtomicBool>);

impl CredentialUse {
    pub(crate) fn attach(
        state: &ConnectionState,
        holder: CallerBuckets,
        request: &mut Request<Body>,
    ) -> Option<Self> {
        if state.is_proven() && (holder.is_proven() || !holder.shows_credential()) {
            return None;
        }
        let proof = Self(Arc::default());
        request.extensions_mut().insert(proof.clone());
        Some(proof)
    }

    /// The handler acts for a caller: if it succeeds, the caller's credential is valid.
    pub(crate) fn mark_used(&self) {
        self.0.store(true, Relaxed);
    }

    pub(crate) fn was_accepted(&self, response: &Response) -> bool {
        let status = response.status();
        let good = status.is_success()
            || status == StatusCode::NOT_MODIFIED
            || status == StatusCode::SWITCHING_PROTOCOLS;
        good && self.0.load(Relaxed)
    }
}
