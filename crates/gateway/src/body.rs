//! Reading a request's body: never more than allowed, never for ever.

use crate::error::ApiError;
use axum::body::{Body, HttpBody as _};
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
/// Memory taken for a body before its bytes are there.
const FIRST_BUFFER: usize = 64 << 10;

/// Bytes that the caller announced, if it did.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a whole body.
///
/// `too_large` when it has more than `limit` bytes; what was announced too large is not kept in memory at all.
pub(crate) async fn read(body: Body, headers: &HeaderMap, limit: usize, within: Duration) -> Result<Bytes, ApiError> {
    if announced(headers).is_some_and(|length| length > limit as u64) {
        if awaits_permission(headers) {
            // Nothing was sent yet, and asking for the body is what reading it would do.
            return Err(too_large(limit));
        }
        return Err(refuse(body, limit));
    }
    timeout(within, collect(body, limit)).await.unwrap_or_else(|_| Err(ApiError::slow_body()))
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let Some(first) = next(&mut body).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > limit {
        return Err(refuse(body, limit));
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
            return Err(refuse(body, limit));
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
fn awaits_permission(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Refuses the body now, and lets the connection stay open for what is still on its way.
fn refuse(mut body: Body, limit: usize) -> ApiError {
    tokio::spawn(timeout(DRAIN_TIME, async move {
        let mut drained = 0;
        while let Ok(Ok(Some(bytes))) = timeout(DRAIN_PAUSE, next(&mut body)).await {
            drained += bytes.len();
            if drained > DRAIN_BYTES {
                break;
            }
        }
    }));
    too_large(limit)
}

/// Reads and throws away the small body of a request that is refused for another reason, so that the connection can serve the
/// next one. False when the body is larger than `limit`, is slow to come or waits for permission: then the connection has to
/// end, and to say so, because hyper closes it otherwise without a word.
pub(crate) async fn discard(mut body: Body, headers: &HeaderMap, limit: usize) -> bool {
    if body.is_end_stream() {
        return true;
    }
    if awaits_permission(headers) || announced(headers).is_some_and(|length| length > limit as u64) {
        return false;
    }
    let all = async {
        let mut left = limit;
        while let Some(bytes) = next(&mut body).await.ok()? {
            left = left.checked_sub(bytes.len())?;
        }
        Some(())
    };
    matches!(timeout(DRAIN_PAUSE, all).await, Ok(Some(())))
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(Code::TooLarge, format!("the request's body is too large: at most {limit} bytes are allowed"))
        .closing()
}
