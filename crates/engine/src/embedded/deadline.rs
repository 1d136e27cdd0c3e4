//! When the running statement is over time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Looks at the clock, some ten microseconds apart most often, that a [`brief`](Deadline::brief) statement may live to see.
const BRIEF_LOOKS: u32 = 10;
/// How long a brief statement runs on at a look.
const BRIEF_TIME: Duration = Duration::from_millis(5);

/// Shared between a connection, its progress handler and its authorizer.
#[derive(Debug)]
pub(super) struct Deadline {
    base: Instant,
    /// Nanoseconds after `base`; `u64::MAX`: never.
    at: AtomicU64,
    /// Looks that a brief statement has left; 0: the statement is not brief.
    looks: AtomicU32,
}

impl Default for Deadline {
    fn default() -> Self {
        Self { base: Instant::now(), at: AtomicU64::new(u64::MAX), looks: AtomicU32::new(0) }
    }
}

impl Deadline {
    pub(super) fn set(&self, deadline: Instant) {
        let nanos = deadline.saturating_duration_since(self.base).as_nanos();
        self.at.store(u64::try_from(nanos).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn clear(&self) {
        self.at.store(u64::MAX, Relaxed);
        self.looks.store(0, Relaxed);
    }

    /// What runs until [`clear`](Deadline::clear) is over after a few looks, or when one of them comes late. There is no time
    /// to compile anything.
    pub(super) fn brief(&self) {
        self.set(Instant::now());
        self.looks.store(BRIEF_LOOKS, Relaxed);
    }

    /// Whether what runs is over, asked at each look. Only one thread asks.
    pub(super) fn is_over_at_look(&self) -> bool {
        let looks = self.looks.load(Relaxed);
        if looks == 0 {
            return self.is_over();
        }
        if looks == 1 {
            return true;
        }
        self.looks.store(looks - 1, Relaxed);
        let began = Duration::from_nanos(self.at.load(Relaxed));
        self.base.elapsed() > began + BRIEF_TIME
    }

    pub(super) fn is_over(&self) -> bool {
        let at = self.at.load(Relaxed);
        at != u64::MAX && self.base.elapsed().as_nanos() >= u128::from(at)
    }
}
