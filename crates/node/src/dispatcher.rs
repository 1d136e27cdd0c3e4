//! The one dispatcher: every call, from a peer or from this process, is authenticated, authorised
//! and passed to its service here.

use crate::auth::{AuthService, CallOrigin, PublicRequest};
use crate::caller::{Caller, CredentialSource, Permission, VerifiedIdentity};
use crate::cluster::{NodeReply, Relay};
use crate::services::{NodeServices, ServiceReply};
use debros_engine::{CallOptions, CallerKey, IdempotencyKey};
use debros_p2p::{CallContext, EventSource, Handler, Reply, TrustLevel};
use debros_proto::call_kinds::{CALL_KINDS, CallKind, CallRequirement};
use debros_proto::limits::MAX_IDEMPOTENCY_KEY_BYTES;
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, response};
use debros_proto::rpc::{Consistency, Request, Response};
use debros_proto::{Code, Error, Namespace, Result, now_ms};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use metrics::{Counter, Histogram};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The least pause before the credential of an open stream is checked again, while the database
/// cannot be read.
const CHECK_PAUSE: Duration = Duration::from_millis(500);

/// Answers calls.
pub(crate) struct CallDispatcher {
    pub(crate) auth: Arc<AuthService>,
    pub(crate) services: NodeServices,
    metrics: Vec<CallMetrics>,
    stopping: AtomicBool,
    /// Only other nodes are answered.
    joining: AtomicBool,
    operator_credential: String,
    /// The node holds no data: others answer.
    relay: Option<Relay>,
}

/// What is counted of one kind of call. Registered once: looking a metric up by its labels costs
/// more than many calls.
struct CallMetrics {
    answered: Counter,
    refused: Counter,
    failed: Counter,
    took: Histogram,
}

impl CallDispatcher {
    pub(crate) fn new(
        auth: AuthService,
        services: NodeServices,
        operator_credential: String,
        relay: Option<Relay>,
    ) -> Self {
        let metrics = CALL_KINDS.iter().map(|kind| CallMetrics::new(kind.name)).collect();
        Self {
            auth: Arc::new(auth),
            services,
            metrics,
            stopping: AtomicBool::new(false),
            joining: AtomicBool::new(false),
            operator_credential,
            relay,
        }
    }

    /// A stream that ends when its credential does, or no longer allows it: it may be open for
    /// days, and the check at its start holds for seconds. It is checked again when the last check
    /// expires, so that a revocation is seen within 5 seconds, wherever it was made.
    fn revalidating_stream(
        &self,
        events: EventSource,
        credential: String,
        namespace: String,
        requirement: CallRequirement,
    ) -> EventSource {
        let watch = StreamAuthorization {
            auth: Arc::clone(&self.auth),
            credential,
            namespace,
            requirement,
        };
        let state = Some((events, watch, Box::pin(tokio::time::sleep(Duration::ZERO))));
        Box::pin(futures::stream::unfold(state, |state| async move {
            let (mut events, watch, mut next) = state?;
            loop {
                tokio::select! {
                    event = events.next() => return Some((event?, Some((events, watch, next)))),
                    () = &mut next => match watch.revalidate().await {
                        Ok(pause) => next.as_mut().reset(tokio::time::Instant::now() + pause),
                        Err(error) => return Some((Err(error), None)),
                    },
                }
            }
        }))
    }

    /// Calls that need no credential.
    async fn handle_public(
        &self,
        context: &CallContext,
        proof: RequestCredentials<'_>,
        call: Call,
    ) -> Result<debros_proto::rpc::response::Result> {
        match call {
            Call::Health(_) | Call::Status(_) => self.services.call_public(call).await,
            Call::NodeHello(_) | Call::NodeProof(_) | Call::JoinCluster(_) => {
                self.auth.count_public_call(CallOrigin::from_call(context, "")?)?;
                self.services.cluster.public_call(context, call).await
            }
            call => {
                let origin = CallOrigin::from_call(context, proof.caller_address)?;
                let RequestCredentials { credential, namespace, .. } = proof;
                self.auth
                    .handle_public(
                        PublicRequest { peer: context.peer, origin, credential, namespace },
                        call,
                    )
                    .await
            }
        }
    }

