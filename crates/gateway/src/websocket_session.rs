//! An open WebSocket: incoming frames are published, events of the subscription are sent.
//!
//! Reading and writing are two futures of one task, so nothing of a session outlives the other
//! half, and the task ends as soon as either does. Events that a slow reader has not taken yet wait
//! in the node's bounded subscription: here is room for one piece of a message only.

use crate::connection_state::{CloseRequest, ConnectionState};
use crate::connection_table::ConnectionPermit;
use crate::fair_budget::ChargeGuard;
use crate::gateway_state::{GatewayState, LifecyclePhase};
use crate::metrics::GaugeGuard;
use crate::shared_websocket::{FRAME_PIECE_BYTES, SharedWebSocket};
use axum::body::Bytes;
use debros_client::{Client, PubsubEvent, Subscription};
use debros_proto::limits::MAX_MESSAGE_BYTES;
use debros_proto::{Code, Error, Topic};
use futures::channel::mpsc;
use futures::stream::BoxStream;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _, TryFutureExt as _, stream};
use hyper::upgrade::Upgraded;
use serde::Serialize;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::coop::consume_budget;
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

/// The largest incomplete message that the library keeps.
const MAX_UNREAD: usize = MAX_MESSAGE_BYTES + (64 << 10);
/// Events that are sent together before the socket is flushed.
const BATCH_BYTES: usize = 64 << 10;
const BATCH_EVENTS: usize = 128;
/// Messages over this leave a buffer behind that is worth returning.
const LARGE_MESSAGE_BYTES: usize = 4 << 10;
/// Error notices and pongs that wait to be sent. When they are not taken, nothing more is read.
const NOTICE_QUEUE_LENGTH: usize = 16;
/// How long the other side may take to close.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// The result of polling a subscription. In a box, because the futures of a session would hold it
/// once each.
pub(crate) type SubscriptionEvents = BoxStream<'static, Result<PubsubEvent, Error>>;

/// The events of a subscription. As a stream, because a wait for the next event must continue after
/// others had their turn.
pub(crate) fn subscription_events(subscription: Subscription) -> SubscriptionEvents {
    let events = stream::unfold(subscription, |mut subscription| async move {
        let event = subscription.next().await?;
        Some((event, subscription))
    });
    events.boxed()
}

/// Everything that an open WebSocket holds.
pub(crate) struct WebSocketSession {
    pub(crate) client: Client,
    pub(crate) topic: Topic,
    pub(crate) events: SubscriptionEvents,
    pub(crate) shared: Arc<GatewayState>,
    /// Counts it among the open ones.
    pub(crate) open_gauge: GaugeGuard,
    pub(crate) charge: ChargeGuard,
    /// Its socket is still one of the gateway's connections.
    pub(crate) permit: Arc<ConnectionPermit>,
}

/// The notices in text frames.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum WebSocketNotice<'a> {
    Missed { count: u64 },
    Reconnected,
    Error { code: &'static str, error: &'a str },
}

impl WebSocketNotice<'_> {
    fn error_message(error: &Error) -> Message {
        WebSocketNotice::Error { code: error.code.name(), error: &error.message }.to_message()
    }

    fn to_message(&self) -> Message {
        // Numbers and strings: this cannot fail.
        Message::text(serde_json::to_string(self).unwrap_or_default())
    }
}

/// Work of the reading half for the writing half.
enum WriterTask {
    Send(Message),
    /// The library has an answer to a ping.
    Flush,
}

