//! One `rqlited` as a child of this process.
//!
//! The child gets a folder that nobody else uses (`data_lock`), in which nothing of an earlier life
//! still runs (`orphan`). It dies with this process, is started again when it dies alone, and is
//! called serving only when a read came back that all of the cluster's earlier writes went before.

mod auth_file;
mod child_process;
mod command_line;
mod config;
mod data_lock;
mod folder;
mod log_lines;
mod orphan;
mod proc_stat;
mod program;
mod snapshot_guard;
mod supervision;

pub use config::RqlitedConfig;
pub use folder::RqlitedFolder;
pub use program::{Features, ProgramError, find_program};

use crate::client::RqliteClient;
use child_process::ChildSlot;
use command_line::ChildFiles;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use supervision::Supervision;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the child is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RqlitedState {
    /// It was started, and is not ready yet: also while a cluster has no majority.
    Starting,
    /// It answered a strong read since its start.
    Serving,
    /// It ended by itself, and is started again after a pause.
    Restarting {
        /// How it ended, with its last line.
        reason: String,
        /// How often it was restarted by now.
        restarts: u64,
    },
    /// It was stopped by [`Rqlited::stop`].
    Stopped,
}

/// Why there is no child.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program cannot be run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Another process holds the folder.
    #[error("{path} is in use by {holder}: one rqlited has one folder, and a node keeps it")]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who has it.
        holder: String,
    },
    /// The rqlited of an earlier life does not end.
    #[error("rqlited of an earlier start still runs as process {pid} and does not end")]
    Orphan {
        /// Its process id.
        pid: u32,
    },
    /// The setting cannot work.
    #[error("rqlited: {0}")]
    Config(String),
    /// A file or a port cannot be had.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
}

impl StartError {
    fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    fn file(path: &Path, source: io::Error) -> Self {
        Self::io(path.display().to_string(), source)
    }
}

/// A running `rqlited` with its supervision. Dropped, it tells the child to end and does not wait;
/// [`stop`](Self::stop) waits.
#[derive(Debug)]
pub struct Rqlited {
    client: RqliteClient,
    /// What the next child is started with.
    config: Arc<Mutex<RqlitedConfig>>,
    features: Features,
    raft_addr: SocketAddr,
    state: watch::Receiver<RqlitedState>,
    restarts: watch::Receiver<u64>,
    child: Arc<ChildSlot>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Rqlited {
    /// Takes the folder, ends what an earlier life left running in it, and starts the child. Does
    /// not wait until it serves: see [`wait_serving`](Self::wait_serving).
    ///
    /// # Errors
    /// When the program cannot be run, the folder is another process's, or a setting cannot work.
    /// What only the child can find out, such as a port that is taken, is in its state.
    pub async fn start(config: RqlitedConfig) -> Result<Self, StartError> {
        let features = Self::probe(&config).await?;
        let folder = RqlitedFolder::take(&config.data_dir).await?;
        Self::launch(config, features, folder)
    }

    /// As [`start`](Self::start), in a folder that is taken already.
    ///
    /// # Errors
    /// As there.
    pub async fn start_in(
        folder: RqlitedFolder,
        config: RqlitedConfig,
    ) -> Result<Self, StartError> {
        let features = Self::probe(&config).await?;
        Self::launch(config, features, folder)
    }

    async fn probe(config: &RqlitedConfig) -> Result<Features, StartError> {
        config.check().map_err(StartError::Config)?;
        Ok(Features::probe(&config.program).await?)
    }

    fn launch(
        mut config: RqlitedConfig,
        features: Features,
        folder: RqlitedFolder,
    ) -> Result<Self, StartError> {
        let lock = folder.into_lock();
        if config.raft.port() == 0 {
            config.raft.set_port(
                free_port(config.raft)
                    .map_err(|source| StartError::io("choose a Raft port", source))?,
            );
        }
        let credentials = auth_file::write(&lock, config.join_password.as_deref())?;
        let client = RqliteClient::new(config.http, auth_file::USER, &credentials.password);
        let files = ChildFiles { store: lock.store(), auth: credentials.path };
        let raft_addr = config.raft;
        let config = Arc::new(Mutex::new(config));

        let child = Arc::new(ChildSlot::default());
        let (state_sender, state) = watch::channel(RqlitedState::Starting);
        let (restarts_sender, restarts) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let supervision = Supervision {
            config: Arc::clone(&config),
            features: features.clone(),
            files,
            lock: Arc::new(lock),
            client: client.clone(),
            child: Arc::clone(&child),
            state: state_sender,
            restarts: restarts_sender,
            stopped,
        };
        let task = tokio::spawn(supervision.run());
        Ok(Self { client, config, features, raft_addr, state, restarts, child, stop, task })
    }

    /// A client of the child. It stays the right one when the child is restarted.
    pub fn client(&self) -> RqliteClient {
        self.client.clone()
    }

    /// What the program can do.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Where the child listens for Raft.
    pub fn raft_addr(&self) -> SocketAddr {
        self.raft_addr
    }

    /// The child's state, now and later.
    pub fn state(&self) -> watch::Receiver<RqlitedState> {
        self.state.clone()
    }

    /// Waits until the child serves. `false` when it does not within the time, or was stopped.
    pub async fn wait_serving(&self, within: Duration) -> bool {
        let mut state = self.state.clone();
        let serving = state.wait_for(|state| *state == RqlitedState::Serving);
        matches!(tokio::time::timeout(within, serving).await, Ok(Ok(_)))
    }

    /// How often the child was restarted because it had ended by itself.
    pub fn restarts(&self) -> u64 {
        *self.restarts.borrow()
    }

    /// The child's process id, while one runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.pid()
    }

    /// The memory that the child has (its resident set), in bytes.
    pub fn memory(&self) -> Option<u64> {
        proc_stat::resident_bytes(self.pid()?)
    }

    /// Has the child hand Raft's leadership over, by ending it in order: it is started again at once.
    pub fn hand_over(&self) {
        self.child.terminate();
    }

    /// Has the child join again, as one that votes or does not, through these Raft addresses: it is
    /// ended in order, has `within` for it, and is started again at once. rqlite ignores the joining
    /// of a node that it has as something else: [remove](RqliteClient::remove) it first.
    pub async fn join_again(&self, join: Vec<String>, non_voter: bool, within: Duration) {
        {
            let mut config = debros_proto::lock(&self.config);
            config.join = join;
            config.non_voter = non_voter;
        }
        let mut restarts = self.restarts.clone();
        restarts.mark_unchanged();
        self.child.terminate();
        if tokio::time::timeout(within, restarts.changed()).await.is_err() {
            // It waits for another node that hangs, perhaps. What it has is on the disk.
            self.child.kill();
        }
    }

    /// Ends the child: it hands leadership over, and has `within` for it; then it is killed.
    pub async fn stop(mut self, within: Duration) {
        self.stop.send_replace(true);
        self.child.terminate();
        if tokio::time::timeout(within, &mut self.task).await.is_err() {
            tracing::warn!(target: "rqlited", ?within, "rqlited did not end when asked, and is killed");
            self.child.kill();
            // What is killed ends; only a disk that hangs could keep it.
            let _ = tokio::time::timeout(Duration::from_secs(5), &mut self.task).await;
        }
    }
}

impl Drop for Rqlited {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.child.terminate();
    }
}

/// A port that is free now at the address of `address`.
fn free_port(address: SocketAddr) -> io::Result<u16> {
    Ok(TcpListener::bind((address.ip(), 0))?.local_addr()?.port())
}
