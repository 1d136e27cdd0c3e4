//! How large all databases together are, against how large they may be.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Bytes that deletes and their idempotency records may use past the limit: a full database must let itself be emptied.
const RESERVE: u64 = 1 << 20;

/// The sizes of all files. A file is counted as its pages, so that what waits in its log counts too.
#[derive(Debug)]
pub(super) struct Sizes {
    max: u64,
    total: AtomicU64,
    files: Mutex<HashMap<PathBuf, u64>>,
}

impl Sizes {
    pub(super) fn new(max: u64) -> Self {
        Self { max, total: AtomicU64::new(0), files: Mutex::default() }
    }

    /// Bytes of all files.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// The limit.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// Bytes of one file, 0 when it is not there.
    pub(super) fn of(&self, path: &Path) -> u64 {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied().unwrap_or(0)
    }

    /// Says how large a file is now; 0 when it is gone.
    pub(super) fn set(&self, path: &Path, bytes: u64) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match files.get_mut(path) {
            Some(known) => std::mem::replace(known, bytes),
            None => files.insert(path.to_owned(), bytes).unwrap_or(0),
        };
        if bytes == 0 {
            files.remove(path);
        }
        // Changed under the lock only, so the sum can not be missed.
        self.total.store(self.total() + bytes - before, Relaxed);
    }

    /// Says how large a new file is, if there is room for it. False: there is not, and nothing was noted.
    pub(super) fn add(&self, path: &Path, bytes: u64) -> bool {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let others = self.total() - files.get(path).copied().unwrap_or(0);
        if others + bytes > self.max {
            return false;
        }
        files.insert(path.to_owned(), bytes);
        self.total.store(others + bytes, Relaxed);
        true
    }

    /// How large a file of this size may become. Two files that grow at the very same moment are both promised what is
    /// left, so the limit can be passed by that much once.
    /// `quota`: a limit of the file's own.
    pub(super) fn allowed(&self, own: u64, quota: Option<u64>, with_reserve: bool) -> u64 {
        let reserve = if with_reserve { RESERVE } else { 0 };
        let of_all = own + (self.max + reserve).saturating_sub(self.total());
        quota.map_or(of_all, |quota| of_all.min(quota.saturating_add(reserve)))
    }
}
