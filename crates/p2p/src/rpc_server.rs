//! The serving side: takes the RPC streams that peers open, within each peer's limits, and ends
//! them at shutdown.

use crate::framed_stream::StreamError;
use crate::handler::Handler;
use crate::limits::PeerLimits;
use crate::metrics::P2pMetrics;
use crate::opened_stream::OpenedStream;
use crate::peer_quota::PeerQuotaTable;
use crate::peer_trust::PeerTrust;
use crate::serving_context::ServingContext;
use crate::stream_server;
use debros_proto::LogThrottle;
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

pub(crate) struct RpcServer {
    serving: Arc<ServingContext>,
    quotas: Arc<PeerQuotaTable>,
    /// Peers that do not read: the swarm's task closes their connections. Bounded; when it is full,
    /// closing the stream has to do.
    stalled_peers: mpsc::Sender<PeerId>,
    stream_tasks: TaskTracker,
    /// Peers break the rules as often as they like.
    resets_logged: LogThrottle,
}

impl RpcServer {
    pub(crate) fn new(
        handler: Arc<dyn Handler>,
        limits: PeerLimits,
        metrics: Arc<P2pMetrics>,
        stalled: mpsc::Sender<PeerId>,
    ) -> Self {
        Self {
            serving: Arc::new(ServingContext::new(handler, limits, metrics)),
            quotas: Arc::default(),
            stalled_peers: stalled,
            stream_tasks: TaskTracker::new(),
            resets_logged: LogThrottle::default(),
        }
    }

    /// Serves a stream that a peer opened, or resets it when the peer has too many. Runs in the
    /// connection's own task, so that a peer that opens streams without end keeps nothing busy but
    /// its own connection.
    pub(crate) fn accept_stream(
        self: &Arc<Self>,
        peer: PeerId,
        connection: ConnectionId,
        trust: Arc<PeerTrust>,
        stream: OpenedStream,
    ) {
        if self.serving.stopping.is_cancelled() {
            return;
        }
        let entry = self.quotas.acquire_quota(peer, &self.serving.limits);
        let Some(slot) = entry.quota.streams.try_acquire(1) else {
            tracing::debug!(%peer, "reset a stream: the peer has {} open", self.serving.limits.streams_per_peer);
            self.serving.metrics.count_stream_error(StreamError::TooManyStreams.name());
            return;
        };
        let server = self.clone();
        self.stream_tasks.spawn(async move {
            server.serving.metrics.served_streams.increment(1.0);
            let end = stream_server::serve(
                server.serving.clone(),
                peer,
                connection,
                trust,
                entry.quota.clone(),
                stream,
            )
            .await;
            server.serving.metrics.served_streams.decrement(1.0);
            if let Err(reset) = end {
                server.report_stream_error(peer, reset);
            }
            drop((slot, entry));
        });
    }

    fn report_stream_error(&self, peer: PeerId, reset: StreamError) {
        self.serving.metrics.count_stream_error(reset.name());
        if reset == StreamError::Broken {
            tracing::debug!(%peer, "a peer's stream broke");
            return;
        }
        match self.resets_logged.admit() {
            Some(times) => {
                tracing::warn!(%peer, reason = reset.name(), times, "reset a peer's stream")
            }
            None => tracing::debug!(%peer, reason = reset.name(), "reset a peer's stream"),
        }
        if reset == StreamError::Stalled {
            // A full queue means that the swarm is closing connections as fast as it can.
            let _ = self.stalled_peers.try_send(peer);
        }
    }

    /// Takes no new streams and calls; returns when what runs has ended and was written, or at the
    /// deadline.
    pub(crate) async fn stop(&self, deadline: Instant) {
        self.serving.stopping.cancel();
        self.stream_tasks.close();
        if tokio::time::timeout_at(deadline.into(), self.stream_tasks.wait()).await.is_err() {
            tracing::warn!(
                "stopped with {} streams whose calls had not ended in time",
                self.stream_tasks.len()
            );
        }
        self.serving.abort.cancel();
    }
}
