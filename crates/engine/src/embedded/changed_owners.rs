//! Which rows of the system's table of namespaces the open transaction has changed, so that their
//! owners are read again when it is committed.

use debros_proto::lock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

/// The system's table of namespaces.
pub(super) const TABLE: &str = "namespaces";

/// Rows of the table that the open transaction has changed. The update hook reports them.
#[derive(Debug, Default)]
pub(super) struct ChangedOwners {
    /// Only the connection that writes the system's file looks: in any other file the table is a
    /// user's.
    is_watched: AtomicBool,
    rowids: Mutex<Vec<i64>>,
}

impl ChangedOwners {
    /// Notes changes from now on, and none of before.
    pub(super) fn start_watching(&self) {
        self.is_watched.store(true, Relaxed);
        self.clear();
    }

    /// A row has changed.
    pub(super) fn note(&self, table: &str, rowid: i64) {
        if table == TABLE {
            self.note_row(rowid);
        }
    }

    /// A row of the table has changed.
    pub(super) fn note_row(&self, rowid: i64) {
        if self.is_watched.load(Relaxed) {
            self.rowids().push(rowid);
        }
    }

    /// The transaction is gone, and its changes with it.
    pub(super) fn clear(&self) {
        self.rowids().clear();
    }

    /// The noted rows, which are forgotten.
    pub(super) fn take(&self) -> Vec<i64> {
        std::mem::take(&mut *self.rowids())
    }

    /// Nothing that panics runs while the lock is held.
    fn rowids(&self) -> MutexGuard<'_, Vec<i64>> {
        lock(&self.rowids)
    }
}
