//! The end of a group: its room is taken, it is committed, and all of it are answered.

use super::{
    GROUP_TIME, MOST_GROUP_TIME, TIMES_THE_COMMIT, WriterThread, is_space_exhausted,
    not_leader_error,
};
use crate::embedded::authorizer::StatementRights;
use crate::embedded::error_mapping;
use crate::embedded::file_identity;
use crate::embedded::job::WriteJob;
use crate::embedded::replication::{ChangeRecorder, RecordingLimit, write_position};
use crate::embedded::size_accounting::SpaceExhausted;
use crate::{AppendError, EntryKind, MAX_CHANGES, ReplicatedLog, TargetDatabase};
use debros_proto::{Code, Error};
use debros_row_capture::has_broken_references;
use prost::Message as _;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Why a group is not in the file.
enum CommitFailure {
    /// Its COMMIT was not reached.
    BeforeCommit(rusqlite::Error),
    /// Others have taken the room that it was promised.
    NoSpace(SpaceExhausted),
    /// The cluster's log does not have it.
    NotInLog(AppendError),
    /// What is open changes more than there is memory for.
    NoMemory,
    /// Its COMMIT failed.
    DuringCommit(rusqlite::Error),
    /// Its COMMIT failed when the cluster's log had it.
    AfterAppend(rusqlite::Error),
}

impl WriterThread {
    /// Commits, and only then answers. A COMMIT that fails undid everything, so every job of the
    /// group fails.
    pub(super) fn commit_group(&mut self, done: VecDeque<WriteJob>) -> Vec<VecDeque<WriteJob>> {
        if done.is_empty() {
            self.roll_back();
            return Vec::new();
        }
        let started = Instant::now();
        let change = self.conn.begin_schema_swap();
        // Asked for inside the transaction, where it needs no lock of its own.
        self.readers.suspend_snapshots();
        let committed = self.commit_with_room(done.iter().any(|job| job.has_reserve));
        self.readers.snapshots.resume();
        if let (Some((swap, catalogue)), Ok(_)) = (change, &committed) {
            swap.publish_catalogue(catalogue);
        }
        if committed.is_ok() {
            self.conn.commit_usage();
            if let Some(recorder) = &self.conn.recorder {
                recorder.note_commit();
            }
        }
        self.conn.discard_pending();
        let size = match committed {
            Ok(size) => size,
            Err(error) => return self.handle_commit_failure(done, error),
        };
        let took = started.elapsed();
        self.group_time = (took * TIMES_THE_COMMIT).clamp(GROUP_TIME, MOST_GROUP_TIME);
        self.metrics.commit.record(took.as_secs_f64());
        self.metrics.batch.record(done.len() as f64);
        self.metrics.writes.increment(done.len() as u64);
        self.set_size(size);
        if self.readers.check_in_place().is_err() {
            self.refuse_all(done.into_iter(), &file_identity::displaced_meanwhile_error());
            return Vec::new();
        }
        done.into_iter().for_each(WriteJob::send_outcome);
        if !self.reserve.regain() && self.log.fits_into_file(size) {
            // What the log takes is for the next removal.
            self.log.truncate(&self.conn, &self.readers);
        }
        Vec::new()
    }

    /// Takes the room for what the transaction has made, and commits. Returns the file's size.
    fn commit_with_room(&self, with_reserve: bool) -> Result<u64, CommitFailure> {
        if let Some(recorder) = &self.conn.recorder {
            self.conn.authorizer.set_rights(StatementRights::Internal);
            // What it writes takes room too.
            recorder.savepoint(&self.conn.db).map_err(CommitFailure::BeforeCommit)?;
        }
        let size = self.read_file_size().map_err(CommitFailure::BeforeCommit)?;
        let (owner, changes) = (self.owner.as_ref(), size != self.size);
        if changes {
            self.sizes.grow_file(owner, size, with_reserve).map_err(CommitFailure::NoSpace)?;
        }
        self.append_and_commit().map(|()| size).inspect_err(|_| {
            if changes {
                self.sizes.set_file_size(owner, self.size);
            }
        })
    }

    /// Commits; on a node of a cluster when its log has the changes.
    fn append_and_commit(&self) -> Result<(), CommitFailure> {
        let appended = match (&self.replicated_log, &self.conn.recorder) {
            // A COMMIT that is bound to fail must not be in the log.
            (Some(log), Some(recorder)) if !has_broken_references(&self.conn.db) => {
                self.append_changes(log.as_ref(), recorder)?.map(|number| (log, number))
            }
            _ => None,
        };
        let committed = match &appended {
            Some((_, number)) => write_position(&self.conn.db, *number)
                .and_then(|()| self.run_internal("/*debros*/ COMMIT")),
            None => self.run_internal("/*debros*/ COMMIT"),
        };
        if let (Ok(()), Some((log, number))) = (&committed, &appended) {
            log.committed(*number);
        }
        committed.map_err(|error| match appended {
            Some((log, number)) => {
                log.fell_behind(number);
                CommitFailure::AfterAppend(error)
            }
            None => CommitFailure::DuringCommit(error),
        })
    }

