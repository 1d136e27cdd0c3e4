//! `GET /v1/pubsub/ws?topic=`: from an HTTP request to a WebSocket that is subscribed to a topic.

use crate::caller_scope::caller_scope;
use crate::connection_info::ConnectionInfo;
use crate::connection_table::ConnectionPermit;
use crate::credential_proof::CredentialUse;
use crate::credential_resolver::{CallerCredential, STATIC_KEY};
use crate::error::{ApiError, ErrorBody, HandlerResult};
use crate::fair_budget::{BudgetExceeded, CallerBuckets};
use crate::gateway_state::GatewayState;
use crate::metrics::GaugeGuard;
use crate::query_params::QueryParams;
use crate::request_id::RequestId;
use crate::websocket_session::{self, WebSocketSession};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use debros_proto::{Code, Error, Topic};
use http::header::{
    CONNECTION, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use std::sync::Arc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Opens a WebSocket that is subscribed to a topic.
///
/// Each text or binary frame is published to the topic. Messages arrive as binary frames. Text
/// frames report events: `{"type":"missed","count":3}` (this subscriber was too slow),
/// `{"type":"reconnected"}` (the connection to the node was lost for a while: messages may be
/// missing), `{"type":"error","code":"…","error":"…"}` (a message was not published, or the
/// subscription ended).
#[utoipa::path(
    get, path = "/v1/pubsub/ws", tag = "pubsub", operation_id = "pubsub_ws",
    params(
        ("topic" = String, Query, description = "1 to 256 bytes of UTF-8."),
        ("token" = Option<String>, Query, description = "An access token, for browsers. Better, and for API keys the only way: offer the subprotocol `bearer.<credential>`, with %3A for a colon."),
    ),
    responses(
        (status = 101, description = "The WebSocket is open and subscribed."),
        (status = 400, description = "Not a WebSocket handshake, or a bad topic.", body = ErrorBody),
        (status = 426, description = "Another version of WebSocket than 13.", body = ErrorBody),
        (status = 429, description = "The address or credential has too many WebSockets open.", body = ErrorBody),
        (status = 503, description = "Too many WebSockets are open.", body = ErrorBody),
    ),
)]
pub(crate) async fn open(
    State(shared): State<Arc<GatewayState>>,
    mut request: Request,
) -> HandlerResult {
    // The query may hold the credential, so it is read before the caller is known.
    let mut query = QueryParams::parse(request.uri().query())?;
    let token = query.take("token");
    let headers = request.headers();
    let (caller, protocol) =
        shared.credentials.resolve_websocket(headers, token.as_deref(), &shared.cors)?;
    let request_id = request.extensions().get::<RequestId>();
    let scope = caller_scope(&shared, &caller, query.take("namespace"), request_id)?;
    let [topic] = query.take_only(["topic"])?;
    let topic =
        topic.ok_or_else(|| ApiError::invalid("the query parameter \"topic\" is missing"))?;
    let topic = Topic::new(&topic)?;
    check_origin(&shared, headers)?;
    let accept = check_handshake(&request)?;

    let charge = shared
        .websockets
        .charge(websocket_buckets(&shared, &request, &caller), 1)
        .map_err(too_many_websockets)?;
    if shared.is_draining() {
        return Err(ApiError::new(Code::Unavailable, "the gateway is stopping"));
    }
    let client = shared.client.scoped(scope);
    let subscription = client.pubsub().subscribe(topic.as_str()).await?;

    if let Some(proof) = request.extensions().get::<CredentialUse>() {
        proof.mark_used();
    }
    let permit = request.extensions_mut().remove::<Arc<ConnectionPermit>>();
    let permit = permit.ok_or_else(|| Error::internal("a WebSocket came over no connection"))?;
    let upgrade = hyper::upgrade::on(&mut request);
    let session = WebSocketSession {
        client,
        topic,
        events: websocket_session::subscription_events(subscription),
        open_gauge: GaugeGuard::new(&shared.metrics.websockets),
        charge,
        permit,
        shared: Arc::clone(&shared),
    };
    let tasks = shared.tasks.clone();
    shared.tasks.spawn(async move {
        // The connection may break before the answer is written: then the whole session ends here.
        if let Ok(upgraded) = upgrade.await {
            // A task of its own, no larger than an open WebSocket needs.
            tasks.spawn(websocket_session::run_session(upgraded, session));
        }
    });
    Ok(switching_protocols(accept, protocol))
}

/// Identifies the caller: the credential may be in the places that only a WebSocket has.
fn websocket_buckets(
    shared: &GatewayState,
    request: &Request,
    caller: &CallerCredential,
) -> CallerBuckets {
    let at = request
        .extensions()
        .get::<ConnectionInfo>()
        .map(|connection| connection.holder)
        .unwrap_or_default();
    match &caller.lent_access {
        None => shared.callers.with_credential(at, Some(&caller.credential)),
        // A caller with a static key, which may be in its subprotocol, counts with its namespace.
        Some(access) if access.method == STATIC_KEY => {
            shared.callers.with_credential(at, Some(access.namespace.as_str()))
        }
        Some(_) => at,
    }
}

fn too_many_websockets(refused: BudgetExceeded) -> ApiError {
    match refused {
        BudgetExceeded::Caller => ApiError::new(
            Code::RateLimited,
            "this address or credential has as many WebSockets open as are left for all others: close some, or subscribe to \
             fewer topics",
        ),
        BudgetExceeded::All => ApiError::new(
            Code::Overloaded,
            "too many WebSockets are open on this gateway: try again later",
        ),
    }
}

fn switching_protocols(accept: HeaderValue, protocol: Option<HeaderValue>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// Browsers do not apply CORS to WebSockets: the server has to.
fn check_origin(shared: &GatewayState, headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(ORIGIN) {
        Some(origin) if !shared.cors.allows(origin) => {
            Err(ApiError::new(Code::Forbidden, "pages of this origin may not open WebSockets here"))
        }
        _ => Ok(()),
    }
}

/// Checks the handshake of RFC 6455 and returns the value for Sec-WebSocket-Accept.
fn check_handshake(request: &Request) -> Result<HeaderValue, ApiError> {
    let headers = request.headers();
    let bad = |what: &str| ApiError::invalid(format!("not a WebSocket handshake: {what}"));
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(bad("it must be a GET request over HTTP/1.1"));
    }
    if !header_has_token(headers, &UPGRADE, "websocket")
        || !header_has_token(headers, &CONNECTION, "upgrade")
    {
        return Err(bad(
            "the headers \"Upgrade: websocket\" and \"Connection: Upgrade\" are needed",
        ));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version.as_bytes() != b"13") {
        return Err(ApiError::other_websocket_version());
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .filter(|key| STANDARD.decode(key.as_bytes()).is_ok_and(|bytes| bytes.len() == 16))
        .ok_or_else(|| bad("Sec-WebSocket-Key must be 16 bytes in base64"))?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| bad("Sec-WebSocket-Key cannot be used"))
}

fn header_has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}
