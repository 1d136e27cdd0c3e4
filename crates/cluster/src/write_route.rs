//! Where a write happens: here when this node leads, else on the leader, which is asked again when
//! the lead changes.

use crate::leader_link::LeaderLink;
use crate::progress::Progress;
use debros_engine::{CallOptions, TargetDatabase, WriteOutcome};
use debros_proto::rpc::{
    LeaderWriteRequest, LeaderWriteResponse, leader_write_request, leader_write_response,
};
use debros_proto::{Code, Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// The pause before a leader is looked for again.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a leader is looked for, whatever time the caller has.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(5);
/// How long a write that is done waits until this node has it too.
const APPLY_WAIT: Duration = Duration::from_secs(2);

pub(crate) struct WriteRoute {
    node: String,
    progress: Arc<Progress>,
    link: Arc<dyn LeaderLink>,
    is_closed: AtomicBool,
}

impl WriteRoute {
    pub(crate) fn new(node: String, progress: Arc<Progress>, link: Arc<dyn LeaderLink>) -> Self {
        Self { node, progress, link, is_closed: AtomicBool::new(false) }
    }

    /// Passes nothing on from now on.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, SeqCst);
    }

    /// Has the leader do a write in a database, or several: `local` when that is this node, else
    /// `request` is sent to it, and `read` takes its answer apart. Repeated as long as it surely was
    /// not done, or has a key that makes it happen once. The call came at `came`: whatever it has
    /// waited for since then is a part of the time for which a leader is looked for.
    ///
    /// # Errors
    /// The write's own; `unavailable` when no leader took it in time.
    pub(crate) async fn write<T, F>(
        &self,
        came: Instant,
        database: Option<&TargetDatabase>,
        options: &CallOptions,
        local: impl Fn() -> F,
        request: impl Fn() -> LeaderWriteRequest,
        read: fn(leader_write_response::Result) -> Option<T>,
    ) -> Result<WriteOutcome<T>>
    where
        F: Future<Output = Result<WriteOutcome<T>>>,
    {
        let until = options.deadline.min(came + MAX_WAIT);
        let mut is_unknown = false;
        loop {
            // The engine here says that it is closed.
            let outcome = if self.progress.is_leader() || self.is_closed.load(SeqCst) {
                local().await
            } else {
                self.pass_on(database, request(), until)
                    .await
                    .and_then(|answer| take_apart(answer, read))
            };
            let error = match outcome {
                Err(error) if is_not_done(&error) && !self.is_closed.load(SeqCst) => error,
                Err(error)
                    if error.code == Code::UnknownOutcome && options.idempotency_key.is_some() =>
                {
                    is_unknown = true;
                    error
                }
                // This node does not look for a leader any more.
                Err(error) if is_not_done(&error) => {
                    return Err(if is_unknown { unknown_error() } else { no_leader_error(&error) });
                }
                outcome => return outcome,
            };
            if Instant::now() + PAUSE >= until {
                return Err(if is_unknown { unknown_error() } else { no_leader_error(&error) });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn pass_on(
        &self,
        database: Option<&TargetDatabase>,
        request: LeaderWriteRequest,
        until: Instant,
    ) -> Result<LeaderWriteResponse> {
        let leader = self.progress.leader().filter(|leader| *leader != self.node);
        let leader = leader.ok_or_else(|| Error::new(Code::NotLeader, "no node leads now"))?;
        // The node that led may be gone without a word.
        let answer = tokio::select! {
            answer = self.link.write(&leader, request, until) => answer?,
            () = self.progress.wait_for_other_leader(&leader) => return Err(unknown_error()),
        };
        // So that what reads here next sees it. It is done, however long that takes.
        let applied = self.progress.wait_applied(database, answer.position);
        let _ = tokio::time::timeout(APPLY_WAIT, applied).await;
        Ok(answer)
    }
}

/// What a node sends the leader.
pub(crate) fn leader_request(
    namespace: &str,
    options: &CallOptions,
    write: leader_write_request::Write,
) -> LeaderWriteRequest {
    let (key_namespace, key, request_hash) = match &options.idempotency_key {
        None => Default::default(),
        Some(of) => (
            of.namespace.as_str().to_owned(),
            of.key.clone(),
            bytes::Bytes::copy_from_slice(&of.request_hash),
        ),
    };
    LeaderWriteRequest {
        namespace: namespace.to_owned(),
        key_namespace,
        key,
        request_hash,
        caller: options.caller.0,
        read_only: options.read_only,
        write: Some(write),
    }
}

fn take_apart<T>(
    answer: LeaderWriteResponse,
    read: fn(leader_write_response::Result) -> Option<T>,
) -> Result<WriteOutcome<T>> {
    let value = answer.result.and_then(read).ok_or_else(|| {
        Error::new(
            Code::UnknownOutcome,
            "the leader answered with something else: is it of another version?",
        )
    })?;
    Ok(WriteOutcome { value, replayed: answer.replayed })
}

/// Whether a write surely did nothing, and another node may do it.
fn is_not_done(error: &Error) -> bool {
    matches!(error.code, Code::NotLeader | Code::Unavailable)
}

fn unknown_error() -> Error {
    Error::new(
        Code::UnknownOutcome,
        "the cluster did not confirm the write in time: it may be there, or not",
    )
}

fn no_leader_error(last: &Error) -> Error {
    if last.code == Code::Unavailable {
        return last.clone();
    }
    Error::new(
        Code::Unavailable,
        "the cluster has no leader that this node can reach: it may be cut off, or an election is under way; nothing was \
         changed",
    )
    .retry_after(Duration::from_secs(1))
}
