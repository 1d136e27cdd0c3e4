//! The one door: every call, from a peer or from this process, is authenticated, authorised and handed to its service
//! here.

use crate::caller::Caller;
use crate::calls::{self, KINDS, Needs};
use crate::credentials::Credentials;
use crate::services::{Answer, Services};
use debros_engine::{CallOptions, Guard};
use debros_p2p::{CallContext, EventSource, Handler, Reply};
use debros_proto::limits::MAX_IDEMPOTENCY_KEY_BYTES;
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{Consistency, Request, Response};
use debros_proto::{Code, Error, Result};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use metrics::{Counter, Histogram};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// How often the credential of an open stream is checked again: a revoked key may go on for 5 seconds.
const CHECK_AGAIN: Duration = Duration::from_secs(4);

/// Answers calls.
pub(crate) struct Dispatcher {
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) services: Services,
    measures: Vec<Measure>,
    stopping: AtomicBool,
}

/// What is counted of one kind of call. Registered once: looking a metric up by its labels costs more than many calls.
struct Measure {
    answered: Counter,
    refused: Counter,
    failed: Counter,
    took: Histogram,
}

impl Dispatcher {
    pub(crate) fn new(credentials: Credentials, services: Services) -> Self {
        let measures = KINDS.iter().map(|kind| Measure::new(kind.name)).collect();
        Self { credentials: Arc::new(credentials), services, measures, stopping: AtomicBool::new(false) }
    }

    /// A stream that ends when its credential does: it may be open for days, and the check at its beginning says nothing
    /// about tomorrow.
    fn watched(&self, events: EventSource, credential: String) -> EventSource {
        let mut again = tokio::time::interval_at(tokio::time::Instant::now() + CHECK_AGAIN, CHECK_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let state = Some((events, again, Arc::clone(&self.credentials), credential));
        Box::pin(futures::stream::unfold(state, |state| async move {
            let (mut events, mut again, credentials, credential) = state?;
            loop {
                tokio::select! {
                    event = events.next() => return Some((event?, Some((events, again, credentials, credential)))),
                    _ = again.tick() => match credentials.verify(&credential).await {
                        Err(error) if error.code == Code::Unauthenticated => return Some((Err(error), None)),
                        // A database that can not be asked now says nothing against the credential.
                        _ => {}
                    },
                }
            }
        }))
    }

    /// From now on calls are answered with `unavailable`.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    async fn answer(&self, context: CallContext, request: Request) -> Result<Reply> {
        let Request { credential, namespace, idempotency_key, request_id, call, .. } = request;
        let Some(call) = call else {
            return Err(Error::new(
                Code::Unimplemented,
                "this node does not know the call: is it of an older version?",
            ));
        };
        let kind = calls::kind_of(&call);
        let began = Instant::now();
        let answer = self.authorised(&context, &credential, &namespace, &idempotency_key, call, kind).await;
        let measure = &self.measures[kind.index];
        measure.took.record(began.elapsed());
        match &answer {
            Ok(_) => measure.answered.increment(1),
            Err(error) if matches!(error.code, Code::Unauthenticated | Code::Forbidden | Code::NamespaceMismatch) => {
                measure.refused.increment(1);
                tracing::debug!(call = kind.name, request_id, code = %error.code, "refused");
            }
            Err(error) => {
                measure.failed.increment(1);
                tracing::debug!(call = kind.name, request_id, code = %error.code, error = %error.message, "failed");
            }
        }
        answer
    }

    async fn authorised(
        &self,
        context: &CallContext,
        credential: &str,
        namespace: &str,
        idempotency_key: &str,
        call: Call,
        kind: &calls::Kind,
    ) -> Result<Reply> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Error::new(Code::Unavailable, "the node is stopping"));
        }
        if kind.needs == Needs::Nothing {
            return Box::pin(self.services.public(call)).await.map(response);
        }
        let identity = self.credentials.verify(credential).await?;
        let caller = Caller::new(identity, namespace)?;
        if let Needs::Permission(permission) = kind.needs {
            caller.require(permission)?;
        }
        let guard = guard(idempotency_key, &call, kind)?;
        let options =
            CallOptions { consistency: Consistency::Weak, deadline: context.deadline, guard, read_only: false };
        match self.services.call(&self.credentials, &caller, call, options).await? {
            Answer::Plain { result, replayed } => Ok(response_of(result, replayed)),
            Answer::Stream { result, events } => {
                let events = self.watched(events, credential.to_owned());
                Ok(Reply::Stream(Response { replayed: false, result: Some(result) }, events))
            }
        }
    }
}

/// The handler that the P2P host and the client inside the node call.
pub(crate) struct Door(pub(crate) Arc<Dispatcher>);

impl Handler for Door {
    fn call(&self, context: CallContext, request: Request) -> BoxFuture<'static, Result<Reply>> {
        let dispatcher = Arc::clone(&self.0);
        Box::pin(async move { dispatcher.answer(context, request).await })
    }
}

fn response(result: debros_proto::rpc::response::Result) -> Reply {
    response_of(result, false)
}

fn response_of(result: debros_proto::rpc::response::Result, replayed: bool) -> Reply {
    Reply::Response(Response { replayed, result: Some(result) })
}

/// What makes the write happen once, if the caller asked for that.
fn guard(key: &str, call: &Call, kind: &calls::Kind) -> Result<Option<Guard>> {
    if key.is_empty() {
        return Ok(None);
    }
    if key.len() > MAX_IDEMPOTENCY_KEY_BYTES {
        return Err(Error::invalid(format!("the idempotency key has more than {MAX_IDEMPOTENCY_KEY_BYTES} bytes")));
    }
    if !kind.takes_key {
        return Ok(None);
    }
    // The encoding of a message is the same each time within one version, and a changed encoding in another version
    // only turns a replay across an upgrade into a refusal.
    let mut bytes = bytes::BytesMut::new();
    call.encode(&mut bytes);
    Ok(Some(Guard { key: key.to_owned(), request_hash: Sha256::digest(&bytes).into() }))
}

impl Measure {
    fn new(call: &'static str) -> Self {
        let counter =
            |outcome: &'static str| metrics::counter!("debros_node_calls_total", "call" => call, "outcome" => outcome);
        Self {
            answered: counter("ok"),
            refused: counter("refused"),
            failed: counter("error"),
            took: metrics::histogram!("debros_node_call_seconds", "call" => call),
        }
    }
}
