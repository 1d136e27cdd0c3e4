//! What HTTP/2 connections hold in memory: bodies that nobody has taken, and nothing that is gone.

use crate::setup::{KEY, Running, patience, start_with, until};
use crate::tls::{connector, make_files};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderValue, Request, Response};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// The largest frame.
const FRAME: usize = 16 * KIB;

/// Requests may wait as long as the test takes.
async fn start(max_held: usize) -> Running {
    start_with(|config| {
        config.limits.max_held_bytes = max_held;
        config.limits.request_timeout = Duration::from_secs(600);
        config.limits.body_timeout = Duration::from_secs(600);
    })
    .await
}

/// One HTTP/2 connection.
#[derive(Clone)]
struct Client(SendRequest<Bytes>);

impl Client {
    async fn connect(gateway: &Running) -> Self {
        Self::over(TcpStream::connect(gateway.address()).await.unwrap()).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    async fn begin(
        &self,
        method: &str,
        path: &str,
        filler: &HeaderValue,
        ends: bool,
    ) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://localhost{path}"))
            .header(KEY.0, KEY.1)
            .header("x-filler", filler)
            .body(())
            .unwrap();
        let mut send = self.0.clone();
        poll_fn(|cx| send.poll_ready(cx)).await.expect("the connection is open");
        send.send_request(request, ends).expect("the connection is open")
    }

    /// A request with its body; the status of the answer.
    async fn request(&self, method: &str, path: &str, filler: &HeaderValue, body: Vec<u8>) -> u16 {
        let (answer, mut stream) = self.begin(method, path, filler, false).await;
        // What has its answer already does not ask for the rest.
        let _ = stream.send_data(body.into(), true);
        read_to_end(answer.await.expect("an answer")).await
    }

    /// A request that runs until the test lets the node end it.
    async fn sleep(&self, gateway: &Running) -> tokio::task::JoinHandle<u16> {
        let before = gateway.node.asleep.load(SeqCst);
        let client = self.clone();
        let sleeping = tokio::spawn(async move {
            let body = br#"{"sql":"SLEEP"}"#.to_vec();
            client.request("POST", "/v1/db/query", &HeaderValue::from_static("x"), body).await
        });
        let asleep = Arc::clone(&gateway.node.asleep);
        until("it is under way", move || asleep.load(SeqCst) > before).await;
        sleeping
    }
}

async fn read_to_end(answer: Response<h2::RecvStream>) -> u16 {
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    while let Some(Ok(piece)) = body.data().await {
        let _ = body.flow_control().release_capacity(piece.len());
    }
    status
}

/// A field of 6 KiB on the wire that no table keeps.
fn long_field() -> HeaderValue {
    let mut field = HeaderValue::from_str(&"~".repeat(4000)).unwrap();
    field.set_sensitive(true);
    field
}

/// Heads counted as unread until a connection had nothing under way, up to 640 KiB. So half of the
/// connections were lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_always_busy_are_kept_however_many_requests_they_make() {
    let gateway = start(24 * MIB).await;
    let mut busy = Vec::new();
    for _ in 0..256 {
        let client = Client::connect(&gateway).await;
        let sleeping = client.sleep(&gateway).await;
        busy.push((client, sleeping));
    }
    let before = gateway.held_bytes();
    let series: Vec<_> = busy
        .iter()
        .map(|(client, _)| {
            let client = client.clone();
            tokio::spawn(async move {
                for number in 0..9 {
                    let path = format!("/v1/storage?key=k{number}");
                    assert!(matches!(
                        client.request("PUT", &path, &long_field(), vec![7; 300]).await,
                        200 | 201
                    ));
                }
            })
        })
        .collect();
    for one in series {
        one.await.expect("each request is answered");
    }
    until("only what is under way is held", || gateway.held_bytes() <= before).await;
    assert_eq!(gateway.node.asleep.load(SeqCst), 256, "all connections are there");
    gateway.node.wake.0.add_permits(256);
    for (_, sleeping) in busy {
        assert_eq!(sleeping.await.unwrap(), 200);
    }
    until("all is given back", || gateway.held_bytes() == 0).await;
}

#[tokio::test]
async fn over_tls_it_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (files, certificate) = make_files(folder.path());
    let gateway = start_with(|config| {
        config.limits.request_timeout = Duration::from_secs(600);
        config.tls = Some(files);
    })
    .await;
    let socket = TcpStream::connect(gateway.address()).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let stream =
        connector(certificate, &[&rustls::version::TLS13]).connect(name, socket).await.unwrap();
    let client = Client::over(stream).await;
    let sleeping = client.sleep(&gateway).await;
    let before = gateway.held_bytes();
    for _ in 0..30 {
        assert!(matches!(
            client.request("PUT", "/v1/storage?key=k", &long_field(), vec![7; 300]).await,
            200 | 201
        ));
    }
    until("only what is under way is held", || gateway.held_bytes() <= before).await;
    gateway.node.wake.0.add_permits(1);
    assert_eq!(sleeping.await.unwrap(), 200);
    until("all is given back", || gateway.held_bytes() == 0).await;
}

