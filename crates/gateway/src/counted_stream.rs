//! A connection above TLS that counts what HTTP/2 holds of it. HTTP/1.1 is counted at the socket
//! (`watched_stream.rs`), and a WebSocket by its messages (`shared_websocket.rs`).

use crate::connection_state::ConnectionState;
use crate::http_settings::CONNECTION_WINDOW;
use crate::http2_frames::{RequestFrames, WindowUpdates};
use crate::watched_stream::memory_exceeded;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How every HTTP/2 connection begins (RFC 9113 §3.4). The HTTP library decides by it too, whatever
/// ALPN said.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection above TLS that counts what HTTP/2 holds of it.
pub(crate) struct CountedStream<S> {
    stream: S,
    state: Arc<ConnectionState>,
    protocol: Protocol,
}

enum Protocol {
    /// Bytes of the preface that have come.
    Unknown(usize),
    Http1,
    /// In a box, because most connections have none.
    Http2(Box<Http2>),
}

#[derive(Default)]
struct Http2 {
    requests: RequestFrames,
    updates: WindowUpdates,
}

impl<S> CountedStream<S> {
    pub(crate) fn new(stream: S, state: Arc<ConnectionState>) -> Self {
        Self { stream, state, protocol: Protocol::Unknown(0) }
    }

    fn count_read(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if let Protocol::Unknown(matched) = &mut self.protocol {
            let length = bytes.len().min(PREFACE.len() - *matched);
            let (start, rest) = bytes.split_at(length);
            bytes = rest;
            if start != &PREFACE[*matched..*matched + length] {
                self.protocol = Protocol::Http1;
            } else if *matched + length == PREFACE.len() {
                self.state.becomes_http2();
                self.protocol = Protocol::Http2(Box::default());
            } else {
                *matched += length;
            }
        }
        let Protocol::Http2(http2) = &mut self.protocol else { return Ok(()) };
        let requests = &mut http2.requests;
        let read = requests.pass(bytes);
        self.state
            .count_frames(read, requests.unfinished(), requests.is_block_open())
            .map_err(memory_exceeded)
    }

    /// Observes the bytes that were sent: the beginning of the slices.
    fn follow_written<'a>(&mut self, mut length: usize, slices: impl Iterator<Item = &'a [u8]>) {
        let Protocol::Http2(http2) = &mut self.protocol else { return };
        let mut is_window_larger = false;
        for slice in slices {
            let written = &slice[..slice.len().min(length)];
            length -= written.len();
            is_window_larger |= http2.updates.pass(written);
            if length == 0 {
                break;
            }
        }
        if is_window_larger {
            self.state.limit_unread(
                http2.updates.most_held(http2.requests.received(), CONNECTION_WINDOW),
            );
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        Poll::Ready(self.count_read(&buffer.filled()[before..]))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.follow_written(written, std::iter::once(bytes));
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.follow_written(written, slices.iter().map(|slice| &**slice));
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
