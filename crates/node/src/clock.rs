//! The time that the authentication service goes by: the system's, unless a test moves it.

use debros_proto::now_ms;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The source of the time. The default is the system's clock.
///
/// A clock made by [`Clock::movable`] or [`Clock::stopped`] can be put ahead, so that an expiry is
/// tested without waiting for it; its clones go with it. It never goes back.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Milliseconds ahead of the system, or of where it was stopped.
    ahead: Option<Arc<AtomicU64>>,
    /// Milliseconds since the Unix epoch, and the same moment for measuring.
    stopped_at: Option<(i64, Instant)>,
}

impl Clock {
    /// A clock that runs with the system's until it is put ahead.
    pub fn movable() -> Self {
        Self { ahead: Some(Arc::default()), stopped_at: None }
    }

    /// A clock that stands still until it is put ahead: what is counted by the second is counted
    /// exactly, however long a busy machine takes.
    pub fn stopped() -> Self {
        Self { ahead: Some(Arc::default()), stopped_at: Some((now_ms(), Instant::now())) }
    }

    /// Puts the clock and its clones ahead. Does nothing to the system's.
    pub fn advance(&self, by: Duration) {
        if let Some(ahead) = &self.ahead {
            ahead.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::AcqRel);
        }
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        let now = self.stopped_at.map_or_else(now_ms, |(now, _)| now);
        now.saturating_add(i64::try_from(self.ahead_ms()).unwrap_or(i64::MAX))
    }

    /// For measuring how long ago something was.
    pub(crate) fn instant(&self) -> Instant {
        let now = self.stopped_at.map_or_else(Instant::now, |(_, now)| now);
        now + Duration::from_millis(self.ahead_ms())
    }

    fn ahead_ms(&self) -> u64 {
        self.ahead.as_ref().map_or(0, |ahead| ahead.load(Ordering::Acquire))
    }
}
