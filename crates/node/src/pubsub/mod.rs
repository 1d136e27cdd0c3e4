//! Pub/sub within the node: topics, their subscribers, and what happens to slow ones. The gossip
//! between nodes will publish into the same [`TopicHub`].

mod topic_ring;

use debros_proto::lock;
use debros_proto::rpc::{Event, Message, event};
use debros_proto::{Code, Error, Namespace, Result, Topic};
use futures::Stream;
use metrics::{Counter, Gauge};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use topic_ring::{PubsubBudget, RingItem, TopicRing};

/// Live subscriptions that a node serves, all callers together.
const MAX_SUBSCRIPTIONS: usize = 65_536;

type TopicName = (Namespace, Topic);

/// All topics of the node that have subscribers. A topic without any is not here and costs nothing.
pub(crate) struct TopicHub {
    topics: RwLock<HashMap<TopicName, Arc<TopicRing>>>,
    budgets: Mutex<HashMap<Namespace, PubsubBudget>>,
    /// The node's count; no namespace's own.
    node_budget: PubsubBudget,
    subscriptions: AtomicUsize,
    live: Gauge,
    published: Counter,
}

impl Default for TopicHub {
    fn default() -> Self {
        Self {
            topics: RwLock::default(),
            budgets: Mutex::default(),
            node_budget: PubsubBudget::default(),
            subscriptions: AtomicUsize::new(0),
            live: metrics::gauge!("debros_pubsub_subscriptions"),
            published: metrics::counter!("debros_pubsub_published_total"),
        }
    }
}

impl TopicHub {
    /// Hands a message to every subscriber of the topic, in the order of the calls. It never waits
    /// for a subscriber that does not read; it gives those that do read a moment when most of them
    /// are far behind.
    pub(crate) async fn publish(&self, namespace: &Namespace, topic: &Topic, data: bytes::Bytes) {
        let ring = {
            let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
            topics.get(&(namespace.clone(), topic.clone())).cloned()
        };
        self.published.increment(1);
        if let Some(ring) = ring {
            // A copy: what came over a connection may be a small part of a large buffer, which a
            // message that waits for a slow reader would keep whole, past every bound.
            ring.publish(bytes::Bytes::copy_from_slice(&data));
            ring.throttle_publisher().await;
        }
    }

    /// Subscribes; everything published after this returns is seen.
    ///
    /// # Errors
    /// `overloaded` when the node serves as many subscriptions as it can.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        namespace: Namespace,
        topic: Topic,
    ) -> Result<TopicSubscription> {
        if self.subscriptions.fetch_add(1, Ordering::Relaxed) >= MAX_SUBSCRIPTIONS {
            self.subscriptions.fetch_sub(1, Ordering::Relaxed);
            let error = Error::new(
                Code::Overloaded,
                format!("the node serves {MAX_SUBSCRIPTIONS} subscriptions already"),
            );
            return Err(error.retry_after(Duration::from_secs(5)));
        }
        self.live.increment(1.0);
        let name = (namespace, topic);
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let ring = topics
            .entry(name.clone())
            .or_insert_with(|| Arc::new(TopicRing::new(self.namespace_budget(&name.0))));
        // Joined under the lock: a ring that its last reader is about to remove cannot be joined.
        let reader = ring.add_reader();
        Ok(TopicSubscription { hub: Arc::clone(self), ring: Arc::clone(ring), name, reader })
    }

    fn namespace_budget(&self, namespace: &Namespace) -> PubsubBudget {
        let mut budgets = lock(&self.budgets);
        budgets.retain(|other, budget| other == namespace || !budget.is_unused());
        budgets
            .entry(namespace.clone())
            .or_insert_with(|| self.node_budget.for_another_namespace())
            .clone()
    }

    /// The namespace's topics with live subscriptions, in byte order.
    pub(crate) fn topics(&self, namespace: &Namespace) -> Vec<String> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        let own = topics.keys().filter(|(other, _)| other == namespace);
        let mut names: Vec<String> = own.map(|(_, topic)| topic.as_str().to_owned()).collect();
        names.sort_unstable();
        names
    }

    /// Ends every subscription of a namespace that is no more. What is queued is not read any more;
    /// the next subscriber gets new topics.
    pub(crate) fn end_namespace(&self, namespace: &Namespace) {
        let mut ended = Vec::new();
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.retain(|(owner, _), ring| {
            let goes = owner == namespace;
            if goes {
                ended.push(Arc::clone(ring));
            }
            !goes
        });
        drop(topics);
        ended.iter().for_each(|ring| ring.discard_and_close());
    }

    /// Ends every subscription, after what is queued was read.
    pub(crate) fn close_all(&self) {
        for ring in self.topics.read().unwrap_or_else(PoisonError::into_inner).values() {
            ring.close();
        }
    }
}

