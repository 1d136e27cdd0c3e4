//! Starting, serving and stopping.

use crate::config::{GatewayConfig, Limits, StartError};
use crate::connection::{Connection, Place, Proxies};
use crate::cors::Cors;
use crate::credential::Credentials;
use crate::front::Front;
use crate::health::Health;
use crate::kept::Kept;
use crate::listen;
use crate::metrics::{Held, Metrics};
use crate::rate::SignInLimits;
use crate::router::{Routes, routes};
use crate::shared::{Phase, Shared, Started};
use crate::site::Site;
use crate::tls::Tls;
use debros_client::Client;
use http::Request;
use http::header::UPGRADE;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use metrics_exporter_prometheus::PrometheusHandle;
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep_until, timeout, timeout_at};
use tokio_util::task::TaskTracker;

/// Bytes of a request's head, and of what is read from a socket at a time.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
/// Requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;
/// How long a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// After a failed accept (too many open files): time for something to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// When stopping: for so long callers learn from their answers that the connection ends. A caller that has a request on
/// its way meanwhile gets its answer; closing its connection at once would lose it.
const NOTICE_TIME: Duration = Duration::from_millis(250);
/// How often the memory of the metrics and limits is tidied.
const UPKEEP: Duration = Duration::from_secs(5);

/// A running gateway.
pub struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    tls: Option<Arc<Tls>>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Binds the address and starts serving. The client's own scope is not used: each caller has its own.
    ///
    /// `metrics` is what `/metrics` shows; install its recorder before.
    ///
    /// # Errors
    /// When the configuration can not work, or the address is taken.
    pub async fn start(
        config: GatewayConfig,
        client: Client,
        metrics: Option<PrometheusHandle>,
    ) -> Result<Self, StartError> {
        check(&config.limits)?;
        let credentials = Credentials::new(&config)?;
        let cors = Cors::new(&config.cors_origins, !config.require_auth)?;
        let tls = config.tls.clone().map(|files| Tls::load(files).map(Arc::new)).transpose()?;
        let site = Site::new(config.public_url.as_deref(), &config.listen, tls.is_some())?;
        let listener = listen::listen(&config).await?;
        let address = listener
            .local_addr()
            .map_err(|error| StartError::Address { listen: config.listen.clone(), reason: error.to_string() })?;
        let Routes { router, patterns } = routes();
        let connections = Arc::new(Semaphore::new(config.limits.max_connections.min(Semaphore::MAX_PERMITS)));
        let shared = Arc::new(Shared {
            client,
            credentials,
            cors,
            namespace: config.namespace,
            site,
            proxies: Proxies::new(config.trusted_proxies),
            sign_in: SignInLimits::new(&config.limits),
            signing_keys: Kept::default(),
            websockets: Arc::new(Semaphore::new(config.limits.max_websockets.min(Semaphore::MAX_PERMITS))),
            limits: config.limits,
            build: config.build,
            started: Started::now(),
            health: Health::default(),
            metrics: Metrics::new(&patterns),
            prometheus: metrics,
            tasks: TaskTracker::new(),
            phase: watch::Sender::new(Phase::Running),
            draining: AtomicBool::new(false),
        });
        let front = Front::new(router, Arc::clone(&shared));
        let server = Server { front, http: http(&shared.limits), tls: tls.clone(), shared: Arc::clone(&shared) };
        shared.tasks.spawn(accept(listener, Arc::new(server), connections));
        shared.tasks.spawn(upkeep(Arc::clone(&shared)));
        tracing::info!(%address, https = tls.is_some(), "the gateway listens");
        Ok(Self { address, shared, tls })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads the TLS files again, for connections that come from now on; false where there is no TLS.
    ///
    /// # Errors
    /// When the files can not be used. Nothing has changed then.
    pub fn reload_certificate(&self) -> Result<bool, StartError> {
        self.tls.as_ref().map(|tls| tls.reload()).transpose().map(|reloaded| reloaded.is_some())
    }

    /// Stops in order, at the latest at the deadline:
    ///
    /// 1. No connection is accepted any more, `/ready` says 503, WebSockets are closed with 1001, and every answer tells
    ///    its caller that the connection ends.
    /// 2. After a moment, in which callers that just sent a request get that answer, idle connections are closed. The
    ///    others end with the answer they work on, those included whose request is still arriving.
    /// 3. At the deadline what is left is dropped.
    pub async fn shutdown(&self, deadline: Instant) {
        let Shared { phase, draining, tasks, .. } = &*self.shared;
        draining.store(true, Ordering::Relaxed);
        enter(phase, Phase::Draining);
        tasks.close();
        let notice = (Instant::now() + NOTICE_TIME).min(deadline);
        if timeout_at(notice.into(), tasks.wait()).await.is_err() {
            enter(phase, Phase::Closing);
            if timeout_at(deadline.into(), tasks.wait()).await.is_err() {
                tracing::warn!(left = tasks.len(), "connections are dropped: the time to stop is over");
            }
        }
        enter(phase, Phase::Ended);
        tasks.wait().await;
    }
}

/// Nothing goes on serving without its owner.
impl Drop for Gateway {
    fn drop(&mut self) {
        self.shared.draining.store(true, Ordering::Relaxed);
        enter(&self.shared.phase, Phase::Ended);
    }
}

fn enter(phase: &watch::Sender<Phase>, next: Phase) {
    phase.send_if_modified(|now| {
        let later = next > *now;
        *now = next.max(*now);
        later
    });
}

