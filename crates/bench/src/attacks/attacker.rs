//! An attacker: a source address and an ordinary API key of its own, sockets, and a count of the
//! outcomes.

use crate::load::read_answer;
use anyhow::{Context as _, Result, ensure};
use debros_p2p::Multiaddr;
use futures::{StreamExt as _, stream};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error as SocketError, http::Request};

/// How long an attacker waits for an answer or for room in a socket before it counts a refusal.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Sockets that are opened at a time.
const LANES: usize = 64;
/// How often held sockets are checked.
const LOOK: Duration = Duration::from_millis(500);

/// Counts of events by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventTally(Arc<Mutex<BTreeMap<String, u64>>>);

impl EventTally {
    /// Counts an event.
    pub(crate) fn count(&self, event: impl Into<String>) {
        self.add(event, 1);
    }

    /// Adds to the number of an event.
    pub(crate) fn add(&self, event: impl Into<String>, number: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(event.into()).or_default() +=
            number;
    }

    /// The counts so far.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One attacker. Its source address is bound before each connect, so that the shares per address
/// are its own.
#[derive(Clone, Debug)]
pub(crate) struct Attacker {
    pub(crate) gateway: SocketAddr,
    pub(crate) peer: Multiaddr,
    pub(crate) source: Ipv4Addr,
    /// An API key with the role of a writer.
    pub(crate) key: String,
    /// Further ones, of an attack by several callers.
    pub(crate) more_keys: Arc<[String]>,
    /// The part of an attack's sockets that this process may open: 1 unless its limit on open files
    /// is too low.
    pub(crate) scale: f64,
    pub(crate) tally: EventTally,
    /// Held sockets and repeated requests.
    pub(crate) tasks: Arc<Mutex<JoinSet<()>>>,
}

impl Attacker {
    /// The same address with each of its keys.
    pub(crate) fn callers(&self) -> impl Iterator<Item = Self> {
        let others = self.more_keys.iter().map(|key| Self { key: key.clone(), ..self.clone() });
        std::iter::once(self.clone()).chain(others)
    }

    /// Runs work until the attack ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }

    /// Ends all of this work; its sockets are closed.
    pub(crate) async fn stop_tasks(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }

    /// This number, or fewer if this process may open too few files.
    pub(crate) fn scale_count(&self, number: usize) -> usize {
        (number as f64 * self.scale) as usize
    }

    pub(crate) async fn connect(&self) -> Result<TcpStream> {
        connect_from(self.source, self.gateway).await
    }

    /// The start of a request: its first line and the headers that every request needs, without the
    /// end of the head.
    pub(crate) fn request_head(&self, method: &str, target: &str) -> String {
        format!(
            "{method} {target} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {}\r\n",
            self.key
        )
    }

    /// Sends a request on a connection of its own. Returns the status and the body of the answer.
    pub(crate) async fn send_request(
        &self,
        method: &str,
        target: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<(u16, String)> {
        let mut stream = self.connect().await?;
        self.send_request_on(&mut stream, method, target, headers, body).await
    }

    /// Sends a request on a kept connection.
    pub(crate) async fn send_request_on(
        &self,
        stream: &mut TcpStream,
        method: &str,
        target: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<(u16, String)> {
        let head = format!(
            "{}{headers}Content-Length: {}\r\n\r\n",
            self.request_head(method, target),
            body.len()
        );
        let exchange = async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body).await?;
            read_answer(stream).await
        };
        // A statement may take as long as the node allows.
        timeout(PATIENCE * 4, exchange).await.context("no answer")?
    }

    /// Runs one SQL statement on a connection of its own.
    pub(crate) async fn query(&self, sql: &str) -> Result<(u16, String)> {
        let body = serde_json::json!({ "sql": sql }).to_string();
        self.send_request(
            "POST",
            "/v1/db/query",
            "Content-Type: application/json\r\n",
            body.as_bytes(),
        )
        .await
    }

    /// Stores a value which attacks read.
    pub(crate) async fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        let (status, body) =
            self.send_request("PUT", &format!("/v1/storage?key={key}"), "", value).await?;
        ensure!((200..300).contains(&status), "a put of {} bytes: {status} {body}", value.len());
        Ok(())
    }

    /// Opens a WebSocket that is subscribed to a topic. Refusals are counted.
    pub(crate) async fn websocket(&self) -> Option<WebSocketStream<TcpStream>> {
        let opened = async {
            let stream = self.connect().await?;
            open_websocket(stream, self.gateway, &self.key, "attack").await
        };
        match timeout(PATIENCE, opened).await {
            Ok(Ok(socket)) => {
                self.tally.count("WebSockets open");
                Some(socket)
            }
            Ok(Err(error)) => {
                self.tally.count(format!("WebSockets refused: {}", refusal_name(&error)));
                None
            }
            Err(_) => {
                self.tally.count("WebSockets refused: no answer");
                None
            }
        }
    }

    /// Holds a socket without reading from it until the node ends it.
    pub(crate) async fn hold_socket(&self, stream: &TcpStream) {
        loop {
            match stream.ready(Interest::READABLE | Interest::WRITABLE).await {
                Ok(ready) if !ready.is_read_closed() && !ready.is_write_closed() => {
                    tokio::time::sleep(LOOK).await
                }
                _ => break,
            }
        }
        self.tally.count("ended by the node");
    }

    /// Writes, and returns whether everything went out. A socket that takes nothing for a while is
    /// held until the node ends it.
    pub(crate) async fn write_or_hold(&self, stream: &mut TcpStream, bytes: &[u8]) -> bool {
        match timeout(PATIENCE, stream.write_all(bytes)).await {
            Ok(Ok(())) => return true,
            Ok(Err(_)) => self.tally.count("ended by the node"),
            Err(_) => {
                self.tally.count("takes no more");
                self.hold_socket(stream).await;
            }
        }
        false
    }
}

/// Opens this number, some at a time.
pub(crate) async fn open_many(number: usize, open: impl AsyncFn()) {
    stream::iter(0..number).for_each_concurrent(LANES, |_| open()).await;
}

/// Connects from a source address of the loopback network.
pub(crate) async fn connect_from(source: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let stream =
        timeout(PATIENCE, socket.connect(to)).await.context("connecting takes too long")??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Opens a WebSocket on a connection.
pub(crate) async fn open_websocket(
    stream: TcpStream,
    gateway: SocketAddr,
    key: &str,
    topic: &str,
) -> Result<WebSocketStream<TcpStream>> {
    let mut request: Request<()> =
        format!("ws://{gateway}/v1/pubsub/ws?topic={topic}").into_client_request()?;
    request.headers_mut().insert("authorization", format!("Bearer {key}").parse()?);
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    Ok(socket)
}

/// A refusal in one word: the status, or the fate of the connection.
pub(crate) fn refusal_name(error: &anyhow::Error) -> String {
    match error.downcast_ref::<SocketError>() {
        Some(SocketError::Http(answer)) => answer.status().as_u16().to_string(),
        _ => match error.root_cause().downcast_ref::<std::io::Error>() {
            Some(error) => error.kind().to_string(),
            None => error.root_cause().to_string(),
        },
    }
}
