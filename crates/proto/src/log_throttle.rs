//! How often a line of the log is written that a stranger can cause.
//!
//! A line above debug that a stranger can cause at will fills a disk and hides the lines that
//! matter. Code that writes such a line calls [`LogThrottle::admit`] first, and the line says how
//! many occurrences it stands for; a metric counts each.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The least time between two lines of one throttle.
pub const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Lets one line pass each minute, and counts what it held back.
#[derive(Debug)]
pub struct LogThrottle {
    started: Instant,
    /// Milliseconds after `started` at which the next line may be written.
    next_ms: AtomicU64,
    held_back: AtomicU64,
}

impl Default for LogThrottle {
    fn default() -> Self {
        Self { started: Instant::now(), next_ms: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }
}

impl LogThrottle {
    /// Counts one occurrence. `Some(times)` when a line is due now: it stands for so many
    /// occurrences, this one among them, since the line before.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(self.started.elapsed())
    }

    fn admit_at(&self, since_start: Duration) -> Option<u64> {
        self.held_back.fetch_add(1, Ordering::Relaxed);
        let now = u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX);
        let next = self.next_ms.load(Ordering::Relaxed);
        if now < next {
            return None;
        }
        let after = now.saturating_add(u64::try_from(LOG_INTERVAL.as_millis()).unwrap_or(u64::MAX));
        // Of occurrences at the same time one writes.
        self.next_ms.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(self.held_back.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::{LOG_INTERVAL, LogThrottle};
    use std::time::Duration;

    #[test]
    fn a_flood_is_a_line_a_minute_that_says_how_many() {
        let throttle = LogThrottle::default();
        assert_eq!(throttle.admit_at(Duration::ZERO), Some(1), "the first is written at once");
        let flood = (1..1000).filter_map(|ms| throttle.admit_at(Duration::from_millis(ms)));
        assert_eq!(flood.count(), 0);
        assert_eq!(throttle.admit_at(LOG_INTERVAL), Some(1000), "none is lost");
        assert_eq!(throttle.admit_at(LOG_INTERVAL * 3), Some(1));
    }
}
