//! What the metrics page shows of the network.

use metrics::{Counter, Gauge, counter, gauge};

/// Handles, registered when a host starts: install the recorder before.
pub(crate) struct P2pMetrics {
    pub(crate) connections: Gauge,
    pub(crate) refused_connections: Counter,
    pub(crate) displaced_connections: Counter,
    pub(crate) failed_dials: Counter,
    pub(crate) served_streams: Gauge,
    pub(crate) open_channels: Gauge,
    pub(crate) serving_calls: Gauge,
    pub(crate) served_calls: Counter,
    pub(crate) refused_calls: Counter,
    pub(crate) event_streams: Gauge,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
}

impl P2pMetrics {
    pub(crate) fn register() -> Self {
        Self {
            connections: gauge!("debros_p2p_connections"),
            refused_connections: counter!("debros_p2p_refused_connections_total"),
            displaced_connections: counter!("debros_p2p_displaced_connections_total"),
            failed_dials: counter!("debros_p2p_failed_dials_total"),
            served_streams: gauge!("debros_p2p_served_streams"),
            open_channels: gauge!("debros_p2p_open_channels"),
            serving_calls: gauge!("debros_p2p_serving_calls"),
            served_calls: counter!("debros_p2p_served_calls_total"),
            refused_calls: counter!("debros_p2p_refused_calls_total"),
            event_streams: gauge!("debros_p2p_event_streams"),
            received_bytes: counter!("debros_p2p_rpc_received_bytes_total"),
            sent_bytes: counter!("debros_p2p_rpc_sent_bytes_total"),
        }
    }

    /// The gauge of running calls, or of open event streams.
    pub(crate) fn serving_gauge(&self, streams: bool) -> &Gauge {
        if streams { &self.event_streams } else { &self.serving_calls }
    }

    /// Counts a stream that was reset. Rare: the handle is looked up each time.
    pub(crate) fn count_stream_error(&self, reason: &'static str) {
        counter!("debros_p2p_stream_resets_total", "reason" => reason).increment(1);
    }
}
