//! One RPC stream as its one task sees it: frames in, queued frames out. A single task does both,
//! so a batch of answers and a batch of requests cost one wake-up, and nothing is locked between
//! reading and writing.

use crate::metrics::P2pMetrics;
use crate::opened_stream::OpenedStream;
use crate::peer_quota::ArrivingBytes;
use crate::send_queue::{QueuedChunk, SendQueue};
use bytes::{Buf, BytesMut};
use debros_proto::rpc::Frame;
use debros_proto::{Code, frame};
use futures::io::{AsyncRead, AsyncWrite};
use libp2p::Stream;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// Bytes read from the stream at a time.
const READ_BYTES: usize = 32 << 10;

/// Why a stream ended other than by its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamError {
    /// The transport broke, or the peer reset the stream.
    Broken,
    /// A frame over the size limit.
    FrameTooLarge,
    /// Bytes that are no frame.
    Malformed,
    /// A frame that did not arrive in time.
    PartialFrame,
    /// The peer did not read in time what waits for it.
    Stalled,
    /// A frame that has no place here: a response from a caller, an id used twice, events without
    /// credit.
    Violation,
    /// More streams than one peer may have.
    TooManyStreams,
    /// More bytes of half-arrived requests than the peer may have.
    TooManyBytes,
}

impl StreamError {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            StreamError::Broken => "broken",
            StreamError::FrameTooLarge => "frame_too_large",
            StreamError::Malformed => "malformed",
            StreamError::PartialFrame => "partial_frame",
            StreamError::Stalled => "stalled",
            StreamError::Violation => "violation",
            StreamError::TooManyStreams => "too_many_streams",
            StreamError::TooManyBytes => "too_many_bytes",
        }
    }
}

/// From when the time of a half-arrived frame counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameTimeoutStart {
    /// From its first byte: for callers, which are strangers.
    FirstByte,
    /// From the last byte that arrived: for a node's answers, which may be large and the line slow.
    LastByte,
}

/// How a stream is read and written.
pub(crate) struct FramedStreamConfig {
    /// Bytes of an incoming frame.
    pub(crate) frame_limit: usize,
    pub(crate) partial_frame_timeout: Duration,
    pub(crate) timeout_start: FrameTimeoutStart,
    pub(crate) write_stall_timeout: Duration,
    /// Where bytes of half-arrived frames are counted; `None`: nowhere.
    pub(crate) arriving: Option<ArrivingBytes>,
}

pub(crate) struct FramedStream {
    stream: Stream,
    /// Ready when the connection is gone. What it had received by then can still be read.
    connection_closed: Pin<Box<WaitForCancellationFutureOwned>>,
    send_queue: Arc<SendQueue>,
    config: FramedStreamConfig,
    metrics: Arc<P2pMetrics>,
    input: BytesMut,
    scratch: Box<[u8]>,
    /// Since when the frame at the front of `input` is waited for.
    partial_since: Option<Instant>,
    output: Option<QueuedChunk>,
    /// Since when the stream takes nothing.
    stalled_since: Option<Instant>,
    /// Bytes were written that the stream may still hold back.
    unflushed: bool,
    /// Frames were seen in the send queue, and other tasks had a turn to add to them.
    has_yielded: bool,
    tick: Interval,
}

