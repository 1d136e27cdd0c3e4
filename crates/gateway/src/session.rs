//! An open WebSocket: what comes in is published, what the subscription yields goes out.
//!
//! Reading and writing are two futures of one task, so nothing of a session outlives the other half, and the task ends
//! as soon as either does. What a slow reader has not taken yet waits in the node's bounded subscription: here is room
//! for one piece of a message only.

use crate::budget::Charge;
use crate::metrics::Held;
use crate::places::Place;
use crate::seat::{Seat, Told};
use crate::shared::{Phase, Shared};
use axum::body::Bytes;
use debros_client::{Client, PubsubEvent, Subscription};
use debros_proto::limits::MAX_MESSAGE_BYTES;
use debros_proto::{Code, Error, Topic};
use futures::channel::mpsc;
use futures::stream::{BoxStream, SplitSink, SplitStream};
use futures::{FutureExt as _, SinkExt as _, StreamExt as _, TryFutureExt as _, stream};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;
use tokio::task::coop::consume_budget;
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

/// A message over this size goes out in several frames. The library copies a frame before it is written: so a socket
/// whose reader stands still keeps this much in memory, not a whole message.
const PIECE: usize = 8 << 10;
/// Over this the library refuses to keep more: a piece that was not written, the next one, and their heads.
const MAX_WRITE_BUFFER: usize = 2 * PIECE + (1 << 10);
/// What the library keeps of a message that is not whole yet.
const MAX_UNREAD: usize = MAX_MESSAGE_BYTES + (64 << 10);
/// Taken together before the socket is flushed.
const BATCH_BYTES: usize = 64 << 10;
const BATCH_EVENTS: usize = 128;
/// Read at a time. Every open WebSocket has it.
const READ_BUFFER: usize = 2 << 10;
/// Errors that wait to be told, and pongs to be sent. When they are not taken, nothing more is read.
const NOTICES: usize = 16;
/// How long the other side may take to close.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// What a subscription yields. In a box, because the futures of a session would hold it once each.
pub(crate) type Events = BoxStream<'static, Result<PubsubEvent, Error>>;

/// The events of a subscription. As a stream, because a wait for the next event must go on after others had their turn.
pub(crate) fn events(subscription: Subscription) -> Events {
    let events = stream::unfold(subscription, |mut subscription| async move {
        let event = subscription.next().await?;
        Some((event, subscription))
    });
    events.boxed()
}

/// Everything that an open WebSocket holds.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) topic: Topic,
    pub(crate) events: Events,
    pub(crate) shared: Arc<Shared>,
    /// Counts it among the open ones.
    pub(crate) held: Held,
    pub(crate) charge: Charge,
    /// Its socket is one of the gateway's connections still.
    pub(crate) place: Arc<Place>,
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Outgoing = SplitSink<Socket, Message>;
type Incoming = SplitStream<Socket>;

/// What is told in text frames.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Notice<'a> {
    Missed { count: u64 },
    Reconnected,
    Error { code: &'static str, error: &'a str },
}

impl Notice<'_> {
    fn of_error(error: &Error) -> Message {
        Notice::Error { code: error.code.name(), error: &error.message }.message()
    }

    fn message(&self) -> Message {
        // Numbers and strings: this can not fail.
        Message::text(serde_json::to_string(self).unwrap_or_default())
    }
}

/// What the reading half leaves to the writing half.
enum Task {
    Tell(Message),
    /// The library has an answer to a ping.
    Flush,
}

/// How a session ends.
enum End {
    /// The other side closed, or the connection broke.
    Gone,
    /// We close, with a code.
    Close(CloseCode, &'static str),
    /// We close because of bytes that can not be read on after.
    Broken(CloseCode, &'static str),
}

/// Serves an open WebSocket until it ends.
pub(crate) async fn run(upgraded: Upgraded, session: Session) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(PIECE)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (mut outgoing, mut incoming) = socket.split();
    let Session { client, topic, events, shared, held, charge, place } = session;
    let seat = place.seat();
    let under_way = seat.begin();
    seat.becomes_websocket(MAX_UNREAD);
    let life = Life::new();
    let (tell, tasks) = mpsc::channel(NOTICES);
    let mut phase = shared.phase.subscribe();

    let end = tokio::select! {
        // The sender of the phase lives as long as `shared`.
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => End::Close(CloseCode::Away, "the gateway is stopping"),
        () = seat.is_told(Told::MakeRoom) => End::Close(CloseCode::Policy, "nothing was read, or sent to its end, in time"),
        end = read(&mut incoming, &client, &topic, &shared, seat, &life, tell) => end,
        end = write(&mut outgoing, events, tasks, &shared, &life) => end,
    };
    // The subscription is gone here; what follows is only politeness.
    let closing = close(outgoing, incoming, end);
    tokio::select! {
        _ = phase.wait_for(|phase| *phase == Phase::Ended) => {}
        _ = timeout(CLOSE_TIME, closing) => {}
    }
    drop((held, charge, under_way));
}

/// When the other side last gave a sign of life.
struct Life {
    started: Instant,
    seen_ms: AtomicU64,
}

impl Life {
    fn new() -> Self {
        Self { started: Instant::now(), seen_ms: AtomicU64::new(0) }
    }

