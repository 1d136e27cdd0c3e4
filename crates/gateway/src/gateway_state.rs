//! State that all requests of a gateway share.

use crate::connection_info::TrustedProxies;
use crate::connection_table::ConnectionTable;
use crate::cors::CorsPolicy;
use crate::credential_resolver::CredentialResolver;
use crate::fair_budget::{CallerHasher, FairBudget};
use crate::metrics::GatewayMetrics;
use crate::node_health::NodeHealthCache;
use crate::public_origin::PublicOrigin;
use crate::sign_in_limits::SignInLimits;
use crate::ttl_cache::TtlCache;
use crate::{GatewayBuildInfo, GatewayLimits};
use debros_client::Client;
use debros_client::rpc::SigningKey;
use debros_proto::{Error, Namespace};
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// The phases of a gateway's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LifecyclePhase {
    Running,
    /// No new connections; every answer says that its connection ends; WebSockets are closed.
    Draining,
    /// Idle connections are closed, the others after their present answer.
    Closing,
    /// The deadline has passed: everything ends at once.
    Ended,
}

/// State that all requests of a gateway share.
pub(crate) struct GatewayState {
    pub(crate) client: Client,
    pub(crate) credentials: CredentialResolver,
    pub(crate) cors: CorsPolicy,
    /// The namespace of a sign-in that names none.
    pub(crate) namespace: Namespace,
    pub(crate) public_origin: PublicOrigin,
    pub(crate) proxies: TrustedProxies,
    pub(crate) sign_in: SignInLimits,
    pub(crate) signing_keys: TtlCache<Result<Vec<SigningKey>, Error>>,
    pub(crate) limits: GatewayLimits,
    pub(crate) build: GatewayBuildInfo,
    pub(crate) started: StartTime,
    pub(crate) health: NodeHealthCache,
    pub(crate) metrics: GatewayMetrics,
    pub(crate) prometheus: Option<PrometheusHandle>,
    pub(crate) callers: CallerHasher,
    /// Bytes that callers hold.
    pub(crate) memory: Arc<FairBudget>,
    /// Open WebSockets.
    pub(crate) websockets: Arc<FairBudget>,
    pub(crate) connections: Arc<ConnectionTable>,
    /// Tasks that must end before the gateway has ended.
    pub(crate) tasks: TaskTracker,
    pub(crate) phase: watch::Sender<LifecyclePhase>,
    /// The same as `phase >= Draining`, cheap enough for every request.
    pub(crate) draining: AtomicBool,
}

impl GatewayState {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// When the gateway was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StartTime {
    pub(crate) at_ms: i64,
    pub(crate) at: Instant,
}

impl StartTime {
    pub(crate) fn now() -> Self {
        Self { at_ms: debros_proto::now_ms(), at: Instant::now() }
    }

    /// Seconds since then.
    pub(crate) fn uptime_seconds(&self) -> u64 {
        self.at.elapsed().as_secs()
    }
}
