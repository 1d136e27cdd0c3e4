//! The limit on temporary files: a running statement that writes them is interrupted when all of
//! them together take too much.
//!
//! SQLite puts what does not fit into a connection's cache into temporary files: sorts, groups,
//! joins without an index, materialized views. It does not limit them. So a statement that runs for
//! a while looks at what all of them take, and one that wrote some of it is interrupted when that
//! is too much. One that did not write goes on.

use super::deadline::Stopwatch;
use super::process_limits::{self, TempSpaceExceeded};
use debros_proto::{Code, Error, lock};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a statement runs before it looks at the files the first time, and then between two
/// looks.
const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// A statement that takes so much of the processor before the first look works on something large
/// in each step.
const LATE_POLL: Duration = Duration::from_millis(250);
/// Bytes that a statement may write whatever others do.
const ALLOWED_BYTES: u64 = 1 << 20;

/// The running statement of a connection, for its progress handler.
#[derive(Debug)]
pub(super) struct TempFileWatch {
    base: Instant,
    /// Nanoseconds after `base`; `u64::MAX`: never.
    next_look: AtomicU64,
    state: Mutex<WatchState>,
}

#[derive(Debug, Default)]
struct WatchState {
    /// When the statement began.
    began: Option<Stopwatch>,
    has_looked: bool,
    /// What the thread had written at the first look.
    written: Option<u64>,
    excess: Option<TempSpaceExceeded>,
}

impl Default for TempFileWatch {
    fn default() -> Self {
        Self { base: Instant::now(), next_look: AtomicU64::new(u64::MAX), state: Mutex::default() }
    }
}

impl TempFileWatch {
    /// Another statement begins.
    pub(super) fn begin_statement(&self) {
        *self.lock_state() =
            WatchState { began: Some(Stopwatch::start()), ..WatchState::default() };
        self.schedule_poll();
    }

    /// What runs from now on is the engine's own, and is not looked at.
    pub(super) fn end_statement(&self) {
        self.next_look.store(u64::MAX, Relaxed);
    }

    /// Whether the statement must end. Called by the thread that runs it.
    pub(super) fn must_interrupt(&self) -> bool {
        let due = Duration::from_nanos(self.next_look.load(Relaxed));
        if self.base.elapsed() < due {
            return false;
        }
        self.schedule_poll();
        let mut seen = self.lock_state();
        let written = process_limits::thread_written_bytes();
        // By the processor: on a busy machine the first look of a small statement comes late.
        let is_late = |began: &Stopwatch| began.elapsed().by_processor >= LATE_POLL;
        if !std::mem::replace(&mut seen.has_looked, true)
            && !seen.began.as_ref().is_some_and(is_late)
        {
            seen.written = written;
            return false;
        }
        seen.excess =
            process_limits::temp_space_exceeded().filter(|_| match (seen.written, written) {
                (Some(before), Some(now)) => now.saturating_sub(before) > ALLOWED_BYTES,
                // Which statement it is stays unknown, and the disk is everyone's.
                _ => true,
            });
        seen.excess.is_some()
    }

    /// Why the statement had to end.
    pub(super) fn interrupt_error(&self) -> Option<Error> {
        let message = match self.lock_state().excess? {
            TempSpaceExceeded::Files(max) => format!(
                "the temporary files of all running statements take more than {max} bytes (database.max_temp_size), and \
                 this statement was interrupted; nothing was changed: sort, group or join less at once"
            ),
            TempSpaceExceeded::Disk(reserve) => format!(
                "the disk has less than {reserve} bytes left, and this statement, which wrote temporary files, was \
                 interrupted; nothing was changed: free some disk space"
            ),
        };
        Some(Error::new(Code::DiskFull, message).retry_after(Duration::from_secs(10)))
    }

    fn schedule_poll(&self) {
        let at = (self.base.elapsed() + POLL_INTERVAL).as_nanos();
        self.next_look.store(u64::try_from(at).unwrap_or(u64::MAX), Relaxed);
    }

    /// Nothing that panics runs while the lock is held.
    fn lock_state(&self) -> MutexGuard<'_, WatchState> {
        lock(&self.state)
    }
}