/// Bodies of requests that are answered without them, while another keeps the connection busy.
#[tokio::test]
async fn bodies_that_nobody_wants_do_not_count_once_they_are_dropped() {
    let gateway = start(24 * MIB).await;
    let client = Client::connect(&gateway).await;
    let sleeping = client.sleep(&gateway).await;
    let before = gateway.held_bytes();
    let field = HeaderValue::from_static("x");
    for number in 0..40 {
        let (answer, mut stream) = client.begin("POST", "/nowhere", &field, false).await;
        if number % 2 == 0 {
            // After the answer.
            assert_eq!(read_to_end(answer.await.unwrap()).await, 404);
            let _ = stream.send_data(vec![7; 40 * KIB].into(), true);
        } else {
            let _ = stream.send_data(vec![7; 40 * KIB].into(), true);
            assert_eq!(read_to_end(answer.await.unwrap()).await, 404);
        }
    }
    // What is not known yet of the last ones is less than half of a window.
    until("little is held", || gateway.held_bytes() <= before + 200 * KIB).await;
    // The reader of a body knows what was taken.
    assert!(matches!(
        client.request("PUT", "/v1/storage?key=k", &field, vec![7; MIB]).await,
        200 | 201
    ));
    until("little is held", || gateway.held_bytes() <= before + 200 * KIB).await;
    gateway.node.wake.0.add_permits(1);
    assert_eq!(sleeping.await.unwrap(), 200);
    until("all is given back", || gateway.held_bytes() == 0).await;
}

/// A body that waits for its handler counts until its request ends, though the connection stays
/// busy.
#[tokio::test]
async fn a_body_that_waits_counts_until_its_request_is_called_off() {
    let gateway = start(24 * MIB).await;
    let client = Client::connect(&gateway).await;
    let sleeping = client.sleep(&gateway).await;
    let before = gateway.held_bytes();
    let (answer, mut stream) =
        client.begin("GET", "/v1/storage?key=SLEEP", &HeaderValue::from_static("x"), false).await;
    stream.send_data(vec![7; 200 * KIB].into(), false).unwrap();
    until("it counts", || gateway.held_bytes() >= before + 200 * KIB).await;
    stream.send_reset(h2::Reason::CANCEL);
    assert!(answer.await.is_err());
    until("it is given back", || gateway.held_bytes() <= before).await;
    gateway.node.wake.0.add_permits(1);
    assert_eq!(sleeping.await.unwrap(), 200);
}

/// Fields of no length came as 1.4 KB, took 140 KB, and 20 KB were counted.
#[tokio::test]
async fn headers_count_with_what_they_take_beside_their_bytes() {
    let gateway = start(24 * MIB).await;
    let client = Client::connect(&gateway).await;
    let mut request = Request::get("http://localhost/v1/storage?key=SLEEP")
        .header(KEY.0, KEY.1)
        .body(())
        .unwrap();
    for _ in 0..1000 {
        request.headers_mut().append("x-e", HeaderValue::from_static(""));
    }
    let (answer, _) = client.0.clone().send_request(request, true).unwrap();
    until("it counts", || gateway.held_bytes() >= 100_000).await;
    gateway.node.wake.0.add_permits(1);
    assert_eq!(read_to_end(answer.await.unwrap()).await, 404);
    until("all is given back", || gateway.held_bytes() == 0).await;
}

/// Trailers that wait take more than their bytes, until the request ends.
#[tokio::test]
async fn trailers_that_wait_count_until_their_request_is_answered() {
    let gateway = start(24 * MIB).await;
    let client = Client::connect(&gateway).await;
    let (answer, mut stream) =
        client.begin("GET", "/v1/storage?key=SLEEP", &HeaderValue::from_static("x"), false).await;
    let asleep = Arc::clone(&gateway.node.asleep);
    until("it is under way", move || asleep.load(SeqCst) == 1).await;
    stream.send_data(vec![7; 20 * KIB].into(), false).unwrap();
    let trailers =
        http::HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("x"))]);
    stream.send_trailers(trailers).unwrap();
    until("they count", || gateway.held_bytes() >= 270 * KIB).await;
    let sleeping = client.sleep(&gateway).await;
    gateway.node.wake.0.add_permits(1);
    assert_eq!(read_to_end(answer.await.unwrap()).await, 404);
    until("only what is under way is held", || gateway.held_bytes() <= 16 * KIB).await;
    gateway.node.wake.0.add_permits(1);
    assert_eq!(sleeping.await.unwrap(), 200);
}