    fn seen(&self) {
        self.seen_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn silent_for(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.seen_ms.load(Ordering::Relaxed)))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Publishes what comes in, one message after the other, which keeps their order.
async fn read(
    incoming: &mut Incoming,
    client: &Client,
    topic: &Topic,
    shared: &Shared,
    seat: &Seat,
    life: &Life,
    mut tell: mpsc::Sender<Task>,
) -> End {
    while let Some(message) = incoming.next().await {
        life.seen();
        let data = match message {
            Ok(Message::Binary(data)) => data,
            Ok(Message::Text(text)) => text.into(),
            Ok(Message::Close(_)) => return End::Gone,
            Ok(Message::Ping(payload)) => {
                seat.take(frame_size(payload.len()));
                // The library answers. Nothing more is read until the answer is on its way, or a few are.
                if tell.send(Task::Flush).await.is_err() {
                    return End::Gone;
                }
                continue;
            }
            Ok(Message::Pong(payload)) => {
                seat.take(frame_size(payload.len()));
                // However fast they come, others have their turn.
                consume_budget().await;
                continue;
            }
            Ok(Message::Frame(_)) => continue,
            Err(error) => return broken(&error),
        };
        seat.take_message();
        shared.metrics.messages_received.increment(1);
        // In a box, because an idle socket would keep room for it.
        let pubsub = client.pubsub();
        let publish = Box::pin(pubsub.publish(topic.as_str(), data));
        if let Err(error) = publish.await
            && tell.send(Task::Tell(Notice::of_error(&error))).await.is_err()
        {
            return End::Gone;
        }
        // Publishing may take long: meanwhile a pong could not be read.
        life.seen();
    }
    End::Gone
}

/// Bytes of a frame on the wire: its head, mask and payload.
fn frame_size(payload: usize) -> usize {
    payload + if payload < 126 { 6 } else { 8 }
}

fn broken(error: &SocketError) -> End {
    match error {
        SocketError::Capacity(_) => End::Broken(CloseCode::Size, "a message has at most 1 MiB"),
        SocketError::Protocol(_) => End::Broken(CloseCode::Protocol, "the frames are not RFC 6455"),
        SocketError::Io(error) if error.kind() == ErrorKind::OutOfMemory => {
            End::Close(CloseCode::Again, "there is no room for what this address and credential send")
        }
        SocketError::Utf8(_) => End::Broken(CloseCode::Invalid, "a text frame is not UTF-8"),
        _ => End::Gone,
    }
}

/// Sends what the subscription yields, and pings.
async fn write(
    outgoing: &mut Outgoing,
    mut events: Events,
    mut tasks: mpsc::Receiver<Task>,
    shared: &Shared,
    life: &Life,
) -> End {
    let limits = &shared.limits;
    let mut ping = interval_at((Instant::now() + limits.ping_interval).into(), limits.ping_interval);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            biased;
            _ = ping.tick() => {
                if life.silent_for() > limits.pong_timeout {
                    return End::Close(CloseCode::Policy, "no pong came in time");
                }
                let ping = outgoing.send(Message::Ping(Bytes::new()));
                timeout(limits.pong_timeout, ping.map_ok(|()| None)).await
            }
            Some(task) = tasks.next() => timeout(limits.pong_timeout, async {
                match task {
                    Task::Tell(notice) => outgoing.send(notice).await,
                    Task::Flush => outgoing.flush().await,
                }
                .map(|()| None)
            }).await,
            event = events.next() => match event {
                Some(Ok(event)) => {
                    timeout(limits.pong_timeout, deliver(outgoing, event, &mut events, shared)).await
                }
                other => Ok(Ok(Some(other.and_then(Result::err)))),
            },
        };
        match sent {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(ended))) => return subscription_ended(outgoing, ended, limits.pong_timeout).await,
            Ok(Err(_)) => return End::Gone,
            Err(_) => return End::Close(CloseCode::Policy, "nothing was read in time"),
        }
    }
}

