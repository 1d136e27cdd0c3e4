//! The thread that writes one file: what waits is run in one transaction, and everyone is answered after its COMMIT.
//!
//! One caller's failure is his alone. SQLite undoes a failing statement, and a savepoint undoes a failing job. But some
//! failures take the whole transaction down (`ON CONFLICT ROLLBACK`, an interrupted write, a full disk): then the others
//! of the group run again without the one who did it, and are committed before the rest goes on.

mod log;

pub(super) use log::empty as empty_log;

use super::conn::Conn;
use super::failure;
use super::file_identity;
use super::job::{Job, Ran, Undo};
use super::ledger::Ledger;
use super::metrics::Metrics;
use super::queue::{Flow, Queue};
use super::reserve::{Reserve, disk_full};
use super::size::Sizes;
use super::store::Pool;
use super::tenant::Seat;
use debros_proto::{Code, Error, Namespace};
use log::Log;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Jobs in one group.
const GROUP_COUNT: usize = 1000;
/// Bytes in one group, as the queue counts them: about those of the largest value, so that who comes meanwhile waits for no
/// more than that.
const GROUP_BYTES: usize = 4 << 20;
/// How long a group runs before it is committed for others: those in it who wait for their answers, and those who came
/// meanwhile.
const GROUP_TIME: Duration = Duration::from_millis(20);
/// A group runs so many times longer than a commit takes, so that a slow disk commits no more often than it can.
const TIMES_THE_COMMIT: u32 = 8;
/// The longest that a slow commit makes of it.
const MOST_GROUP_TIME: Duration = Duration::from_millis(200);

/// What the writer thread works with.
pub(super) struct Writer {
    conn: Conn,
    queue: Arc<Queue<Job>>,
    sizes: Arc<Sizes>,
    metrics: Arc<Metrics>,
    readers: Arc<Pool>,
    path: PathBuf,
    log: Log,
    page_size: u64,
    /// Bytes of the file as of the last commit.
    size: u64,
    /// How long a group runs when others wait.
    group_time: Duration,
    /// Whose job ran last.
    ran: Flow,
    /// What `PRAGMA max_page_count` was set to; `None`: nothing that is known.
    max_pages: Option<u64>,
    /// The namespace whose file it is; `None`: the system's.
    owner: Option<Namespace>,
    reserve: Arc<Reserve>,
}

/// What the files of all databases may take.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) sizes: Arc<Sizes>,
    /// Disk space for deletes.
    pub(super) reserve: Arc<Reserve>,
    /// Bytes of this file's log.
    pub(super) max_log: u64,
}

/// Why a group is not in the file.
enum Uncommitted {
    /// Its COMMIT was not reached.
    Before(rusqlite::Error),
    /// Its COMMIT failed.
    Tried(rusqlite::Error),
}

/// Nobody waits for a thread that is gone.
struct AbandonOnExit(Arc<Queue<Job>>);

impl Drop for AbandonOnExit {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Writer {
    pub(super) fn new(
        conn: Conn,
        queue: Arc<Queue<Job>>,
        metrics: Arc<Metrics>,
        readers: Arc<Pool>,
        path: &Path,
        room: Room,
    ) -> rusqlite::Result<Self> {
        let page_size: u32 = conn.db.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let owner = conn.seat.as_ref().map(|seat| seat.tenant().namespace.clone());
        let mut writer = Self {
            conn,
            queue,
            sizes: room.sizes,
            metrics,
            readers,
            path: path.to_owned(),
            log: Log::new(path, room.max_log),
            page_size: page_size.into(),
            size: 0,
            group_time: GROUP_TIME,
            ran: Flow::default(),
            max_pages: None,
            owner,
            reserve: room.reserve,
        };
        writer.note_size()?;
        Ok(writer)
    }

    /// Works until the queue is closed and empty, and gives the connection back.
    pub(super) fn run(mut self) -> Conn {
        let _abandon = AbandonOnExit(Arc::clone(&self.queue));
        let mut jobs = VecDeque::new();
        while self.queue.take(&mut jobs, GROUP_COUNT, GROUP_BYTES) {
            self.metrics.queue.set(self.queue.len() as f64);
            self.run_all(std::mem::take(&mut jobs));
        }
        self.conn
    }

