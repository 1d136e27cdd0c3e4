//! What callers can make the gateway hold in memory: bounded for each and for all, given back, and
//! ended when nothing moves.

use crate::http_client::{Http, request};
use crate::pubsub::handshake;
use crate::setup::{KEY, Running, patience, start_with, until};
use crate::websocket_client::subscribe;
use bytes::Bytes;
use std::future::poll_fn;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const MIB: usize = 1 << 20;

/// A gateway whose callers hold little, and for a short time.
async fn small(max_held: usize) -> Running {
    start_with(|config| {
        config.limits.max_held_bytes = max_held;
        config.limits.write_timeout = Duration::from_millis(400);
    })
    .await
}

async fn all_is_given_back(gateway: &Running) {
    until("all is given back", || gateway.held_bytes() == 0).await;
}

/// A connection whose answers wait in the gateway, not in the system.
async fn narrow(gateway: &Running) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(gateway.address()).await.unwrap()
}

/// One WebSocket that sent pings and read nothing took 1.5 GB in 3 s.
#[tokio::test]
async fn pings_without_reading_are_not_read_for_ever() {
    let gateway = small(192 * MIB).await;
    let mut connection = Http::over(narrow(&gateway).await);
    assert_eq!(
        connection.request("GET", "/v1/pubsub/ws?topic=t", &handshake(), b"").await.status,
        101
    );
    let mut stream = connection.into_stream();
    let mut ping = vec![0x89, 0x80 | 125, 0, 0, 0, 0];
    ping.extend([7; 125]);
    let pings = ping.repeat(500);
    let mut sent = 0;
    // It ends when the gateway has closed the connection. Without a bound this would go on.
    while stream.write_all(&pings).await.is_ok() {
        sent += pings.len();
        assert!(sent < 64 * MIB, "the gateway reads on although its answers are not read");
    }
    until("it has left", || gateway.node.subscribers("one", "t") == 0).await;
    all_is_given_back(&gateway).await;
}

#[tokio::test]
async fn pings_that_are_read_are_answered_however_many() {
    let gateway = small(192 * MIB).await;
    let mut connection = gateway.connect().await;
    assert_eq!(
        connection.request("GET", "/v1/pubsub/ws?topic=t", &handshake(), b"").await.status,
        101
    );
    let (mut receive, mut send) = connection.into_stream().into_split();
    let sending = tokio::spawn(async move {
        for _ in 0..20_000 {
            send.write_all(&[0x89, 0x81, 0, 0, 0, 0, b'p']).await.unwrap();
        }
        send
    });
    // One pong may answer several pings; the last one is answered in any case.
    let mut pong = [0; 3];
    receive.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, [0x8a, 1, b'p']);
    let drained =
        tokio::spawn(async move { while matches!(receive.read(&mut [0; 4096]).await, Ok(1..)) {} });
    let send = sending.await.unwrap();
    let mut other = subscribe(gateway.address(), "t").await;
    crate::websocket_client::send(&mut other, "x").await;
    assert_eq!(crate::websocket_client::message(&mut other).await, b"x");
    drop(send);
    drained.await.unwrap();
}

