//! The folder of an rqlited before it starts: taken for this process, and made that of a cluster's
//! only node.

use super::data_lock::DataLock;
use super::{StartError, orphan};
use debros_proto::durable_file::{self, FileReaders};
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;

/// The folder of an rqlited, which no other process can take while this lives.
#[derive(Debug)]
pub struct RqlitedFolder(DataLock);

impl RqlitedFolder {
    /// Takes the folder, and ends what an earlier life left running in it.
    ///
    /// # Errors
    /// When another process has it, or what runs in it does not end.
    pub async fn take(folder: &Path) -> Result<Self, StartError> {
        let lock = DataLock::take(folder)?;
        orphan::clear(&lock).await?;
        Ok(Self(lock))
    }

    /// Whether an rqlited kept a Raft log here.
    pub fn has_log(&self) -> bool {
        self.0.store().join("raft.db").exists()
    }

    /// Has the next start make the node the only one of its cluster, with all that its Raft log has:
    /// also what it does not know to be committed. Repeated it does the same again.
    ///
    /// rqlite reads this file at its start, does what it says, and then renames it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn make_only_node(&self, node_id: &str, raft: SocketAddr) -> Result<(), StartError> {
        let folder = self.0.store().join("raft");
        std::fs::create_dir_all(&folder).map_err(|error| StartError::file(&folder, error))?;
        let path = folder.join("peers.json");
        let nodes = json!([{ "id": node_id, "address": raft.to_string(), "non_voter": false }]);
        durable_file::replace(&path, nodes.to_string().as_bytes(), FileReaders::Owner)
            .map_err(|error| StartError::file(&path, error))
    }

    pub(super) fn into_lock(self) -> DataLock {
        self.0
    }
}
