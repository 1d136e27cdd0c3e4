//! The database of a node that is part of a cluster: its engine, its log, and the tasks between
//! them.

use crate::catch_up::CatchUp;
use crate::comparison::{Comparison, DatabaseDifference, Differences, broken_off, hash};
use crate::copy_need::{CopyNeed, CopyNeeds};
use crate::database_name::database_of;
use crate::durability::Durability;
use crate::engine::ClusterEngine;
use crate::errors::{log_error, not_leader_error};
use crate::leader_link::{CommittedEntries, LeaderLink};
use crate::leader_service::serve_write;
use crate::leadership::{Fitness, Leadership};
use crate::local_state::{LocalState, LocalStateError, SharedLocalState};
use crate::log_writer::LogWriter;
use crate::progress::Progress;
use crate::read_barrier::ReadBarrier;
use crate::write_route::WriteRoute;
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine, EngineOpenError};
use debros_proto::rpc::{LeaderWriteRequest, LeaderWriteResponse};
use debros_proto::{Code, Error, Result};
use debros_rqlite::RqliteLog;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

/// What a node's database is started with.
pub struct ClusterConfig {
    /// The node's name in the log: its peer id.
    pub node: String,
    /// The engine's settings. Its folder belongs to the cluster that `state` names.
    pub engine: EmbeddedConfig,
    /// What the node knows of that folder.
    pub state: LocalState,
    /// Bytes of the log from which on a node that is away is not waited for (256 MiB).
    pub max_log: u64,
    /// Within this time each database is compared once with the leader's.
    pub compare_interval: Duration,
}

/// How a node's database stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The node that leads; `None`: not known, as during an election.
    pub leader: Option<String>,
    /// How often the lead was taken so far.
    pub term: u64,
    /// The last entry that is in the files here.
    pub applied: u64,
    /// The last entry that this node knows to be in the log.
    pub head: u64,
    /// How old what is here may be, at most; `None`: nothing was heard of a leader yet.
    pub age: Option<Duration>,
    /// Why the files here cannot be brought to the log.
    pub problem: Option<String>,
    /// Databases that are others here than on other nodes, by the last comparison.
    pub differences: Vec<DatabaseDifference>,
}

/// The database of a node, while the node runs.
pub struct ClusterDatabase {
    engine: Arc<ClusterEngine>,
    writer: Arc<LogWriter>,
    progress: Arc<Progress>,
    barrier: Arc<ReadBarrier>,
    log: RqliteLog,
    problem: watch::Receiver<Option<String>>,
    is_registered: watch::Receiver<bool>,
    is_unfit: watch::Receiver<bool>,
    caught_up: watch::Receiver<bool>,
    needs: Arc<CopyNeeds>,
    differences: Arc<Differences>,
    /// Held while a database is read for another node's comparison.
    comparing: tokio::sync::Mutex<()>,
    declines: Arc<AtomicBool>,
    state: Arc<SharedLocalState>,
    tasks: Vec<JoinHandle<()>>,
}

