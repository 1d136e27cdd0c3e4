//! A bounded queue into the engine's threads. Full means refused at once, never waiting.
//!
//! Fair queueing: what waits is kept by *flow*, which is a namespace and a caller in it, and is
//! given out one of each namespace after the other, and in a namespace one of each caller. Within a
//! flow it is in order. So a caller with a thousand waiting delays the others by what runs now and
//! one of its own.

use super::hashed_map::HashedMap;
use crate::CallerKey;
use debros_proto::{Code, Error, Namespace, Result, lock};
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that may wait in a queue whatever waits in the others: no queue is kept out by its
/// neighbours.
const OWN_SHARE: usize = 1 << 20;

/// Bytes that a namespace has in one batch when others wait as well. What alone has more is a batch
/// of its own.
const BATCH_SHARE: usize = 512 << 10;

/// Whose work it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FlowId {
    namespace: u64,
    caller: CallerKey,
}

impl FlowId {
    /// A caller's work in a namespace, for a queue that all namespaces share.
    pub(super) fn of(namespace: &Namespace, caller: CallerKey) -> Self {
        Self { namespace: CallerKey::of(namespace.as_str()).0, caller }
    }

    /// A caller's work, for a queue of one namespace, or of the node.
    pub(super) fn of_caller(caller: CallerKey) -> Self {
        Self { namespace: 0, caller }
    }
}

/// What callers have of the threads that take from a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThreadShare {
    /// Pieces of work of one caller that run at a time.
    pub(super) max_running: usize,
    /// Where so many run, only a caller with nothing running gets another thread.
    pub(super) shared_threads: usize,
}

impl ThreadShare {
    /// One thread, or as many as there are.
    pub(super) const ALL: ThreadShare =
        ThreadShare { max_running: usize::MAX, shared_threads: usize::MAX };
}

/// What waits in all queues together, against how much may.
#[derive(Debug)]
pub(super) struct QueueBudget {
    max: usize,
    used: AtomicUsize,
}

impl QueueBudget {
    pub(super) fn new(max: usize) -> Self {
        Self { max, used: AtomicUsize::new(0) }
    }

    /// Takes a part. False, and nothing is taken: there is not so much left.
    fn try_reserve(&self, bytes: usize, may_pass: bool) -> bool {
        let used = self.used.fetch_add(bytes, Relaxed);
        let fits = may_pass || used.saturating_add(bytes) <= self.max;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// Waiting work, bounded in number and in bytes.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    state: Mutex<QueueState<T>>,
    ready: Condvar,
    max_count: usize,
    max_bytes: usize,
    budget: Arc<QueueBudget>,
    what: &'static str,
}

#[derive(Debug)]
struct QueueState<T> {
    namespaces: HashedMap<u64, NamespaceQueue<T>>,
    /// Namespaces of which something waits, the next one first.
    order: VecDeque<u64>,
    count: usize,
    bytes: usize,
    /// Threads that wait for work. None is woken when it is 0: a busy thread looks again by itself.
    idle: usize,
    /// What was taken by [`FairQueue::take_one`] and is not done, of each caller.
    running: HashedMap<CallerKey, usize>,
    closed: bool,
}

#[derive(Debug)]
struct NamespaceQueue<T> {
    callers: HashedMap<CallerKey, CallerQueue<T>>,
    order: VecDeque<CallerKey>,
    count: usize,
    bytes: usize,
    /// Bytes given out in the batch that is being made.
    given_bytes: usize,
}

#[derive(Debug)]
struct CallerQueue<T> {
    waiting: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Default for QueueState<T> {
    fn default() -> Self {
        Self {
            namespaces: HashedMap::default(),
            order: VecDeque::new(),
            count: 0,
            bytes: 0,
            idle: 0,
            running: HashedMap::default(),
            closed: false,
        }
    }
}

impl<T> Default for NamespaceQueue<T> {
    fn default() -> Self {
        Self {
            callers: HashedMap::default(),
            order: VecDeque::new(),
            count: 0,
            bytes: 0,
            given_bytes: 0,
        }
    }
}

impl<T> NamespaceQueue<T> {
    /// The next caller's first piece of work that `fits`, with its bytes. It is at its end of the
    /// turn then; those before it whose work did not fit keep their places.
    fn next_fitting(
        &mut self,
        fits: impl Fn(CallerKey, usize) -> bool,
    ) -> Option<(CallerKey, T, usize)> {
        let fitting = |caller: &CallerKey| {
            self.callers
                .get(caller)
                .and_then(|of| of.waiting.front())
                .is_some_and(|(_, bytes)| fits(*caller, *bytes))
        };
        let place = self.order.iter().position(fitting)?;
        let caller = self.order.remove(place)?;
        let of = self.callers.get_mut(&caller)?;
        let (item, bytes) = of.waiting.pop_front()?;
        of.bytes -= bytes;
        self.count -= 1;
        self.bytes -= bytes;
        if of.waiting.is_empty() {
            self.callers.remove(&caller);
        } else {
            self.order.push_back(caller);
        }
        Some((caller, item, bytes))
    }
}

impl<T> QueueState<T> {
    /// Whether a flow may have one more waiting: a caller, and in a queue of many namespaces a
    /// namespace, has no more than is left for all others.
    fn is_within_share(&self, flow: FlowId, max_count: usize, max_bytes: usize) -> bool {
        let (left, bytes_left) =
            (max_count.saturating_sub(self.count), max_bytes.saturating_sub(self.bytes));
        let Some(of) = self.namespaces.get(&flow.namespace) else { return true };
        let (left, bytes_left) = match flow.namespace {
            0 => (left, bytes_left),
            _ if of.count > left || of.bytes > bytes_left => return false,
            _ => ((left - of.count) / 2, (bytes_left - of.bytes) / 2),
        };
        of.callers
            .get(&flow.caller)
            .is_none_or(|of| of.waiting.len() <= left && of.bytes <= bytes_left)
    }

