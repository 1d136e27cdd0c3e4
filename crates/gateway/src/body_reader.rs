//! Reading a request's body: never more than allowed, and only while it flows.

use crate::error::ApiError;
use crate::fair_budget::ChargeGuard;
use crate::request_cost::beyond_small;
use axum::body::{Body, BodyDataStream, HttpBody};
use bytes::Bytes;
use debros_proto::Code;
use futures::{FutureExt as _, TryStreamExt as _};
use http::HeaderMap;
use http::header::EXPECT;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Bytes of a too large body that are read and discarded after the answer was sent. Closing at once
/// would reset the connection, and a caller that reads only after it has sent everything would see
/// that instead of the answer.
const DRAIN_BYTES: usize = 16 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// A caller that sends nothing for this long has stopped.
const DRAIN_PAUSE: Duration = Duration::from_millis(500);
/// The least average rate of a body after its first `pause`, in bytes a second. Slow lines reach a
/// multiple of it; a body with a byte now and then would hold memory and a connection.
const MIN_BYTES_PER_SECOND: u32 = 4 << 10;
/// Bytes of a body that no handler wants that are read, so that the connection can serve the next
/// request.
const MAX_DISCARDED_BYTES: usize = 64 << 10;
/// The first buffer for a body that comes in pieces. It doubles with them.
const FIRST_BUFFER: usize = 8 << 10;

/// Bytes that the caller announced in Content-Length, if any.
pub(crate) fn announced_length(body: &impl HttpBody) -> Option<u64> {
    body.size_hint().exact()
}

/// Reads a whole body, of which `announced` bytes were announced.
///
/// It may take as long as it flows: a pause ends at the latest after `pause`, and after a first one
/// of that length its bytes must have come at [`MIN_BYTES_PER_SECOND`] or faster.
///
/// `too_large` if it has more than `limit` bytes; a body that is announced too large is not stored
/// at all. Only received bytes are charged, twice at most: an announcement costs nothing, so it
/// takes nothing from others.
pub(crate) async fn read_body(
    body: Body,
    announced: Option<u64>,
    limit: usize,
    pause: Duration,
    charge: &mut ChargeGuard,
) -> Result<Bytes, ApiError> {
    let announced = announced.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let mut chunks = body.into_data_stream();
    let mut flow = BodyProgress::new(pause);
    let Some(first) = flow.next_chunk(&mut chunks).await? else {
        return Ok(Bytes::new());
    };
    if first.len() > limit {
        return Err(too_large(limit));
    }
    charge.resize(beyond_small(first.len()))?;
    // The usual case: a small body that came in one piece is not copied.
    if chunks.is_end_stream() {
        return Ok(first);
    }
    let Some(second) = flow.next_chunk(&mut chunks).await? else {
        return Ok(first);
    };
    // No more than was announced, if a length is known.
    let most = announced.unwrap_or(limit);
    let mut whole = Vec::new();
    let mut pieces = [Some(first), Some(second)].into_iter().flatten();
    let mut piece = pieces.next();
    while let Some(bytes) = piece {
        let length = whole.len() + bytes.len();
        if length > limit {
            return Err(too_large(limit));
        }
        if length > whole.capacity() {
            let buffer = (whole.capacity() * 2).max(FIRST_BUFFER).min(most).max(length);
            charge.resize(buffer)?;
            whole.reserve_exact(buffer - whole.len());
        }
        whole.extend_from_slice(&bytes);
        piece = match pieces.next() {
            Some(piece) => Some(piece),
            None => flow.next_chunk(&mut chunks).await?,
        };
    }
    Ok(whole.into())
}

/// How fast a body arrives.
struct BodyProgress {
    /// When the first wait for it began.
    started: Option<Instant>,
    pause: Duration,
    received: usize,
}

impl BodyProgress {
    fn new(pause: Duration) -> Self {
        Self { started: None, pause, received: 0 }
    }

    /// When the next piece is due.
    fn next_deadline(&mut self, now: Instant) -> Instant {
        // The limits on bodies are far below what a u32 holds.
        let received = u32::try_from(self.received).unwrap_or(u32::MAX);
        let slowest = self.pause + Duration::from_secs(1) * received / MIN_BYTES_PER_SECOND;
        (now + self.pause).min(*self.started.get_or_insert(now) + slowest)
    }

    /// The next piece of data.
    async fn next_chunk(&mut self, chunks: &mut BodyDataStream) -> Result<Option<Bytes>, ApiError> {
        // Most bodies come with their head: they need no clock.
        let piece = match chunks.try_next().now_or_never() {
            Some(piece) => piece,
            None => timeout_at(self.next_deadline(Instant::now()), chunks.try_next())
                .await
                .map_err(|_| ApiError::slow_body())?,
        };
        let piece = piece.map_err(|_| {
            let message = "the request's body is not well-formed: its length or chunks are not what the headers said";
            ApiError::new(Code::Malformed, message).with_close()
        })?;
        self.received += piece.as_ref().map_or(0, Bytes::len);
        Ok(piece)
    }
}