impl ClusterDatabase {
    /// Opens the engine and begins to follow the log. Blocks as the engine's opening does; to be
    /// called within a runtime. The log's tables are there.
    ///
    /// # Errors
    /// [`EngineOpenError`].
    pub fn start(
        config: ClusterConfig,
        log: RqliteLog,
        link: Arc<dyn LeaderLink>,
    ) -> Result<Self, EngineOpenError> {
        let progress = Arc::new(Progress::new(config.state.durable));
        let writer = Arc::new(LogWriter::new(Arc::clone(&progress)));
        let folder = config.engine.data_dir.clone();
        let state = Arc::new(SharedLocalState::new(folder, config.state));
        let embedded =
            Arc::new(EmbeddedEngine::open_replicated(config.engine, Arc::clone(&writer) as _)?);
        let barrier = Arc::new(ReadBarrier::new(
            config.node.clone(),
            Arc::clone(&progress),
            log.clone(),
            Arc::clone(&link),
        ));
        let route = WriteRoute::new(config.node.clone(), Arc::clone(&progress), Arc::clone(&link));
        let (registered, is_registered) = watch::channel(false);
        let (problem, problems) = watch::channel(None);
        let (caught_up, caught) = watch::channel(false);
        let declines = Arc::<AtomicBool>::default();
        let (fitness, is_unfit) = Fitness::new();
        let (needs, differences) = (Arc::<CopyNeeds>::default(), Arc::<Differences>::default());
        let comparison = Comparison {
            node: config.node.clone(),
            engine: Arc::clone(&embedded),
            log: log.clone(),
            link: Arc::clone(&link),
            progress: Arc::clone(&progress),
            interval: config.compare_interval,
            differences: Arc::clone(&differences),
            needs: Arc::clone(&needs),
        };
        let leadership = Leadership {
            node: config.node.clone(),
            log: log.clone(),
            link,
            progress: Arc::clone(&progress),
            catch_up: CatchUp::new(Arc::clone(&embedded), log.clone(), Arc::clone(&progress)),
            problem,
            needs: Arc::clone(&needs),
            misfits: 0,
            caught_up,
            declines: Arc::clone(&declines),
            another_led: false,
            fitness,
            is_damaged: false,
            repairs: 0,
            withheld: None,
        };
        let durability = Durability {
            node: config.node,
            state: Arc::clone(&state),
            engine: Arc::clone(&embedded),
            log: log.clone(),
            progress: Arc::clone(&progress),
            registered,
            max_log: config.max_log,
        };
        let mut tasks = vec![
            tokio::spawn(leadership.run()),
            tokio::spawn(durability.run()),
            tokio::spawn(comparison.run()),
        ];
        tasks.extend(writer.start(log.clone()));
        let engine = Arc::new(ClusterEngine::new(
            embedded,
            Arc::clone(&progress),
            Arc::clone(&barrier),
            route,
        ));
        Ok(Self {
            engine,
            writer,
            progress,
            barrier,
            log,
            problem: problems,
            is_registered,
            is_unfit,
            caught_up: caught,
            needs,
            differences,
            comparing: tokio::sync::Mutex::default(),
            declines,
            state,
            tasks,
        })
    }

    /// The engine, for the node's services.
    pub fn engine(&self) -> Arc<ClusterEngine> {
        Arc::clone(&self.engine)
    }

