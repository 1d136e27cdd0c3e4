//! The other nodes of the cluster as this one saw them last, in a file of its data folder: for the
//! time when the node does not run, or waits for them.

use super::ClusterService;
use debros_p2p::PeerId;
use debros_proto::durable_file::{self, FileReaders};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// The file's name in the data folder.
const FILE: &str = "cluster.members";
/// How often it is written while nothing but the time changes.
pub(super) const WRITE_INTERVAL: Duration = Duration::from_secs(60);

/// Another node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenMember {
    /// Its peer id.
    pub peer_id: String,
    /// Its name.
    pub name: String,
    /// Where its Raft port is; empty: nowhere.
    pub raft_address: String,
    /// It votes.
    pub is_voter: bool,
    /// When it was connected last, milliseconds since the Unix epoch; 0: never.
    pub last_seen: i64,
}

/// What the file of a data folder says; empty where there is none that can be read.
pub fn read_seen_members(data_dir: &Path) -> Vec<SeenMember> {
    let text = debros_proto::regular_file::read(&data_dir.join(FILE));
    text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

impl ClusterService {
    /// Writes down which other nodes there are, and when they were seen.
    pub(super) async fn write_seen_members(&self) {
        let data_dir = self.data_dir.clone();
        let seen = self.seen_members(&read_seen_members(&data_dir));
        let written = tokio::task::spawn_blocking(move || {
            let text = serde_json::to_vec(&seen).map_err(std::io::Error::from)?;
            durable_file::replace(&data_dir.join(FILE), &text, FileReaders::Owner)
        });
        // Without it a command says less when the node is down.
        if let Ok(Err(error)) = written.await {
            tracing::debug!(%error, "which other nodes were seen is not noted in the data folder");
        }
    }

    fn seen_members(&self, before: &[SeenMember]) -> Vec<SeenMember> {
        let now = self.state.register.now_ms();
        let connected = self.members.connected();
        let before: HashMap<&str, i64> =
            before.iter().map(|seen| (seen.peer_id.as_str(), seen.last_seen)).collect();
        let last_seen = |peer: &PeerId| {
            let known = before.get(peer.to_string().as_str()).copied().unwrap_or_default();
            if connected.contains_key(peer) { now } else { known }
        };
        let nodes = self.state.nodes();
        let others = nodes
            .values()
            .filter(|node| !node.is_removed() && node.peer_id != self.state.own.peer_id);
        others
            .map(|node| SeenMember {
                peer_id: node.peer_id.to_string(),
                name: node.description.name.clone(),
                raft_address: node.description.raft_address.clone(),
                is_voter: node.role == super::node_record::NodeRole::Voter,
                last_seen: last_seen(&node.peer_id),
            })
            .collect()
    }
}
