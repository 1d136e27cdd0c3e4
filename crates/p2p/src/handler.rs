//! What a node gives to the network: one object that answers calls.

use crate::peer_trust::PeerTrust;
use debros_proto::{Error, rpc};
use futures::future::BoxFuture;
use futures::stream::Stream;
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// The items of a stream. It is only polled while the caller has given credit, so what comes faster
/// than the caller reads stays inside the source, which decides what to drop and counts it. Dropped
/// when the caller cancels or its stream ends.
pub type EventSource = Pin<Box<dyn Stream<Item = Result<rpc::Event, Error>> + Send>>;

/// Answers the calls of peers and of this process alike.
///
/// Dropping the returned future cancels the call: it happens when the caller cancels, leaves, or
/// when the deadline has passed and the handler did not answer by itself.
pub trait Handler: Send + Sync + 'static {
    /// Answers one call. The request's credential has not been checked.
    fn call(
        &self,
        context: CallContext,
        request: rpc::Request,
    ) -> BoxFuture<'static, Result<Reply, Error>>;
}

/// The calling peer, and until when an answer is of use.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// The calling peer; `None` when the caller is in this process.
    pub peer: Option<PeerId>,
    /// What the peer has proven, for the handler to read and to raise; `None` when the caller is in
    /// this process.
    pub trust: Option<Arc<PeerTrust>>,
    /// The connection that the call came on; `None` when the caller is in this process.
    pub connection: Option<ConnectionId>,
    /// The caller waits for the answer until then. Streams: for the opening answer; the stream
    /// itself has no deadline.
    pub deadline: Instant,
}

/// The answer to a call.
// The large variant is the usual one: boxing it would cost every plain call an allocation.
#[allow(clippy::large_enum_variant)]
pub enum Reply {
    /// A plain answer.
    Response(rpc::Response),
    /// An opened stream: its first answer, then its events.
    Stream(rpc::Response, EventSource),
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reply::Response(response) => f.debug_tuple("Response").field(response).finish(),
            Reply::Stream(response, _) => {
                f.debug_tuple("Stream").field(response).finish_non_exhaustive()
            }
        }
    }
}
