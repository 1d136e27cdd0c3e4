//! The threads of one database: to wait for them no longer than there is time, and which of them
//! come first.

use debros_proto::lock;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// How many threads run.
#[derive(Debug, Default)]
pub(super) struct ThreadCount {
    running: Mutex<usize>,
    ended: Condvar,
}

/// A thread runs as long as it has this.
pub(super) struct ThreadGuard(Arc<ThreadCount>);

impl ThreadCount {
    /// One more.
    pub(super) fn add_thread(self: &Arc<Self>) -> ThreadGuard {
        *lock(&self.running) += 1;
        ThreadGuard(Arc::clone(self))
    }

    /// How many run.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        *lock(&self.running)
    }

    /// Waits until all have ended, at the latest until `deadline`. Whether they have.
    pub(super) fn wait_until_ended(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let running = lock(&self.running);
        let waited = self.ended.wait_timeout_while(running, left, |running| *running > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
    }
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        *lock(&self.0.running) -= 1;
        self.0.ended.notify_all();
    }
}

/// How much nicer than the others a thread is that runs what takes long: it has a third of their
/// weight where all are busy, and everything where they are not. Not less, because it takes locks
/// that they wait for.
#[cfg(target_os = "linux")]
const NICER: i32 = 5;

/// Has this thread run after the node's others, as long as these have something to do: those that
/// serve everybody, write, and do what is quick. For good, because only the administrator's threads
/// may take it back.
pub(super) fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        let thread = Some(rustix::thread::gettid());
        let lowered = rustix::process::getpriority_process(thread).and_then(|nice| {
            rustix::process::setpriority_process(thread, nice.saturating_add(NICER))
        });
        if let Err(error) = lowered {
            tracing::debug!(%error, "a thread's priority cannot be lowered");
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{NICER, lower_priority};
    use rustix::process::getpriority_process;
    use rustix::thread::gettid;

    #[test]
    fn a_thread_lowers_its_own_priority_and_no_other() {
        let before = getpriority_process(Some(gettid())).unwrap();
        let lowered = std::thread::spawn(|| {
            lower_priority();
            getpriority_process(Some(gettid())).unwrap()
        });
        assert_eq!(lowered.join().unwrap(), (before + NICER).min(19));
        assert_eq!(getpriority_process(Some(gettid())).unwrap(), before);
    }
}
