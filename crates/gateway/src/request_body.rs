//! The body of a request: counts the bytes taken from the connection, and returns to the pipeline
//! if a handler has not read it all.
//!
//! The library drops the rest of an HTTP/2 body without a reader, and does not report its size. So
//! the received part is taken first.

use crate::connection_state::ConnectionState;
use crate::http_settings::STREAM_WINDOW;
use axum::body::HttpBody;
use bytes::Bytes;
use debros_proto::lock;
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

/// Bytes of an HTTP/2 body that are taken before it is dropped: as many as the library may have of
/// it.
const MOST_LEFT: usize = STREAM_WINDOW as usize;

/// The place for a body that was dropped before its end.
#[derive(Clone, Default)]
pub(crate) struct UnreadSlot(Arc<Mutex<Option<Incoming>>>);

impl UnreadSlot {
    pub(crate) fn take_body(&self) -> Option<Incoming> {
        lock(&self.0).take()
    }
}

/// The body of a request.
pub(crate) struct RequestBody {
    /// `None` only while it is dropped.
    body: Option<Incoming>,
    state: Arc<ConnectionState>,
    unread: UnreadSlot,
}

impl RequestBody {
    pub(crate) fn new(body: Incoming, state: Arc<ConnectionState>, unread: UnreadSlot) -> Self {
        Self { body: Some(body), state, unread }
    }
}

/// Counts a piece of a body that was taken.
fn count_taken(state: &ConnectionState, frame: &Frame<Bytes>) {
    match frame.data_ref() {
        Some(data) => state.count_taken(data.len()),
        None => state.count_trailers_taken(),
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(mut body) = self.body.take()
            && !body.is_end_stream()
        {
            let mut left = if self.state.is_http2() { MOST_LEFT } else { 0 };
            while left > 0
                && let Some(Some(Ok(frame))) = body.frame().now_or_never()
            {
                count_taken(&self.state, &frame);
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            }
            *lock(&self.unread.0) = Some(body);
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            count_taken(&self.state, frame);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}
