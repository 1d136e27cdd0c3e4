//! What a read waits for, so that it sees what its consistency promises.

use crate::errors::not_leader_error;
use crate::leader_link::LeaderLink;
use crate::progress::Progress;
use debros_engine::TargetDatabase;
use debros_proto::rpc::Consistency;
use debros_proto::{Code, Error, Result};
use debros_rqlite::{ReadLevel, RqliteLog};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// The pause before the leader is asked again, when there is none.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest wait for a leader, whatever time the caller has.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The system's tables may be so old on a node that others can be cut off from.
const MAX_SYSTEM_AGE: Duration = Duration::from_secs(1);

/// Waits before reads.
pub(crate) struct ReadBarrier {
    node: String,
    progress: Arc<Progress>,
    log: RqliteLog,
    link: Arc<dyn LeaderLink>,
    /// Held while the cluster is asked; those that wait for it share the next answer.
    confirming: Mutex<()>,
    is_serving: AtomicBool,
    /// The same for the leader's position, with what was answered last, and when it was asked.
    asking: [Mutex<Option<(Instant, u64)>>; 2],
}

impl ReadBarrier {
    pub(crate) fn new(
        node: String,
        progress: Arc<Progress>,
        log: RqliteLog,
        link: Arc<dyn LeaderLink>,
    ) -> Self {
        Self {
            node,
            progress,
            log,
            link,
            confirming: Mutex::default(),
            is_serving: AtomicBool::new(false),
            asking: [Mutex::default(), Mutex::default()],
        }
    }

    /// Returns when a read of a database's file here sees what a read of this consistency has to.
    /// `None`: of any.
    ///
    /// # Errors
    /// `unavailable` when the cluster does not say in time what that is.
    pub(crate) async fn wait(
        &self,
        database: Option<&TargetDatabase>,
        consistency: Consistency,
        deadline: Instant,
    ) -> Result<()> {
        let confirm = match consistency {
            Consistency::None => return self.wait_replaced(database, deadline).await,
            Consistency::Weak => false,
            Consistency::Linearizable | Consistency::Strong => true,
        };
        if !confirm && self.progress.has_lease() && self.progress.is_up_to_date(database) {
            return Ok(());
        }
        let until = deadline.min(Instant::now() + MAX_WAIT);
        let wait = self.wait_for_leader(database, confirm);
        match tokio::time::timeout_at(until.into(), wait).await {
            Ok(()) => Ok(()),
            Err(_) => Err(no_leader_error()),
        }
    }

    /// What is there may be an earlier owner's, when an entry is here that takes it away and is not
    /// applied.
    async fn wait_replaced(
        &self,
        database: Option<&TargetDatabase>,
        deadline: Instant,
    ) -> Result<()> {
        let Some(database) = database else { return Ok(()) };
        let until = deadline.min(Instant::now() + MAX_WAIT);
        let wait = self.progress.wait_replaced(database);
        tokio::time::timeout_at(until.into(), wait).await.map_err(|_| {
            let what = "the database is being removed or replaced on this node; try again";
            Error::new(Code::Unavailable, what).retry_after(Duration::from_secs(1))
        })
    }

    /// As [`wait`](ReadBarrier::wait), for the system's tables: who may do what.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn wait_for_system(&self, deadline: Instant) -> Result<()> {
        if !self.is_serving.load(Relaxed) {
            return Ok(());
        }
        let system = &TargetDatabase::System;
        if self.progress.age_of(system).is_some_and(|age| age < MAX_SYSTEM_AGE) {
            return Ok(());
        }
        self.wait(Some(system), Consistency::Weak, deadline).await
    }

    /// See [`ClusterDatabase::begin_serving`](crate::ClusterDatabase::begin_serving).
    pub(crate) fn begin_serving(&self) {
        self.is_serving.store(true, Relaxed);
    }

    async fn wait_for_leader(&self, database: Option<&TargetDatabase>, confirm: bool) {
        loop {
            let asked = Instant::now();
            match self.position(confirm).await {
                Ok(position) => {
                    self.progress.wait_applied(database, position).await;
                    // As recent as the question is only what has all that was there then.
                    if self.progress.is_applied(Some(&TargetDatabase::System), position) {
                        self.progress.note_contact(asked);
                    }
                    return;
                }
                Err(error) => {
                    tracing::debug!(error = error.message, "no leader answers");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// The number of the last entry that a read has to see: of the leader, which may be this node.
    async fn position(&self, confirm: bool) -> Result<u64> {
        if self.progress.is_leader() {
            return self.own_position(confirm).await;
        }
        let leader = self.progress.leader().ok_or_else(no_leader_error)?;
        if leader == self.node {
            return Err(no_leader_error());
        }
        let came = Instant::now();
        let mut last = self.asking[usize::from(confirm)].lock().await;
        if let Some((asked, position)) = *last
            && asked >= came
        {
            return Ok(position);
        }
        let asked = Instant::now();
        // The node that led may be gone without a word.
        let position = tokio::select! {
            position = self.link.position(&leader, confirm) => position?,
            () = self.progress.wait_for_other_leader(&leader) => return Err(no_leader_error()),
        };
        *last = Some((asked, position));
        Ok(position)
    }

    /// The number of the last entry, when this node certainly leads.
    ///
    /// # Errors
    /// `not_leader` when it does not, or that cannot be found out.
    pub(crate) async fn own_position(&self, confirm: bool) -> Result<u64> {
        let came = Instant::now();
        if !self.progress.is_leader() {
            return Err(not_leader_error());
        }
        if confirm || !self.progress.has_lease() {
            let _alone = self.confirming.lock().await;
            if !self.progress.is_confirmed_since(came) {
                let asked = Instant::now();
                let term = self.progress.term();
                let now = self.log.leadership(ReadLevel::Strong).await.map_err(|error| {
                    tracing::debug!(%error, "the cluster does not say who leads");
                    no_leader_error()
                })?;
                if now.term != term || now.node != self.node {
                    self.progress.follow(now.term, &now.node);
                    return Err(not_leader_error());
                }
                self.progress.note_confirmed(asked);
            }
        }
        let head = self.progress.head();
        if self.progress.is_leader() { Ok(head) } else { Err(not_leader_error()) }
    }
}

fn no_leader_error() -> Error {
    Error::new(
        Code::Unavailable,
        "the node cannot reach the cluster's leader: it may be cut off, or an election is under way; a read with consistency \
         \"none\" is answered with what the node has",
    )
    .retry_after(Duration::from_secs(1))
}