/// Whether the caller waits for permission to send its body.
pub(crate) fn awaits_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Handles the rest of a body that no handler has read, and returns whether the connection can
/// serve the next request: a small rest that comes soon is read and discarded. Otherwise the
/// connection has to end, and the answer has to say so, because hyper closes it silently. It stays
/// open for a short time for the data on its way.
pub(crate) async fn discard_rest(
    body: Body,
    announced: Option<u64>,
    awaits_permission: bool,
    closes: bool,
) -> bool {
    if awaits_permission {
        // Nothing was sent yet, and reading the body would request it.
        return false;
    }
    let mut chunks = body.into_data_stream();
    if !closes
        && may_be_small(announced)
        && matches!(
            timeout(DRAIN_PAUSE, discard_bytes(&mut chunks, MAX_DISCARDED_BYTES)).await,
            Ok(true)
        )
    {
        return true;
    }
    tokio::spawn(timeout(DRAIN_TIME, async move { discard_bytes(&mut chunks, DRAIN_BYTES).await }));
    false
}

/// Whether the rest of a body of the announced length may be read although no handler wants it.
pub(crate) fn may_be_small(announced: Option<u64>) -> bool {
    announced.is_none_or(|length| length <= MAX_DISCARDED_BYTES as u64)
}

/// Reads and discards the rest of a body whose answer is on its way, as far as it is small and
/// comes soon.
pub(crate) fn await_end(body: Body) {
    let mut chunks = body.into_data_stream();
    tokio::spawn(timeout(DRAIN_TIME, async move {
        discard_bytes(&mut chunks, MAX_DISCARDED_BYTES).await
    }));
}

/// Reads and discards; returns whether the body came to its end.
async fn discard_bytes(chunks: &mut BodyDataStream, limit: usize) -> bool {
    let mut left = limit;
    while let Ok(Ok(piece)) = timeout(DRAIN_PAUSE, chunks.try_next()).await {
        let Some(bytes) = piece else { return true };
        match left.checked_sub(bytes.len()) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    false
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(
        Code::TooLarge,
        format!("the request's body is too large: at most {limit} bytes are allowed"),
    )
    .with_close()
}

#[cfg(test)]
mod tests {
    use super::{BodyProgress, MIN_BYTES_PER_SECOND, read_body};
    use crate::fair_budget::{CallerBuckets, FairBudget};
    use axum::body::{Body, Bytes};
    use http::StatusCode;
    use std::convert::Infallible;
    use std::time::Duration;
    use tokio::time::{Instant, sleep};

    /// `pieces` of `size` bytes, each after `wait`.
    async fn status(
        pieces: usize,
        size: usize,
        wait: Duration,
        pause: Duration,
    ) -> Result<usize, StatusCode> {
        let body = futures::stream::unfold(0, move |piece| async move {
            sleep(wait).await;
            (piece < pieces).then(|| (Ok::<_, Infallible>(Bytes::from(vec![0; size])), piece + 1))
        });
        let mut charge = FairBudget::new("test", 64 << 20).empty_charge(CallerBuckets::default());
        let read = read_body(Body::from_stream(body), None, 8 << 20, pause, &mut charge).await;
        read.map(|bytes| bytes.len()).map_err(|error| error.status())
    }

    #[tokio::test]
    async fn a_body_may_take_longer_than_the_pause_as_long_as_it_flows() {
        // More than three seconds in all, and fast enough even on a machine three times too slow.
        let pause = Duration::from_secs(2);
        assert_eq!(status(31, 4096, Duration::from_millis(100), pause).await, Ok(31 * 4096));
    }

    #[tokio::test]
    async fn a_body_that_stops_or_drips_is_given_up() {
        let (pause, never) = (Duration::from_millis(50), Duration::from_secs(3600));
        assert_eq!(status(2, 1 << 20, never, pause).await, Err(StatusCode::REQUEST_TIMEOUT));
        // A byte a millisecond, for as long as it is read.
        let drip = Duration::from_millis(1);
        assert_eq!(status(usize::MAX, 1, drip, pause).await, Err(StatusCode::REQUEST_TIMEOUT));
    }

    /// 24 requests that announced 4 MiB and sent nothing held a caller's whole share.
    #[tokio::test]
    async fn a_body_takes_what_has_come_whatever_it_announces() {
        use futures::FutureExt as _;
        let budget = FairBudget::new("test", 64 << 20);
        let held_after = |pieces: usize| {
            let (size, announced) = (10_000, Some(4 << 20));
            let come = futures::stream::iter(
                (0..pieces).map(move |_| Ok::<_, Infallible>(Bytes::from(vec![0; size]))),
            );
            let body =
                Body::from_stream(futures::StreamExt::chain(come, futures::stream::pending()));
            let mut charge = budget.empty_charge(CallerBuckets::default());
            let budget = &budget;
            async move {
                let pause = Duration::from_secs(3600);
                let mut reading = Box::pin(read_body(body, announced, 8 << 20, pause, &mut charge));
                assert!(reading.as_mut().now_or_never().is_none(), "there is more to come");
                budget.held()
            }
        };
        assert_eq!(held_after(0).await, 0);
        assert_eq!(held_after(1).await, 10_000);
        assert!((1_000_000..=2_000_000).contains(&held_after(100).await));
        assert_eq!(held_after(400).await, 4 << 20, "at most what was announced");
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn the_least_rate_counts_from_the_start() {
        const PAUSE: Duration = Duration::from_secs(60);
        let now = Instant::now();
        let after = |received| BodyProgress { started: Some(now), pause: PAUSE, received };
        assert_eq!(after(0).next_deadline(now), now + PAUSE);
        let ten_seconds = 10 * MIN_BYTES_PER_SECOND as usize;
        let late = now + Duration::from_secs(69);
        assert_eq!(after(ten_seconds).next_deadline(late), now + PAUSE + Duration::from_secs(10));
        // A limit of gigabytes does not overflow.
        assert_eq!(after(usize::MAX).next_deadline(now), now + PAUSE);
    }
}
