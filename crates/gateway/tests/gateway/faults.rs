//! Broken, oversized, slow and hostile requests: a clear answer, nothing changed, and the next
//! caller is served.

use crate::http_client::Http;
use crate::setup::{KEY, Running, start, start_with};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn still_serves(gateway: &Running) {
    assert_eq!(gateway.get("/v1/storage/list").await.status, 200);
}

fn head(method: &str, path: &str, more: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ak_good:one\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused() {
    let gateway = start().await;
    for bad in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nBad\0: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        let mut connection = gateway.connect().await;
        connection.try_send(bad).await;
        if let Some(answer) = connection.answer(false).await {
            assert_eq!(answer.status, 400, "{bad:?}");
        }
        assert!(connection.is_closed().await, "{bad:?}");
    }
    still_serves(&gateway).await;
}

#[tokio::test]
async fn heads_have_limits() {
    let gateway = start().await;
    let many = "X: y\r\n".repeat(200);
    let huge = format!("X: {}\r\n", "y".repeat(100_000));
    for (more, status) in [(many, 431), (huge, 431)] {
        let mut connection = gateway.connect().await;
        connection.try_send(head("GET", "/health", &more)).await;
        if let Some(answer) = connection.answer(false).await {
            assert_eq!(answer.status, status);
        }
    }
    let mut connection = gateway.connect().await;
    connection
        .try_send(head("GET", &format!("/v1/storage/get?key={}", "k".repeat(70_000)), ""))
        .await;
    if let Some(answer) = connection.answer(false).await {
        assert!(matches!(answer.status, 414 | 431), "{}", answer.status);
    }
    still_serves(&gateway).await;
}

#[tokio::test]
async fn a_caller_can_not_put_lines_into_headers() {
    let gateway = start().await;
    let answer = gateway.get("/v1/storage/get?key=a%0d%0aSet-Cookie:%20x=1").await;
    answer.assert_error(404, "not_found");
    assert!(answer.header("set-cookie").is_none());
    let id = gateway.request("GET", "/health", &[("X-Request-Id", "a%0d%0aX: y")], "").await;
    assert!(id.header("x").is_none());
    let unknown = gateway.get("/v1/storage/get?%0d%0aX=1").await;
    assert!(unknown.assert_error(400, "invalid_argument").contains("\\r\\n"), "shown escaped");
}

#[tokio::test]
async fn a_body_over_its_limit_is_413_in_every_form() {
    let gateway = start_with(|config| {
        config.limits.max_value = 1000;
        config.limits.max_json = 2000;
    })
    .await;
    assert_eq!(gateway.call("PUT", "/v1/storage?key=fits", vec![b'x'; 1000]).await.status, 201);
    gateway.call("PUT", "/v1/storage?key=k", vec![b'x'; 1001]).await.assert_error(413, "too_large");
    gateway.post("/v1/db/query", vec![b' '; 2001]).await.assert_error(413, "too_large");
    // Announced, never sent.
    let mut connection = gateway.connect().await;
    connection.send(head("PUT", "/v1/storage?key=k", "Content-Length: 99999999999\r\n")).await;
    connection.answer(false).await.unwrap().assert_error(413, "too_large");
    // In chunks, without an announcement.
    let mut connection = gateway.connect().await;
    connection.send(head("PUT", "/v1/storage?key=k", "Transfer-Encoding: chunked\r\n")).await;
    for _ in 0..30 {
        connection.try_send(format!("64\r\n{}\r\n", "x".repeat(100))).await;
    }
    connection.try_send("0\r\n\r\n").await;
    connection.answer(false).await.unwrap().assert_error(413, "too_large");
    assert!(gateway.node.value("one", "k").is_none());
    still_serves(&gateway).await;
}

