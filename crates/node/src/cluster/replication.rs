//! A node's part of the cluster's database: its rqlited, and what keeps its files at the log.

use super::control::{ClusterControl, ReplicationProgress, ReplicationStatus};
use super::file_transfer::{TemporaryFolder, send_files};
use super::keyring::Keyring;
use super::members_link::{MembersLink, log_entries_event};
use super::reseed_record::ReseedRecord;
use crate::config::NodeConfig;
use crate::run_record::{RunPhase, RunRecord};
use crate::start::replaced_files;
use async_trait::async_trait;
use debros_cluster::{ClusterConfig, ClusterDatabase, CopyNeed, LocalState};
use debros_engine::embedded::EmbeddedConfig;
use debros_p2p::{EventSource, PeerId};
use debros_proto::rpc;
use debros_proto::{Code, Error, Result, now_ms};
use debros_rqlite::{
    ClientError, RaftNode, ReadLevel, RqliteLog, Rqlited, RqlitedConfig, RqlitedState, certificates,
};
use futures::stream;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::sync::broadcast::error::RecvError;

/// How often the log says what a start waits for.
const WAIT_LOGGED: Duration = Duration::from_secs(10);
/// How long another node may take to be elected.
const HAND_OVER_TIME: Duration = Duration::from_secs(10);
/// The pause before rqlited is ended again because this node cannot lead: time for another to lead.
const HAND_OVER_AGAIN: Duration = Duration::from_secs(15);
/// How long an rqlited that handed over is left alone.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(3);
/// How long a start waits for the log, before the services start all the same.
const FIRST_LOOK_TIME: Duration = Duration::from_secs(5);
/// How long an rqlited may take to hand over and end.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Why a node does not take part in the cluster's database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicationStartError {
    /// No rqlited can be run.
    #[error(transparent)]
    Program(#[from] debros_rqlite::ProgramError),
    /// rqlited does not start.
    #[error(transparent)]
    Rqlited(#[from] debros_rqlite::StartError),
    /// The certificates of the Raft port cannot be made.
    #[error(transparent)]
    Certificates(#[from] certificates::CertificateError),
    /// The state of the files cannot be read or written.
    #[error(transparent)]
    State(#[from] debros_cluster::LocalStateError),
    /// The engine does not open.
    #[error(transparent)]
    Engine(#[from] debros_engine::embedded::EngineOpenError),
    /// A setting cannot work.
    #[error("{0}")]
    Config(String),
}

/// The part of the database that this node has.
pub(crate) struct Replication {
    pub(crate) database: ClusterDatabase,
    rqlited: Mutex<Option<Rqlited>>,
    log: RqliteLog,
    own: PeerId,
    version: String,
    copies: PathBuf,
    max_log: u64,
    pub(super) data_dir: PathBuf,
    pub(super) database_dir: PathBuf,
    /// Where the files are that a new copy has replaced, until that serves.
    pub(super) replaced_files: PathBuf,
}

impl Replication {
    /// Opens the database beside an rqlited that runs. Waits until a majority of the cluster's nodes
    /// answers.
    ///
    /// # Errors
    /// [`ReplicationStartError`].
    pub(crate) async fn open(
        config: &NodeConfig,
        engine: EmbeddedConfig,
        own: PeerId,
        rqlited: Rqlited,
        mut state: LocalState,
        link: MembersLink,
        record: &RunRecord,
    ) -> std::result::Result<Self, ReplicationStartError> {
        let log = RqliteLog::new(rqlited.client());
        record.note(RunPhase::WaitingForMajority);
        wait_for_majority(&rqlited).await;
        if state.begins {
            while let Err(error) = log.create_tables().await {
                tracing::warn!(%error, "the cluster's log cannot be made yet");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            state.begins = false;
            state.write(&engine.data_dir)?;
        }
        let copies = config.data_dir.join("copies");
        let cluster = ClusterConfig {
            node: own.to_string(),
            engine,
            state,
            max_log: config.cluster.max_log,
            compare_interval: config.cluster.compare_interval,
        };
        let database = ClusterDatabase::start(cluster, log.clone(), Arc::new(link))?;
        Ok(Self {
            database,
            rqlited: Mutex::new(Some(rqlited)),
            log,
            own,
            version: config.build.version.clone(),
            copies,
            max_log: config.cluster.max_log,
            data_dir: config.data_dir.clone(),
            database_dir: config.database.data_dir.clone(),
            replaced_files: replaced_files(config),
        })
    }

    /// Starts rqlited again, which hands Raft's lead over, whenever this node cannot lead itself: its
    /// disk is full, say, while the others' have room. Goes on until the node ends.
    pub(crate) async fn hand_over_when_unfit(of: Weak<Self>) {
        let Some(mut is_unfit) = of.upgrade().map(|this| this.database.is_unfit()) else { return };
        while is_unfit.wait_for(|is_unfit| *is_unfit).await.is_ok() {
            let Some(this) = of.upgrade() else { return };
            match &*this.rqlited.lock().await {
                Some(rqlited) => rqlited.hand_over(),
                None => return,
            }
            let problem = this.database.status().problem;
            drop(this);
            tracing::error!(problem, "this node cannot lead the cluster: its rqlited starts again");
            tokio::time::sleep(HAND_OVER_AGAIN).await;
        }
    }

    /// Waits until this node leads: then it can start without the others. False: another leads.
    pub(crate) async fn wait_for_leader(&self) {
        let began = Instant::now();
        let mut logged = Instant::now();
        while self.database.status().leader.is_none() {
            if logged.elapsed() >= WAIT_LOGGED {
                logged = Instant::now();
                let (waited_s, problem) =
                    (began.elapsed().as_secs(), self.database.status().problem);
                tracing::warn!(waited_s, problem, "the node waits until one of the nodes leads");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Has the log wait for no other node. Each that comes later reports itself.
    ///
    /// # Errors
    /// `unavailable` when the log does not answer.
    pub(super) async fn forget_other_holders(&self) -> Result<()> {
        let own = self.own.to_string();
        let unavailable = |error: debros_rqlite::ClientError| {
            Error::new(Code::Unavailable, format!("the log does not answer: {error}"))
        };
        for (node, _) in self.log.holders(ReadLevel::Weak).await.map_err(unavailable)? {
            if node != own {
                self.database.forget_holder(&node).await?;
            }
        }
        Ok(())
    }

    /// Waits until the log was applied once, or it shows that the files here have to be replaced
    /// now; then it says why.
    pub(crate) async fn wait_first_look(&self) -> Option<CopyNeed> {
        tokio::select! {
            need = self.database.wait_copy_need() => {
                self.reseed_pause().is_zero().then_some(need)
            }
            () = self.database.wait_caught_up(FIRST_LOOK_TIME) => None,
        }
    }

    /// How long the next new copy has to wait.
    pub(super) fn reseed_pause(&self) -> Duration {
        ReseedRecord::read(&self.data_dir).unwrap_or_default().pause(now_ms())
    }

    /// Has another node lead Raft, because this one's files keep it from leading.
    pub(super) async fn hand_over(&self) {
        if let Some(rqlited) = &*self.rqlited.lock().await
            && !self.database.is_leader()
        {
            hand_over_if_leading(&self.log, rqlited).await;
        }
    }

    /// How the data here is, for the status.
    pub(super) fn health(&self) -> rpc::DataHealth {
        let record = ReseedRecord::read(&self.data_dir).unwrap_or_default();
        let status = self.database.status();
        let differences = status.differences.into_iter().map(|found| rpc::DatabaseDifference {
            namespace: found.namespace,
            entry: found.entry,
            leader_differs: found.leader_differs,
            found_at: found.found_at,
        });
        rpc::DataHealth {
            reseedings: record.count,
            reseeding_reason: record.last_reason,
            reseeded_at: record.last_at,
            differences: differences.collect(),
            problem: status.problem.unwrap_or_default(),
        }
    }

    /// The hash of a database here, for another node.
    ///
    /// # Errors
    /// As [`ClusterDatabase::checksum`].
    pub(super) async fn checksum(
        &self,
        request: &rpc::ChecksumRequest,
    ) -> Result<rpc::ChecksumResponse> {
        // Another version may have other tables of the system.
        let hash = if request.version == self.version {
            self.database.checksum(&request.namespace, request.entry).await?
        } else {
            None
        };
        let hash = hash.map(|hash| hash.to_vec().into()).unwrap_or_default();
        Ok(rpc::ChecksumResponse { hash })
    }

    /// Answers a call that only nodes make.
    ///
    /// # Errors
    /// `not_leader`; the call's own.
    pub(super) async fn position(
        &self,
        request: &rpc::LeaderPositionRequest,
    ) -> Result<rpc::LeaderPositionResponse> {
        let position = self.database.position(request.confirm).await?;
        Ok(rpc::LeaderPositionResponse { position })
    }

    /// What this node appends while it leads, from now on.
    ///
    /// # Errors
    /// `not_leader`.
    pub(super) fn follow(&self) -> Result<EventSource> {
        let entries = self.database.follow()?;
        Ok(Box::pin(stream::unfold(entries, |mut entries| async move {
            match entries.recv().await {
                Ok(some) => Some((Ok(log_entries_event(&some)), entries)),
                // The follower was too slow: it reads the log, and comes again.
                Err(RecvError::Lagged(_) | RecvError::Closed) => None,
            }
        })))
    }

    /// Copies of the files, for another node.
    ///
    /// # Errors
    /// `not_leader` where the leader's are wanted; as the copying.
    pub(super) async fn send_files(
        &self,
        peer: PeerId,
        request: &rpc::FetchFilesRequest,
    ) -> Result<EventSource> {
        if request.from_leader {
            self.database.position(true).await?;
        }
        let folder = self.copies.join(peer.to_string());
        let folder = TemporaryFolder::create(folder).map_err(|error| {
            tracing::error!(%error, "no folder for copies can be made");
            Error::internal("the files cannot be copied; the node's log has more")
        })?;
        let position = {
            let (node, only_whole) = (peer.to_string(), request.from_leader);
            self.database.copy_files(&node, folder.path(), only_whole).await?
        };
        send_files(folder, position)
    }

    /// The nodes that the log waits for, with what they said last; without a majority, as far as it
    /// is known here.
    async fn holders(&self) -> Option<Vec<(PeerId, u64)>> {
        let said = match self.log.holders(ReadLevel::Weak).await {
            Ok(said) => said,
            Err(_) => self.log.holders(ReadLevel::None).await.ok()?,
        };
        let of = |(node, durable): (String, u64)| Some((node.parse().ok()?, durable));
        Some(said.into_iter().filter_map(of).collect())
    }

    /// The nodes of Raft's cluster, as this node's rqlited knows them.
    ///
    /// # Errors
    /// `unavailable` when it does not answer.
    pub(super) async fn raft_nodes(&self) -> Result<Vec<RaftNode>> {
        self.log
            .client()
            .nodes()
            .await
            .map_err(|error| raft_error("its nodes are not known", &error))
    }

    /// Whether this node's rqlited leads Raft.
    ///
    /// # Errors
    /// `unavailable` when it does not answer.
    pub(super) async fn leads_raft(&self) -> Result<bool> {
        let leads = self.log.client().is_leader().await;
        leads.map_err(|error| raft_error("its leader is not known", &error))
    }

    /// Whether this node's rqlited knows a leader of Raft.
    pub(super) async fn knows_raft_leader(&self) -> bool {
        self.log.client().leader().await.is_ok_and(|leader| leader.is_some())
    }

    /// Takes a node out of Raft: it does not vote any more. The log still waits for it.
    ///
    /// # Errors
    /// `unavailable` when Raft's leader did not confirm it.
    pub(super) async fn remove_from_raft(&self, peer: PeerId) -> Result<()> {
        let removed = self.log.client().remove(&peer.to_string()).await;
        removed
            .map_err(|error| raft_error("the node cannot be taken out of the voters now", &error))
    }

    /// Has this node's rqlited join Raft's cluster again, with a vote or without.
    pub(super) async fn join_raft_again(&self, peers: Vec<String>, non_voter: bool) {
        if let Some(rqlited) = &*self.rqlited.lock().await {
            rqlited.join_again(peers, non_voter, STOP_TIME).await;
        }
    }

    /// Up to which entry each node's files are on its disk, as the nodes said last.
    ///
    /// # Errors
    /// `unavailable` when the log cannot be read.
    pub(super) async fn durable_entries(&self) -> Result<HashMap<PeerId, u64>> {
        let holders = self.log.holders(ReadLevel::Weak).await;
        let holders = holders.map_err(|error| raft_error("the log cannot be read", &error))?;
        Ok(holders.into_iter().filter_map(|(node, at)| Some((node.parse().ok()?, at))).collect())
    }

    /// Lets another node lead, and ends rqlited, which hands over as well. The database is closed
    /// before.
    pub(crate) async fn stop(&self) {
        if let Some(rqlited) = self.rqlited.lock().await.take() {
            rqlited.stop(STOP_TIME).await;
        }
    }
}

#[async_trait]
impl ClusterControl for Replication {
    async fn status(&self) -> ReplicationStatus {
        let status = self.database.status();
        let mut progress: HashMap<_, _> = HashMap::new();
        // What others said last; of this node it is known.
        let said = self.holders().await;
        for (peer, durable) in said.iter().flatten() {
            let lag = Some(status.head.saturating_sub(*durable));
            progress.insert(*peer, ReplicationProgress { applied_entry: Some(*durable), lag });
        }
        let lag = Some(status.head.saturating_sub(status.applied));
        let own = ReplicationProgress { applied_entry: Some(status.applied), lag };
        progress.insert(self.own, own);
        ReplicationStatus {
            leader: status.leader.and_then(|leader| leader.parse().ok()),
            health: Some(self.health()),
            term: Some(status.term),
            progress,
            holders: said.map(|said| said.into_iter().map(|(peer, _)| peer).collect()),
        }
    }

    async fn diagnose(&self) -> Option<rpc::ReplicationDiagnosis> {
        let status = self.database.status();
        let mut found = rpc::ReplicationDiagnosis {
            problem: status.problem.unwrap_or_default(),
            last_entry: status.head,
            log_bytes: self.log.log_bytes().await.unwrap_or_default(),
            max_log_bytes: self.max_log,
            ..Default::default()
        };
        match &*self.rqlited.lock().await {
            None => found.rqlited_state = "stopped".to_owned(),
            Some(rqlited) => {
                let (state, reason) = describe_state(&rqlited.state().borrow());
                (found.rqlited_state, found.rqlited_reason) = (state.to_owned(), reason);
                found.rqlited_restarts = rqlited.restarts();
                found.rqlited_is_version_8 = rqlited.features().loses_rows_on_long_reads();
            }
        }
        Some(found)
    }

    async fn step_down(&self) -> Result<Option<PeerId>> {
        if !self.database.is_leader() {
            let leader = self.database.status().leader.unwrap_or_default();
            return Err(Error::new(
                Code::Unavailable,
                format!("this node does not lead; {leader} does"),
            ));
        }
        // What is under way is finished, and what comes goes to the next leader. The caller may be
        // gone before that leads.
        self.database.step_down();
        let _resumed = ResumedOnDrop(&self.database);
        match &*self.rqlited.lock().await {
            Some(rqlited) => rqlited.hand_over(),
            None => return Err(Error::new(Code::Unavailable, "the node is stopping")),
        }
        let until = Instant::now() + HAND_OVER_TIME;
        let own = self.own.to_string();
        loop {
            let leader = self.database.status().leader.filter(|leader| *leader != own);
            if leader.is_some() || Instant::now() >= until {
                return Ok(leader.and_then(|leader| leader.parse().ok()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn remove_holder(&self, peer: PeerId) -> Result<()> {
        self.remove_from_raft(peer).await?;
        self.database.forget_holder(&peer.to_string()).await
    }
}

fn raft_error(what: &str, error: &ClientError) -> Error {
    Error::new(Code::Unavailable, format!("{what}: {error}"))
}

/// Lets a database lead again, however the step down ends.
struct ResumedOnDrop<'d>(&'d ClusterDatabase);

impl Drop for ResumedOnDrop<'_> {
    fn drop(&mut self) {
        self.0.resume();
    }
}

/// Starts rqlited, and waits until a majority of the cluster's nodes answers.
///
/// # Errors
/// [`ReplicationStartError`].
pub(crate) async fn start_rqlited(
    config: &NodeConfig,
    own: PeerId,
    keyring: &Keyring,
    state: &LocalState,
) -> std::result::Result<Rqlited, ReplicationStartError> {
    let rqlited = Rqlited::start(rqlited_config(config, own, keyring, state)?).await?;
    wait_for_majority(&rqlited).await;
    Ok(rqlited)
}

async fn wait_for_majority(rqlited: &Rqlited) {
    let began = Instant::now();
    while !rqlited.wait_serving(WAIT_LOGGED).await {
        let (waited_s, state) = (began.elapsed().as_secs(), rqlited.state().borrow().clone());
        tracing::warn!(
            waited_s,
            ?state,
            "the node waits for a majority of the cluster's voting nodes"
        );
    }
}

/// Has another node lead Raft when this one does: its database cannot lead.
pub(super) async fn hand_over_if_leading(log: &RqliteLog, rqlited: &Rqlited) {
    if matches!(log.client().is_leader().await, Ok(true)) {
        tracing::warn!("this node's files cannot lead: another node is to");
        rqlited.hand_over();
        // It ends, and another node is elected.
        tokio::time::sleep(HAND_OVER_PAUSE).await;
    }
}

pub(super) fn rqlited_config(
    config: &NodeConfig,
    own: PeerId,
    keyring: &Keyring,
    state: &LocalState,
) -> std::result::Result<RqlitedConfig, ReplicationStartError> {
    let program = debros_rqlite::find_program(config.cluster.rqlited.as_deref())?;
    let data_dir = config.data_dir.join("rqlite");
    std::fs::create_dir_all(&data_dir).map_err(|error| {
        ReplicationStartError::Config(format!("{}: {error}", data_dir.display()))
    })?;
    let mut rqlited = RqlitedConfig::alone(program, data_dir.clone(), own.to_string());
    rqlited.raft = config.cluster.raft_listen;
    rqlited.raft_advertise = Some(config.cluster.raft_address.parse().map_err(|_| {
        let address = &config.cluster.raft_address;
        ReplicationStartError::Config(format!(
            "the Raft address \"{address}\" is no IP address with a port: set discovery.raft_adv_address"
        ))
    })?);
    rqlited.http = config.cluster.rqlite_http;
    rqlited.non_voter = state.non_voter;
    rqlited.join.clone_from(&state.raft_peers);
    let key = keyring.current().derive("raft");
    rqlited.tls = Some(certificates::write(&key, &[], &data_dir)?);
    rqlited.join_password = Some(certificates::join_password(&key));
    Ok(rqlited)
}

/// The state's name, and why rqlited is started again.
fn describe_state(state: &RqlitedState) -> (&'static str, String) {
    match state {
        RqlitedState::Starting => ("starting", String::new()),
        RqlitedState::Serving => ("serving", String::new()),
        RqlitedState::Restarting { reason, .. } => ("restarting", reason.clone()),
        RqlitedState::Stopped => ("stopped", String::new()),
    }
}