fn check(limits: &Limits) -> Result<(), StartError> {
    let sizes = [
        ("max_value", limits.max_value),
        ("max_json", limits.max_json),
        ("max_connections", limits.max_connections),
        ("max_websockets", limits.max_websockets),
    ];
    let times = [
        ("header_timeout", limits.header_timeout),
        ("body_timeout", limits.body_timeout),
        ("request_timeout", limits.request_timeout),
        ("idle_timeout", limits.idle_timeout),
        ("ping_interval", limits.ping_interval),
        ("pong_timeout", limits.pong_timeout),
        ("sign_in_period", limits.sign_in_period),
        ("wallet_period", limits.wallet_period),
    ];
    let size = sizes.iter().find(|(_, size)| *size == 0).map(|(name, _)| *name);
    let time = times.iter().find(|(_, time)| time.is_zero()).map(|(name, _)| *name);
    size.or(time).map_or(Ok(()), |name| Err(StartError::Limit { name }))
}

fn http(limits: &Limits) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.idle_timeout)
        .keep_alive_timeout(limits.idle_timeout)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32);
    http
}

/// What every connection needs.
struct Server {
    front: Front,
    http: Builder<TokioExecutor>,
    tls: Option<Arc<Tls>>,
    shared: Arc<Shared>,
}

/// Accepts connections until the gateway stops.
async fn accept(listener: TcpListener, server: Arc<Server>, slots: Arc<Semaphore>) {
    let mut phase = server.shared.phase.subscribe();
    let mut stopping = pin!(async move {
        // The value itself is of no use, and may not be kept while something else is awaited.
        let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await.map(drop);
    });
    loop {
        // First a free place, then a connection: those over the limit wait in the system's queue.
        let slot = tokio::select! {
            biased;
            _ = &mut stopping => break,
            slot = Arc::clone(&slots).acquire_owned() => slot,
        };
        // The semaphore is never closed.
        let Ok(slot) = slot else { break };
        tokio::select! {
            biased;
            _ = &mut stopping => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => server.spawn(socket, peer, slot),
                Err(error) => {
                    tracing::warn!(%error, "a connection can not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // What waits in the system's queue is open for its callers, and they may have sent a request. The system is asked
    // directly and the socket closed right after, so that hardly anything can come in between.
    match listener.into_std() {
        Ok(listener) => server.accept_rest(&listener, &slots),
        Err(error) => tracing::warn!(%error, "waiting connections can not be accepted"),
    }
}

impl Server {
    fn spawn(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
        let server = Arc::clone(self);
        self.shared.tasks.spawn(async move {
            let place = Place::new(slot);
            let _held = Held::new(&server.shared.metrics.connections);
            // Answers are written whole: waiting for more to send would only delay them.
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY can not be set");
            }
            // It fails when the caller is gone already.
            let Ok(local) = socket.local_addr() else { return };
            let ends = Connection { peer, local };
            match &server.tls {
                None => server.serve(socket, ends, place).await,
                Some(tls) => match timeout(HANDSHAKE_TIME, tls.acceptor().accept(socket)).await {
                    Ok(Ok(stream)) => server.serve(stream, ends, place).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                },
            }
        });
    }

    fn accept_rest(self: &Arc<Self>, listener: &std::net::TcpListener, slots: &Arc<Semaphore>) {
        while let Ok(slot) = Arc::clone(slots).try_acquire_owned()
            && let Ok((socket, peer)) = listener.accept()
        {
            match socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket)) {
                Ok(socket) => self.spawn(socket, peer, slot),
                Err(error) => tracing::warn!(%error, "a connection can not be accepted"),
            }
        }
    }

    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        ends: Connection,
        place: Place,
    ) {
        let opened = Instant::now();
        let asked = AtomicBool::new(false);
        let service = service_fn(|mut request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            if request.headers().contains_key(UPGRADE) {
                request.extensions_mut().insert(place.clone());
            }
            let front = self.front.clone();
            async move { Ok::<_, Infallible>(front.answer(request, ends).await) }
        });
        let mut connection = pin!(self.http.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let mut phase = self.shared.phase.subscribe();
        // The library's own timer starts when it knows which version of HTTP this is.
        let mut first_head = pin!(sleep_until((opened + self.shared.limits.header_timeout).into()));
        let mut waits_for_first = true;
        let ended = loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => break Some(ended),
                _ = phase.wait_for(|phase| *phase >= Phase::Closing) => break None,
                () = &mut first_head, if waits_for_first => {
                    if !asked.load(Ordering::Relaxed) {
                        return;
                    }
                    waits_for_first = false;
                }
            }
        };
        let ended = match ended {
            Some(ended) => Some(ended),
            None => {
                let mut graceful = pin!(async {
                    if !asked.load(Ordering::Relaxed) {
                        // Just opened: its first request is on the way.
                        let first = timeout_at((opened + NOTICE_TIME).into(), connection.as_mut()).await;
                        if let Ok(ended) = first {
                            return ended;
                        }
                    }
                    connection.as_mut().graceful_shutdown();
                    connection.as_mut().await
                });
                tokio::select! {
                    biased;
                    ended = &mut graceful => Some(ended),
                    _ = phase.wait_for(|phase| *phase == Phase::Ended) => None,
                }
            }
        };
        if let Some(Err(error)) = ended {
            // The other side's doing: broken requests, lost connections.
            tracing::debug!(error, "a connection ended");
        }
    }
}

/// Tidies what would grow: histograms that nobody reads, and callers that are long gone.
async fn upkeep(shared: Arc<Shared>) {
    let mut phase = shared.phase.subscribe();
    let mut tick = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
            _ = tick.tick() => {
                shared.sign_in.tidy();
                if let Some(recorder) = &shared.prometheus {
                    recorder.run_upkeep();
                }
            }
        }
    }
}
