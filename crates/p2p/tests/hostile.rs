//! Peers that break the rules or request too much: they lose their stream, and no other peer is
//! affected.

mod support;

use bytes::BufMut as _;
use debros_p2p::{Channel, Host};
use debros_proto::rpc::{self, frame::Body};
use debros_proto::{Code, Error};
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::raw::{RawNode, RawPeer, RawStream, encoded};
use support::{
    LONG, assert_serves, client, connect, get, missed, node, node_with, put, subscribe, value_of,
};

/// A node, a well-behaved neighbour, and a peer that will not behave.
async fn scene(host: &Host) -> (Channel, Host, RawPeer) {
    let (client, channel) = connect(host).await;
    (channel, client, RawPeer::connect(host).await)
}

async fn neighbour_is_fine(channel: &Channel, host: &Host) {
    assert_eq!(value_of(channel.call(get("fine"), LONG).await.unwrap()), "fine");
    assert_serves(host).await;
}

async fn answer_of(stream: &mut RawStream) -> (u64, Result<rpc::Response, Error>) {
    let frame = stream.receive().await.unwrap();
    match frame.body {
        Some(Body::Response(response)) => (frame.id, Ok(response)),
        Some(Body::Error(error)) => (frame.id, Err(error.into())),
        other => panic!("not an answer: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_frame_end_the_stream() {
    let (host, _) = node().await;
    let (channel, _client, mut bad) = scene(&host).await;
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: somewhere.example\r\nUser-Agent: a browser of some kind\r\n\r\n"
            [..],
        &[0xff; 64],
        &[2, 0x12, 5],
        &[4, 0x0a, 2, b'a', b'b'],
    ] {
        let mut stream = bad.open().await;
        stream.send_bytes(garbage).await;
        stream.ended().await;
    }
    neighbour_is_fine(&channel, &host).await;
    let mut stream = bad.open().await;
    stream.request(1, get("me too")).await;
    assert_eq!(
        value_of(answer_of(&mut stream).await.1.unwrap()),
        "me too",
        "the connection itself goes on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_never_hurt() {
    let (host, _) =
        node_with(|config| config.limits.partial_frame_timeout = Duration::from_millis(500)).await;
    let (channel, _client, mut bad) = scene(&host).await;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..100 {
        let bytes: Vec<u8> = (0..200)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        let mut stream = bad.open().await;
        stream.send_bytes(&bytes).await;
        drop(stream);
    }
    neighbour_is_fine(&channel, &host).await;
}

/// Lesson 7: a peer could announce, or just send, as much as it liked.
#[tokio::test(flavor = "multi_thread")]
async fn lesson_07_a_frame_over_the_limit_ends_the_stream_before_it_has_arrived() {
    let (host, _) = node().await;
    let (channel, _client, mut bad) = scene(&host).await;
    let mut stream = bad.open().await;
    let mut announced = bytes::BytesMut::new();
    // 17 MiB as a varint, and not one byte of them.
    announced.put_slice(&[0x80, 0x80, 0xc0, 0x08]);
    stream.send_bytes(&announced).await;
    stream.ended().await;
    neighbour_is_fine(&channel, &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_frame_is_waited_for_only_so_long() {
    // The frames of who behaves arrive in far less, on a busy machine too.
    let (host, _) =
        node_with(|config| config.limits.partial_frame_timeout = Duration::from_millis(300)).await;
    let (channel, _client, mut bad) = scene(&host).await;
    let whole = encoded(1, Body::Request(put("k", vec![0; 1000])));
    for cut in [1, 2, 500, whole.len() - 1] {
        let mut stream = bad.open().await;
        stream.send_bytes(&whole[..cut]).await;
        stream.ended().await;
    }
    // Drop by drop does not help: the frame's whole time counts.
    let mut stream = bad.open().await;
    for byte in &whole {
        if stream.try_send(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stream.ended().await;
    // A stream on which nothing is half-way may be silent for as long as it likes.
    let mut stream = bad.open().await;
    stream.request(1, get("late 900")).await;
    assert_eq!(answer_of(&mut stream).await.0, 1);
    neighbour_is_fine(&channel, &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_frames_are_counted_against_the_peers_memory() {
    let (host, _) = node_with(|config| config.limits.request_bytes_per_peer = 400_000).await;
    let (channel, _client, mut bad) = scene(&host).await;
    let whole = encoded(1, Body::Request(put("k", vec![0; 1 << 20])));
    let mut first = bad.open().await;
    let mut second = bad.open().await;
    first.send_bytes(&whole[..250_000]).await;
    second.send_bytes(&whole[..250_000]).await;
    // Together they are over it: whichever is counted last has to go.
    tokio::select! {
        () = first.ended() => {}
        () = second.ended() => {}
    }
    neighbour_is_fine(&channel, &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_only_a_node_sends_end_a_callers_stream() {
    let (host, _) = node().await;
    let (channel, _client, mut bad) = scene(&host).await;
    for body in [
        Body::Response(rpc::Response::default()),
        Body::Error(rpc::Error::default()),
        Body::Event(missed(1)),
        Body::End(rpc::End {}),
    ] {
        let mut stream = bad.open().await;
        stream.send(1, body).await;
        stream.ended().await;
    }
    neighbour_is_fine(&channel, &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_used_twice_at_a_time_ends_the_stream_and_one_after_the_other_does_not() {
    let (host, node) = node().await;
    let (channel, _client, mut bad) = scene(&host).await;
    let mut stream = bad.open().await;
    for _ in 0..3 {
        stream.request(7, get("again")).await;
        assert_eq!(answer_of(&mut stream).await.0, 7);
    }
    // Cancelled, then used again: the old call must not answer, nor take the new one's place.
    stream.request(7, get("never")).await;
    node.until_waiting(1).await;
    stream.send(7, Body::Cancel(rpc::Cancel {})).await;
    stream.request(7, get("new")).await;
    assert_eq!(value_of(answer_of(&mut stream).await.1.unwrap()), "new");
    node.dropped.reaches(1).await;
    stream.request(7, get("never")).await;
    node.until_waiting(2).await;
    stream.request(7, get("never")).await;
    stream.ended().await;
    node.dropped.reaches(2).await;
    neighbour_is_fine(&channel, &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_and_cancellations_for_nothing_are_ignored() {
    let (host, _) = node().await;
    let (channel, _client, mut bad) = scene(&host).await;
    let mut stream = bad.open().await;
    for id in 0..10_000 {
        stream.send(id, Body::Credit(rpc::Credit { events: u32::MAX })).await;
        stream.send(id, Body::Cancel(rpc::Cancel {})).await;
    }
    // A frame of a kind that a newer version may add.
    stream.send_bytes(&[2, 0x08, 9]).await;
    stream.request(1, get("k")).await;
    assert_eq!(answer_of(&mut stream).await.0, 1);
    neighbour_is_fine(&channel, &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_credit_does_not_make_the_node_send_without_end() {
    let (host, node) = node_with(|config| config.limits.write_queue_bytes = 100_000).await;
    let (channel, _client, mut bad) = scene(&host).await;
    let mut stream = bad.open().await;
    stream.request(1, subscribe("endless 1000")).await;
    for _ in 0..100 {
        stream.send(1, Body::Credit(rpc::Credit { events: u32::MAX })).await;
    }
    assert_eq!(answer_of(&mut stream).await.0, 1);
    assert!(stream.receive().await.is_some());
    neighbour_is_fine(&channel, &host).await;
    // Nobody reads: what was taken out of the source is bounded by the queue and the stream's
    // window.
    let produced = node.produced.load(Ordering::SeqCst);
    assert!(produced < 70_000, "{produced} events");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_get_no_further_than_the_limit() {
    let (host, node) = node().await;
    let (channel, _client, mut bad) = scene(&host).await;
    let mut held = Vec::new();
    for round in 0..10_000 {
        if bad.gone.is_cancelled() {
            bad = RawPeer::connect(&host).await;
            node.dropped.reaches(node.waiting.load(Ordering::SeqCst)).await;
            held.clear();
        }
        match bad.try_open().await {
            Ok(mut stream) => {
                stream.request(1, get("never")).await;
                held.push(stream);
            }
            // The connection was closed for having too many.
            Err(_) => bad.gone.cancel(),
        }
        if round % 1000 == 0 {
            neighbour_is_fine(&channel, &host).await;
        }
        let running = node.waiting.load(Ordering::SeqCst) - node.dropped.count();
        assert!(running <= 16, "{running} streams of one peer are served");
    }
    neighbour_is_fine(&channel, &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_calls_without_reading_ends_the_stream() {
    let (host, node) = node_with(|config| config.limits.calls_per_stream = 10).await;
    let (channel, _client, mut bad) = scene(&host).await;
    let mut stream = bad.open().await;
    for id in 0..10 {
        stream.request(id, get("never")).await;
    }
    node.until_waiting(10).await;
    let many: Vec<u8> = (10..1010).flat_map(|id| encoded(id, Body::Request(get("x")))).collect();
    // Every call is refused, and the refusals stay unread: once too many wait, the stream is reset.
    while stream.try_send(&many).await.is_ok() {}
    node.dropped.reaches(10).await;
    neighbour_is_fine(&channel, &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_is_disconnected() {
    let (host, node) =
        node_with(|config| config.limits.write_stall_timeout = Duration::from_millis(500)).await;
    let (channel, _client, mut bad) = scene(&host).await;
    let mut stream = bad.open().await;
    stream.request(1, get("never")).await;
    for id in 2..20 {
        stream.request(id, get("size 1000000")).await;
    }
    bad.gone.cancelled().await;
    node.dropped.reaches(1).await;
    neighbour_is_fine(&channel, &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_are_dropped_past_a_limit() {
    let (host, _) = node_with(|config| {
        config.limits.write_queue_bytes = 20_000;
        config.limits.waiting_answer_bytes_per_peer = 2_500_000;
    })
    .await;
    let (channel, _client, mut bad) = scene(&host).await;
    let mut stream = bad.open().await;
    // More than the window, the queue and the waiting room hold together. Nothing is read until all
    // were asked.
    for id in 1..=10 {
        stream.request(id, get("size 1000000")).await;
    }
    let mut codes = Vec::new();
    for _ in 1..=10 {
        codes.push(answer_of(&mut stream).await.1.err().map(|error| error.code));
    }
    assert!(codes.iter().any(Option::is_none), "{codes:?}");
    assert!(codes.iter().flatten().all(|code| *code == Code::Overloaded), "{codes:?}");
    neighbour_is_fine(&channel, &host).await;
}

/// A client's channel to a node that does not keep the rules.
async fn bad_node() -> (RawNode, RawStream, Host, Channel) {
    let mut node = RawNode::start().await;
    let client = client().await;
    let peer = client.connect(node.address.clone(), LONG).await.unwrap();
    let (channel, mut stream) =
        futures::join!(async { client.open(peer).await.unwrap() }, node.accept());
    // The first call shows the node the stream.
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { channel.call(get("first"), LONG).await }
    });
    let first = stream.receive().await.unwrap();
    stream.send(first.id, Body::Response(rpc::Response::default())).await;
    call.await.unwrap().unwrap();
    (node, stream, client, channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_calls_its_client_or_sends_what_was_not_asked_loses_the_channel() {
    for body in [
        Body::Request(get("k")),
        Body::Credit(rpc::Credit { events: 1 }),
        Body::Cancel(rpc::Cancel {}),
    ] {
        let (_node, mut stream, _client, channel) = bad_node().await;
        stream.send(1, body).await;
        channel.closed().await;
    }
    // Frames for calls that ended or never were may be late ones: ignored.
    let (_node, mut stream, _client, channel) = bad_node().await;
    for id in [0, 1, 99, u64::MAX] {
        stream.send(id, Body::Response(rpc::Response::default())).await;
        stream.send(id, Body::Error(rpc::Error::default())).await;
        stream.send(id, Body::Event(missed(1))).await;
        stream.send(id, Body::End(rpc::End {})).await;
    }
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { channel.call(get("k"), LONG).await }
    });
    let request = stream.receive().await.unwrap();
    // An event in answer to a plain call has no meaning.
    stream.send(request.id, Body::Event(missed(1))).await;
    assert_eq!(call.await.unwrap().unwrap_err().code, Code::Unavailable);
    channel.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_sends_more_events_than_it_has_credit_for_loses_the_channel() {
    use futures::StreamExt as _;
    let (_node, mut stream, _client, channel) = bad_node().await;
    let open = tokio::spawn({
        let channel = channel.clone();
        async move { channel.open(subscribe("t"), LONG).await }
    });
    let request = stream.receive().await.unwrap();
    let credit = match request.body {
        Some(Body::Request(request)) => request.credit,
        other => panic!("{other:?}"),
    };
    stream.send(request.id, Body::Response(rpc::Response::default())).await;
    let (_, events) = open.await.unwrap().unwrap();
    for number in 0..=credit {
        stream.send(request.id, Body::Event(missed(number.into()))).await;
    }
    channel.closed().await;
    let read: Vec<_> = events.collect().await;
    assert_eq!(read.len(), credit as usize + 1);
    assert_eq!(read.last().unwrap().as_ref().unwrap_err().code, Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_is_waited_for_only_so_long() {
    let mut config = support::config(&[]);
    config.limits.partial_frame_timeout = Duration::from_millis(40);
    let client = Host::start(config, None).await.unwrap();
    let mut node = RawNode::start().await;
    let peer = client.connect(node.address.clone(), LONG).await.unwrap();
    let (channel, mut stream) =
        futures::join!(async { client.open(peer).await.unwrap() }, node.accept());
    let call = tokio::spawn(async move { channel.call(put("k", "v"), LONG).await });
    let request = stream.receive().await.unwrap();
    let answer = encoded(request.id, Body::Response(rpc::Response::default()));
    stream.send_bytes(&answer[..answer.len() - 1]).await;
    assert_eq!(call.await.unwrap().unwrap_err().code, Code::UnknownOutcome);
}
