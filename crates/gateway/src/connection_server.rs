//! Serving one connection: TLS, HTTP/1.1 or HTTP/2, and how it ends.

use crate::connection_info::ConnectionInfo;
use crate::connection_state::CloseRequest;
use crate::connection_table::ConnectionPermit;
use crate::counted_stream::CountedStream;
use crate::gateway_state::{GatewayState, LifecyclePhase};
use crate::metrics::GaugeGuard;
use crate::request_pipeline::RequestPipeline;
use crate::response_body::ResponseBody;
use crate::tls::ReloadableTls;
use crate::watched_stream::WatchedStream;
use futures::FutureExt as _;
use http::header::UPGRADE;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until, timeout, timeout_at};

/// How long a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long an idle connection that has to make room may take for its closing handshake, and for a
/// request that was on its way. Then it ends, whatever is under way: otherwise a caller could begin
/// something that lasts.
const EVICTION_GRACE: Duration = Duration::from_secs(1);
/// When stopping: for this long, answers say that their connection ends. A caller that has a
/// request on its way meanwhile gets its answer; closing its connection at once would lose it.
pub(crate) const DRAIN_NOTICE: Duration = Duration::from_millis(250);

/// What every connection needs.
pub(crate) struct ConnectionServer {
    pub(crate) pipeline: RequestPipeline,
    pub(crate) http_builder: Builder<TokioExecutor>,
    pub(crate) tls: Option<Arc<ReloadableTls>>,
    pub(crate) shared: Arc<GatewayState>,
}

impl ConnectionServer {
    /// Serves a connection if there is a place for it; closes it otherwise.
    pub(crate) fn spawn_connection(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let GatewayState { connections: places, proxies, callers, .. } = &*self.shared;
        let Some(permit) =
            places.acquire(peer.ip(), proxies.is_trusted(peer.ip().to_canonical()), callers)
        else {
            tracing::debug!(%peer, "a connection is refused: all places are taken");
            return;
        };
        let server = Arc::clone(self);
        self.shared.tasks.spawn(async move {
            let _held = GaugeGuard::new(&server.shared.metrics.connections);
            // Answers are written whole: waiting for more data would only delay them.
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY cannot be set");
            }
            // It fails if the caller is gone already.
            let Ok(local) = socket.local_addr() else { return };
            let ends = ConnectionInfo {
                peer,
                local,
                holder: permit.state().address_buckets(),
                credential: None,
            };
            let socket = WatchedStream::new(socket, Arc::clone(permit.state()));
            let permit = Arc::new(permit);
            match &server.tls {
                None => server.serve_connection(socket, ends, permit).await,
                Some(tls) => {
                    let state = Arc::clone(permit.state());
                    let handshake = timeout(HANDSHAKE_TIME, tls.current_acceptor().accept(socket));
                    let shaken = tokio::select! {
                        shaken = handshake => shaken,
                        () = state.wait_close_request(CloseRequest::Evict) => return,
                    };
                    match shaken {
                        Ok(Ok(stream)) => server.serve_connection(stream, ends, permit).await,
                        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!("a TLS handshake took too long"),
                    }
                }
            }
        });
    }

    pub(crate) fn accept_backlog(self: &Arc<Self>, listener: &std::net::TcpListener) {
        while let Ok((socket, peer)) = listener.accept() {
            match socket.set_nonblocking(true).and_then(|()| TcpStream::from_std(socket)) {
                Ok(socket) => self.spawn_connection(socket, peer),
                Err(error) => tracing::warn!(%error, "a connection cannot be accepted"),
            }
        }
    }

    async fn serve_connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        ends: ConnectionInfo,
        permit: Arc<ConnectionPermit>,
    ) {
        let opened = Instant::now();
        let asked = AtomicBool::new(false);
        let service = service_fn(|mut request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            if request.headers().contains_key(UPGRADE) {
                request.extensions_mut().insert(Arc::clone(&permit));
            }
            let pipeline = self.pipeline.clone();
            let ends = ends.clone();
            // From here on: the request's task may run later.
            let under_way = permit.state().begin_activity();
            pipeline.handle(request, ends, under_way).map(Ok::<Response<ResponseBody>, Infallible>)
        });
        let state = permit.state();
        let stream = TokioIo::new(CountedStream::new(stream, Arc::clone(state)));
        let mut connection =
            pin!(self.http_builder.serve_connection_with_upgrades(stream, service));
        let mut phase = self.shared.phase.subscribe();
        // The library's own timer starts after it knows the version of HTTP.
        let mut first_head = pin!(sleep_until((opened + self.shared.limits.header_timeout).into()));
        let mut waits_for_first = true;
        let ended = loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => break Some(ended),
                _ = phase.wait_for(|phase| *phase >= LifecyclePhase::Closing) => break None,
                () = state.wait_close_request(CloseRequest::Evict) => break None,
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
                let makes_room = phase.borrow().lt(&LifecyclePhase::Closing);
                let mut graceful = pin!(async {
                    if !makes_room && !asked.load(Ordering::Relaxed) {
                        // Just opened: its first request is on the way.
                        let first =
                            timeout_at((opened + DRAIN_NOTICE).into(), connection.as_mut()).await;
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
                    _ = phase.wait_for(|phase| *phase == LifecyclePhase::Ended) => None,
                    () = state.wait_close_request(CloseRequest::Terminate) => None,
                    () = sleep(EVICTION_GRACE), if makes_room => None,
                }
            }
        };
        if let Some(Err(error)) = ended {
            // Caused by the other side: broken requests, lost connections.
            tracing::debug!(error, "a connection ended");
        }
    }
}