    /// Deletes what has expired, and writes down when credentials were used last and what was
    /// refused.
    pub(crate) async fn sweep(&self) -> Result<u64> {
        let expired = self.services.engine.sweep(now_ms()).await;
        let signed_in = self.auth.sweep().await;
        let flushed = self.auth.flush_counts().await;
        // Each does its part, whether the others could or not.
        flushed.and(Ok(expired? + signed_in?))
    }

    /// From now on only other nodes are answered: the node has no data to serve.
    pub(crate) fn refuse_callers(&self) {
        self.joining.store(true, Ordering::Release);
    }

    /// From now on calls are answered with `unavailable`.
    pub(crate) fn refuse_calls(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// The line of a call from elsewhere, at level debug. What a gateway in this process passes on
    /// has a line there.
    async fn log_served(
        &self,
        context: &CallContext,
        kind: &CallKind,
        error: Option<&Error>,
        took: Duration,
        request_id: &str,
        proof: RequestCredentials<'_>,
    ) {
        // The credential was verified a moment ago, and the result is cached.
        let verified = self.auth.credentials.verify(proof.credential).await.ok();
        let own = verified.and_then(|identity| identity.namespace.clone());
        let own = own.or_else(|| Namespace::new(proof.namespace).ok());
        let namespace = own.as_ref().map(Namespace::as_str).unwrap_or_default();
        let peer = context.peer.map(|peer| peer.to_string()).unwrap_or_default();
        let status = error.map_or("ok", |error| error.code.name());
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(call = kind.name, status, ms, request_id, namespace, peer, "answered");
    }

    /// Answers a call: here, or has it answered where the data is.
    async fn answer(
        &self,
        context: &CallContext,
        proof: RequestCredentials<'_>,
        idempotency_key: &str,
        call: Call,
        kind: &CallKind,
    ) -> Result<Reply> {
        if let Some(relay) = &self.relay {
            let call = IncomingCall { context, proof, idempotency_key, call, kind };
            return Box::pin(self.answer_as_relay(relay, call)).await;
        }
        match proof.relayed {
            None => self.authorize_and_run(context, proof, idempotency_key, call, kind).await,
            Some(relayed) => {
                self.services.cluster.require_node(context)?;
                self.check_serves_callers()?;
                let mut proof = RequestCredentials { relayed: None, ..proof };
                if relayed.operator {
                    proof.credential = &self.operator_credential;
                }
                // What the node says of its caller is believed as if that were in this process.
                let deadline = context.deadline;
                let inside = CallContext { peer: None, trust: None, connection: None, deadline };
                let run = self.authorize_and_run(&inside, proof, idempotency_key, call, kind);
                Box::pin(run).await
            }
        }
    }

    pub(crate) fn check_not_stopping(&self) -> Result<()> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Error::new(Code::Unavailable, "the node is stopping"));
        }
        Ok(())
    }

    fn check_serves_callers(&self) -> Result<()> {
        if self.joining.load(Ordering::Acquire) {
            return Err(Error::new(
                Code::Unavailable,
                "the node copies the cluster's data; try again",
            ));
        }
        Ok(())
    }

    pub(crate) async fn authorize_and_run(
        &self,
        context: &CallContext,
        proof: RequestCredentials<'_>,
        idempotency_key: &str,
        call: Call,
        kind: &CallKind,
    ) -> Result<Reply> {
        self.check_not_stopping()?;
        if kind.requires == CallRequirement::Nothing {
            // Others' answers would come from a database that is thrown away.
            if !is_of_entering(&call) {
                self.check_serves_callers()?;
            }
            return Box::pin(self.handle_public(context, proof, call)).await.map(plain_reply);
        }
        if kind.requires == CallRequirement::Node {
            let peer = self.services.cluster.require_node(context)?;
            return match Box::pin(self.services.cluster.node_call(context, peer, call)).await? {
                NodeReply::Plain(result) => Ok(plain_reply(*result)),
                NodeReply::Stream(events) => {
                    let opened = response::Result::StreamOpened(rpc::StreamOpened {});
                    Ok(Reply::Stream(Response { replayed: false, result: Some(opened) }, events))
                }
            };
        }
        self.check_serves_callers()?;
        let RequestCredentials { credential, namespace, lent, .. } = proof;
        let mut identity = self.auth.credentials.verify(credential).await?;
        raise_trust(context, &identity);
        if lent {
            identity = self.auth.credentials.lent_identity(&identity);
        }
        let caller = Caller::new(identity, namespace)?;
        if let Ok(namespace) = caller.namespace() {
            self.auth.check_not_deleting(namespace)?;
        }
        if let CallRequirement::Permission(permission) = kind.requires {
            caller.require(permission)?;
            if caller.identity().namespace.is_none()
                && permission != Permission::Operate
                && let Ok(namespace) = caller.namespace()
            {
                self.auth.claim_for_operator(namespace).await?;
            }
        }
        let mut once_key = if idempotency_key.is_empty() {
            None
        } else {
            make_idempotency_key(idempotency_key, &caller, &call, kind)?
        };
        let identity = caller.identity();
        if let Some(once_key) = &mut once_key
            && caller.namespace().is_ok_and(|namespace| self.auth.is_open(namespace))
        {
            // The callers in an open namespace do not know each other: one's key must not return
            // another's answer. No subject holds a colon.
            let subject = identity
                .wallet
                .map_or_else(|| identity.subject.clone(), |wallet| wallet.to_string());
            once_key.key = format!("{subject}:{}", once_key.key);
        }
        // All of a wallet's sessions and keys are one caller: it can have as many as it likes.
        let caller_key =
            identity.wallet.map_or_else(|| CallerKey::of(&identity.subject), CallerKey::of);
        let options = CallOptions {
            consistency: Consistency::Weak,
            deadline: context.deadline,
            idempotency_key: once_key,
            caller: caller_key,
            read_only: false,
        };
        match self.services.call(&self.auth, &caller, call, options).await? {
            ServiceReply::Plain { result, replayed } => Ok(reply_with(result, replayed)),
            ServiceReply::Stream { result, events } => {
                let events = self.revalidating_stream(
                    events,
                    credential.to_owned(),
                    namespace.to_owned(),
                    kind.requires,
                );
                Ok(Reply::Stream(Response { replayed: false, result: Some(result) }, events))
            }
        }
    }
}

