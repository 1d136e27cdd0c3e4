//! Calls of the own `rqlited` over HTTP, and what each failure means for the caller.
//!
//! rqlite answers most failures with 200, and a call without an answer may have been applied all the
//! same. So each failure is one of three: the call surely changed nothing, it may have, or SQLite
//! refused it. Whoever repeats a call needs to know which.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::Value;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long to wait for a connection on this machine. It is there at once, or nobody listens.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For what `rqlited` knows without asking anybody for long.
const MEMORY_TIMEOUT: Duration = Duration::from_millis(500);
/// For calls that need no other node.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(2);
/// For calls that a leader has to agree to.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(10);
/// How much earlier than we rqlited gives up on the leader, so that its reason reaches us.
const ANSWER_TIME: Duration = Duration::from_millis(100);

/// Why a call has no result, and whether it may have had an effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The call surely changed nothing: it can be repeated, or given up.
    #[error("rqlite did not take the call: {0}")]
    NotSent(String),
    /// The call may have been applied, or may still be.
    #[error("the outcome of the call of rqlite is unknown: {0}")]
    Unknown(String),
    /// SQLite refused a statement; nothing of the call was applied.
    #[error("rqlite refused the statement: {0}")]
    Sql(String),
}

/// How recent a read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadLevel {
    /// Whatever this node holds.
    None,
    /// What a node holds that takes itself for the leader. Not a barrier: after a start or a change
    /// of leaders it may hold less than was acknowledged.
    Weak,
    /// After everything that was acknowledged before: an entry of Raft's log.
    Strong,
}

impl ReadLevel {
    fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Weak => "weak",
            Self::Strong => "strong",
        }
    }
}

/// A statement with its positional parameters (`?1` is the first).
#[derive(Clone, Debug, PartialEq)]
pub struct Statement(Vec<Value>);

impl Statement {
    /// A statement without parameters.
    pub fn new(sql: impl Into<String>) -> Self {
        Self(vec![Value::String(sql.into())])
    }

    /// Adds the next parameter: a number, a text or null. Bytes go as text; rqlite changes texts
    /// of the form `x'…'`.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.0.push(value.into());
        self
    }
}

/// What one statement gave.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct StatementResult {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows; empty also when there are none.
    pub values: Vec<Vec<Value>>,
    /// Rows that an INSERT, UPDATE or DELETE without RETURNING changed.
    pub rows_affected: u64,
    /// The rowid of the last row that an INSERT without RETURNING made.
    pub last_insert_id: i64,
    error: Option<String>,
}

/// The leader, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its node id.
    pub node_id: String,
    /// Its Raft address.
    pub raft_addr: String,
}

/// A node of rqlite's cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RaftNode {
    /// Its node id.
    pub id: String,
    /// Its Raft address.
    #[serde(rename = "addr")]
    pub raft_addr: String,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it answered just now.
    #[serde(default)]
    pub reachable: bool,
    /// Whether it is the leader.
    #[serde(default)]
    pub leader: bool,
}

/// A client of one `rqlited`; cheap to clone, its connections are shared.
#[derive(Clone)]
pub struct RqliteClient {
    http: Client<HttpConnector, Full<Bytes>>,
    /// Changes when the child is restarted with another port.
    address: Arc<Mutex<SocketAddr>>,
    authorization: HeaderValue,
}

impl fmt::Debug for RqliteClient {
    // Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RqliteClient").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl RqliteClient {
    /// A client of the `rqlited` that serves HTTP at `address`.
    pub fn new(address: SocketAddr, user: &str, password: &str) -> Self {
        use base64::Engine as _;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let credentials =
            base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        // Base64 is always a valid header; an empty one would be refused by rqlited, not by us.
        let mut authorization = HeaderValue::from_str(&format!("Basic {credentials}"))
            .unwrap_or(HeaderValue::from_static(""));
        authorization.set_sensitive(true);
        Self {
            http: Client::builder(TokioExecutor::new()).build(connector),
            address: Arc::new(Mutex::new(address)),
            authorization,
        }
    }

