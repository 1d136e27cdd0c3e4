//! What happens to every request, whatever its path: a name, CORS, metrics, the form of errors, and a guard against
//! panics. One function in place of a stack of layers: each layer would cost an allocation and a call per request.

use crate::access;
use crate::answer_body::AnswerBody;
use crate::body::{self, announced};
use crate::connection::Connection;
use crate::connection_state::ConnectionState;
use crate::cors::Cors;
use crate::credential::Credentials;
use crate::credential_proof::CredentialProof;
use crate::error::{self, ApiError};
use crate::fair_budget::{CallerBuckets, ChargeGuard};
use crate::idempotency::Replayed;
use crate::metrics::Held;
use crate::protocol;
use crate::request_body::{RequestBody, UnreadSlot};
use crate::request_cost::{self, REQUEST};
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

    pub(crate) async fn answer(
        mut self,
        request: Request<Incoming>,
        mut ends: Connection,
        state: Arc<ConnectionState>,
    ) -> Response<AnswerBody> {
        let started = Instant::now();
        let metrics = &self.shared.metrics;
        let _in_flight = Held::new(&metrics.in_flight);
        let under_way = state.begin_activity();
        if let Some(length) = announced(request.body()) {
            metrics.request_bytes.increment(length);
        }
        let unread = UnreadBody::watch(&request);
        let mut request = request.map(|body| match &unread {
            None => Body::empty(),
            Some(unread) => Body::new(RequestBody::new(body, Arc::clone(&state), unread.body.clone())),
        });
        let route = metrics.route(request.uri().path());
        let (method, version) = (request.method().clone(), request.version());
        let id = RequestId::of(request.headers());
        let origin = request.headers().get(ORIGIN).cloned();
        let replayed = Replayed::watch(&mut request);
        ends.credential = Credentials::presented(request.headers()).map(Arc::from);
        ends.holder = self.holder(&request, &ends);
        let holder = ends.holder;
        let proof = CredentialProof::watch(&state, holder, &mut request);

        let namespace = tracing::enabled!(tracing::Level::DEBUG).then(|| access::namespace(&request, &self.shared));
        let admitted = protocol::check(&mut request).and_then(|()| self.admit_request(&request, &state, holder));
        let (mut response, charge) = match admitted {
            Err(refusal) => {
                drop(request);
                (refusal.into_response(), None)
            }
            Ok(charge) if method == Method::OPTIONS => {
                drop(request);
                (Cors::preflight(), Some(charge))
            }
            Ok(mut charge) => {
                request.extensions_mut().insert(id.clone());
                request.extensions_mut().insert(ends);
                let response = guarded(&mut self.router, request).await;
                // From here on it counts for its answer, whose bytes are there: whether they fit is what is asked.
                let size = usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX);
                let fits = charge.set(size.max(REQUEST)).is_ok();
                state.note_answer(size, fits);
                if size > REQUEST {
                    // Whoever has many such requests waiting on one connection gives way to others after each.
                    tokio::task::yield_now().await;
                }
                (if fits { response } else { answer_refusal(&method, size).into_response() }, Some(charge))
            }
        };
        if let Some(proof) = proof
            && proof.is_given(&response)
        {
            state.mark_proven();
            self.shared.callers.mark_proven(holder);
        }

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
        if version <= Version::HTTP_11 {
            let is_set = headers.contains_key(CONNECTION);
            let is_left = match unread {
                Some(unread) => !unread.discard(&state, is_set).await,
                None => false,
            };
            let is_last = is_left || self.shared.is_draining() || (state.on_trial && !state.is_proven());
            if is_last && !is_set {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        } else if let Some(unread) = unread {
            unread.await_end(&state);
        }
        metrics.response_bytes.increment(response.body().size_hint().lower());
        route.answered(&method, response.status(), started.elapsed());
        response.map(|body| match charge {
            Some(charge) => AnswerBody::counted(body, charge, under_way, version == Version::HTTP_2),
            None => AnswerBody::uncounted(body),
        })
    }

    /// Who calls: the address, which a proxy may name, and the credential. What is wrong with either is told later.
    fn holder(&self, request: &Request<Body>, ends: &Connection) -> CallerBuckets {
        let Shared { proxies, callers, .. } = &*self.shared;
        let (peer, headers) = (ends.peer.ip(), request.headers());
        let at = if proxies.trusts(peer.to_canonical()) {
            callers.for_address(proxies.caller(peer, headers).unwrap_or(peer))
        } else {
            ends.holder
        };
        callers.with_credential(at, ends.credential.as_deref())
    }

    /// Lets a request in, as far as there is memory for it, and on a connection of the reserve with a credential alone.
    fn admit_request(
        &self,
        request: &Request<Body>,
        state: &ConnectionState,
        holder: CallerBuckets,
    ) -> Result<ChargeGuard, ApiError> {
        let is_strange = !holder.shows_credential() && !self.shared.credentials.lets_everybody_in();
        if state.on_trial && !state.is_proven() && is_strange {
            return Err(ApiError::new(
                Code::Overloaded,
                "all connections of this gateway are taken, and what is left is for callers that show a credential",
            )
            .closing());
        }
        let size = request_cost::of_head(request);
        let mut charge = self.shared.memory.charge(holder, size)?;
        let unfit = state.unfit_answer();
        if unfit > size {
            // The last answer found no room. Another as large is not made in vain: it takes the processor from others.
            charge.set(unfit)?;
            charge.set(size)?;
        }
        Ok(charge)
    }
}

/// Says that there was no room for an answer, and whether the call was made.
fn answer_refusal(method: &Method, size: usize) -> ApiError {
    tracing::debug!(size, "an answer is not sent: there is no room for it");
    let room = "the answer does not fit beside what this caller and others have not read yet";
    if method.is_safe() {
        return ApiError::new(Code::Overloaded, format!("{room}: read the answers, and ask again"));
    }
    ApiError::new(Code::UnknownOutcome, format!("{room}; the call was made: what it changed is changed"))
}

/// A body that may not be read to its end.
struct UnreadBody {
    body: UnreadSlot,
    announced: Option<u64>,
    awaits_permission: bool,
}

impl UnreadBody {
    /// `None` for a request without a body.
    fn watch(request: &Request<Incoming>) -> Option<Self> {
        (!request.body().is_end_stream()).then(|| Self {
            body: UnreadSlot::default(),
            announced: announced(request.body()),
            awaits_permission: body::awaits_permission(request.headers()),
        })
    }

    /// Whether the connection can serve the next request: the body was read, or its rest is here and small.
    async fn discard(self, state: &Arc<ConnectionState>, closes: bool) -> bool {
        match self.body.take() {
            None => true,
            Some(body) => {
                // What is thrown away is taken too.
                let body = Body::new(RequestBody::new(body, Arc::clone(state), UnreadSlot::default()));
                body::discard_rest(body, self.announced, self.awaits_permission, closes).await
            }
        }
    }

    /// Over HTTP/2 the connection goes on in any case. A small rest is taken as it comes: the library
    /// drops what comes for a body without a reader, and that would count. A large one is called off.
    fn await_end(self, state: &Arc<ConnectionState>) {
        if let Some(body) = self.body.take()
            && !self.awaits_permission
            && body::may_be_small(self.announced)
        {
            body::await_end(Body::new(RequestBody::new(body, Arc::clone(state), UnreadSlot::default())));
        }
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
