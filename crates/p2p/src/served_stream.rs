//! The calls of one served stream: started within the caller's limits, run each in its own task,
//! answered through the stream's queue.

use crate::call_errors::{
    DEADLINE_GRACE, answer_too_large_error, answer_unread_error, timeout_error,
};
use crate::framed_stream::StreamError;
use crate::handler::{CallContext, EventSource, Reply};
use crate::peer_quota::{BoundedCounter, CounterPermit, PeerQuota};
use crate::peer_trust::{PeerTrust, RunningCallGuard};
use crate::send_queue::{PushError, SendQueue};
use crate::serving_context::ServingContext;
use debros_proto::call_kinds::CallReply;
use debros_proto::rpc::{self, Frame, frame::Body};
use debros_proto::{Code, Error, lock};
use futures::{FutureExt as _, StreamExt as _};
use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

/// Events that a caller can allow ahead. More credit is ignored.
const MAX_CREDIT: usize = 65_536;

/// Why a call was not started.
#[derive(Clone, Copy)]
pub(crate) enum CallRefusal {
    Stopping,
    TooManyCalls,
    TooManyStreams,
    TooManyBytes,
}

impl From<CallRefusal> for Error {
    fn from(refusal: CallRefusal) -> Self {
        let (code, message) = match refusal {
            CallRefusal::Stopping => {
                (Code::Unavailable, "the node is stopping: ask another one, or again later")
            }
            CallRefusal::TooManyCalls => {
                (Code::Overloaded, "too many calls of this peer are running")
            }
            CallRefusal::TooManyStreams => {
                (Code::Overloaded, "too many event streams of this peer are open")
            }
            CallRefusal::TooManyBytes => {
                (Code::Overloaded, "the requests of this peer hold too much memory")
            }
        };
        Error::new(code, message).retry_after(Duration::from_millis(100))
    }
}

/// The other end of a served stream, with its running calls.
pub(crate) struct ServedStream {
    peer: PeerId,
    connection: ConnectionId,
    trust: Arc<PeerTrust>,
    pub(crate) serving: Arc<ServingContext>,
    quota: Arc<PeerQuota>,
    send_queue: Arc<SendQueue>,
    calls_here: Arc<BoundedCounter>,
    running: Mutex<RunningCalls>,
    pub(crate) tasks: TaskTracker,
}

#[derive(Default)]
struct RunningCalls {
    by_id: HashMap<u64, CallHandle>,
    /// Distinguishes calls that had the same id one after the other.
    started: u64,
}

struct CallHandle {
    number: u64,
    task: AbortHandle,
    /// For calls that open a stream.
    credit: Option<Arc<Semaphore>>,
    /// A stream that only the caller ends.
    is_subscription: bool,
}

/// What a running call holds of its caller's limits; given back when its task ends, however it
/// ends.
struct CallPermits {
    _slot: CounterPermit,
    _slot_of_peer: CounterPermit,
    bytes: Option<(CounterPermit, CounterPermit)>,
    _running: RunningCallGuard,
    serving: Arc<ServingContext>,
    streams: bool,
}

impl Drop for CallPermits {
    fn drop(&mut self) {
        self.serving.metrics.serving_gauge(self.streams).decrement(1.0);
    }
}

/// One call as its task sees it.
struct CallTask {
    caller: Arc<ServedStream>,
    id: u64,
    number: u64,
    permits: CallPermits,
    credit: Option<Arc<Semaphore>>,
    may_write: bool,
}

