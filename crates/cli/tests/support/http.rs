//! The gateway's HTTP API, as a test asks it.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The status of a GET without credentials; `None` when nobody answers.
pub fn status_of(address: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(super::PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
    let mut start = [0; 12];
    stream.read_exact(&mut start).ok()?;
    std::str::from_utf8(&start[9..]).ok()?.parse().ok()
}

/// A caller of one gateway with one credential. Clones share connections.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    base: String,
    key: String,
}

impl Http {
    pub fn new(address: SocketAddr, key: &str) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(super::PATIENCE)
            .tcp_nodelay(true)
            .build()
            .expect("a client");
        Self { client, base: format!("http://{address}"), key: key.to_owned() }
    }

    /// The same gateway with another credential.
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// A request that is still to be sent.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key)
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path).send().await.expect("an answer")).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body).send().await.expect("an answer"))
            .await
    }

    /// A POST without a credential.
    pub async fn public(&self, path: &str, body: &Value) -> Answer {
        let request = self.client.post(format!("{}{path}", self.base)).json(body);
        Answer::of(request.send().await.expect("an answer")).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path).send().await.expect("an answer")).await
    }

    pub async fn put_value(&self, key: &str, value: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::PUT, "/v1/storage").query(&[("key", key)]).body(value);
        Answer::of(request.send().await.expect("an answer")).await
    }

    pub async fn get_value(&self, key: &str) -> Answer {
        let request = self.request(Method::GET, "/v1/storage").query(&[("key", key)]);
        Answer::of(request.send().await.expect("an answer")).await
    }

    pub async fn query(&self, sql: &str, args: Value) -> Answer {
        self.post("/v1/db/query", &json!({ "sql": sql, "args": args })).await
    }

    /// A query that must succeed: its rows.
    pub async fn rows(&self, sql: &str, args: Value) -> Vec<Value> {
        let answer = self.query(sql, args).await.ok();
        answer.json()["rows"].as_array().expect("rows").clone()
    }

    /// A query that must give one row with one integer.
    pub async fn integer(&self, sql: &str) -> i64 {
        self.rows(sql, json!([])).await[0][0].as_i64().expect("an integer")
    }

    pub async fn transaction(&self, statements: &Value) -> Answer {
        self.post("/v1/db/transaction", &json!({ "statements": statements })).await
    }

    pub async fn create(&self, schema: &str) {
        self.post("/v1/db/create-table", &json!({ "schema": schema })).await.ok();
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub async fn of(response: Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        Self { status, headers, body: response.bytes().await.expect("a whole body").to_vec() }
    }

    /// Asserts that it is a success.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text());
        self
    }

    /// Asserts a failure with this status and code.
    #[track_caller]
    pub fn fails(self, status: u16, code: &str) -> Self {
        assert_eq!(
            (self.status, self.json()["code"].as_str()),
            (status, Some(code)),
            "{}",
            self.text()
        );
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(2000)]).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}
