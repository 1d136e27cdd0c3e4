//! A small HTTP/1.1 client that sends exactly the given bytes.

use futures::FutureExt as _;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection.
pub(crate) struct Http<S = TcpStream> {
    stream: S,
    buffer: Vec<u8>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends what may be refused in the middle.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.send(request(method, path, headers, body)).await;
        self.answer(method == "HEAD").await.expect("an answer")
    }

    /// The first line of what comes next, which is left to be read.
    pub(crate) async fn status_line(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                return String::from_utf8(self.buffer[..end].to_vec()).unwrap();
            }
            assert!(self.fill().await, "the connection ended");
        }
    }

    /// The next answer; `None` when the connection ended before one.
    pub(crate) async fn answer(&mut self, head: bool) -> Option<Answer> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            if !self.fill().await {
                assert!(
                    self.buffer.is_empty(),
                    "half an answer: {:?}",
                    String::from_utf8_lossy(&self.buffer)
                );
                return None;
            }
        };
        let text = String::from_utf8(self.buffer[..end].to_vec()).unwrap();
        self.buffer.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        if status == 100 {
            return Box::pin(self.answer(head)).await;
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        let bodiless = head || status == 204 || status == 304 || status == 101;
        if !bodiless {
            let length: usize = answer.header("content-length").expect("a length").parse().unwrap();
            while self.buffer.len() < length {
                assert!(self.fill().await, "the body ended early");
            }
            answer.body = self.buffer.drain(..length).collect();
        }
        Some(answer)
    }

    /// Whether the other side has closed and sent nothing more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill().await
    }

    /// Whether the other side closes. When it need not, it is only looked whether it has.
    pub(crate) async fn is_closed_soon(&mut self, expected: bool) -> bool {
        if expected {
            self.is_closed().await
        } else {
            self.is_closed().now_or_never().unwrap_or(false)
        }
    }

    /// The next answer, which may be one without a body and its length.
    pub(crate) async fn bodiless_answer(&mut self, bodiless: bool) -> Answer {
        self.answer(bodiless).await.expect("an answer")
    }

    pub(crate) fn into_stream(self) -> S {
        assert!(self.buffer.is_empty());
        self.stream
    }

    async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..))
    }
}

pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks status and code, and the form that every error has.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: &str) -> String {
        assert_eq!(
            (self.status, self.json()["code"].as_str()),
            (status, Some(code)),
            "{:?}",
            self.json()
        );
        let json = self.json();
        let object = json.as_object().unwrap();
        assert!(
            object
                .keys()
                .all(|key| matches!(key.as_str(), "error" | "code" | "request_id" | "statement"))
        );
        let message = json["error"].as_str().unwrap();
        assert!(!message.is_empty() && message.len() < 1000);
        assert_eq!(json["request_id"].as_str(), self.header("x-request-id"));
        assert_eq!(self.header("retry-after").is_some(), matches!(status, 429 | 503));
        assert_eq!(self.header("www-authenticate").is_some(), status == 401);
        message.to_owned()
    }
}
