//! The thread that writes one file: what waits is run in one transaction, and all are answered
//! after its COMMIT.
//!
//! A failure is its caller's alone. SQLite undoes a failing statement, and a savepoint undoes a
//! failing job. But some failures take the whole transaction down (`ON CONFLICT ROLLBACK`, an
//! interrupted write, a full disk): then the others of the group run again without the one that did
//! it, and are committed before the rest goes on.

mod group_commit;
mod write_ahead_log;

pub(super) use group_commit::map_append_error;
pub(super) use write_ahead_log::checkpoint_truncate as empty_log;

use super::disk_reserve::{DiskReserve, disk_full_error};
use super::error_mapping;
use super::fair_queue::{FairQueue, FlowId};
use super::file_identity;
use super::job::{JobIsolation, JobOutcome, WriteJob};
use super::metrics::EngineMetrics;
use super::reader_pool::ReaderPool;
use super::size_accounting::{SizeAccounting, SpaceExhausted};
use super::writer_conn::WriterConnection;
use crate::ReplicatedLog;
use debros_proto::{Code, Error, Namespace};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use write_ahead_log::WriteAheadLog;

/// Jobs in one group.
const GROUP_COUNT: usize = 1000;
/// Bytes in one group, as the queue counts them: about those of the largest value, so that a caller
/// that comes meanwhile waits for no more than that.
const GROUP_BYTES: usize = 4 << 20;
/// How long a group runs before it is committed for others: those in it that wait for their
/// answers, and those that came meanwhile.
const GROUP_TIME: Duration = Duration::from_millis(20);
/// A group runs so many times longer than a commit takes, so that a slow disk commits no more often
/// than it can.
const TIMES_THE_COMMIT: u32 = 8;
/// The longest that a slow commit makes of it.
const MOST_GROUP_TIME: Duration = Duration::from_millis(200);

/// What the writer thread works with.
pub(super) struct WriterThread {
    conn: WriterConnection,
    queue: Arc<FairQueue<WriteJob>>,
    sizes: Arc<SizeAccounting>,
    metrics: Arc<EngineMetrics>,
    readers: Arc<ReaderPool>,
    path: PathBuf,
    log: WriteAheadLog,
    page_size: u64,
    /// Bytes of the file as of the last commit.
    size: u64,
    /// How long a group runs when others wait.
    group_time: Duration,
    /// Whose job ran last.
    last_flow: FlowId,
    /// What `PRAGMA max_page_count` was set to; `None`: nothing that is known.
    max_pages: Option<u64>,
    /// The namespace whose file it is; `None`: the system's.
    owner: Option<Namespace>,
    reserve: Arc<DiskReserve>,
    /// The cluster's log, which has a transaction before the file does.
    replicated_log: Option<Arc<dyn ReplicatedLog>>,
}

/// What the files of all databases may take.
#[derive(Clone, Debug)]
pub(super) struct FileLimits {
    pub(super) sizes: Arc<SizeAccounting>,
    /// Disk space for deletes.
    pub(super) reserve: Arc<DiskReserve>,
    /// Bytes of this file's log.
    pub(super) max_log: u64,
}

/// No caller waits for a thread that is gone.
struct AbandonOnExit(Arc<FairQueue<WriteJob>>);

impl Drop for AbandonOnExit {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl WriterThread {
    pub(super) fn new(
        conn: WriterConnection,
        queue: Arc<FairQueue<WriteJob>>,
        metrics: Arc<EngineMetrics>,
        readers: Arc<ReaderPool>,
        path: &Path,
        room: FileLimits,
        replicated_log: Option<Arc<dyn ReplicatedLog>>,
    ) -> rusqlite::Result<Self> {
        let page_size: u32 = conn.db.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let owner = conn.writer_schema.as_ref().map(|schema| schema.tenant().namespace.clone());
        let mut writer = Self {
            conn,
            queue,
            sizes: room.sizes,
            metrics,
            readers,
            path: path.to_owned(),
            log: WriteAheadLog::new(path, room.max_log),
            page_size: page_size.into(),
            size: 0,
            group_time: GROUP_TIME,
            last_flow: FlowId::default(),
            max_pages: None,
            owner,
            reserve: room.reserve,
            replicated_log,
        };
        writer.note_size()?;
        Ok(writer)
    }