/// A client that sends what the library of the others would not.
struct RawClient(TcpStream);

impl RawClient {
    /// Sends the preface and a request with a body to come, on stream 1.
    async fn begin(gateway: &Running, method: &str, path: &str) -> Self {
        let mut client = Self(TcpStream::connect(gateway.address()).await.unwrap());
        client.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        client.send(4, 0, 0, &[]).await.unwrap();
        // The other side's settings, which hold when they are acknowledged.
        let mut head = [0; 9];
        client.0.read_exact(&mut head).await.unwrap();
        assert_eq!(head[3], 4);
        client.0.read_exact(&mut vec![0; usize::from(head[2])]).await.unwrap();
        client.send(4, 1, 0, &[]).await.unwrap();
        // Literals: method, path, authority, authorization. Indexed: http.
        let mut fields = vec![0x02, method.len() as u8];
        fields.extend(method.bytes());
        fields.extend([0x86, 0x04, path.len() as u8]);
        fields.extend(path.bytes());
        fields.extend([0x01, 9]);
        fields.extend(b"localhost");
        fields.extend([0x0f, 0x08, KEY.1.len() as u8]);
        fields.extend(KEY.1.bytes());
        client.send(1, 0x4, 1, &fields).await.unwrap();
        client
    }

    async fn send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await
    }
}

/// One byte of a body after each 16 KiB of something else kept all of it, and 640 KiB were counted.
#[tokio::test]
async fn bytes_that_a_body_keeps_beside_it_count() {
    let gateway = start(24 * MIB).await;
    let mut client = RawClient::begin(&gateway, "GET", "/v1/storage?key=SLEEP").await;
    let asleep = Arc::clone(&gateway.node.asleep);
    until("it is under way", move || asleep.load(SeqCst) == 1).await;
    for _ in 0..200 {
        // Of a type that nobody knows.
        client.send(99, 0, 0, &[0; FRAME]).await.unwrap();
        client.send(0, 0, 1, b"x").await.unwrap();
    }
    until("all of it counts", || gateway.held_bytes() >= 199 * FRAME).await;
    // It continues until it is over its share, and is ended.
    let sent = async {
        while client.send(99, 0, 0, &[0; FRAME]).await.is_ok()
            && client.send(0, 0, 1, b"x").await.is_ok()
        {}
    };
    assert!(tokio::time::timeout_at(patience().into(), sent).await.is_ok());
    until("all is given back", || gateway.held_bytes() == 0).await;
}

/// Padding is dropped when it comes.
#[tokio::test]
async fn padding_does_not_count() {
    let gateway = start(24 * MIB).await;
    let mut client = RawClient::begin(&gateway, "PUT", "/v1/storage?key=padded").await;
    let mut padded = vec![255];
    padded.resize(1 + 100 + 255, 7);
    for _ in 0..500 {
        client.send(0, 0x8, 1, &padded).await.unwrap();
    }
    // Charged as the handler's buffer, which at most doubles, and the request.
    until("the handler has what came", || gateway.held_bytes() >= 50_000).await;
    until("padding does not count", || gateway.held_bytes() <= 90_000).await;
    // The end, with nothing but padding.
    client.send(0, 0x9, 1, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
    until("it is stored", || {
        gateway.node.value("one", "padded").is_some_and(|value| value.len() == 50_000)
    })
    .await;
    until("all is given back", || gateway.held_bytes() == 0).await;
}

/// A block of fields without its end may take all that the library lets it have.
#[tokio::test]
async fn a_head_without_its_end_counts() {
    let gateway = start(24 * MIB).await;
    let mut client = RawClient::begin(&gateway, "GET", "/v1/storage?key=SLEEP").await;
    let asleep = Arc::clone(&gateway.node.asleep);
    until("it is under way", move || asleep.load(SeqCst) == 1).await;
    let before = gateway.held_bytes();
    client.send(1, 0, 3, &[0x82, 0x86]).await.unwrap();
    until("it counts", || gateway.held_bytes() >= before + 256 * KIB).await;
    let mut rest = vec![0x04, 7];
    rest.extend(b"/health");
    rest.extend([0x01, 9]);
    rest.extend(b"localhost");
    client.send(9, 0x4, 3, &rest).await.unwrap();
    until("it is whole", || gateway.held_bytes() < before + 256 * KIB).await;
}
