//! The node's health and status, as the gateway knows them.

use crate::kept::Kept;
use debros_client::rpc::{HealthResponse, StatusResponse};
use debros_client::{Client, Scope};
use debros_proto::{Code, Error, now_ms};
use std::time::{Duration, Instant};

/// How long the node may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// When it makes sense to ask again while there is no node.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The node's health and status, asked for at most once a second.
#[derive(Default)]
pub(crate) struct Health {
    health: Kept<Asked>,
    status: Kept<Result<StatusResponse, Error>>,
}

/// How the node is, as it said or did not.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) answer: Result<HealthResponse, Error>,
    pub(crate) took: Duration,
    pub(crate) at_ms: i64,
}

impl Health {
    pub(crate) async fn health(&self, client: &Client) -> Asked {
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

    pub(crate) async fn status(&self, client: &Client) -> Result<StatusResponse, Error> {
        let ask = async { connected(client)?.network().status().await };
        self.status.get(ask).await
    }
}

/// A client for public calls, if there is a node now: waiting for one would make a dead network look slow.
pub(crate) fn connected(client: &Client) -> Result<Client, Error> {
    if !client.is_connected() {
        // Whoever asks waits for the node, though not in this answer.
        client.dial_lost_nodes();
        return Err(Error::new(Code::Unavailable, "no node can be reached").retry_after(RETRY_AFTER));
    }
    Ok(client.scoped(Scope { timeout: PATIENCE, ..Scope::default() }))
}

impl Asked {
    pub(crate) fn is_ok(&self) -> bool {
        self.answer.as_ref().is_ok_and(|health| health.checks.iter().all(|check| check.ok))
    }
}
