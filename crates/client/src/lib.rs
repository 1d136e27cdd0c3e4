//! The client of DeBros Network: everything that a node offers, from any Rust program.
//!
//! A client is a light peer. It dials the bootstrap peers it is given, runs no service and keeps no
//! data. Its calls travel over libp2p to a node, with the credential beside it; the node decides
//! what the credential allows.
//!
//! ```no_run
//! use debros_client::{Client, Config};
//!
//! # async fn run() -> debros_client::Result<()> {
//! let client = Client::connect(
//!     Config::new("my-app")
//!         .bootstrap_peer("/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp")
//!         .credential("ak_…:my-app"),
//! )
//! .await?;
//!
//! client.storage().put("greeting", "hello").await?;
//! let entry = client.storage().get("greeting").await?;
//! assert_eq!(entry.map(|entry| entry.value), Some("hello".into()));
//!
//! client.database().create_table("CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, name TEXT)").await?;
//! client.database().query("INSERT INTO users (name) VALUES (?)", ["Ada".into()]).await?;
//! let users = client.database().query("SELECT id, name FROM users", []).await?;
//! assert_eq!(users.rows[0].values[1].as_text(), Some("Ada"));
//!
//! let mut news = client.pubsub().subscribe("news").await?;
//! client.pubsub().publish("news", "it works").await?;
//! if let Some(event) = news.next().await {
//!     println!("{:?}", event?);
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What a client does by itself
//!
//! - It keeps a connection to every bootstrap peer, uses the first that answers and changes to
//!   another when it is lost, dialling the lost one again with growing pauses. With none connected,
//!   a call waits up to 2.5 s, and lost nodes are dialled at once.
//! - It sends a call again when that can do no harm: the call did not reach a node, the node did
//!   nothing, or the write carries an idempotency key. A write whose answer was lost otherwise is
//!   [`Code::UnknownOutcome`], never "failed".
//! - It subscribes again after a reconnect, and says with [`PubsubEvent::Reconnected`] that
//!   messages may be missing.

mod apps;
mod auth;
mod client_connections;
mod cluster;
mod config;
mod connection_keeper;
mod database;
mod members;
mod namespaces;
mod network;
mod operator;
mod pubsub;
mod storage;

pub use apps::Apps;
pub use auth::{Auth, NewKey};
pub use cluster::Cluster;
pub use config::Config;
pub use database::Database;
pub use debros_p2p::{Channel, Handler, Multiaddr, PeerId};
pub use debros_proto::{Code, Error, Key, Namespace, Result, Topic, rpc};
pub use members::Members;
pub use namespaces::{NamespacePage, Namespaces};
pub use network::Network;
pub use operator::{Operator, Transfer};
pub use pubsub::{Pubsub, PubsubEvent, Subscription};
pub use storage::{PutOptions, Storage};

use client_connections::ClientConnections;
use debros_proto::rpc::request::Call;
use debros_proto::rpc::response;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A connection to the network, for one caller. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub struct Client {
    connections: Arc<ClientConnections>,
    scope: Scope,
}

/// The caller's credential and settings. The client sends them with every call; the node checks
/// them.
#[derive(Clone, Default)]
pub struct Scope {
    /// Proof of who calls: an API key or another credential. Empty for public calls.
    pub credential: Arc<str>,
    /// The namespace that the caller means to be in. Empty: the credential's own.
    pub namespace: String,
    /// How long a call may take, all attempts together.
    pub timeout: Duration,
    /// Makes a write happen once, however often it is sent, for 24 hours.
    pub idempotency_key: String,
    /// Set by a call whose answer was kept under the idempotency key: the write happened before.
    /// That may be an attempt of the same call, when its answer was lost on the way.
    pub replayed: Option<Arc<AtomicBool>>,
    /// For logs.
    pub request_id: String,
    /// The credential is lent to the caller, which may then do what a writer of the namespace may,
    /// and nothing that only operators may.
    pub lent: bool,
    /// The address of the user for whom a gateway makes a call that needs no credential.
    pub caller_address: Option<IpAddr>,
}

/// Without the credential: what calls through a client ends up in logs.
impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("has_credential", &!self.credential.is_empty())
            .field("namespace", &self.namespace)
            .field("timeout", &self.timeout)
            .field("idempotency_key", &self.idempotency_key)
            .field("request_id", &self.request_id)
            .field("lent", &self.lent)
            .field("caller_address", &self.caller_address)
            .finish()
    }
}

impl Client {
    /// Dials the bootstrap peers and returns when the first one is there; the others follow in the
    /// background.
    ///
    /// # Errors
    /// `invalid_argument` for a configuration that cannot work, `unavailable` when no peer answered
    /// within the connect timeout, with each peer's address and reason as [`Error::detail`].
    pub async fn connect(config: Config) -> Result<Self> {
        let scope = config.default_scope();
        let connections = ClientConnections::dial(&config).await?;
        Ok(Self { connections: Arc::new(connections), scope })
    }

    /// Starts dialling the bootstrap peers and returns at once; calls wait for a connection up to
    /// 2.5 s, or less when their time ends before. For programs that may start before the nodes do.
    ///
    /// # Errors
    /// `invalid_argument` for a configuration that cannot work.
    pub async fn connect_in_background(config: Config) -> Result<Self> {
        let scope = config.default_scope();
        let connections = ClientConnections::start(&config).await?;
        Ok(Self { connections: Arc::new(connections), scope })
    }

