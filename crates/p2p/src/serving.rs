//! What all served streams share: the handler, the limits of all peers together, and the signals of shutdown.

use crate::handler::Handler;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::quota::Meter;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What all served streams share.
pub(crate) struct Serving {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    /// Bytes that the requests of all peers hold.
    pub(crate) request_bytes: Arc<Meter>,
    /// No new streams and no new calls.
    pub(crate) stopping: CancellationToken,
    /// The deadline has passed: what still runs is dropped.
    pub(crate) over: CancellationToken,
}

impl Serving {
    pub(crate) fn new(handler: Arc<dyn Handler>, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            handler,
            request_bytes: Arc::new(Meter::new(limits.request_bytes)),
            limits,
            metrics,
            stopping: CancellationToken::new(),
            over: CancellationToken::new(),
        }
    }
}
