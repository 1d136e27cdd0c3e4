//! The state of one open connection: whether it is idle, what it holds, and whether it makes
//! progress.
//!
//! Every part is a number that changes without a lock. Nothing here has a timer of its own: time is
//! counted in ticks, four in every write time-out. The gateway's upkeep advances them, and checks
//! all connections at each.

use crate::fair_budget::{BudgetExceeded, CallerBuckets, FairBudget};
use crate::http2_frames::FramesRead;
use crate::http2_unread::Http2Unread;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize};
use tokio::sync::Notify;

/// Ticks in a write time-out.
pub(crate) const TICKS: u32 = 4;
/// Ages of answers, in ticks, that are distinguished.
const TRACKED_TICKS: u32 = 8;
/// A message over a WebSocket has this many write time-outs to become complete.
const MESSAGE_TIMEOUTS: u32 = 2;
/// Unread bytes of a connection that are not counted: an ordinary request has fewer.
const UNCOUNTED_BYTES: usize = 4 << 10;
/// Unread bytes are counted in steps, so that most reads change no shared number.
const CHARGE_STEP: usize = 8 << 10;

/// Why a connection is asked to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum CloseRequest {
    /// It is idle, and another needs its place.
    Evict = 1,
    /// It makes no progress.
    Terminate = 2,
}

/// One open connection.
pub(crate) struct ConnectionState {
    pub(crate) id: u64,
    /// The address, or of IPv6 the network, that it came from; `None` when that is a trusted proxy,
    /// which speaks for many.
    pub(crate) network: Option<IpAddr>,
    /// The place is one of the reserve: its first request has to succeed with a credential.
    pub(crate) on_trial: bool,
    holder: CallerBuckets,
    memory: Arc<FairBudget>,
    ticks: Arc<AtomicU32>,
    /// A node has accepted a credential that came over it.
    proven: AtomicBool,
    /// Requests and answers under way; an open WebSocket counts as one.
    active_count: AtomicUsize,
    /// Used since the last search for an idle connection.
    used: AtomicBool,
    /// Another connection has its place.
    evicted: AtomicBool,
    requested_close: AtomicU8,
    close_notify: Notify,
    /// Bytes read from the socket and not taken yet; an upper bound, because frames and heads count
    /// too. HTTP/2 has its own count.
    unread: AtomicUsize,
    /// The protocol's reader never keeps more than this.
    max_unread: AtomicUsize,
    last_read: AtomicUsize,
    http2_unread: Http2Unread,
    /// Bytes that a WebSocket's last messages have left in memory.
    retained: AtomicUsize,
    /// The part of all these that is charged to the budget.
    charged: AtomicUsize,
    /// The tick at which `unread` became worth counting; used for WebSockets only.
    unread_since: AtomicU32,
    is_websocket: AtomicBool,
    is_http2: AtomicBool,
    /// One more than the tick since which the socket takes no bytes; 0 when it does.
    blocked_since: AtomicU32,
    /// Answers of HTTP/2 by the tick at which a part of them was last taken.
    unread_responses: [AtomicU32; TRACKED_TICKS as usize],
    /// Bytes of the last answer if there was no room for it; 0 if there was.
    rejected_response: AtomicUsize,
}

impl ConnectionState {
    pub(crate) fn new(
        id: u64,
        network: Option<IpAddr>,
        on_trial: bool,
        holder: CallerBuckets,
        memory: Arc<FairBudget>,
        ticks: Arc<AtomicU32>,
        most_unread: usize,
    ) -> Self {
        Self {
            id,
            network,
            on_trial,
            holder,
            memory,
            ticks,
            proven: AtomicBool::new(false),
            active_count: AtomicUsize::new(0),
            used: AtomicBool::new(true),
            evicted: AtomicBool::new(false),
            requested_close: AtomicU8::new(0),
            close_notify: Notify::new(),
            unread: AtomicUsize::new(0),
            max_unread: AtomicUsize::new(most_unread),
            last_read: AtomicUsize::new(0),
            http2_unread: Http2Unread::default(),
            retained: AtomicUsize::new(0),
            charged: AtomicUsize::new(0),
            unread_since: AtomicU32::new(0),
            is_websocket: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            blocked_since: AtomicU32::new(0),
            unread_responses: Default::default(),
            rejected_response: AtomicUsize::new(0),
        }
    }

