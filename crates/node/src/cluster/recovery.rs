//! Makes the node of a survivor the only one of its cluster, after a majority was lost for good.
//!
//! The node does not run meanwhile. What it has stays: its files, and all that the Raft log of its
//! rqlited holds beyond them. Each step can be repeated, and comes before those that rely on it:
//!
//! 1. The node's own folders are taken, so that no node starts on them.
//! 2. Another key of the cluster, without those before: from here on no other node is believed.
//! 3. rqlited starts as the only node of Raft's cluster (`peers.json`), and applies its whole log.
//! 4. The database claims the lead and applies the log of entries to its files.
//! 5. The other nodes become tombstones in the register, and the log waits for none of them.

use super::keyring::{ClusterKeyError, Keyring};
use super::members_link::MembersLink;
use super::register::{NodeRegister, RoleCounts};
use super::replication::{Replication, ReplicationStartError, rqlited_config};
use super::reseed_record::{self, ReseedRecord};
use super::seen_members::{SeenMember, read_seen_members};
use crate::config::NodeConfig;
use crate::run_record::{RunPhase, RunRecord, RunState};
use crate::start::engine_config;
use debros_cluster::{LocalState, LocalStateError};
use debros_engine::Engine as _;
use debros_p2p::{PeerId, identity};
use debros_rqlite::{Rqlited, RqlitedFolder, StartError};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// How long rqlited may take to apply its log and to serve.
const RQLITED_TIME: Duration = Duration::from_secs(300);
/// How long the database may take to apply the log.
const APPLY_TIME: Duration = Duration::from_secs(300);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
const CLOSE_TIME: Duration = Duration::from_secs(30);