/// How a session ends.
enum SessionEnd {
    /// The other side closed, or the connection broke.
    Disconnected,
    /// We close, with a code.
    Close(CloseCode, &'static str),
    /// We close because the bytes that follow cannot be read.
    Unreadable(CloseCode, &'static str),
}

/// Serves an open WebSocket until it ends.
pub(crate) async fn run_session(upgraded: Upgraded, session: WebSocketSession) {
    let WebSocketSession { client, topic, events, shared, open_gauge: held, charge, permit } =
        session;
    let state = permit.state();
    let under_way = state.begin_activity();
    state.mark_websocket(MAX_UNREAD);
    let socket = SharedWebSocket::new(upgraded, Arc::clone(state));
    let life = PeerLiveness::new();
    let (tell, tasks) = mpsc::channel(NOTICE_QUEUE_LENGTH);
    let mut phase = shared.phase.subscribe();

    let end = tokio::select! {
        // The sender of the phase lives as long as the gateway's state.
        _ = phase.wait_for(|phase| *phase >= LifecyclePhase::Draining) => SessionEnd::Close(CloseCode::Away, "the gateway is stopping"),
        () = state.wait_close_request(CloseRequest::Evict) => SessionEnd::Close(CloseCode::Policy, "nothing was read, or sent to its end, in time"),
        end = read_messages(&socket, &client, &topic, &shared, state, &life, tell) => end,
        end = write_events(&socket, events, tasks, &shared, &life) => end,
    };
    // The subscription is gone here; the rest is politeness.
    let closing = close_socket(&socket, end);
    tokio::select! {
        _ = phase.wait_for(|phase| *phase == LifecyclePhase::Ended) => {}
        _ = timeout(CLOSE_TIME, closing) => {}
    }
    drop((held, charge, under_way));
}

/// The time of the other side's last sign of life.
struct PeerLiveness {
    started: Instant,
    seen_ms: AtomicU64,
}

impl PeerLiveness {
    fn new() -> Self {
        Self { started: Instant::now(), seen_ms: AtomicU64::new(0) }
    }

    fn record_activity(&self) {
        self.seen_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    fn idle_time(&self) -> Duration {
        Duration::from_millis(
            self.elapsed_ms().saturating_sub(self.seen_ms.load(Ordering::Relaxed)),
        )
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Publishes incoming messages one after the other, which keeps their order.
async fn read_messages(
    mut socket: &SharedWebSocket,
    client: &Client,
    topic: &Topic,
    shared: &GatewayState,
    state: &ConnectionState,
    life: &PeerLiveness,
    mut tell: mpsc::Sender<WriterTask>,
) -> SessionEnd {
    let mut is_large = false;
    while let Some(message) = socket.next().await {
        life.record_activity();
        let data = match message {
            Ok(Message::Binary(data)) => data,
            Ok(Message::Text(text)) => text.into(),
            Ok(Message::Close(_)) => return SessionEnd::Disconnected,
            Ok(Message::Ping(_)) => {
                // The library answers. Nothing more is read until that answer, or a few of them,
                // are on their way.
                if tell.send(WriterTask::Flush).await.is_err() {
                    return SessionEnd::Disconnected;
                }
                continue;
            }
            Ok(Message::Pong(_)) => {
                // However fast they come, other tasks have their turn.
                consume_budget().await;
                continue;
            }
            Ok(Message::Frame(_)) => continue,
            Err(error) => return end_for_error(&error),
        };
        if data.len() > LARGE_MESSAGE_BYTES {
            is_large = true;
            if state.count_retained(data.len()).is_err() {
                return memory_exceeded();
            }
        }
        shared.metrics.messages_received.increment(1);
        // In a box, because an idle socket would keep room for it.
        let pubsub = client.pubsub();
        let publish = Box::pin(pubsub.publish(topic.as_str(), data));
        if let Err(error) = publish.await
            && tell.send(WriterTask::Send(WebSocketNotice::error_message(&error))).await.is_err()
        {
            return SessionEnd::Disconnected;
        }
        // Publishing may take long: meanwhile a pong could not be read.
        life.record_activity();
        if is_large && socket.try_shrink_buffers().await {
            is_large = false;
        }
    }
    SessionEnd::Disconnected
}

fn memory_exceeded() -> SessionEnd {
    SessionEnd::Close(CloseCode::Again, "there is no room for what this address sends")
}

fn end_for_error(error: &SocketError) -> SessionEnd {
    match error {
        SocketError::Capacity(_) => {
            SessionEnd::Unreadable(CloseCode::Size, "a message has at most 1 MiB")
        }
        SocketError::Protocol(_) => {
            SessionEnd::Unreadable(CloseCode::Protocol, "the frames are not RFC 6455")
        }
        SocketError::Io(error) if error.kind() == ErrorKind::OutOfMemory => memory_exceeded(),
        SocketError::Utf8(_) => {
            SessionEnd::Unreadable(CloseCode::Invalid, "a text frame is not UTF-8")
        }
        _ => SessionEnd::Disconnected,
    }
}

/// Sends the subscription's events, and pings.
async fn write_events(
    mut socket: &SharedWebSocket,
    mut events: SubscriptionEvents,
    mut tasks: mpsc::Receiver<WriterTask>,
    shared: &GatewayState,
    life: &PeerLiveness,
) -> SessionEnd {
    let limits = &shared.limits;
    let mut ping =
        interval_at((Instant::now() + limits.ping_interval).into(), limits.ping_interval);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_sent = false;
    loop {
        let sent = tokio::select! {
            biased;
            _ = ping.tick() => {
                if life.idle_time() > limits.pong_timeout {
                    return SessionEnd::Close(CloseCode::Policy, "no pong came in time");
                }
                // The memory for messages since the last time is returned.
                has_sent = has_sent && !socket.try_shrink_buffers().await;
                let ping = socket.send(Message::Ping(Bytes::new()));
                timeout(limits.pong_timeout, ping.map_ok(|()| None)).await
            }
            Some(task) = tasks.next() => timeout(limits.pong_timeout, async {
                match task {
                    WriterTask::Send(notice) => socket.send(notice).await,
                    WriterTask::Flush => socket.flush().await,
                }
                .map(|()| None)
            }).await,
            event = events.next() => match event {
                Some(Ok(event)) => {
                    has_sent = true;
                    timeout(limits.pong_timeout, deliver_batch(socket, event, &mut events, shared)).await
                }
                other => Ok(Ok(Some(other.and_then(Result::err)))),
            },
        };
        match sent {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(ended))) => {
                return subscription_ended(socket, ended, limits.pong_timeout).await;
            }
            Ok(Err(_)) => return SessionEnd::Disconnected,
            Err(_) => return SessionEnd::Close(CloseCode::Policy, "nothing was read in time"),
        }
    }
}

/// Why a subscription ended: an error, or `None` when the node ended it in order.
type SubscriptionEnd = Option<Error>;

/// Sends an event and those that are ready already, in one go. The end of the stream, if it came
/// meanwhile, is returned.
async fn deliver_batch(
    mut socket: &SharedWebSocket,
    first: PubsubEvent,
    events: &mut SubscriptionEvents,
    shared: &GatewayState,
) -> Result<Option<SubscriptionEnd>, SocketError> {
    let mut bytes = feed_event(socket, first, shared).await?;
    let mut ended = None;
    for _ in 1..BATCH_EVENTS {
        if bytes >= BATCH_BYTES {
            break;
        }
        match events.next().now_or_never() {
            None => break,
            Some(Some(Ok(event))) => bytes += feed_event(socket, event, shared).await?,
            Some(other) => {
                ended = Some(other.and_then(Result::err));
                break;
            }
        }
    }
    socket.flush().await?;
    Ok(ended)
}

async fn feed_event(
    mut socket: &SharedWebSocket,
    event: PubsubEvent,
    shared: &GatewayState,
) -> Result<usize, SocketError> {
    match event {
        PubsubEvent::Message(data) => {
            let size = data.len();
            feed_message(socket, data).await?;
            shared.metrics.messages_sent.increment(1);
            Ok(size)
        }
        PubsubEvent::Missed(count) => {
            shared.metrics.messages_missed.increment(count);
            socket.feed(WebSocketNotice::Missed { count }.to_message()).await.map(|()| 0)
        }
        PubsubEvent::Reconnected => {
            socket.feed(WebSocketNotice::Reconnected.to_message()).await.map(|()| 0)
        }
    }
}

async fn feed_message(mut socket: &SharedWebSocket, mut data: Bytes) -> Result<(), SocketError> {
    if data.len() <= FRAME_PIECE_BYTES {
        return socket.feed(Message::Binary(data)).await;
    }
    let mut kind = Data::Binary;
    while data.len() > FRAME_PIECE_BYTES {
        let piece = data.split_to(FRAME_PIECE_BYTES);
        socket.feed(Message::Frame(Frame::message(piece, OpCode::Data(kind), false))).await?;
        kind = Data::Continue;
    }
    socket.feed(Message::Frame(Frame::message(data, OpCode::Data(kind), true))).await
}

async fn subscription_ended(
    mut socket: &SharedWebSocket,
    ended: SubscriptionEnd,
    within: Duration,
) -> SessionEnd {
    let Some(error) = ended else {
        return SessionEnd::Close(CloseCode::Away, "the node ended the subscription");
    };
    // Whether it arrives or not, the socket is closed next.
    let _ = timeout(within, socket.send(WebSocketNotice::error_message(&error))).await;
    match error.code {
        Code::Unauthenticated
        | Code::CredentialExpired
        | Code::CredentialRevoked
        | Code::Forbidden
        | Code::NamespaceMismatch => SessionEnd::Close(
            CloseCode::Policy,
            "the credential does not allow this subscription any more",
        ),
        Code::Unavailable | Code::NotLeader | Code::Overloaded | Code::RateLimited => {
            SessionEnd::Close(CloseCode::Again, "the network cannot be reached")
        }
        _ => SessionEnd::Close(CloseCode::Error, "the subscription failed"),
    }
}

/// Performs the closing handshake of RFC 6455. The caller limits the time.
async fn close_socket(mut socket: &SharedWebSocket, end: SessionEnd) {
    match end {
        SessionEnd::Disconnected => {
            // The library's answer to a close frame still has to be written.
            let _ = socket.flush().await;
        }
        SessionEnd::Close(code, reason) => {
            let sent =
                socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
            while sent.is_ok() && socket.next().await.is_some_and(|message| message.is_ok()) {}
        }
        SessionEnd::Unreadable(code, reason) => {
            let _ =
                socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
            // Closing with unread bytes would reset the connection, and the reason would not
            // arrive.
            socket.discard_input().await;
        }
    }
}
