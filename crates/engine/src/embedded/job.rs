//! Work for the writer thread: something to do in a transaction, and a caller that waits for the
//! outcome.

use super::fair_queue::{FlowId, closed_error};
use super::writer_conn::WriterConnection;
use debros_proto::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use tokio::sync::oneshot;

/// How a job is kept apart from the others of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobIsolation {
    /// It is one statement that SQLite undoes by itself when it fails.
    StatementAtomic,
    /// It needs a savepoint.
    Savepoint,
    /// It needs a savepoint, and a transaction that it shares with no other.
    OwnTransaction,
    /// It runs outside of a transaction, alone, and cares for itself.
    Exclusive,
}

/// One job in the writer's queue.
pub(super) struct WriteJob {
    work: Box<dyn ErasedJob>,
    pub(super) isolation: JobIsolation,
    /// Not begun after this.
    pub(super) deadline: Instant,
    /// It removes data, so it may go over the size limit by the reserve.
    pub(super) removes: bool,
    /// It already has the reserve, or the disk's reserve is given up: then it runs by itself, and is
    /// refused if it adds something.
    pub(super) has_reserve: bool,
    /// Whose it is.
    pub(super) flow: FlowId,
    /// What it takes in memory while it waits.
    pub(super) bytes: usize,
}

/// How a job went. The outcome itself stays in the job until the group is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JobOutcome {
    Succeeded,
    Failed(Error),
    /// It panicked: nothing is known about the transaction.
    Panicked,
}

trait ErasedJob: Send {
    fn run(&mut self, conn: &mut WriterConnection) -> JobOutcome;
    fn is_abandoned(&self) -> bool;
    fn replace_error(&mut self, error: Error);
    fn send_outcome(self: Box<Self>, instead: Option<Error>);
}

struct TypedJob<T, F> {
    act: F,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> ErasedJob for TypedJob<T, F>
where
    T: Send,
    F: FnMut(&mut WriterConnection) -> Result<T> + Send,
{
    fn run(&mut self, conn: &mut WriterConnection) -> JobOutcome {
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.act)(conn)));
        let ran = match &outcome {
            Ok(Ok(_)) => JobOutcome::Succeeded,
            Ok(Err(error)) => JobOutcome::Failed(error.clone()),
            Err(_) => JobOutcome::Panicked,
        };
        self.outcome = outcome.ok();
        ran
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn replace_error(&mut self, error: Error) {
        self.outcome = Some(Err(error));
    }

    fn send_outcome(self: Box<Self>, instead: Option<Error>) {
        let outcome = match (instead, self.outcome) {
            (Some(error), _) => Err(error),
            (None, Some(outcome)) => outcome,
            (None, None) => Err(closed_error()),
        };
        // The caller may have gone away; then the outcome is dropped.
        let _ = self.reply.send(outcome);
    }
}

impl WriteJob {
    /// `act` may run more than once: when another job of its group took the whole transaction down,
    /// the group is run again without that one.
    pub(super) fn new<T, F>(
        isolation: JobIsolation,
        deadline: Instant,
        act: F,
    ) -> (WriteJob, oneshot::Receiver<Result<T>>)
    where
        T: Send + 'static,
        F: FnMut(&mut WriterConnection) -> Result<T> + Send + 'static,
    {
        let (reply, outcome) = oneshot::channel();
        let work = Box::new(TypedJob { act, outcome: None, reply });
        let (flow, bytes) = (FlowId::default(), 0);
        (
            WriteJob { work, isolation, deadline, removes: false, has_reserve: false, flow, bytes },
            outcome,
        )
    }

    pub(super) fn run(&mut self, conn: &mut WriterConnection) -> JobOutcome {
        self.work.run(conn)
    }

    /// Whether the caller went away.
    pub(super) fn is_abandoned(&self) -> bool {
        self.work.is_abandoned()
    }

    /// Puts a better error in place of the one it failed with.
    pub(super) fn replace_error(&mut self, error: Error) {
        self.work.replace_error(error);
    }

    /// Tells the caller how it went.
    pub(super) fn send_outcome(self) {
        self.work.send_outcome(None);
    }

    /// Tells the caller that it did not go well.
    pub(super) fn send_error(self, error: Error) {
        self.work.send_outcome(Some(error));
    }
}
