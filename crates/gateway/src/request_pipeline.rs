//! The steps of every request, whatever its path: id, CORS, metrics, the form of errors, and a
//! guard against panics. One function in place of a stack of layers: each layer would cost an
//! allocation and a call per request.

use crate::access_log;
use crate::body_reader::{self, announced_length};
use crate::connection_info::ConnectionInfo;
use crate::connection_state::{ActivityGuard, ConnectionState};
use crate::cors::CorsPolicy;
use crate::credential_proof::CredentialUse;
use crate::credential_resolver::CredentialResolver;
use crate::error::{self, ApiError};
use crate::fair_budget::{CallerBuckets, ChargeGuard};
use crate::gateway_state::GatewayState;
use crate::http_conformance;
use crate::idempotency::ReplayedFlag;
use crate::metrics::GaugeGuard;
use crate::request_body::{RequestBody, UnreadSlot};
use crate::request_cost::{self, BASE_REQUEST_BYTES};
use crate::request_id::{RequestId, X_REQUEST_ID};
use crate::response_body::ResponseBody;
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

/// No browser guesses that an answer is a page or a script: strangers wrote much of the content.
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// The gateway as hyper sees it.
#[derive(Clone)]
pub(crate) struct RequestPipeline {
    router: Router,
    shared: Arc<GatewayState>,
}

impl RequestPipeline {
    pub(crate) fn new(router: Router<Arc<GatewayState>>, shared: Arc<GatewayState>) -> Self {
        Self { router: router.with_state(Arc::clone(&shared)), shared }
    }

    pub(crate) async fn handle(
        mut self,
        request: Request<Incoming>,
        mut ends: ConnectionInfo,
        under_way: ActivityGuard,
    ) -> Response<ResponseBody> {
        let started = Instant::now();
        let metrics = &self.shared.metrics;
        let _in_flight = GaugeGuard::new(&metrics.in_flight);
        let state = Arc::clone(under_way.state());
        if let Some(length) = announced_length(request.body()) {
            metrics.request_bytes.increment(length);
        }
        let unread = UnreadBody::from_request(&request);
        let mut request = request.map(|body| match &unread {
            None => Body::empty(),
            Some(unread) => {
                Body::new(RequestBody::new(body, Arc::clone(&state), unread.body.clone()))
            }
        });
        let route = metrics.route_for_path(request.uri().path());
        let (method, version) = (request.method().clone(), request.version());
        let id = RequestId::from_headers(request.headers());
        let origin = request.headers().get(ORIGIN).cloned();
        let replayed = ReplayedFlag::attach(&mut request);
        ends.credential = CredentialResolver::find_in_headers(request.headers()).map(Arc::from);
        ends.holder = self.caller_buckets(&request, &ends);
        let holder = ends.holder;
        let proof = CredentialUse::attach(&state, holder, &mut request);

        let namespace = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| access_log::request_namespace(&request, &self.shared));
        let admitted = http_conformance::check_request(&mut request)
            .and_then(|()| self.admit_request(&request, &state, holder));
        let (mut response, charge) = match admitted {
            Err(refusal) => {
                drop(request);
                (refusal.into_response(), None)
            }
            Ok(charge) if method == Method::OPTIONS => {
                drop(request);
                (CorsPolicy::preflight_response(), Some(charge))
            }
            Ok(mut charge) => {
                request.extensions_mut().insert(id.clone());
                request.extensions_mut().insert(ends);
                let response = call_catching_panics(&mut self.router, request).await;
                // From here on the charge is for the answer, whose bytes are in memory already: it
                // is tested whether they fit.
                let size =
                    usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX);
                let fits = charge.resize(size.max(BASE_REQUEST_BYTES)).is_ok();
                state.record_response(size, fits);
                if size > BASE_REQUEST_BYTES {
                    // A caller with many such requests on one connection yields to others after
                    // each.
                    tokio::task::yield_now().await;
                }
                (
                    if fits {
                        response
                    } else {
                        no_room_for_response(&method, size).into_response()
                    },
                    Some(charge),
                )
            }
        };
        if let Some(proof) = proof
            && proof.was_accepted(&response)
        {
            state.mark_proven();
            self.shared.callers.mark_proven(holder);
        }

        error::write_error_body(&mut response, &id, method == Method::HEAD);
        http_conformance::strip_body(&mut response);
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
        headers.insert(X_REQUEST_ID, id.into_header());
        if let Some(replayed) = replayed {
            replayed.set_header(headers);
        }
        self.shared.cors.set_headers(origin, headers);
        if version <= Version::HTTP_11 {
            let is_set = headers.contains_key(CONNECTION);
            let is_left = match unread {
                Some(unread) => !unread.discard_rest(&state, is_set).await,
                None => false,
            };
            let is_last =
                is_left || self.shared.is_draining() || (state.on_trial && !state.is_proven());
            if is_last && !is_set {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        } else if let Some(unread) = unread {
            unread.await_end(&state);
        }
        metrics.response_bytes.increment(response.body().size_hint().lower());
        route.record_response(&method, response.status(), started.elapsed());
        response.map(|body| match charge {
            Some(charge) => {
                ResponseBody::charged(body, charge, under_way, version == Version::HTTP_2)
            }
            None => ResponseBody::uncharged(body),
        })
    }

    /// Identifies the caller: the address, which a proxy may name, and the credential. Errors in
    /// either are reported later.
    fn caller_buckets(&self, request: &Request<Body>, ends: &ConnectionInfo) -> CallerBuckets {
        let GatewayState { proxies, callers, .. } = &*self.shared;
        let (peer, headers) = (ends.peer.ip(), request.headers());
        let at = if proxies.is_trusted(peer.to_canonical()) {
            callers.for_address(proxies.client_address(peer, headers).unwrap_or(peer))
        } else {
            ends.holder
        };
        callers.with_credential(at, ends.credential.as_deref())
    }

    /// Admits a request if there is memory for it, and on a connection of the reserve only with a
    /// credential.
    fn admit_request(
        &self,
        request: &Request<Body>,
        state: &ConnectionState,
        holder: CallerBuckets,
    ) -> Result<ChargeGuard, ApiError> {
        let is_strange = !holder.shows_credential() && !self.shared.credentials.allows_anonymous();
        if state.on_trial && !state.is_proven() && is_strange {
            return Err(ApiError::new(
                Code::Overloaded,
                "all connections of this gateway are taken, and what is left is for callers that show a credential",
            )
            .with_close());
        }
        let size = request_cost::head_cost(request);
        let mut charge = self.shared.memory.charge(holder, size)?;
        let unfit = state.rejected_response_size();
        if unfit > size {
            // The last answer found no room. Another one of that size is not made in vain: it would
            // take processor time from others.
            charge.resize(unfit)?;
            charge.resize(size)?;
        }
        Ok(charge)
    }
}