/// What a request says about its sender.
#[derive(Clone, Copy)]
pub(crate) struct RequestCredentials<'a> {
    pub(crate) credential: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) request_id: &'a str,
    pub(crate) lent: bool,
    pub(crate) caller_address: &'a str,
    pub(crate) relayed: Option<rpc::RelayedCaller>,
}

/// A call that came to a relay.
pub(crate) struct IncomingCall<'a> {
    pub(crate) context: &'a CallContext,
    pub(crate) proof: RequestCredentials<'a>,
    pub(crate) idempotency_key: &'a str,
    pub(crate) call: Call,
    pub(crate) kind: &'a CallKind,
}

/// What a node answers that is being let into the cluster.
fn is_of_entering(call: &Call) -> bool {
    matches!(call, Call::Status(_) | Call::NodeHello(_) | Call::NodeProof(_) | Call::JoinCluster(_))
}

/// A peer with a valid credential keeps its place among the connections; the operator's makes a
/// gateway trusted about its users. A session of an admin does not: it passes through gateways of
/// others.
fn raise_trust(context: &CallContext, identity: &VerifiedIdentity) {
    if let Some(trust) = &context.trust {
        let is_operator = identity.source == CredentialSource::Operator;
        trust.raise_level(if is_operator { TrustLevel::Operator } else { TrustLevel::Member });
    }
}

/// What has to hold for a stream to stay open.
struct StreamAuthorization {
    auth: Arc<AuthService>,
    credential: String,
    namespace: String,
    requirement: CallRequirement,
}

impl StreamAuthorization {
    /// How long the authorisation holds without another check; an error when it does not hold.
    async fn revalidate(&self) -> Result<Duration> {
        let (identity, until) = match self.auth.credentials.verify_until(&self.credential).await {
            Ok(verified) => verified,
            Err(error) if error.code.is_unauthenticated() => return Err(error),
            // A database that cannot be read now says nothing against the credential.
            Err(_) => return Ok(CHECK_PAUSE),
        };
        if let CallRequirement::Permission(permission) = self.requirement {
            Caller::new(identity, &self.namespace)?.require(permission)?;
        }
        Ok(self.auth.credentials.time_left(until).max(CHECK_PAUSE))
    }
}