    /// Works until the queue is closed and empty, and gives the connection back.
    pub(super) fn run(mut self) -> WriterConnection {
        let _abandon = AbandonOnExit(Arc::clone(&self.queue));
        let mut jobs = VecDeque::new();
        while self.queue.take_batch(&mut jobs, GROUP_COUNT, GROUP_BYTES) {
            self.metrics.queue.set(self.queue.len() as f64);
            self.run_all(std::mem::take(&mut jobs));
        }
        self.conn
    }

    /// Runs jobs in as few groups as can be, in order. What is not begun when their time is over
    /// goes back, if others came.
    fn run_all(&mut self, jobs: VecDeque<WriteJob>) {
        let began = Instant::now();
        // What runs again is committed before the rest goes on.
        let (mut again, mut rest) = (VecDeque::new(), jobs);
        let mut is_held = false;
        loop {
            let (mut jobs, runs_again) = match again.pop_front() {
                Some(jobs) => (jobs, true),
                None => (std::mem::take(&mut rest), false),
            };
            if jobs.is_empty() {
                break;
            }
            // Before each group: there may be as many as jobs.
            if !is_held && !self.is_log_within_limit() {
                is_held = true;
                [&mut jobs, &mut rest]
                    .into_iter()
                    .chain(&mut again)
                    .for_each(|group| self.refuse_growth(group));
                again.retain(|group| !group.is_empty());
            }
            if !self.reserve.regain() {
                // Each by itself, and only what removes.
                jobs.iter_mut().for_each(|job| job.has_reserve = true);
            }
            if jobs.is_empty() {
                continue;
            }
            let more = self.run_group(&mut jobs);
            if !runs_again {
                rest = jobs;
            } else if !jobs.is_empty() {
                again.push_front(jobs);
            }
            more.into_iter()
                .rev()
                .filter(|group| !group.is_empty())
                .for_each(|group| again.push_front(group));
            if !rest.is_empty()
                && began.elapsed() >= self.group_time
                && self.queue.has_others(self.last_flow)
            {
                self.requeue(std::mem::take(&mut rest));
            }
        }
    }

    /// Puts jobs back that were not begun, so that those that came meanwhile have their turn.
    fn requeue(&self, jobs: VecDeque<WriteJob>) {
        let waits_on = |mut job: WriteJob| {
            // A job that only adds has it only as long as it is given up.
            job.has_reserve &= job.removes;
            let (flow, bytes) = (job.flow, job.bytes);
            (flow, job, bytes)
        };
        self.queue.requeue(jobs.into_iter().map(waits_on), self.last_flow);
    }

    /// Refuses jobs that make the log longer. What removes makes room and ends with what there is
    /// to remove; what runs alone replaces the whole.
    fn refuse_growth(&self, group: &mut VecDeque<WriteJob>) {
        let goes_on = |job: &WriteJob| job.removes || job.isolation == JobIsolation::Exclusive;
        let (on, refused): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(group).into_iter().partition(goes_on);
        self.refuse_all(refused.into_iter(), &write_ahead_log::log_held_error());
        *group = on;
    }

    fn is_log_within_limit(&mut self) -> bool {
        // A ROLLBACK that failed may still be due.
        self.roll_back();
        self.log.is_within_limit(&self.conn, &self.readers)
    }