/// The error for an answer without room; it says whether the call was made.
fn no_room_for_response(method: &Method, size: usize) -> ApiError {
    tracing::debug!(size, "an answer is not sent: there is no room for it");
    let room = "the answer does not fit beside what this caller and others have not read yet";
    if method.is_safe() {
        return ApiError::new(Code::Overloaded, format!("{room}: read the answers, and ask again"));
    }
    ApiError::new(
        Code::UnknownOutcome,
        format!("{room}; the call was made: what it changed is changed"),
    )
}

/// A body that may not be read to its end.
struct UnreadBody {
    body: UnreadSlot,
    announced: Option<u64>,
    awaits_permission: bool,
}

impl UnreadBody {
    /// `None` for a request without a body.
    fn from_request(request: &Request<Incoming>) -> Option<Self> {
        (!request.body().is_end_stream()).then(|| Self {
            body: UnreadSlot::default(),
            announced: announced_length(request.body()),
            awaits_permission: body_reader::awaits_continue(request.headers()),
        })
    }

    /// Whether the connection can serve the next request: the body was read, or its rest has come
    /// and is small.
    async fn discard_rest(self, state: &Arc<ConnectionState>, closes: bool) -> bool {
        match self.body.take_body() {
            None => true,
            Some(body) => {
                // Discarded bytes count as taken too.
                let body =
                    Body::new(RequestBody::new(body, Arc::clone(state), UnreadSlot::default()));
                body_reader::discard_rest(body, self.announced, self.awaits_permission, closes)
                    .await
            }
        }
    }

    /// Over HTTP/2 the connection continues in any case. A small rest is taken as it comes: the
    /// library drops the data of a body without a reader, and that would count. A stream with a
    /// large rest is reset.
    fn await_end(self, state: &Arc<ConnectionState>) {
        if let Some(body) = self.body.take_body()
            && !self.awaits_permission
            && body_reader::may_be_small(self.announced)
        {
            body_reader::await_end(Body::new(RequestBody::new(
                body,
                Arc::clone(state),
                UnreadSlot::default(),
            )));
        }
    }
}

/// A defect in one handler is one failed request, in the form of all others.
async fn call_catching_panics(router: &mut Router, request: Request<Body>) -> Response {
    match AssertUnwindSafe(router.call(request)).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            tracing::error!("a handler panicked");
            ApiError::new(Code::Internal, "the gateway has a defect: its log has more")
                .into_response()
        }
    }
}
