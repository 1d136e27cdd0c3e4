//! Work for the writer thread: something to do in a transaction, and someone who waits for the outcome.

use super::conn::Conn;
use super::queue::{Flow, closed};
use debros_proto::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use tokio::sync::oneshot;

/// How a job is kept apart from the others of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undo {
    /// It is one statement that SQLite undoes by itself when it fails.
    Statement,
    /// It needs a savepoint.
    Savepoint,
    /// It needs a savepoint, and a transaction that it shares with nobody.
    OwnGroup,
    /// It runs outside of a transaction, alone, and cares for itself.
    Alone,
}

/// One job in the writer's queue.
pub(super) struct Job {
    work: Box<dyn Work>,
    pub(super) undo: Undo,
    /// Not begun after this.
    pub(super) deadline: Instant,
    /// It removes data, so it may go over the size limit by the reserve.
    pub(super) removes: bool,
    /// It already has the reserve.
    pub(super) has_reserve: bool,
    /// Whose it is.
    pub(super) flow: Flow,
    /// What it takes in memory while it waits.
    pub(super) bytes: usize,
}

/// How a job went. The outcome itself stays in the job until the group is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    Well,
    Failed(Error),
    /// It panicked: nothing is known about the transaction.
    Panicked,
}

trait Work: Send {
    fn run(&mut self, conn: &mut Conn) -> Ran;
    fn is_abandoned(&self) -> bool;
    fn amend(&mut self, error: Error);
    fn answer(self: Box<Self>, instead: Option<Error>);
}

struct Task<T, F> {
    act: F,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F> Work for Task<T, F>
where
    T: Send,
    F: FnMut(&mut Conn) -> Result<T> + Send,
{
    fn run(&mut self, conn: &mut Conn) -> Ran {
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.act)(conn)));
        let ran = match &outcome {
            Ok(Ok(_)) => Ran::Well,
            Ok(Err(error)) => Ran::Failed(error.clone()),
            Err(_) => Ran::Panicked,
        };
        self.outcome = outcome.ok();
        ran
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn amend(&mut self, error: Error) {
        self.outcome = Some(Err(error));
    }

    fn answer(self: Box<Self>, instead: Option<Error>) {
        let outcome = match (instead, self.outcome) {
            (Some(error), _) => Err(error),
            (None, Some(outcome)) => outcome,
            (None, None) => Err(closed()),
        };
        // The caller may have gone away; then nobody wants to know.
        let _ = self.reply.send(outcome);
    }
}

impl Job {
    /// `act` may run more than once: when another job of its group took the whole transaction down, the group is run
    /// again without that one.
    pub(super) fn new<T, F>(undo: Undo, deadline: Instant, act: F) -> (Job, oneshot::Receiver<Result<T>>)
    where
        T: Send + 'static,
        F: FnMut(&mut Conn) -> Result<T> + Send + 'static,
    {
        let (reply, outcome) = oneshot::channel();
        let work = Box::new(Task { act, outcome: None, reply });
        let (flow, bytes) = (Flow::default(), 0);
        (Job { work, undo, deadline, removes: false, has_reserve: false, flow, bytes }, outcome)
    }

    pub(super) fn run(&mut self, conn: &mut Conn) -> Ran {
        self.work.run(conn)
    }

    /// Whether the caller went away.
    pub(super) fn is_abandoned(&self) -> bool {
        self.work.is_abandoned()
    }

    /// Puts a better error in place of the one it failed with.
    pub(super) fn amend(&mut self, error: Error) {
        self.work.amend(error);
    }

    /// Tells the caller how it went.
    pub(super) fn answer(self) {
        self.work.answer(None);
    }

    /// Tells the caller that it did not go well.
    pub(super) fn refuse(self, error: Error) {
        self.work.answer(Some(error));
    }
}
