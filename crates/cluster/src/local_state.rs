//! What a node knows of its own files: to which cluster they belong, and how far they are.

use debros_proto::durable_file::{self, FileReaders};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The file in the database's folder. Where it is missing, the files there are those of a node that
/// is alone.
const FILE: &str = "CLUSTER";

/// What is in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalState {
    /// The cluster's id.
    pub cluster: String,
    /// Every entry of the log up to this one is in the files, and on the disk.
    pub durable: u64,
    /// The node is the first of the cluster and has not made its log yet.
    #[serde(default)]
    pub begins: bool,
    /// The node does not vote in Raft.
    #[serde(default)]
    pub non_voter: bool,
    /// Where other nodes' Raft ports were last known to be.
    #[serde(default)]
    pub raft_peers: Vec<String>,
}

/// The file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct LocalStateError {
    path: PathBuf,
    message: String,
}

impl LocalState {
    /// Reads the file of a database's folder; `None` when there is none.
    ///
    /// # Errors
    /// [`LocalStateError`]: the file is damaged, or the disk.
    pub fn read(folder: &Path) -> Result<Option<Self>, LocalStateError> {
        let path = folder.join(FILE);
        match debros_proto::regular_file::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| LocalStateError { path, message: error.to_string() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LocalStateError { path, message: error.to_string() }),
        }
    }

    /// Puts the file aside: from now on the folder's databases change without the log, and never fit
    /// to it again. True: there was one.
    ///
    /// # Errors
    /// [`LocalStateError`].
    pub fn set_aside(folder: &Path) -> Result<bool, LocalStateError> {
        let path = folder.join(FILE);
        match std::fs::rename(&path, folder.join("CLUSTER.left")) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(LocalStateError { path, message: error.to_string() }),
        }
    }

    /// Writes the file, so that it is there after a loss of power.
    ///
    /// # Errors
    /// [`LocalStateError`].
    pub fn write(&self, folder: &Path) -> Result<(), LocalStateError> {
        let path = folder.join(FILE);
        let failed = |message: String| LocalStateError { path: path.clone(), message };
        let text = serde_json::to_vec(self).map_err(|error| failed(error.to_string()))?;
        durable_file::replace(&path, &text, FileReaders::Owner)
            .map_err(|error| failed(error.to_string()))
    }
}

/// The file of a node that runs, for all that change something in it.
pub(crate) struct SharedLocalState {
    folder: PathBuf,
    state: Mutex<LocalState>,
}

impl SharedLocalState {
    pub(crate) fn new(folder: PathBuf, state: LocalState) -> Self {
        Self { folder, state: Mutex::new(state) }
    }

    pub(crate) fn get(&self) -> LocalState {
        debros_proto::lock(&self.state).clone()
    }

    /// Changes it, in the file first.
    ///
    /// # Errors
    /// [`LocalStateError`]: then nothing has changed.
    pub(crate) fn update(
        &self,
        change: impl FnOnce(&mut LocalState),
    ) -> Result<(), LocalStateError> {
        let mut state = debros_proto::lock(&self.state);
        let mut changed = state.clone();
        change(&mut changed);
        changed.write(&self.folder)?;
        *state = changed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::LocalState;

    #[test]
    fn a_folder_that_left_its_cluster_does_not_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let state = LocalState {
            cluster: "c".to_owned(),
            durable: 7,
            begins: false,
            non_voter: false,
            raft_peers: Vec::new(),
        };
        assert_eq!(LocalState::read(folder.path()).unwrap(), None);
        state.write(folder.path()).unwrap();
        assert_eq!(LocalState::read(folder.path()).unwrap(), Some(state));
        assert!(LocalState::set_aside(folder.path()).unwrap());
        assert_eq!(LocalState::read(folder.path()).unwrap(), None);
        assert!(!LocalState::set_aside(folder.path()).unwrap());
    }
}
