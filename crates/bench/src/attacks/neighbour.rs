//! The neighbour: a caller with a small steady load, whose requests are measured while others
//! attack.
//!
//! Its requests are due at fixed times, and the latency of each counts from its due time: a node
//! that stands still for a second delays all requests that were due in it, as it would for as many
//! callers of their own.

use super::attacker::{connect_from, open_websocket};
use crate::load::send_and_check;
use crate::request_template::{
    AnswerCheck, FIRST, FRESH, KEY, RequestTemplate, value_starting_with,
};
use anyhow::{Context as _, Result, ensure};
use debros_p2p::{Host, HostConfig, Keypair, Multiaddr};
use futures::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// The neighbour's address. Attackers have other addresses.
pub(crate) const SOURCE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Between two requests of one kind.
const PERIOD: Duration = Duration::from_millis(20);
/// Between two newcomers of one kind.
const NEWCOMER_PERIOD: Duration = Duration::from_secs(1);
/// After that, a request has failed, and a newcomer is refused.
const PATIENCE: Duration = Duration::from_secs(5);
/// Keys and rows that the reads draw from.
const KEYS: u64 = 1000;

/// The neighbour's measurements.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct NeighbourFigures {
    /// Milliseconds, over all requests of all kinds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
    /// Milliseconds.
    pub(crate) max: f64,
    /// Each kind of request on its own.
    pub(crate) kinds: Vec<RequestFigures>,
    /// Requests that were due.
    pub(crate) asked: u64,
    /// Requests that were refused, broke off, or were not answered within 5 s.
    pub(crate) failed: u64,
    /// The first failure.
    pub(crate) failure: Option<String>,
    /// Fresh connections with one request.
    pub(crate) connections: NewcomerFigures,
    /// Fresh WebSockets with one message that must come back.
    pub(crate) websockets: NewcomerFigures,
    /// Fresh libp2p identities that open a channel.
    pub(crate) peers: NewcomerFigures,
}

/// One kind of request.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RequestFigures {
    pub(crate) name: &'static str,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
    /// Milliseconds.
    pub(crate) max: f64,
    pub(crate) failed: u64,
}

/// Newcomers of one kind.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct NewcomerFigures {
    pub(crate) tried: u64,
    /// Not served within 5 s.
    pub(crate) refused: u64,
    /// The first refusal.
    pub(crate) refusal: Option<String>,
}

/// The node's addresses, and the neighbour's key.
#[derive(Clone, Debug)]
pub(crate) struct NeighbourTarget {
    pub(crate) gateway: SocketAddr,
    pub(crate) peer: Multiaddr,
    pub(crate) key: String,
}

/// A running neighbour, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Neighbour {
    thread: std::thread::JoinHandle<Result<NeighbourFigures>>,
    stop: Arc<AtomicBool>,
}

impl Neighbour {
    /// Creates the data that the neighbour reads: pairs, and rows with an index.
    pub(crate) fn prepare(home: &NeighbourTarget) -> Result<()> {
        let numbers = format!(
            "WITH RECURSIVE n(i) AS (SELECT {FIRST} UNION ALL SELECT i + 1 FROM n WHERE i < {})",
            FIRST + KEYS - 1
        );
        for sql in [
            "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, value TEXT NOT NULL)"
                .to_owned(),
            "CREATE INDEX items_by_name ON items (name)".to_owned(),
            format!(
                "{numbers} INSERT INTO items SELECT i, 'name ' || i, '{}' FROM n",
                value_starting_with("")
            ),
            "CREATE TABLE log (id INTEGER PRIMARY KEY, text TEXT NOT NULL)".to_owned(),
        ] {
            crate::load::request_once(home.gateway, &home.sql_request(&sql, ""), FIRST)?;
        }
        crate::load::put_all(
            home.gateway,
            &home.http_request("PUT", &format!("get-{KEY}"), &value_starting_with(KEY)),
            KEYS,
        )
    }

    /// Starts it.
    pub(crate) fn start(home: NeighbourTarget) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new()
            .name("neighbour".to_owned())
            .spawn(move || runtime.block_on(run_neighbour(home, stopped)))?;
        Ok(Self { thread, stop })
    }

    /// Stops it. Waits for requests under way, 5 s at most.
    pub(crate) fn stop(self) -> Result<NeighbourFigures> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Whether a newcomer can store a value now: the status, or what went wrong.
    pub(crate) fn put_once(home: &NeighbourTarget) -> String {
        match crate::load::request_once(
            home.gateway,
            &home.http_request("PUT", "afterwards", "x"),
            FIRST,
        ) {
            Ok(_) => "served".to_owned(),
            Err(error) => error.to_string(),
        }
    }
}

