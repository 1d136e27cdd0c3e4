//! Plain calls between two hosts: many at a time, out of order, cancelled, late, large.

mod support;

use debros_p2p::{Handler, Keypair};
use debros_proto::Code;
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use support::{
    LONG, QUIC, Shared, TestNode, channel, client, connect, get, node, node_with, put,
    start_with_key, subscribe, value_of,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_in_flight_get_each_its_own_answer() {
    let (node, test) = node().await;
    let (_client, channel) = connect(&node).await;
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { join_all((0..1000).map(|_| channel.call(get("wait"), LONG))).await }
    });
    test.until_waiting(1000).await;
    // Those that come later are answered earlier, and in another order than they were asked.
    let later = (0..20).map(|number| {
        let channel = channel.clone();
        async move {
            let key = format!("late {}", 20 - number);
            assert_eq!(value_of(channel.call(get(&key), LONG).await.unwrap()), key);
        }
    });
    join_all(later).await;
    test.release.cancel();
    for answer in waiting.await.unwrap() {
        assert_eq!(value_of(answer.unwrap()), "waited");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handler_learns_who_calls_and_how_long_it_may_take() {
    let (node, _) = node().await;
    let (client, channel) = connect(&node).await;
    assert_eq!(
        value_of(channel.call(get("peer"), LONG).await.unwrap()),
        client.peer_id().to_string()
    );
    assert_eq!(channel.peer(), Some(node.peer_id()));
    let left: u64 =
        text(&value_of(channel.call(get("deadline"), Duration::from_secs(20)).await.unwrap()));
    assert!(left <= 19_900, "a little less than the caller waits, not {left}");
    let capped: u64 =
        text(&value_of(channel.call(get("deadline"), Duration::from_secs(3600)).await.unwrap()));
    assert!(capped <= 60_000, "at most the node's own maximum, not {capped}");
}

fn text(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_handler_reach_the_caller() {
    let (node, _) = node().await;
    let (_client, channel) = connect(&node).await;
    let error = channel.call(get("missing"), LONG).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (Code::NotFound, "no such key"));
    let error = channel.call(get("panic"), LONG).await.unwrap_err();
    assert_eq!(error.code, Code::Internal);
    assert_eq!(
        value_of(channel.call(get("after"), LONG).await.unwrap()),
        "after",
        "a panic ends one call"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_call_drops_it_at_the_node() {
    let (node, test) = node().await;
    let (_client, channel) = connect(&node).await;
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { channel.call(get("never"), LONG).await }
    });
    test.until_waiting(1).await;
    call.abort();
    test.dropped.reaches(1).await;
    assert_eq!(value_of(channel.call(get("after"), LONG).await.unwrap()), "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_takes_its_calls_along() {
    let (node, test) = node().await;
    let (client, channel) = connect(&node).await;
    let call = tokio::spawn(async move { channel.call(get("never"), LONG).await });
    test.until_waiting(1).await;
    assert!(client.disconnect(node.peer_id()).await);
    test.dropped.reaches(1).await;
    assert_eq!(
        call.await.unwrap().unwrap_err().code,
        Code::Unavailable,
        "a read surely did nothing"
    );
    assert!(!client.disconnect(node.peer_id()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_read_says_so_and_a_late_write_says_that_it_does_not_know() {
    let (node, test) = node().await;
    let (_client, channel) = connect(&node).await;
    // Long enough for a call to come to the node, however busy the machine is.
    let short = Duration::from_secs(1);
    assert_eq!(channel.call(get("never"), short).await.unwrap_err().code, Code::DeadlineExceeded);
    test.dropped.reaches(1).await;
    assert_eq!(channel.call(put("wait", "x"), short).await.unwrap_err().code, Code::UnknownOutcome);
    test.dropped.reaches(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_ignores_the_deadline_is_dropped_at_the_node() {
    let (node, test) =
        node_with(|config| config.limits.max_call_timeout = Duration::from_millis(20)).await;
    let (_client, channel) = connect(&node).await;
    // The caller would wait for a minute; the node does not.
    assert_eq!(channel.call(get("never"), LONG).await.unwrap_err().code, Code::DeadlineExceeded);
    assert_eq!(test.dropped.count(), 1);
    assert_eq!(channel.call(put("wait", "x"), LONG).await.unwrap_err().code, Code::UnknownOutcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_connection_breaks_has_an_unknown_outcome_and_one_never_sent_has_not() {
    let (node, test) = node().await;
    let (client, channel) = connect(&node).await;
    let write = tokio::spawn({
        let channel = channel.clone();
        async move { channel.call(put("wait", "x"), LONG).await }
    });
    test.until_waiting(1).await;
    assert!(!channel.is_closed());
    client.disconnect(node.peer_id()).await;
    assert_eq!(write.await.unwrap().unwrap_err().code, Code::UnknownOutcome);
    channel.closed().await;
    assert!(channel.is_closed());
    let error = channel.call(put("x", "x"), LONG).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_and_results_come_through_over_tcp_and_quic() {
    let (node, _) = node_with(|config| config.listen.push(QUIC.parse().unwrap())).await;
    for address in node.listen_addresses() {
        let client = client().await;
        client.connect(address.clone(), LONG).await.unwrap();
        let channel = client.open(node.peer_id()).await.unwrap();
        let value: Vec<u8> = (0..4 << 20).map(|index: u32| index as u8).collect();
        let small = join_all((0..50).map(|number| channel.call(get(format!("{number}")), LONG)));
        let (answer, _) = futures::join!(channel.call(put("k", value), LONG), small);
        let stored = match answer.unwrap().result {
            Some(debros_proto::rpc::response::Result::Put(put)) => put.size,
            other => panic!("{other:?}"),
        };
        assert_eq!(stored, 4 << 20, "{address}");
        let large = value_of(channel.call(get(format!("size {}", 32 << 20)), LONG).await.unwrap());
        assert!(large.len() == 32 << 20 && large.iter().all(|byte| *byte == 7), "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_the_frame_limit_is_refused_and_nothing_else_suffers() {
    let (node, _) = node_with(|config| config.limits.response_frame_bytes = 100_000).await;
    let (_client, channel) = connect(&node).await;
    let error = channel.call(put("k", vec![0; 17 << 20]), LONG).await.unwrap_err();
    assert_eq!(error.code, Code::TooLarge);
    let error = channel.call(get("size 200000"), LONG).await.unwrap_err();
    assert_eq!(error.code, Code::ResultTooLarge);
    assert_eq!(value_of(channel.call(get("size 10"), LONG).await.unwrap()).len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_share_a_small_write_queue_without_getting_stuck() {
    let (node, _) = node_with(|config| config.limits.write_queue_bytes = 20_000).await;
    let (_client, channel) = connect(&node).await;
    let calls = (0..200).map(|number| {
        let channel = channel.clone();
        async move {
            let size = number * 500;
            assert_eq!(
                value_of(channel.call(get(format!("size {size}")), LONG).await.unwrap()).len(),
                size
            );
        }
    });
    join_all(calls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_the_limit_are_refused_at_once_and_the_others_go_on() {
    let (node, test) = node_with(|config| config.limits.calls_per_stream = 5).await;
    let (client, channel) = connect(&node).await;
    let running = tokio::spawn({
        let channel = channel.clone();
        async move { join_all((0..5).map(|_| channel.call(get("wait"), LONG))).await }
    });
    test.until_waiting(5).await;
    let error = channel.call(put("k", "v"), LONG).await.unwrap_err();
    assert_eq!(error.code, Code::Overloaded);
    assert!(error.retry_after.is_some());
    // Another stream of the same peer has its own count.
    let second = support::channel(&client, &node).await;
    assert_eq!(value_of(second.call(get("second"), LONG).await.unwrap()), "second");
    test.release.cancel();
    assert!(running.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(value_of(channel.call(get("again"), LONG).await.unwrap()), "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_the_peers_limit_are_refused_on_every_stream() {
    let (node, test) = node_with(|config| config.limits.calls_per_peer = 3).await;
    let (client, first) = connect(&node).await;
    let second = channel(&client, &node).await;
    let running = tokio::spawn({
        let (first, second) = (first.clone(), second.clone());
        async move {
            join_all([&first, &second, &first].map(|channel| channel.call(get("wait"), LONG))).await
        }
    });
    test.until_waiting(3).await;
    assert_eq!(first.call(get("x"), LONG).await.unwrap_err().code, Code::Overloaded);
    assert_eq!(second.call(get("x"), LONG).await.unwrap_err().code, Code::Overloaded);
    support::assert_serves(&node).await;
    test.release.cancel();
    assert!(running.await.unwrap().iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_hold_too_much_memory_are_refused() {
    let (node, test) = node_with(|config| config.limits.request_bytes_per_peer = 300_000).await;
    let (_client, channel) = connect(&node).await;
    let running = tokio::spawn({
        let channel = channel.clone();
        async move { join_all((0..2).map(|_| channel.call(put("wait", vec![0; 140_000]), LONG))).await }
    });
    test.until_waiting(2).await;
    assert_eq!(
        channel.call(put("k", vec![0; 50_000]), LONG).await.unwrap_err().code,
        Code::Overloaded
    );
    test.release.cancel();
    assert!(running.await.unwrap().iter().all(Result::is_ok));
    channel.call(put("k", vec![0; 140_000]), LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_serves_no_calls() {
    let (node, _) = node().await;
    let (client, channel) = connect(&node).await;
    // The node knows the connection when it has answered on it.
    channel.call(get("k"), LONG).await.unwrap();
    let error = node.open(client.peer_id()).await.unwrap_err();
    assert_eq!(error.code, Code::Unimplemented, "{error}");
    let error = node.open(Keypair::generate_ed25519().public().to_peer_id()).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_can_start_again() {
    let (key, client_key) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    for round in 0..3 {
        let node = start_with_key(&key, true).await;
        let client = start_with_key(&client_key, false).await;
        let channel = channel(&client, &node).await;
        assert_eq!(value_of(channel.call(get("round"), LONG).await.unwrap()), "round", "{round}");
        // One end goes politely, then the other, then both at once without a word.
        match round {
            0 => node.shutdown(std::time::Instant::now() + LONG).await,
            1 => client.shutdown(std::time::Instant::now() + LONG).await,
            _ => {}
        }
        if round < 2 {
            channel.closed().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_can_come_back_on_its_old_port() {
    let key = Keypair::generate_ed25519();
    let first = start_with_key(&key, true).await;
    let address = support::address(&first);
    let client = client().await;
    client.connect(address.clone(), LONG).await.unwrap();
    let channel = client.open(first.peer_id()).await.unwrap();
    first.shutdown(std::time::Instant::now() + LONG).await;
    channel.closed().await;
    // The stream ends a moment before its connection.
    support::until("the client sees the node leave", || client.connected_peers() == 0).await;
    let mut config = support::config(&[]);
    config.keypair = key;
    config.listen = vec![address.iter().take(2).collect()];
    let node = Arc::new(TestNode::default());
    let again = debros_p2p::Host::start(config, Some(Arc::new(Shared(node)))).await.unwrap();
    client.connect(address, LONG).await.unwrap();
    let channel = client.open(again.peer_id()).await.unwrap();
    assert_eq!(value_of(channel.call(get("back"), LONG).await.unwrap()), "back");
}

#[tokio::test]
async fn a_local_channel_calls_the_handler_itself() {
    let node = Arc::new(TestNode::default());
    let handler: Arc<dyn Handler> = Arc::new(Shared(node.clone()));
    let channel = debros_p2p::Channel::local(handler);
    assert_eq!(channel.peer(), None);
    assert!(!channel.is_closed());
    assert_eq!(
        value_of(channel.call(get("peer"), LONG).await.unwrap()),
        "",
        "no peer: this process"
    );
    assert_eq!(channel.call(get("missing"), LONG).await.unwrap_err().code, Code::NotFound);
    let short = Duration::from_millis(200);
    assert_eq!(channel.call(get("never"), short).await.unwrap_err().code, Code::DeadlineExceeded);
    assert_eq!(channel.call(put("wait", "x"), short).await.unwrap_err().code, Code::UnknownOutcome);
    assert_eq!(node.dropped.count(), 2, "both calls were dropped");
    assert_eq!(channel.open(get("k"), LONG).await.unwrap_err().code, Code::InvalidArgument);
    channel.call(subscribe("silent"), LONG).await.unwrap();
    assert_eq!(node.dropped.count(), 3, "a stream that was only called is dropped");
}
