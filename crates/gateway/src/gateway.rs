//! Starting, accepting and stopping.

use crate::config::{GatewayConfig, GatewayLimits, GatewayStartError};
use crate::connection_info::TrustedProxies;
use crate::connection_server::{ConnectionServer, DRAIN_NOTICE};
use crate::connection_state::TICKS;
use crate::connection_table::ConnectionTable;
use crate::cors::CorsPolicy;
use crate::credential_resolver::CredentialResolver;
use crate::fair_budget::{CallerHasher, FairBudget};
use crate::gateway_state::{GatewayState, LifecyclePhase, StartTime};
use crate::http_settings::{MAX_UNREAD_BYTES, http_builder};
use crate::listen;
use crate::metrics::GatewayMetrics;
use crate::node_health::NodeHealthCache;
use crate::public_origin::PublicOrigin;
use crate::request_pipeline::RequestPipeline;
use crate::router::{RouteTable, build_routes};
use crate::sign_in_limits::SignInLimits;
use crate::tls::ReloadableTls;
use crate::ttl_cache::TtlCache;
use debros_client::Client;
use metrics_exporter_prometheus::PrometheusHandle;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, timeout_at};
use tokio_util::task::TaskTracker;

/// The pause after a failed accept (too many open files), in which other files may be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// This part of the memory is reserved for callers whose credential was accepted before.
const MEMORY_RESERVE: usize = 8;
/// How often the memory of metrics and limits is pruned.
const UPKEEP: Duration = Duration::from_secs(5);
const SHORTEST_TICK: Duration = Duration::from_millis(1);