impl NeighbourTarget {
    fn http_request(&self, method: &str, key: &str, body: &str) -> RequestTemplate {
        let headers = format!("Authorization: Bearer {}\r\n", self.key);
        RequestTemplate::http(
            method,
            &format!("/v1/storage?key={key}"),
            &headers,
            body,
            AnswerCheck::Status,
        )
    }

    fn sql_request(&self, sql: &str, args: &str) -> RequestTemplate {
        let headers =
            format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", self.key);
        let body = format!(r#"{{"sql":"{sql}","args":[{args}]}}"#);
        RequestTemplate::http("POST", "/v1/db/query", &headers, &body, AnswerCheck::NoError)
    }
}

/// The outcomes of the requests of one kind.
#[derive(Debug, Default)]
struct RequestSamples {
    latencies: Vec<Duration>,
    failed: u64,
    failure: Option<String>,
}

impl RequestSamples {
    fn record_failure(&mut self, took: Duration, error: &anyhow::Error) {
        self.latencies.push(took);
        self.failed += 1;
        self.failure.get_or_insert_with(|| format!("{error:#}"));
    }
}

async fn run_neighbour(home: NeighbourTarget, stop: Arc<AtomicBool>) -> Result<NeighbourFigures> {
    let requests = [
        ("put", home.http_request("PUT", &format!("put-{KEY}"), &value_starting_with(FRESH))),
        ("get", home.http_request("GET", &format!("get-{KEY}"), "")),
        (
            "indexed SELECT",
            home.sql_request(
                "SELECT id, value FROM items WHERE name = ?",
                &format!("\"name {KEY}\""),
            ),
        ),
        (
            "INSERT",
            home.sql_request(
                "INSERT INTO log (text) VALUES (?)",
                &format!("\"{}\"", value_starting_with(FRESH)),
            ),
        ),
    ];
    let mut lanes = JoinSet::new();
    for (name, template) in requests {
        let (gateway, stop) = (home.gateway, Arc::clone(&stop));
        lanes.spawn(async move { (name, measure_requests(gateway, template, &stop).await) });
    }
    let (echoing, stopped) = (home.clone(), Arc::clone(&stop));
    lanes.spawn(async move { ("WebSocket echo", measure_echoes(&echoing, &stopped).await) });
    let (connections, websockets, peers) = tokio::join!(
        measure_newcomers(&stop, || connect_once(home.clone())),
        measure_newcomers(&stop, || open_websocket_once(home.clone())),
        measure_newcomers(&stop, || connect_peer_once(home.clone())),
    );
    let mut seen =
        NeighbourFigures { connections, websockets, peers, ..NeighbourFigures::default() };
    let mut all = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        let (name, mut lane) = lane?;
        lane.latencies.sort_unstable();
        let [p50, p99, max] = latency_figures(&lane.latencies);
        seen.kinds.push(RequestFigures { name, p50, p99, max, failed: lane.failed });
        seen.asked += lane.latencies.len() as u64;
        seen.failed += lane.failed;
        seen.failure =
            seen.failure.or_else(|| lane.failure.map(|failure| format!("{name}: {failure}")));
        all.extend(lane.latencies);
    }
    seen.kinds.sort_by_key(|kind| kind.name);
    all.sort_unstable();
    [seen.p50, seen.p99, seen.max] = latency_figures(&all);
    Ok(seen)
}

/// p50, p99 and the longest, in milliseconds.
fn latency_figures(sorted: &[Duration]) -> [f64; 3] {
    let at = |share: f64| {
        let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(index).map_or(f64::NAN, |took| took.as_secs_f64() * 1000.0)
    };
    [at(0.50), at(0.99), at(1.0)]
}

/// Sends one kind of request again and again on a kept connection, and on a new one after that
/// broke.
async fn measure_requests(
    gateway: SocketAddr,
    mut template: RequestTemplate,
    stop: &AtomicBool,
) -> RequestSamples {
    let mut lane = RequestSamples::default();
    let mut kept: Option<TcpStream> = None;
    let mut buffer = vec![0; 16 * 1024];
    let mut due = Instant::now();
    for number in 0.. {
        due += PERIOD;
        sleep_until(due.into()).await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let exchanged = async {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => connect_from(SOURCE, gateway).await?,
            };
            send_and_check(
                &mut stream,
                &mut template,
                &mut buffer,
                FIRST + number % KEYS,
                FIRST + number,
            )
            .await?;
            anyhow::Ok(stream)
        };
        match timeout(PATIENCE, exchanged).await.context("no answer within 5 s").flatten() {
            Ok(stream) => {
                kept = Some(stream);
                lane.latencies.push(due.elapsed());
            }
            Err(error) => lane.record_failure(due.elapsed(), &error),
        }
    }
    lane
}

