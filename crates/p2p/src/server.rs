//! The serving side: takes the RPC streams that peers open, within each peer's limits, and ends them at shutdown.

use crate::handler::Handler;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::opened_stream::Opened;
use crate::quota::Quotas;
use crate::serving::Serving;
use crate::session;
use crate::trust::PeerTrust;
use crate::wire::Reset;
use debros_proto::LogThrottle;
use libp2p::PeerId;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

pub(crate) struct Server {
    serving: Arc<Serving>,
    quotas: Arc<Quotas>,
    /// Peers that do not read: the swarm's task closes their connections. Bounded; when it is full, closing the
    /// stream has to do.
    stalled: mpsc::Sender<PeerId>,
    sessions: TaskTracker,
    /// Peers break the rules as often as they like.
    resets_logged: LogThrottle,
}

impl Server {
    pub(crate) fn new(
        handler: Arc<dyn Handler>,
        limits: Limits,
        metrics: Arc<Metrics>,
        stalled: mpsc::Sender<PeerId>,
    ) -> Self {
        Self {
            serving: Arc::new(Serving::new(handler, limits, metrics)),
            quotas: Arc::default(),
            stalled,
            sessions: TaskTracker::new(),
            resets_logged: LogThrottle::default(),
        }
    }

    /// Serves a stream that a peer opened, or resets it when the peer has too many. Runs in the connection's own
    /// task, so that a peer that opens streams without end keeps nobody busy but its own connection.
    pub(crate) fn accept(self: &Arc<Self>, peer: PeerId, trust: Arc<PeerTrust>, stream: Opened) {
        if self.serving.stopping.is_cancelled() {
            return;
        }
        let entry = self.quotas.enter(peer, &self.serving.limits);
        let Some(slot) = entry.quota.streams.take(1) else {
            tracing::debug!(%peer, "reset a stream: the peer has {} open", self.serving.limits.streams_per_peer);
            self.serving.metrics.reset(Reset::TooManyStreams.name());
            return;
        };
        let server = self.clone();
        self.sessions.spawn(async move {
            server.serving.metrics.served_streams.increment(1.0);
            let end = session::serve(server.serving.clone(), peer, trust, entry.quota.clone(), stream).await;
            server.serving.metrics.served_streams.decrement(1.0);
            if let Err(reset) = end {
                server.note(peer, reset);
            }
            drop((slot, entry));
        });
    }

    fn note(&self, peer: PeerId, reset: Reset) {
        self.serving.metrics.reset(reset.name());
        if reset == Reset::Broken {
            tracing::debug!(%peer, "a peer's stream broke");
            return;
        }
        match self.resets_logged.admit() {
            Some(times) => tracing::warn!(%peer, reason = reset.name(), times, "reset a peer's stream"),
            None => tracing::debug!(%peer, reason = reset.name(), "reset a peer's stream"),
        }
        if reset == Reset::Stalled {
            // A full queue means that the swarm is closing connections as fast as it can.
            let _ = self.stalled.try_send(peer);
        }
    }

    /// Takes no new streams and calls; returns when what runs has ended and was written, or at the deadline.
    pub(crate) async fn stop(&self, deadline: Instant) {
        self.serving.stopping.cancel();
        self.sessions.close();
        if tokio::time::timeout_at(deadline.into(), self.sessions.wait()).await.is_err() {
            tracing::warn!("stopped with {} streams whose calls had not ended in time", self.sessions.len());
        }
        self.serving.over.cancel();
    }
}
