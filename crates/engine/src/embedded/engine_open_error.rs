//! Why opening an engine fails: the file, the cause and what to do.

use super::{disk_fault, file_names};
use crate::migrations::MigrationError;
use std::path::PathBuf;

/// Why an engine cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum EngineOpenError {
    /// Another process has the folder open.
    #[error("{path} is in use by {holder}: stop it, or give this node another data_dir")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// "process 123", or "another process" when it is not known.
        holder: String,
    },
    /// The folder or a file in it cannot be made, read or written.
    #[error("{path}: {source}; {advice}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite cannot open or set up the database.
    #[error("{path}: {message}; {advice}")]
    Database {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        message: String,
        /// What to do.
        advice: &'static str,
    },
    /// The database is damaged.
    #[error(
        "{path} is damaged: {findings}; restore a backup: move {path} away, write the backup's name, which is that \
         of a folder in {backup_dir}, into a file {restore}, and start the node again"
    )]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// The first lines of the integrity check.
        findings: String,
        /// Where the backups are.
        backup_dir: PathBuf,
        /// What names the backup that the start is to restore.
        restore: PathBuf,
    },
    /// The system's database was there, and is not any more.
    #[error(
        "{path} is missing or empty, and was there before{elsewhere}: put the file back (is its disk mounted?). To restore a backup, write \
         its name, which is that of a folder in {backup_dir}, into a file {restore}, and start the node again. If all data is \
         gone for good, remove {record}: the node starts with an empty database then"
    )]
    Lost {
        /// The database file.
        path: PathBuf,
        /// Where the backups are.
        backup_dir: PathBuf,
        /// What names the backup that the start is to restore.
        restore: PathBuf,
        /// What says that the file was there.
        record: PathBuf,
        /// Where it was, and what is there now, when that is another folder; else empty.
        elsewhere: String,
    },
    /// The system's tables cannot be brought up to date.
    #[error("{path}: {source}")]
    Migration {
        /// The database file.
        path: PathBuf,
        /// Which migration, and why.
        source: MigrationError,
    },
    /// The deletion of a namespace was interrupted and cannot be finished.
    #[error("the interrupted deletion of the namespace {namespace} cannot be finished: {message}")]
    Deletion {
        /// The namespace.
        namespace: String,
        /// Why, and what to do.
        message: String,
    },
    /// A restore was interrupted and cannot be finished.
    #[error("the interrupted restore of {backup} cannot be finished: {message}")]
    Restore {
        /// The backup's name.
        backup: String,
        /// Why, and what to do.
        message: String,
    },
}

impl EngineOpenError {
    pub(super) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        let advice = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "free some disk space"
            }
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                "the node's user must be allowed to write there"
            }
            std::io::ErrorKind::NotADirectory | std::io::ErrorKind::AlreadyExists => {
                "data_dir must be a folder"
            }
            std::io::ErrorKind::InvalidInput | std::io::ErrorKind::IsADirectory => {
                "move what is there away"
            }
            _ if disk_fault::is_disk_fault(&source) => disk_fault::ADVICE,
            _ => "check data_dir and the disk",
        };
        Self::Io { path: path.into(), advice, source }
    }

    /// The record of the database files cannot be read.
    pub(super) fn file_record(path: &std::path::Path, source: std::io::Error) -> Self {
        if source.kind() != std::io::ErrorKind::InvalidData {
            return Self::io(path, source);
        }
        let advice = "the node did not write this: put back what was there; or, if the databases that are there now are all \
                      there are, remove it, and the node starts with these";
        Self::Io { path: path.to_owned(), advice, source }
    }

    /// The system's database is damaged, as SQLite says: unless it is the disk that cannot be read,
    /// which SQLite calls so too.
    pub(super) fn corrupt(
        path: impl Into<PathBuf>,
        findings: String,
        backup_dir: &std::path::Path,
    ) -> Self {
        let path = path.into();
        if let Some(fault) = disk_fault::find_read_fault(&path) {
            return Self::io(path, fault);
        }
        let restore = path.with_file_name(file_names::RESTORE);
        Self::Corrupt { path, findings, backup_dir: backup_dir.to_owned(), restore }
    }

    pub(super) fn database(
        path: impl Into<PathBuf>,
        error: &rusqlite::Error,
        backup_dir: &std::path::Path,
    ) -> Self {
        use rusqlite::ErrorCode;
        let path = path.into();
        let advice = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                return Self::corrupt(path, error.to_string(), backup_dir);
            }
            Some(ErrorCode::SystemIoFailure) => disk_fault::ADVICE,
            Some(ErrorCode::DiskFull) => "free some disk space",
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                "the node's user must be allowed to write the file and its folder"
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                "another program has the file open; stop that program"
            }
            _ => "check the disk and the system log",
        };
        Self::Database { path, message: error.to_string(), advice }
    }
}
