//! Public questions: is the gateway alive, can it serve, which build is it; and its metrics.

use crate::api_call::ApiCall;
use crate::error::{ApiError, ErrorBody, HandlerResult};
use crate::gateway_state::GatewayState;
use crate::respond::{json, response_with_type};
use axum::body::Body;
use axum::extract::State;
use debros_client::rpc::HealthCheck;
use debros_proto::Code;
use debros_proto::limits::NAMESPACES_CHECK;
pub(crate) use debros_proto::time::rfc3339_millis as timestamp;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use std::sync::Arc;

/// The state of gateway and node.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct HealthAnswer {
    /// `ok` or `degraded`.
    status: &'static str,
    server: ServerHealth,
    client: ClientHealth,
}

/// The gateway itself.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ServerHealth {
    /// `ok` or `stopping`.
    status: &'static str,
    started_at: String,
    /// Seconds.
    uptime: u64,
}

/// The node behind it.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ClientHealth {
    /// `ok`, `degraded` when a probe failed, `unreachable` when the node did not answer.
    status: &'static str,
    /// Why the node did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The node's probes: a real write, read and publish.
    checks: Vec<CheckAnswer>,
    /// When the probes ran.
    last_updated: String,
    /// Milliseconds that the node took to answer.
    response_time: f64,
}

/// A probe of the node.
#[derive(Serialize, utoipa::ToSchema)]
pub struct CheckAnswer {
    name: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Microseconds.
    took_us: u64,
}

impl From<&HealthCheck> for CheckAnswer {
    fn from(check: &HealthCheck) -> Self {
        Self {
            name: check.name.clone(),
            ok: check.ok,
            error: Some(check.error.clone()).filter(|error| !error.is_empty()),
            took_us: check.took_us,
        }
    }
}

/// Whether the gateway can serve reads and writes now.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ReadyAnswer {
    #[schema(example = "ready")]
    status: &'static str,
}

/// Gateway and network in short.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct StatusAnswer {
    server: ServerStatus,
    network: NetworkStatus,
}

/// The gateway.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ServerStatus {
    started_at: String,
    /// Seconds.
    uptime: u64,
}

/// The node behind it; nulls if it cannot be reached.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct NetworkStatus {
    node_id: Option<String>,
    connected: bool,
    peer_count: u32,
    /// Bytes.
    database_size: Option<u64>,
    /// Seconds.
    uptime: Option<u64>,
}

/// Which build of the gateway this is.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct VersionAnswer<'a> {
    version: &'a str,
    commit: &'a str,
    build_time: &'a str,
    started_at: String,
    /// Seconds.
    uptime: u64,
}

/// Returns the state of the gateway and its node: always 200, the field status says it.
#[utoipa::path(
    get, path = "/v1/health", tag = "operation", operation_id = "health", security(()),
    responses((status = 200, body = HealthAnswer)),
)]
pub(crate) async fn health(State(shared): State<Arc<GatewayState>>) -> HandlerResult {
    let asked = shared.health.health(&shared.client).await;
    let draining = shared.is_draining();
    let (client_status, error, checks, updated) = match &asked.answer {
        Ok(health) => {
            let checks = health.checks.iter().map(CheckAnswer::from);
            let status = if asked.all_checks_pass() { "ok" } else { "degraded" };
            (status, None, checks.collect(), health.checked_at)
        }
        Err(error) => ("unreachable", Some(error.message.clone()), Vec::new(), asked.at_ms),
    };
    let answer = HealthAnswer {
        status: if asked.all_checks_pass() && !draining { "ok" } else { "degraded" },
        server: ServerHealth {
            status: if draining { "stopping" } else { "ok" },
            started_at: timestamp(shared.started.at_ms),
            uptime: shared.started.uptime_seconds(),
        },
        client: ClientHealth {
            status: client_status,
            error,
            checks,
            last_updated: timestamp(updated),
            response_time: asked.took.as_secs_f64() * 1000.0,
        },
    };
    json(StatusCode::OK, &answer)
}

/// Answers whether requests can be served: 200, or 503.
#[utoipa::path(
    get, path = "/ready", tag = "operation", operation_id = "ready", security(()),
    responses((status = 200, body = ReadyAnswer), (status = 503, body = ErrorBody)),
)]
pub(crate) async fn ready(State(shared): State<Arc<GatewayState>>) -> HandlerResult {
    let not_ready = |why: String| Err(ApiError::new(Code::Unavailable, why));
    if shared.is_draining() {
        return not_ready("the gateway is stopping".to_owned());
    }
    let asked = shared.health.health(&shared.client).await;
    match &asked.answer {
        Err(error) => not_ready(error.message.clone()),
        // Lost databases of single namespaces are no reason to send the other callers away.
        Ok(health) => {
            match health.checks.iter().find(|check| !check.ok && check.name != NAMESPACES_CHECK) {
                Some(check) => not_ready(format!(
                    "the node's probe \"{}\" failed: {}",
                    check.name, check.error
                )),
                None => json(StatusCode::OK, &ReadyAnswer { status: "ready" }),
            }
        }
    }
}

/// Returns since when the gateway runs, and which node it reaches.
#[utoipa::path(
    get, path = "/v1/status", tag = "operation", operation_id = "status", security(()),
    responses((status = 200, body = StatusAnswer)),
)]
pub(crate) async fn status(State(shared): State<Arc<GatewayState>>) -> HandlerResult {
    let node = shared.health.status(&shared.client).await.ok();
    let answer = StatusAnswer {
        server: ServerStatus {
            started_at: timestamp(shared.started.at_ms),
            uptime: shared.started.uptime_seconds(),
        },
        network: NetworkStatus {
            connected: node.is_some(),
            peer_count: node.as_ref().map_or(0, |node| node.peer_count),
            database_size: node.as_ref().map(|node| node.database_size),
            uptime: node.as_ref().map(|node| node.uptime_ms / 1000),
            node_id: node.map(|node| node.node_id),
        },
    };
    json(StatusCode::OK, &answer)
}

/// Returns the version.
#[utoipa::path(
    get, path = "/v1/version", tag = "operation", operation_id = "version", security(()),
    responses((status = 200, body = VersionAnswer)),
)]
pub(crate) async fn version(State(shared): State<Arc<GatewayState>>) -> HandlerResult {
    let answer = VersionAnswer {
        version: &shared.build.version,
        commit: &shared.build.commit,
        build_time: &shared.build.build_time,
        started_at: timestamp(shared.started.at_ms),
        uptime: shared.started.uptime_seconds(),
    };
    json(StatusCode::OK, &answer)
}

/// Returns metrics in Prometheus's format, to operators.
///
/// They describe all callers, and with sign-in open to every wallet anybody is one. Where no
/// credential is required, they are for everybody.
#[utoipa::path(
    get, path = "/metrics", tag = "operation", operation_id = "metrics",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 403, description = "The caller is no operator.", body = ErrorBody),
        (status = 501, description = "This program keeps no metrics.", body = ErrorBody),
    ),
)]
pub(crate) async fn metrics(
    State(shared): State<Arc<GatewayState>>,
    mut call: ApiCall,
) -> HandlerResult {
    call.verify_operator().await?;
    let Some(handle) = &shared.prometheus else {
        return Err(ApiError::new(Code::Unimplemented, "this program keeps no metrics"));
    };
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(response_with_type(StatusCode::OK, text, Body::from(handle.render())))
}
