//! The caller's end of one RPC stream: many calls at a time, answers in any order.

use crate::calls::{late, lost, no_stream, opens_stream, writes};
use crate::events::Events;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::opened_stream::Opened;
use crate::outbox::{Outbox, PushError};
use crate::remote_events::{EventControl, EventSink, event_pipe};
use crate::wire::{Patience, Reset, Wire, WireConfig};
use debros_proto::rpc::{self, Frame, frame::Body};
use debros_proto::words::span;
use debros_proto::{Code, Error};
use libp2p::PeerId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

type Answer = Result<rpc::Response, Error>;

/// Who waits for the frames with one id.
enum Waiter {
    /// A call that waits for its answer; for one that opens a stream, also where its events will go.
    Answer(oneshot::Sender<Answer>, Option<EventSink>),
    /// A stream that is open.
    Events(EventSink),
}

#[derive(Default)]
struct Waiters {
    closed: bool,
    by_id: HashMap<u64, Waiter>,
}

pub(crate) struct Remote {
    peer: PeerId,
    pub(crate) outbox: Arc<Outbox>,
    waiters: Mutex<Waiters>,
    next_id: AtomicU64,
    closed: CancellationToken,
    /// All handles are gone: the stream's task closes the stream.
    abandoned: CancellationToken,
}

impl Remote {
    /// Starts the task that owns the stream. The stream closes when the last handle is gone.
    pub(crate) fn start(peer: PeerId, stream: Opened, limits: &Limits, metrics: Arc<Metrics>) -> Arc<Remote> {
        let outbox = Arc::new(Outbox::new(limits.write_queue_bytes, limits.request_frame_bytes));
        let config = WireConfig {
            frame_limit: limits.response_frame_bytes,
            partial_frame_timeout: limits.partial_frame_timeout,
            patience: Patience::Progress,
            write_stall_timeout: limits.write_stall_timeout,
            arriving: None,
        };
        let wire = Wire::new(stream, outbox.clone(), config, metrics.clone());
        let remote = Arc::new(Remote {
            peer,
            outbox: outbox.clone(),
            waiters: Mutex::default(),
            next_id: AtomicU64::new(1),
            closed: CancellationToken::new(),
            abandoned: CancellationToken::new(),
        });
        let task = Task {
            remote: Arc::downgrade(&remote),
            outbox,
            closed: remote.closed.clone(),
            abandoned: remote.abandoned.clone(),
            peer,
            metrics,
        };
        tokio::spawn(task.run(wire));
        remote
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    pub(crate) async fn call(self: &Arc<Self>, request: rpc::Request, timeout: Duration) -> Answer {
        if opens_stream(&request) {
            // The events go nowhere: dropping them cancels the stream.
            return self.open(request, timeout).await.map(|(response, _)| response);
        }
        self.exchange(request, timeout, 0, None).await.map(|(response, _)| response)
    }

    pub(crate) async fn open(
        self: &Arc<Self>,
        request: rpc::Request,
        timeout: Duration,
    ) -> Result<(rpc::Response, Events), Error> {
        if !opens_stream(&request) {
            return Err(no_stream());
        }
        let (sink, events) = event_pipe();
        let (response, id) = self.exchange(request, timeout, events.credit(), Some(sink)).await?;
        Ok((response, Events::remote(events.attach(self.clone(), id))))
    }

    async fn exchange(
        self: &Arc<Self>,
        mut request: rpc::Request,
        timeout: Duration,
        credit: u32,
        sink: Option<EventSink>,
    ) -> Result<(rpc::Response, u64), Error> {
        let writes = writes(&request);
        request.timeout_ms = time_for_node(timeout);
        request.credit = credit;
        let (sender, receiver) = oneshot::channel();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.register(id, Waiter::Answer(sender, sink))?;
        let mut ticket = Ticket { remote: self, id, sent: false, answered: false };
        let frame = Frame { id, body: Some(Body::Request(request)) };
        let exchange = async {
            match self.outbox.push(&frame).await {
                Ok(()) => ticket.sent = true,
                Err(PushError::Closed) => return Err(never_sent()),
                Err(PushError::TooLarge(error)) => return Err(error),
            }
            drop(frame);
            let answer = receiver.await.map_err(|_| lost(writes))?;
            ticket.answered = true;
            answer
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer.map(|response| (response, id)),
            Err(_) if ticket.sent => Err(late(writes, timeout)),
            Err(_) => Err(Error::new(
                Code::Unavailable,
                format!(
                    "the node took no request within {}: too much waits to be sent. Nothing was done.",
                    span(timeout)
                ),
            )),
        }
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        // Nothing in here can panic half-way through a change.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, id: u64, waiter: Waiter) -> Result<(), Error> {
        let mut waiters = self.waiters();
        if waiters.closed {
            return Err(never_sent());
        }
        waiters.by_id.insert(id, waiter);
        Ok(())
    }

    /// Hands a frame to whoever waits for it. Frames for calls that were cancelled are ignored.
    fn dispatch(&self, frame: Frame) -> Result<(), Reset> {
        let Frame { id, body: Some(body) } = frame else {
            // A kind of frame that a newer version added.
            return Ok(());
        };
        let mut waiters = self.waiters();
        match body {
            Body::Response(response) => match waiters.by_id.remove(&id) {
                Some(Waiter::Answer(sender, sink)) => {
                    if let Some(sink) = sink {
                        waiters.by_id.insert(id, Waiter::Events(sink));
                    }
                    drop(waiters);
                    // An error means that the caller just left; its ticket cancels.
                    let _ = sender.send(Ok(response));
                    Ok(())
                }
                Some(Waiter::Events(_)) => Err(Reset::Violation),
                None => Ok(()),
            },
            Body::Error(error) => {
                let waiter = waiters.by_id.remove(&id);
                drop(waiters);
                match waiter {
                    Some(Waiter::Answer(sender, _)) => {
                        let _ = sender.send(Err(error.into()));
                    }
                    Some(Waiter::Events(sink)) => sink.fail(error.into()),
                    None => {}
                }
                Ok(())
            }
            Body::Event(event) => match waiters.by_id.get_mut(&id) {
                Some(Waiter::Events(sink)) => sink.send(event),
                Some(Waiter::Answer(..)) => Err(Reset::Violation),
                None => Ok(()),
            },
            Body::End(rpc::End {}) => match waiters.by_id.remove(&id) {
                // The sink is dropped, which ends the events.
                Some(Waiter::Events(_)) | None => Ok(()),
                Some(Waiter::Answer(..)) => Err(Reset::Violation),
            },
            Body::Request(_) | Body::Credit(_) | Body::Cancel(_) => Err(Reset::Violation),
        }
    }

    /// The stream is gone: everyone who waits learns it.
    fn fail_all(&self) {
        let by_id = {
            let mut waiters = self.waiters();
            waiters.closed = true;
            std::mem::take(&mut waiters.by_id)
        };
        for waiter in by_id.into_values() {
            match waiter {
                // The caller words the error: it knows whether it wrote.
                Waiter::Answer(..) => {}
                Waiter::Events(sink) => sink.fail(Error::new(
                    Code::Unavailable,
                    "the connection to the node broke while events were coming: open the stream again",
                )),
            }
        }
    }
}

impl EventControl for Remote {
    fn cancel(&self, id: u64) {
        if self.waiters().by_id.remove(&id).is_some() {
            self.urgent(Frame { id, body: Some(Body::Cancel(rpc::Cancel {})) });
        }
    }