    /// The caller at the other end, by address alone.
    pub(crate) fn address_buckets(&self) -> CallerBuckets {
        self.holder
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Relaxed)
    }

    pub(crate) fn mark_proven(&self) {
        self.proven.store(true, Relaxed);
    }

    /// Whether another connection has its place.
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Relaxed)
    }

    pub(crate) fn mark_evicted(&self) {
        self.evicted.store(true, Relaxed);
    }

    /// The order in which idle connections make room, the lowest first; `None` if something is
    /// under way, or it has made room. Asking changes it: a connection that was used since comes
    /// after one that was not.
    pub(crate) fn eviction_rank(&self) -> Option<(bool, bool)> {
        (!self.is_evicted() && self.active_count.load(Relaxed) == 0)
            .then(|| (self.is_proven(), self.used.swap(false, Relaxed)))
    }

    pub(crate) fn request_close(&self, what: CloseRequest) {
        self.requested_close.fetch_max(what as u8, Relaxed);
        self.close_notify.notify_one();
    }

    /// Waits until the connection is asked to close, for this reason or a more urgent one.
    pub(crate) async fn wait_close_request(&self, at_least: CloseRequest) {
        while self.requested_close.load(Relaxed) < at_least as u8 {
            self.close_notify.notified().await;
        }
    }

    /// Bytes of the last answer over the connection, if there was no room for it; else 0.
    pub(crate) fn rejected_response_size(&self) -> usize {
        self.rejected_response.load(Relaxed)
    }

    /// Records whether there was room for an answer of this size.
    pub(crate) fn record_response(&self, bytes: usize, fits: bool) {
        let unfit = if fits { 0 } else { bytes };
        if self.rejected_response_size() != unfit {
            self.rejected_response.store(unfit, Relaxed);
        }
    }

    /// A request begins, or a WebSocket.
    pub(crate) fn begin_activity(self: &Arc<Self>) -> ActivityGuard {
        self.active_count.fetch_add(1, Relaxed);
        ActivityGuard(Arc::clone(self))
    }

    /// Counts bytes that were read from the socket.
    pub(crate) fn count_read(&self, bytes: usize) -> Result<(), BudgetExceeded> {
        let before = self.unread.fetch_add(bytes, Relaxed);
        self.last_read.store(bytes, Relaxed);
        if before <= UNCOUNTED_BYTES && before + bytes > UNCOUNTED_BYTES {
            self.unread_since.store(self.current_tick(), Relaxed);
        }
        self.settle_charge()
    }

    /// Counts bytes that were read of HTTP/2: whole frames, and the incomplete one.
    pub(crate) fn count_frames(
        &self,
        read: FramesRead,
        unfinished: usize,
        is_block_open: bool,
    ) -> Result<(), BudgetExceeded> {
        self.http2_unread.add(read, unfinished, is_block_open);
        self.settle_charge()
    }

    /// HTTP/2 has no more than this of bodies that were not taken.
    pub(crate) fn limit_unread(&self, bytes: usize) {
        self.http2_unread.limit(bytes);
        // Less always fits.
        let _ = self.settle_charge();
    }

    /// Counts a piece of a body that has left the protocol's reader: its new holder counts it.
    pub(crate) fn count_taken(&self, bytes: usize) {
        if self.is_http2() {
            self.http2_unread.take_data(bytes);
        } else {
            // The closure always gives a value.
            let _ = self
                .unread
                .fetch_update(Relaxed, Relaxed, |unread| Some(unread.saturating_sub(bytes)));
        }
        let _ = self.settle_charge();
    }

    /// Counts a body's trailers that have left the protocol's reader.
    pub(crate) fn count_trailers_taken(&self) {
        if self.is_http2() {
            self.http2_unread.take_trailers();
            let _ = self.settle_charge();
        }
    }

    /// Nothing is incomplete, except the part that came last.
    fn keep_last_read_only(&self) {
        self.unread.fetch_min(self.last_read.load(Relaxed), Relaxed);
        if self.is_http2() {
            self.http2_unread.forget_all_but_last();
        }
        let _ = self.settle_charge();
    }

    /// The data read from a WebSocket was taken, except for this much of its next message.
    pub(crate) fn set_unread(&self, bytes: usize) {
        self.unread.store(bytes, Relaxed);
        self.unread_since.store(self.current_tick(), Relaxed);
        let _ = self.settle_charge();
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    /// Whether reads count above TLS, where frames are, and not at the socket.
    pub(crate) fn counts_frames(&self) -> bool {
        self.is_websocket.load(Relaxed) || self.is_http2()
    }

    /// From now on it is HTTP/2, and counts by its frames.
    pub(crate) fn becomes_http2(&self) {
        self.is_http2.store(true, Relaxed);
        self.set_unread(0);
    }

    /// A WebSocket has this much in memory for messages that were taken; 0 after it has returned
    /// its buffers. Until then a smaller message subtracts nothing: the buffer is as large as the
    /// largest.
    pub(crate) fn count_retained(&self, bytes: usize) -> Result<(), BudgetExceeded> {
        if bytes == 0 {
            self.retained.store(0, Relaxed);
        } else {
            self.retained.fetch_max(bytes, Relaxed);
        }
        self.settle_charge()
    }

    /// From now on it is a WebSocket, whose reader keeps at most this much.
    pub(crate) fn mark_websocket(&self, most_unread: usize) {
        self.max_unread.store(most_unread, Relaxed);
        self.is_websocket.store(true, Relaxed);
        self.set_unread(0);
    }

    fn settle_charge(&self) -> Result<(), BudgetExceeded> {
        loop {
            let before = self.charged.load(Relaxed);
            let unread = self.unread.load(Relaxed).min(self.max_unread.load(Relaxed));
            let bytes = unread + self.retained.load(Relaxed) + self.http2_unread.held();
            let charge =
                if bytes <= UNCOUNTED_BYTES { 0 } else { bytes.next_multiple_of(CHARGE_STEP) };
            if charge == before {
                return Ok(());
            }
            // Taken before it is recorded: another task releases only what was taken.
            let more = charge.saturating_sub(before);
            let taken = match more {
                0 => Ok(()),
                // Also if it does not fit: the bytes are in memory. The connection ends then.
                _ => self.memory.charge_unchecked(self.holder.with_proven(self.is_proven()), more),
            };
            if self.charged.compare_exchange(before, charge, Relaxed, Relaxed).is_ok() {
                self.memory.release(self.holder, before.saturating_sub(charge));
                return taken;
            }
            self.memory.release(self.holder, more);
        }
    }

    /// Whether the socket has just taken bytes, or has not.
    pub(crate) fn record_write(&self, is_blocked: bool) {
        let since = self.blocked_since.load(Relaxed);
        if is_blocked && since == 0 {
            self.blocked_since.store(self.current_tick() + 1, Relaxed);
        } else if !is_blocked && since != 0 {
            self.blocked_since.store(0, Relaxed);
        }
    }

    /// Whether it holds something and has made no progress for the write time-out.
    pub(crate) fn is_stalled(&self) -> bool {
        let now = self.current_tick();
        let age = |tick: u32| now.wrapping_sub(tick);
        // One tick more, because the first one was not whole.
        let blocked = self.blocked_since.load(Relaxed);
        if blocked != 0 && age(blocked - 1) > TICKS {
            return true;
        }
        if (TICKS + 1..TRACKED_TICKS)
            .any(|age| self.unread_responses[tick_slot(now.wrapping_sub(age))].load(Relaxed) > 0)
        {
            return true;
        }
        self.is_websocket.load(Relaxed)
            && self.unread.load(Relaxed) > UNCOUNTED_BYTES
            && age(self.unread_since.load(Relaxed)) > TICKS * MESSAGE_TIMEOUTS
    }

    fn current_tick(&self) -> u32 {
        self.ticks.load(Relaxed)
    }
}