/// A live subscription: a stream of messages and of how many were missed. Dropping it ends it.
pub(crate) struct TopicSubscription {
    hub: Arc<TopicHub>,
    ring: Arc<TopicRing>,
    name: TopicName,
    reader: topic_ring::ReaderId,
}

impl Stream for TopicSubscription {
    type Item = Result<Event>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let kind = match self.ring.poll_read(self.reader, context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(RingItem::Message(data))) => {
                event::Kind::Message(Message { topic: self.name.1.as_str().to_owned(), data })
            }
            Poll::Ready(Some(RingItem::Missed(count))) => {
                event::Kind::Missed(debros_proto::rpc::Missed { count })
            }
        };
        Poll::Ready(Some(Ok(Event { kind: Some(kind) })))
    }
}

impl Drop for TopicSubscription {
    fn drop(&mut self) {
        let mut topics = self.hub.topics.write().unwrap_or_else(PoisonError::into_inner);
        if self.ring.remove_reader(self.reader) == 0
            && topics.get(&self.name).is_some_and(|ring| Arc::ptr_eq(ring, &self.ring))
        {
            topics.remove(&self.name);
        }
        self.hub.subscriptions.fetch_sub(1, Ordering::Relaxed);
        self.hub.live.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::topic_ring::MESSAGE_OVERHEAD;
    use super::{TopicHub, TopicSubscription};
    use bytes::Bytes;
    use debros_proto::rpc::event::Kind;
    use debros_proto::{Namespace, Topic};
    use futures::{FutureExt as _, StreamExt as _};
    use std::sync::Arc;

    fn namespace(name: &str) -> Namespace {
        Namespace::new(name).unwrap()
    }

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    async fn texts(subscription: &mut TopicSubscription, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            match subscription.next().await.unwrap().unwrap().kind.unwrap() {
                Kind::Message(message) => {
                    texts.push(String::from_utf8(message.data.to_vec()).unwrap())
                }
                other => panic!("{other:?}"),
            }
        }
        texts
    }

    /// Lessons 4 and 5: tenants met in one topic, by name or by a separator in a name.
    #[tokio::test]
    async fn lesson_04_a_topic_belongs_to_its_namespace() {
        let hub = Arc::new(TopicHub::default());
        let mut a = hub.subscribe(namespace("a"), topic("chat")).unwrap();
        let mut b = hub.subscribe(namespace("b"), topic("chat")).unwrap();
        let mut c = hub.subscribe(namespace("a"), topic("b::chat")).unwrap();
        hub.publish(&namespace("a"), &topic("chat"), "for a".into()).await;
        assert_eq!(texts(&mut a, 1).await, ["for a"]);
        assert!(b.next().now_or_never().is_none() && c.next().now_or_never().is_none());
        assert_eq!(hub.topics(&namespace("a")), ["b::chat", "chat"]);
        assert_eq!(hub.topics(&namespace("b")), ["chat"]);
    }

