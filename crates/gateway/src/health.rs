//! What anyone may ask: is the gateway alive, can it serve, which build is it, and its metrics.

use crate::call::Call;
use crate::error::{Answer, ApiError, ErrorBody};
use crate::kept::Kept;
use crate::respond::{json, with_type};
use crate::shared::Shared;
use axum::body::Body;
use axum::extract::State;
use debros_client::rpc::{HealthResponse, StatusResponse};
use debros_client::{Client, Scope};
use debros_proto::{Code, Error, now_ms};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the node may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// The node's health and status, asked for at most once a second.
#[derive(Default)]
pub(crate) struct Health {
    health: Kept<Asked>,
    status: Kept<Result<StatusResponse, Error>>,
}

#[derive(Clone)]
struct Asked {
    answer: Result<HealthResponse, Error>,
    took: Duration,
    at_ms: i64,
}

impl Health {
    async fn health(&self, client: &Client) -> Asked {
        let ask = async {
            let started = Instant::now();
            let answer = match connected(client) {
                Ok(client) => client.health().await,
                Err(error) => Err(error),
            };
            Asked { answer, took: started.elapsed(), at_ms: now_ms() }
        };
        self.health.get(ask).await
    }

    async fn status(&self, client: &Client) -> Result<StatusResponse, Error> {
        let ask = async { connected(client)?.network().status().await };
        self.status.get(ask).await
    }
}

/// A client for public calls, if there is a node now: waiting for one would make a dead network look slow.
pub(crate) fn connected(client: &Client) -> Result<Client, Error> {
    if !client.is_connected() {
        return Err(Error::new(Code::Unavailable, "there is no connection to a node"));
    }
    Ok(client.scoped(Scope { timeout: PATIENCE, ..Scope::default() }))
}

impl Asked {
    fn is_ok(&self) -> bool {
        self.answer.as_ref().is_ok_and(|health| health.checks.iter().all(|check| check.ok))
    }
}

/// How gateway and node are.
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
pub(crate) struct CheckAnswer {
    name: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Microseconds.
    took_us: u64,
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

/// The node behind it; nulls when it can not be reached.
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

/// `GET /health`: always 200; `status` tells.
#[utoipa::path(
    get, path = "/v1/health", tag = "operation", operation_id = "health", security(()),
    responses((status = 200, body = HealthAnswer)),
)]
pub(crate) async fn health(State(shared): State<Arc<Shared>>) -> Answer {
    let asked = shared.health.health(&shared.client).await;
    let draining = shared.is_draining();
    let (client_status, error, checks, updated) = match &asked.answer {
        Ok(health) => {
            let checks = health.checks.iter().map(|check| CheckAnswer {
                name: check.name.clone(),
                ok: check.ok,
                error: Some(check.error.clone()).filter(|error| !error.is_empty()),
                took_us: check.took_us,
            });
            let status = if asked.is_ok() { "ok" } else { "degraded" };
            (status, None, checks.collect(), health.checked_at)
        }
        Err(error) => ("unreachable", Some(error.message.clone()), Vec::new(), asked.at_ms),
    };
    let answer = HealthAnswer {
        status: if asked.is_ok() && !draining { "ok" } else { "degraded" },
        server: ServerHealth {
            status: if draining { "stopping" } else { "ok" },
            started_at: timestamp(shared.started.at_ms),
            uptime: shared.started.uptime(),
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

/// `GET /ready`: 200 or 503.
#[utoipa::path(
    get, path = "/ready", tag = "operation", operation_id = "ready", security(()),
    responses((status = 200, body = ReadyAnswer), (status = 503, body = ErrorBody)),
)]
pub(crate) async fn ready(State(shared): State<Arc<Shared>>) -> Answer {
    let not_ready = |why: String| Err(ApiError::new(Code::Unavailable, why));
    if shared.is_draining() {
        return not_ready("the gateway is stopping".to_owned());
    }
    let asked = shared.health.health(&shared.client).await;
    match &asked.answer {
        Err(error) => not_ready(error.message.clone()),
        Ok(health) => match health.checks.iter().find(|check| !check.ok) {
            Some(check) => not_ready(format!("the node's probe \"{}\" failed: {}", check.name, check.error)),
            None => json(StatusCode::OK, &ReadyAnswer { status: "ready" }),
        },
    }
}

/// `GET /status`.
#[utoipa::path(
    get, path = "/v1/status", tag = "operation", operation_id = "status", security(()),
    responses((status = 200, body = StatusAnswer)),
)]
pub(crate) async fn status(State(shared): State<Arc<Shared>>) -> Answer {
    let node = shared.health.status(&shared.client).await.ok();
    let answer = StatusAnswer {
        server: ServerStatus { started_at: timestamp(shared.started.at_ms), uptime: shared.started.uptime() },
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

/// `GET /v1/version`.
#[utoipa::path(
    get, path = "/v1/version", tag = "operation", operation_id = "version", security(()),
    responses((status = 200, body = VersionAnswer)),
)]
pub(crate) async fn version(State(shared): State<Arc<Shared>>) -> Answer {
    let answer = VersionAnswer {
        version: &shared.build.version,
        commit: &shared.build.commit,
        build_time: &shared.build.build_time,
        started_at: timestamp(shared.started.at_ms),
        uptime: shared.started.uptime(),
    };
    json(StatusCode::OK, &answer)
}

/// `GET /metrics`: for any caller whose credential is good.
#[utoipa::path(
    get, path = "/metrics", tag = "operation", operation_id = "metrics",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 501, description = "This program keeps no metrics.", body = ErrorBody),
    ),
)]
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>, mut call: Call) -> Answer {
    call.check().await?;
    let Some(handle) = &shared.prometheus else {
        return Err(ApiError::new(Code::Unimplemented, "this program keeps no metrics"));
    };
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(with_type(StatusCode::OK, text, Body::from(handle.render())))
}

/// Milliseconds since the Unix epoch as RFC 3339, UTC.
pub(crate) fn timestamp(ms: i64) -> String {
    let (days, within) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (seconds, milli) = (within / 1000, within % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar. Years are counted from March,
/// so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_IN_400_YEARS: i64 = 146_097;
    // Days from 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(DAYS_IN_400_YEARS), days.rem_euclid(DAYS_IN_400_YEARS));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(timestamp(ms), text);
        }
    }
}