    /// Runs and commits jobs from the front, until they are done or one of them took the
    /// transaction down. Returns the groups that have to run again, before what is left.
    fn run_group(&mut self, jobs: &mut VecDeque<WriteJob>) -> Vec<VecDeque<WriteJob>> {
        if let Err(error) = self.readers.check_in_place() {
            self.refuse_all(jobs.drain(..), &error);
            return Vec::new();
        }
        if let Some(job) = jobs.pop_front_if(|job| job.isolation == JobIsolation::Exclusive) {
            self.run_exclusive(job);
            return Vec::new();
        }
        if self.replicated_log.as_ref().is_some_and(|log| !log.is_leader()) {
            self.refuse_all(jobs.drain(..), &not_leader_error());
            return Vec::new();
        }
        let with_reserve = jobs.front().is_some_and(|job| job.has_reserve);
        if let Err(error) = self.begin_transaction(with_reserve) {
            self.refuse_all(jobs.drain(..), &self.map_internal_error(error));
            return Vec::new();
        }
        let mut done = VecDeque::new();
        let mut ends = Instant::now() + self.group_time;
        let joins = |job: &WriteJob, is_first: bool| match job.isolation {
            JobIsolation::StatementAtomic | JobIsolation::Savepoint => true,
            JobIsolation::OwnTransaction => is_first,
            JobIsolation::Exclusive => false,
        };
        while let Some(mut job) = jobs.pop_front_if(|job| joins(job, done.is_empty())) {
            if job.is_abandoned() {
                continue;
            }
            let now = Instant::now();
            if now >= ends {
                if !done.is_empty()
                    && self.is_delaying_others(done.iter().chain(jobs.iter()).chain([&job]))
                {
                    jobs.push_front(job);
                    break;
                }
                ends = now + self.group_time;
            }
            if now >= job.deadline {
                let error = Error::new(
                    Code::DeadlineExceeded,
                    "the write waited past its deadline; nothing was changed",
                );
                job.send_error(error);
                continue;
            }
            let ran = self.run_one(&mut job);
            if ran == JobOutcome::Panicked || self.conn.db.is_autocommit() {
                self.roll_back();
                return self.regroup_without(job, &ran, done);
            }
            if let JobOutcome::Failed(error) = ran
                && is_space_exhausted(&error)
            {
                let error = self.map_full_error(error);
                if self.may_use_reserve(&mut job, &error) {
                    jobs.push_front(job);
                    break;
                }
                job.replace_error(error);
            }
            let is_whole = with_reserve || job.isolation == JobIsolation::OwnTransaction;
            done.push_back(job);
            if is_whole {
                break;
            }
        }
        self.commit_group(done)
    }

    /// Whether a group of these jobs keeps another caller waiting than the one whose job ran last.
    fn is_delaying_others<'j>(&self, mut jobs: impl Iterator<Item = &'j WriteJob>) -> bool {
        jobs.any(|job| job.flow != self.last_flow) || self.queue.has_others(self.last_flow)
    }

    /// Whether a job that failed for want of room is to run again with what is kept for deletes,
    /// because it only removes.
    fn may_use_reserve(&self, job: &mut WriteJob, error: &Error) -> bool {
        if job.has_reserve
            || !job.removes
            || (error.code == Code::DiskFull && !self.reserve.release())
        {
            return false;
        }
        job.has_reserve = true;
        true
    }

    /// The groups that run again after a job took the transaction down: the others, and the job
    /// itself if it was refused for want of room that it may have.
    fn regroup_without(
        &self,
        mut job: WriteJob,
        ran: &JobOutcome,
        others: VecDeque<WriteJob>,
    ) -> Vec<VecDeque<WriteJob>> {
        let ran = match ran {
            JobOutcome::Failed(error) if is_space_exhausted(error) => {
                JobOutcome::Failed(self.map_full_error(error.clone()))
            }
            ran => ran.clone(),
        };
        if matches!(&ran, JobOutcome::Failed(error) if is_space_exhausted(error) && self.may_use_reserve(&mut job, error))
        {
            return vec![others, VecDeque::from([job])];
        }
        self.metrics.write_failures.increment(1);
        match ran {
            JobOutcome::Failed(error) => job.send_error(error),
            // Run well, and yet the transaction is gone: nothing in the engine does that.
            JobOutcome::Succeeded | JobOutcome::Panicked => {
                tracing::error!(path = %self.path.display(), ?ran, "a write broke off");
                job.send_error(Error::internal(
                    "the write failed in the node; nothing was changed, the node's log has more",
                ));
            }
        }
        vec![others]
    }