/// A running gateway.
pub struct Gateway {
    address: SocketAddr,
    shared: Arc<GatewayState>,
    tls: Option<Arc<ReloadableTls>>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Binds the address and starts serving. The client's own scope is not used: each caller has
    /// its own.
    ///
    /// `metrics` is the content of `/metrics`; install its recorder before.
    ///
    /// # Errors
    /// When the configuration is invalid, or the address is taken.
    pub async fn start(
        config: GatewayConfig,
        client: Client,
        metrics: Option<PrometheusHandle>,
    ) -> Result<Self, GatewayStartError> {
        check_limits(&config.limits)?;
        let credentials = CredentialResolver::new(&config)?;
        let cors = CorsPolicy::new(&config.cors_origins, !config.require_auth)?;
        let tls =
            config.tls.clone().map(|files| ReloadableTls::load(files).map(Arc::new)).transpose()?;
        let public_origin =
            PublicOrigin::new(config.public_url.as_deref(), &config.listen, tls.is_some())?;
        let listener = listen::bind_configured(&config).await?;
        let address = listener.local_addr().map_err(|error| GatewayStartError::Address {
            listen: config.listen.clone(),
            reason: error.to_string(),
        })?;
        let RouteTable { router, patterns } = build_routes();
        let memory = {
            let limit = config.limits.max_held_bytes;
            FairBudget::with_reserve("memory", limit, limit / MEMORY_RESERVE)
        };
        let shared = Arc::new(GatewayState {
            client,
            credentials,
            cors,
            namespace: config.namespace,
            public_origin,
            proxies: TrustedProxies::new(config.trusted_proxies),
            sign_in: SignInLimits::new(&config.limits),
            signing_keys: TtlCache::default(),
            callers: CallerHasher::default(),
            connections: ConnectionTable::new(
                config.limits.max_connections,
                MAX_UNREAD_BYTES,
                Arc::clone(&memory),
            ),
            memory,
            websockets: FairBudget::new("websockets", config.limits.max_websockets),
            limits: config.limits,
            build: config.build,
            started: StartTime::now(),
            health: NodeHealthCache::default(),
            metrics: GatewayMetrics::new(&patterns),
            prometheus: metrics,
            tasks: TaskTracker::new(),
            phase: watch::Sender::new(LifecyclePhase::Running),
            draining: AtomicBool::new(false),
        });
        let pipeline = RequestPipeline::new(router, Arc::clone(&shared));
        let server = ConnectionServer {
            pipeline,
            http_builder: http_builder(&shared.limits),
            tls: tls.clone(),
            shared: Arc::clone(&shared),
        };
        shared.tasks.spawn(accept_connections(listener, Arc::new(server)));
        shared.tasks.spawn(run_upkeep(Arc::clone(&shared)));
        tracing::info!(%address, https = tls.is_some(), "the gateway listens");
        Ok(Self { address, shared, tls })
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads the TLS files again, for connections that come from now on; false where there is no
    /// TLS.
    ///
    /// # Errors
    /// When the files are unusable. Nothing has changed then.
    pub fn reload_certificate(&self) -> Result<bool, GatewayStartError> {
        self.tls.as_ref().map(|tls| tls.reload()).transpose().map(|reloaded| reloaded.is_some())
    }

    /// Bytes in memory that callers hold now, of [`GatewayLimits::max_held_bytes`].
    pub fn held_bytes(&self) -> usize {
        self.shared.memory.held()
    }

    /// Stops in order, at the latest at the deadline:
    ///
    /// 1. No connection is accepted any more, `/ready` answers 503, WebSockets are closed with
    ///    1001, and every answer says that its connection ends.
    /// 2. After a short time, in which callers that just sent a request get that answer, idle
    ///    connections are closed. The others end with their present answer, including those whose
    ///    request is still arriving.
    /// 3. At the deadline the rest is dropped.
    pub async fn shutdown(&self, deadline: Instant) {
        let GatewayState { phase, draining, tasks, .. } = &*self.shared;
        draining.store(true, Ordering::Relaxed);
        advance_phase(phase, LifecyclePhase::Draining);
        tasks.close();
        let notice = (Instant::now() + DRAIN_NOTICE).min(deadline);
        if timeout_at(notice.into(), tasks.wait()).await.is_err() {
            advance_phase(phase, LifecyclePhase::Closing);
            if timeout_at(deadline.into(), tasks.wait()).await.is_err() {
                tracing::warn!(
                    left = tasks.len(),
                    "connections are dropped: the time to stop is over"
                );
            }
        }
        advance_phase(phase, LifecyclePhase::Ended);
        tasks.wait().await;
    }
}

/// Serving ends with its owner.
impl Drop for Gateway {
    fn drop(&mut self) {
        self.shared.draining.store(true, Ordering::Relaxed);
        advance_phase(&self.shared.phase, LifecyclePhase::Ended);
    }
}

fn advance_phase(phase: &watch::Sender<LifecyclePhase>, next: LifecyclePhase) {
    phase.send_if_modified(|now| {
        let later = next > *now;
        *now = next.max(*now);
        later
    });
}

fn check_limits(limits: &GatewayLimits) -> Result<(), GatewayStartError> {
    let sizes = [
        ("max_value", limits.max_value),
        ("max_json", limits.max_json),
        ("max_held_bytes", limits.max_held_bytes),
        ("max_connections", limits.max_connections),
        ("max_websockets", limits.max_websockets),
    ];
    let times = [
        ("header_timeout", limits.header_timeout),
        ("body_timeout", limits.body_timeout),
        ("write_timeout", limits.write_timeout),
        ("request_timeout", limits.request_timeout),
        ("idle_timeout", limits.idle_timeout),
        ("ping_interval", limits.ping_interval),
        ("pong_timeout", limits.pong_timeout),
        ("sign_in_period", limits.sign_in_period),
        ("wallet_period", limits.wallet_period),
    ];
    let size = sizes.iter().find(|(_, size)| *size == 0).map(|(name, _)| *name);
    let time = times.iter().find(|(_, time)| time.is_zero()).map(|(name, _)| *name);
    size.or(time).map_or(Ok(()), |name| Err(GatewayStartError::Limit { name }))
}

/// Accepts connections until the gateway stops.
async fn accept_connections(listener: TcpListener, server: Arc<ConnectionServer>) {
    let mut phase = server.shared.phase.subscribe();
    let mut stopping = pin!(async move {
        // The value itself is of no use, and may not be held across an await.
        let _ = phase.wait_for(|phase| *phase >= LifecyclePhase::Draining).await.map(drop);
    });
    loop {
        tokio::select! {
            biased;
            _ = &mut stopping => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => server.spawn_connection(socket, peer),
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Connections in the system's queue are open for their callers, which may have sent a request.
    // The system is asked directly and the socket closed right after, so that hardly any connection
    // can come in between.
    match listener.into_std() {
        Ok(listener) => server.accept_backlog(&listener),
        Err(error) => tracing::warn!(%error, "waiting connections cannot be accepted"),
    }
}

/// Ends connections that make no progress, and prunes memory that would grow: histograms that
/// nobody reads, and callers that are long gone.
async fn run_upkeep(shared: Arc<GatewayState>) {
    let mut phase = shared.phase.subscribe();
    let mut tick = tokio::time::interval(UPKEEP);
    let mut progress =
        tokio::time::interval((shared.limits.write_timeout / TICKS).max(SHORTEST_TICK));
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = phase.wait_for(|phase| *phase >= LifecyclePhase::Draining) => return,
            _ = progress.tick() => shared.connections.close_stalled(),
            _ = tick.tick() => {
                shared.metrics.held_bytes.set(shared.memory.held() as f64);
                shared.sign_in.prune();
                if let Some(recorder) = &shared.prometheus {
                    recorder.run_upkeep();
                }
            }
        }
    }
}