    /// A client inside the node's own process: the same calls, without a network between.
    pub fn local(handler: Arc<dyn Handler>, config: &Config) -> Self {
        let connections = ClientConnections::local(Channel::local(handler));
        Self { connections: Arc::new(connections), scope: config.default_scope() }
    }

    /// The same connections for another caller: a gateway makes one for each request.
    #[must_use]
    pub fn scoped(&self, scope: Scope) -> Self {
        Self { connections: Arc::clone(&self.connections), scope }
    }

    /// The same caller with an idempotency key on the writes made through what is returned.
    #[must_use]
    pub fn once(&self, idempotency_key: impl Into<String>) -> Self {
        let mut scope = self.scope.clone();
        scope.idempotency_key = idempotency_key.into();
        self.scoped(scope)
    }

    /// The same connections and settings with another credential, in the credential's own
    /// namespace.
    #[must_use]
    pub fn with_credential(&self, credential: impl Into<Arc<str>>) -> Self {
        let mut scope = self.scope.clone();
        scope.credential = credential.into();
        scope.namespace = String::new();
        self.scoped(scope)
    }

    /// The caller of this client.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// SQL in the caller's namespace.
    pub fn database(&self) -> Database<'_> {
        Database { client: self }
    }

    /// Key-value pairs in the caller's namespace.
    pub fn storage(&self) -> Storage<'_> {
        Storage { client: self }
    }

    /// Topics in the caller's namespace.
    pub fn pubsub(&self) -> Pubsub<'_> {
        Pubsub { client: self }
    }

    /// The node, its peers and the caller's own credential.
    pub fn network(&self) -> Network<'_> {
        Network { client: self }
    }

    /// Applications registered in the caller's namespace.
    pub fn apps(&self) -> Apps<'_> {
        Apps { client: self }
    }

    /// Sign-in by wallet, sessions, API keys.
    pub fn auth(&self) -> Auth<'_> {
        Auth { client: self }
    }

    /// The members of the caller's namespace.
    pub fn members(&self) -> Members<'_> {
        Members { client: self }
    }

    /// The namespaces that the caller may see, what they hold, and the end of one.
    pub fn namespaces(&self) -> Namespaces<'_> {
        Namespaces { client: self }
    }

    /// The cluster of the node, for operators.
    pub fn cluster(&self) -> Cluster<'_> {
        Cluster { client: self }
    }

    /// What only operators may do: API keys for any namespace, backups, dialling peers, signing
    /// keys.
    pub fn operator(&self) -> Operator<'_> {
        Operator { client: self }
    }

    /// The node's health: a real write, read and publish, not older than a few seconds.
    ///
    /// # Errors
    /// `unavailable` when no node can be reached.
    pub async fn health(&self) -> Result<rpc::HealthResponse> {
        match self.call(Call::Health(rpc::HealthRequest {})).await? {
            response::Result::Health(health) => Ok(health),
            other => Err(unexpected(&other)),
        }
    }

    /// This client's own peer id; `None` inside a node.
    pub fn peer_id(&self) -> Option<PeerId> {
        self.connections.peer_id()
    }

    /// The node that calls go to now; `None` when there is no connection, and inside a node.
    pub fn node(&self) -> Option<PeerId> {
        self.connections.node()
    }

    /// Whether calls can be sent now.
    pub fn is_connected(&self) -> bool {
        self.connections.is_connected()
    }

    /// Has nodes dialled now that were lost, each at most once a second, as a waiting call does;
    /// returns at once. Does nothing while a node is connected.
    pub fn dial_lost_nodes(&self) {
        self.connections.dial_lost_nodes();
    }

    /// Closes the connections, for all clones. Calls that are under way get up to 5 seconds to
    /// finish.
    pub async fn close(&self) {
        self.connections.close().await;
    }

    pub(crate) async fn call(&self, call: Call) -> Result<response::Result> {
        let response = self.connections.call(self.request(call), self.deadline()).await?;
        if response.replayed
            && let Some(replayed) = &self.scope.replayed
        {
            replayed.store(true, Relaxed);
        }
        response.result.ok_or_else(|| Error::internal("the node answered without a result"))
    }

    pub(crate) fn request(&self, call: Call) -> rpc::Request {
        rpc::Request {
            credential: self.scope.credential.as_ref().to_owned(),
            namespace: self.scope.namespace.clone(),
            timeout_ms: 0,
            idempotency_key: self.scope.idempotency_key.clone(),
            request_id: self.scope.request_id.clone(),
            credit: 0,
            lent: self.scope.lent,
            caller_address: self
                .scope
                .caller_address
                .map(|address| address.to_string())
                .unwrap_or_default(),
            relayed: None,
            call: Some(call),
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.scope.timeout
    }
}

/// The node has another version, or a defect: its answer does not belong to the call.
pub(crate) fn unexpected(result: &response::Result) -> Error {
    tracing::error!(result = ?std::mem::discriminant(result), "the node's answer does not belong to the call");
    Error::internal(
        "the node's answer does not belong to the call: do client and node have the same version?",
    )
}

/// Unwraps the one answer that belongs to a call.
macro_rules! expect_answer {
    ($answer:expr, $variant:ident) => {
        match $answer {
            debros_proto::rpc::response::Result::$variant(value) => Ok(value),
            other => Err($crate::unexpected(&other)),
        }
    };
}
pub(crate) use expect_answer;
