//! Topics.

use crate::client_connections::ClientConnections;
use crate::{Client, Error, Result, expect_answer};
use bytes::Bytes;
use debros_p2p::EventStream;
use debros_proto::rpc::event::Kind;
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, Request};
use debros_proto::{Code, Topic};
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a lost subscription tries to come back before its stream ends with an error.
const RESUBSCRIBE_FOR: Duration = Duration::from_secs(60);
/// Pause between two tries to come back, when the node names none.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// Topics in the caller's namespace.
#[derive(Clone, Copy, Debug)]
pub struct Pubsub<'a> {
    pub(crate) client: &'a Client,
}

/// What a subscription yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PubsubEvent {
    /// A message, in the order of its publisher.
    Message(Bytes),
    /// This subscriber was too slow: so many messages were dropped before the next one.
    Missed(u64),
    /// The connection was lost and is there again: messages in between were not seen.
    Reconnected,
}

impl Pubsub<'_> {
    /// Sends a message, up to 1 MiB, to every subscriber of the topic in the namespace.
    ///
    /// # Errors
    /// `invalid_argument`, `too_large`, `forbidden`, …
    pub async fn publish(&self, topic: impl Into<String>, data: impl Into<Bytes>) -> Result<()> {
        let publish = rpc::PublishRequest { topic: topic.into(), data: data.into() };
        expect_answer!(self.client.call(Call::Publish(publish)).await?, Publish).map(|_| ())
    }

    /// Subscribes to a topic. Messages published after this returns arrive; dropping the
    /// subscription ends it.
    ///
    /// # Errors
    /// `invalid_argument`, `forbidden`, `rate_limited`, …
    pub async fn subscribe(&self, topic: impl Into<String>) -> Result<Subscription> {
        let topic = Topic::new(&topic.into())?;
        let subscribe = rpc::SubscribeRequest { topic: topic.as_str().to_owned() };
        let mut subscription = Subscription {
            connections: Arc::clone(&self.client.connections),
            request: self.client.request(Call::Subscribe(subscribe)),
            events: None,
        };
        subscription.open_stream(self.client.deadline()).await?;
        Ok(subscription)
    }

    /// The topics that have live subscriptions in the namespace, in byte order.
    ///
    /// # Errors
    /// `forbidden`, `unavailable`, …
    pub async fn topics(&self) -> Result<Vec<String>> {
        expect_answer!(self.client.call(Call::Topics(rpc::TopicsRequest {})).await?, Topics)
            .map(|answer| answer.topics)
    }
}

/// A live subscription to a topic.
#[derive(Debug)]
pub struct Subscription {
    connections: Arc<ClientConnections>,
    request: Request,
    events: Option<EventStream>,
}

impl Subscription {
    /// The next event. Waits while there is none. An error when the connection was lost for more
    /// than a minute, the client was closed, or the credential does not hold any more. Inside a
    /// node: `None` when the node stops.
    pub async fn next(&mut self) -> Option<Result<PubsubEvent>> {
        loop {
            let Some(events) = &mut self.events else {
                // In a box: a subscription that only waits would keep room for it.
                return Some(
                    Box::pin(self.reopen_stream()).await.map(|()| PubsubEvent::Reconnected),
                );
            };
            match events.next().await {
                Some(Ok(event)) => match event.kind {
                    Some(Kind::Message(message)) => {
                        return Some(Ok(PubsubEvent::Message(message.data)));
                    }
                    Some(Kind::Missed(missed)) => {
                        return Some(Ok(PubsubEvent::Missed(missed.count)));
                    }
                    // A kind of a newer version.
                    _ => {}
                },
                Some(Err(error))
                    if error.code == Code::Unavailable && !self.connections.is_local() =>
                {
                    self.events = None;
                }
                Some(Err(error)) => return Some(Err(error)),
                None if self.connections.is_local() => return None,
                // A node that stops ends its subscriptions in order; the next node, or the same
                // one, goes on.
                None => self.events = None,
            }
        }
    }

    /// Opens the stream again. A node that is just going away, or has no room yet, is called once
    /// more.
    async fn reopen_stream(&mut self) -> Result<()> {
        let deadline = Instant::now() + RESUBSCRIBE_FOR;
        loop {
            let error = match self.open_stream(deadline).await {
                Err(error) if error.code.is_safe_to_retry() && !self.connections.is_closed() => {
                    error
                }
                opened => return opened,
            };
            let pause = error.retry_after.unwrap_or(REOPEN_PAUSE);
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn open_stream(&mut self, deadline: Instant) -> Result<()> {
        let (response, events) = self.connections.open(self.request.clone(), deadline).await?;
        let answer =
            response.result.ok_or_else(|| Error::internal("the node answered without a result"))?;
        expect_answer!(answer, Subscribe)?;
        self.events = Some(events);
        Ok(())
    }
}
