//! Pub/sub from WebSocket to WebSocket: how many messages, and how long each one takes.

use crate::load::percentile;
use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};

/// Bytes in every message: its number, the time of sending, and filler.
const MESSAGE_BYTES: usize = 100;
/// Messages that may be under way at a time when the publisher sends as fast as it can. Far below
/// what the node buffers for a subscriber, so that none may be missed.
const WINDOW: u64 = 64;
/// Messages per second, all subscribers together, when latency is measured: well below what the
/// node can do.
const PACED_DELIVERIES: u64 = 10_000;
const PACED_MESSAGES: u64 = 1_000;
/// The number of the message that ends a run.
const LAST: u64 = u64::MAX;

/// The result for a number of subscribers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PubsubOutcome {
    /// Sockets that receive, besides the publisher's own.
    pub(crate) subscribers: usize,
    /// Messages per second from one publisher as fast as it goes.
    pub(crate) messages_per_second: f64,
    /// The same times the subscribers.
    pub(crate) deliveries_per_second: f64,
    /// Messages per second while latency was measured.
    pub(crate) paced_rate: u64,
    /// Microseconds from before the sending to after the receiving.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
    /// Microseconds.
    pub(crate) p999: f64,
}

type PubsubSocket = WebSocketStream<TcpStream>;

/// The publisher's pace.
#[derive(Clone, Copy)]
enum PublishPace {
    Full,
    PerSecond(u64),
}

/// Measures with this many subscribers.
///
/// # Errors
/// A message that is lost, doubled, changed or out of order.
pub(crate) fn run(
    address: SocketAddr,
    key: &str,
    subscribers: usize,
    duration: Duration,
) -> Result<PubsubOutcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let full = publish(address, key, subscribers, duration, PublishPace::Full).await?;
        let paced_rate = (PACED_DELIVERIES / subscribers as u64).min(PACED_MESSAGES);
        let paced =
            publish(address, key, subscribers, duration, PublishPace::PerSecond(paced_rate))
                .await?;
        let messages_per_second = full.sent as f64 / full.took.as_secs_f64();
        Ok(PubsubOutcome {
            subscribers,
            messages_per_second,
            deliveries_per_second: messages_per_second * subscribers as f64,
            paced_rate,
            p50: percentile(&paced.latencies, 0.50),
            p99: percentile(&paced.latencies, 0.99),
            p999: percentile(&paced.latencies, 0.999),
        })
    })
}

struct PublishRun {
    sent: u64,
    took: Duration,
    /// Sorted nanoseconds.
    latencies: Vec<u32>,
}

async fn publish(
    address: SocketAddr,
    key: &str,
    subscribers: usize,
    duration: Duration,
    pace: PublishPace,
) -> Result<PublishRun> {
    let epoch = Instant::now();
    let mut receivers = JoinSet::new();
    for _ in 0..subscribers {
        let (_, messages) = connect_socket(address, key).await?.split();
        receivers.spawn(receive_latencies(messages, epoch));
    }
    // A socket receives its own messages: so the publisher knows how far the node is.
    let (mut publisher, mut echoes) = connect_socket(address, key).await?.split();
    let started = Instant::now();
    let mut sent = 0;
    let mut seen = 0;
    let mut ticks = tokio::time::interval(match pace {
        PublishPace::Full => Duration::from_secs(3600),
        PublishPace::PerSecond(rate) => Duration::from_secs(1) / u32::try_from(rate)?,
    });
    while started.elapsed() < duration {
        match pace {
            PublishPace::Full => {
                while sent - seen < WINDOW {
                    send_numbered(&mut publisher, sent, epoch).await?;
                    sent += 1;
                }
                publisher.flush().await?;
                seen = message_number(&next_message(&mut echoes).await?)? + 1;
            }
            PublishPace::PerSecond(_) => {
                tokio::select! {
                    _ = ticks.tick() => {
                        send_numbered(&mut publisher, sent, epoch).await?;
                        publisher.flush().await?;
                        sent += 1;
                    }
                    echo = next_message(&mut echoes) => drop(echo?),
                }
            }
        }
    }
    send_numbered(&mut publisher, LAST, epoch).await?;
    publisher.flush().await?;
    let mut latencies = Vec::new();
    while let Some(received) = receivers.join_next().await {
        let received = received??;
        ensure!(
            received.len() as u64 == sent,
            "{sent} messages were published, a subscriber got {}",
            received.len()
        );
        latencies.extend(received);
    }
    let took = started.elapsed();
    latencies.sort_unstable();
    Ok(PublishRun { sent, took, latencies })
}

async fn send_numbered(
    publisher: &mut SplitSink<PubsubSocket, Message>,
    number: u64,
    epoch: Instant,
) -> Result<()> {
    let mut message = vec![b'.'; MESSAGE_BYTES];
    message[..8].copy_from_slice(&number.to_be_bytes());
    message[8..16].copy_from_slice(&(epoch.elapsed().as_nanos() as u64).to_be_bytes());
    publisher.feed(Message::binary(message)).await?;
    Ok(())
}

/// Receives until the last message, and returns how long each one took, in nanoseconds.
async fn receive_latencies(
    mut messages: SplitStream<PubsubSocket>,
    epoch: Instant,
) -> Result<Vec<u32>> {
    let mut latencies = Vec::new();
    loop {
        let message = next_message(&mut messages).await?;
        let number = message_number(&message)?;
        if number == LAST {
            return Ok(latencies);
        }
        ensure!(
            number == latencies.len() as u64,
            "message {} was to come, {number} came",
            latencies.len()
        );
        let sent = u64::from_be_bytes(message[8..16].try_into()?);
        let took = epoch.elapsed().as_nanos() as u64 - sent;
        latencies.push(u32::try_from(took).unwrap_or(u32::MAX));
    }
}

fn message_number(message: &[u8]) -> Result<u64> {
    ensure!(message.len() == MESSAGE_BYTES, "a message of {} bytes", message.len());
    Ok(u64::from_be_bytes(message[..8].try_into()?))
}

async fn next_message(messages: &mut SplitStream<PubsubSocket>) -> Result<Bytes> {
    loop {
        match messages.next().await.context("the gateway closed the WebSocket")?? {
            Message::Binary(message) => return Ok(message),
            Message::Ping(_) | Message::Pong(_) => {}
            other => bail!("the gateway sent {other:?}"),
        }
    }
}

async fn connect_socket(address: SocketAddr, key: &str) -> Result<PubsubSocket> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut request = format!("ws://{address}/v1/pubsub/ws?topic=bench").into_client_request()?;
    request.headers_mut().insert("authorization", format!("Bearer {key}").parse()?);
    let (socket, _) =
        tokio_tungstenite::client_async(request, stream).await.context("open the WebSocket")?;
    Ok(socket)
}