/// One connection with a window of 0 and 250 requests held 1 GB forever.
#[tokio::test]
async fn answers_of_http_2_that_nobody_takes_are_bounded_and_end() {
    let gateway = small(40 * MIB).await;
    assert_eq!(gateway.call("PUT", "/v1/storage?key=k", vec![7; 4 * MIB]).await.status, 201);
    let socket = TcpStream::connect(gateway.address()).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let (send, connection) = builder.handshake::<_, Bytes>(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..50 {
        let request = http::Request::get("http://localhost/v1/storage?key=k")
            .header(KEY.0, KEY.1)
            .body(())
            .unwrap();
        poll_fn(|cx| send.poll_ready(cx)).await.unwrap();
        answers.push(send.send_request(request, true).unwrap().0);
    }
    let mut bodies = Vec::new();
    for answer in answers {
        let answer = answer.await.unwrap();
        bodies.push((answer.status().as_u16(), answer.into_body()));
    }
    let served = bodies.iter().filter(|(status, _)| *status == 200).count();
    assert!((1..=5).contains(&served), "half of the budget at most: {served} answers");
    assert!(
        bodies.iter().all(|(status, _)| matches!(status, 200 | 429 | 503)),
        "the others get the reason"
    );
    assert!(gateway.held_bytes() <= 21 * MIB, "{}", gateway.held_bytes());
    // Others are served meanwhile.
    let mut elsewhere = Http::over({
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.connect(gateway.address()).await.unwrap()
    });
    let other = ("Authorization", "Bearer ak_good:two");
    assert_eq!(
        elsewhere.request("PUT", "/v1/storage?key=k", &[other], &vec![7; 4 * MIB]).await.status,
        201
    );
    assert_eq!(
        elsewhere.request("GET", "/v1/storage?key=k", &[other], b"").await.body.len(),
        4 * MIB
    );
    // Nothing is taken, so the connection ends although its owner still keeps it open.
    assert!(tokio::time::timeout_at(patience().into(), connection).await.is_ok());
    drop(bodies);
    all_is_given_back(&gateway).await;
}

/// A caller that takes something now and then is slow, not gone.
#[tokio::test]
async fn a_slow_reader_of_http_2_gets_its_whole_answer() {
    let gateway = start_with(|config| config.limits.write_timeout = Duration::from_secs(2)).await;
    assert_eq!(gateway.call("PUT", "/v1/storage?key=k", vec![7; MIB]).await.status, 201);
    let socket = TcpStream::connect(gateway.address()).await.unwrap();
    let (mut send, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://localhost/v1/storage?key=k")
        .header(KEY.0, KEY.1)
        .body(())
        .unwrap();
    let mut body = send.send_request(request, true).unwrap().0.await.unwrap().into_body();
    let mut read = 0;
    while let Some(piece) = body.data().await {
        let length = piece.unwrap().len();
        read += length;
        // The whole takes several times the write time-out.
        tokio::time::sleep(Duration::from_millis(10)).await;
        body.flow_control().release_capacity(length).unwrap();
    }
    assert_eq!(read, MIB);
    all_is_given_back(&gateway).await;
}

#[tokio::test]
async fn an_answer_of_http_1_that_nobody_reads_ends() {
    let gateway = small(40 * MIB).await;
    assert_eq!(gateway.call("PUT", "/v1/storage?key=k", vec![7; 4 * MIB]).await.status, 201);
    let mut stalled = Vec::new();
    for _ in 0..3 {
        let mut stream = narrow(&gateway).await;
        stream
            .write_all(&request("GET", "/v1/storage?key=k", &[KEY], b"").repeat(20))
            .await
            .unwrap();
        stalled.push(stream);
    }
    until("the answers wait", || gateway.held_bytes() > 8 * MIB).await;
    assert!(gateway.held_bytes() <= 21 * MIB, "{}", gateway.held_bytes());
    all_is_given_back(&gateway).await;
    // The sockets are still open on this side; what the system holds can be read, and then they
    // end.
    for mut stream in stalled {
        let mut rest = vec![0; 64 << 10];
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    }
}

/// Small answers by the thousand: nothing is read that cannot be answered.
#[tokio::test]
async fn requests_in_a_row_whose_answers_nobody_reads_are_not_read_forever() {
    let gateway = small(40 * MIB).await;
    let mut stream = narrow(&gateway).await;
    let requests = request("GET", "/v1/version", &[], b"").repeat(500);
    let mut sent = 0;
    while stream.write_all(&requests).await.is_ok() {
        sent += requests.len();
        assert!(sent < 64 * MIB, "the gateway reads on although its answers are not read");
    }
    all_is_given_back(&gateway).await;
}

/// Answers that found no room were built again for each request in a row, which took the processor
/// from everybody.
#[tokio::test]
async fn an_answer_that_found_no_room_is_not_made_again_before_there_is_some() {
    let gateway = start_with(|config| config.limits.max_held_bytes = 12 * MIB).await;
    assert_eq!(gateway.call("PUT", "/v1/storage?key=k", vec![7; 4 * MIB]).await.status, 201);
    let mut unread = narrow(&gateway).await;
    unread.write_all(&request("GET", "/v1/storage?key=k", &[KEY], b"").repeat(3)).await.unwrap();
    until("an answer waits", || gateway.held_bytes() >= 4 * MIB).await;
    let mut connection = gateway.connect().await;
    let first = connection.request("GET", "/v1/storage?key=k", &[KEY], b"").await;
    first.assert_error(503, "overloaded");
    let asked = gateway.node.last_request().request_id;
    let second = connection.request("GET", "/v1/storage?key=k", &[KEY], b"").await;
    second.assert_error(429, "rate_limited");
    assert_eq!(gateway.node.last_request().request_id, asked, "the node was asked in vain");
    drop(unread);
    all_is_given_back(&gateway).await;
    let third = connection.request("GET", "/v1/storage?key=k", &[KEY], b"").await;
    assert_eq!((third.status, third.body.len()), (200, 4 * MIB));
}

/// Bodies are charged as they come: a body that does not fit is refused with its reason, and the
/// caller can continue.
#[tokio::test]
async fn bodies_that_stall_take_their_callers_share_and_no_more() {
    let gateway = small(40 * MIB).await;
    let mut stalled = Vec::new();
    let refused = loop {
        assert!(stalled.len() < 10, "each of them holds 4 MiB");
        let before = gateway.held_bytes();
        let mut connection = gateway.connect().await;
        let announced =
            format!("Host: x\r\nAuthorization: {}\r\nContent-Length: {}\r\n\r\n", KEY.1, 4 * MIB);
        connection.send(format!("PUT /v1/storage?key=k HTTP/1.1\r\n{announced}")).await;
        connection.try_send(vec![7; 3 * MIB]).await;
        tokio::select! {
            answer = connection.answer(false) => break answer.unwrap(),
            () = until("it is charged", || gateway.held_bytes() >= before + 4 * MIB) => stalled.push(connection),
        }
    };
    refused.assert_error(429, "rate_limited");
    assert_eq!(refused.header("connection"), Some("close"));
    assert_eq!(stalled.len(), 4, "half of what is for everybody, and what goes with a request");
    drop(stalled);
    all_is_given_back(&gateway).await;
    assert_eq!(gateway.call("PUT", "/v1/storage?key=k", vec![7; 4 * MIB]).await.status, 201);
}

/// Bodies that were announced, and of which nothing came, shut out everybody for as long as their
/// sockets were open.
#[tokio::test]
async fn bodies_that_are_only_announced_hold_little() {
    let gateway = small(4 * MIB).await;
    let mut stalled = Vec::new();
    for number in 0..30 {
        let mut connection = gateway.connect().await;
        let head = format!(
            "Host: x\r\nAuthorization: Bearer ak_good:n{number}\r\nContent-Length: {}\r\n\r\n",
            MIB / 4
        );
        connection.send(format!("PUT /v1/storage?key=k HTTP/1.1\r\n{head}")).await;
        stalled.push(connection);
    }
    until("they are under way", || gateway.held_bytes() >= 30 * (8 << 10)).await;
    assert!(gateway.held_bytes() < MIB, "{}", gateway.held_bytes());
    assert_eq!(gateway.call("PUT", "/v1/storage?key=k", vec![7; MIB / 4]).await.status, 201);
}

/// Strangers at many addresses, each with its share, leave less than a request takes.
#[tokio::test]
async fn who_is_known_gets_in_when_strangers_hold_all() {
    let gateway = start_with(|config| {
        config.limits.max_held_bytes = MIB;
        config.limits.header_timeout = Duration::from_secs(60);
    })
    .await;
    assert_eq!(gateway.call("PUT", "/v1/storage?key=k", "v").await.status, 201);
    let mut strangers = Vec::new();
    for host in 0..120 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("127.0.1.{}:0", host + 1).parse().unwrap()).unwrap();
        let mut stranger = Http::over(socket.connect(gateway.address()).await.unwrap());
        stranger.try_send(format!("GET /health HTTP/1.1\r\nX: {}", "y".repeat(6 << 10))).await;
        strangers.push(stranger);
    }
    until("they hold what they may", || gateway.held_bytes() >= MIB / 8 * 7 - (8 << 10)).await;
    // More than the strangers may have left between them.
    let large = "z".repeat(3 << 10);
    gateway.request("GET", "/health", &[("X", &large)], b"").await.assert_error(503, "overloaded");
    let known = [KEY, ("X", &large)];
    assert_eq!(gateway.request("GET", "/v1/storage?key=k", &known, b"").await.body, b"v");
}

