//! The one door: every call, from a peer or from this process, is authenticated, authorised and handed to its service
//! here.

use crate::auth::{Auth, Knock, Origin};
use crate::caller::{Caller, Identity, Permission, Source};
use crate::calls::{self, KINDS, Needs};
use crate::services::{Answer, Services};
use debros_engine::{CallOptions, CallerKey, Guard};
use debros_p2p::{CallContext, EventSource, Handler, Reply, TrustLevel};
use debros_proto::limits::MAX_IDEMPOTENCY_KEY_BYTES;
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{Consistency, Request, Response};
use debros_proto::{Code, Error, Namespace, Result, now_ms};
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
        proof: Proof<'_>,
        call: Call,
    ) -> Result<debros_proto::rpc::response::Result> {
        match call {
            Call::Health(_) | Call::Status(_) => self.services.public(call).await,
            call => {
                let origin = Origin::of_call(context, proof.caller_address)?;
                let Proof { credential, namespace, .. } = proof;
                self.auth.knock(Knock { peer: context.peer, origin, credential, namespace }, call).await
            }
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
        let Request { credential, namespace, idempotency_key, request_id, lent, caller_address, call, .. } = request;
        let Some(call) = call else {
            return Err(Error::new(
                Code::Unimplemented,
                "this node does not know the call: is it of an older version?",
            ));
        };
        let kind = calls::kind_of(&call);
        let began = Instant::now();
        let proof = Proof { credential: &credential, namespace: &namespace, lent, caller_address: &caller_address };
        let answer = self.authorised(&context, proof, &idempotency_key, call, kind).await;
        let measure = &self.measures[kind.index];
        let took = began.elapsed();
        measure.took.record(took);
        if context.peer.is_some() && tracing::enabled!(tracing::Level::DEBUG) {
            let status = answer.as_ref().err().map_or("ok", |error| error.code.name());
            Box::pin(self.log_served(&context, kind.name, status, took, &request_id, &credential, &namespace)).await;
        }
        match &answer {
            Ok(_) => measure.answered.increment(1),
            Err(error)
                if error.code.is_unauthenticated()
                    || matches!(error.code, Code::Forbidden | Code::NamespaceMismatch) =>
            {
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

    /// The line of a call from elsewhere, at level debug. What a gateway in this process passes on has a line there.
    #[allow(clippy::too_many_arguments, reason = "each is one field of the line")]
    async fn log_served(
        &self,
        context: &CallContext,
        call: &str,
        status: &str,
        took: Duration,
        request_id: &str,
        credential: &str,
        named: &str,
    ) {
        // It was looked up a moment ago, and is remembered.
        let own = self.auth.credentials.verify(credential).await.ok().and_then(|identity| identity.namespace.clone());
        let own = own.or_else(|| Namespace::new(named).ok());
        let namespace = own.as_ref().map(Namespace::as_str).unwrap_or_default();
        let peer = context.peer.map(|peer| peer.to_string()).unwrap_or_default();
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(call, status, ms, request_id, namespace, peer, "answered");
    }

    async fn authorised(
        &self,
        context: &CallContext,
        proof: Proof<'_>,
        idempotency_key: &str,
        call: Call,
        kind: &calls::Kind,
    ) -> Result<Reply> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Error::new(Code::Unavailable, "the node is stopping"));
        }
        if kind.needs == Needs::Nothing {
            return Box::pin(self.public(context, proof, call)).await.map(response);
        }
        let Proof { credential, namespace, lent, .. } = proof;
        let mut identity = self.auth.credentials.verify(credential).await?;
        note_proof(context, &identity);
        if lent {
            identity = self.auth.credentials.lent(&identity);
        }
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
        let mut guard = guard(idempotency_key, &caller, &call, kind)?;
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

/// What a request says of who sends it.
#[derive(Clone, Copy)]
struct Proof<'a> {
    credential: &'a str,
    namespace: &'a str,
    lent: bool,
    caller_address: &'a str,
}

/// Whoever shows a valid credential keeps its place among the connections; the operator's makes a gateway one that is
/// believed about its users. A session of an admin does not: it passes through gateways of others.
fn note_proof(context: &CallContext, identity: &Identity) {
    if let Some(trust) = &context.trust {
        let is_operator = identity.source == Source::Operator;
        trust.raise(if is_operator { TrustLevel::Operator } else { TrustLevel::Member });
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
            Err(error) if error.code.is_unauthenticated() => return Err(error),
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
fn guard(key: &str, caller: &Caller, call: &Call, kind: &calls::Kind) -> Result<Option<Guard>> {
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
    let namespace = caller.namespace()?.clone();
    Ok(Some(Guard { namespace, key: key.to_owned(), request_hash: Sha256::digest(&bytes).into() }))
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
