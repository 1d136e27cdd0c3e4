//! A stream that was opened, by either side.

use libp2p::Stream;
use tokio_util::sync::CancellationToken;

/// A stream, and the token that is cancelled when its connection is gone: a multiplexer that this
/// side closes forgets to wake the streams on it.
#[derive(Debug)]
pub(crate) struct OpenedStream {
    pub(crate) stream: Stream,
    pub(crate) connection_closed: CancellationToken,
}
