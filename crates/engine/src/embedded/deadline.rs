//! When the running statement is over time.

use debros_proto::lock;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The engine's own work has no caller that waits.
pub(super) const NO_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// Looks at the clock, some ten microseconds apart most often, that a
/// [`limit_polls`](StatementDeadline::limit_polls) statement may live to see.
const BRIEF_POLLS: u32 = 10;
/// How long the processor may have worked for a brief statement at a look.
const BRIEF_TIME: Duration = Duration::from_millis(2);
/// The same by the clock, which goes on while the thread waits: for the disk, or for a processor of
/// a busy machine.
const BRIEF_WAIT: Duration = Duration::from_millis(50);

/// How old a look at a thread's processor time may be, where it stands for one of now.
const RECENT: Duration = Duration::from_micros(200);

/// Shared between a connection, its progress handler and its authorizer.
#[derive(Debug)]
pub(super) struct StatementDeadline {
    base: Instant,
    /// Nanoseconds after `base`; `u64::MAX`: never.
    at: AtomicU64,
    /// Nanoseconds of the thread's processor time; `u64::MAX`: as many as it likes.
    cpu_time_at: AtomicU64,
    /// Nanoseconds after `base` before which these cannot be used up.
    next_cpu_time_poll: AtomicU64,
    /// Looks that a brief statement has left; 0: the statement is not brief.
    polls_left: AtomicU32,
    /// The caller has gone away.
    abandoned: AtomicBool,
}

impl Default for StatementDeadline {
    fn default() -> Self {
        Self {
            base: Instant::now(),
            at: AtomicU64::new(u64::MAX),
            cpu_time_at: AtomicU64::new(u64::MAX),
            next_cpu_time_poll: AtomicU64::new(0),
            polls_left: AtomicU32::new(0),
            abandoned: AtomicBool::new(false),
        }
    }
}

