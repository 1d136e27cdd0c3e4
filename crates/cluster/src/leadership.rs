//! Follows the leader, and becomes it when rqlite's own leader is here.

use crate::catch_up::{CatchUp, CatchUpError};
use crate::copy_need::{CopyNeeds, CopyReason};
use crate::errors::log_error;
use crate::leader_link::{CommittedEntries, LeaderLink};
use crate::progress::{LEASE, Progress};
use debros_rqlite::{ClientError, ReadLevel, RqliteLog};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How often it is asked who leads.
const ASK_INTERVAL: Duration = Duration::from_millis(100);
/// How often the own rqlite's log is read when the leader sends nothing.
const READ_INTERVAL: Duration = Duration::from_millis(250);
/// A node whose rqlited leads Raft, and which fails to take the lead for so long and more than once,
/// keeps the others from leading.
const UNFIT_AFTER: Duration = Duration::from_secs(3);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_millis(200);
/// How often rqlited is started again because its copy of the log lacks entries. What does not come
/// back then is not there: its vote is worth more than more attempts.
const MAX_REPAIRS: u32 = 2;
/// How long a node whose data differs from the others' lets them lead.
const DIFFERING_WAIT: Duration = Duration::from_secs(30);
/// How often in a row an entry is refused before the file is called the wrong one: a disk may fail
/// for a moment.
const MISFITS: u32 = 5;

/// What this node's task of following and leading needs.
pub(crate) struct Leadership {
    pub(crate) node: String,
    pub(crate) log: RqliteLog,
    pub(crate) link: Arc<dyn LeaderLink>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) catch_up: CatchUp,
    /// Why the files here cannot be brought to the log.
    pub(crate) problem: watch::Sender<Option<String>>,
    /// Whether the files here have to be replaced.
    pub(crate) needs: Arc<CopyNeeds>,
    /// How often in a row an entry did not fit.
    pub(crate) misfits: u32,
    /// The own rqlite's log was applied once.
    pub(crate) caught_up: watch::Sender<bool>,
    /// This node is about to stop, and lets another lead.
    pub(crate) declines: Arc<AtomicBool>,
    /// Another node has led since this one did, also when this one has claimed meanwhile.
    pub(crate) another_led: bool,
    pub(crate) fitness: Fitness,
    /// The own rqlite's copy of the log lacks entries.
    pub(crate) is_damaged: bool,
    /// How often rqlited was started again because of that.
    pub(crate) repairs: u32,
    /// Since when another one is to lead, because the data here differs from the others'.
    pub(crate) withheld: Option<Instant>,
}

/// Whether this node can lead when it has to, because its own rqlited leads Raft, and whether that
/// has a whole copy of the log.
pub(crate) struct Fitness {
    is_unfit: watch::Sender<bool>,
    /// When the first of the attempts began that have all failed, and how many they are.
    failing: Option<(Instant, u32)>,
}

impl Fitness {
    pub(crate) fn new() -> (Self, watch::Receiver<bool>) {
        let (is_unfit, observed) = watch::channel(false);
        (Self { is_unfit, failing: None }, observed)
    }

    /// It failed to take the lead, in an attempt that began then. True: it counts as unfit since now.
    fn note_failure(&mut self, began: Instant) -> bool {
        let (since, count) = self.failing.unwrap_or((began, 0));
        self.failing = Some((since, count + 1));
        self.set(count > 0 && since.elapsed() >= UNFIT_AFTER)
    }

    /// It leads, or need not.
    fn note_fit(&mut self) {
        self.failing = None;
        self.set(false);
    }

    fn set(&self, is_unfit: bool) -> bool {
        self.is_unfit.send_if_modified(|was| std::mem::replace(was, is_unfit) != is_unfit)
            && is_unfit
    }
}