    /// Runs jobs in as few groups as can be, in order. What is not begun when their time is over goes back, if others came.
    fn run_all(&mut self, jobs: VecDeque<Job>) {
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
            if !is_held && !self.log_is_small() {
                is_held = true;
                [&mut jobs, &mut rest].into_iter().chain(&mut again).for_each(|group| self.refuse_growth(group));
                again.retain(|group| !group.is_empty());
            }
            if self.reserve.is_given_up() {
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
            more.into_iter().rev().filter(|group| !group.is_empty()).for_each(|group| again.push_front(group));
            if !rest.is_empty() && began.elapsed() >= self.group_time && self.queue.has_others(self.ran) {
                self.put_back(std::mem::take(&mut rest));
            }
        }
    }

    /// Puts jobs back that were not begun, so that those who came meanwhile have their turn.
    fn put_back(&self, jobs: VecDeque<Job>) {
        let waits_on = |mut job: Job| {
            // Who only adds has it only as long as it is given up.
            job.has_reserve &= job.removes;
            let (flow, bytes) = (job.flow, job.bytes);
            (flow, job, bytes)
        };
        self.queue.put_back(jobs.into_iter().map(waits_on), self.ran);
    }

    /// Refuses jobs that make the log longer. What removes makes room and ends with what there is to remove; what runs alone
    /// replaces the whole.
    fn refuse_growth(&self, group: &mut VecDeque<Job>) {
        let goes_on = |job: &Job| job.removes || job.undo == Undo::Alone;
        let (on, refused): (VecDeque<_>, VecDeque<_>) = std::mem::take(group).into_iter().partition(goes_on);
        self.refuse_all(refused.into_iter(), &log::is_held());
        *group = on;
    }

    fn log_is_small(&mut self) -> bool {
        // A ROLLBACK that failed may still be due.
        self.roll_back();
        self.log.is_small(&self.conn, &self.readers)
    }

    /// Runs and commits jobs from the front, until they are done or one of them took the transaction down. Returns the
    /// groups that have to run again, before what is left.
    fn run_group(&mut self, jobs: &mut VecDeque<Job>) -> Vec<VecDeque<Job>> {
        if let Err(error) = self.readers.check_in_place() {
            self.refuse_all(jobs.drain(..), &error);
            return Vec::new();
        }
        if let Some(job) = jobs.pop_front_if(|job| job.undo == Undo::Alone) {
            self.run_alone(job);
            return Vec::new();
        }
        let with_reserve = jobs.front().is_some_and(|job| job.has_reserve);
        if let Err(error) = self.begin(with_reserve) {
            self.refuse_all(jobs.drain(..), &self.of_own(error));
            return Vec::new();
        }
        let mut done = VecDeque::new();
        let mut ends = Instant::now() + self.group_time;
        let joins = |job: &Job, is_first: bool| match job.undo {
            Undo::Statement | Undo::Savepoint => true,
            Undo::OwnGroup => is_first,
            Undo::Alone => false,
        };
        while let Some(mut job) = jobs.pop_front_if(|job| joins(job, done.is_empty())) {
            if job.is_abandoned() {
                continue;
            }
            let now = Instant::now();
            if now >= ends {
                if !done.is_empty() && self.keeps_waiting(done.iter().chain(jobs.iter()).chain([&job])) {
                    jobs.push_front(job);
                    break;
                }
                ends = now + self.group_time;
            }
            if now >= job.deadline {
                let error =
                    Error::new(Code::DeadlineExceeded, "the write waited past its deadline; nothing was changed");
                job.refuse(error);
                continue;
            }
            let ran = self.run_one(&mut job);
            if ran == Ran::Panicked || self.conn.db.is_autocommit() {
                self.roll_back();
                return self.without(job, &ran, done);
            }
            if let Ran::Failed(error) = ran
                && is_full(&error)
            {
                let error = self.of_full(error);
                if self.gets_reserve(&mut job, &error) {
                    jobs.push_front(job);
                    break;
                }
                job.amend(error);
            }
            let is_whole = with_reserve || job.undo == Undo::OwnGroup;
            done.push_back(job);
            if is_whole {
                break;
            }
        }
        self.commit(done)
    }

