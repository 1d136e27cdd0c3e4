//! When the running statement is over time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Shared between a connection, its progress handler and its authorizer.
#[derive(Debug)]
pub(super) struct Deadline {
    base: Instant,
    /// Nanoseconds after `base`; `u64::MAX`: never.
    at: AtomicU64,
}

impl Default for Deadline {
    fn default() -> Self {
        Self { base: Instant::now(), at: AtomicU64::new(u64::MAX) }
    }
}

impl Deadline {
    pub(super) fn set(&self, deadline: Instant) {
        let nanos = deadline.saturating_duration_since(self.base).as_nanos();
        self.at.store(u64::try_from(nanos).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn clear(&self) {
        self.at.store(u64::MAX, Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        let at = self.at.load(Relaxed);
        at != u64::MAX && self.base.elapsed().as_nanos() >= u128::from(at)
    }
}