    /// Runs a job. What it changed of the schema and the counts before it failed is forgotten with
    /// what it did.
    fn run_one(&mut self, job: &mut WriteJob) -> JobOutcome {
        self.last_flow = job.flow;
        let mark = match self.conn.pending_mark() {
            Ok(mark) => mark,
            // What the others have changed is not known: they run again.
            Err(error) => {
                self.roll_back();
                return JobOutcome::Failed(error_mapping::map_sqlite_error(error));
            }
        };
        self.conn.reserve_use.begin_job(job.has_reserve, job.removes);
        let ran = self.run_isolated(job);
        // Where it is not known before, it is now.
        job.removes |= self.conn.reserve_use.only_removes();
        if ran != JobOutcome::Succeeded {
            self.conn.rollback_pending(mark);
        }
        ran
    }

    fn run_isolated(&mut self, job: &mut WriteJob) -> JobOutcome {
        if job.isolation == JobIsolation::StatementAtomic {
            let before = self.conn.db.total_changes();
            let ran = job.run(&mut self.conn);
            if let JobOutcome::Failed(error) = &ran
                && (self.conn.db.total_changes() != before || is_partly_done(error))
            {
                // ON CONFLICT FAIL keeps the rows before the one that failed. A failed write
                // changes nothing: the whole transaction goes, and the others run again.
                self.roll_back();
            }
            return ran;
        }
        if let Err(error) = self.run_internal("/*debros*/ SAVEPOINT job") {
            return JobOutcome::Failed(error_mapping::map_sqlite_error(error));
        }
        let changes = self.schema_changes();
        let ran = job.run(&mut self.conn);
        if ran == JobOutcome::Panicked || self.conn.db.is_autocommit() {
            return ran;
        }
        let ended = match ran {
            JobOutcome::Succeeded => self.run_internal("/*debros*/ RELEASE job"),
            // SQLite goes on to sync a full-text table that a savepoint has taken back, and COMMIT
            // fails for it.
            _ if self.schema_changes() != changes => {
                self.roll_back();
                return ran;
            }
            _ => self
                .run_internal("/*debros*/ ROLLBACK TO job")
                .and_then(|()| self.run_internal("/*debros*/ RELEASE job")),
        };
        let Err(error) = ended else { return ran };
        // Neither kept nor undone: only giving up the transaction is safe.
        self.roll_back();
        match ran {
            JobOutcome::Succeeded => JobOutcome::Failed(error_mapping::map_sqlite_error(error)),
            failed => failed,
        }
    }

    /// Counts what began to change the schema, whether it was kept or not.
    fn schema_changes(&self) -> u64 {
        self.conn.schema_changes().load(Relaxed)
    }

    fn run_exclusive(&mut self, mut job: WriteJob) {
        if job.is_abandoned() {
            return;
        }
        self.last_flow = job.flow;
        // What runs alone may change everything about the file, its size limit too.
        self.max_pages = None;
        self.readers.suspend_snapshots();
        let ran = job.run(&mut self.conn);
        self.readers.snapshots.resume();
        self.roll_back();
        // Before the answer, as after a COMMIT: whoever gets it may ask for the size.
        if let Err(error) = self.note_size() {
            tracing::warn!(path = %self.path.display(), %error, "the database's size is not known");
        }
        match ran {
            JobOutcome::Panicked => job.send_error(Error::internal(
                "the operation failed in the node; the node's log has more",
            )),
            JobOutcome::Succeeded | JobOutcome::Failed(_)
                if self.readers.check_in_place().is_err() =>
            {
                job.send_error(file_identity::displaced_meanwhile_error());
            }
            JobOutcome::Succeeded | JobOutcome::Failed(_) => job.send_outcome(),
        }
    }

    fn begin_transaction(&mut self, with_reserve: bool) -> rusqlite::Result<()> {
        self.conn.discard_pending();
        // A failed COMMIT or ROLLBACK must not leave the next group inside the old transaction.
        if !self.conn.db.is_autocommit() {
            self.run_internal("/*debros*/ ROLLBACK")?;
        }
        // SQLite takes 0 for a question, and what is below the file's size for that size.
        let max_pages = (self.sizes.allowed_size(self.owner.as_ref(), self.size, with_reserve)
            / self.page_size)
            .max(1);
        if self.max_pages != Some(max_pages) {
            self.conn.authorizer.set_rights(super::authorizer::StatementRights::Internal);
            self.conn
                .db
                .query_row(&format!("PRAGMA max_page_count = {max_pages}"), [], |_| Ok(()))?;
            self.max_pages = Some(max_pages);
        }
        self.run_internal("/*debros*/ BEGIN IMMEDIATE")
    }

