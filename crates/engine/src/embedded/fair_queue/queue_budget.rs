//! The bytes that wait in all queues together.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What waits in all queues together, against how much may.
#[derive(Debug)]
pub(in crate::embedded) struct QueueBudget {
    max: usize,
    used: AtomicUsize,
}

impl QueueBudget {
    pub(in crate::embedded) fn new(max: usize) -> Self {
        Self { max, used: AtomicUsize::new(0) }
    }

    /// Takes a part. False, and nothing is taken: there is not so much left.
    pub(super) fn try_reserve(&self, bytes: usize, may_pass: bool) -> bool {
        let used = self.used.fetch_add(bytes, Relaxed);
        let fits = may_pass || used.saturating_add(bytes) <= self.max;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    /// Gives a part back.
    pub(super) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}
