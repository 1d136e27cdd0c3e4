//! Which callers get a place when connections or WebSockets are scarce: neither one address nor one
//! key takes the last one.

use crate::http_client::{Http, request};
use crate::pubsub::handshake;
use crate::setup::{KEY, OPERATOR, Running, patience, start_with, until};
use crate::websocket_client::{message, open, send, subscribe};
use std::net::SocketAddr;
use tokio::net::{TcpSocket, TcpStream};

/// A connection from another address of this machine.
async fn connect_from(source: &str, gateway: SocketAddr) -> Http {
    Http::over(stream_from(source, gateway).await)
}

async fn stream_from(source: &str, gateway: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    socket.connect(gateway).await.unwrap()
}

/// A request that runs until the test lets the node end it: its connection is not idle.
async fn busy(gateway: &Running, count: usize) -> Vec<Http> {
    let before = gateway.node.asleep.load(std::sync::atomic::Ordering::SeqCst);
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = gateway.connect().await;
        connection.send(request("POST", "/v1/db/query", &[KEY], br#"{"sql":"SLEEP"}"#)).await;
        connections.push(connection);
    }
    let asleep = std::sync::Arc::clone(&gateway.node.asleep);
    until("they are under way", move || {
        asleep.load(std::sync::atomic::Ordering::SeqCst) == before + count
    })
    .await;
    connections
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_a_new_one() {
    let gateway = start_with(|config| config.limits.max_connections = 2).await;
    let mut unproven = gateway.connect().await;
    assert_eq!(unproven.request("GET", "/health", &[], b"").await.status, 200);
    let mut proven = gateway.connect().await;
    assert_eq!(proven.request("GET", "/v1/storage/list", &[KEY], b"").await.status, 200);
    let mut third = gateway.connect().await;
    assert_eq!(third.request("GET", "/v1/storage/list", &[KEY], b"").await.status, 200);
    assert!(unproven.is_closed().await, "nobody has shown a credential on it");
    assert_eq!(proven.request("GET", "/health", &[], b"").await.status, 200);
}

#[tokio::test]
async fn a_connection_with_a_request_under_way_makes_no_room() {
    let gateway = start_with(|config| config.limits.max_connections = 2).await;
    let mut two = busy(&gateway, 2).await;
    let mut third = gateway.connect().await;
    third.try_send(request("GET", "/health", &[], b"")).await;
    assert!(third.answer(false).await.is_none(), "it is closed");
    gateway.node.wake.0.add_permits(2);
    for connection in &mut two {
        assert_eq!(connection.answer(false).await.unwrap().status, 200);
    }
}

/// 10,100 idle connections from one address took all places.
#[tokio::test]
async fn one_address_leaves_places_for_others() {
    let gateway = start_with(|config| config.limits.max_connections = 64).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(gateway.connect().await);
    }
    let mut other = connect_from("127.0.0.2", gateway.address()).await;
    assert_eq!(other.request("GET", "/health", &[], b"").await.status, 200);
    let mut same = gateway.connect().await;
    assert_eq!(
        same.request("GET", "/health", &[], b"").await.status,
        200,
        "its own idle ones make room"
    );
    assert_eq!(other.request("GET", "/health", &[], b"").await.status, 200, "nobody else's do");
    let mut open = 0;
    for connection in &mut idle {
        connection.try_send(request("GET", "/health", &[], b"")).await;
        open += usize::from(connection.answer(false).await.is_some());
    }
    assert!(open <= 32, "one address has half at most: {open}");
}

/// 19,000 connections in their closing handshake began a request then, and were counted nowhere.
#[tokio::test]
async fn who_makes_room_goes_although_it_begins_something() {
    let gateway = start_with(|config| config.limits.max_connections = 32).await;
    let mut oldest = gateway.connect().await;
    let body = br#"{"sql":"SLEEP"}"#;
    let rest = request("POST", "/v1/db/query", &[KEY], body);
    let rest = std::str::from_utf8(&rest).unwrap().split_once("\r\n").unwrap().1.to_owned();
    oldest.send(format!("POST /v1/db/query HTTP/1.1\r\nX: {}\r\n", "y".repeat(20_000))).await;
    until("half of its head has come", || gateway.held_bytes() > 0).await;
    let mut idle = Vec::new();
    // The last one is over the address's share.
    for _ in 0..15 {
        let mut connection = gateway.connect().await;
        assert_eq!(connection.request("GET", "/health", &[], b"").await.status, 200);
        idle.push(connection);
    }
    oldest.try_send(rest).await;
    // The node does not answer, so nothing else ends it.
    let ended = tokio::time::timeout_at(patience().into(), oldest.is_closed()).await;
    assert!(ended.expect("it ends"));
}

#[tokio::test]
async fn operators_and_members_get_in_when_every_place_is_busy() {
    let gateway = start_with(|config| config.limits.max_connections = 32).await;
    // 30 ordinary places: half of them for this address, and those that are left in the reserve of
    // two.
    let _busy = busy(&gateway, 15).await;
    let list = "/v1/storage/list";
    for (credential, status) in
        [(None, 503), (Some(("X-API-Key", "ak_bad")), 401), (Some(KEY), 200)]
    {
        let mut connection = gateway.connect().await;
        let headers: Vec<_> = credential.into_iter().collect();
        let answer = connection.request("GET", list, &headers, b"").await;
        assert_eq!(
            (answer.status, answer.header("connection").is_some()),
            (status, status != 200),
            "{credential:?}"
        );
        assert_eq!(connection.is_closed_soon(status != 200).await, status != 200);
    }
    let mut operator = gateway.connect().await;
    assert_eq!(operator.request("GET", list, &[OPERATOR], b"").await.status, 200);
    assert_eq!(operator.request("GET", "/health", &[], b"").await.status, 200, "it stays");
    let mut other = connect_from("127.0.0.2", gateway.address()).await;
    assert_eq!(
        other.request("GET", "/health", &[], b"").await.status,
        200,
        "another address has ordinary places"
    );
}

/// 9,999 WebSockets of one key took all places.
#[tokio::test]
async fn one_key_leaves_websockets_for_others() {
    let gateway = start_with(|config| config.limits.max_websockets = 16).await;
    let mut sockets = Vec::new();
    let refused = loop {
        let source = format!("127.0.0.{}", 2 + sockets.len());
        let mut connection = connect_from(&source, gateway.address()).await;
        let answer = connection.request("GET", "/v1/pubsub/ws?topic=t", &handshake(), b"").await;
        if answer.status != 101 {
            break answer;
        }
        sockets.push(connection);
    };
    refused.assert_error(429, "rate_limited");
    assert_eq!(sockets.len(), 8);
    let other = [("Authorization", "Bearer ak_good:two"), ("Host", "localhost")];
    let (mut socket, _) = open(gateway.address(), "/v1/pubsub/ws?topic=t", &other).await.unwrap();
    send(&mut socket, "x").await;
    assert_eq!(message(&mut socket).await, b"x");
    drop(sockets);
    until("the key's sockets are gone", || gateway.node.subscribers("one", "t") == 0).await;
    while open(gateway.address(), "/v1/pubsub/ws?topic=t", &[KEY]).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_address_leaves_websockets_for_others() {
    let gateway = start_with(|config| config.limits.max_websockets = 16).await;
    let mut sockets = Vec::new();
    for number in 0..8 {
        let key = format!("Bearer ak_good:n{number}");
        let path = "/v1/pubsub/ws?topic=t";
        sockets.push(
            open(gateway.address(), path, &[("Authorization", key.as_str())]).await.unwrap().0,
        );
    }
    let mut connection = gateway.connect().await;
    let answer = connection.request("GET", "/v1/pubsub/ws?topic=t", &handshake(), b"").await;
    answer.assert_error(429, "rate_limited");
    let mut elsewhere = connect_from("127.0.0.2", gateway.address()).await;
    assert_eq!(
        elsewhere.request("GET", "/v1/pubsub/ws?topic=t", &handshake(), b"").await.status,
        101
    );
}

/// Behind a trusted proxy the address is the one that it names, and the proxy's connections are
/// nobody's share.
#[tokio::test]
async fn a_trusted_proxy_speaks_for_many() {
    let gateway = start_with(|config| {
        config.limits.max_connections = 64;
        config.limits.max_websockets = 16;
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let mut sockets = Vec::new();
    for number in 0..12 {
        let forwarded = format!("198.51.100.{}", number % 2);
        let key = format!("Bearer ak_good:n{number}");
        let headers = [("Authorization", key.as_str()), ("X-Forwarded-For", forwarded.as_str())];
        sockets.push(open(gateway.address(), "/v1/pubsub/ws?topic=t", &headers).await);
    }
    let opened = sockets.iter().filter(|socket| socket.is_ok()).count();
    assert_eq!(opened, 10, "a third each, and a third is free");
    let _busy = busy(&gateway, 45).await;
    let _direct = subscribe(gateway.address(), "t").await;
}