    fn urgent(&self, frame: Frame) {
        // A peer that has let megabytes of them pile up is not reading.
        if !self.outbox.push_urgent(&frame) {
            self.outbox.close();
            self.abandoned.cancel();
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.abandoned.cancel();
    }
}

fn never_sent() -> Error {
    Error::new(Code::Unavailable, "the connection to the node is closed. Nothing was sent.")
}

/// What the node is told: a little less than the caller waits, so that the node's own "nothing was done" arrives
/// before the caller has to say that it does not know.
fn time_for_node(timeout: Duration) -> u32 {
    let margin = (timeout / 10).min(Duration::from_millis(100));
    // 0 would mean the node's default.
    u32::try_from((timeout - margin).as_millis()).unwrap_or(u32::MAX).max(1)
}

/// A call under way. Dropped before the answer came, it cancels the call.
struct Ticket<'a> {
    remote: &'a Remote,
    id: u64,
    sent: bool,
    answered: bool,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        if self.sent {
            self.remote.cancel(self.id);
        } else {
            self.remote.waiters().by_id.remove(&self.id);
        }
    }
}

/// The one task of the stream.
struct Task {
    remote: Weak<Remote>,
    outbox: Arc<Outbox>,
    closed: CancellationToken,
    abandoned: CancellationToken,
    peer: PeerId,
    metrics: Arc<Metrics>,
}

impl Task {
    async fn run(self, mut wire: Wire) {
        self.metrics.open_channels.increment(1.0);
        let end = tokio::select! {
            end = self.read(&mut wire) => Some(end),
            () = self.abandoned.cancelled() => None,
        };
        self.closed.cancel();
        if let Some(remote) = self.remote.upgrade() {
            remote.fail_all();
        }
        match end {
            // What is still queued is cancellations: worth sending, not worth an error.
            None => wire.finish().await.unwrap_or_default(),
            Some(Ok(())) => {
                self.outbox.close();
                wire.finish().await.unwrap_or_default();
            }
            Some(Err(reset)) => {
                self.outbox.close();
                drop(wire);
                if reset != Reset::Broken {
                    tracing::warn!(peer = %self.peer, reason = reset.name(), "closed a stream to a node");
                }
                self.metrics.reset(reset.name());
            }
        }
        self.outbox.close();
        self.metrics.open_channels.decrement(1.0);
    }

    async fn read(&self, wire: &mut Wire) -> Result<(), Reset> {
        while let Some((frame, _)) = wire.next().await? {
            let Some(remote) = self.remote.upgrade() else { break };
            remote.dispatch(frame)?;
            drop(remote);
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::time_for_node;
    use std::time::Duration;

    #[test]
    fn the_node_gets_a_little_less_time_than_the_caller_waits() {
        assert_eq!(time_for_node(Duration::from_secs(30)), 29_900);
        assert_eq!(time_for_node(Duration::from_millis(100)), 90);
        assert_eq!(time_for_node(Duration::ZERO), 1, "0 would mean the node's default");
        assert_eq!(time_for_node(Duration::MAX), u32::MAX);
    }
}
