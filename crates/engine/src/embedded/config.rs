//! What an embedded engine is opened with, and why opening it can fail.

use super::disk_fault;
use super::fair_queue::ThreadShare;
use crate::migrations::MigrationError;
use debros_proto::limits;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of an embedded engine. [`EmbeddedConfig::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// The folder that holds the databases; made when it is missing.
    pub data_dir: PathBuf,
    /// The folder that holds the backups; made when the first one is taken.
    pub backup_dir: PathBuf,
    /// The record of the database files that were made. Where one of them is missing, nothing is
    /// put in its place. It may lie outside of `data_dir`, so that it is there when that is not, as
    /// a disk that is not mounted; its folder must exist.
    pub file_record: PathBuf,
    /// Backups kept; older ones are removed after a new one is verified. At least 1.
    pub backups_kept: usize,
    /// Bytes that all databases together may take. Writes past it fail, reads and deletes go on.
    pub max_size: u64,
    /// Bytes that one namespace may take: its SQL database, key-value pairs and idempotency
    /// records; `None`: as much as there is.
    pub max_namespace_size: Option<u64>,
    /// Bytes that all namespaces which one wallet owns may take together; `None`: as much as there
    /// is.
    pub max_owner_size: Option<u64>,
    /// How long one statement may run.
    pub statement_time: Duration,
    /// Threads per database that run queries. At least 1. Where they are all busy there are nearly
    /// as many again, at least one, each for a caller who has nothing running there, and one for
    /// what is quick.
    pub readers: usize,
    /// Namespace databases kept open; idle ones over this number are closed, the longest unused
    /// first.
    pub open_databases: usize,
    /// Writes, and separately queries, that may wait in one database; more are refused as
    /// `overloaded`.
    pub queue_count: usize,
    /// Bytes of writes, and separately of queries with their arguments, that may wait in one
    /// database.
    pub queue_bytes: usize,
    /// Bytes that may wait in all databases together; past it each database has its share of 1 MiB,
    /// for either kind.
    pub waiting_bytes: usize,
    /// Bytes of memory that SQLite may take in this process, for pages, statements and what these
    /// work on. A statement that needs more fails as `overloaded`. Of several engines in a process
    /// the smallest number holds.
    pub max_memory: u64,
    /// Bytes of SQLite's temporary files (large sorts, groups and joins) in this process, together.
    /// Of several engines in a process the newest one's number holds.
    pub max_temp_size: u64,
    /// Sizes and counts of statements and results.
    pub limits: CallLimits,
}

impl EmbeddedConfig {
    /// Everything under one folder, with the defaults.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            backup_dir: data_dir.join("backups"),
            file_record: data_dir.join("FILES"),
            data_dir,
            backups_kept: 7,
            max_size: 1 << 30,
            max_namespace_size: Some(1 << 28),
            max_owner_size: Some(1 << 29),
            statement_time: Duration::from_secs(10),
            readers: 4,
            open_databases: 64,
            queue_count: 10_000,
            queue_bytes: 64 << 20,
            waiting_bytes: 256 << 20,
            max_memory: 512 << 20,
            max_temp_size: 1 << 30,
            limits: CallLimits::default(),
        }
    }
}

/// Bytes that every log may have: four times what is written back at once.
const LOG_BYTES: u64 = 64 << 20;
/// Bytes that no log may have, however large the databases may be.
const MOST_LOG_BYTES: u64 = 1 << 30;

impl EmbeddedConfig {
    /// File descriptors that an open database of a namespace may take: the file and its log for
    /// each connection, of which there is one that writes and a few that read, and the index of the
    /// log, which they share.
    pub fn descriptors_per_database(&self) -> u32 {
        let reading = u32::try_from(self.idle_readers()).unwrap_or(u32::MAX);
        3_u32.saturating_add(reading.saturating_mul(2))
    }

    /// Reading connections that a database keeps: one for each thread that queries, and for what is
    /// quick.
    pub(super) fn idle_readers(&self) -> usize {
        self.max_readers() + 1
    }

    /// Threads per database that run queries, those for callers with nothing running among them.
    pub(super) fn max_readers(&self) -> usize {
        let shared = self.readers.max(1);
        shared + (shared - 1).max(1)
    }

    /// What one caller has of these threads.
    pub(super) fn thread_share(&self) -> ThreadShare {
        let shared = self.readers.max(1);
        ThreadShare { max_running: (shared - 1).max(1), shared_threads: shared }
    }

    /// Bytes that the log of a file with this quota may have before writes are refused for it.
    pub(super) fn max_log(&self, quota: Option<u64>) -> u64 {
        let most = (self.max_size / 4).clamp(LOG_BYTES, MOST_LOG_BYTES);
        quota.map_or(most, |quota| quota.saturating_mul(2).clamp(LOG_BYTES, most))
    }
}

/// Sizes and counts of one call. The defaults are those of [`debros_proto::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Bytes in one SQL text.
    pub sql_bytes: usize,
    /// Arguments of one statement, at most 32,766.
    pub args: usize,
    /// Statements in one transaction.
    pub statements: usize,
    /// Rows in one call's results.
    pub rows: usize,
    /// Bytes in one call's results.
    pub result_bytes: usize,
    /// Bytes in a key-value value.
    pub value_bytes: usize,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            sql_bytes: limits::MAX_SQL_BYTES,
            args: limits::MAX_SQL_ARGS,
            statements: limits::MAX_TRANSACTION_STATEMENTS,
            rows: limits::MAX_RESULT_ROWS,
            result_bytes: limits::MAX_RESULT_BYTES,
            value_bytes: limits::MAX_VALUE_BYTES,
        }
    }
}

/// Why an engine can not be opened.
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
    /// The folder or a file in it can not be made, read or written.
    #[error("{path}: {source}; {advice}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite can not open or set up the database.
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
    /// The system's tables can not be brought up to date.
    #[error("{path}: {source}")]
    Migration {
        /// The database file.
        path: PathBuf,
        /// Which migration, and why.
        source: MigrationError,
    },
    /// The deletion of a namespace was interrupted and can not be finished.
    #[error("the interrupted deletion of the namespace {namespace} can not be finished: {message}")]
    Deletion {
        /// The namespace.
        namespace: String,
        /// Why, and what to do.
        message: String,
    },
    /// A restore was interrupted and can not be finished.
    #[error("the interrupted restore of {backup} can not be finished: {message}")]
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

    /// The record of the database files can not be read.
    pub(super) fn file_record(path: &std::path::Path, source: std::io::Error) -> Self {
        if source.kind() != std::io::ErrorKind::InvalidData {
            return Self::io(path, source);
        }
        let advice = "the node did not write this: put back what was there; or, if the databases that are there now are all \
                      there are, remove it, and the node starts with these";
        Self::Io { path: path.to_owned(), advice, source }
    }

    /// The system's database is damaged, as SQLite says: unless it is the disk that can not be
    /// read, which SQLite calls so too.
    pub(super) fn corrupt(
        path: impl Into<PathBuf>,
        findings: String,
        backup_dir: &std::path::Path,
    ) -> Self {
        let path = path.into();
        if let Some(fault) = disk_fault::find_read_fault(&path) {
            return Self::io(path, fault);
        }
        let restore = path.with_file_name(super::data_folder::RESTORE);
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
