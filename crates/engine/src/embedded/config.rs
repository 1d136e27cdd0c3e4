//! What an embedded engine is opened with.

use super::fair_queue::ThreadShare;
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
    /// as many again, at least one, each for a caller that has nothing running there, and one for
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
