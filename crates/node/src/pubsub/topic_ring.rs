//! One topic's messages: a ring that all subscribers read at their own pace.
//!
//! A message is kept once, however many have yet to read it, and dropped when the last one has.
//! When the ring is over its bounds, or its namespace or the node over theirs, the oldest message
//! goes, read or not; a reader that comes to the gap gets its width. So memory is bounded whatever
//! the number of subscribers and topics, and a publisher never waits for one that does not read.

use bytes::Bytes;
use debros_proto::lock;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes that a topic keeps for its slowest reader, however many messages that are.
const MAX_BYTES: usize = 32 << 20;
/// Bytes that a message takes beside its own: its slot, and what the allocator and its sharing
/// need.
pub(super) const MESSAGE_OVERHEAD: usize = 128;
/// Slots below which a ring keeps its memory when it empties.
const SMALL_RING: usize = 1024;
/// How long a publisher is held back at most, when most readers are far behind but reading.
const MAX_THROTTLE: Duration = Duration::from_millis(500);
/// Readers that read nothing for this long are not waited for.
const STALL_TIMEOUT: Duration = Duration::from_millis(20);

/// Bytes that all topics of a namespace keep together.
const MAX_NAMESPACE_BYTES: usize = 64 << 20;
/// Bytes that all topics of the node keep together.
const MAX_NODE_BYTES: usize = 256 << 20;
/// What a namespace may keep even when the others have used up the node's share: their readers'
/// sloth is not its own.
const NAMESPACE_RESERVE: usize = 1 << 20;

pub(super) type ReaderId = u64;

/// Counts the bytes that topics keep: of a namespace, and of the node. Clones count together.
#[derive(Clone, Default)]
pub(super) struct PubsubBudget {
    namespace: Arc<AtomicUsize>,
    node: Arc<AtomicUsize>,
}

impl PubsubBudget {
    /// The budget of another namespace of the same node.
    pub(super) fn for_another_namespace(&self) -> Self {
        Self { namespace: Arc::default(), node: Arc::clone(&self.node) }
    }

    /// Whether a topic holds the only other reference to the namespace's count.
    pub(super) fn is_unused(&self) -> bool {
        Arc::strong_count(&self.namespace) == 1
    }

    /// Whether the node keeps anything.
    #[cfg(test)]
    pub(super) fn is_used(&self) -> bool {
        self.node.load(Ordering::Relaxed) > 0
    }

    fn charge(&self, bytes: usize) {
        self.namespace.fetch_add(bytes, Ordering::Relaxed);
        self.node.fetch_add(bytes, Ordering::Relaxed);
    }

    fn release(&self, bytes: usize) {
        self.namespace.fetch_sub(bytes, Ordering::Relaxed);
        self.node.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn is_exceeded(&self) -> bool {
        let own = self.namespace.load(Ordering::Relaxed);
        own > MAX_NAMESPACE_BYTES
            || (own > NAMESPACE_RESERVE && self.node.load(Ordering::Relaxed) > MAX_NODE_BYTES)
    }
}

pub(super) enum RingItem {
    Message(Bytes),
    Missed(u64),
}

pub(super) struct TopicRing {
    budget: PubsubBudget,
    state: Mutex<RingState>,
    /// Told after a read, while publishers are held back.
    progress: Notify,
}

#[derive(Default)]
struct RingState {
    slots: VecDeque<RingSlot>,
    /// The number of the first slot; messages are numbered from 0.
    first: u64,
    bytes: usize,
    readers: HashMap<ReaderId, RingReader>,
    next_reader: ReaderId,
    /// Publishers that wait for progress.
    waiting: usize,
    /// A wait for progress was in vain: until a reader reads, publishers do not wait.
    stalled: bool,
    closed: bool,
}

struct RingSlot {
    data: Bytes,
    /// Readers that have not read it yet.
    unread: usize,
}

struct RingReader {
    /// The number of the message to read next.
    next: u64,
    waker: Option<Waker>,
}

impl TopicRing {
    pub(super) fn new(budget: PubsubBudget) -> Self {
        Self { budget, state: Mutex::default(), progress: Notify::default() }
    }

    pub(super) fn add_reader(&self) -> ReaderId {
        let mut state = self.lock_state();
        let id = state.next_reader;
        state.next_reader += 1;
        let next = state.end_number();
        state.readers.insert(id, RingReader { next, waker: None });
        id
    }

    /// Removes a reader; returns how many are left.
    pub(super) fn remove_reader(&self, id: ReaderId) -> usize {
        let mut state = self.lock_state();
        if let Some(reader) = state.readers.remove(&id) {
            let unread_from =
                usize::try_from(reader.next.saturating_sub(state.first)).unwrap_or(usize::MAX);
            for slot in state.slots.iter_mut().skip(unread_from) {
                slot.unread -= 1;
            }
            state.drop_read(&self.budget);
        }
        state.readers.len()
    }

