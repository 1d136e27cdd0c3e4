//! The caller's end of one RPC stream: many calls at a time, answers in any order.

use crate::call_errors::{connection_lost_error, timeout_error};
use crate::event_stream::EventStream;
use crate::framed_stream::{FrameTimeoutStart, FramedStream, FramedStreamConfig, StreamError};
use crate::limits::PeerLimits;
use crate::metrics::P2pMetrics;
use crate::opened_stream::OpenedStream;
use crate::remote_events::{EventControl, EventSink, event_pipe};
use crate::send_queue::{PushError, SendQueue};
use debros_proto::rpc::{self, Frame, frame::Body};
use debros_proto::words::span;
use debros_proto::{Code, Error, lock};
use libp2p::PeerId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

type CallResult = Result<rpc::Response, Error>;

/// What waits for the frames with one id.
enum PendingReply {
    /// A call that waits for its answer; for one that opens a stream, also where its events will
    /// go.
    Answer(oneshot::Sender<CallResult>, Option<EventSink>),
    /// A stream that is open.
    Events(EventSink),
}

#[derive(Default)]
struct PendingReplies {
    closed: bool,
    by_id: HashMap<u64, PendingReply>,
}

pub(crate) struct RpcClientStream {
    peer: PeerId,
    pub(crate) send_queue: Arc<SendQueue>,
    pending: Mutex<PendingReplies>,
    next_id: AtomicU64,
    closed: CancellationToken,
    /// All handles are gone: the stream's task closes the stream.
    abandoned: CancellationToken,
}

impl RpcClientStream {
    /// Starts the task that owns the stream. The stream closes when the last handle is gone.
    pub(crate) fn start(
        peer: PeerId,
        stream: OpenedStream,
        limits: &PeerLimits,
        metrics: Arc<P2pMetrics>,
    ) -> Arc<RpcClientStream> {
        let send_queue =
            Arc::new(SendQueue::new(limits.write_queue_bytes, limits.request_frame_bytes));
        let config = FramedStreamConfig {
            frame_limit: limits.response_frame_bytes,
            partial_frame_timeout: limits.partial_frame_timeout,
            timeout_start: FrameTimeoutStart::LastByte,
            write_stall_timeout: limits.write_stall_timeout,
            arriving: None,
        };
        let framed = FramedStream::new(stream, send_queue.clone(), config, metrics.clone());
        let remote = Arc::new(RpcClientStream {
            peer,
            send_queue: send_queue.clone(),
            pending: Mutex::default(),
            next_id: AtomicU64::new(1),
            closed: CancellationToken::new(),
            abandoned: CancellationToken::new(),
        });
        let task = ClientStreamTask {
            remote: Arc::downgrade(&remote),
            send_queue,
            closed: remote.closed.clone(),
            abandoned: remote.abandoned.clone(),
            peer,
            metrics,
        };
        tokio::spawn(task.run(framed));
        remote
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Opens a stream: sends the request with a place for the events that follow its answer.
    pub(crate) async fn open(
        self: &Arc<Self>,
        request: rpc::Request,
        timeout: Duration,
    ) -> Result<(rpc::Response, EventStream), Error> {
        let (sink, events) = event_pipe();
        let credit = events.initial_credit();
        let (response, id) = self.send_request(request, timeout, credit, Some(sink)).await?;
        Ok((response, EventStream::remote(events.into_events(self.clone(), id))))
    }

    /// Sends a request and waits for its answer, which comes with the id that the call has on this
    /// stream. `credit` and `sink` are for calls that open a stream.
    pub(crate) async fn send_request(
        &self,
        mut request: rpc::Request,
        timeout: Duration,
        credit: u32,
        sink: Option<EventSink>,
    ) -> Result<(rpc::Response, u64), Error> {
        let may_write = request.may_write();
        request.timeout_ms = node_timeout_ms(timeout);
        request.credit = credit;
        let (sender, receiver) = oneshot::channel();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.register_reply(id, PendingReply::Answer(sender, sink))?;
        let mut cancel_guard = CancelCallGuard { remote: self, id, sent: false, answered: false };
        let frame = Frame { id, body: Some(Body::Request(request)) };
        let exchange = async {
            match self.send_queue.push(&frame).await {
                Ok(()) => cancel_guard.sent = true,
                Err(PushError::Closed) => return Err(never_sent_error()),
                Err(PushError::TooLarge(error)) => return Err(error),
            }
            drop(frame);
            let answer = receiver.await.map_err(|_| connection_lost_error(may_write))?;
            cancel_guard.answered = true;
            answer
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer.map(|response| (response, id)),
            Err(_) if cancel_guard.sent => Err(timeout_error(may_write, timeout)),
            Err(_) => Err(Error::new(
                Code::Unavailable,
                format!(
                    "the node took no request within {}: too much waits to be sent. Nothing was done.",
                    span(timeout)
                ),
            )),
        }
    }

    fn lock_pending(&self) -> MutexGuard<'_, PendingReplies> {
        // Nothing in here can panic half-way through a change.
        lock(&self.pending)
    }

    fn register_reply(&self, id: u64, reply: PendingReply) -> Result<(), Error> {
        let mut pending = self.lock_pending();
        if pending.closed {
            return Err(never_sent_error());
        }
        pending.by_id.insert(id, reply);
        Ok(())
    }

