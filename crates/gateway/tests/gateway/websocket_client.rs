//! A WebSocket client.

use futures::{SinkExt as _, StreamExt as _};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::{Error, Message};

pub(crate) type Socket = WebSocketStream<TcpStream>;

/// Opens a WebSocket with these headers.
pub(crate) async fn open(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(Socket, Response), Error> {
    let mut request = format!("ws://localhost{path}").into_client_request().unwrap();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_tungstenite::client_async(request, stream).await
}

/// Subscribes to a topic in the namespace `one`.
pub(crate) async fn subscribe(address: SocketAddr, topic: &str) -> Socket {
    open(address, &format!("/v1/pubsub/ws?topic={topic}"), &[crate::setup::KEY]).await.unwrap().0
}

/// The next message of the topic; pings are skipped, everything else fails.
pub(crate) async fn message(socket: &mut Socket) -> Vec<u8> {
    loop {
        match socket.next().await.expect("it is open").unwrap() {
            Message::Binary(data) => return data.into(),
            Message::Ping(_) => {}
            other => panic!("not a message: {other:?}"),
        }
    }
}

/// The next notice.
pub(crate) async fn notice(socket: &mut Socket) -> serde_json::Value {
    loop {
        match socket.next().await.expect("it is open").unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("not a notice: {other:?}"),
        }
    }
}

/// The code that the gateway closes with; what comes before is skipped.
pub(crate) async fn close_code(socket: &mut Socket) -> u16 {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
            Some(Ok(_)) => {}
            other => panic!("no close frame: {other:?}"),
        }
    }
}

pub(crate) async fn send(socket: &mut Socket, message: impl Into<Message>) {
    socket.send(message.into()).await.unwrap();
}
