//! Which row a statement inserted last, as the update hook of the writing connection reports it.

use debros_proto::lock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

/// Whether the last inserted row is one of the statement that runs. SQLite reports the row alone,
/// and keeps it where nothing was inserted: it is new when it is another than before, or when the
/// same rowid was inserted again.
#[derive(Debug, Default)]
pub(super) struct LastInsertTracker {
    /// The last inserted row before the statement.
    before: AtomicI64,
    /// A row of that number was inserted since.
    is_repeated: AtomicBool,
    /// Tables that were given a row of the last number there is since, as SQLite names them.
    at_end: Mutex<Vec<String>>,
    /// There are such.
    any_at_end: AtomicBool,
}

impl LastInsertTracker {
    /// A row was inserted.
    pub(super) fn note_insert(&self, table: &str, rowid: i64) {
        if rowid == self.before.load(Relaxed) {
            self.is_repeated.store(true, Relaxed);
        }
        if rowid == i64::MAX {
            self.note_max_rowid(table);
        }
    }

    /// A statement begins, before which `rowid` was the last inserted row.
    pub(super) fn reset(&self, rowid: i64) {
        self.before.store(rowid, Relaxed);
        self.is_repeated.store(false, Relaxed);
        if self.any_at_end.swap(false, Relaxed) {
            self.lock_tables_at_max_rowid().clear();
        }
    }

    /// Whether a table, as SQLite names it, was given a row of the last number there is since the
    /// statement began, also by a statement that failed later.
    pub(super) fn has_max_rowid(&self, table: &str) -> bool {
        self.any_at_end.load(Relaxed)
            && self.lock_tables_at_max_rowid().iter().any(|given| given == table)
    }

    /// Whether the last inserted row, `rowid` now, is one of the statement.
    pub(super) fn is_new(&self, rowid: i64) -> bool {
        rowid != self.before.load(Relaxed) || self.is_repeated.load(Relaxed)
    }

    fn note_max_rowid(&self, table: &str) {
        let mut tables = self.lock_tables_at_max_rowid();
        if !tables.iter().any(|noted| noted == table) {
            tables.push(table.to_owned());
        }
        self.any_at_end.store(true, Relaxed);
    }

    fn lock_tables_at_max_rowid(&self) -> MutexGuard<'_, Vec<String>> {
        lock(&self.at_end)
    }
}
