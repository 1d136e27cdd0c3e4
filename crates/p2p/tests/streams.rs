//! Streams of events: order, ends, credit, cancellation.

mod support;

use debros_p2p::{Channel, EventStream, Handler};
use debros_proto::Code;
use debros_proto::rpc::event::Kind;
use futures::StreamExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::{
    LONG, QUIC, Shared, TestNode, client, connect, get, missed, node, node_with, subscribe,
    value_of,
};

async fn open(channel: &Channel, topic: &str) -> EventStream {
    let (response, events) = channel.open(subscribe(topic), LONG).await.unwrap();
    assert!(response.result.is_some());
    events
}

/// What both kinds of channel must do.
async fn conforms(channel: &Channel, node: &TestNode) {
    let mut events = open(channel, "count 5000").await;
    for number in 0..5000 {
        assert_eq!(events.next().await.unwrap().unwrap(), missed(number));
    }
    assert!(events.next().await.is_none());

    let mut events = open(channel, "fail").await;
    assert_eq!(events.next().await.unwrap().unwrap(), missed(0));
    assert_eq!(events.next().await.unwrap().unwrap_err().code, Code::Conflict);
    assert!(events.next().await.is_none(), "an error is the last item");

    assert!(open(channel, "count 0").await.next().await.is_none());

    let before = node.dropped.count();
    let events = open(channel, "silent").await;
    drop(events);
    node.dropped.reaches(before + 1).await;

    let mut events = open(channel, "endless").await;
    for _ in 0..1000 {
        events.next().await.unwrap().unwrap();
    }
    drop(events);
    node.dropped.reaches(before + 2).await;

    let error = channel.open(get("k"), LONG).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert_eq!(value_of(channel.call(get("k"), LONG).await.unwrap()), "k");
}

#[tokio::test]
async fn a_local_channel_passes_the_handlers_own_stream() {
    let node = Arc::new(TestNode::default());
    let handler: Arc<dyn Handler> = Arc::new(Shared(node.clone()));
    let channel = Channel::local(handler);
    conforms(&channel, &node).await;
    let produced = node.produced.load(Ordering::SeqCst);
    let mut events = open(&channel, "endless").await;
    for _ in 0..10 {
        events.next().await.unwrap().unwrap();
    }
    assert_eq!(
        node.produced.load(Ordering::SeqCst),
        produced + 10,
        "nothing is taken ahead of the reader"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_channel_streams_over_tcp_and_quic() {
    let (host, node) = node_with(|config| config.listen.push(QUIC.parse().unwrap())).await;
    for address in host.listen_addresses() {
        let client = client().await;
        client.connect(address, LONG).await.unwrap();
        conforms(&client.open(host.peer_id()).await.unwrap(), &node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_faster_than_its_reader_is_asked_only_for_what_the_credit_allows() {
    let (host, node) = node().await;
    let (_client, channel) = connect(&host).await;
    let mut events = open(&channel, "endless 10").await;
    // Other calls and streams go on while this reader does nothing.
    for round in 0..100 {
        assert_eq!(
            value_of(channel.call(get(format!("{round}")), LONG).await.unwrap()),
            format!("{round}")
        );
    }
    let mut other = open(&channel, "count 1000").await;
    let mut count = 0;
    while let Some(event) = other.next().await {
        event.unwrap();
        count += 1;
    }
    assert_eq!(count, 1000);
    let produced = node.produced.load(Ordering::SeqCst);
    assert!(produced <= 16, "{produced} events were taken for a reader that reads none");
    let mut read = 0;
    while read < 10_000 {
        events.next().await.unwrap().unwrap();
        read += 1;
        let ahead = node.produced.load(Ordering::SeqCst) - read;
        assert!(ahead <= 256, "{ahead} events ahead of the reader");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_events_are_few_on_the_way() {
    let (host, node) = node().await;
    let (_client, channel) = connect(&host).await;
    let mut events = open(&channel, &format!("endless {}", 1 << 20)).await;
    for read in 1..=100 {
        match events.next().await.unwrap().unwrap().kind {
            Some(Kind::Message(message)) => assert_eq!(message.data.len(), 1 << 20),
            other => panic!("{other:?}"),
        }
        let ahead = node.produced.load(Ordering::SeqCst) - read;
        assert!(ahead <= 16, "{ahead} MiB ahead of the reader");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_subscriptions_fit_on_one_channel() {
    let (host, node) = node().await;
    let (_client, channel) = connect(&host).await;
    let streams = futures::future::join_all((0..1000).map(|_| open(&channel, "silent"))).await;
    assert_eq!(value_of(channel.call(get("k"), LONG).await.unwrap()), "k");
    drop(streams);
    node.dropped.reaches(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_over_the_limit_are_refused_and_room_comes_back() {
    let (host, node) = node_with(|config| config.limits.event_streams_per_peer = 3).await;
    let (client, channel) = connect(&host).await;
    let second = support::channel(&client, &host).await;
    let mut streams = vec![
        open(&channel, "silent").await,
        open(&second, "silent").await,
        open(&channel, "silent").await,
    ];
    let error = second.open(subscribe("silent"), LONG).await.unwrap_err();
    assert_eq!(error.code, Code::Overloaded);
    support::assert_serves(&host).await;
    streams.pop();
    node.dropped.reaches(1).await;
    // The node gives the room back right after it dropped the source.
    let deadline = Instant::now() + LONG;
    while let Err(error) = channel.open(subscribe("silent"), LONG).await {
        assert_eq!(error.code, Code::Overloaded);
        assert!(Instant::now() < deadline, "the room did not come back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_learns_that_its_connection_broke() {
    let (host, node) = node().await;
    let (client, channel) = connect(&host).await;
    let mut events = open(&channel, "silent").await;
    client.disconnect(host.peer_id()).await;
    assert_eq!(events.next().await.unwrap().unwrap_err().code, Code::Unavailable);
    assert!(events.next().await.is_none());
    node.dropped.reaches(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_keeps_its_connection_when_the_channel_is_dropped() {
    // Far shorter than this test's stream is open.
    let (host, _) = node_with(|config| config.idle_timeout = Duration::from_millis(300)).await;
    let client = support::client().await;
    // A busy machine may take longer than that to open a channel on a new connection.
    let give_up = Instant::now() + LONG;
    let channel = loop {
        let peer = client.connect(support::address(&host), LONG).await.unwrap();
        match client.open(peer).await {
            Ok(channel) => break channel,
            Err(error) => {
                assert!(error.code == Code::Unavailable && Instant::now() < give_up, "{error}")
            }
        }
    };
    let mut events = open(&channel, "endless").await;
    drop(channel);
    tokio::time::sleep(Duration::from_millis(900)).await;
    for _ in 0..1000 {
        events.next().await.unwrap().unwrap();
    }
}