/// The handler that the P2P host and the client inside the node call.
pub(crate) struct RpcHandler(pub(crate) Arc<CallDispatcher>);

impl Handler for RpcHandler {
    fn call(&self, context: CallContext, request: Request) -> BoxFuture<'static, Result<Reply>> {
        let dispatcher = Arc::clone(&self.0);
        Box::pin(async move {
            let Request {
                credential,
                namespace,
                idempotency_key,
                request_id,
                lent,
                caller_address,
                relayed,
                call,
                ..
            } = request;
            let Some(call) = call else {
                return Err(Error::new(
                    Code::Unimplemented,
                    "this node does not know the call: is it of an older version?",
                ));
            };
            let kind = CallKind::of(&call);
            let began = Instant::now();
            let proof = RequestCredentials {
                credential: &credential,
                namespace: &namespace,
                request_id: &request_id,
                lent,
                caller_address: &caller_address,
                relayed,
            };
            let answer = dispatcher.answer(&context, proof, &idempotency_key, call, kind).await;
            let (took, error) = (began.elapsed(), answer.as_ref().err());
            if context.peer.is_some() && tracing::enabled!(tracing::Level::DEBUG) {
                Box::pin(dispatcher.log_served(&context, kind, error, took, &request_id, proof))
                    .await;
            }
            dispatcher.metrics[kind.index].count_answer(kind, error, took, &request_id);
            answer
        })
    }
}

pub(crate) fn plain_reply(result: debros_proto::rpc::response::Result) -> Reply {
    reply_with(result, false)
}

fn reply_with(result: debros_proto::rpc::response::Result, replayed: bool) -> Reply {
    Reply::Response(Response { replayed, result: Some(result) })
}

/// The idempotency key of a write, with the hash of its call; `None` when the call takes none.
fn make_idempotency_key(
    key: &str,
    caller: &Caller,
    call: &Call,
    kind: &CallKind,
) -> Result<Option<IdempotencyKey>> {
    if key.len() > MAX_IDEMPOTENCY_KEY_BYTES {
        return Err(Error::invalid(format!(
            "the idempotency key has more than {MAX_IDEMPOTENCY_KEY_BYTES} bytes"
        )));
    }
    if !kind.takes_idempotency_key {
        return Ok(None);
    }
    // The encoding of a message is the same each time within one version, and a changed encoding in
    // another version only turns a replay across an upgrade into a refusal.
    let mut bytes = bytes::BytesMut::new();
    call.encode(&mut bytes);
    let namespace = caller.namespace()?.clone();
    Ok(Some(IdempotencyKey {
        namespace,
        key: key.to_owned(),
        request_hash: Sha256::digest(&bytes).into(),
    }))
}

impl CallMetrics {
    fn new(call: &'static str) -> Self {
        let counter = |outcome: &'static str| metrics::counter!("debros_node_calls_total", "call" => call, "outcome" => outcome);
        Self {
            answered: counter("ok"),
            refused: counter("refused"),
            failed: counter("error"),
            took: metrics::histogram!("debros_node_call_seconds", "call" => call),
        }
    }

    /// Counts an answer, and writes errors to the log at level debug.
    fn count_answer(
        &self,
        kind: &CallKind,
        error: Option<&Error>,
        took: Duration,
        request_id: &str,
    ) {
        self.took.record(took);
        match error {
            None => self.answered.increment(1),
            Some(error)
                if error.code.is_unauthenticated()
                    || matches!(error.code, Code::Forbidden | Code::NamespaceMismatch) =>
            {
                self.refused.increment(1);
                tracing::debug!(call = kind.name, request_id, code = %error.code, "refused");
            }
            Some(error) => {
                self.failed.increment(1);
                tracing::debug!(call = kind.name, request_id, code = %error.code, error = %error.message, "failed");
            }
        }
    }
}