    /// Whether a group of these jobs keeps somebody else waiting than him whose job ran last.
    fn keeps_waiting<'j>(&self, mut jobs: impl Iterator<Item = &'j Job>) -> bool {
        jobs.any(|job| job.flow != self.ran) || self.queue.has_others(self.ran)
    }

    /// Whether a job that failed for want of room is to run again with what is kept for deletes, because it only removes.
    fn gets_reserve(&self, job: &mut Job, error: &Error) -> bool {
        if job.has_reserve || !job.removes || (error.code == Code::DiskFull && !self.reserve.release()) {
            return false;
        }
        job.has_reserve = true;
        true
    }

    /// The groups that run again after a job took the transaction down: the others, and the job itself if it was refused
    /// for want of room that it may have.
    fn without(&self, mut job: Job, ran: &Ran, others: VecDeque<Job>) -> Vec<VecDeque<Job>> {
        let ran = match ran {
            Ran::Failed(error) if is_full(error) => Ran::Failed(self.of_full(error.clone())),
            ran => ran.clone(),
        };
        if matches!(&ran, Ran::Failed(error) if is_full(error) && self.gets_reserve(&mut job, error)) {
            return vec![others, VecDeque::from([job])];
        }
        self.metrics.write_failures.increment(1);
        match ran {
            Ran::Failed(error) => job.refuse(error),
            // Run well, and yet the transaction is gone: nothing in the engine does that.
            Ran::Well | Ran::Panicked => {
                tracing::error!(path = %self.path.display(), ?ran, "a write broke off");
                job.refuse(Error::internal(
                    "the write failed in the node; nothing was changed, the node's log has more",
                ));
            }
        }
        vec![others]
    }

    /// Runs a job. What it changed of the schema and the counts before it failed is forgotten with what it did.
    fn run_one(&mut self, job: &mut Job) -> Ran {
        self.ran = job.flow;
        let schema = self.conn.seat.as_ref().and_then(Seat::pending);
        let mark = self.conn.ledger.as_ref().map_or(0, Ledger::mark);
        self.conn.growth.begin(job.has_reserve, job.removes);
        let ran = self.run_kept_apart(job);
        // Where it is not known before, it is now.
        job.removes |= self.conn.growth.only_removes();
        if ran != Ran::Well {
            if let Some(seat) = &self.conn.seat {
                seat.go_back(schema);
            }
            if let Some(ledger) = &self.conn.ledger {
                ledger.go_back(mark);
            }
        }
        ran
    }

    fn run_kept_apart(&mut self, job: &mut Job) -> Ran {
        if job.undo == Undo::Statement {
            let before = self.conn.db.total_changes();
            let ran = job.run(&mut self.conn);
            if matches!(ran, Ran::Failed(_)) && self.conn.db.total_changes() != before {
                // ON CONFLICT FAIL keeps the rows before the one that failed. A failed write changes nothing: the whole
                // transaction goes, and the others run again.
                self.roll_back();
            }
            return ran;
        }
        if let Err(error) = self.own("/*debros*/ SAVEPOINT job") {
            return Ran::Failed(failure::of(error));
        }
        let changes = self.schema_changes();
        let ran = job.run(&mut self.conn);
        if ran == Ran::Panicked || self.conn.db.is_autocommit() {
            return ran;
        }
        let ended = match ran {
            Ran::Well => self.own("/*debros*/ RELEASE job"),
            // SQLite goes on to sync a full-text table that a savepoint has taken back, and COMMIT fails for it.
            _ if self.schema_changes() != changes => {
                self.roll_back();
                return ran;
            }
            _ => self.own("/*debros*/ ROLLBACK TO job").and_then(|()| self.own("/*debros*/ RELEASE job")),
        };
        let Err(error) = ended else { return ran };
        // Neither kept nor undone: only giving up the transaction is safe.
        self.roll_back();
        match ran {
            Ran::Well => Ran::Failed(failure::of(error)),
            failed => failed,
        }
    }

    /// Counts what began to change the schema, whether it was kept or not.
    fn schema_changes(&self) -> u64 {
        self.conn.schema_changes().load(Relaxed)
    }