/// Why a subscription ended: an error, or `None` when the node ended it in order.
type Ended = Option<Error>;

/// Sends an event and those that are there already, in one go. What ended the stream meanwhile is returned.
async fn deliver(
    outgoing: &mut Outgoing,
    first: PubsubEvent,
    events: &mut Events,
    shared: &Shared,
) -> Result<Option<Ended>, SocketError> {
    let mut bytes = feed(outgoing, first, shared).await?;
    let mut ended = None;
    for _ in 1..BATCH_EVENTS {
        if bytes >= BATCH_BYTES {
            break;
        }
        match events.next().now_or_never() {
            None => break,
            Some(Some(Ok(event))) => bytes += feed(outgoing, event, shared).await?,
            Some(other) => {
                ended = Some(other.and_then(Result::err));
                break;
            }
        }
    }
    outgoing.flush().await?;
    Ok(ended)
}

async fn feed(outgoing: &mut Outgoing, event: PubsubEvent, shared: &Shared) -> Result<usize, SocketError> {
    match event {
        PubsubEvent::Message(data) => {
            let size = data.len();
            feed_message(outgoing, data).await?;
            shared.metrics.messages_sent.increment(1);
            Ok(size)
        }
        PubsubEvent::Missed(count) => {
            shared.metrics.messages_missed.increment(count);
            outgoing.feed(Notice::Missed { count }.message()).await.map(|()| 0)
        }
        PubsubEvent::Reconnected => outgoing.feed(Notice::Reconnected.message()).await.map(|()| 0),
    }
}

async fn feed_message(outgoing: &mut Outgoing, mut data: Bytes) -> Result<(), SocketError> {
    if data.len() <= PIECE {
        return outgoing.feed(Message::Binary(data)).await;
    }
    let mut kind = Data::Binary;
    while data.len() > PIECE {
        let piece = data.split_to(PIECE);
        outgoing.feed(Message::Frame(Frame::message(piece, OpCode::Data(kind), false))).await?;
        kind = Data::Continue;
    }
    outgoing.feed(Message::Frame(Frame::message(data, OpCode::Data(kind), true))).await
}

async fn subscription_ended(outgoing: &mut Outgoing, ended: Ended, within: Duration) -> End {
    let Some(error) = ended else {
        return End::Close(CloseCode::Away, "the node ended the subscription");
    };
    // Whether it gets there or not, the socket is closed next.
    let _ = timeout(within, outgoing.send(Notice::of_error(&error))).await;
    match error.code {
        Code::Unauthenticated
        | Code::CredentialExpired
        | Code::CredentialRevoked
        | Code::Forbidden
        | Code::NamespaceMismatch => {
            End::Close(CloseCode::Policy, "the credential does not allow this subscription any more")
        }
        Code::Unavailable | Code::Overloaded | Code::RateLimited => {
            End::Close(CloseCode::Again, "the network can not be reached")
        }
        _ => End::Close(CloseCode::Error, "the subscription failed"),
    }
}

/// Says good-bye as RFC 6455 asks. The caller limits the time.
async fn close(mut outgoing: Outgoing, mut incoming: Incoming, end: End) {
    match end {
        End::Gone => {
            // The library's answer to a close frame still has to be written.
            let _ = outgoing.flush().await;
        }
        End::Close(code, reason) => {
            let sent = outgoing.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
            while sent.is_ok() && incoming.next().await.is_some_and(|message| message.is_ok()) {}
        }
        End::Broken(code, reason) => {
            let _ = outgoing.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
            // Closing with unread bytes would reset the connection, and the reason would not arrive.
            if let Ok(mut socket) = incoming.reunite(outgoing) {
                // Not in the future itself, which every open WebSocket has.
                let mut thrown_away = vec![0; 4096];
                while matches!(socket.get_mut().read(&mut thrown_away).await, Ok(1..)) {}
            }
        }
    }
}
