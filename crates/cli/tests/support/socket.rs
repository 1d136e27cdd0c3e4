//! WebSockets to the gateway, as light as a test with a thousand of them needs: the handshake by
//! tungstenite, the frames read by hand into one buffer.

use std::net::SocketAddr;
use std::ops::Range;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// What a subscriber receives.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message of the topic.
    Binary(Vec<u8>),
    /// What the gateway itself has to say.
    Text(String),
    /// The gateway ends the connection, with a status.
    Close(Option<u16>),
}

/// A WebSocket on one topic.
pub struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What was read and not yet used stands here in the buffer.
    start: usize,
    end: usize,
}

impl Socket {
    /// Opens a WebSocket on a topic, whose name needs no escaping.
    pub async fn open(address: SocketAddr, key: &str, topic: &str) -> Self {
        Self::open_with(address, key, topic, None).await
    }

    /// The same with a small buffer in the kernel, so that one who does not read is felt soon.
    pub async fn open_with(
        address: SocketAddr,
        key: &str,
        topic: &str,
        receive_buffer: Option<u32>,
    ) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size).expect("a buffer size");
        }
        let stream = socket.connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a TCP option");
        let uri = format!("ws://{address}/v1/pubsub/ws?topic={topic}");
        let mut request = uri.into_client_request().expect("a request");
        request
            .headers_mut()
            .insert("authorization", format!("Bearer {key}").parse().expect("a header"));
        let (socket, _) =
            tokio_tungstenite::client_async(request, stream).await.expect("a WebSocket");
        // Nothing is published yet when the handshake ends, so nothing is lost with tungstenite's
        // own buffer.
        Self { stream: socket.into_inner(), buffer: vec![0; 64 * 1024], start: 0, end: 0 }
    }

    /// Publishes a message to the topic.
    pub async fn send(&mut self, message: &[u8]) {
        self.send_frame(0x2, message).await;
    }

    /// A pong that nobody asked for: RFC 6455 allows it.
    pub async fn give_sign_of_life(&mut self) {
        self.send_frame(0xA, b"").await;
    }

    async fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length @ 126..=65_535 => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        // Masked with zeros: the protocol asks for a mask, and a test gains nothing by another.
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.write_all(&frame).await.expect("the gateway reads");
    }

    /// The next message, or what the gateway itself has to say; not what only keeps the connection
    /// alive.
    pub async fn next(&mut self) -> Frame {
        let mut whole = Vec::new();
        self.next_piecewise(|piece| whole.extend_from_slice(piece))
            .await
            .unwrap_or(Frame::Binary(whole))
    }

    /// The first eight bytes of the next message and its length, without keeping the rest; or what
    /// else came.
    pub async fn next_start(&mut self) -> Result<([u8; 8], usize), Frame> {
        let (mut start, mut length) = ([0; 8], 0);
        let other = self.next_piecewise(|piece| {
            if let Some(room) = start.get_mut(length..) {
                let count = room.len().min(piece.len());
                room[..count].copy_from_slice(&piece[..count]);
            }
            length += piece.len();
        });
        match other.await {
            Some(frame) => Err(frame),
            None => Ok((start, length)),
        }
    }

    /// Hands the next message to `take`, piece by piece: long ones come in several frames. What is
    /// not a message is returned.
    async fn next_piecewise(&mut self, mut take: impl FnMut(&[u8])) -> Option<Frame> {
        let mut within = false;
        loop {
            let Some((last, opcode, place)) = self.frame().await else {
                return Some(Frame::Close(None));
            };
            let payload = &self.buffer[place];
            match opcode {
                0x0 | 0x2 => {
                    assert_eq!(
                        opcode == 0x0,
                        within,
                        "a continuation follows a piece, and nothing else does"
                    );
                    take(payload);
                    within = !last;
                    if last {
                        return None;
                    }
                }
                0x1 => {
                    return Some(Frame::Text(String::from_utf8(payload.to_vec()).expect("UTF-8")));
                }
                0x8 => {
                    return Some(Frame::Close(
                        payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]])),
                    ));
                }
                0x9 => {
                    let payload = payload.to_vec();
                    self.send_frame(0xA, &payload).await;
                }
                0xA => {}
                other => panic!("opcode {other}"),
            }
        }
    }

    /// One frame: whether it is the last of its message, its opcode, and where its payload stands
    /// in the buffer; `None` at the end of the connection.
    async fn frame(&mut self) -> Option<(bool, u8, Range<usize>)> {
        self.fill(2).await?;
        let head = &self.buffer[self.start..];
        let (last, opcode, short) = (head[0] & 0x80 != 0, head[0] & 0x0F, head[1]);
        assert_eq!(short & 0x80, 0, "a masked frame from a server");
        let width = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        self.fill(2 + width).await?;
        let extended = &self.buffer[self.start + 2..self.start + 2 + width];
        let length = match width {
            0 => usize::from(short),
            _ => extended.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
        };
        self.fill(2 + width + length).await?;
        let place = self.start + 2 + width..self.start + 2 + width + length;
        self.start = place.end;
        Some((last, opcode, place))
    }

    /// Reads until so many bytes stand behind `start`.
    async fn fill(&mut self, wanted: usize) -> Option<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() < self.start + wanted {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            self.buffer.resize(self.buffer.len().max(wanted), 0);
        }
        while self.end - self.start < wanted {
            match self.stream.read(&mut self.buffer[self.end..]).await {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.end += read,
            }
        }
        Some(())
    }
}
