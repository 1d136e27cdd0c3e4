//! The threads of one store, to wait for them no longer than there is time.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How many threads run.
#[derive(Debug, Default)]
pub(super) struct Threads {
    running: Mutex<usize>,
    gone: Condvar,
}

/// A thread runs as long as it has this.
pub(super) struct Running(Arc<Threads>);

impl Threads {
    /// One more.
    pub(super) fn enter(self: &Arc<Self>) -> Running {
        *lock(&self.running) += 1;
        Running(Arc::clone(self))
    }

    /// Waits until all have ended, at the latest until `deadline`. Whether they have.
    pub(super) fn end_by(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let running = lock(&self.running);
        let waited = self.gone.wait_timeout_while(running, left, |running| *running > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *lock(&self.0.running) -= 1;
        self.0.gone.notify_all();
    }
}

/// Nothing that panics runs while the lock is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