/// Heads of callers that nobody knows yet.
#[tokio::test]
async fn half_read_heads_are_counted() {
    let gateway = small(MIB).await;
    let mut halves = Vec::new();
    for _ in 0..30 {
        let mut connection = gateway.connect().await;
        connection.try_send(format!("GET /health HTTP/1.1\r\nX: {}", "y".repeat(60_000))).await;
        halves.push(connection);
    }
    until("they are counted", || gateway.held_bytes() > MIB / 4).await;
    assert!(gateway.held_bytes() <= MIB / 2 + (64 << 10), "{}", gateway.held_bytes());
    drop(halves);
    all_is_given_back(&gateway).await;
}

/// A message that never ends.
#[tokio::test]
async fn unfinished_messages_are_counted_and_end() {
    let gateway = small(4 * MIB).await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        let mut connection = gateway.connect().await;
        assert_eq!(
            connection.request("GET", "/v1/pubsub/ws?topic=t", &handshake(), b"").await.status,
            101
        );
        let mut stream = connection.into_stream();
        // The first piece of a message in pieces, announced with 800 KiB, of which 700 KiB come.
        let mut piece = vec![0x02, 0x80 | 127];
        piece.extend((800_u64 << 10).to_be_bytes());
        piece.extend([0; 4]);
        piece.resize(700 << 10, 0);
        let _ = stream.write_all(&piece).await;
        sockets.push(stream);
    }
    until("they are counted, or refused", || gateway.held_bytes() > MIB).await;
    assert!(gateway.held_bytes() <= 3 * MIB, "{}", gateway.held_bytes());
    until("they are given up", || gateway.node.subscribers("one", "t") == 0).await;
    all_is_given_back(&gateway).await;
    let mut socket = subscribe(gateway.address(), "t").await;
    crate::websocket_client::send(&mut socket, vec![7; MIB]).await;
    assert_eq!(crate::websocket_client::message(&mut socket).await.len(), MIB);
}

