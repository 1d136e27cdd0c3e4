//! What all served streams share: the handler, the limits of all peers together, and the signals of
//! shutdown.

use crate::handler::Handler;
use crate::limits::PeerLimits;
use crate::metrics::P2pMetrics;
use crate::peer_quota::BoundedCounter;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What all served streams share.
pub(crate) struct ServingContext {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) limits: PeerLimits,
    pub(crate) metrics: Arc<P2pMetrics>,
    /// Bytes that the requests of all peers hold.
    pub(crate) request_bytes: Arc<BoundedCounter>,
    /// No new streams and no new calls.
    pub(crate) stopping: CancellationToken,
    /// The deadline has passed: what still runs is dropped.
    pub(crate) abort: CancellationToken,
}

impl ServingContext {
    pub(crate) fn new(
        handler: Arc<dyn Handler>,
        limits: PeerLimits,
        metrics: Arc<P2pMetrics>,
    ) -> Self {
        Self {
            handler,
            request_bytes: Arc::new(BoundedCounter::new(limits.request_bytes)),
            limits,
            metrics,
            stopping: CancellationToken::new(),
            abort: CancellationToken::new(),
        }
    }
}