impl Leadership {
    /// Goes on until the task is ended.
    pub(crate) async fn run(mut self) {
        let mut following = Following::default();
        let mut asked = None::<Instant>;
        loop {
            if asked.is_none_or(|at| at.elapsed() >= ASK_INTERVAL) {
                asked = Some(Instant::now());
                self.look_who_leads().await;
            }
            if self.needs.is_stuck() {
                // A new copy comes, and another node leads until then.
                self.progress.note_stuck();
                tokio::time::sleep(ASK_INTERVAL).await;
                continue;
            }
            if self.progress.is_leader() {
                following = Following::default();
                tokio::time::sleep(ASK_INTERVAL).await;
                continue;
            }
            self.connect(&mut following).await;
            let began = Instant::now();
            let outcome = self.follow(&mut following).await;
            self.is_damaged = matches!(outcome, Err(CatchUpError::Damaged { .. }));
            if let Err(error) = outcome {
                self.note_failure(&error);
                if self.is_damaged && self.repairs < MAX_REPAIRS {
                    self.repairs += u32::from(self.fitness.note_failure(began));
                }
                tokio::time::sleep(PAUSE).await;
            } else if let Some((error, attempts)) = self.catch_up.failure() {
                self.note_problem(&error, attempts);
            }
        }
    }

