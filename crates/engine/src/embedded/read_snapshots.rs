//! When a reading connection may keep the snapshot that it reads.
//!
//! A read begins with two locks on the log and a look at its index, which cost half of a key-value
//! get. As long as nothing was committed, the next read would see the same snapshot, so an idle
//! connection keeps it. The writer counts its commits, and ends the kept snapshots before each of
//! them: the log can only be written back as far as the oldest snapshot that is still read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// The commits of one file, and whether readers may keep a snapshot now.
#[derive(Debug)]
pub(super) struct ReadSnapshots {
    commits: AtomicU64,
    may_cache: AtomicBool,
}

impl Default for ReadSnapshots {
    fn default() -> Self {
        Self { commits: AtomicU64::new(0), may_cache: AtomicBool::new(true) }
    }
}

impl ReadSnapshots {
    /// The number of the newest commit, when a snapshot of it may be kept.
    pub(super) fn newest_commit(&self) -> Option<u64> {
        // The count first: a commit after it only makes the kept snapshot look older than it is.
        let commits = self.commits.load(SeqCst);
        self.may_cache.load(SeqCst).then_some(commits)
    }

    /// From now on nothing is kept.
    pub(super) fn suspend(&self) {
        self.may_cache.store(false, SeqCst);
    }

    /// Something may have been committed; snapshots may be kept again.
    pub(super) fn resume(&self) {
        self.commits.fetch_add(1, SeqCst);
        self.may_cache.store(true, SeqCst);
    }
}
