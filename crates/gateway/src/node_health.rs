//! The node's health and status, as the gateway knows them.

use crate::ttl_cache::TtlCache;
use debros_client::rpc::{HealthResponse, StatusResponse};
use debros_client::{Client, Scope};
use debros_proto::{Code, Error, now_ms};
use std::time::{Duration, Instant};

/// How long the node may take to report its health.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before it is asked again while there is no node.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The node's health and status, asked for at most once a second.
#[derive(Default)]
pub(crate) struct NodeHealthCache {
    health: TtlCache<HealthSample>,
    status: TtlCache<Result<StatusResponse, Error>>,
}

/// The node's health, as reported or not.
#[derive(Clone)]
pub(crate) struct HealthSample {
    pub(crate) answer: Result<HealthResponse, Error>,
    pub(crate) took: Duration,
    pub(crate) at_ms: i64,
}

impl NodeHealthCache {
    pub(crate) async fn health(&self, client: &Client) -> HealthSample {
        let ask = async {
            let started = Instant::now();
            let answer = match connected_client(client) {
                Ok(client) => client.health().await,
                Err(error) => Err(error),
            };
            HealthSample { answer, took: started.elapsed(), at_ms: now_ms() }
        };
        self.health.get_or_fetch(ask).await
    }

    pub(crate) async fn status(&self, client: &Client) -> Result<StatusResponse, Error> {
        let ask = async { connected_client(client)?.network().status().await };
        self.status.get_or_fetch(ask).await
    }
}

/// A client for public calls, if there is a node now: waiting for one would make a dead network
/// look slow.
pub(crate) fn connected_client(client: &Client) -> Result<Client, Error> {
    if !client.is_connected() {
        // The question has the node dialled again, though not for this answer.
        client.dial_lost_nodes();
        return Err(
            Error::new(Code::Unavailable, "no node can be reached").retry_after(RETRY_AFTER)
        );
    }
    Ok(client.scoped(Scope { timeout: NODE_TIMEOUT, ..Scope::default() }))
}

impl HealthSample {
    pub(crate) fn all_checks_pass(&self) -> bool {
        self.answer.as_ref().is_ok_and(|health| health.checks.iter().all(|check| check.ok))
    }
}