    /// Whether this node leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.progress.is_leader()
    }

    /// How it stands.
    pub fn status(&self) -> ClusterStatus {
        ClusterStatus {
            leader: self.progress.leader(),
            term: self.progress.term(),
            applied: self.progress.applied(),
            head: self.progress.head(),
            age: self.progress.age(),
            problem: self.problem.borrow().clone(),
            differences: self.differences.list(),
        }
    }

    /// What the node knows of its files, as it is on the disk.
    pub fn local_state(&self) -> LocalState {
        self.state.get()
    }

    /// Keeps how rqlited takes part in Raft when it starts the next time: whether without a vote,
    /// and where the other nodes are.
    ///
    /// # Errors
    /// [`LocalStateError`]: then what was kept before holds.
    pub fn keep_raft_membership(
        &self,
        non_voter: bool,
        raft_peers: Vec<String>,
    ) -> std::result::Result<(), LocalStateError> {
        self.state.update(|state| {
            state.non_voter = non_voter;
            state.raft_peers = raft_peers;
        })
    }

    /// Waits until the log waits for this node, and the node knows a leader and has applied all that
    /// was in the log when this was called. False: not within the time.
    pub async fn wait_ready(&self, within: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + within;
        let consistency = debros_proto::rpc::Consistency::Linearizable;
        let mut registered = self.is_registered.clone();
        let is_registered = matches!(
            tokio::time::timeout_at(deadline, registered.wait_for(|is| *is)).await,
            Ok(Ok(_))
        );
        if !is_registered {
            return false;
        }
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                return false;
            }
            if self
                .barrier
                .wait(None, consistency, (tokio::time::Instant::now() + left).into())
                .await
                .is_ok()
            {
                return true;
            }
        }
    }

    /// Why the files here have to be replaced by a copy of the leader's; `None`: they do not.
    pub fn copy_need(&self) -> Option<CopyNeed> {
        self.needs.get()
    }

    /// Waits until the files here have to be replaced by a copy of the leader's, and says why.
    pub async fn wait_copy_need(&self) -> CopyNeed {
        let mut needs = self.needs.subscribe();
        let need = needs.wait_for(Option::is_some).await.ok().and_then(|need| need.clone());
        match need {
            Some(need) => need,
            // The sender lives as long as this.
            None => std::future::pending().await,
        }
    }

    /// Waits until the own rqlite's log was applied once, at most so long.
    pub async fn wait_caught_up(&self, within: Duration) {
        let mut caught_up = self.caught_up.clone();
        // The sender goes only with the task, whose end nobody waits for.
        let _ = tokio::time::timeout(within, caught_up.wait_for(|is| *is)).await;
    }

    /// Answers [`LeaderLink::checksum`] for another node.
    ///
    /// # Errors
    /// `overloaded` while another one is answered; as [`EmbeddedEngine::snapshot`].
    pub async fn checksum(&self, database: &str, entry: u64) -> Result<Option<[u8; 32]>> {
        let database = database_of(database)?;
        let Ok(_alone) = self.comparing.try_lock() else {
            return Err(Error::new(Code::Overloaded, "the node compares another database now"));
        };
        let engine = Arc::clone(self.engine.local());
        let taken = tokio::task::spawn_blocking(move || engine.snapshot(&database)).await;
        match taken.unwrap_or_else(|error| Err(broken_off(&error)))? {
            Some(snapshot) if snapshot.position() == entry => hash(snapshot).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Answers [`LeaderLink::position`] for another node.
    ///
    /// # Errors
    /// `not_leader`.
    pub async fn position(&self, confirm: bool) -> Result<u64> {
        self.barrier.own_position(confirm).await
    }

    /// Answers [`LeaderLink::write`] for another node, which may do so.
    ///
    /// # Errors
    /// `not_leader`; the write's own.
    pub async fn serve_write(
        &self,
        request: LeaderWriteRequest,
        deadline: Instant,
    ) -> Result<LeaderWriteResponse> {
        serve_write(self.engine.local(), &self.progress, request, deadline).await
    }

    /// Answers [`LeaderLink::follow`] for another node.
    ///
    /// # Errors
    /// `not_leader`.
    pub fn follow(&self) -> Result<broadcast::Receiver<CommittedEntries>> {
        if self.progress.is_leader() { Ok(self.writer.follow()) } else { Err(not_leader_error()) }
    }

    /// Copies the files into a new folder for another node, which the log waits for from now on.
    /// Returns an entry: what the log has up to it is in the copies. A database that is damaged here
    /// is left out, or refuses the whole with `only_whole`: a node that has data must not lose more
    /// than it has lost.
    ///
    /// # Errors
    /// `unavailable` when the log does not answer; `corrupt` for a damaged database; what the
    /// copying meets.
    pub async fn copy_files(&self, node: &str, target: &Path, only_whole: bool) -> Result<u64> {
        let position = self.progress.applied();
        self.log.forget_holder(node).await.map_err(|error| log_error(&error))?;
        let reported = self.log.report_durable(node, position).await;
        reported.map_err(|error| log_error(&error))?;
        let (engine, target) = (Arc::clone(self.engine.local()), target.to_owned());
        let copied = tokio::task::spawn_blocking(move || engine.copy_files(&target)).await;
        let damaged = copied.unwrap_or_else(|error| {
            tracing::error!(%error, "the files could not be copied");
            Err(Error::internal("the files could not be copied; the node's log has more"))
        })?;
        match damaged.first().filter(|_| only_whole) {
            Some(namespace) => Err(Error::new(
                Code::Corrupt,
                format!(
                    "the leader's own database of \"{namespace}\" is damaged: nothing is copied from it"
                ),
            )),
            None => Ok(position),
        }
    }

    /// The log waits for this node no more.
    ///
    /// # Errors
    /// `unavailable` when the log does not answer.
    pub async fn forget_holder(&self, node: &str) -> Result<()> {
        self.log.forget_holder(node).await.map_err(|error| log_error(&error))
    }

    /// From now on who may do what is read as recent as other data; until then, while the node
    /// starts, it is read as it is here.
    pub fn begin_serving(&self) {
        self.barrier.begin_serving();
    }

    /// Does not take the lead any more; where this node leads, it goes on.
    pub fn decline_lead(&self) {
        self.declines.store(true, SeqCst);
    }

    /// Leads no more, and does not take the lead again: the node is about to stop.
    pub fn step_down(&self) {
        self.decline_lead();
        self.progress.step_down();
    }

    /// Whether rqlited has to be started again. This node fails to lead again and again, although
    /// its rqlited leads Raft, because its disk is full, say: nobody can lead until that hands over.
    /// Or rqlited's copy of the log lacks entries: when it starts, it applies Raft's log anew, from
    /// its last snapshot on.
    pub fn is_unfit(&self) -> watch::Receiver<bool> {
        self.is_unfit.clone()
    }

    /// May take the lead again.
    pub fn resume(&self) {
        self.declines.store(false, SeqCst);
    }
}

impl Drop for ClusterDatabase {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
