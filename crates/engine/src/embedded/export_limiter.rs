//! How many exports there are at a time, and what their files take. Each writes the database twice,
//! and every caller that may read may ask for one.

use super::{copy_error, data_folder};
use debros_proto::{Code, Error, Namespace, Result, lock};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Exports that are made at a time. What was made is sent while others are made.
const MAX_EXPORTS: usize = 2;
/// Bytes of the disk that copies leave to the databases.
pub(super) const RESERVE: u64 = 64 << 20;
/// When to try again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The exports of which there is a file, or is going to be.
#[derive(Debug, Default)]
pub(super) struct ExportLimiter(Mutex<HashMap<Namespace, ExportSlot>>);

/// What one export takes.
#[derive(Clone, Copy, Debug)]
struct ExportSlot {
    bytes: u64,
    is_made: bool,
}

/// A namespace's export, until this is dropped.
#[derive(Debug)]
pub(super) struct ExportPermit {
    exports: Arc<ExportLimiter>,
    namespace: Namespace,
}

impl ExportLimiter {
    /// Permits an export of a database of so many bytes: one for each namespace, a few at a time,
    /// as long as there is room for them in `tmp`, and all of them but the first in `max_bytes`.
    ///
    /// # Errors
    /// `overloaded` when there are others, `disk_full` when the disk has no room.
    pub(super) fn permit_export(
        self: &Arc<Self>,
        namespace: &Namespace,
        bytes: u64,
        tmp: &Path,
        max_bytes: u64,
    ) -> Result<ExportPermit> {
        let bytes = bytes.saturating_mul(2);
        let mut exports = self.lock();
        let busy = |what: &str| {
            Err(Error::new(Code::Overloaded, format!("{what}; try again when it is done"))
                .retry_after(RETRY_AFTER))
        };
        if exports.contains_key(namespace) {
            return busy("an export of the namespace is being made or sent");
        }
        let making: Vec<u64> =
            exports.values().filter(|slot| !slot.is_made).map(|slot| slot.bytes).collect();
        if making.len() >= MAX_EXPORTS {
            return busy("the node makes as many exports as it may");
        }
        let others: u64 = exports.values().map(|slot| slot.bytes).sum();
        if others > 0 && others.saturating_add(bytes) > max_bytes {
            return busy(
                "other exports take the room that there is for temporary files (database.max_temp_size)",
            );
        }
        // What others have written by now is counted twice, which errs on the safe side.
        check_disk_space(tmp, bytes.saturating_add(making.iter().sum()), "the export")?;
        exports.insert(namespace.clone(), ExportSlot { bytes, is_made: false });
        Ok(ExportPermit { exports: Arc::clone(self), namespace: namespace.clone() })
    }

    /// Nothing that panics runs while it is held.
    fn lock(&self) -> MutexGuard<'_, HashMap<Namespace, ExportSlot>> {
        lock(&self.0)
    }
}

impl ExportPermit {
    /// The file is whole, and has so many bytes.
    pub(super) fn mark_made(&self, bytes: u64) {
        self.exports.lock().insert(self.namespace.clone(), ExportSlot { bytes, is_made: true });
    }
}

impl Drop for ExportPermit {
    fn drop(&mut self) {
        self.exports.lock().remove(&self.namespace);
    }
}

/// Passes when the disk of a folder has so many bytes left, and a reserve for what is written
/// meanwhile.
///
/// # Errors
/// `disk_full`.
pub(super) fn check_disk_space(folder: &Path, bytes: u64, what: &str) -> Result<()> {
    let left = data_folder::available_space(folder)
        .map_err(|error| copy_error::map_io_error(folder, &error))?;
    if left >= bytes.saturating_add(RESERVE) {
        return Ok(());
    }
    Err(Error::new(
        Code::DiskFull,
        format!(
            "the disk has {left} bytes left, {what} takes up to {bytes} and leaves {RESERVE}; nothing was changed"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::{ExportLimiter, MAX_EXPORTS};
    use debros_proto::{Code, Namespace};
    use std::sync::Arc;

    #[test]
    fn there_is_one_of_a_namespace_a_few_at_a_time_and_room_for_each() {
        let folder = tempfile::tempdir().unwrap();
        let exports = Arc::<ExportLimiter>::default();
        let begin = |name: &str, bytes| {
            exports.permit_export(&Namespace::new(name).unwrap(), bytes, folder.path(), 100)
        };
        let code = |name: &str, bytes| begin(name, bytes).map(|_| ()).unwrap_err().code;
        assert_eq!(code("a", 1 << 60), Code::DiskFull);
        // The first may take more than there is for all.
        let first = begin("a", 1000).unwrap();
        assert_eq!(code("b", 1), Code::Overloaded);
        drop(first);
        let mut made: Vec<_> =
            (0..MAX_EXPORTS).map(|number| begin(&format!("n{number}"), 1).unwrap()).collect();
        assert_eq!(code("n0", 1), Code::Overloaded);
        assert_eq!(code("more", 1), Code::Overloaded);
        made[0].mark_made(1);
        // It is still there, and no more than one of a namespace may be.
        assert_eq!(code("n0", 1), Code::Overloaded);
        made.push(begin("more", 1).unwrap());
        drop(made);
        assert!(exports.lock().is_empty());
    }
}
