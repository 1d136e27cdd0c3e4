//! How a client is set up.

use crate::Scope;
use debros_p2p::PeerId;
use debros_proto::{Error, Namespace, Result};
use std::fmt;
use std::time::Duration;

/// Set-up of a [`Client`](crate::Client).
#[derive(Clone)]
pub struct Config {
    /// The application's namespace.
    pub namespace: String,
    /// Multiaddrs of nodes, with `/p2p/<peer id>`. At least one.
    pub bootstrap_peers: Vec<String>,
    /// API key or another credential. Empty: only public calls work.
    pub credential: String,
    /// Credentials, each with the node that it is shown to as soon as that is connected, and used
    /// for nothing else: the node then keeps a place for this client when all are taken, and trusts
    /// a gateway with the operator's credential about its users. No other node sees it.
    pub introductions: Vec<(PeerId, String)>,
    /// How long to wait for the first connection. Default 30 s.
    pub connect_timeout: Duration,
    /// How long a call may take, all attempts together. Default 30 s.
    pub call_timeout: Duration,
    /// How often a call is sent at most, when sending it again can do no harm. Default 3.
    pub retry_attempts: u32,
    /// Pause before the first repetition; it doubles with each further one. Default 100 ms.
    pub retry_delay: Duration,
}

/// Without the credential: configurations end up in logs.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("namespace", &self.namespace)
            .field("bootstrap_peers", &self.bootstrap_peers)
            .field("has_credential", &!self.credential.is_empty())
            .field("introductions", &self.introductions.len())
            .field("connect_timeout", &self.connect_timeout)
            .field("call_timeout", &self.call_timeout)
            .field("retry_attempts", &self.retry_attempts)
            .field("retry_delay", &self.retry_delay)
            .finish()
    }
}

impl Config {
    /// The defaults for an application. Add at least one bootstrap peer.
    pub fn new(app_name: impl Into<String>) -> Self {
        Self {
            namespace: app_name.into(),
            bootstrap_peers: Vec::new(),
            credential: String::new(),
            introductions: Vec::new(),
            connect_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(30),
            retry_attempts: 3,
            retry_delay: Duration::from_millis(100),
        }
    }

    /// Adds a node to dial: a multiaddr with `/p2p/<peer id>`.
    #[must_use]
    pub fn bootstrap_peer(mut self, address: impl Into<String>) -> Self {
        self.bootstrap_peers.push(address.into());
        self
    }

    /// Sets the credential.
    #[must_use]
    pub fn credential(mut self, credential: impl Into<String>) -> Self {
        self.credential = credential.into();
        self
    }

    /// Adds a credential that is shown to a node as soon as it is connected.
    #[must_use]
    pub fn introduction(mut self, node: PeerId, credential: impl Into<String>) -> Self {
        self.introductions.push((node, credential.into()));
        self
    }

    /// Sets how long a call may take, all attempts together.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Sets how long to wait for the first connection.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if !self.namespace.is_empty() {
            Namespace::new(&self.namespace)?;
        }
        if self.bootstrap_peers.is_empty() {
            return Err(Error::invalid(
                "no bootstrap peer: give the address of a node, such as /ip4/127.0.0.1/tcp/4001/p2p/<peer id>",
            ));
        }
        if self.retry_attempts == 0 {
            return Err(Error::invalid("retry_attempts is 0: a call is sent at least once"));
        }
        Ok(())
    }

    pub(crate) fn default_scope(&self) -> Scope {
        Scope {
            credential: self.credential.as_str().into(),
            namespace: self.namespace.clone(),
            timeout: self.call_timeout,
            ..Scope::default()
        }
    }
}
