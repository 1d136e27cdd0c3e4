//! Reading a request's body: never more than allowed, never for ever.

use crate::error::ApiError;
use crate::fair_budget::ChargeGuard;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use debros_proto::Code;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
use http_body_util::BodyExt as _;
use std::time::Duration;
use tokio::time::timeout;

/// What is read and thrown away of a body that is too large, after the answer was sent. Closing at once would reset the
/// connection, and a caller that reads only when it has sent all would see that instead of the answer.
const DRAIN_BYTES: usize = 16 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// A caller that sends nothing for this long has stopped.
const DRAIN_PAUSE: Duration = Duration::from_millis(500);
/// What is read of a body that no handler wants, so that the connection can serve the next request.
const LEFT_BYTES: usize = 64 << 10;
/// Memory taken for a body before its bytes are there.
const FIRST_BUFFER: usize = 64 << 10;

/// Bytes that the caller announced, if it did.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a whole body.
///
/// `too_large` when it has more than `limit` bytes; what was announced too large is not kept in memory at all. What there is
/// no room for is refused before it is read.
pub(crate) async fn read(
    body: Body,
    headers: &HeaderMap,
    limit: usize,
    within: Duration,
    charge: &mut ChargeGuard,
) -> Result<Bytes, ApiError> {
    if announced(headers).is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    if let Some(length) = announced(headers) {
        charge.set(usize::try_from(length).unwrap_or(usize::MAX))?;
    }
    timeout(within, collect(body, limit, charge)).await.unwrap_or_else(|_| Err(ApiError::slow_body()))
}

async fn collect(mut body: Body, limit: usize, charge: &mut ChargeGuard) -> Result<Bytes, ApiError> {
    let Some(first) = next(&mut body).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > limit {
        return Err(too_large(limit));
    }
    let Some(second) = next(&mut body).await? else {
        // The usual case: a small body that came in one piece is not copied.
        return Ok(first);
    };
    let mut whole = BytesMut::with_capacity((first.len() + second.len()).max(FIRST_BUFFER));
    whole.extend_from_slice(&first);
    let mut piece = Some(second);
    while let Some(bytes) = piece {
        if whole.len() + bytes.len() > limit {
            return Err(too_large(limit));
        }
        if whole.len() + bytes.len() > whole.capacity() {
            // It was not announced. The buffer doubles.
            charge.set((whole.capacity() * 2).max(charge.amount()))?;
        }
        whole.extend_from_slice(&bytes);
        piece = next(&mut body).await?;
    }
    Ok(whole.freeze())
}

/// The next piece of data; trailers are skipped.
async fn next(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            let message = "the request's body is not well-formed: its length or chunks are not what the headers said";
            ApiError::new(Code::Malformed, message).closing()
        })?;
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Whether the caller sends its body only when it is told to.
pub(crate) fn awaits_permission(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Leaves the rest of a body that no handler has read. Says whether the connection can serve the next request: a small rest
/// that comes soon is read and thrown away. Otherwise the connection has to end, and to say so, because hyper closes it
/// without a word; it stays open for a moment for what is still on its way.
pub(crate) async fn discard_rest(
    mut body: Body,
    announced: Option<u64>,
    awaits_permission: bool,
    closes: bool,
) -> bool {
    if awaits_permission {
        // Nothing was sent yet, and asking for the body is what reading it would do.
        return false;
    }
    if !closes
        && announced.is_none_or(|length| length <= LEFT_BYTES as u64)
        && matches!(timeout(DRAIN_PAUSE, discard_bytes(&mut body, LEFT_BYTES)).await, Ok(true))
    {
        return true;
    }
    tokio::spawn(timeout(DRAIN_TIME, async move { discard_bytes(&mut body, DRAIN_BYTES).await }));
    false
}

/// Reads and throws away; says whether the body came to its end.
async fn discard_bytes(body: &mut Body, limit: usize) -> bool {
    let mut left = limit;
    while let Ok(Ok(piece)) = timeout(DRAIN_PAUSE, next(body)).await {
        let Some(bytes) = piece else { return true };
        match left.checked_sub(bytes.len()) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    false
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(Code::TooLarge, format!("the request's body is too large: at most {limit} bytes are allowed"))
        .closing()
}