/// As curl does it with everything over 1 MiB: the head first, the body when it is asked for.
#[tokio::test]
async fn a_body_over_its_limit_is_not_asked_for() {
    let gateway = start().await;
    let ask = |length: usize| {
        head(
            "PUT",
            "/v1/storage?key=k",
            &format!("Content-Length: {length}\r\nExpect: 100-continue\r\n"),
        )
    };
    let mut connection = gateway.connect().await;
    connection.send(ask(5 << 20)).await;
    assert_eq!(connection.status_line().await, "HTTP/1.1 413 Payload Too Large");
    connection.answer(false).await.unwrap().assert_error(413, "too_large");
    assert!(connection.is_closed().await, "what follows could be the body");
    let mut connection = gateway.connect().await;
    connection.send(ask(4 << 20)).await;
    assert_eq!(connection.status_line().await, "HTTP/1.1 100 Continue");
    connection.send(vec![7; 4 << 20]).await;
    assert_eq!(connection.answer(false).await.unwrap().status, 201);
}

/// A caller that reads while it sends learns of the refusal long before the end; one that does not
/// still
/// finds the answer.
#[tokio::test]
async fn a_body_over_its_limit_is_refused_while_it_is_sent() {
    const MIB: usize = 1 << 20;
    let gateway = start().await;
    let stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let (mut receive, mut send) = stream.into_split();
    let announce = format!("Content-Length: {}\r\n", 1024 * MIB);
    send.write_all(head("PUT", "/v1/storage?key=k", &announce).as_bytes()).await.unwrap();
    let mut sent = 0;
    let mut answer = [0; 12];
    let mut answered = Box::pin(receive.read_exact(&mut answer));
    loop {
        tokio::select! {
            biased;
            read = &mut answered => {
                read.unwrap();
                break;
            }
            wrote = send.write_all(&[0; 64 << 10]) => wrote.unwrap(),
        }
        sent += 64 << 10;
        tokio::task::yield_now().await;
    }
    drop(answered);
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert!(sent < 16 * MIB, "{sent} bytes were sent before the answer");

    let mut connection = gateway.connect().await;
    connection
        .send(head("PUT", "/v1/storage?key=k", &format!("Content-Length: {}\r\n", 12 * MIB)))
        .await;
    connection.send(vec![0; 12 * MIB]).await;
    connection.answer(false).await.unwrap().assert_error(413, "too_large");
    still_serves(&gateway).await;
}

#[tokio::test]
async fn the_largest_value_fits() {
    let gateway = start().await;
    let value = vec![7; 4 << 20];
    assert_eq!(gateway.call("PUT", "/v1/storage?key=k", &value).await.status, 201);
    assert_eq!(gateway.get("/v1/storage?key=k").await.body, value);
    let over = gateway.call("PUT", "/v1/storage?key=over", vec![7; (4 << 20) + 1]).await;
    over.assert_error(413, "too_large");
}

#[tokio::test]
async fn chunked_bodies_are_read_and_broken_ones_refused() {
    let gateway = start().await;
    let chunked = |key: &str, body: &str| {
        head("PUT", &format!("/v1/storage?key={key}"), "Transfer-Encoding: chunked\r\n") + body
    };
    let mut connection = gateway.connect().await;
    connection.send(chunked("good", "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n")).await;
    assert_eq!(connection.answer(false).await.unwrap().status, 201);
    assert_eq!(gateway.node.value("one", "good").unwrap(), "abcde");
    for bad in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\na",
        "-1\r\n\r\n",
    ] {
        let mut connection = gateway.connect().await;
        connection.try_send(chunked("bad", bad)).await;
        connection.answer(false).await.unwrap().assert_error(400, "malformed");
        assert!(connection.is_closed().await, "{bad:?}");
    }
    assert!(gateway.node.value("one", "bad").is_none());
    still_serves(&gateway).await;
}

#[tokio::test]
async fn a_body_that_ends_early_changes_nothing() {
    let gateway = start().await;
    let mut connection = gateway.connect().await;
    connection.send(head("PUT", "/v1/storage?key=k", "Content-Length: 10\r\n") + "half").await;
    drop(connection);
    still_serves(&gateway).await;
    assert!(gateway.node.value("one", "k").is_none());
}