impl Drop for ConnectionState {
    fn drop(&mut self) {
        self.memory.release(self.holder, *self.charged.get_mut());
    }
}

fn tick_slot(tick: u32) -> usize {
    (tick % TRACKED_TICKS) as usize
}

/// A request, an answer or a WebSocket under way: the connection is not idle.
pub(crate) struct ActivityGuard(Arc<ConnectionState>);

impl ActivityGuard {
    pub(crate) fn state(&self) -> &Arc<ConnectionState> {
        &self.0
    }
}

impl Drop for ActivityGuard {
    fn drop(&mut self) {
        self.0.used.store(true, Relaxed);
        if self.0.active_count.fetch_sub(1, Relaxed) == 1 {
            self.0.keep_last_read_only();
        }
    }
}

/// An answer of HTTP/2 that still has to be taken.
pub(crate) struct UnreadResponse {
    state: Arc<ConnectionState>,
    tick: AtomicU32,
}

impl UnreadResponse {
    pub(crate) fn new(state: Arc<ConnectionState>) -> Self {
        let tick = state.current_tick();
        state.unread_responses[tick_slot(tick)].fetch_add(1, Relaxed);
        Self { state, tick: AtomicU32::new(tick) }
    }

    /// A part of it was taken.
    pub(crate) fn record_progress(&self) {
        let now = self.state.current_tick();
        let before = self.tick.swap(now, Relaxed);
        if before != now {
            self.state.unread_responses[tick_slot(now)].fetch_add(1, Relaxed);
            self.state.unread_responses[tick_slot(before)].fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for UnreadResponse {
    fn drop(&mut self) {
        self.state.unread_responses[tick_slot(*self.tick.get_mut())].fetch_sub(1, Relaxed);
    }
}
