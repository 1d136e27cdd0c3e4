//! What happens to every request, whatever its path: a name, CORS, metrics, the form of errors, and a guard against
//! panics. One function in place of a stack of layers: each layer would cost an allocation and a call per request.

use crate::access;
use crate::body::announced;
use crate::connection::Connection;
use crate::cors::Cors;
use crate::error::{self, ApiError};
use crate::idempotency::Replayed;
use crate::metrics::Held;
use crate::protocol;
use crate::request_id::{RequestId, X_REQUEST_ID};
use crate::shared::Shared;
use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::response::{IntoResponse as _, Response};
use debros_proto::Code;
use futures::FutureExt as _;
use http::header::{CONNECTION, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Version};
use hyper::body::Incoming;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;
use tower::Service as _;

/// No browser guesses that an answer is a page or a script: much of what goes out was written by strangers.
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// The gateway as hyper sees it.
#[derive(Clone)]
pub(crate) struct Front {
    router: Router,
    shared: Arc<Shared>,
}

impl Front {
    pub(crate) fn new(router: Router<Arc<Shared>>, shared: Arc<Shared>) -> Self {
        Self { router: router.with_state(Arc::clone(&shared)), shared }
    }

    pub(crate) async fn answer(mut self, mut request: Request<Incoming>, ends: Connection) -> Response {
        let started = Instant::now();
        let metrics = &self.shared.metrics;
        let _in_flight = Held::new(&metrics.in_flight);
        if let Some(length) = announced(request.headers()) {
            metrics.request_bytes.increment(length);
        }
        let route = metrics.route(request.uri().path());
        let (method, version) = (request.method().clone(), request.version());
        let id = RequestId::of(request.headers());
        let origin = request.headers().get(ORIGIN).cloned();
        let replayed = Replayed::watch(&mut request);

        let checked = protocol::check(&mut request);
        let namespace = tracing::enabled!(tracing::Level::DEBUG).then(|| access::namespace(&request, &self.shared));

        let mut response = if let Err(refusal) = checked {
            refusal.into_response()
        } else if method == Method::OPTIONS {
            Cors::preflight()
        } else {
            request.extensions_mut().insert(id.clone());
            request.extensions_mut().insert(ends);
            guarded(&mut self.router, request.map(Body::new)).await
        };

        error::finish(&mut response, &id, method == Method::HEAD);
        protocol::strip_body(&mut response);
        if let Some(namespace) = namespace {
            tracing::debug!(
                %method,
                route = route.name(),
                status = response.status().as_u16(),
                ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                request_id = id.as_str(),
                namespace,
                "answered"
            );
        }
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        headers.insert(X_REQUEST_ID, id.header());
        if let Some(replayed) = replayed {
            replayed.mark(headers);
        }
        self.shared.cors.mark(origin, headers);
        if self.shared.is_draining() && version <= Version::HTTP_11 && !headers.contains_key(CONNECTION) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        metrics.response_bytes.increment(response.body().size_hint().lower());
        route.answered(&method, response.status(), started.elapsed());
        response
    }
}

/// A defect in one handler is one failed request, in the form of all others.
async fn guarded(router: &mut Router, request: Request<Body>) -> Response {
    match AssertUnwindSafe(router.call(request)).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            tracing::error!("a handler panicked");
            ApiError::new(Code::Internal, "the gateway has a defect: its log has more").into_response()
        }
    }
}