    fn run_alone(&mut self, mut job: Job) {
        if job.is_abandoned() {
            return;
        }
        self.ran = job.flow;
        // What runs alone may change everything about the file, its size limit too.
        self.max_pages = None;
        self.readers.suspend();
        let ran = job.run(&mut self.conn);
        self.readers.snapshots.resume();
        match ran {
            Ran::Panicked => job.refuse(Error::internal("the operation failed in the node; the node's log has more")),
            Ran::Well | Ran::Failed(_) if self.readers.check_in_place().is_err() => {
                job.refuse(file_identity::displaced_meanwhile());
            }
            Ran::Well | Ran::Failed(_) => job.answer(),
        }
        self.roll_back();
        if let Err(error) = self.note_size() {
            tracing::warn!(path = %self.path.display(), %error, "the database's size is not known");
        }
    }

    fn begin(&mut self, with_reserve: bool) -> rusqlite::Result<()> {
        self.forget_changes();
        // A failed COMMIT or ROLLBACK must not leave the next group inside the old transaction.
        if !self.conn.db.is_autocommit() {
            self.own("/*debros*/ ROLLBACK")?;
        }
        // SQLite takes 0 for a question, and what is below the file's size for that size.
        let max_pages = (self.sizes.allowed(self.owner.as_ref(), self.size, with_reserve) / self.page_size).max(1);
        if self.max_pages != Some(max_pages) {
            self.conn.gate.enter(super::gate::Rights::Own);
            self.conn.db.query_row(&format!("PRAGMA max_page_count = {max_pages}"), [], |_| Ok(()))?;
            self.max_pages = Some(max_pages);
        }
        self.own("/*debros*/ BEGIN IMMEDIATE")
    }

    /// Commits, and only then answers. A COMMIT that fails undid everything, so everyone is told.
    fn commit(&mut self, done: VecDeque<Job>) -> Vec<VecDeque<Job>> {
        if done.is_empty() {
            self.roll_back();
            return Vec::new();
        }
        let started = Instant::now();
        let change = self.conn.seat.as_ref().and_then(|seat| seat.pending().map(|schema| (seat.publication(), schema)));
        // Asked for inside the transaction, where it needs no lock of its own.
        self.readers.suspend();
        let committed = match self.own_size() {
            Ok(size) => self.own("/*debros*/ COMMIT").map(|()| size).map_err(Uncommitted::Tried),
            Err(error) => Err(Uncommitted::Before(error)),
        };
        self.readers.snapshots.resume();
        if let (Some((publication, schema)), Ok(_)) = (change, &committed) {
            publication.publish(schema);
        }
        if let (Some(ledger), Ok(_)) = (&self.conn.ledger, &committed) {
            ledger.settle(&self.conn);
        }
        self.forget_changes();
        let size = match committed {
            Ok(size) => size,
            Err(error) => return self.not_committed(done, error),
        };
        let took = started.elapsed();
        self.group_time = (took * TIMES_THE_COMMIT).clamp(GROUP_TIME, MOST_GROUP_TIME);
        self.metrics.commit.record(took.as_secs_f64());
        self.metrics.batch.record(done.len() as f64);
        self.metrics.writes.increment(done.len() as u64);
        self.set_size(size);
        if self.readers.check_in_place().is_err() {
            self.refuse_all(done.into_iter(), &file_identity::displaced_meanwhile());
            return Vec::new();
        }
        done.into_iter().for_each(Job::answer);
        if self.reserve.is_given_up() && self.log.fits_into_file(size) {
            // What the log takes is for the next who removes.
            self.log.cut(&self.conn, &self.readers);
        }
        Vec::new()
    }

