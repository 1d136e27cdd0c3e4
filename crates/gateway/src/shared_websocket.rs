//! A WebSocket that one future reads while another writes, both in one task, and that can return
//! memory.
//!
//! The library keeps buffers as large as the largest frame that it has read, and the largest amount
//! that it had to write at once. A socket that had one message of 1 MiB would hold that much until
//! it ends. So [`SharedWebSocket::try_shrink_buffers`] puts a new reader and writer around the
//! connection, when nothing is half read or half written.

use crate::connection_state::ConnectionState;
use crate::frame_tracker::FrameTracker;
use crate::watched_stream::memory_exceeded;
use debros_proto::limits::MAX_MESSAGE_BYTES;
use debros_proto::lock;
use futures::{FutureExt as _, Sink, SinkExt as _, Stream, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// A message over this size goes out in several frames. The library copies a frame before it is
/// written: so a socket with a stalled reader keeps this much in memory, not a whole message.
pub(crate) const FRAME_PIECE_BYTES: usize = 8 << 10;
/// Beyond this the library refuses to keep more: a piece that was not written, the next one, and
/// their heads.
const MAX_WRITE_BUFFER: usize = 2 * FRAME_PIECE_BYTES + (1 << 10);
/// The size of a read. Every open WebSocket has a buffer of it.
const READ_BUFFER: usize = 2 << 10;

type InnerWebSocket = WebSocketStream<CountingStream>;

/// A WebSocket. Reading and writing go through shared references: they are polled by one task, so
/// the lock is always free.
pub(crate) struct SharedWebSocket(Mutex<SocketState>);

struct SocketState {
    /// `None` only while it is exchanged.
    inner: Option<InnerWebSocket>,
    /// Messages and control frames that were taken.
    taken: u64,
}

impl SharedWebSocket {
    pub(crate) fn new(upgraded: Upgraded, connection: Arc<ConnectionState>) -> Self {
        let tracker = FrameTracker::default();
        let inner =
            wrap_stream(CountingStream { stream: TokioIo::new(upgraded), connection, tracker });
        Self(Mutex::new(SocketState { inner, taken: 0 }))
    }

    /// Returns the buffers' memory. False if something is half read or half written.
    pub(crate) async fn try_shrink_buffers(&self) -> bool {
        poll_fn(|cx| Poll::Ready(self.poll_shrink_buffers(cx))).await
    }

    fn poll_shrink_buffers(&self, cx: &mut Context<'_>) -> bool {
        let mut state = self.lock_state();
        let taken = state.taken;
        let Some(inner) = &mut state.inner else { return false };
        let tracker = &inner.get_ref().tracker;
        if tracker.finished_messages() != taken
            || tracker.unfinished_bytes() > 0
            || !matches!(inner.poll_flush_unpin(cx), Poll::Ready(Ok(())))
        {
            return false;
        }
        // Less always fits.
        let _ = inner.get_ref().connection.count_retained(0);
        state.inner = state.inner.take().and_then(|inner| wrap_stream(inner.into_inner()));
        // A task that waits for the socket waits for the old reader and writer: both halves have to
        // poll again.
        cx.waker().wake_by_ref();
        true
    }

    /// Reads and discards, without parsing frames. For the end of a connection whose frames cannot
    /// be read.
    pub(crate) async fn discard_input(&self) {
        // Not in the future itself, which every open WebSocket has.
        let mut bytes = vec![0; 4096];
        loop {
            let read = poll_fn(|cx| {
                let mut buffer = ReadBuf::new(&mut bytes);
                let mut state = self.lock_state();
                let Some(inner) = &mut state.inner else { return Poll::Ready(0) };
                let read = ready!(Pin::new(inner.get_mut()).poll_read(cx, &mut buffer));
                Poll::Ready(read.map_or(0, |()| buffer.filled().len()))
            });
            if read.await == 0 {
                return;
            }
        }
    }

    fn lock_state(&self) -> MutexGuard<'_, SocketState> {
        lock(&self.0)
    }
}

/// A new reader and writer. There is nothing to wait for: the handshake is over.
fn wrap_stream(stream: CountingStream) -> Option<InnerWebSocket> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(FRAME_PIECE_BYTES)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).now_or_never()
}

impl Stream for &SharedWebSocket {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.lock_state();
        let SocketState { inner: Some(inner), taken } = &mut *state else {
            return Poll::Ready(None);
        };
        let message = ready!(inner.poll_next_unpin(cx));
        if let Some(Ok(_)) = &message {
            *taken += 1;
            let CountingStream { connection, tracker, .. } = inner.get_ref();
            // The library has no other complete one: unread bytes are the beginning of the next.
            if tracker.finished_messages() == *taken {
                connection.set_unread(tracker.unfinished_bytes());
            }
        }
        Poll::Ready(message)
    }
}

impl Sink<Message> for &SharedWebSocket {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.lock_state()
            .inner
            .as_mut()
            .map_or(Poll::Ready(Err(Error::AlreadyClosed)), |inner| inner.poll_ready_unpin(cx))
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        self.lock_state()
            .inner
            .as_mut()
            .map_or(Err(Error::AlreadyClosed), |inner| inner.start_send_unpin(message))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.lock_state()
            .inner
            .as_mut()
            .map_or(Poll::Ready(Err(Error::AlreadyClosed)), |inner| inner.poll_flush_unpin(cx))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.lock_state()
            .inner
            .as_mut()
            .map_or(Poll::Ready(Err(Error::AlreadyClosed)), |inner| inner.poll_close_unpin(cx))
    }
}

/// A connection that counts the bytes read from it, above TLS: as the frames have them.
struct CountingStream {
    stream: TokioIo<Upgraded>,
    connection: Arc<ConnectionState>,
    tracker: FrameTracker,
}

impl AsyncRead for CountingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = &buffer.filled()[before..];
        self.tracker.observe(read);
        Poll::Ready(self.connection.count_read(read.len()).map_err(memory_exceeded))
    }
}

impl AsyncWrite for CountingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
