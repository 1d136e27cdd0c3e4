//! Starting, serving and stopping.

use crate::answer_body::AnswerBody;
use crate::budget::{Budget, Callers};
use crate::config::{GatewayConfig, Limits, StartError};
use crate::connection::{Connection, Proxies};
use crate::cors::Cors;
use crate::credential::Credentials;
use crate::front::Front;
use crate::health::Health;
use crate::kept::Kept;
use crate::listen;
use crate::metrics::{Held, Metrics};
use crate::places::{Place, Places};
use crate::rate::SignInLimits;
use crate::router::{Routes, routes};
use crate::seat::{Seat, TICKS, Told};
use crate::shared::{Phase, Shared, Started};
use crate::site::Site;
use crate::tls::Tls;
use crate::watched_stream::WatchedStream;
use debros_client::Client;
use http::header::UPGRADE;
use http::{Request, Response};
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
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, sleep, sleep_until, timeout, timeout_at};
use tokio_util::task::TaskTracker;

/// Bytes of a request's head, and of what is read from a socket at a time.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
/// Requests at a time on one HTTP/2 connection, and what the other side may send before it is read, on one and on all.
const MAX_STREAMS: u32 = 100;
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;
/// What waits to be sent in one HTTP/2 stream.
const MAX_STREAM_SENDING: usize = 64 << 10;
/// Streams that were broken off by either side and are still remembered; with more the connection ends.
const MAX_RESET_STREAMS: usize = 64;
/// Bytes that the HTTP library keeps of one connection before a request takes them: a window of bodies, a head, a frame.
const MOST_UNREAD: usize = CONNECTION_WINDOW as usize + 2 * MAX_HEAD;
/// How long a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long an idle connection that has to make room may take for its good-bye.
const LEAVE_TIME: Duration = Duration::from_secs(1);
/// After a failed accept (too many open files): time for something to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// When stopping: for so long callers learn from their answers that the connection ends. A caller that has a request on
/// its way meanwhile gets its answer; closing its connection at once would lose it.
const NOTICE_TIME: Duration = Duration::from_millis(250);
/// How often the memory of the metrics and limits is tidied.
const UPKEEP: Duration = Duration::from_secs(5);
const SHORTEST_TICK: Duration = Duration::from_millis(1);

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
        let memory = Budget::new("memory", config.limits.max_held_bytes);
        let shared = Arc::new(Shared {
            client,
            credentials,
            cors,
            namespace: config.namespace,
            site,
            proxies: Proxies::new(config.trusted_proxies),
            sign_in: SignInLimits::new(&config.limits),
            signing_keys: Kept::default(),
            callers: Callers::default(),
            places: Places::new(config.limits.max_connections, MOST_UNREAD, Arc::clone(&memory)),
            memory,
            websockets: Budget::new("websockets", config.limits.max_websockets),
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
        shared.tasks.spawn(accept(listener, Arc::new(server)));
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

    /// Bytes in memory that callers hold now, of [`Limits::max_held_bytes`].
    pub fn held_bytes(&self) -> usize {
        self.shared.memory.held()
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
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_STREAM_SENDING)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_RESET_STREAMS)
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
async fn accept(listener: TcpListener, server: Arc<Server>) {
    let mut phase = server.shared.phase.subscribe();
    let mut stopping = pin!(async move {
        // The value itself is of no use, and may not be kept while something else is awaited.
        let _ = phase.wait_for(|phase| *phase >= Phase::Draining).await.map(drop);
    });
    loop {
        tokio::select! {
            biased;
            _ = &mut stopping => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => server.spawn(socket, peer),
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
        Ok(listener) => server.accept_rest(&listener),
        Err(error) => tracing::warn!(%error, "waiting connections can not be accepted"),
    }
}

impl Server {
    /// Serves a connection if there is a place for it; closes it otherwise.
    fn spawn(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let Shared { places, proxies, callers, .. } = &*self.shared;
        let Some(place) = places.enter(peer.ip(), proxies.trusts(peer.ip().to_canonical()), callers) else {
            tracing::debug!(%peer, "a connection is refused: all places are taken");
            return;
        };
        let server = Arc::clone(self);
        self.shared.tasks.spawn(async move {
            let _held = Held::new(&server.shared.metrics.connections);
            // Answers are written whole: waiting for more to send would only delay them.
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY can not be set");
            }
            // It fails when the caller is gone already.
            let Ok(local) = socket.local_addr() else { return };
            let ends = Connection { peer, local, holder: place.seat().holder() };
            let socket = WatchedStream::new(socket, Arc::clone(place.seat()));
            let place = Arc::new(place);
            match &server.tls {
                None => server.serve(socket, ends, place).await,
                Some(tls) => {
                    let seat = Arc::clone(place.seat());
                    let handshake = timeout(HANDSHAKE_TIME, tls.acceptor().accept(socket));
                    let shaken = tokio::select! {
                        shaken = handshake => shaken,
                        () = seat.is_told(Told::MakeRoom) => return,
                    };
                    match shaken {
                        Ok(Ok(stream)) => server.serve(stream, ends, place).await,
                        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!("a TLS handshake took too long"),
                    }
                }
            }
        });
    }

    fn accept_rest(self: &Arc<Self>, listener: &std::net::TcpListener) {
        while let Ok((socket, peer)) = listener.accept() {
            match socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket)) {
                Ok(socket) => self.spawn(socket, peer),
                Err(error) => tracing::warn!(%error, "a connection can not be accepted"),
            }
        }
    }

    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        ends: Connection,
        place: Arc<Place>,
    ) {
        let opened = Instant::now();
        let asked = AtomicBool::new(false);
        let service = service_fn(|mut request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            if request.headers().contains_key(UPGRADE) {
                request.extensions_mut().insert(Arc::clone(&place));
            }
            let front = self.front.clone();
            let seat = Arc::clone(place.seat());
            async move { Ok::<Response<AnswerBody>, Infallible>(front.answer(request, ends, seat).await) }
        });
        let mut connection = pin!(self.http.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let seat = place.seat();
        let mut phase = self.shared.phase.subscribe();
        // The library's own timer starts when it knows which version of HTTP this is.
        let mut first_head = pin!(sleep_until((opened + self.shared.limits.header_timeout).into()));
        let mut waits_for_first = true;
        let ended = loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => break Some(ended),
                _ = phase.wait_for(|phase| *phase >= Phase::Closing) => break None,
                () = seat.is_told(Told::MakeRoom) => break None,
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
                let makes_room = phase.borrow().lt(&Phase::Closing);
                let mut graceful = pin!(async {
                    if !makes_room && !asked.load(Ordering::Relaxed) {
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
                    () = seat.is_told(Told::End) => None,
                    () = left_idle(seat), if makes_room => None,
                }
            }
        };
        if let Some(Err(error)) = ended {
            // The other side's doing: broken requests, lost connections.
            tracing::debug!(error, "a connection ended");
        }
    }
}

/// Waits until a connection that was told to go has had the time for it and has nothing under way.
async fn left_idle(seat: &Seat) {
    loop {
        sleep(LEAVE_TIME).await;
        if seat.rank().is_some() {
            return;
        }
    }
}

/// Ends what makes no progress, and tidies what would grow: histograms that nobody reads, and callers that are long gone.
async fn upkeep(shared: Arc<Shared>) {
    let mut phase = shared.phase.subscribe();
    let mut tick = tokio::time::interval(UPKEEP);
    let mut progress = tokio::time::interval((shared.limits.write_timeout / TICKS).max(SHORTEST_TICK));
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
            _ = progress.tick() => shared.places.tick(),
            _ = tick.tick() => {
                shared.metrics.held_bytes.set(shared.memory.held() as f64);
                shared.sign_in.tidy();
                if let Some(recorder) = &shared.prometheus {
                    recorder.run_upkeep();
                }
            }
        }
    }
}