    fn not_committed(&mut self, done: VecDeque<Job>, why: Uncommitted) -> Vec<VecDeque<Job>> {
        self.roll_back();
        let error = match why {
            Uncommitted::Tried(error) => error,
            Uncommitted::Before(error) => {
                self.refuse_all(done.into_iter(), &self.of_own(error));
                return Vec::new();
            }
        };
        let is_constraint = error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation);
        if is_constraint && done.len() > 1 {
            // A deferred foreign key of one of them: each by itself shows whose.
            return done.into_iter().map(|job| VecDeque::from([job])).collect();
        }
        let error = self.of_commit(error);
        let mut again = Vec::new();
        let mut refused = VecDeque::new();
        for mut job in done {
            if error.code == Code::DiskFull && self.gets_reserve(&mut job, &error) {
                again.push(VecDeque::from([job]));
            } else {
                refused.push_back(job);
            }
        }
        self.refuse_all(refused.into_iter(), &error);
        again
    }

    /// What the transaction made of the schema, and of what namespaces have, goes with it.
    fn forget_changes(&self) {
        if let Some(seat) = &self.conn.seat {
            seat.go_back(None);
        }
        if let Some(ledger) = &self.conn.ledger {
            ledger.go_back(0);
            self.conn.changed_owners.clear();
        }
    }

    fn roll_back(&mut self) {
        self.forget_changes();
        // The transaction may be gone, and with it the statement that would have taken the rights of the last job away.
        self.conn.gate.enter(super::gate::Rights::Own);
        if self.conn.db.is_autocommit() {
            return;
        }
        if let Err(error) = self.own("/*debros*/ ROLLBACK") {
            tracing::error!(path = %self.path.display(), %error, "a transaction could not be rolled back");
        }
    }

    fn refuse_all(&self, jobs: impl Iterator<Item = Job>, error: &Error) {
        for job in jobs {
            self.metrics.write_failures.increment(1);
            job.refuse(error.clone());
        }
    }

    /// BEGIN and COMMIT never meet the size limit: what is full then is the disk.
    fn of_commit(&self, error: rusqlite::Error) -> Error {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) {
            return failure::of(error);
        }
        if failure::is_unconfirmed(&error) {
            tracing::error!(path = %self.path.display(), %error, "a group of writes was not confirmed");
            return Error::new(
                Code::UnknownOutcome,
                "the write was not confirmed: it may be there after a restart, or not",
            );
        }
        self.of_own(error)
    }

    /// What the engine's own statements meet besides, before anything can be in the file.
    fn of_own(&self, error: rusqlite::Error) -> Error {
        tracing::error!(path = %self.path.display(), %error, "a group of writes could not be committed");
        match failure::of(error) {
            error if is_full(&error) => disk_full(),
            error => error,
        }
    }

    /// SQLite says "full" for its own limit and for the disk alike: it was the one that leaves less room.
    fn of_full(&self, error: Error) -> Error {
        // The engine's own count says exactly what is full.
        if error.code != Code::DatabaseFull {
            return error;
        }
        let left = self.sizes.max().saturating_sub(self.sizes.total());
        let quotas = self.owner.as_ref().map_or([None, None], |owner| self.sizes.quotas(owner).1);
        let quota = quotas.into_iter().flatten().min_by_key(|quota| quota.left());
        let left_of_quota = quota.map_or(u64::MAX, |quota| quota.left());
        let folder = self.path.parent().unwrap_or(&self.path);
        let full = match super::folder::available_space(folder) {
            _ if self.reserve.is_given_up() => disk_full(),
            Ok(available) if available < left.min(left_of_quota) => disk_full(),
            _ => match quota {
                Some(quota) if left_of_quota < left => failure::quota_exceeded(quota),
                _ => failure::node_full("the write", self.sizes.total(), self.sizes.max()),
            },
        };
        Error { statement: error.statement, ..full }
    }

    fn own(&self, sql: &'static str) -> rusqlite::Result<()> {
        self.conn.own(sql)?.raw_execute().map(|_| ())
    }

    fn own_size(&self) -> rusqlite::Result<u64> {
        let pages: u32 = self.conn.own("/*debros*/ PRAGMA page_count")?.query_row([], |row| row.get(0))?;
        Ok(u64::from(pages) * self.page_size)
    }

    fn note_size(&mut self) -> rusqlite::Result<()> {
        let size = self.own_size()?;
        self.set_size(size);
        Ok(())
    }

    fn set_size(&mut self, size: u64) {
        if size != self.size {
            self.size = size;
            self.sizes.set(self.owner.as_ref(), size);
        }
        self.metrics.size.set(self.sizes.total() as f64);
    }
}

/// Whether something is full: the disk, all databases, the namespace.
fn is_full(error: &Error) -> bool {
    matches!(error.code, Code::DatabaseFull | Code::QuotaExceeded | Code::DiskFull)
}

#[cfg(test)]
mod tests;
