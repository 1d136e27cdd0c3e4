//! What goes wrong with a copy of the databases, as callers learn it.

use super::error_mapping;
use debros_proto::{Code, Error};
use std::io;
use std::path::Path;

/// A full disk is the likeliest thing to go wrong with a copy, and no database is full then.
pub(super) fn map_copy_error(error: rusqlite::Error) -> Error {
    match error_mapping::map_sqlite_error(error) {
        error if error.code == Code::DatabaseFull => copy_disk_full_error(),
        error => error,
    }
}

/// Why a file of a copy cannot be read or written, for the caller; the log has the rest.
pub(super) fn map_io_error(what: &Path, error: &io::Error) -> Error {
    tracing::error!(path = %what.display(), %error, "a copy of the databases cannot be read or written");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => copy_disk_full_error(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Error::new(
            Code::ReadOnly,
            "the folder of the copy cannot be written; the node's log has more",
        ),
        _ => Error::internal("the copy cannot be read or written; the node's log has more"),
    }
}

fn copy_disk_full_error() -> Error {
    Error::new(Code::DiskFull, "the disk has no room for the copy; nothing was changed")
}