    fn add(&mut self, flow: FlowId, item: T, bytes: usize) {
        let of = self.namespaces.entry(flow.namespace).or_default();
        if of.count == 0 {
            self.order.push_back(flow.namespace);
        }
        let caller = of.callers.entry(flow.caller).or_insert_with(|| {
            of.order.push_back(flow.caller);
            CallerQueue { waiting: VecDeque::new(), bytes: 0 }
        });
        caller.waiting.push_back((item, bytes));
        caller.bytes += bytes;
        of.count += 1;
        of.bytes += bytes;
        self.count += 1;
        self.bytes += bytes;
    }

    /// Puts work back before all else that waits of its flow. The flow is the next one.
    fn requeue_first(&mut self, flow: FlowId, item: T, bytes: usize) {
        let of = self.namespaces.entry(flow.namespace).or_default();
        let caller = match of.callers.entry(flow.caller) {
            Entry::Occupied(caller) => {
                move_to_front(&mut of.order, flow.caller);
                caller.into_mut()
            }
            Entry::Vacant(caller) => {
                of.order.push_front(flow.caller);
                caller.insert(CallerQueue { waiting: VecDeque::new(), bytes: 0 })
            }
        };
        caller.waiting.push_front((item, bytes));
        caller.bytes += bytes;
        if of.count == 0 {
            self.order.push_front(flow.namespace);
        } else {
            move_to_front(&mut self.order, flow.namespace);
        }
        of.count += 1;
        of.bytes += bytes;
        self.count += 1;
        self.bytes += bytes;
    }

    /// A flow has had its turn: the others come first.
    fn pass_turn(&mut self, flow: FlowId) {
        let Some(of) = self.namespaces.get_mut(&flow.namespace) else { return };
        move_to_back(&mut self.order, flow.namespace);
        if of.callers.contains_key(&flow.caller) {
            move_to_back(&mut of.order, flow.caller);
        }
    }

    /// The next piece of work that `fits`; it is asked with what its namespace was given.
    /// Namespaces of which nothing fits go to `passed`, in order.
    fn next_fitting(
        &mut self,
        passed: &mut VecDeque<u64>,
        fits: impl Fn(usize, CallerKey, usize) -> bool,
    ) -> Option<(CallerKey, T, usize)> {
        while let Some(namespace) = self.order.pop_front() {
            let Some(of) = self.namespaces.get_mut(&namespace) else { continue };
            let given = of.given_bytes;
            let Some((caller, item, bytes)) =
                of.next_fitting(|caller, bytes| fits(given, caller, bytes))
            else {
                passed.push_back(namespace);
                continue;
            };
            of.given_bytes += bytes;
            if of.count == 0 {
                self.namespaces.remove(&namespace);
            } else {
                self.order.push_back(namespace);
            }
            self.count -= 1;
            self.bytes -= bytes;
            return Some((caller, item, bytes));
        }
        None
    }