#[tokio::test]
async fn what_is_no_http_is_told_that_the_connection_ends() {
    let gateway = small(40 * MIB).await;
    let huge = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(1000))
        .replace("X: ", &"X: y\r\n".repeat(200));
    for (bytes, status) in [("GET\r\n\r\n", 400), (&*huge, 431)] {
        let mut connection = gateway.connect().await;
        connection.try_send(bytes).await;
        let answer = connection.answer(false).await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")));
    }
}

/// Whatever closes a connection after an answer says so in the answer.
#[tokio::test]
async fn an_answer_before_the_body_was_read_says_that_the_connection_ends() {
    let gateway = small(40 * MIB).await;
    let unread = [
        ("POST", "/nowhere", "", 404),
        ("POST", "/health", "", 405),
        ("OPTIONS", "/v1/storage", "", 204),
        ("GET", "/health", "", 200),
        ("PUT", "/v1/storage?key=k", "", 401),
        ("PUT", "/v1/storage?nonsense=k", "Authorization: Bearer ak_good:one\r\n", 400),
        ("PUT", "/v1/storage?key=k", "Authorization: Basic x\r\n", 401),
        ("GET", "/v1/pubsub/ws?topic=t", "Authorization: Bearer ak_good:one\r\n", 400),
    ];
    for (method, path, header, status) in unread {
        // Small and there: it is read, and the connection continues.
        let mut connection = gateway.connect().await;
        connection
            .send(format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\n{header}Content-Length: 4\r\n\r\nbody"
            ))
            .await;
        let answer = connection.bodiless_answer(status == 204).await;
        assert_eq!((answer.status, answer.header("connection")), (status, None), "{method} {path}");
        assert_eq!(connection.request("GET", "/health", &[], b"").await.status, 200);
        // Large, or asked for first: the answer says that it is the last.
        for announced in [
            "Content-Length: 9999999\r\n\r\nbody",
            "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n",
        ] {
            let mut connection = gateway.connect().await;
            connection
                .send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{header}{announced}"))
                .await;
            let answer = connection.bodiless_answer(status == 204).await;
            assert_eq!(
                (answer.status, answer.header("connection")),
                (status, Some("close")),
                "{method} {path}"
            );
            assert!(connection.is_closed().await);
        }
    }
}

/// A message in two frames left its buffer behind forever, and a smaller one after it took the
/// charge away.
#[tokio::test]
async fn a_message_in_pieces_is_given_back_too() {
    let gateway = small(64 * MIB).await;
    let mut connection = gateway.connect().await;
    assert_eq!(
        connection.request("GET", "/v1/pubsub/ws?topic=t", &handshake(), b"").await.status,
        101
    );
    let mut stream = connection.into_stream();
    for first in [0x02, 0x80] {
        let mut piece = vec![first, 0x80 | 127];
        piece.extend((400_u64 << 10).to_be_bytes());
        piece.resize(piece.len() + 4 + (400 << 10), 0);
        stream.write_all(&piece).await.unwrap();
    }
    // It comes back, because the socket is subscribed to its own topic.
    let mut come = vec![0; 800 << 10];
    stream.read_exact(&mut come).await.unwrap();
    // All of it, while the socket is open.
    all_is_given_back(&gateway).await;
    assert_eq!(gateway.node.subscribers("one", "t"), 1);
}
