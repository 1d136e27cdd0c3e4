//! A bounded queue into the engine's threads. Full means refused at once, never waiting.

use debros_proto::{Code, Error, Result};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that may wait in a queue whatever waits in the others: nobody is kept out by his neighbours.
const OWN_SHARE: usize = 1 << 20;

/// What waits in all queues together, against how much may.
#[derive(Debug)]
pub(super) struct Budget {
    max: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self { max, used: AtomicUsize::new(0) }
    }

    /// Takes a part. False, and nothing is taken: there is not so much left.
    fn take(&self, bytes: usize, may_pass: bool) -> bool {
        let used = self.used.fetch_add(bytes, Relaxed);
        let fits = may_pass || used.saturating_add(bytes) <= self.max;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// Waiting work, bounded in number and in bytes.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    max_count: usize,
    max_bytes: usize,
    budget: Arc<Budget>,
    what: &'static str,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<(T, usize)>,
    bytes: usize,
    /// Threads that wait for work. Nobody is woken when it is 0: who is busy looks again by itself.
    idle: usize,
    closed: bool,
}

impl<T> Queue<T> {
    /// `what` names the queue in the error of a caller who is refused; `budget` is that of all queues.
    pub(super) fn new(what: &'static str, max_count: usize, max_bytes: usize, budget: Arc<Budget>) -> Self {
        let state = State { waiting: VecDeque::new(), bytes: 0, idle: 0, closed: false };
        Self { state: Mutex::new(state), ready: Condvar::new(), max_count, max_bytes, budget, what }
    }

    /// Adds work. Returns whether an idle thread will take it at once.
    ///
    /// # Errors
    /// `overloaded` when the queue is full, `unavailable` when it is closed.
    pub(super) fn push(&self, item: T, bytes: usize) -> Result<bool> {
        let mut state = self.lock();
        if state.closed {
            return Err(closed());
        }
        // A single item larger than the bound still goes through an empty queue.
        let full = state.waiting.len() >= self.max_count
            || (!state.waiting.is_empty() && state.bytes.saturating_add(bytes) > self.max_bytes);
        if full || !self.budget.take(bytes, state.bytes.saturating_add(bytes) <= OWN_SHARE) {
            return Err(Error::new(Code::Overloaded, format!("too many {} are waiting; try again", self.what))
                .retry_after(Duration::from_secs(1)));
        }
        state.bytes += bytes;
        state.waiting.push_back((item, bytes));
        let (idle, waiting) = (state.idle, state.waiting.len());
        drop(state);
        if idle > 0 {
            self.ready.notify_one();
        }
        Ok(idle >= waiting)
    }

    /// Waits for work and moves what is there into `batch`: at least one, at most `max_count`, and no more once they
    /// make `max_bytes`. False: the queue is closed and empty.
    pub(super) fn take(&self, batch: &mut VecDeque<T>, max_count: usize, max_bytes: usize) -> bool {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return false;
            }
            state.idle += 1;
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
        let mut taken = 0;
        while batch.len() < max_count && taken < max_bytes {
            let Some((item, bytes)) = state.waiting.pop_front() else { break };
            state.bytes -= bytes;
            taken += bytes;
            batch.push_back(item);
        }
        self.budget.give_back(taken);
        true
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
            state.closed = true;
            self.budget.give_back(std::mem::take(&mut state.bytes));
            std::mem::take(&mut state.waiting)
        };
        self.ready.notify_all();
        drop(dropped);
    }

    /// Whether nothing waits and so many threads wait for work, which are all that there are.
    pub(super) fn is_quiet(&self, threads: usize) -> bool {
        let state = self.lock();
        state.waiting.is_empty() && state.idle == threads
    }

    /// Whether it takes nothing any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// How much waits.
    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// The engine is closing or closed.
pub(super) fn closed() -> Error {
    Error::new(Code::Unavailable, "the database is closed; try another node, or again later")
        .retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::{Budget, OWN_SHARE, Queue};
    use debros_proto::Code;
    use std::collections::VecDeque;
    use std::sync::Arc;

    fn plenty() -> Arc<Budget> {
        Arc::new(Budget::new(usize::MAX))
    }

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_still_gives_out_what_waits() {
        let queue = Queue::new("writes", 2, 100, plenty());
        assert!(!queue.push('a', 10).unwrap());
        assert_eq!(queue.push('b', 91).unwrap_err().code, Code::Overloaded);
        queue.push('b', 90).unwrap();
        assert_eq!(queue.push('c', 0).unwrap_err().code, Code::Overloaded);
        queue.close();
        assert_eq!(queue.push('c', 0).unwrap_err().code, Code::Unavailable);
        let mut batch = VecDeque::new();
        assert!(queue.take(&mut batch, 1, 1000) && batch == ['a'], "{batch:?}");
        batch.clear();
        assert!(queue.take(&mut batch, 10, 1000) && batch == ['b'], "{batch:?}");
        assert!(!queue.take(&mut batch, 10, 1000));
    }

    #[test]
    fn what_is_larger_than_the_bound_passes_alone() {
        let queue = Queue::new("writes", 2, 100, plenty());
        queue.push('a', 1000).unwrap();
        assert_eq!(queue.push('b', 1).unwrap_err().code, Code::Overloaded);
    }

    #[test]
    fn all_queues_share_a_budget_and_each_has_a_share_of_its_own() {
        let budget = Arc::new(Budget::new(4 * OWN_SHARE));
        let [greedy, other] = [(); 2].map(|()| Queue::new("writes", 100, usize::MAX, Arc::clone(&budget)));
        greedy.push('a', 3 * OWN_SHARE).unwrap();
        assert_eq!(greedy.push('b', 2 * OWN_SHARE).unwrap_err().code, Code::Overloaded);
        assert_eq!(other.push('b', 2 * OWN_SHARE).unwrap_err().code, Code::Overloaded);
        greedy.push('b', OWN_SHARE).unwrap();
        other.push('c', OWN_SHARE).unwrap();
        assert_eq!(other.push('d', 1).unwrap_err().code, Code::Overloaded);
        let mut batch = VecDeque::new();
        assert!(greedy.take(&mut batch, 1, usize::MAX) && batch == ['a'], "{batch:?}");
        other.push('d', OWN_SHARE).unwrap();
        drop(greedy);
        other.push('e', 2 * OWN_SHARE).unwrap();
    }

    #[test]
    fn no_wakeup_is_lost_between_many_threads() {
        let queue = Queue::new("writes", usize::MAX, usize::MAX, plenty());
        let taken = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut batch = VecDeque::new();
                    while queue.take(&mut batch, 7, usize::MAX) {
                        taken.fetch_add(batch.len(), std::sync::atomic::Ordering::Relaxed);
                        batch.clear();
                    }
                });
            }
            let senders: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| (0..10_000).for_each(|item| assert!(queue.push(item, 1).is_ok()))))
                .collect();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            queue.close();
        });
        assert_eq!(taken.load(std::sync::atomic::Ordering::Relaxed), 30_000);
    }
}
