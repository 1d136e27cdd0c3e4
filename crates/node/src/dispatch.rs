//! The one door: every call, from a peer or from this process, is authenticated, authorised and handed to its service
//! here.

use crate::auth::{Auth, Knock};
use crate::caller::{Caller, Permission};
use crate::calls::{self, KINDS, Needs};
use crate::services::{Answer, Services};
use debros_engine::{CallOptions, CallerKey, Guard};
use debros_p2p::{CallContext, EventSource, Handler, Reply};
use debros_proto::limits::MAX_IDEMPOTENCY_KEY_BYTES;
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{Consistency, Request, Response};
use debros_proto::{Code, Error, Result, now_ms};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use metrics::{Counter, Histogram};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The least pause before the credential of an open stream is checked again, while the database can not be asked.
const CHECK_PAUSE: Duration = Duration::from_millis(500);

/// Answers calls.
pub(crate) struct Dispatcher {
    pub(crate) auth: Arc<Auth>,
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
    pub(crate) fn new(auth: Auth, services: Services) -> Self {
        let measures = KINDS.iter().map(|kind| Measure::new(kind.name)).collect();
        Self { auth: Arc::new(auth), services, measures, stopping: AtomicBool::new(false) }
    }

    /// A stream that ends when its credential does, or no longer allows it: it may be open for days, and the check at its
    /// beginning says nothing about tomorrow. It is checked again at the moment until which the last check is believed,
    /// so that a revocation is seen within 5 seconds, wherever it was made.
    fn watched(&self, events: EventSource, credential: String, namespace: String, needs: Needs) -> EventSource {
        let watch = Watch { auth: Arc::clone(&self.auth), credential, namespace, needs };
        let state = Some((events, watch, Box::pin(tokio::time::sleep(Duration::ZERO))));
        Box::pin(futures::stream::unfold(state, |state| async move {
            let (mut events, watch, mut next) = state?;
            loop {
                tokio::select! {
                    event = events.next() => return Some((event?, Some((events, watch, next)))),
                    () = &mut next => match watch.check().await {
                        Ok(pause) => next.as_mut().reset(tokio::time::Instant::now() + pause),
                        Err(error) => return Some((Err(error), None)),
                    },
                }
            }
        }))
    }

    /// Calls that need no credential.
    async fn public(
        &self,
        context: &CallContext,
        credential: &str,
        namespace: &str,
        call: Call,
    ) -> Result<debros_proto::rpc::response::Result> {
        match call {
            Call::Health(_) | Call::Status(_) => self.services.public(call).await,
            call => self.auth.knock(Knock { peer: context.peer, credential, namespace }, call).await,
        }
    }

    /// Deletes what has expired, and writes down when credentials were used last and what was refused.
    pub(crate) async fn sweep(&self) -> Result<u64> {
        let expired = self.services.engine.sweep(now_ms()).await;
        let signed_in = self.auth.sweep().await;
        let flushed = self.auth.flush().await;
        // Each does its part, whether the others could or not.
        flushed.and(Ok(expired? + signed_in?))
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
            return Box::pin(self.public(context, credential, namespace, call)).await.map(response);
        }
        let identity = self.auth.credentials.verify(credential).await?;
        let caller = Caller::new(identity, namespace)?;
        if let Ok(namespace) = caller.namespace() {
            self.auth.check_there(namespace)?;
        }
        if let Needs::Permission(permission) = kind.needs {
            caller.require(permission)?;
            if caller.identity().namespace.is_none()
                && permission != Permission::Operate
                && let Ok(namespace) = caller.namespace()
            {
                self.auth.operator_acts_in(namespace).await?;
            }
        }
        let mut guard = guard(idempotency_key, &call, kind)?;
        let identity = caller.identity();
        if let Some(guard) = &mut guard
            && caller.namespace().is_ok_and(|namespace| self.auth.is_open(namespace))
        {
            // Those who meet in an open namespace do not know of each other: one's key must not be answered with what
            // another did. No subject holds a colon.
            let who = identity.wallet.map_or_else(|| identity.subject.clone(), |wallet| wallet.to_string());
            guard.key = format!("{who}:{}", guard.key);
        }
        // All of a wallet's sessions and keys are one caller: it can have as many as it likes.
        let caller_key = identity.wallet.map_or_else(|| CallerKey::of(&identity.subject), CallerKey::of);
        let options = CallOptions {
            consistency: Consistency::Weak,
            deadline: context.deadline,
            guard,
            caller: caller_key,
            read_only: false,
        };
        match self.services.call(&self.auth, &caller, call, options).await? {
            Answer::Plain { result, replayed } => Ok(response_of(result, replayed)),
            Answer::Stream { result, events } => {
                let events = self.watched(events, credential.to_owned(), namespace.to_owned(), kind.needs);
                Ok(Reply::Stream(Response { replayed: false, result: Some(result) }, events))
            }
        }
    }
}

/// What has to hold for a stream to stay open.
struct Watch {
    auth: Arc<Auth>,
    credential: String,
    namespace: String,
    needs: Needs,
}

impl Watch {
    /// How long what holds now may be believed; an error when it does not hold.
    async fn check(&self) -> Result<Duration> {
        let (identity, until) = match self.auth.credentials.verify_until(&self.credential).await {
            Ok(verified) => verified,
            Err(error) if error.code == Code::Unauthenticated => return Err(error),
            // A database that can not be asked now says nothing against the credential.
            Err(_) => return Ok(CHECK_PAUSE),
        };
        if let Needs::Permission(permission) = self.needs {
            Caller::new(identity, &self.namespace)?.require(permission)?;
        }
        Ok(self.auth.credentials.left(until).max(CHECK_PAUSE))
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