impl FramedStream {
    pub(crate) fn new(
        opened: OpenedStream,
        send_queue: Arc<SendQueue>,
        config: FramedStreamConfig,
        metrics: Arc<P2pMetrics>,
    ) -> Self {
        let period = (config.partial_frame_timeout.min(config.write_stall_timeout) / 4)
            .max(Duration::from_millis(1));
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            stream: opened.stream,
            connection_closed: Box::pin(opened.connection_closed.cancelled_owned()),
            send_queue,
            config,
            metrics,
            input: BytesMut::new(),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            partial_since: None,
            output: None,
            stalled_since: None,
            unflushed: false,
            has_yielded: false,
            tick,
        }
    }

    /// The next frame with its size in bytes, or `None` when the peer has closed its side or is
    /// gone; writes what is queued meanwhile. May be dropped and called again.
    pub(crate) async fn next_frame(&mut self) -> Result<Option<(Frame, usize)>, StreamError> {
        poll_fn(|cx| self.poll_next_frame(cx)).await
    }

    fn poll_next_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<(Frame, usize)>, StreamError>> {
        if let Some(frame) = self.decode_frame()? {
            return Poll::Ready(Ok(Some(frame)));
        }
        self.poll_write_queued(cx)?;
        self.poll_tick(cx)?;
        loop {
            if !self.input.is_empty() {
                self.partial_since.get_or_insert_with(Instant::now);
            }
            let read = ready!(self.poll_read(cx)).map_err(|_| StreamError::Broken)?;
            if read == 0 {
                return Poll::Ready(if self.input.is_empty() {
                    Ok(None)
                } else {
                    Err(StreamError::Broken)
                });
            }
            self.metrics.received_bytes.increment(read as u64);
            self.input.extend_from_slice(&self.scratch[..read]);
            if self.config.timeout_start == FrameTimeoutStart::LastByte {
                self.partial_since = None;
            }
            if let Some(frame) = self.decode_frame()? {
                return Poll::Ready(Ok(Some(frame)));
            }
            self.count_arriving()?;
        }
    }

    /// Bytes read into `scratch`; 0 at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut self.scratch);
        if read.is_ready() || self.connection_closed.as_mut().poll(cx).is_pending() {
            return read;
        }
        // The last bytes may have come between the two checks.
        match Pin::new(&mut self.stream).poll_read(cx, &mut self.scratch) {
            Poll::Pending => Poll::Ready(Ok(0)),
            read => read,
        }
    }

    fn decode_frame(&mut self) -> Result<Option<(Frame, usize)>, StreamError> {
        let before = self.input.len();
        match frame::decode(&mut self.input, self.config.frame_limit) {
            Ok(Some(frame)) => {
                self.partial_since = None;
                self.count_arriving()?;
                Ok(Some((frame, before - self.input.len())))
            }
            Ok(None) => Ok(None),
            Err(error) if error.code == Code::TooLarge => Err(StreamError::FrameTooLarge),
            Err(_) => Err(StreamError::Malformed),
        }
    }

    fn count_arriving(&mut self) -> Result<(), StreamError> {
        let within = self
            .config
            .arriving
            .as_mut()
            .is_none_or(|arriving| arriving.resize_and_check(self.input.len()));
        if within { Ok(()) } else { Err(StreamError::TooManyBytes) }
    }

    fn poll_tick(&mut self, cx: &mut Context<'_>) -> Result<(), StreamError> {
        while self.tick.poll_tick(cx).is_ready() {
            if self
                .partial_since
                .is_some_and(|since| since.elapsed() >= self.config.partial_frame_timeout)
            {
                return Err(StreamError::PartialFrame);
            }
            if self
                .stalled_since
                .is_some_and(|since| since.elapsed() >= self.config.write_stall_timeout)
            {
                return Err(StreamError::Stalled);
            }
        }
        Ok(())
    }

    /// Writes as much as the stream takes. Before it begins with new frames it lets the other tasks
    /// that are ready have their turn once, because they are about to queue more: without it each
    /// frame would go out alone.
    fn poll_write_queued(&mut self, cx: &mut Context<'_>) -> Result<(), StreamError> {
        self.send_queue.register_waker(cx.waker());
        if self.output.is_none() {
            if self.send_queue.is_empty() {
                // Clears the note that this task was woken.
                self.output = self.send_queue.pop_chunk();
            } else if !self.has_yielded {
                self.has_yielded = true;
                cx.waker().wake_by_ref();
                return Ok(());
            }
        }
        match self.poll_drain(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Ready when nothing is queued and everything was handed to the transport.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        loop {
            if self.output.is_none() {
                self.output = self.send_queue.pop_chunk();
            }
            let Some(chunk) = &mut self.output else { break };
            while chunk.bytes.has_remaining() {
                match Pin::new(&mut self.stream).poll_write(cx, &chunk.bytes) {
                    Poll::Ready(Ok(written)) if written > 0 => {
                        chunk.bytes.advance(written);
                        self.stalled_since = None;
                        self.unflushed = true;
                        self.metrics.sent_bytes.increment(written as u64);
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(StreamError::Broken)),
                    Poll::Pending => {
                        self.stalled_since.get_or_insert_with(Instant::now);
                        return Poll::Pending;
                    }
                }
            }
            if let Some(chunk) = self.output.take() {
                self.send_queue.release_chunk(&chunk);
            }
        }
        self.has_yielded = false;
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.unflushed = false;
                    self.stalled_since = None;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(StreamError::Broken)),
                Poll::Pending => {
                    self.stalled_since.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes everything that is queued and closes this side of the stream. Does not read any more.
    pub(crate) async fn flush_and_close(mut self) -> Result<(), StreamError> {
        poll_fn(|cx| {
            self.poll_tick(cx)?;
            if self.connection_closed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(StreamError::Broken));
            }
            ready!(self.poll_drain(cx))?;
            Pin::new(&mut self.stream).poll_close(cx).map_err(|_| StreamError::Broken)
        })
        .await
    }
}
