//! What one node's database asks of another's.

use async_trait::async_trait;
use debros_proto::Result;
use debros_proto::rpc::{LeaderWriteRequest, LeaderWriteResponse};
use debros_rqlite::Entry;
use std::sync::Arc;
use std::time::Instant;

/// Entries that are in the log, in order and without gaps.
pub type CommittedEntries = Arc<Vec<Entry>>;

/// The connection to the node that leads. Whoever asks names the node, because another may lead by
/// then; a node that does not lead answers `not_leader`.
#[async_trait]
pub trait LeaderLink: Send + Sync + 'static {
    /// The number of the last entry that the leader knows to be in the log. With `confirm` it has
    /// the cluster confirm, after this call came, that it still leads.
    ///
    /// # Errors
    /// `not_leader`, `unavailable` when the node does not answer.
    async fn position(&self, leader: &str, confirm: bool) -> Result<u64>;

    /// Passes a write on.
    ///
    /// # Errors
    /// `not_leader` and `unavailable` when it surely was not done; `unknown_outcome`; the write's
    /// own.
    async fn write(
        &self,
        leader: &str,
        request: LeaderWriteRequest,
        deadline: Instant,
    ) -> Result<LeaderWriteResponse>;

    /// The hash of a node's copy of a database, if that holds the same entry as the caller's; `None`
    /// when it does not, has no such database, or is of another version. `database` is the
    /// namespace whose it is; empty: the system's. The node need not lead.
    ///
    /// # Errors
    /// `overloaded` when the node compares another one; `unavailable` when it does not answer.
    async fn checksum(&self, node: &str, database: &str, entry: u64) -> Result<Option<[u8; 32]>>;

    /// The entries that the leader appends from now on, as they are appended; the channel ends with
    /// the connection. Entries may be missing in between, where the node was too slow to take them.
    ///
    /// # Errors
    /// As [`position`](LeaderLink::position).
    async fn follow(&self, leader: &str) -> Result<tokio::sync::mpsc::Receiver<CommittedEntries>>;
}