    /// The same credentials and connections, but sent to another address: for tests that put a
    /// proxy between.
    #[must_use]
    pub fn through(&self, address: SocketAddr) -> Self {
        Self { address: Arc::new(Mutex::new(address)), ..self.clone() }
    }

    /// Where `rqlited` serves HTTP.
    pub fn address(&self) -> SocketAddr {
        *debros_proto::lock(&self.address)
    }

    pub(crate) fn set_address(&self, address: SocketAddr) {
        *debros_proto::lock(&self.address) = address;
    }

    /// Runs statements that write, all or none of them. Sent on to the leader if that is another
    /// node.
    ///
    /// # Errors
    /// [`ClientError::Sql`] when SQLite refused one; the others for calls without a result.
    pub async fn execute(
        &self,
        statements: &[Statement],
        timeout: Duration,
    ) -> Result<Vec<StatementResult>, ClientError> {
        // One statement is atomic by itself.
        let transaction = if statements.len() > 1 { "&transaction" } else { "" };
        let path = format!("/db/execute?timeout={}{transaction}", forwarding_timeout(timeout));
        let statements: Vec<_> = statements.iter().map(|statement| &statement.0).collect();
        self.run(&path, &statements, statements.len(), timeout).await
    }

    /// Runs one statement that reads.
    ///
    /// # Errors
    /// [`ClientError::Sql`] when SQLite refused it; the others when nobody could answer.
    pub async fn query(
        &self,
        statement: &Statement,
        level: ReadLevel,
        timeout: Duration,
    ) -> Result<StatementResult, ClientError> {
        let path =
            format!("/db/query?level={}&timeout={}", level.as_str(), forwarding_timeout(timeout));
        let mut results = self.run(&path, &[&statement.0], 1, timeout).await?;
        results.pop().ok_or_else(|| ClientError::Unknown("no result".to_owned()))
    }

    /// Whether the own `rqlited` is the leader, as it knows it. Takes less than half a millisecond:
    /// no other question about leadership is as cheap.
    ///
    /// # Errors
    /// When it does not answer within half a second, as when it is about to pass on a call to a
    /// leader that hangs: then it is not the leader.
    pub async fn is_leader(&self) -> Result<bool, ClientError> {
        let path = "/db/query?level=weak&redirect&q=SELECT%201";
        let (status, _, body) = self.send(Method::GET, path, Bytes::new(), MEMORY_TIMEOUT).await?;
        match status {
            StatusCode::OK => Ok(parse(&body).and_then(|answer| checked(answer, 1)).is_ok()),
            StatusCode::MOVED_PERMANENTLY | StatusCode::SERVICE_UNAVAILABLE => Ok(false),
            status => Err(failure(status, &body)),
        }
    }

