//! Stopping: every accepted request is answered, and the end comes in time.

use crate::http_client::{Http, request};
use crate::setup::{KEY, patience, start, until};
use crate::websocket_client::{close_code, subscribe};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_request_that_is_worked_on_is_answered() {
    let gateway = start().await;
    let mut connection = gateway.connect().await;
    connection.send(request("POST", "/v1/db/query", &[KEY], br#"{"sql":"SLEEP"}"#)).await;
    until("the call is there", || gateway.node.asleep.load(Ordering::SeqCst) == 1).await;
    let wake = Arc::clone(&gateway.node.wake);
    let answered = tokio::spawn(async move {
        let answer = connection.answer(false).await.unwrap();
        (answer.status, connection.is_closed().await)
    });
    let stopping = gateway.shutdown(patience());
    let waking = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        wake.0.add_permits(1);
    };
    tokio::join!(stopping, waking);
    assert_eq!(answered.await.unwrap(), (200, true));
}

#[tokio::test]
async fn a_request_whose_body_is_still_arriving_is_answered() {
    let gateway = start().await;
    let mut connection = gateway.connect().await;
    let whole = request("PUT", "/v1/storage?key=k", &[KEY], &[b'x'; 1000]);
    let (first, rest) = whole.split_at(whole.len() - 10);
    connection.send(first).await;
    // The node hears nothing of an incomplete body; a second request shows that the first bytes
    // were read.
    gateway.get("/v1/storage/list").await;
    let sending = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        connection.send(rest).await;
        connection.answer(false).await.unwrap()
    };
    let (answer, ()) = tokio::join!(sending, gateway.shutdown(patience()));
    assert_eq!(answer.status, 201);
    assert_eq!(gateway.node.value("one", "k").unwrap().len(), 1000);
}

/// Acceptance: a stop under load answers every request that was accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_answers_every_accepted_request() {
    let gateway = start().await;
    let address = gateway.address();
    let answered = Arc::new(AtomicUsize::new(0));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let answered = Arc::clone(&answered);
        callers.spawn(async move {
            let mut connection = Http::connect(address).await;
            loop {
                connection.send(request("PUT", "/v1/storage?key=k", &[KEY], b"value")).await;
                let answer =
                    connection.answer(false).await.expect("an accepted request is answered");
                assert_eq!(answer.status, 201);
                answered.fetch_add(1, Ordering::Relaxed);
                if answer.header("connection") == Some("close") {
                    break;
                }
            }
        });
    }
    until("there is load", || answered.load(Ordering::Relaxed) > 500).await;
    gateway.shutdown(patience()).await;
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}

/// Callers whose connection waits in the system's queue take it for open.
#[tokio::test]
async fn connections_that_nobody_has_accepted_yet_are_answered_too() {
    use std::io::{Read as _, Write as _};
    let gateway = start().await;
    // Blocking calls on the only thread: the gateway can accept nothing meanwhile.
    let mut waiting: Vec<std::net::TcpStream> = (0..20)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(gateway.address()).unwrap();
            stream.write_all(&request("PUT", "/v1/storage?key=k", &[KEY], b"value")).unwrap();
            stream
        })
        .collect();
    gateway.shutdown(patience()).await;
    for stream in &mut waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
}

#[tokio::test]
async fn websockets_are_closed_with_1001_and_new_ones_refused() {
    let gateway = start().await;
    let mut socket = subscribe(gateway.address(), "t").await;
    let mut kept = gateway.connect().await;
    assert_eq!(kept.request("GET", "/ready", &[], b"").await.status, 200);
    let during = async {
        until("it has left", || gateway.node.subscribers("one", "t") == 0).await;
        let ready = kept.request("GET", "/ready", &[], b"").await;
        ready.assert_error(503, "unavailable");
        assert_eq!(ready.header("connection"), Some("close"));
        close_code(&mut socket).await
    };
    let (code, ()) = tokio::join!(during, gateway.shutdown(patience()));
    assert_eq!(code, 1001);
    assert!(TcpStream::connect(gateway.address()).await.is_err(), "nothing listens any more");
}

#[tokio::test]
async fn what_does_not_end_is_dropped_at_the_deadline() {
    let gateway = start().await;
    let mut stuck = gateway.connect().await;
    stuck.send(request("POST", "/v1/db/query", &[KEY], br#"{"sql":"SLEEP"}"#)).await;
    until("the call is there", || gateway.node.asleep.load(Ordering::SeqCst) == 1).await;
    let _idle = gateway.connect().await;
    let _silent = subscribe(gateway.address(), "t").await;
    gateway.shutdown(Instant::now() + Duration::from_millis(500)).await;
    assert!(stuck.is_closed().await);
    assert_eq!(gateway.node.asleep.load(Ordering::SeqCst), 0);
    // A second time does nothing.
    gateway.shutdown(patience()).await;
}

#[tokio::test]
async fn a_dropped_gateway_serves_nobody() {
    let gateway = start().await;
    let address = gateway.address();
    let mut connection = gateway.connect().await;
    assert_eq!(connection.request("GET", "/health", &[], b"").await.status, 200);
    drop(gateway);
    assert!(connection.is_closed().await);
    until("the address is free", || std::net::TcpListener::bind(address).is_ok()).await;
}