    /// Lesson 23: a second subscriber got nothing, and the first one to leave ended all.
    #[tokio::test]
    async fn lesson_23_subscribers_of_one_topic_are_independent() {
        let hub = Arc::new(TopicHub::default());
        let first = hub.subscribe(namespace("a"), topic("t")).unwrap();
        let mut second = hub.subscribe(namespace("a"), topic("t")).unwrap();
        hub.publish(&namespace("a"), &topic("t"), "1".into()).await;
        drop(first);
        hub.publish(&namespace("a"), &topic("t"), "2".into()).await;
        assert_eq!(texts(&mut second, 2).await, ["1", "2"]);
        drop(second);
        assert!(hub.topics(&namespace("a")).is_empty());
        assert_eq!(
            (hub.topics.read().unwrap().len(), hub.subscriptions.load(super::Ordering::Relaxed)),
            (0, 0)
        );
    }

    /// Lesson 25: a message equal to the one before was taken for a repetition and dropped.
    #[tokio::test]
    async fn lesson_25_two_equal_messages_are_two() {
        let hub = Arc::new(TopicHub::default());
        let mut subscription = hub.subscribe(namespace("a"), topic("t")).unwrap();
        for _ in 0..2 {
            hub.publish(&namespace("a"), &topic("t"), "1".into()).await;
        }
        assert_eq!(texts(&mut subscription, 2).await, ["1", "1"]);
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_what_it_missed_and_slows_nobody() {
        let hub = Arc::new(TopicHub::default());
        let mut slow = hub.subscribe(namespace("a"), topic("t")).unwrap();
        let mut quick = hub.subscribe(namespace("a"), topic("t")).unwrap();
        let count = 20_000_u64;
        for number in 0..count {
            let text = format!("{number:>4000}");
            hub.publish(&namespace("a"), &topic("t"), text.clone().into()).await;
            assert_eq!(texts(&mut quick, 1).await, [text]);
        }
        let Kind::Missed(missed) = slow.next().await.unwrap().unwrap().kind.unwrap() else {
            panic!("a notice")
        };
        let first: u64 = texts(&mut slow, 1).await[0].trim().parse().unwrap();
        assert_eq!(
            first, missed.count,
            "the notice stands before the next message, and counts exactly"
        );
        let rest = usize::try_from(count - first - 1).unwrap();
        assert_eq!(texts(&mut slow, rest).await.len(), rest);
        assert!(slow.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_burst_of_small_messages_is_kept_whole_for_readers_that_come_late() {
        let hub = Arc::new(TopicHub::default());
        let mut readers: Vec<_> =
            (0..10).map(|_| hub.subscribe(namespace("a"), topic("t")).unwrap()).collect();
        for number in 0..60_000 {
            hub.publish(&namespace("a"), &topic("t"), format!("{number:>100}").into()).await;
        }
        for reader in &mut readers {
            for (number, text) in texts(reader, 60_000).await.into_iter().enumerate() {
                assert_eq!(text.trim(), number.to_string());
            }
        }
        assert!(!hub.node_budget.is_used());
    }

    #[tokio::test]
    async fn memory_is_bounded_in_bytes_too() {
        let hub = Arc::new(TopicHub::default());
        let slow = hub.subscribe(namespace("a"), topic("t")).unwrap();
        for _ in 0..200 {
            hub.publish(&namespace("a"), &topic("t"), Bytes::from(vec![0; 1 << 20])).await;
        }
        assert!(slow.ring.held_bytes() <= 32 << 20, "{} bytes", slow.ring.held_bytes());
    }

    /// An empty message takes memory as well.
    #[tokio::test]
    async fn messages_without_content_are_bounded_too() {
        let hub = Arc::new(TopicHub::default());
        let mut slow = hub.subscribe(namespace("a"), topic("t")).unwrap();
        let fits = (32 << 20) / MESSAGE_OVERHEAD as u64;
        for _ in 0..fits + 10 {
            hub.publish(&namespace("a"), &topic("t"), Bytes::new()).await;
        }
        let Kind::Missed(missed) = slow.next().await.unwrap().unwrap().kind.unwrap() else {
            panic!("a notice")
        };
        assert_eq!(missed.count, 10);
        assert!(slow.ring.held_bytes() <= 32 << 20);
    }

    #[tokio::test]
    async fn memory_is_bounded_over_all_topics_and_one_namespace_leaves_room_for_others() {
        let hub = Arc::new(TopicHub::default());
        let mut unread = Vec::new();
        for owner in 0..10 {
            for number in 0..10 {
                let (namespace, topic) =
                    (namespace(&format!("n{owner}")), topic(&format!("t{number}")));
                unread.push(hub.subscribe(namespace.clone(), topic.clone()).unwrap());
                for _ in 0..10 {
                    hub.publish(&namespace, &topic, Bytes::from(vec![0; 1 << 20])).await;
                }
            }
        }
        let kept: usize = unread.iter().map(|subscription| subscription.ring.held_bytes()).sum();
        assert!(kept <= (256 + 10) << 20, "{} MiB", kept >> 20);
        let mut late = hub.subscribe(namespace("late"), topic("t")).unwrap();
        hub.publish(&namespace("late"), &topic("t"), "room".into()).await;
        assert_eq!(texts(&mut late, 1).await, ["room"]);
        drop(unread);
        assert!(!hub.node_budget.is_used(), "everything was given back");
    }

    #[tokio::test]
    async fn what_everyone_has_read_is_forgotten() {
        let hub = Arc::new(TopicHub::default());
        let mut one = hub.subscribe(namespace("a"), topic("t")).unwrap();
        let mut two = hub.subscribe(namespace("a"), topic("t")).unwrap();
        hub.publish(&namespace("a"), &topic("t"), "x".into()).await;
        texts(&mut one, 1).await;
        assert_eq!(one.ring.held_bytes(), 1 + MESSAGE_OVERHEAD);
        texts(&mut two, 1).await;
        assert_eq!(one.ring.held_bytes(), 0);
        hub.publish(&namespace("a"), &topic("t"), "y".into()).await;
        texts(&mut one, 1).await;
        drop(two);
        assert_eq!(one.ring.held_bytes(), 0, "a leaving reader gives up what it had not read");
    }

    #[tokio::test]
    async fn topics_of_a_namespace_that_is_no_more_are_not_those_of_its_next_owner() {
        let hub = Arc::new(TopicHub::default());
        let mut old = hub.subscribe(namespace("a"), topic("t")).unwrap();
        let mut waiting = hub.subscribe(namespace("a"), topic("u")).unwrap();
        let mut other = hub.subscribe(namespace("b"), topic("t")).unwrap();
        hub.publish(&namespace("a"), &topic("t"), "unread".into()).await;
        let ended = tokio::spawn(async move { waiting.next().await.is_none() });
        tokio::task::yield_now().await;
        hub.end_namespace(&namespace("a"));
        assert!(hub.topics(&namespace("a")).is_empty());
        let mut new = hub.subscribe(namespace("a"), topic("t")).unwrap();
        assert!(old.next().await.is_none() && ended.await.unwrap());
        drop(old);
        hub.publish(&namespace("a"), &topic("t"), "of the next".into()).await;
        hub.publish(&namespace("b"), &topic("t"), "of b".into()).await;
        assert_eq!(
            (texts(&mut new, 1).await, texts(&mut other, 1).await),
            (vec!["of the next".into()], vec!["of b".into()])
        );
        drop((new, other));
        assert!(hub.topics.read().unwrap().is_empty() && !hub.node_budget.is_used());
    }

    #[tokio::test]
    async fn closing_lets_subscribers_read_what_is_queued() {
        let hub = Arc::new(TopicHub::default());
        let mut subscription = hub.subscribe(namespace("a"), topic("t")).unwrap();
        hub.publish(&namespace("a"), &topic("t"), "last".into()).await;
        hub.close_all();
        assert_eq!(texts(&mut subscription, 1).await, ["last"]);
        assert!(subscription.next().await.is_none());
    }

    #[tokio::test]
    async fn a_waiting_subscriber_is_woken() {
        let hub = Arc::new(TopicHub::default());
        let mut subscription = hub.subscribe(namespace("a"), topic("t")).unwrap();
        let reading = tokio::spawn(async move { texts(&mut subscription, 1).await });
        tokio::task::yield_now().await;
        hub.publish(&namespace("a"), &topic("t"), "hello".into()).await;
        assert_eq!(reading.await.unwrap(), ["hello"]);
    }
}
