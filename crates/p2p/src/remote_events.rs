//! The events of a stream on their way from the stream's task to their reader, with the credit that
//! bounds them.

use crate::framed_stream::StreamError;
use debros_proto::rpc::{self, Frame, frame::Body};
use debros_proto::{Error, rpc::event::Kind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Events that a node may send before anything is known about their size.
const FIRST_CREDIT: u64 = 16;
/// Events of a stream that may be on their way or unread, however small they are.
const MAX_WINDOW: u64 = 256;
/// However large the events are, this many may be on their way, so that reading and sending
/// overlap.
const MIN_WINDOW: u64 = 4;
/// Bytes of a stream's events that are meant to be on their way or unread.
const WINDOW_BYTES: u64 = 2 << 20;

/// What the events of a stream ask of it.
pub(crate) trait EventControl: Send + Sync {
    /// Sends a frame that cannot wait.
    fn send_control(&self, frame: Frame);

    /// Nothing waits for this id any more: cancels the call at the node, if it is open.
    fn cancel_call(&self, id: u64);
}

/// Where the stream's task puts events. Dropping it ends the events.
pub(crate) struct EventSink {
    sender: mpsc::UnboundedSender<Result<rpc::Event, Error>>,
    granted: Arc<AtomicU64>,
    received: u64,
}

impl EventSink {
    /// Hands an event to the reader. The channel is unbounded, what is in it is not: a node that
    /// sends more than it has credit for breaks the protocol.
    pub(crate) fn push_event(&mut self, event: rpc::Event) -> Result<(), StreamError> {
        self.received += 1;
        if self.received > self.granted.load(Ordering::Acquire) {
            return Err(StreamError::Violation);
        }
        // An error means that the reader just left; it cancels the stream.
        let _ = self.sender.send(Ok(event));
        Ok(())
    }

    pub(crate) fn end_with_error(self, error: Error) {
        let _ = self.sender.send(Err(error));
    }
}

/// The reader's side before the stream is open.
pub(crate) struct EventPipe {
    receiver: mpsc::UnboundedReceiver<Result<rpc::Event, Error>>,
    granted: Arc<AtomicU64>,
}

pub(crate) fn event_pipe() -> (EventSink, EventPipe) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let granted = Arc::new(AtomicU64::new(FIRST_CREDIT));
    let sink = EventSink { sender, granted: granted.clone(), received: 0 };
    (sink, EventPipe { receiver, granted })
}

impl EventPipe {
    /// What the request that opens the stream grants.
    pub(crate) fn initial_credit(&self) -> u32 {
        FIRST_CREDIT as u32
    }

    pub(crate) fn into_events(self, remote: Arc<dyn EventControl>, id: u64) -> RemoteEvents {
        RemoteEvents { pipe: self, remote, id, consumed: 0, average_size: 0, ended: false }
    }
}

/// The events of a stream of another process.
pub(crate) struct RemoteEvents {
    pipe: EventPipe,
    remote: Arc<dyn EventControl>,
    id: u64,
    consumed: u64,
    /// Bytes, smoothed over the last events.
    average_size: u64,
    ended: bool,
}

impl RemoteEvents {
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<rpc::Event, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let item = std::task::ready!(self.pipe.receiver.poll_recv(cx));
        match &item {
            Some(Ok(event)) => self.replenish_credit(event),
            Some(Err(_)) | None => self.ended = true,
        }
        Poll::Ready(item)
    }

    /// An event was read: grants more when half of the window is used up.
    fn replenish_credit(&mut self, event: &rpc::Event) {
        self.consumed += 1;
        let size = event_size(event);
        self.average_size =
            if self.consumed == 1 { size } else { (self.average_size * 7 + size) / 8 };
        let window = (WINDOW_BYTES / self.average_size.max(1)).clamp(MIN_WINDOW, MAX_WINDOW);
        let granted = self.pipe.granted.load(Ordering::Relaxed);
        let outstanding = granted.saturating_sub(self.consumed);
        if outstanding <= window / 2 {
            let more = window - outstanding;
            // Before the node can know of it, so that its events are never too many.
            self.pipe.granted.store(granted + more, Ordering::Release);
            let credit = rpc::Credit { events: more as u32 };
            self.remote.send_control(Frame { id: self.id, body: Some(Body::Credit(credit)) });
        }
    }
}

impl Drop for RemoteEvents {
    fn drop(&mut self) {
        if !self.ended {
            self.remote.cancel_call(self.id);
        }
    }
}

/// About how many bytes an event holds.
fn event_size(event: &rpc::Event) -> u64 {
    const REST: u64 = 64;
    match &event.kind {
        Some(Kind::Message(message)) => REST + message.data.len() as u64,
        Some(Kind::Chunk(chunk)) => REST + chunk.len() as u64,
        _ => REST,
    }
}
