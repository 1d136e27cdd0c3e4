//! What a node remembers of the copies that it took by itself: one that it still has to take, and
//! the last ones.
//!
//! The file is outside of the database's folder, so that it is there whichever files are in that.
//! While it has a pending copy, the node serves nobody, whatever happens to its program.

use super::node_record::NodeRecord;
use debros_cluster::CopyNeed;
use debros_proto::durable_file::{self, FileReaders};
use debros_proto::{Error, Result, rpc};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file in the node's folder.
const FILE: &str = "reseeding.json";
/// The pause after one copy and before the next; it doubles with each that follows soon.
const FIRST_PAUSE_MS: i64 = 60_000;
/// The longest pause.
const LONGEST_PAUSE_MS: i64 = 24 * 60 * 60_000;
/// A copy that came so long after the one before begins anew.
const FORGOTTEN_AFTER_MS: i64 = 2 * LONGEST_PAUSE_MS;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReseedRecord {
    /// Copies that were taken.
    pub(crate) count: u64,
    /// Why the last one was taken.
    pub(crate) last_reason: String,
    /// When it was there, in milliseconds since the Unix epoch; 0: never.
    pub(crate) last_at: i64,
    /// Copies that followed each other soon.
    #[serde(default)]
    in_a_row: u32,
    /// The copy that is to be taken.
    pub(crate) pending: Option<PendingCopy>,
}

/// A copy that is to be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingCopy {
    /// Why, for programs.
    pub(crate) reason: String,
    /// The same, for people.
    pub(crate) message: String,
    /// The register as the node knew it: the way to the leader, when the files have it no more.
    nodes: Vec<KnownNode>,
}

/// A node of the register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KnownNode {
    peer_id: String,
    name: String,
    addresses: Vec<String>,
    raft_address: String,
    role: String,
    version: String,
    joined_at: i64,
    removed_at: i64,
    updated_at: i64,
}

impl ReseedRecord {
    /// Reads the record of a node's folder.
    ///
    /// # Errors
    /// The disk's; `InvalidData` when the file is damaged.
    pub(crate) fn read(data_dir: &Path) -> std::io::Result<Self> {
        match debros_proto::regular_file::read(&path_in(data_dir)) {
            Ok(text) => serde_json::from_slice(&text).map_err(std::io::Error::from),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes it, so that it is there after a loss of power.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn write(&self, data_dir: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec(self)?;
        durable_file::replace(&path_in(data_dir), &text, FileReaders::Owner)
    }

    /// A copy is to be taken.
    pub(crate) fn begin<'n>(
        &mut self,
        need: &CopyNeed,
        nodes: impl IntoIterator<Item = &'n NodeRecord>,
    ) {
        let nodes = nodes.into_iter().map(|node| KnownNode::new(node.to_message())).collect();
        let (reason, message) = (need.reason.name().to_owned(), need.message.clone());
        self.pending = Some(PendingCopy { reason, message, nodes });
    }

    /// The copy is in its place.
    pub(crate) fn finish(&mut self, now_ms: i64) {
        let Some(done) = self.pending.take() else { return };
        let is_soon = self.last_at > 0 && now_ms - self.last_at < FORGOTTEN_AFTER_MS;
        self.in_a_row = if is_soon { self.in_a_row.saturating_add(1) } else { 1 };
        self.count += 1;
        self.last_reason = done.message;
        self.last_at = now_ms;
    }

    /// How long the next copy has to wait, so that a node whose copies do not help does not take
    /// one after the other.
    pub(crate) fn pause(&self, now_ms: i64) -> Duration {
        if self.in_a_row == 0 {
            return Duration::ZERO;
        }
        let doubled = FIRST_PAUSE_MS.saturating_mul(1 << (self.in_a_row - 1).min(20));
        let left = self.last_at.saturating_add(doubled.min(LONGEST_PAUSE_MS)) - now_ms;
        // A clock that was set back does not make it longer.
        let left = left.clamp(0, doubled.min(LONGEST_PAUSE_MS));
        Duration::from_millis(u64::try_from(left).unwrap_or_default())
    }
}

impl PendingCopy {
    /// The register as the node knew it.
    ///
    /// # Errors
    /// When the file has what this version cannot read.
    pub(crate) fn nodes(&self) -> Result<Vec<NodeRecord>> {
        self.nodes.iter().map(|node| NodeRecord::from_message(&node.to_message())).collect()
    }
}

impl KnownNode {
    fn new(node: rpc::ClusterNode) -> Self {
        Self {
            peer_id: node.peer_id,
            name: node.name,
            addresses: node.addresses,
            raft_address: node.raft_address,
            role: node.role,
            version: node.version,
            joined_at: node.joined_at,
            removed_at: node.removed_at,
            updated_at: node.updated_at,
        }
    }

    fn to_message(&self) -> rpc::ClusterNode {
        let node = self.clone();
        rpc::ClusterNode {
            peer_id: node.peer_id,
            name: node.name,
            addresses: node.addresses,
            raft_address: node.raft_address,
            role: node.role,
            version: node.version,
            joined_at: node.joined_at,
            removed_at: node.removed_at,
            updated_at: node.updated_at,
        }
    }
}

pub(super) fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// The error of a record that cannot be read or written.
pub(crate) fn record_error(data_dir: &Path, error: &std::io::Error) -> Error {
    Error::internal(format!(
        "{}: {error}. It says whether the node has to take a new copy of the data",
        path_in(data_dir).display()
    ))
}

#[cfg(test)]
mod tests {
    use super::{FORGOTTEN_AFTER_MS, LONGEST_PAUSE_MS, ReseedRecord};
    use debros_cluster::{CopyNeed, CopyReason};
    use std::time::Duration;

    fn take_copy(record: &mut ReseedRecord, now: i64) {
        let need = CopyNeed { reason: CopyReason::LogCut, message: "away".to_owned() };
        record.begin(&need, []);
        record.finish(now);
    }

    #[test]
    fn copies_that_follow_each_other_wait_longer_and_longer() {
        let mut record = ReseedRecord::default();
        assert_eq!(record.pause(1), Duration::ZERO);
        let mut now = 1_000;
        let mut before = Duration::ZERO;
        for _ in 0..30 {
            take_copy(&mut record, now);
            let pause = record.pause(now);
            assert!(pause >= before * 2 || pause.as_millis() == LONGEST_PAUSE_MS as u128);
            before = pause;
            now += i64::try_from(pause.as_millis()).unwrap();
            assert_eq!(record.pause(now), Duration::ZERO);
        }
        assert_eq!((record.count, record.last_reason.as_str()), (30, "away"));
        take_copy(&mut record, now + FORGOTTEN_AFTER_MS);
        assert_eq!(record.pause(now + FORGOTTEN_AFTER_MS), Duration::from_secs(60));
        // The clock is set back by a year.
        assert!(record.pause(0) <= Duration::from_secs(60));
    }

    #[test]
    fn a_pending_copy_outlives_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = ReseedRecord::read(folder.path()).unwrap();
        assert_eq!(record, ReseedRecord::default());
        let need = CopyNeed { reason: CopyReason::EntryMisfit, message: "no table".to_owned() };
        record.begin(&need, []);
        record.write(folder.path()).unwrap();
        assert_eq!(ReseedRecord::read(folder.path()).unwrap(), record);
        std::fs::write(folder.path().join(super::FILE), "{").unwrap();
        assert!(ReseedRecord::read(folder.path()).is_err());
    }
}
