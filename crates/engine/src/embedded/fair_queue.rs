//! A bounded queue into the engine's threads. Full means refused at once, never waiting.
//!
//! Fair queueing: what waits is kept by *flow*, which is a namespace and a caller in it, and is
//! given out one of each namespace after the other, and in a namespace one of each caller. Within a
//! flow it is in order. So a caller with a thousand waiting delays the others by what runs now and
//! one of its own.

mod queue_budget;
mod queue_state;

pub(super) use queue_budget::QueueBudget;
pub(super) use queue_state::FlowId;

use crate::CallerKey;
use debros_proto::{Code, Error, Result, lock};
use queue_state::QueueState;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that may wait in a queue whatever waits in the others: no queue is kept out by its
/// neighbours.
const OWN_SHARE: usize = 1 << 20;

/// Bytes that a namespace has in one batch when others wait as well. What alone has more is a batch
/// of its own.
const BATCH_SHARE: usize = 512 << 10;

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
            self.budget.release(state.bytes);
            state.close_and_empty()
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
