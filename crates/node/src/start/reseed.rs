//! The start of a node that takes a new copy of the cluster's data in place of its files.
//!
//! 1. The node runs with its identity and name, its key and an empty database, as one that joins
//!    does: it is found by the others and serves nobody. Its rqlited runs as well.
//! 2. The leader's files are copied to `db.copy`, which becomes `db.copied` when it is whole.
//! 3. The copy is noted as taken, `db` becomes `db.replaced`, and `db.copied` becomes `db`.
//!
//! After a crash the next start goes on: in step 3 when there is a `db.copied`, else in step 1.

use super::{
    NodeDatabase, NodeStartError, engine_config, make_folder, open_embedded, remove_file,
    remove_folder, start_with,
};
use crate::Node;
use crate::cluster::{
    Keyring, NodeRecord, PendingCopy, ReseedRecord, enter_known_nodes, known_local_state,
    record_error, start_rqlited,
};
use crate::config::NodeConfig;
use debros_engine::Engine;
use debros_p2p::Keypair;
use debros_proto::now_ms;
use debros_rqlite::Rqlited;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a node without services may take to stop.
const STOP_TIME: Duration = Duration::from_secs(5);

/// The folders of a copy, beside the database's.
pub(super) struct CopyFolders {
    target: PathBuf,
    /// What an empty database is in meanwhile.
    bare: PathBuf,
    partial: PathBuf,
    whole: PathBuf,
    replaced: PathBuf,
}

impl CopyFolders {
    pub(super) fn new(config: &NodeConfig) -> Self {
        let target = config.database.data_dir.clone();
        Self {
            bare: target.with_extension("joining"),
            partial: target.with_extension("copy"),
            whole: target.with_extension("copied"),
            replaced: replaced_files(config),
            target,
        }
    }

    /// Puts a whole copy in the place of the files, which are kept aside.
    fn put_in_place(&self, file_record: &Path) -> std::io::Result<()> {
        if self.target.exists() {
            remove_folder(&self.replaced)?;
            std::fs::rename(&self.target, &self.replaced)?;
            tracing::warn!(
                folder = %self.replaced.display(),
                bytes = folder_size(&self.replaced),
                "the old files are kept here until the new copy serves"
            );
        }
        // It is of the old files.
        remove_file(file_record)?;
        std::fs::rename(&self.whole, &self.target)?;
        sync_parent(&self.target)
    }

    fn error(&self, source: std::io::Error) -> NodeStartError {
        NodeStartError::DataDir { path: self.target.clone(), source }
    }
}

/// Where the files are that a new copy replaced.
pub(crate) fn replaced_files(config: &NodeConfig) -> PathBuf {
    config.database.data_dir.with_extension("replaced")
}

/// Takes the copy that the node needs, if it needs one. Returns the rqlited that runs then.
///
/// # Errors
/// [`NodeStartError`]. The next start goes on with it.
pub(super) async fn finish_reseeding(
    config: &NodeConfig,
    keypair: &Keypair,
    operator_credential: &str,
) -> Result<Option<Rqlited>, NodeStartError> {
    let folders = CopyFolders::new(config);
    let unreadable = |error| NodeStartError::Cluster(record_error(&config.data_dir, &error));
    let mut record = ReseedRecord::read(&config.data_dir).map_err(unreadable)?;
    let mut rqlited = None;
    if !folders.whole.exists() {
        let Some(pending) = &record.pending else { return Ok(None) };
        if config.cluster.is_wanted {
            rqlited = Some(copy(config, keypair, operator_credential, pending, &folders).await?);
        }
    }
    // What stays alone takes no copy, now or later.
    let is_taken = folders.whole.exists();
    if is_taken {
        record.finish(now_ms());
    } else {
        record.pending = None;
    }
    record.write(&config.data_dir).map_err(unreadable)?;
    if is_taken {
        let file_record = config.data_dir.join("database.files");
        folders.put_in_place(&file_record).map_err(|error| folders.error(error))?;
        tracing::warn!(
            copies = record.count,
            reason = record.last_reason,
            "the node has a new copy of the cluster's data"
        );
    }
    Ok(rqlited)
}