    /// The leader, as the own `rqlited` knows it; `None` while there is none. Takes a few
    /// milliseconds.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn leader(&self) -> Result<Option<Leader>, ClientError> {
        #[derive(Deserialize)]
        struct Status {
            addr: String,
            node_id: String,
        }
        let path = "/status?key=store.leader";
        let (status, _, body) = self.send(Method::GET, path, Bytes::new(), LOCAL_TIMEOUT).await?;
        if status != StatusCode::OK {
            return Err(failure(status, &body));
        }
        let known: Status = serde_json::from_slice(&body)
            .map_err(|error| ClientError::Unknown(format!("{path}: {error}")))?;
        let named = !known.node_id.is_empty() && !known.addr.is_empty();
        Ok(named.then_some(Leader { node_id: known.node_id, raft_addr: known.addr }))
    }

    /// The nodes of rqlite's cluster. Asks each of them whether it answers, so this takes as long
    /// as the slowest, a second at most.
    ///
    /// # Errors
    /// When the own `rqlited` does not answer.
    pub async fn nodes(&self) -> Result<Vec<RaftNode>, ClientError> {
        #[derive(Deserialize)]
        struct Nodes {
            nodes: Vec<RaftNode>,
        }
        let path = "/nodes?ver=2&nonvoters&timeout=1s";
        let (status, _, body) = self.send(Method::GET, path, Bytes::new(), CLUSTER_TIMEOUT).await?;
        if status != StatusCode::OK {
            return Err(failure(status, &body));
        }
        let answer: Nodes = serde_json::from_slice(&body)
            .map_err(|error| ClientError::Unknown(format!("{path}: {error}")))?;
        Ok(answer.nodes)
    }

    /// Takes a node out of rqlite's cluster; one that is not in it is no failure. Its `rqlited` has
    /// to be stopped, or it comes back at its next start.
    ///
    /// # Errors
    /// When the leader did not confirm it.
    pub async fn remove(&self, node_id: &str) -> Result<(), ClientError> {
        let body = serde_json::json!({ "id": node_id }).to_string();
        let path = format!("/remove?timeout={}", forwarding_timeout(CLUSTER_TIMEOUT));
        let (status, _, body) =
            self.send(Method::DELETE, &path, body.into(), CLUSTER_TIMEOUT).await?;
        if status == StatusCode::OK { Ok(()) } else { Err(failure(status, &body)) }
    }

    /// Has the own `rqlited` take a snapshot, after which it can drop what came before.
    ///
    /// # Errors
    /// When there is nothing to take one of, a reader is in the way, or there is no answer.
    pub async fn snapshot(&self) -> Result<(), ClientError> {
        let (status, _, body) =
            self.send(Method::POST, "/snapshot", Bytes::new(), CLUSTER_TIMEOUT).await?;
        if status == StatusCode::OK { Ok(()) } else { Err(failure(status, &body)) }
    }

    /// Whether the own `rqlited` says that it is ready. It says so before it has caught up.
    pub(crate) async fn says_ready(&self) -> bool {
        let answer = self.send(Method::GET, "/readyz", Bytes::new(), LOCAL_TIMEOUT).await;
        matches!(answer, Ok((StatusCode::OK, _, _)))
    }

    /// Sends a body of JSON and reads the results of `count` statements.
    pub(crate) async fn run(
        &self,
        path: &str,
        statements: &impl serde::Serialize,
        count: usize,
        timeout: Duration,
    ) -> Result<Vec<StatementResult>, ClientError> {
        let body = serde_json::to_vec(statements)
            .map_err(|error| ClientError::NotSent(error.to_string()))?;
        let (status, _, body) = self.send(Method::POST, path, body.into(), timeout).await?;
        if status != StatusCode::OK {
            return Err(failure(status, &body));
        }
        checked(parse(&body)?, count)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(StatusCode, HeaderMap, Bytes), ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address()))
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::new(body))
            .map_err(|error| ClientError::NotSent(error.to_string()))?;
        let answered = async {
            let response = self.http.request(request).await.map_err(|error| {
                let reason = with_causes(&error);
                if error.is_connect() {
                    ClientError::NotSent(reason)
                } else {
                    ClientError::Unknown(reason)
                }
            })?;
            let (head, body) = response.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|error| ClientError::Unknown(with_causes(&error)))?
                .to_bytes();
            Ok((head.status, head.headers, body))
        };
        match tokio::time::timeout(timeout, answered).await {
            Ok(answered) => answered,
            Err(_) => Err(ClientError::Unknown(format!("no answer within {timeout:?}"))),
        }
    }
}

/// How long rqlited may wait for the leader, in Go's spelling.
pub(crate) fn forwarding_timeout(timeout: Duration) -> String {
    let earlier = ANSWER_TIME.min(timeout / 4);
    format!("{}ms", timeout.saturating_sub(earlier).as_millis().max(1))
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<StatementResult>,
    error: Option<String>,
}

fn parse(body: &[u8]) -> Result<Answer, ClientError> {
    serde_json::from_slice(body)
        .map_err(|error| ClientError::Unknown(format!("an answer that is none: {error}")))
}

