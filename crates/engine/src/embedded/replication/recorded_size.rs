//! What the changes of open transactions take in memory, which is bounded: a statement may change
//! more rows than a node has memory for.

use super::change_set::{ChangeKind, StoredKind, StoredValue};
use crate::MAX_CHANGES;
use std::mem::size_of;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that those of all the process's transactions may take.
const MAX_PROCESS: usize = 512 << 20;

/// Bytes of all recorders.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Why a transaction's changes are not recorded any more; it cannot be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::embedded) enum RecordingLimit {
    /// It changes too much. With the bytes of all its changes.
    Transaction(usize),
    /// All that is open changes too much.
    Process,
}

/// The size of what one connection has recorded.
#[derive(Debug, Default)]
pub(super) struct RecordedSize(SizeMark);

/// The size at some point of the transaction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SizeMark {
    /// All changes, kept or not.
    bytes: usize,
    /// Those that are kept.
    held: usize,
    over: Option<RecordingLimit>,
}

impl RecordedSize {
    /// Counts a change. False: it must not be kept, nor any after it.
    pub(super) fn add(&mut self, change: &ChangeKind) -> bool {
        let (size, bytes) = (&mut self.0, bytes_of(change));
        size.bytes += bytes;
        if size.over.is_none() {
            if size.bytes > MAX_CHANGES {
                size.over = Some(RecordingLimit::Transaction(size.bytes));
            } else if HELD.fetch_add(bytes, Relaxed) + bytes > MAX_PROCESS {
                HELD.fetch_sub(bytes, Relaxed);
                size.over = Some(RecordingLimit::Process);
            } else {
                size.held += bytes;
                return true;
            }
        }
        if let Some(RecordingLimit::Transaction(all)) = &mut size.over {
            *all = size.bytes;
        }
        false
    }

    pub(super) fn mark(&self) -> SizeMark {
        self.0
    }

    pub(super) fn over(&self) -> Option<RecordingLimit> {
        self.0.over
    }

    /// What came after the mark is not kept any more.
    pub(super) fn rollback_to(&mut self, mark: SizeMark) {
        // It is of a transaction that is gone.
        if mark.bytes > self.0.bytes {
            return;
        }
        HELD.fetch_sub(self.0.held.saturating_sub(mark.held), Relaxed);
        self.0 = mark;
    }
}

impl Drop for RecordedSize {
    fn drop(&mut self) {
        self.rollback_to(SizeMark::default());
    }
}

fn bytes_of(change: &ChangeKind) -> usize {
    let contents = match change {
        ChangeKind::Insert(row) => bytes_of_values(&row.values),
        ChangeKind::Update(row) => {
            bytes_of_values(&row.old_values)
                + bytes_of_values(&row.values)
                + row.columns.len() * size_of::<u32>()
        }
        ChangeKind::Delete(row) => bytes_of_values(&row.old_values),
        ChangeKind::Statement(text) => text.len(),
        ChangeKind::Sequences(sequences) => sequences.rows.len() * 2 * size_of::<StoredValue>(),
    };
    size_of::<ChangeKind>() + contents
}

fn bytes_of_values(values: &[StoredValue]) -> usize {
    let contents = values.iter().map(|value| match &value.kind {
        Some(StoredKind::Text(bytes) | StoredKind::Blob(bytes)) => bytes.len(),
        _ => 0,
    });
    size_of_val(values) + contents.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::{ChangeKind, MAX_CHANGES, RecordedSize, RecordingLimit};

    #[test]
    fn what_is_too_much_is_not_kept_and_a_rollback_makes_it_right_again() {
        let some = ChangeKind::Statement("x".repeat(MAX_CHANGES / 4));
        let mut size = RecordedSize::default();
        assert!(size.add(&some));
        let mark = size.mark();
        assert!(size.add(&some) && size.add(&some) && !size.add(&some) && !size.add(&some));
        let Some(RecordingLimit::Transaction(bytes)) = size.over() else { panic!("{size:?}") };
        assert!(bytes > MAX_CHANGES / 4 * 5, "{bytes}");
        // A mark that is made now does not make it right.
        let late = size.mark();
        size.rollback_to(late);
        assert!(!size.add(&ChangeKind::Statement(String::new())));
        size.rollback_to(mark);
        assert!(size.over().is_none() && size.add(&some));
        let gone = size.mark();
        size.rollback_to(super::SizeMark::default());
        size.rollback_to(gone);
        assert_eq!(size.mark().held, 0);
        assert!(size.add(&some) && size.add(&some));

        let mut others = RecordedSize::default();
        assert!(others.add(&some) && others.add(&some) && others.add(&some));
        let mut more = RecordedSize::default();
        assert!(more.add(&some) && more.add(&some) && !more.add(&some));
        assert_eq!(more.over(), Some(RecordingLimit::Process));
        drop(others);
        more.rollback_to(super::SizeMark::default());
        assert!(more.add(&some) && more.add(&some) && more.add(&some));
    }
}
