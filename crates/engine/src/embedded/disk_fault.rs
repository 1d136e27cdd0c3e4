//! Whether it is the disk that fails, and not what is on it. A disk that was lost is no reason to
//! put an old backup over what is on it: when it is there again, so is the data.

use debros_proto::{Code, Error};
use std::io::{self, Read as _};
use std::path::Path;

/// What to do about it.
pub(super) const ADVICE: &str = "the disk cannot be read or written, which says nothing against the data on it: check that it \
                                 is connected and mounted, and the system's log";

/// Linux's numbers, most of which every Unix has, for an input or output error, a device that is
/// gone, one without a medium, a lost connection to a disk elsewhere, and a file that is gone from
/// it.
const FAULTS: [i32; 7] = [5, 6, 19, 107, 116, 121, 123];

/// Whether a disk does not do what it is asked, for other reasons than room and rights.
pub(super) fn is_disk_fault(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| FAULTS.contains(&code))
}

/// Whether the last thing that this thread asked of the system and did not get is a piece of a
/// disk: an input or output error, or a device that is gone. SQLite says of these alone that the
/// database is damaged.
pub(super) fn is_read_fault(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| FAULTS[..2].contains(&code))
}

/// Why a file cannot be read to its end, if that is a fault of the disk's. SQLite says of some such
/// faults that the database is damaged. Takes as long as reading it.
pub(super) fn find_read_fault(path: &Path) -> Option<io::Error> {
    let read = || {
        let mut file = debros_proto::regular_file::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        while file.read(&mut buffer)? > 0 {}
        Ok(())
    };
    read().err().filter(is_disk_fault)
}

/// The caller's error for it.
pub(super) fn disk_fault_error() -> Error {
    Error::new(
        Code::Unavailable,
        "the disk of the database cannot be read or written; the node's log has more: its operator must look after the disk",
    )
    .retry_after(std::time::Duration::from_secs(10))
}

#[cfg(test)]
mod tests {
    use crate::embedded::engine_open_error::EngineOpenError;
    use std::path::Path;

    /// The whole way: SQLite asks for a page, and gets what a lost disk gives.
    #[test]
    #[cfg(target_os = "linux")]
    fn what_sqlite_calls_damaged_on_a_lost_disk_is_told_as_that() {
        let error = rusqlite::Connection::open("/proc/self/mem")
            .and_then(|db| {
                db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))
            })
            .unwrap_err();
        let reported = crate::embedded::error_mapping::map_sqlite_error(error);
        assert!(
            reported.code != debros_proto::Code::Corrupt && reported.message.contains("disk"),
            "{reported}"
        );
    }

    /// The memory of a process has nothing at its start: reading there is an input or output error,
    /// as of a lost disk.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_lost_disk_is_not_called_damaged() {
        let lost = Path::new("/proc/self/mem");
        assert!(super::find_read_fault(lost).is_some());
        let error = rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            None,
        );
        let reported = EngineOpenError::database(lost, &error, Path::new("/backups")).to_string();
        assert!(
            reported.contains("check that it is connected") && !reported.contains("restore"),
            "{reported}"
        );
        let error = rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_READ),
            None,
        );
        let reported =
            EngineOpenError::database("/x/system.db", &error, Path::new("/backups")).to_string();
        assert!(
            reported.contains("check that it is connected") && !reported.contains("restore"),
            "{reported}"
        );
        // And what can be read is damaged, if SQLite says so.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("system.db");
        std::fs::write(&path, "x").unwrap();
        let error = rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
            None,
        );
        assert!(
            EngineOpenError::database(path, &error, Path::new("/backups"))
                .to_string()
                .contains("restore a backup")
        );
    }
}
