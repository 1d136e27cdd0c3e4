//! The body of an answer, counted from the handler until the socket has taken its last byte.
//!
//! The count is attached to the bytes themselves, wherever the HTTP library keeps them: it is
//! released when the last piece of them is dropped.

use crate::connection_state::{ActivityGuard, UnreadResponse};
use crate::fair_budget::ChargeGuard;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The size of a piece for HTTP/2, which keeps a whole piece when it may send one byte of it.
const HTTP2_PIECE_BYTES: usize = 16 << 10;

/// The body of an answer.
#[derive(Default)]
pub(crate) struct ResponseBody {
    bytes: Bytes,
    /// A body that is not in memory yet; none of the gateway's own answers has one.
    rest: Option<Body>,
    unread: Option<Arc<UnreadResponse>>,
}

/// Bytes of an answer, with their charge.
struct ChargedBytes {
    bytes: Bytes,
    _charge: ChargeGuard,
    _under_way: ActivityGuard,
    _untaken: Option<Arc<UnreadResponse>>,
}

impl AsRef<[u8]> for ChargedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A part of an answer on its way: sending it is progress.
struct ResponsePiece {
    bytes: Bytes,
    unread: Arc<UnreadResponse>,
}

impl AsRef<[u8]> for ResponsePiece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for ResponsePiece {
    fn drop(&mut self) {
        self.unread.record_progress();
    }
}

impl ResponseBody {
    /// Counts a body that the charge is large enough for. With `watched` the connection ends when
    /// nothing of the body is taken for the write time-out: over HTTP/2 the socket does not show
    /// that.
    pub(crate) fn charged(
        mut body: Body,
        charge: ChargeGuard,
        under_way: ActivityGuard,
        watched: bool,
    ) -> Self {
        if body.is_end_stream() {
            return Self::default();
        }
        let bytes = match body.frame().now_or_never() {
            Some(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            _ => Bytes::new(),
        };
        let untaken = watched.then(|| Arc::new(UnreadResponse::new(Arc::clone(under_way.state()))));
        let held = ChargedBytes {
            bytes,
            _charge: charge,
            _under_way: under_way,
            _untaken: untaken.clone(),
        };
        let rest = (!body.is_end_stream()).then_some(body);
        Self { bytes: Bytes::from_owner(held), rest, unread: untaken }
    }
}

impl ResponseBody {
    /// A small body that is not counted: that of a refusal for want of memory.
    pub(crate) fn uncharged(body: Body) -> Self {
        Self { rest: (!body.is_end_stream()).then_some(body), ..Self::default() }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.bytes.is_empty() {
            let piece = match &self.unread {
                Some(untaken) => {
                    let untaken = Arc::clone(untaken);
                    let length = self.bytes.len().min(HTTP2_PIECE_BYTES);
                    Bytes::from_owner(ResponsePiece {
                        bytes: self.bytes.split_to(length),
                        unread: untaken,
                    })
                }
                None => std::mem::take(&mut self.bytes),
            };
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let bytes = self.bytes.len() as u64;
        let Some(rest) = &self.rest else { return SizeHint::with_exact(bytes) };
        let rest = rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(bytes + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(bytes + upper);
        }
        hint
    }
}
