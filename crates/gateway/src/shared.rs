//! What all requests of a gateway share.

use crate::connection::Proxies;
use crate::connection_table::ConnectionTable;
use crate::cors::Cors;
use crate::credential::Credentials;
use crate::fair_budget::{CallerHasher, FairBudget};
use crate::kept::Kept;
use crate::metrics::Metrics;
use crate::node_health::Health;
use crate::rate::SignInLimits;
use crate::site::Site;
use crate::{BuildInfo, Limits};
use debros_client::Client;
use debros_client::rpc::SigningKey;
use debros_proto::{Error, Namespace};
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// How far a gateway's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running,
    /// No new connections; every answer tells its caller that the connection ends; WebSockets are closed.
    Draining,
    /// Idle connections are closed, the others after the answer they work on.
    Closing,
    /// The deadline has passed: everything ends at once.
    Ended,
}

/// What all requests of a gateway share.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) credentials: Credentials,
    pub(crate) cors: Cors,
    /// Where a sign-in goes that names no namespace.
    pub(crate) namespace: Namespace,
    pub(crate) site: Site,
    pub(crate) proxies: Proxies,
    pub(crate) sign_in: SignInLimits,
    pub(crate) signing_keys: Kept<Result<Vec<SigningKey>, Error>>,
    pub(crate) limits: Limits,
    pub(crate) build: BuildInfo,
    pub(crate) started: Started,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) prometheus: Option<PrometheusHandle>,
    pub(crate) callers: CallerHasher,
    /// Bytes that callers hold.
    pub(crate) memory: Arc<FairBudget>,
    /// Open WebSockets.
    pub(crate) websockets: Arc<FairBudget>,
    pub(crate) places: Arc<ConnectionTable>,
    /// Tasks that must end before the gateway has ended.
    pub(crate) tasks: TaskTracker,
    pub(crate) phase: watch::Sender<Phase>,
    /// The same as `phase >= Draining`, cheap enough to be asked on every request.
    pub(crate) draining: AtomicBool,
}

impl Shared {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// When the gateway was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    pub(crate) at_ms: i64,
    pub(crate) at: Instant,
}

impl Started {
    pub(crate) fn now() -> Self {
        Self { at_ms: debros_proto::now_ms(), at: Instant::now() }
    }

    /// Seconds since then.
    pub(crate) fn uptime(&self) -> u64 {
        self.at.elapsed().as_secs()
    }
}