    pub(super) fn publish(&self, data: Bytes) {
        let wakers: Vec<Waker> = {
            let mut state = self.lock_state();
            if state.readers.is_empty() || state.closed {
                return;
            }
            let cost = message_cost(&data);
            state.bytes += cost;
            self.budget.charge(cost);
            let unread = state.readers.len();
            state.slots.push_back(RingSlot { data, unread });
            while (state.bytes > MAX_BYTES && state.slots.len() > 1)
                || (self.budget.is_exceeded() && !state.slots.is_empty())
            {
                state.drop_oldest(&self.budget);
            }
            state.readers.values_mut().filter_map(|reader| reader.waker.take()).collect()
        };
        // Woken without the lock: a woken reader takes it at once.
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Gives readers a moment when most of them are more than half a ring behind and reading.
    pub(super) async fn throttle_publisher(&self) {
        let until = Instant::now() + MAX_THROTTLE;
        loop {
            let progress = self.progress.notified();
            {
                let mut state = self.lock_state();
                if state.stalled || !state.most_are_behind() || Instant::now() >= until {
                    return;
                }
                state.waiting += 1;
            }
            let moved = tokio::time::timeout(STALL_TIMEOUT, progress).await.is_ok();
            let mut state = self.lock_state();
            state.waiting -= 1;
            state.stalled |= !moved;
        }
    }

    pub(super) fn poll_read(
        &self,
        id: ReaderId,
        context: &mut Context<'_>,
    ) -> Poll<Option<RingItem>> {
        let mut state = self.lock_state();
        let (first, end, closed) = (state.first, state.end_number(), state.closed);
        let Some(reader) = state.readers.get_mut(&id) else {
            return Poll::Ready(None);
        };
        if reader.next < first {
            let missed = first - reader.next;
            reader.next = first;
            return Poll::Ready(Some(RingItem::Missed(missed)));
        }
        if reader.next == end {
            if closed {
                return Poll::Ready(None);
            }
            match &mut reader.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        let index = usize::try_from(reader.next - first).unwrap_or(usize::MAX);
        reader.next += 1;
        let slot = &mut state.slots[index];
        slot.unread -= 1;
        let data = slot.data.clone();
        state.drop_read(&self.budget);
        state.stalled = false;
        if state.waiting > 0 {
            self.progress.notify_waiters();
        }
        Poll::Ready(Some(RingItem::Message(data)))
    }

    pub(super) fn close(&self) {
        let wakers: Vec<Waker> = {
            let mut state = self.lock_state();
            state.closed = true;
            state.readers.values_mut().filter_map(|reader| reader.waker.take()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// As [`close`](TopicRing::close), and unread messages are dropped.
    pub(super) fn discard_and_close(&self) {
        {
            let mut state = self.lock_state();
            while !state.slots.is_empty() {
                state.drop_oldest(&self.budget);
            }
            let end = state.end_number();
            // Not reported as missed: there is nothing that could be read in its place.
            state.readers.values_mut().for_each(|reader| reader.next = end);
        }
        self.close();
    }

    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.lock_state().bytes
    }

    fn lock_state(&self) -> MutexGuard<'_, RingState> {
        lock(&self.state)
    }
}

impl Drop for TopicRing {
    fn drop(&mut self) {
        self.budget.release(self.lock_state().bytes);
    }
}

impl RingState {
    fn end_number(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn drop_oldest(&mut self, budget: &PubsubBudget) {
        if let Some(slot) = self.slots.pop_front() {
            let cost = message_cost(&slot.data);
            self.bytes -= cost;
            budget.release(cost);
            self.first += 1;
            // Slots are counted while they hold a message; what a burst made of them must not stay
            // forever.
            if self.slots.capacity() > SMALL_RING && self.slots.len() < self.slots.capacity() / 4 {
                self.slots.shrink_to(self.slots.capacity() / 2);
            }
        }
    }

    fn drop_read(&mut self, budget: &PubsubBudget) {
        while self.slots.front().is_some_and(|slot| slot.unread == 0) {
            self.drop_oldest(budget);
        }
    }

    /// Whether the message in the middle of a full ring is unread by more than half of the readers.
    fn most_are_behind(&self) -> bool {
        self.bytes > MAX_BYTES / 2
            && self
                .slots
                .get(self.slots.len() / 2)
                .is_some_and(|slot| slot.unread > self.readers.len() / 2)
    }
}

/// What a message takes of the bounds.
fn message_cost(data: &Bytes) -> usize {
    data.len() + MESSAGE_OVERHEAD
}
