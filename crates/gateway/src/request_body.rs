//! The body of a request: counts what is taken from the connection, and comes back when a handler has not read it all.

use crate::connection_state::ConnectionState;
use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

/// Where a body goes that was dropped before its end.
#[derive(Clone, Default)]
pub(crate) struct UnreadSlot(Arc<Mutex<Option<Incoming>>>);

impl UnreadSlot {
    pub(crate) fn take(&self) -> Option<Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
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

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && !body.is_end_stream()
        {
            *self.unread.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.state.count_taken(data.len());
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