/// Why a node was not made the only one of its cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// The node is part of no cluster's database.
    #[error(
        "{path} is no database of a cluster: a node that is alone needs no recovery; it just starts"
    )]
    Alone {
        /// The database's folder.
        path: PathBuf,
    },
    /// The node was about to replace its files.
    #[error(
        "the node was about to take a new copy of the cluster's data, or has one that is not in its place yet: start it, so that it \
         finishes; if it cannot, because no other node is there, remove {record} and {copy} and recover with the files that it has"
    )]
    Reseeding {
        /// What is noted of it.
        record: PathBuf,
        /// The copy.
        copy: PathBuf,
    },
    /// The setting keeps the data alone.
    #[error(
        "database.engine is embedded: with that the node leaves its cluster when it starts; take the setting away to recover the \
         cluster with this node"
    )]
    Embedded,
    /// The node runs.
    #[error("the node of {path} runs (process {pid}): stop it first, and run this again")]
    Running {
        /// The data folder.
        path: PathBuf,
        /// Its process.
        pid: u32,
    },
    /// The cluster's log was not made yet.
    #[error("the cluster was begun with this node and has no log yet: just start it")]
    NotBegun,
    /// There is no key of the cluster.
    #[error(
        "the cluster's key {path} is not there: put it back, or start the node with database.engine embedded, which serves what its \
         files hold"
    )]
    NoKey {
        /// Where it should be.
        path: PathBuf,
    },
    /// rqlited's log is lost.
    #[error(
        "{path} holds no log of an rqlited, and what was committed last may be in it alone: put the folder back; if it is lost, start \
         the node with database.engine embedded, which serves what its files hold"
    )]
    NoLog {
        /// rqlited's folder.
        path: PathBuf,
    },
    /// The log cannot be applied to the files.
    #[error(
        "the log cannot be applied to this node's files: {0}. Run this on another survivor; where there is none, start the node \
         with database.engine embedded, which serves what its files hold"
    )]
    NotApplied(String),
    /// The identity cannot be read.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The cluster's key cannot be read or written.
    #[error(transparent)]
    Key(#[from] ClusterKeyError),
    /// What is known of the database's folder cannot be read or written.
    #[error(transparent)]
    LocalState(#[from] LocalStateError),
    /// rqlited or the database does not start.
    #[error(transparent)]
    Start(#[from] ReplicationStartError),
    /// The database cannot be written.
    #[error("the register of nodes cannot be written: {0}")]
    Register(#[from] debros_proto::Error),
    /// rqlited's files cannot be made durable.
    #[error("rqlited's files cannot be synced to the disk: {0}")]
    Sync(io::Error),
}

impl From<StartError> for RecoveryError {
    fn from(error: StartError) -> Self {
        Self::Start(error.into())
    }
}

/// What is found before anything is changed.
#[derive(Clone, Debug)]
pub struct RecoverySurvey {
    /// The node's name, or its peer id.
    pub name: String,
    /// The cluster's id.
    pub cluster_id: String,
    /// The entry up to which the files here surely have everything; the rest is in rqlited's log.
    pub durable: u64,
    /// When that was written down, milliseconds since the Unix epoch; 0: not known.
    pub durable_at: i64,
    /// The other nodes, with when they were seen last.
    pub others: Vec<SeenMember>,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The last entry of the log; the files here have all up to it.
    pub last_entry: u64,
    /// Names of the nodes that are nodes no more.
    pub removed: Vec<String>,
}

/// What is known of a node that does not run, and of the others of its cluster. Changes nothing.
///
/// # Errors
/// When the node cannot be recovered as it is: [`RecoveryError`] says why.
pub fn survey_recovery(config: &NodeConfig) -> Result<RecoverySurvey, RecoveryError> {
    let (state, keyring, peer_id) = check(config)?;
    let written = std::fs::metadata(config.database.data_dir.join("CLUSTER"))
        .and_then(|file| file.modified())
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Ok(RecoverySurvey {
        name: name_of(config, peer_id),
        cluster_id: keyring.cluster_id().to_owned(),
        durable: state.durable,
        durable_at: written.map_or(0, |at| i64::try_from(at.as_millis()).unwrap_or_default()),
        others: read_seen_members(&config.data_dir),
    })
}

/// Makes the node the only one of its cluster, with all that it has. It does not run afterwards, and
/// is started as usual. Repeated, also after it was broken off at any step, it does the same again.
///
/// # Errors
/// [`RecoveryError`].
pub async fn recover(config: &NodeConfig) -> Result<Recovered, RecoveryError> {
    let (state, keyring, peer_id) = check(config)?;
    let record = RunRecord::begin(config);
    if !record.is_held() {
        check_stopped(config)?;
    }
    let rqlite_dir = config.data_dir.join("rqlite");
    let folder = RqlitedFolder::take(&rqlite_dir).await?;
    if !folder.has_log() {
        return Err(RecoveryError::NoLog { path: rqlite_dir });
    }
    let keyring = keyring.renewed()?;
    keyring.replace(&config.cluster.key_file)?;
    let state = LocalState { non_voter: false, raft_peers: Vec::new(), ..state };
    state.write(&config.database.data_dir)?;

    let rqlited = rqlited_config(config, peer_id, &keyring, &state)?;
    folder.make_only_node(&rqlited.node_id, rqlited.raft_advertise.unwrap_or(rqlited.raft))?;
    let rqlited = Rqlited::start_in(folder, rqlited).await?;
    if !rqlited.wait_serving(RQLITED_TIME).await {
        let found = format!("rqlited does not serve: {:?}", *rqlited.state().borrow());
        return Err(RecoveryError::NotApplied(found));
    }
    // Raft's log is gone now, and version 8 syncs nothing of what is in its place.
    sync_tree(&rqlite_dir.join("store")).map_err(RecoveryError::Sync)?;

    let engine = engine_config(config, config.data_dir.join("database.files"));
    let link = MembersLink::default();
    let replication =
        Replication::open(config, engine, peer_id, rqlited, state, link, &record).await?;
    let done = leave_others(config, peer_id, &replication).await;
    replication.database.step_down();
    replication.database.engine().close_by(Instant::now() + CLOSE_TIME).await;
    replication.stop().await;
    if done.is_ok() {
        record.note(RunPhase::Stopped);
    }
    done
}

/// What has to be there, and that the node does not run.
fn check(config: &NodeConfig) -> Result<(LocalState, Keyring, PeerId), RecoveryError> {
    if !config.cluster.is_wanted {
        return Err(RecoveryError::Embedded);
    }
    check_stopped(config)?;
    check_not_reseeding(config)?;
    let path = &config.database.data_dir;
    let state = LocalState::read(path)?;
    let state = state.ok_or_else(|| RecoveryError::Alone { path: path.clone() })?;
    if state.begins {
        return Err(RecoveryError::NotBegun);
    }
    let path = &config.cluster.key_file;
    let keyring = Keyring::load(path)?;
    let keyring = keyring.ok_or_else(|| RecoveryError::NoKey { path: path.clone() })?;
    let keypair = identity::load_or_create(&config.data_dir.join("identity.key"))?;
    Ok((state, keyring, keypair.public().to_peer_id()))
}

/// The next start would put other files in the place of those that were recovered.
fn check_not_reseeding(config: &NodeConfig) -> Result<(), RecoveryError> {
    let copy = config.database.data_dir.with_extension("copied");
    let is_pending =
        ReseedRecord::read(&config.data_dir).map_or(true, |record| record.pending.is_some());
    if is_pending || copy.exists() {
        let record = reseed_record::path_in(&config.data_dir);
        return Err(RecoveryError::Reseeding { record, copy });
    }
    Ok(())
}

fn check_stopped(config: &NodeConfig) -> Result<(), RecoveryError> {
    match RunState::read(&config.data_dir) {
        Some((state, true)) => {
            Err(RecoveryError::Running { path: config.data_dir.clone(), pid: state.pid })
        }
        _ => Ok(()),
    }
}

fn name_of(config: &NodeConfig, peer_id: PeerId) -> String {
    if config.node_id.is_empty() { peer_id.to_string() } else { config.node_id.clone() }
}

/// Waits until the files have the whole log, then takes the others out.
async fn leave_others(
    config: &NodeConfig,
    peer_id: PeerId,
    replication: &Replication,
) -> Result<Recovered, RecoveryError> {
    let until = Instant::now() + APPLY_TIME;
    while !replication.database.is_leader() {
        let problem = replication.database.status().problem;
        // A log that does not reach back to the files never will.
        let is_final = problem.as_ref().is_some_and(|problem| problem.contains("copied"));
        if is_final || Instant::now() >= until {
            let problem = problem.unwrap_or_else(|| "it takes too long".to_owned());
            return Err(RecoveryError::NotApplied(problem));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let counts = RoleCounts {
        voters: config.cluster.replication_factor,
        holders: config.cluster.max_replicas,
    };
    let engine = replication.database.engine();
    let register = NodeRegister::new(engine, config.clock.clone(), counts);
    register.make_tables().await?;
    let removed = register.remove_others(peer_id, "recovery").await?;
    replication.forget_other_holders().await?;
    Ok(Recovered { last_entry: replication.database.status().applied, removed })
}

/// Has the disk take all files of a folder.
fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_tree(&path)?;
            continue;
        }
        match File::open(&path).and_then(|file| file.sync_all()) {
            // rqlited removes files of its own meanwhile.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    File::open(folder)?.sync_all()
}