    /// Puts what the transaction has changed into the log. `None`: it has changed nothing.
    fn append_changes(
        &self,
        log: &dyn ReplicatedLog,
        recorder: &ChangeRecorder,
    ) -> Result<Option<u64>, CommitFailure> {
        self.conn.authorizer.set_rights(StatementRights::Internal);
        match recorder.limit_passed() {
            Some(RecordingLimit::Transaction(bytes)) => {
                let too_large = AppendError::TooLarge { bytes, max: MAX_CHANGES };
                return Err(CommitFailure::NotInLog(too_large));
            }
            Some(RecordingLimit::Process) => return Err(CommitFailure::NoMemory),
            None => {}
        }
        let mut changes = recorder.take(&self.conn.db).map_err(CommitFailure::BeforeCommit)?;
        if changes.is_empty() {
            return Ok(None);
        }
        if let Some(ledger) = &self.conn.ledger {
            changes.usage = ledger.pending_sums().into_iter().map(Into::into).collect();
            changes.last_version = self.conn.last_version.get();
        }
        let database = match &self.owner {
            Some(namespace) => TargetDatabase::Namespace(namespace.clone()),
            None => TargetDatabase::System,
        };
        let number = log
            .append(&database, changes.encode_to_vec().into(), EntryKind::Changes)
            .map_err(CommitFailure::NotInLog)?;
        Ok(Some(number))
    }

    fn handle_commit_failure(
        &mut self,
        done: VecDeque<WriteJob>,
        why: CommitFailure,
    ) -> Vec<VecDeque<WriteJob>> {
        self.roll_back();
        let is_of_one = match &why {
            CommitFailure::BeforeCommit(_) | CommitFailure::AfterAppend(_) => false,
            CommitFailure::NotInLog(error) => matches!(error, AppendError::TooLarge { .. }),
            CommitFailure::NoSpace(_) | CommitFailure::NoMemory => true,
            CommitFailure::DuringCommit(error) => {
                error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
            }
        };
        if is_of_one && done.len() > 1 {
            // A deferred foreign key of one of them, or what one writes: each by itself shows whose.
            return done.into_iter().map(|job| VecDeque::from([job])).collect();
        }
        let error = match why {
            CommitFailure::BeforeCommit(error) => {
                self.refuse_all(done.into_iter(), &self.map_internal_error(error));
                return Vec::new();
            }
            CommitFailure::NoSpace(full) => error_mapping::space_exhausted_error("the write", full),
            CommitFailure::NotInLog(error) => map_append_error(&error),
            CommitFailure::NoMemory => no_memory_error(),
            CommitFailure::DuringCommit(error) => self.map_commit_error(error),
            CommitFailure::AfterAppend(error) => {
                tracing::error!(path = %self.path.display(), %error, "a group of writes is in the cluster's log, and not in this node's file");
                unconfirmed_error()
            }
        };
        let mut again = Vec::new();
        let mut refused = VecDeque::new();
        for mut job in done {
            if is_space_exhausted(&error) && self.may_use_reserve(&mut job, &error) {
                again.push(VecDeque::from([job]));
            } else {
                refused.push_back(job);
            }
        }
        self.refuse_all(refused.into_iter(), &error);
        again
    }

    /// SQLite's COMMIT never meets the size limit: what is full then is the disk.
    fn map_commit_error(&self, error: rusqlite::Error) -> Error {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) {
            return error_mapping::map_sqlite_error(error);
        }
        if error_mapping::is_unconfirmed_commit(&error) {
            tracing::error!(path = %self.path.display(), %error, "a group of writes was not confirmed");
            return Error::new(
                Code::UnknownOutcome,
                "the write was not confirmed: it may be there after a restart, or not",
            );
        }
        self.map_internal_error(error)
    }
}

pub(in crate::embedded) fn map_append_error(error: &AppendError) -> Error {
    match error {
        AppendError::NotLeader => not_leader_error(),
        AppendError::TooLarge { bytes, max } => Error::new(
            Code::TooLarge,
            format!(
                "the write changes {bytes} bytes of rows at once, and the cluster takes at most {max}: write less in one \
                 call"
            ),
        ),
        AppendError::Unknown => unconfirmed_error(),
    }
}

fn no_memory_error() -> Error {
    Error::new(
        Code::Overloaded,
        "what open transactions change takes all the memory that the node has for it; nothing was changed",
    )
    .retry_after(Duration::from_secs(1))
}

fn unconfirmed_error() -> Error {
    Error::new(
        Code::UnknownOutcome,
        "the cluster did not confirm the write in time: it may be there, or not",
    )
}