    /// Those that were passed over are the first the next time.
    fn restore_order(&mut self, mut passed: VecDeque<u64>) {
        passed.append(&mut self.order);
        self.order = passed;
        self.namespaces.values_mut().for_each(|of| of.given_bytes = 0);
    }

    fn is_one_flow(&self) -> bool {
        self.namespaces.len() == 1 && self.namespaces.values().all(|of| of.callers.len() == 1)
    }

    fn is_only_of(&self, flow: FlowId) -> bool {
        self.count == 0
            || self.is_one_flow()
                && self
                    .namespaces
                    .get(&flow.namespace)
                    .is_some_and(|of| of.callers.contains_key(&flow.caller))
    }
}

fn move_to_front<K: PartialEq>(order: &mut VecDeque<K>, key: K) {
    if order.front() != Some(&key) {
        order.retain(|other| *other != key);
        order.push_front(key);
    }
}

fn move_to_back<K: PartialEq>(order: &mut VecDeque<K>, key: K) {
    order.retain(|other| *other != key);
    order.push_back(key);
}

impl<T> FairQueue<T> {
    /// `what` names the queue in the error of a caller that is refused; `budget` is that of all
    /// queues.
    pub(super) fn new(
        what: &'static str,
        max_count: usize,
        max_bytes: usize,
        budget: Arc<QueueBudget>,
    ) -> Self {
        Self { state: Mutex::default(), ready: Condvar::new(), max_count, max_bytes, budget, what }
    }

    /// Adds work. Returns whether an idle thread will take it at once.
    ///
    /// # Errors
    /// `overloaded` when the queue, or the flow's share of it, is full; `unavailable` when it is
    /// closed.
    pub(super) fn push(&self, flow: FlowId, item: T, bytes: usize) -> Result<bool> {
        let mut state = self.lock();
        if state.closed {
            return Err(closed_error());
        }
        // A single item larger than the bound still goes through an empty queue.
        let full = state.count >= self.max_count
            || (state.count > 0 && state.bytes.saturating_add(bytes) > self.max_bytes)
            || !state.is_within_share(flow, self.max_count, self.max_bytes);
        if full || !self.budget.try_reserve(bytes, state.bytes.saturating_add(bytes) <= OWN_SHARE) {
            return Err(Error::new(
                Code::Overloaded,
                format!("too many {} are waiting; try again", self.what),
            )
            .retry_after(Duration::from_secs(1)));
        }
        state.add(flow, item, bytes);
        let (idle, waiting) = (state.idle, state.count);
        drop(state);
        if idle > 0 {
            self.ready.notify_one();
        }
        Ok(idle >= waiting)
    }

    /// Waits for work and moves what is there into `batch`, which is empty: at least one, at most
    /// `max_count`, and no more than `max_bytes` if it is several. Where there is work of others,
    /// what is large is alone, and a namespace has its share. False: the queue is closed and empty.
    pub(super) fn take_batch(
        &self,
        batch: &mut VecDeque<T>,
        max_count: usize,
        max_bytes: usize,
    ) -> bool {
        let mut state = self.lock();
        while state.count == 0 {
            if state.closed {
                return false;
            }
            state = self.wait_for_work(state);
        }
        let (mut taken, mut passed) = (0_usize, VecDeque::new());
        let most = if state.is_one_flow() { max_bytes } else { BATCH_SHARE };
        while batch.len() < max_count {
            let is_first = batch.is_empty();
            let fits = |given: usize, _, bytes: usize| {
                is_first
                    || (taken.saturating_add(bytes) <= max_bytes
                        && given.saturating_add(bytes) <= most)
            };
            let Some((_, item, bytes)) = state.next_fitting(&mut passed, fits) else { break };
            taken += bytes;
            batch.push_back(item);
            if bytes > most {
                break;
            }
        }
        state.restore_order(passed);
        self.budget.release(taken);
        true
    }