impl StatementDeadline {
    pub(super) fn set(&self, deadline: Instant) {
        let nanos = deadline.saturating_duration_since(self.base).as_nanos();
        self.at.store(u64::try_from(nanos).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn clear(&self) {
        self.at.store(u64::MAX, Relaxed);
        self.cpu_time_at.store(u64::MAX, Relaxed);
        self.polls_left.store(0, Relaxed);
    }

    /// What runs on this thread until [`clear`](StatementDeadline::clear) is over when the thread
    /// has run for so long.
    pub(super) fn set_cpu_time(&self, time: Duration) {
        self.set_processor_from(thread_cpu_time(), time);
    }

    fn set_processor_from(&self, began: Duration, time: Duration) {
        self.cpu_time_at.store(nanos(began + time), Relaxed);
        self.next_cpu_time_poll.store(nanos(self.base.elapsed() + time), Relaxed);
    }

    fn has_used_cpu_time(&self) -> bool {
        let at = self.cpu_time_at.load(Relaxed);
        if at == u64::MAX {
            return false;
        }
        let now = nanos(self.base.elapsed());
        if now < self.next_cpu_time_poll.load(Relaxed) {
            return false;
        }
        // A thread runs no faster than the clock, so it need not ask the system again before that.
        let left = at.saturating_sub(nanos(thread_cpu_time()));
        self.next_cpu_time_poll.store(now.saturating_add(left), Relaxed);
        left == 0
    }

    /// What runs until [`clear`](StatementDeadline::clear) is over after a few looks, or when the
    /// thread that began with `watch` has run for some milliseconds, compiling included.
    pub(super) fn limit_polls(&self, watch: &Stopwatch) {
        self.set(watch.clock + BRIEF_WAIT);
        self.set_processor_from(watch.processor, BRIEF_TIME);
        self.polls_left.store(BRIEF_POLLS, Relaxed);
    }

    /// Whether what runs is over, asked at each look. Only one thread asks.
    pub(super) fn has_expired_at_poll(&self) -> bool {
        match self.polls_left.load(Relaxed) {
            0 => {}
            1 => return true,
            looks => self.polls_left.store(looks - 1, Relaxed),
        }
        self.has_expired()
    }

    pub(super) fn has_expired(&self) -> bool {
        let at = self.at.load(Relaxed);
        self.abandoned.load(Relaxed)
            || (at != u64::MAX && self.base.elapsed().as_nanos() >= u128::from(at))
            || self.has_used_cpu_time()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// For how long this thread has run on a processor.
#[cfg(unix)]
fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Where the system does not report it, the clock stands for it.
#[cfg(not(unix))]
fn thread_cpu_time() -> Duration {
    static BASE: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    BASE.get_or_init(Instant::now).elapsed()
}

/// What something takes, by the clock and of this thread's processor. A thread of a busy machine
/// waits for a processor, and what it does is not slow for that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch {
    clock: Instant,
    processor: Duration,
}

/// What something took.
#[derive(Clone, Copy, Debug)]
pub(super) struct ElapsedTime {
    pub(super) by_clock: Duration,
    pub(super) by_processor: Duration,
}

impl Stopwatch {
    /// Begins now, on this thread.
    pub(super) fn start() -> Self {
        Self { clock: Instant::now(), processor: thread_cpu_time() }
    }

    /// Begins now, on this thread, for what most often takes microseconds: it may have begun up to
    /// [`RECENT`] before, by the processor. That saves most reads a call of the system, which is a
    /// tenth of what a quick one takes.
    pub(super) fn start_roughly() -> Self {
        thread_local! {
            static LAST: Cell<Option<Stopwatch>> = const { Cell::new(None) };
        }
        let clock = Instant::now();
        LAST.with(|last| match last.get() {
            Some(recent) if clock.duration_since(recent.clock) < RECENT => Self { clock, ..recent },
            _ => {
                let now = Self { clock, processor: thread_cpu_time() };
                last.set(Some(now));
                now
            }
        })
    }

    /// What it took until now. Asked on the thread that began.
    pub(super) fn elapsed(&self) -> ElapsedTime {
        ElapsedTime {
            by_clock: self.clock.elapsed(),
            by_processor: thread_cpu_time().saturating_sub(self.processor),
        }
    }

    /// What it took until now, by the clock.
    pub(super) fn by_clock(&self) -> Duration {
        self.clock.elapsed()
    }
}

/// What runs for a caller, so that it is interrupted when the caller goes away.
#[derive(Clone, Debug, Default)]
pub(super) struct RunningStatement(Arc<Mutex<Option<Arc<StatementDeadline>>>>);

impl RunningStatement {
    /// Until what is returned is dropped, what runs under this deadline runs for the caller.
    pub(super) fn attach_deadline(
        &self,
        deadline: &Arc<StatementDeadline>,
    ) -> RunningStatementGuard<'_> {
        *self.lock() = Some(Arc::clone(deadline));
        RunningStatementGuard(self)
    }

    /// What is returned stands for the caller: when it is dropped, what runs is interrupted.
    pub(super) fn caller_guard(&self) -> CallerGuard {
        CallerGuard(self.clone())
    }

    /// Nothing that panics runs while it is held.
    fn lock(&self) -> MutexGuard<'_, Option<Arc<StatementDeadline>>> {
        lock(&self.0)
    }
}

/// See [`RunningStatement::attach_deadline`].
pub(super) struct RunningStatementGuard<'r>(&'r RunningStatement);

impl Drop for RunningStatementGuard<'_> {
    fn drop(&mut self) {
        // Under the lock: the connection is another caller's next.
        let mut running = self.0.lock();
        if let Some(deadline) = running.take() {
            deadline.abandoned.store(false, Relaxed);
        }
    }
}

/// See [`RunningStatement::caller_guard`].
pub(super) struct CallerGuard(RunningStatement);

impl Drop for CallerGuard {
    fn drop(&mut self) {
        if let Some(deadline) = &*self.0.lock() {
            deadline.abandoned.store(true, Relaxed);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::StatementDeadline;
    use std::time::Duration;

    #[test]
    fn a_slice_of_the_processor_ends_when_the_thread_has_run_and_not_while_it_waits() {
        let (deadline, slice) = (StatementDeadline::default(), Duration::from_secs(1));
        deadline.set_cpu_time(slice);
        std::thread::sleep(slice * 2);
        assert!(!deadline.has_expired());
        while !deadline.has_expired() {}
        deadline.clear();
        assert!(!deadline.has_expired());
    }
}