    /// Hands a frame to the call or stream that waits for it. Frames for calls that were cancelled
    /// are ignored.
    fn dispatch_frame(&self, frame: Frame) -> Result<(), StreamError> {
        let Frame { id, body: Some(body) } = frame else {
            // A kind of frame that a newer version added.
            return Ok(());
        };
        let mut pending = self.lock_pending();
        match body {
            Body::Response(response) => match pending.by_id.remove(&id) {
                Some(PendingReply::Answer(sender, sink)) => {
                    if let Some(sink) = sink {
                        pending.by_id.insert(id, PendingReply::Events(sink));
                    }
                    drop(pending);
                    // An error means that the caller just left; its guard cancels the call.
                    let _ = sender.send(Ok(response));
                    Ok(())
                }
                Some(PendingReply::Events(_)) => Err(StreamError::Violation),
                None => Ok(()),
            },
            Body::Error(error) => {
                let reply = pending.by_id.remove(&id);
                drop(pending);
                match reply {
                    Some(PendingReply::Answer(sender, _)) => {
                        let _ = sender.send(Err(error.into()));
                    }
                    Some(PendingReply::Events(sink)) => sink.end_with_error(error.into()),
                    None => {}
                }
                Ok(())
            }
            Body::Event(event) => match pending.by_id.get_mut(&id) {
                Some(PendingReply::Events(sink)) => sink.push_event(event),
                Some(PendingReply::Answer(..)) => Err(StreamError::Violation),
                None => Ok(()),
            },
            Body::End(rpc::End {}) => match pending.by_id.remove(&id) {
                // The sink is dropped, which ends the events.
                Some(PendingReply::Events(_)) | None => Ok(()),
                Some(PendingReply::Answer(..)) => Err(StreamError::Violation),
            },
            Body::Request(_) | Body::Credit(_) | Body::Cancel(_) => Err(StreamError::Violation),
        }
    }

    /// The stream is gone: every call and stream that waits ends with an error.
    fn fail_all(&self) {
        let by_id = {
            let mut pending = self.lock_pending();
            pending.closed = true;
            std::mem::take(&mut pending.by_id)
        };
        for reply in by_id.into_values() {
            match reply {
                // The caller words the error: it knows whether it wrote.
                PendingReply::Answer(..) => {}
                PendingReply::Events(sink) => sink.end_with_error(Error::new(
                    Code::Unavailable,
                    "the connection to the node broke while events were coming: open the stream again",
                )),
            }
        }
    }
}

impl EventControl for RpcClientStream {
    fn cancel_call(&self, id: u64) {
        if self.lock_pending().by_id.remove(&id).is_some() {
            self.send_control(Frame { id, body: Some(Body::Cancel(rpc::Cancel {})) });
        }
    }

    fn send_control(&self, frame: Frame) {
        // A peer that has let megabytes of them pile up is not reading.
        if !self.send_queue.push_control(&frame) {
            self.send_queue.close();
            self.abandoned.cancel();
        }
    }
}

impl Drop for RpcClientStream {
    fn drop(&mut self) {
        self.abandoned.cancel();
    }
}

fn never_sent_error() -> Error {
    Error::new(Code::Unavailable, "the connection to the node is closed. Nothing was sent.")
}

/// The timeout that the request carries: a little less than the caller waits, so that the node's
/// own "nothing was done" arrives before the outcome counts as unknown.
fn node_timeout_ms(timeout: Duration) -> u32 {
    let margin = (timeout / 10).min(Duration::from_millis(100));
    // 0 would mean the node's default.
    u32::try_from((timeout - margin).as_millis()).unwrap_or(u32::MAX).max(1)
}

/// A call under way. Dropped before the answer came, it cancels the call.
struct CancelCallGuard<'a> {
    remote: &'a RpcClientStream,
    id: u64,
    sent: bool,
    answered: bool,
}

impl Drop for CancelCallGuard<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        if self.sent {
            self.remote.cancel_call(self.id);
        } else {
            self.remote.lock_pending().by_id.remove(&self.id);
        }
    }
}

/// The one task of the stream.
struct ClientStreamTask {
    remote: Weak<RpcClientStream>,
    send_queue: Arc<SendQueue>,
    closed: CancellationToken,
    abandoned: CancellationToken,
    peer: PeerId,
    metrics: Arc<P2pMetrics>,
}

impl ClientStreamTask {
    async fn run(self, mut framed: FramedStream) {
        self.metrics.open_channels.increment(1.0);
        let end = tokio::select! {
            end = self.read_frames(&mut framed) => Some(end),
            () = self.abandoned.cancelled() => None,
        };
        self.closed.cancel();
        if let Some(remote) = self.remote.upgrade() {
            remote.fail_all();
        }
        match end {
            // What is still queued is cancellations: worth sending, not worth an error.
            None => framed.flush_and_close().await.unwrap_or_default(),
            Some(Ok(())) => {
                self.send_queue.close();
                framed.flush_and_close().await.unwrap_or_default();
            }
            Some(Err(reset)) => {
                self.send_queue.close();
                drop(framed);
                if reset != StreamError::Broken {
                    tracing::warn!(peer = %self.peer, reason = reset.name(), "closed a stream to a node");
                }
                self.metrics.count_stream_error(reset.name());
            }
        }
        self.send_queue.close();
        self.metrics.open_channels.decrement(1.0);
    }

    async fn read_frames(&self, framed: &mut FramedStream) -> Result<(), StreamError> {
        while let Some((frame, _)) = framed.next_frame().await? {
            let Some(remote) = self.remote.upgrade() else { break };
            remote.dispatch_frame(frame)?;
            drop(remote);
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::node_timeout_ms;
    use std::time::Duration;

    #[test]
    fn the_node_gets_a_little_less_time_than_the_caller_waits() {
        assert_eq!(node_timeout_ms(Duration::from_secs(30)), 29_900);
        assert_eq!(node_timeout_ms(Duration::from_millis(100)), 90);
        assert_eq!(node_timeout_ms(Duration::ZERO), 1, "0 would mean the node's default");
        assert_eq!(node_timeout_ms(Duration::MAX), u32::MAX);
    }
}