/// Publishes on a kept WebSocket, and waits until each message comes back.
async fn measure_echoes(home: &NeighbourTarget, stop: &AtomicBool) -> RequestSamples {
    let mut lane = RequestSamples::default();
    let mut kept = None;
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        due += PERIOD;
        sleep_until(due.into()).await;
        let exchanged = async {
            let mut socket = match kept.take() {
                Some(socket) => socket,
                None => open_socket(home, "steady").await?,
            };
            echo(&mut socket).await?;
            anyhow::Ok(socket)
        };
        match timeout(PATIENCE, exchanged).await.context("no echo within 5 s").flatten() {
            Ok(socket) => {
                kept = Some(socket);
                lane.latencies.push(due.elapsed());
            }
            Err(error) => lane.record_failure(due.elapsed(), &error),
        }
    }
    lane
}

/// One newcomer comes each second, whether those before were served or not.
async fn measure_newcomers<F>(stop: &AtomicBool, come: impl Fn() -> F) -> NewcomerFigures
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut tries = JoinSet::new();
    let mut due = Instant::now();
    let mut seen = NewcomerFigures::default();
    while !stop.load(Ordering::Relaxed) {
        seen.tried += 1;
        let come = come();
        tries.spawn(async move {
            timeout(PATIENCE, come).await.context("no answer within 5 s").flatten()
        });
        due += NEWCOMER_PERIOD;
        while Instant::now() < due && !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(PERIOD).await;
        }
    }
    while let Some(tried) = tries.join_next().await {
        let tried = tried.context("a newcomer's task").flatten();
        if let Err(error) = tried {
            seen.refused += 1;
            seen.refusal.get_or_insert_with(|| format!("{error:#}"));
        }
    }
    seen
}

async fn connect_once(home: NeighbourTarget) -> Result<()> {
    let mut stream = connect_from(SOURCE, home.gateway).await?;
    let mut template = home.http_request("GET", &format!("get-{KEY}"), "");
    send_and_check(&mut stream, &mut template, &mut vec![0; 16 * 1024], FIRST, FIRST).await
}

async fn open_websocket_once(home: NeighbourTarget) -> Result<()> {
    let mut socket = open_socket(&home, "newcomer").await?;
    echo(&mut socket).await?;
    // It leaves in order: the place is free at once.
    let _ = socket.close(None).await;
    Ok(())
}

async fn connect_peer_once(home: NeighbourTarget) -> Result<()> {
    let host =
        Host::start(HostConfig::client(Keypair::generate_ed25519(), "bench/neighbour"), None)
            .await?;
    let peer = host.connect(home.peer, PATIENCE).await?;
    let channel = host.open(peer).await?;
    drop(channel);
    host.shutdown(Instant::now() + PATIENCE).await;
    Ok(())
}

async fn open_socket(home: &NeighbourTarget, topic: &str) -> Result<WebSocketStream<TcpStream>> {
    let stream = connect_from(SOURCE, home.gateway).await?;
    open_websocket(stream, home.gateway, &home.key, topic).await
}

/// Publishes a message, and waits until one comes back: the same one on a topic of its own, any on
/// a topic with other newcomers.
async fn echo(socket: &mut WebSocketStream<TcpStream>) -> Result<()> {
    let message = value_starting_with("echo").into_bytes();
    socket.send(Message::binary(message.clone())).await?;
    loop {
        match socket.next().await.context("the gateway closed the WebSocket")?? {
            Message::Binary(echoed) => {
                ensure!(echoed == message, "another message than the one that was sent");
                return Ok(());
            }
            Message::Ping(_) | Message::Pong(_) => {}
            other => anyhow::bail!("the gateway sent {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::latency_figures;
    use std::time::Duration;

    #[test]
    fn figures_are_of_the_sorted_list() {
        let sorted: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(latency_figures(&sorted), [101.0, 199.0, 200.0]);
        assert!(latency_figures(&[]).iter().all(|figure| figure.is_nan()));
    }
}
