//! The settings of the HTTP library: how much one connection may send before it is read, and hold.

use crate::config::GatewayLimits;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;

/// Bytes of a request's head, and of what is read from a socket at a time.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
/// Requests at a time on one HTTP/2 connection, and what the other side may send before it is read,
/// on one and on all.
const MAX_STREAMS: u32 = 100;
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;
pub(crate) const CONNECTION_WINDOW: u32 = 512 << 10;
/// Bytes that wait to be sent in one HTTP/2 stream.
const MAX_STREAM_SENDING: usize = 64 << 10;
/// Streams that either side has reset and that are still remembered; with more the connection ends.
const MAX_RESET_STREAMS: usize = 64;
/// Bytes that HTTP/1.1 keeps of one connection before a request takes them: a head, one read
/// buffer, and a piece of a body. HTTP/2 counts by its frames.
pub(crate) const MAX_UNREAD_BYTES: usize = 3 * MAX_HEAD;

/// The library's server, for connections of both versions.
pub(crate) fn http_builder(limits: &GatewayLimits) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.idle_timeout)
        .keep_alive_timeout(limits.idle_timeout)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_STREAM_SENDING)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_RESET_STREAMS)
        .max_header_list_size(MAX_HEAD as u32);
    http
}