    async fn look_who_leads(&mut self) {
        match self.log.client().is_leader().await {
            Ok(true) if !self.progress.is_leader() && self.may_lead() => {
                let began = Instant::now();
                match self.claim().await {
                    Ok(()) => self.fitness.note_fit(),
                    Err(error) => {
                        self.note_failure(&error);
                        self.fitness.note_failure(began);
                    }
                }
                return;
            }
            // It keeps the others from leading.
            Ok(true) if !self.progress.is_leader() => {
                self.fitness.note_failure(Instant::now());
            }
            // Another may have claimed. What was mended by a restart shows when the log is read.
            Ok(_) if !self.is_damaged || self.repairs >= MAX_REPAIRS => self.fitness.note_fit(),
            Ok(_) => {}
            Err(error) => return tracing::debug!(%error, "rqlited does not answer"),
        }
        match self.log.leadership(ReadLevel::None).await {
            Ok(now) if now.node != self.node => self.progress.follow(now.term, &now.node),
            // This node led when it ended, or is about to claim.
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "rqlited does not say who leads"),
        }
    }

    fn may_lead(&mut self) -> bool {
        if self.declines.load(SeqCst) || self.needs.is_stuck() {
            return false;
        }
        if self.needs.get().is_none() {
            self.withheld = None;
            return true;
        }
        // Its data is not what the others have: it leads only when no other does.
        self.withheld.get_or_insert_with(Instant::now).elapsed() >= DIFFERING_WAIT
    }

    /// Takes the lead: nobody appends under an earlier term from then on, so the log has an end,
    /// and the files are brought to it.
    async fn claim(&mut self) -> Result<(), CatchUpError> {
        // A node whose files cannot be brought to the log must not end the term of one whose can.
        self.catch_up.apply_copy().await?;
        let asked = Instant::now();
        let before = self.log.leadership(ReadLevel::Strong).await.map_err(failed)?;
        // The own copy is the log from now on: what it lacks would be lost.
        self.check_copy(ReadLevel::Strong, self.progress.taken()).await?;
        self.another_led |= before.term > 0 && before.node != self.node;
        let term = loop {
            match self.log.claim(&self.node, before.term).await {
                Ok(term) => break term,
                Err(ClientError::Unknown(reason)) if asked.elapsed() < PAUSE * 10 => {
                    tracing::debug!(reason, "a claim is repeated");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(failed(error)),
            }
        };
        let Some(term) = term else { return Ok(()) };
        let confirmed = Instant::now();
        // The read is after the claim in Raft's order, so what is there then is all there is.
        let last = self.log.last_entry(ReadLevel::Strong).await.map_err(failed)?;
        if !self.catch_up.apply_to_end(term, last).await? {
            return Ok(());
        }
        self.note_success();
        self.needs.withdraw();
        // The node that led may read on its own until its lease ends, and no confirmation of its
        // place is later than the claim. That Raft has elected another leader shows nothing: an
        // rqlited that ends in order hands over at once, and one that leads no more passes appends
        // on.
        if std::mem::take(&mut self.another_led) {
            tokio::time::sleep_until((confirmed + LEASE).into()).await;
        }
        self.progress.begin_leading(term, &self.node, last, confirmed);
        tracing::info!(
            term,
            entry = last,
            took_ms = asked.elapsed().as_millis() as u64,
            "this node leads the cluster's database"
        );
        metrics::counter!("debros_cluster_terms_led_total").increment(1);
        Ok(())
    }

    /// Whether the own rqlite's copy of the log has all that surely was in the log: up to `known`,
    /// and up to what any node has made durable.
    async fn check_copy(&self, level: ReadLevel, known: u64) -> Result<(), CatchUpError> {
        let (last, durable) = self.log.last_and_durable(level).await.map_err(failed)?;
        if last < known.max(durable) { Err(CatchUpError::Damaged { last }) } else { Ok(()) }
    }

    /// Has the leader send what it appends.
    async fn connect(&self, following: &mut Following) {
        let leader = self.progress.leader().filter(|leader| *leader != self.node);
        if following.leader != leader {
            *following = Following { leader: leader.clone(), ..Following::default() };
        }
        let may_try = following.tried.is_none_or(|at| at.elapsed() >= PAUSE);
        if following.entries.is_none()
            && may_try
            && let Some(leader) = leader
        {
            following.tried = Some(Instant::now());
            match self.link.follow(&leader).await {
                Ok(entries) => following.entries = Some(entries),
                Err(error) => {
                    tracing::debug!(leader, error = error.message, "the leader cannot be followed")
                }
            }
        }
    }

    /// Applies what the leader sends next, or what the own rqlite has when it sends nothing.
    async fn follow(&mut self, following: &mut Following) -> Result<(), CatchUpError> {
        if following.must_read {
            self.catch_up.read_to_end(ReadLevel::None).await?;
            self.check_copy(ReadLevel::None, 0).await?;
            self.note_success();
            following.must_read = false;
            following.read = Some(Instant::now());
        }
        let Some(entries) = &mut following.entries else {
            tokio::time::sleep(READ_INTERVAL / 5).await;
            following.must_read = true;
            return Ok(());
        };
        match tokio::time::timeout(ASK_INTERVAL, entries.recv()).await {
            Ok(Some(entries)) => {
                following.must_read = !self.catch_up.take(&entries).await?;
                // What came after something that is missing makes nothing here newer.
                if !following.must_read {
                    self.note_success();
                    self.progress.note_contact(Instant::now());
                }
            }
            Ok(None) => following.entries = None,
            Err(_) => {
                following.must_read = following.read.is_none_or(|at| at.elapsed() >= READ_INTERVAL);
            }
        }
        Ok(())
    }

    /// The log could be read; the files may still not take what is in it.
    fn note_success(&mut self) {
        self.misfits = 0;
        if self.catch_up.failure().is_none() {
            self.problem.send_if_modified(|problem| problem.take().is_some());
        }
        if self.catch_up.is_applied() {
            self.caught_up.send_if_modified(|is| !std::mem::replace(is, true));
        }
    }

    fn note_failure(&mut self, error: &CatchUpError) {
        if matches!(error, CatchUpError::Misfit(_)) {
            self.misfits += 1;
        }
        self.note_problem(error, self.misfits);
    }

    /// What keeps the files from the log, and how often that was met in a row.
    fn note_problem(&self, error: &CatchUpError, attempts: u32) {
        let message = error.to_string();
        match error {
            CatchUpError::TooOld { .. } => {
                self.needs.request(CopyReason::LogCut, message.clone());
            }
            CatchUpError::Misfit(_) if attempts >= MISFITS => {
                self.needs.request(CopyReason::EntryMisfit, message.clone());
            }
            CatchUpError::Misfit(_) | CatchUpError::Damaged { .. } | CatchUpError::Failed(_) => {}
        }
        let is_new = self.problem.borrow().as_deref() != Some(&message);
        if is_new {
            tracing::warn!(
                error = message,
                "the node's database does not follow the cluster's log"
            );
            self.problem.send_replace(Some(message));
        }
    }
}

/// What is known of the leader that is followed.
struct Following {
    leader: Option<String>,
    entries: Option<mpsc::Receiver<CommittedEntries>>,
    tried: Option<Instant>,
    read: Option<Instant>,
    /// Something may be in the log that the leader did not send.
    must_read: bool,
}

impl Default for Following {
    fn default() -> Self {
        Self { leader: None, entries: None, tried: None, read: None, must_read: true }
    }
}

fn failed(error: ClientError) -> CatchUpError {
    CatchUpError::Failed(log_error(&error))
}
