//! The one way to call a node, near or far.

use crate::call_errors::{DEADLINE_GRACE, no_stream_error, timeout_error};
use crate::event_stream::EventStream;
use crate::handler::{CallContext, EventSource, Handler, Reply};
use crate::rpc_client_stream::RpcClientStream;
use debros_proto::{Error, rpc};
use futures::stream;
use libp2p::PeerId;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A way to call one node. Cheap to clone; calls of all clones run at the same time.
///
/// Local or remote is decided here and nowhere else: the caller sees the same calls, errors and
/// streams.
#[derive(Clone)]
pub struct Channel(ChannelTransport);

#[derive(Clone)]
enum ChannelTransport {
    Local(Arc<dyn Handler>),
    Remote(Arc<RpcClientStream>),
}

impl Channel {
    /// A channel to a handler in this process: nothing is encoded, queued or spawned.
    pub fn local(handler: Arc<dyn Handler>) -> Channel {
        Channel(ChannelTransport::Local(handler))
    }

    pub(crate) fn remote(remote: Arc<RpcClientStream>) -> Channel {
        Channel(ChannelTransport::Remote(remote))
    }

    /// Makes a call and waits for its answer, at most `timeout`. `timeout_ms` and `credit` of the
    /// request are set here. Dropping the future cancels the call at the node.
    ///
    /// # Errors
    /// The node's own error; or `unavailable` when the request surely did nothing (never sent, or
    /// it only reads and the connection broke), `deadline_exceeded` when a read got no answer in
    /// time, `unknown_outcome` when a write was handed over and then got no answer, `too_large`
    /// when the request is over the frame limit.
    pub async fn call(
        &self,
        request: rpc::Request,
        timeout: Duration,
    ) -> Result<rpc::Response, Error> {
        // Where the call opens a stream, its events go nowhere: dropping them cancels the stream.
        match &self.0 {
            ChannelTransport::Local(handler) => {
                match call_handler(handler, request, timeout).await? {
                    Reply::Response(response) | Reply::Stream(response, _) => Ok(response),
                }
            }
            ChannelTransport::Remote(remote) if request.opens_stream() => {
                remote.open(request, timeout).await.map(|(response, _)| response)
            }
            ChannelTransport::Remote(remote) => {
                remote.send_request(request, timeout, 0, None).await.map(|(response, _)| response)
            }
        }
    }

    /// Opens a stream: its first answer, then its events. `timeout` is for the first answer alone.
    ///
    /// # Errors
    /// As [`Channel::call`]. The stream itself ends with an error item when the node or the
    /// connection fails.
    pub async fn open(
        &self,
        request: rpc::Request,
        timeout: Duration,
    ) -> Result<(rpc::Response, EventStream), Error> {
        if !request.opens_stream() {
            return Err(no_stream_error());
        }
        match &self.0 {
            ChannelTransport::Local(handler) => {
                let (response, events) = match call_handler(handler, request, timeout).await? {
                    Reply::Stream(response, events) => (response, events),
                    Reply::Response(response) => {
                        let nothing: EventSource = Box::pin(stream::empty());
                        (response, nothing)
                    }
                };
                Ok((response, EventStream::local(events)))
            }
            ChannelTransport::Remote(remote) => remote.open(request, timeout).await,
        }
    }

    /// Whether the way is gone for good: every further call fails with `unavailable`. Never for a
    /// local channel.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            ChannelTransport::Local(_) => false,
            ChannelTransport::Remote(remote) => remote.is_closed(),
        }
    }

    /// Waits until the way is gone for good. Forever for a local channel.
    pub async fn closed(&self) {
        match &self.0 {
            ChannelTransport::Local(_) => std::future::pending().await,
            ChannelTransport::Remote(remote) => remote.closed().await,
        }
    }

    /// The node at the other end; `None` when it is this process.
    pub fn peer(&self) -> Option<PeerId> {
        match &self.0 {
            ChannelTransport::Local(_) => None,
            ChannelTransport::Remote(remote) => Some(remote.peer()),
        }
    }
}

/// Calls the handler of this process, and drops the call after its deadline. The timer is only armed
/// when the handler does not answer at once.
async fn call_handler(
    handler: &Arc<dyn Handler>,
    request: rpc::Request,
    timeout: Duration,
) -> Result<Reply, Error> {
    let may_write = request.may_write();
    let deadline = Instant::now() + timeout;
    let context = CallContext { peer: None, trust: None, connection: None, deadline };
    match tokio::time::timeout(timeout + DEADLINE_GRACE, handler.call(context, request)).await {
        Ok(reply) => reply,
        Err(_) => Err(timeout_error(may_write, timeout)),
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ChannelTransport::Local(_) => f.write_str("Channel(local)"),
            ChannelTransport::Remote(remote) => write!(f, "Channel({})", remote.peer()),
        }
    }
}