/// A call was successful when nothing of its answer says otherwise: the status is 200 in any case.
fn checked(answer: Answer, count: usize) -> Result<Vec<StatementResult>, ClientError> {
    if let Some(error) = answer.error {
        return Err(if says_not_sent(&error) {
            ClientError::NotSent(error)
        } else {
            ClientError::Unknown(error)
        });
    }
    if let Some(error) = answer.results.iter().find_map(|result| result.error.clone()) {
        return Err(if is_of_one_node(&error) {
            ClientError::Unknown(error)
        } else {
            ClientError::Sql(error)
        });
    }
    if answer.results.len() != count {
        let got = answer.results.len();
        return Err(ClientError::Unknown(format!("{got} results for {count} statements")));
    }
    Ok(answer.results)
}

/// What a status other than 200 says.
fn failure(status: StatusCode, body: &[u8]) -> ClientError {
    let text = String::from_utf8_lossy(body);
    let reason = format!("{status} {}", text.trim());
    let refused = matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::UNAUTHORIZED
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
    );
    if refused || says_not_sent(&text) {
        ClientError::NotSent(reason)
    } else {
        ClientError::Unknown(reason)
    }
}

/// Failures from before a call was given to Raft. `leadership lost while committing log` is not one
/// of them: what is in the log may be committed by the next leader.
fn says_not_sent(error: &str) -> bool {
    ["leader not found", "store not open", "not leader", "pool get: dial", "unauthorized"]
        .iter()
        .any(|text| error.contains(text))
}

/// Errors of SQLite that say something about the machine that answers, not about the statement:
/// other nodes may have applied it.
fn is_of_one_node(error: &str) -> bool {
    [
        "disk I/O error",
        "database or disk is full",
        "database is locked",
        "database is closed",
        "out of memory",
        "readonly database",
        "unable to open database",
        "interrupted",
    ]
    .iter()
    .any(|text| error.contains(text))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{ClientError, checked, failure, forwarding_timeout, parse};
    use http::StatusCode;
    use std::time::Duration;

    fn outcome(body: &str, count: usize) -> Result<usize, ClientError> {
        checked(parse(body.as_bytes())?, count).map(|results| results.len())
    }

    #[test]
    fn an_answer_with_200_is_a_success_only_when_nothing_in_it_says_otherwise() {
        assert_eq!(outcome(r#"{"results":[{}]}"#, 1), Ok(1));
        assert!(matches!(outcome(r#"{"results":[]}"#, 1), Err(ClientError::Unknown(_))));
        assert!(matches!(outcome("", 1), Err(ClientError::Unknown(_))));
        let refused = outcome(r#"{"results":[{},{"error":"no such table: t"}]}"#, 2);
        assert_eq!(refused, Err(ClientError::Sql("no such table: t".to_owned())));
        let full = outcome(r#"{"results":[{"error":"database or disk is full"}]}"#, 1);
        assert!(matches!(full, Err(ClientError::Unknown(_))), "other nodes have room");
    }

    #[test]
    fn what_never_reached_raft_was_not_sent_and_all_else_is_unknown() {
        for error in [
            "leader not found",
            "store not open",
            "not leader",
            "pool get: dial tcp 127.0.0.1:7001: connect: connection refused",
        ] {
            let body = format!(r#"{{"results":[],"error":"{error}"}}"#);
            assert!(matches!(outcome(&body, 1), Err(ClientError::NotSent(_))), "{error}");
        }
        for error in ["leadership lost while committing log", "read protobuf length: EOF"] {
            let body = format!(r#"{{"results":[],"error":"{error}"}}"#);
            assert!(matches!(outcome(&body, 1), Err(ClientError::Unknown(_))), "{error}");
        }
        let no_leader = failure(StatusCode::SERVICE_UNAVAILABLE, b"leader not found\n");
        assert!(matches!(no_leader, ClientError::NotSent(_)));
        let other = failure(StatusCode::SERVICE_UNAVAILABLE, b"");
        assert!(matches!(other, ClientError::Unknown(_)));
    }

    #[test]
    fn rqlited_gives_up_on_the_leader_before_we_give_up_on_rqlited() {
        assert_eq!(forwarding_timeout(Duration::from_secs(2)), "1900ms");
        assert_eq!(forwarding_timeout(Duration::from_millis(40)), "30ms");
        assert_eq!(forwarding_timeout(Duration::ZERO), "1ms");
    }
}