    /// Puts back what was taken and not begun, in order, as the first that is given out again; but
    /// what is of the flow that `ran` comes after one of each other. Goes on when the queue is full
    /// or closed: it was accepted.
    pub(super) fn requeue(
        &self,
        items: impl DoubleEndedIterator<Item = (FlowId, T, usize)>,
        ran: FlowId,
    ) {
        let mut state = self.lock();
        for (flow, item, bytes) in items.rev() {
            self.budget.try_reserve(bytes, true);
            state.requeue_first(flow, item, bytes);
        }
        state.pass_turn(ran);
    }

    /// Whether work of another flow waits.
    pub(super) fn has_others(&self, flow: FlowId) -> bool {
        !self.lock().is_only_of(flow)
    }

    /// Waits for one piece of work of a caller that does not have its `share` of the threads yet.
    /// It runs until [`finish_one`](FairQueue::finish_one) is called. `None`: the queue is closed
    /// and empty.
    pub(super) fn take_one(&self, share: ThreadShare) -> Option<(CallerKey, T)> {
        let mut state = self.lock();
        loop {
            let mut passed = VecDeque::new();
            let running = std::mem::take(&mut state.running);
            let is_shared = running.values().sum::<usize>() < share.shared_threads;
            let may_run = |count: &usize| is_shared && *count < share.max_running;
            let next = state
                .next_fitting(&mut passed, |_, caller, _| running.get(&caller).is_none_or(may_run));
            state.running = running;
            state.restore_order(passed);
            if let Some((caller, item, bytes)) = next {
                *state.running.entry(caller).or_default() += 1;
                self.budget.release(bytes);
                return Some((caller, item));
            }
            if state.closed && state.count == 0 {
                return None;
            }
            state = self.wait_for_work(state);
        }
    }

    /// What was taken of a caller is done.
    pub(super) fn finish_one(&self, caller: CallerKey) {
        let mut state = self.lock();
        if let Some(running) = state.running.get_mut(&caller) {
            *running -= 1;
            if *running == 0 {
                state.running.remove(&caller);
            }
        }
        // What waited for this may be for another thread, when this one takes something else.
        let wakes = state.count > 0 && state.idle > 0;
        drop(state);
        if wakes {
            self.ready.notify_one();
        }
    }

    /// Whether a caller's work would wait, or have one of the threads that are for callers with
    /// nothing running.
    pub(super) fn would_wait(&self, caller: CallerKey, share: ThreadShare) -> bool {
        let state = self.lock();
        let running: usize = state.running.values().sum();
        state.count + running >= share.shared_threads
            || state.running.get(&caller).is_some_and(|count| *count >= share.max_running)
    }

    /// Whether something of a caller runs.
    pub(super) fn is_running(&self, caller: CallerKey) -> bool {
        self.lock().running.contains_key(&caller)
    }

    fn wait_for_work<'q>(
        &'q self,
        mut state: MutexGuard<'q, QueueState<T>>,
    ) -> MutexGuard<'q, QueueState<T>> {
        state.idle += 1;
        let mut state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
        state
    }

    /// Refuses new work; what waits is still given out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }

    /// Refuses new work and drops what waits.
    pub(super) fn abandon(&self) {
        let dropped = {
            let mut state = self.lock();
            let (idle, running) = (state.idle, std::mem::take(&mut state.running));
            self.budget.release(state.bytes);
            std::mem::replace(
                &mut *state,
                QueueState { idle, running, closed: true, ..QueueState::default() },
            )
        };
        self.ready.notify_all();
        drop(dropped);
    }

    /// Whether nothing waits and so many threads wait for work, which are all that there are.
    pub(super) fn is_idle(&self, threads: usize) -> bool {
        let state = self.lock();
        state.count == 0 && state.idle == threads
    }

    /// Whether it takes nothing any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// How much waits.
    pub(super) fn len(&self) -> usize {
        self.lock().count
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, QueueState<T>> {
        lock(&self.state)
    }
}

impl<T> Drop for FairQueue<T> {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// The engine is closing or closed.
pub(super) fn closed_error() -> Error {
    Error::new(Code::Unavailable, "the database is closed; try another node, or again later")
        .retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests;
