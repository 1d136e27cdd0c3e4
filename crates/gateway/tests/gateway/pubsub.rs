//! Topics, by WebSocket and by request.

use crate::fake_node::QUEUE;
use crate::setup::{KEY, start, start_with, until};
use crate::websocket_client::{close_code, message, notice, open, send, subscribe};
use bytes::Bytes;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

const WS: &str = "/v1/pubsub/ws?topic=t";

#[tokio::test]
async fn a_published_message_arrives_as_a_binary_frame() {
    let gateway = start().await;
    let mut socket = subscribe(gateway.address(), "t").await;
    let published =
        gateway.post("/v1/pubsub/publish", r#"{"topic":"t","data_base64":"AP8="}"#).await;
    assert_eq!((published.status, published.json()), (200, json!({"status": "ok"})));
    assert_eq!(message(&mut socket).await, [0, 255]);
    send(&mut socket, "text").await;
    assert_eq!(message(&mut socket).await, b"text", "the sender's own subscription hears it");
    send(&mut socket, Bytes::from_static(b"\x00")).await;
    assert_eq!(message(&mut socket).await, [0]);
    assert_eq!(gateway.get("/v1/pubsub/topics").await.json(), json!({"topics": ["t"]}));
}

/// Lesson 4: namespaces shared one space of topics.
#[tokio::test]
async fn lesson_04_namespaces_do_not_hear_each_other() {
    let gateway = start().await;
    let mut one = subscribe(gateway.address(), "t").await;
    let (mut two, _) = open(gateway.address(), WS, &[("X-API-Key", "ak_good:two")]).await.unwrap();
    gateway.post("/v1/pubsub/publish", r#"{"topic":"t","data_base64":"b25l"}"#).await;
    let for_two = [("X-API-Key", "ak_good:two")];
    gateway
        .request("POST", "/v1/pubsub/publish", &for_two, r#"{"topic":"t","data_base64":"dHdv"}"#)
        .await;
    assert_eq!(message(&mut one).await, b"one");
    assert_eq!(message(&mut two).await, b"two");
}

/// Lesson 23: the second subscriber got nothing, and one leaving ended all.
#[tokio::test]
async fn lesson_23_subscribers_are_independent() {
    let gateway = start().await;
    let mut first = subscribe(gateway.address(), "t").await;
    let mut second = subscribe(gateway.address(), "t").await;
    send(&mut first, "a").await;
    assert_eq!(
        (message(&mut first).await, message(&mut second).await),
        (b"a".to_vec(), b"a".to_vec())
    );
    first.close(None).await.unwrap();
    until("the first has left", || gateway.node.subscribers("one", "t") == 1).await;
    send(&mut second, "b").await;
    assert_eq!(message(&mut second).await, b"b");
}

/// Lesson 24: each closed idle WebSocket leaked a task, a socket and a subscription until the next
/// message.
#[tokio::test]
async fn lesson_24_an_idle_websocket_that_closes_frees_everything_at_once() {
    let gateway = start_with(|config| config.limits.max_websockets = 4).await;
    for round in 1..=3 {
        let mut sockets = Vec::new();
        for _ in 0..4 {
            sockets.push(subscribe(gateway.address(), "idle").await);
        }
        assert_eq!(gateway.node.subscribers("one", "idle"), 4);
        let mut rest = sockets.split_off(2);
        for mut polite in sockets {
            polite.close(None).await.unwrap();
        }
        // The others just break off.
        rest.clear();
        until("all have left", || gateway.node.left.load(Ordering::SeqCst) == round * 4).await;
        assert_eq!(gateway.node.subscribers("one", "idle"), 0);
        // The places are free again after the closing handshakes.
        tokio::time::timeout(Duration::from_secs(60), async {
            while open(gateway.address(), WS, &[KEY]).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        until("the probe has left", || gateway.node.subscribers("one", "t") == 0).await;
        gateway.node.left.store(round * 4, Ordering::SeqCst);
    }
}

/// Lesson 24: failed pings were ignored.
#[tokio::test]
async fn lesson_24_a_websocket_without_pongs_is_closed() {
    let gateway = start_with(|config| {
        config.limits.ping_interval = Duration::from_millis(50);
        // Longer than a busy machine takes this test's thread away: the one that answers does so in
        // time.
        config.limits.pong_timeout = Duration::from_secs(2);
    })
    .await;
    let mut alive = subscribe(gateway.address(), "t").await;
    // A socket whose owner does nothing: no pong is sent.
    let _dead = subscribe(gateway.address(), "t").await;
    let reading = tokio::spawn(async move { close_code(&mut alive).await });
    until("the dead one has left", || gateway.node.subscribers("one", "t") == 1).await;
    gateway.shutdown(crate::setup::patience()).await;
    assert_eq!(reading.await.unwrap(), 1001, "the one that answers pings lives until the end");
}

/// Lesson 25: equal messages within two seconds were dropped.
#[tokio::test]
async fn lesson_25_two_equal_messages_are_two() {
    let gateway = start().await;
    let mut socket = subscribe(gateway.address(), "t").await;
    for _ in 0..3 {
        send(&mut socket, "1").await;
    }
    for _ in 0..3 {
        assert_eq!(message(&mut socket).await, b"1");
    }
}

/// Lesson 25: a slow reader lost messages silently.
#[tokio::test]
async fn lesson_25_a_slow_reader_is_told_what_it_missed_and_slows_nobody() {
    let gateway = start().await;
    let mut slow = subscribe(gateway.address(), "t").await;
    let mut quick = subscribe(gateway.address(), "t").await;
    // More than the sockets' buffers and the node's queue hold.
    let padding = vec![b'x'; 256 << 10];
    let total = 200_u32;
    for number in 0..total {
        let data = [&number.to_be_bytes()[..], &padding].concat();
        gateway.node.publish("one", "t", &data.into());
        let heard = message(&mut quick).await;
        assert_eq!(heard[..4], number.to_be_bytes(), "in order, none missing");
    }
    let (mut heard, mut missed) = (Vec::new(), 0);
    while heard.last() != Some(&(total - 1)) {
        use futures::StreamExt as _;
        match slow.next().await.unwrap().unwrap() {
            Message::Binary(data) => heard.push(u32::from_be_bytes(data[..4].try_into().unwrap())),
            Message::Text(text) => {
                let notice: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(notice["type"], "missed");
                missed += notice["count"].as_u64().unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(missed > 0 && heard.is_sorted());
    assert_eq!(heard.len() as u64 + missed, u64::from(total), "each was heard or counted");
    send(&mut slow, "on").await;
    assert_eq!(message(&mut slow).await, b"on");
}

#[tokio::test]
async fn the_largest_message_arrives_whole() {
    let gateway = start().await;
    let mut socket = subscribe(gateway.address(), "t").await;
    let data: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    send(&mut socket, data.clone()).await;
    assert_eq!(message(&mut socket).await, data);
    for size in [0, 1, 125, 126, 65_535, 65_536, (16 << 10) + 1] {
        send(&mut socket, data[..size].to_vec()).await;
        assert_eq!(message(&mut socket).await, data[..size]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_subscribers_hear_everything_in_order() {
    let gateway = start().await;
    let mut tasks = tokio::task::JoinSet::new();
    let mut silent = Vec::new();
    let rounds = QUEUE as u32 / 2;
    for number in 0..1000 {
        let mut socket = subscribe(gateway.address(), "t").await;
        if number % 100 == 0 {
            silent.push(socket);
            continue;
        }
        tasks.spawn(async move {
            for round in 0..rounds {
                assert_eq!(message(&mut socket).await, round.to_be_bytes());
            }
        });
    }
    for round in 0..rounds {
        gateway.node.publish("one", "t", &Bytes::copy_from_slice(&round.to_be_bytes()));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_message_that_is_not_published_is_told() {
    let gateway = start().await;
    let mut socket = subscribe(gateway.address(), "t").await;
    gateway.node.refuse_publish.store(true, Ordering::Relaxed);
    send(&mut socket, "x").await;
    let told = notice(&mut socket).await;
    assert_eq!((told["type"].as_str(), told["code"].as_str()), (Some("error"), Some("forbidden")));
    gateway.node.refuse_publish.store(false, Ordering::Relaxed);
    send(&mut socket, "y").await;
    assert_eq!(message(&mut socket).await, b"y", "the socket continues");
}

#[tokio::test]
async fn a_revoked_key_ends_the_subscription() {
    let gateway = start().await;
    let mut socket = subscribe(gateway.address(), "t").await;
    gateway.node.revoke_subscriptions();
    assert_eq!(notice(&mut socket).await["code"], "unauthenticated");
    assert_eq!(close_code(&mut socket).await, 1008);
}

/// Lesson 38: a browser can send no headers with a WebSocket.
#[tokio::test]
async fn lesson_38_browsers_present_their_credential_in_the_subprotocol_or_the_query() {
    let gateway = start().await;
    let address = gateway.address();
    let protocol = ("Sec-WebSocket-Protocol", "bearer.ak_good%3Aone");
    let (mut socket, answer) = open(address, WS, &[protocol]).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "bearer.ak_good%3Aone");
    send(&mut socket, "x").await;
    assert_eq!(message(&mut socket).await, b"x");
    assert_eq!(gateway.node.last_request().credential, "ak_good:one");
    open(address, &format!("{WS}&token=ey.good.one"), &[]).await.unwrap();
    assert_eq!(gateway.node.last_request().credential, "ey.good.one");
    let plain = gateway.get("/v1/storage/list?token=ak_good%3Aone").await;
    plain.assert_error(400, "invalid_argument");
    assert!(open(address, WS, &[("Sec-WebSocket-Protocol", "bearer.wrong")]).await.is_err());
    assert!(open(address, &format!("{WS}&token="), &[]).await.is_err());
    open(address, WS, &[protocol, KEY]).await.expect("the same credential twice is one");
    for two in [
        ("Authorization", "Bearer ak_good:two"),
        ("Sec-WebSocket-Protocol", "bearer.ak_good%3Atwo"),
    ] {
        assert!(open(address, WS, &[protocol, two]).await.is_err(), "{two:?}");
    }
    assert!(open(address, &format!("{WS}&token=ey.good.one"), &[KEY]).await.is_err());
    // A key would stay in histories and in the logs of proxies.
    let asked = gateway.request("GET", &format!("{WS}&token=ak_good%3Aone"), &[], "").await;
    let message = asked.assert_error(400, "invalid_argument");
    assert!(message.contains("subprotocol") && !message.contains("ak_good"), "{message}");
}

/// Lesson 14: any page could open a WebSocket.
#[tokio::test]
async fn lesson_14_origins_are_checked_for_websockets() {
    let gateway =
        start_with(|config| config.cors_origins = vec!["https://app.example".into()]).await;
    let from = |origin| [KEY, ("Origin", origin)];
    assert!(open(gateway.address(), WS, &from("https://evil.example")).await.is_err());
    assert!(open(gateway.address(), WS, &from("https://app.example")).await.is_ok());
    assert!(open(gateway.address(), WS, &[KEY]).await.is_ok(), "programs send no origin");
}

#[tokio::test]
async fn websockets_over_the_limit_are_refused() {
    let gateway = start_with(|config| config.limits.max_websockets = 1).await;
    let _first = subscribe(gateway.address(), "t").await;
    let refused = gateway.request("GET", WS, &handshake(), "").await;
    refused.assert_error(503, "overloaded");
    assert_eq!(gateway.node.subscribers("one", "t"), 1);
}

#[tokio::test]
async fn what_is_no_handshake_is_refused() {
    let gateway = start().await;
    let good = handshake();
    for (name, value) in [
        ("Upgrade", "h2c"),
        ("Connection", "keep-alive"),
        ("Sec-WebSocket-Version", "8"),
        ("Sec-WebSocket-Key", "short"),
    ] {
        let bad: Vec<_> = good
            .iter()
            .map(|header| if header.0 == name { (name, value) } else { *header })
            .collect();
        let status = if name == "Sec-WebSocket-Version" { 426 } else { 400 };
        gateway.request("GET", WS, &bad, "").await.assert_error(status, "invalid_argument");
    }
    gateway.request("GET", WS, &[KEY], "").await.assert_error(400, "invalid_argument");
    for path in [
        "/v1/pubsub/ws",
        "/v1/pubsub/ws?topic=",
        "/v1/pubsub/ws?topic=%00",
        "/v1/pubsub/ws?topic=t&key=x",
    ] {
        gateway.request("GET", path, &good, "").await.assert_error(400, "invalid_argument");
    }
    let topic = "t".repeat(257);
    let long = gateway.request("GET", &format!("/v1/pubsub/ws?topic={topic}"), &good, "").await;
    long.assert_error(400, "invalid_argument");
    assert_eq!(gateway.node.subscribers("one", "t"), 0);
}

#[tokio::test]
async fn bad_messages_by_request_are_refused() {
    let gateway = start().await;
    for bad in
        [r#"{"topic":"t","data_base64":"?"}"#, r#"{"topic":"t"}"#, r#"{"topic":"t","data":"eA=="}"#]
    {
        gateway.post("/v1/pubsub/publish", bad).await.assert_error(400, "invalid_argument");
    }
}

pub(crate) fn handshake() -> [(&'static str, &'static str); 5] {
    [
        KEY,
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
}