#[tokio::test]
async fn what_follows_a_body_is_the_next_request() {
    let gateway = start().await;
    let mut connection = gateway.connect().await;
    let body = head("PUT", "/v1/storage?key=k", "Content-Length: 2\r\n") + "ab";
    connection.send(body + &head("GET", "/v1/storage?key=k", "")).await;
    assert_eq!(connection.answer(false).await.unwrap().status, 201);
    assert_eq!(connection.answer(false).await.unwrap().body, b"ab");
}

/// Lesson 10: a server without timeouts could be held by callers that send a byte at a time.
#[tokio::test]
async fn lesson_10_a_head_that_does_not_come_ends_the_connection() {
    // Longer than a busy machine takes this test's thread away: a caller with a whole head sends it
    // in
    // time.
    let gateway = start_with(|config| config.limits.header_timeout = Duration::from_secs(1)).await;
    let mut silent = gateway.connect().await;
    let mut half = gateway.connect().await;
    half.send("GET /health HTTP/1.1\r\nHost: lo").await;
    assert!(silent.is_closed().await);
    assert!(half.is_closed().await || half.answer(false).await.is_some());
    still_serves(&gateway).await;
}

/// Lesson 10: the same with a body.
#[tokio::test]
async fn lesson_10_a_body_that_does_not_come_is_408() {
    let gateway =
        start_with(|config| config.limits.body_timeout = Duration::from_millis(100)).await;
    let mut connection = gateway.connect().await;
    connection.send(head("PUT", "/v1/storage?key=k", "Content-Length: 10\r\n") + "a").await;
    let answer = connection.answer(false).await.unwrap();
    answer.assert_error(408, "deadline_exceeded");
    assert!(connection.is_closed().await);
    assert!(gateway.node.value("one", "k").is_none());
}

#[tokio::test]
async fn strangers_can_not_make_the_gateway_read_much() {
    let gateway = start().await;
    for framing in ["Content-Length: 4000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut connection = gateway.connect().await;
        let stranger = format!(
            "PUT /v1/storage?key=k HTTP/1.1\r\nHost: x\r\nX-API-Key: guess\r\n{framing}\r\n"
        );
        connection.send(stranger).await;
        connection.answer(false).await.unwrap().assert_error(401, "unauthenticated");
    }
}

#[tokio::test]
async fn a_panic_is_one_failed_request() {
    let gateway = start().await;
    let mut connection = gateway.connect().await;
    let answer = connection.request("POST", "/v1/db/query", &[KEY], br#"{"sql":"PANIC"}"#).await;
    let message = answer.assert_error(500, "internal");
    assert!(!message.contains("a defect\""), "{message}");
    assert_eq!(
        connection.request("GET", "/health", &[], b"").await.status,
        200,
        "the connection continues"
    );
}

#[tokio::test]
async fn a_call_that_takes_too_long_ends() {
    let gateway =
        start_with(|config| config.limits.request_timeout = Duration::from_millis(100)).await;
    let answer = gateway.post("/v1/db/query", r#"{"sql":"SLEEP"}"#).await;
    assert_eq!(answer.status, 504);
    crate::setup::until("the call is cancelled", || {
        gateway.node.asleep.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_leaves_ends_its_call() {
    let gateway = start().await;
    let mut connection = gateway.connect().await;
    let body = r#"{"sql":"SLEEP"}"#;
    connection
        .send(head("POST", "/v1/db/query", &format!("Content-Length: {}\r\n", body.len())) + body)
        .await;
    crate::setup::until("the call is there", || gateway.node.asleep.load(Ordering::SeqCst) == 1)
        .await;
    drop(connection);
    crate::setup::until("the call is cancelled", || {
        gateway.node.asleep.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn garbage_does_not_stop_the_gateway() {
    let gateway = start().await;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..200 {
        let mut garbage = Vec::new();
        for _ in 0..64 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            garbage.extend_from_slice(&seed.to_le_bytes());
        }
        let mut connection = Http::connect(gateway.address()).await;
        connection.try_send(&garbage).await;
    }
    still_serves(&gateway).await;
}
