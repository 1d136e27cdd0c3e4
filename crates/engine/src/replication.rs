//! What a replicated engine needs of the log that its changes go through.
//!
//! A write runs on one node, the leader. What its transaction has changed is one entry of a log,
//! and the transaction is committed only when the log has it. The other nodes apply the entries to
//! files of their own. See `docs/CLUSTER.md`.

use crate::TargetDatabase;
use bytes::Bytes;

/// What one transaction has changed in one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its number: entries count from 1, without gaps.
    pub number: u64,
    /// In which database.
    pub database: TargetDatabase,
    /// The changes, as the engine writes them.
    pub changes: Bytes,
}

/// Why an entry is not in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// Another node is the leader, or none is. The entry is not in the log, and never will be.
    NotLeader,
    /// The entry has more bytes than the log takes at once. It is not in the log.
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What the log takes.
        max: usize,
    },
    /// The log did not answer in time. The entry may come in the log later, or not.
    Unknown,
}

/// Bytes that one entry may change: what a leader holds of a transaction until the log has it.
pub const MAX_CHANGES: usize = 256 << 20;

/// What an entry does to its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Some of it changes.
    Changes,
    /// It is removed, or another takes its place: what was there may be another owner's.
    Replacement,
}

/// The log of a cluster. The engine calls it from the threads that write files, which may block.
pub trait ReplicatedLog: Send + Sync + 'static {
    /// Whether this node may write now. What it then writes is refused all the same when
    /// [`append`](ReplicatedLog::append) finds that another node is the leader by then.
    fn is_leader(&self) -> bool;

    /// Puts an entry into the log and returns its number, when a majority of the cluster has it on
    /// its disks. Blocks.
    ///
    /// # Errors
    /// [`AppendError`].
    fn append(
        &self,
        database: &TargetDatabase,
        changes: Bytes,
        kind: EntryKind,
    ) -> Result<u64, AppendError>;

    /// The transaction of an entry that was appended here is in this node's file.
    fn committed(&self, number: u64);

    /// The transaction of an entry that was appended here could not be committed to this node's
    /// file, so the file has to be brought to it like any other node's, before anything else is
    /// read from it or written to it.
    fn fell_behind(&self, number: u64);
}