    fn roll_back(&mut self) {
        self.conn.discard_pending();
        // The transaction may be gone, and with it the statement that would have taken the rights
        // of the last job away.
        self.conn.authorizer.set_rights(super::authorizer::StatementRights::Internal);
        if self.conn.db.is_autocommit() {
            return;
        }
        if let Err(error) = self.run_internal("/*debros*/ ROLLBACK") {
            tracing::error!(path = %self.path.display(), %error, "a transaction could not be rolled back");
        }
    }

    fn refuse_all(&self, jobs: impl Iterator<Item = WriteJob>, error: &Error) {
        for job in jobs {
            self.metrics.write_failures.increment(1);
            job.send_error(error.clone());
        }
    }

    /// What the engine's own statements meet besides, before anything can be in the file.
    fn map_internal_error(&self, error: rusqlite::Error) -> Error {
        tracing::error!(path = %self.path.display(), %error, "a group of writes could not be committed");
        match error_mapping::map_sqlite_error(error) {
            error if is_space_exhausted(&error) => disk_full_error(),
            error => error,
        }
    }

    /// SQLite says "full" for its own limit and for the disk alike: it was the one that leaves less
    /// room.
    fn map_full_error(&self, error: Error) -> Error {
        // The engine's own count says exactly what is full.
        if error.code != Code::DatabaseFull {
            return error;
        }
        let left = self.sizes.max().saturating_sub(self.sizes.total());
        let quotas = self.owner.as_ref().map_or([None, None], |owner| self.sizes.quotas(owner).1);
        let quota = quotas.into_iter().flatten().min_by_key(|quota| quota.left());
        let left_of_quota = quota.map_or(u64::MAX, |quota| quota.left());
        let folder = self.path.parent().unwrap_or(&self.path);
        let full = match super::data_folder::available_space(folder) {
            _ if !self.reserve.regain() => disk_full_error(),
            Ok(available) if available < left.min(left_of_quota) => disk_full_error(),
            _ => error_mapping::space_exhausted_error(
                "the write",
                match quota {
                    Some(quota) if left_of_quota < left => SpaceExhausted::Quota(quota),
                    _ => SpaceExhausted::Node { total: self.sizes.total(), max: self.sizes.max() },
                },
            ),
        };
        Error { statement: error.statement, ..full }
    }

    fn run_internal(&self, sql: &'static str) -> rusqlite::Result<()> {
        self.conn.prepare_internal(sql)?.raw_execute().map(|_| ())
    }

    fn read_file_size(&self) -> rusqlite::Result<u64> {
        let pages: u32 = self
            .conn
            .prepare_internal("/*debros*/ PRAGMA page_count")?
            .query_row([], |row| row.get(0))?;
        Ok(u64::from(pages) * self.page_size)
    }

    /// Says how large what ran alone has made the file: it takes its room whether there is any.
    fn note_size(&mut self) -> rusqlite::Result<()> {
        let size = self.read_file_size()?;
        self.sizes.set_file_size(self.owner.as_ref(), size);
        self.set_size(size);
        Ok(())
    }

    fn set_size(&mut self, size: u64) {
        self.size = size;
        self.metrics.size.set(self.sizes.total() as f64);
    }
}

/// Another node writes; the call is passed on to it.
pub(super) fn not_leader_error() -> Error {
    Error::new(Code::NotLeader, "another node of the cluster is the leader; nothing was changed")
}

/// Whether SQLite keeps what a statement did before it failed with this: ON DELETE CASCADE and the
/// like that go too deep. SQLite takes them for statements that cannot fail in the middle, and does
/// not count what they did.
fn is_partly_done(error: &Error) -> bool {
    error.code == Code::Sql && error.message.contains("triggers nested too deep")
}

/// Whether something is full: the disk, all databases, the namespace.
fn is_space_exhausted(error: &Error) -> bool {
    matches!(error.code, Code::DatabaseFull | Code::QuotaExceeded | Code::DiskFull)
}

#[cfg(test)]
mod tests;