impl ServedStream {
    pub(crate) fn new(
        peer: PeerId,
        connection: ConnectionId,
        trust: Arc<PeerTrust>,
        serving: Arc<ServingContext>,
        quota: Arc<PeerQuota>,
        send_queue: Arc<SendQueue>,
    ) -> Self {
        let calls_here = Arc::new(BoundedCounter::new(serving.limits.calls_per_stream));
        Self {
            peer,
            connection,
            trust,
            serving,
            quota,
            send_queue,
            calls_here,
            running: Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    fn lock_running(&self) -> MutexGuard<'_, RunningCalls> {
        // Nothing in here can panic half-way through a change.
        lock(&self.running)
    }

    /// Starts a call, or refuses it. `size` is the request's in bytes.
    pub(crate) fn start_call(
        self: &Arc<Self>,
        id: u64,
        request: rpc::Request,
        size: usize,
    ) -> Result<(), StreamError> {
        let reply = request.kind().map_or(CallReply::Response, |kind| kind.reply);
        let streams = reply != CallReply::Response;
        let permits = match self.acquire_permits(size, streams) {
            Ok(permits) => permits,
            Err(refusal) => return self.refuse_call(id, refusal),
        };
        let mut running = self.lock_running();
        running.started += 1;
        let number = running.started;
        let Entry::Vacant(entry) = running.by_id.entry(id) else {
            return Err(StreamError::Violation);
        };
        let credit =
            streams.then(|| Arc::new(Semaphore::new((request.credit as usize).min(MAX_CREDIT))));
        let task = CallTask {
            caller: self.clone(),
            id,
            number,
            permits,
            credit: credit.clone(),
            may_write: request.may_write(),
        };
        let is_subscription = reply == CallReply::Subscription;
        // The task may end at once: it waits for the lock before it removes its entry.
        let task = self.tasks.spawn(task.run(request)).abort_handle();
        entry.insert(CallHandle { number, task, credit, is_subscription });
        Ok(())
    }

    fn acquire_permits(&self, size: usize, streams: bool) -> Result<CallPermits, CallRefusal> {
        let (here, of_peer, refusal) = if streams {
            // One count is enough; it is taken twice to keep one shape.
            (&self.quota.event_streams, &self.quota.event_streams, CallRefusal::TooManyStreams)
        } else {
            (&self.calls_here, &self.quota.calls, CallRefusal::TooManyCalls)
        };
        let slot = here.try_acquire(usize::from(!streams)).ok_or(refusal)?;
        let slot_of_peer = of_peer.try_acquire(1).ok_or(refusal)?;
        let bytes = self.quota.request_bytes.try_acquire(size).ok_or(CallRefusal::TooManyBytes)?;
        let bytes_of_all =
            self.serving.request_bytes.try_acquire(size).ok_or(CallRefusal::TooManyBytes)?;
        self.serving.metrics.served_calls.increment(1);
        self.serving.metrics.serving_gauge(streams).increment(1.0);
        let serving = self.serving.clone();
        Ok(CallPermits {
            _slot: slot,
            _slot_of_peer: slot_of_peer,
            bytes: Some((bytes, bytes_of_all)),
            _running: self.trust.begin_call(),
            serving,
            streams,
        })
    }

    /// Answers that a call was not started.
    pub(crate) fn refuse_call(&self, id: u64, refusal: CallRefusal) -> Result<(), StreamError> {
        self.serving.metrics.refused_calls.increment(1);
        let error = Error::from(refusal);
        let frame = Frame { id, body: Some(Body::Error(error.into())) };
        if self.send_queue.push_control(&frame) { Ok(()) } else { Err(StreamError::Stalled) }
    }

    /// The caller allows more events. For calls that are not open any more: ignored.
    pub(crate) fn add_credit(&self, id: u64, events: u32) {
        if let Some(CallHandle { credit: Some(credit), .. }) = self.lock_running().by_id.get(&id) {
            // Only this stream's one reader adds, so the sum cannot pass the bound meanwhile.
            credit.add_permits(
                (events as usize).min(MAX_CREDIT.saturating_sub(credit.available_permits())),
            );
        }
    }

    /// The caller cancelled: drops the call's future.
    pub(crate) fn cancel_call(&self, id: u64) {
        if let Some(call) = self.lock_running().by_id.remove(&id) {
            call.task.abort();
        }
    }

    /// Ends the streams that would never end by themselves.
    pub(crate) fn end_subscriptions(&self) {
        let mut ended = Vec::new();
        self.lock_running().by_id.retain(|id, call| {
            if call.is_subscription {
                call.task.abort();
                ended.push(*id);
            }
            !call.is_subscription
        });
        for id in ended {
            // A caller that does not read sees it from the closed stream.
            let _ = self.refuse_call(id, CallRefusal::Stopping);
        }
    }

    pub(crate) fn abort_all(&self) {
        for (_, call) in self.lock_running().by_id.drain() {
            call.task.abort();
        }
    }

    /// Removes a call that has its answer; `false` when it was cancelled.
    fn remove_finished(&self, id: u64, number: u64) -> bool {
        let mut running = self.lock_running();
        let is_it = running.by_id.get(&id).is_some_and(|call| call.number == number);
        if is_it {
            running.by_id.remove(&id);
        }
        is_it
    }
}

impl CallTask {
    async fn run(mut self, request: rpc::Request) {
        let outcome = AssertUnwindSafe(self.run_handler(request)).catch_unwind().await;
        let last = match outcome {
            Ok(last) => last,
            Err(_) => {
                tracing::error!(peer = %self.caller.peer, "the handler of a call panicked");
                Some(Body::Error(
                    Error::internal("the node failed in this call; its log says more").into(),
                ))
            }
        };
        if let Some(last) = last
            && self.caller.remove_finished(self.id, self.number)
        {
            self.send_answer(last).await;
        }
    }

