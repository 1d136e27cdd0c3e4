//! What a node's program did last, in a file of its data folder: for those who find it not
//! answering.
//!
//! The file is locked as long as the node runs, so that one whose process was killed is told from
//! one that runs. Nothing depends on it: where it cannot be written, the node runs all the same.

use crate::config::NodeConfig;
use debros_proto::{lock, now_ms};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The file's name in the data folder.
const RUN_FILE: &str = "node.run";
const PRIVATE: u32 = 0o600;

/// What a node is doing, or did last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunState {
    /// Its process.
    pub pid: u32,
    /// What it does, since `since`.
    pub phase: RunPhase,
    /// Milliseconds since the Unix epoch.
    pub since: i64,
    /// Why it failed; empty otherwise.
    #[serde(default)]
    pub message: String,
    /// The folder of its database.
    pub database_dir: PathBuf,
    /// Where it listens for peers, as it is set up.
    pub listen: Vec<String>,
    /// Where its rqlited listens for Raft; empty: the node keeps its data alone.
    #[serde(default)]
    pub raft_listen: String,
}

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunPhase {
    /// It opens its database.
    Starting,
    /// It needs other nodes of its cluster before it can serve.
    WaitingForMajority,
    /// It serves.
    Ready,
    /// It ended in order.
    Stopped,
    /// It did not start, or had to end.
    Failed,
}

impl RunState {
    /// Reads the file; `None` when there is none that can be read. True: the node runs.
    pub fn read(data_dir: &Path) -> Option<(Self, bool)> {
        let path = data_dir.join(RUN_FILE);
        let text = debros_proto::regular_file::read_to_string(&path).ok()?;
        let state = serde_json::from_str(&text).ok()?;
        let file = File::open(&path).ok()?;
        let is_running = matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock));
        Some((state, is_running))
    }
}

/// Notes why the program of a node that does not run ended, so that it can be read later.
pub fn note_failure(data_dir: &Path, message: &str) {
    let Ok(file) = open(data_dir, false) else { return };
    let Some((state, false)) = RunState::read(data_dir) else { return };
    if file.try_lock().is_ok() {
        let failed = RunState { phase: RunPhase::Failed, message: message.to_owned(), ..state };
        let failed = RunState { since: now_ms(), pid: std::process::id(), ..failed };
        write(&file, &failed);
    }
}

/// The file of a node that runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunRecord(Option<Arc<Mutex<(File, RunState)>>>);

impl RunRecord {
    /// Locks the file and notes that the node starts. Where another process has it, that one's
    /// notes stay.
    pub(crate) fn begin(config: &NodeConfig) -> Self {
        let is_replicated = config.cluster.is_wanted
            && debros_cluster::LocalState::read(&config.database.data_dir)
                .is_ok_and(|state| state.is_some());
        let state = RunState {
            pid: std::process::id(),
            phase: RunPhase::Starting,
            since: now_ms(),
            message: String::new(),
            database_dir: absolute(&config.database.data_dir),
            listen: config.listen_addresses.iter().map(ToString::to_string).collect(),
            raft_listen: if is_replicated {
                config.cluster.raft_listen.to_string()
            } else {
                String::new()
            },
        };
        let file = open(&config.data_dir, true).and_then(|file| {
            file.try_lock().map_err(io::Error::from)?;
            Ok(file)
        });
        match file {
            Ok(file) => {
                write(&file, &state);
                Self(Some(Arc::new(Mutex::new((file, state)))))
            }
            Err(error) => {
                tracing::debug!(%error, "what the node does is not noted in its data folder");
                Self(None)
            }
        }
    }

    /// Whether the file is this process's.
    pub(crate) fn is_held(&self) -> bool {
        self.0.is_some()
    }

    /// Notes what the node does now.
    pub(crate) fn note(&self, phase: RunPhase) {
        let Some(kept) = &self.0 else { return };
        let mut kept = lock(kept);
        let (file, state) = &mut *kept;
        if state.phase != phase {
            (state.phase, state.since) = (phase, now_ms());
            write(file, state);
        }
    }
}

fn open(data_dir: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false).mode(PRIVATE);
    options.open(data_dir.join(RUN_FILE))
}

/// In place, because the lock is on this file. A reader that comes in between sees no state.
fn write(mut file: &File, state: &RunState) {
    let written = serde_json::to_vec(state).map_err(io::Error::from).and_then(|text| {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(&text)
    });
    if let Err(error) = written {
        tracing::debug!(%error, "what the node does is not noted in its data folder");
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{RunPhase, RunRecord, RunState, note_failure};
    use crate::config::NodeConfig;

    #[test]
    fn the_record_says_what_a_node_did_last_and_whether_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let config = NodeConfig::new(folder.path());
        assert_eq!(RunState::read(folder.path()), None);
        let record = RunRecord::begin(&config);
        record.note(RunPhase::Ready);
        // A second program on the folder, which ends at once.
        drop(RunRecord::begin(&config));
        note_failure(folder.path(), "the folder is in use");
        let (state, is_running) = RunState::read(folder.path()).unwrap();
        assert!(is_running);
        assert_eq!((state.phase, state.pid), (RunPhase::Ready, std::process::id()));
        drop(record);
        let (state, is_running) = RunState::read(folder.path()).unwrap();
        assert!(!is_running && state.phase == RunPhase::Ready, "as after a kill: {state:?}");
        note_failure(folder.path(), "no disk");
        let (state, _) = RunState::read(folder.path()).unwrap();
        assert_eq!((state.phase, state.message.as_str()), (RunPhase::Failed, "no disk"));
    }
}
