//! Plain calls between two hosts: many at a time, out of order, cancelled, late, large.

mod support;

use debros_p2p::{Channel, Host};
use debros_proto::Code;
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use support::{LONG, QUIC, TCP, client, config, connect, get, node, put, value_of};

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_at_a_time_get_each_its_own_answer() {
    let (node, _) = node().await;
    let (_client, channel) = connect(&node).await;
    let calls = (0..1000).map(|number| {
        let channel = channel.clone();
        async move {
            // Later calls are answered earlier.
            let key = format!("late {}", (1000 - number) / 20);
            let key = format!("{key}{}", if number % 2 == 0 { "" } else { "0" });
            assert_eq!(value_of(channel.call(get(&key), LONG).await.unwrap()), key);
        }
    });
    join_all(calls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_call_does_not_hold_up_a_later_one() {
    let (node, test) = node().await;
    let (_client, channel) = connect(&node).await;
    let early = tokio::spawn({
        let channel = channel.clone();
        async move { channel.call(get("wait"), LONG).await }
    });
    test.until_waiting(1).await;
    assert_eq!(value_of(channel.call(get("later"), LONG).await.unwrap()), "later");
    test.release.cancel();
    assert_eq!(value_of(early.await.unwrap().unwrap()), "waited");
}