    /// Runs the handler and, if it opened a stream, the stream. Returns the last frame, `None` when
    /// the caller is gone.
    async fn run_handler(&mut self, request: rpc::Request) -> Option<Body> {
        let serving = self.caller.serving.clone();
        let limits = &serving.limits;
        let timeout = match request.timeout_ms {
            0 => limits.default_call_timeout,
            ms => Duration::from_millis(ms.into()).min(limits.max_call_timeout),
        };
        let deadline = Instant::now() + timeout;
        let context = CallContext {
            peer: Some(self.caller.peer),
            trust: Some(self.caller.trust.clone()),
            connection: Some(self.caller.connection),
            deadline,
        };
        let reply = tokio::time::timeout_at(
            (deadline + DEADLINE_GRACE).into(),
            serving.handler.call(context, request),
        )
        .await;
        // The handler is done with the request.
        self.permits.bytes = None;
        match reply {
            Ok(Ok(Reply::Response(response))) => Some(Body::Response(response)),
            Ok(Ok(Reply::Stream(response, source))) => match self.credit.take() {
                Some(credit) => self.send_events(response, source, &credit).await,
                None => Some(Body::Error(
                    Error::internal("the node opened a stream for a plain call").into(),
                )),
            },
            Ok(Err(error)) => Some(Body::Error(error.into())),
            Err(_) => Some(Body::Error(timeout_error(self.may_write, timeout).into())),
        }
    }

    async fn send_events(
        &self,
        response: rpc::Response,
        mut source: EventSource,
        credit: &Semaphore,
    ) -> Option<Body> {
        self.push_frame(Body::Response(response)).await.ok()?;
        loop {
            // Credit first: without it the source is not polled, so that it can drop and count by
            // its own rule.
            credit.acquire().await.ok()?.forget();
            match source.next().await {
                Some(Ok(event)) => match self.push_frame(Body::Event(event)).await {
                    Ok(()) => {}
                    Err(PushError::Closed) => return None,
                    Err(PushError::TooLarge(error)) => return Some(Body::Error(error.into())),
                },
                Some(Err(error)) => return Some(Body::Error(error.into())),
                None => return Some(Body::End(rpc::End {})),
            }
        }
    }

    async fn push_frame(&self, body: Body) -> Result<(), PushError> {
        self.caller.send_queue.push(&Frame { id: self.id, body: Some(body) }).await
    }

    /// Sends the last frame of a call. While it waits for room it counts against the peer: a peer
    /// that requests much and does not read gets errors instead.
    async fn send_answer(&self, body: Body) {
        let frame = Frame { id: self.id, body: Some(body) };
        let send_queue = &self.caller.send_queue;
        let pushed = match send_queue.try_push(&frame) {
            Ok(true) => Ok(()),
            Ok(false) => {
                use prost::Message as _;
                match self.caller.quota.waiting_answer_bytes.try_acquire(frame.encoded_len()) {
                    Some(_waiting) => send_queue.push(&frame).await,
                    None => {
                        drop(frame);
                        return self.send_error(answer_unread_error(self.may_write)).await;
                    }
                }
            }
            Err(error) => Err(error),
        };
        if let Err(PushError::TooLarge(error)) = pushed {
            self.send_error(answer_too_large_error(self.may_write, &error)).await;
        }
    }

    async fn send_error(&self, error: Error) {
        // An error is small; when the stream is closed it has no receiver.
        let _ = self.push_frame(Body::Error(error.into())).await;
    }
}
