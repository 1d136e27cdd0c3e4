//! How much one peer may ask of this process, and how long it may take over it.

use debros_proto::limits::{MAX_REQUEST_FRAME_BYTES, MAX_RESPONSE_FRAME_BYTES};
use std::time::Duration;

/// The numbers that keep one peer from being felt by the others. The defaults are meant for
/// production; tests use smaller ones.
#[derive(Clone, Debug)]
pub struct PeerLimits {
    /// Connections of one peer, in and out.
    pub connections_per_peer: u32,
    /// Incoming connections that have not finished their handshake, in all; one IPv4 address or
    /// IPv6 /64 may have a quarter.
    pub pending_connections: u32,
    /// RPC streams that one peer may have open; more are reset at once.
    pub streams_per_peer: usize,
    /// Running calls on one stream, open event streams not counted; more are answered `overloaded`.
    pub calls_per_stream: usize,
    /// Running calls of one peer, open event streams not counted; more are answered `overloaded`.
    pub calls_per_peer: usize,
    /// Open event streams of one peer; more are answered `overloaded`. A separate gateway carries
    /// the subscriptions of all its users over one peer.
    pub event_streams_per_peer: usize,
    /// Bytes of one peer's requests in memory: those running, and those that are still arriving.
    pub request_bytes_per_peer: usize,
    /// Bytes of all peers' requests in memory.
    pub request_bytes: usize,
    /// Bytes of one peer's finished answers that wait for room in its write queue.
    pub waiting_answer_bytes_per_peer: usize,
    /// Bytes that may wait to be written to one stream. A larger frame goes alone.
    pub write_queue_bytes: usize,
    /// Bytes of one request frame.
    pub request_frame_bytes: usize,
    /// Bytes of one frame that a node sends.
    pub response_frame_bytes: usize,
    /// How long a frame may be on its way in, first byte to last, before the stream is reset.
    pub partial_frame_timeout: Duration,
    /// How long a stream may take nothing while data waits for it, before it is reset.
    pub write_stall_timeout: Duration,
    /// The time a call gets that names none.
    pub default_call_timeout: Duration,
    /// The longest time a call gets.
    pub max_call_timeout: Duration,
    /// Pause between two pings of a connection.
    pub ping_interval: Duration,
    /// How long a ping may take. One that fails alone is nothing.
    pub ping_timeout: Duration,
    /// Further pings in a row that may fail after the first one; with the last the connection is
    /// closed.
    pub failed_pings: u32,
    /// Peers no longer connected that the list keeps.
    pub remembered_peers: usize,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            connections_per_peer: 8,
            pending_connections: 256,
            streams_per_peer: 16,
            calls_per_stream: 1024,
            calls_per_peer: 4096,
            event_streams_per_peer: 16_384,
            request_bytes_per_peer: 64 << 20,
            request_bytes: 512 << 20,
            waiting_answer_bytes_per_peer: 128 << 20,
            write_queue_bytes: 4 << 20,
            request_frame_bytes: MAX_REQUEST_FRAME_BYTES,
            response_frame_bytes: MAX_RESPONSE_FRAME_BYTES,
            partial_frame_timeout: Duration::from_secs(30),
            write_stall_timeout: Duration::from_secs(60),
            default_call_timeout: Duration::from_secs(30),
            max_call_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(15),
            ping_timeout: Duration::from_secs(10),
            failed_pings: 3,
            remembered_peers: 1024,
        }
    }
}