/// Has the leader's files in the folder of whole copies.
async fn copy(
    config: &NodeConfig,
    keypair: &Keypair,
    operator_credential: &str,
    pending: &PendingCopy,
    folders: &CopyFolders,
) -> Result<Rqlited, NodeStartError> {
    tracing::warn!(
        reason = pending.reason,
        why = pending.message,
        "the node takes a new copy of the cluster's data; it serves nobody until it has it"
    );
    let own = keypair.public().to_peer_id();
    let nodes = pending.nodes().map_err(NodeStartError::Cluster)?;
    loop {
        let keyring = Keyring::load(&config.cluster.key_file)?.ok_or_else(|| {
            NodeStartError::Cluster(super::key_missing_error(&pending.message, config))
        })?;
        let state = known_local_state(keyring.cluster_id(), own, &nodes, 0);
        let rqlited = start_rqlited(config, own, &keyring, &state).await?;
        let fetched = async {
            let node = start_bare(config, keypair, operator_credential, &nodes).await?;
            let cluster = &node.dispatcher.services.cluster;
            let fetched = cluster.fetch_from_leader(&rqlited, &folders.partial).await;
            node.shutdown(Instant::now() + STOP_TIME).await;
            let Some(state) = fetched.map_err(NodeStartError::Cluster)? else { return Ok(false) };
            state.write(&folders.partial)?;
            std::fs::rename(&folders.partial, &folders.whole)
                .and_then(|()| sync_parent(&folders.whole))
                .map_err(|error| folders.error(error))?;
            remove_bare(config, &folders.bare);
            Ok(true)
        };
        match fetched.await {
            Ok(true) => return Ok(rqlited),
            // The cluster's key was replaced, and with it the certificates of the Raft port.
            Ok(false) => rqlited.stop(STOP_TIME).await,
            Err(error) => {
                rqlited.stop(STOP_TIME).await;
                return Err(error);
            }
        }
    }
}

/// Starts a node on an empty database, which knows these nodes and serves nobody.
pub(super) async fn start_bare(
    config: &NodeConfig,
    keypair: &Keypair,
    operator_credential: &str,
    nodes: &[NodeRecord],
) -> Result<Node, NodeStartError> {
    let folders = CopyFolders::new(config);
    // What a crash has left: files, and the record that they must be there.
    remove_folder(&folders.bare)
        .and_then(|()| remove_file(&bare_record(config)))
        .map_err(|error| folders.error(error))?;
    make_folder(&folders.bare)?;
    let mut bare = config.clone();
    bare.database.data_dir.clone_from(&folders.bare);
    if !nodes.is_empty() {
        // It is in the cluster already.
        bare.cluster.join = None;
    }
    let engine: Arc<dyn Engine> =
        Arc::new(open_embedded(engine_config(&bare, bare_record(config))).await?);
    enter_known_nodes(&engine, &bare, nodes).await.map_err(NodeStartError::Cluster)?;
    let database = NodeDatabase { serves_callers: false, ..NodeDatabase::alone(engine) };
    start_with(bare, keypair.clone(), operator_credential.to_owned(), database).await
}

/// Removes what a node without data had.
pub(super) fn remove_bare(config: &NodeConfig, bare: &Path) {
    // The next one empties them.
    let _ = std::fs::remove_dir_all(bare);
    let _ = std::fs::remove_file(bare_record(config));
}

fn bare_record(config: &NodeConfig) -> PathBuf {
    config.data_dir.join("joining.files")
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    // A path of one name has an empty parent: the folder that the program runs in.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Bytes of all files in a folder, as far as they can be read.
pub(crate) fn folder_size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::{CopyFolders, replaced_files};
    use crate::config::NodeConfig;
    use std::fs;

    /// What a crash leaves between any two steps is what the next attempt goes on from.
    #[test]
    fn a_copy_gets_into_its_place_from_wherever_a_crash_left_it() {
        for [has_target, has_older] in [[true, true], [true, false], [false, true]] {
            let folder = tempfile::tempdir().unwrap();
            let config = NodeConfig::new(folder.path());
            let folders = CopyFolders::new(&config);
            let record = folder.path().join("database.files");
            let fill = |folder: &std::path::Path, content: &str| {
                fs::create_dir_all(folder).unwrap();
                fs::write(folder.join("system.db"), content).unwrap();
            };
            let content =
                |folder: &std::path::Path| fs::read_to_string(folder.join("system.db")).unwrap();
            fill(&folders.whole, "new");
            if has_target {
                fill(&folders.target, "old");
                fs::write(&record, "of the old ones").unwrap();
            }
            if has_older {
                // Without a target: it is what was moved there before the crash.
                fill(&folders.replaced, if has_target { "older" } else { "old" });
            }
            folders.put_in_place(&record).unwrap();
            assert_eq!(content(&folders.target), "new");
            assert_eq!(content(&replaced_files(&config)), "old");
            assert!(!folders.whole.exists() && !record.exists());
        }
    }
}
