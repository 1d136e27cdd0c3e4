//! A full node of DeBros Network, as a library: the programs and the tests start it alike and stop it alike.
//!
//! A node owns an identity, a P2P host, a database engine and the services on them. Every call, from a peer or from the
//! gateway in the same process, passes one door (`dispatch`), where its credential is verified and its rights are
//! checked, and then one service. See `DESIGN.md` beside this crate.
//!
//! ```no_run
//! # async fn run() -> Result<(), debros_node::StartError> {
//! let node = debros_node::Node::start(debros_node::NodeConfig::new("./data/node")).await?;
//! println!("{} listens on {:?}", node.peer_id(), node.listen_addresses());
//! node.shutdown(std::time::Instant::now() + std::time::Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```

pub mod caller;
mod calls;
mod config;
mod credentials;
mod dispatch;
mod health;
pub mod operator_key;
mod pubsub;
mod services;
mod start;
mod workers;

pub use config::{BuildInfo, DatabaseConfig, NodeConfig, NodeKind};
pub use debros_p2p::{Handler, Multiaddr, PeerId};
pub use start::StartError;

use debros_engine::Engine;
use debros_p2p::Host;
use debros_proto::hex;
use dispatch::{Dispatcher, Door};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use workers::Workers;

/// A running node.
pub struct Node {
    host: Host,
    dispatcher: Arc<Dispatcher>,
    engine: Arc<dyn Engine>,
    workers: Workers,
    operator_credential: String,
    peer_info: PathBuf,
}

impl Node {
    /// Starts a node. When this returns, it listens, serves, and its `peer.info` is written.
    ///
    /// # Errors
    /// When anything that it needs is not there: nothing is left half-started. The message says what, where, and what
    /// to do.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        start::start(config).await
    }

    /// What answers calls, for a client in the same process.
    pub fn handler(&self) -> Arc<dyn Handler> {
        Arc::new(Door(Arc::clone(&self.dispatcher)))
    }

    /// The node's identity.
    pub fn peer_id(&self) -> PeerId {
        self.host.peer_id()
    }

    /// Where the node listens, with `/p2p/<peer id>`.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.host.listen_addresses()
    }

    /// The credential that may act in every namespace and run the node. A secret.
    pub fn operator_credential(&self) -> &str {
        &self.operator_credential
    }

    /// Stops in order, finishing what was accepted, at the latest at `deadline`.
    ///
    /// 1. `peer.info` goes, so that no program on this machine finds a node that is leaving.
    /// 2. Background work ends: nothing new starts by itself.
    /// 3. Subscriptions end after their queues; they would otherwise hold their streams open for ever.
    /// 4. The host takes no more calls, lets the running ones answer, and closes its connections.
    /// 5. Callers in this process are refused; by now their gateway has finished.
    /// 6. The database finishes its queue and closes: last, because everything above may still write.
    pub async fn shutdown(self, deadline: Instant) {
        if let Err(error) = std::fs::remove_file(&self.peer_info)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.peer_info.display(), "peer.info can not be removed");
        }
        self.workers.stop().await;
        self.dispatcher.services.hub.close();
        // A part of the time is kept for the database.
        let margin = deadline.saturating_duration_since(Instant::now()).mul_f64(0.3).min(Duration::from_secs(3));
        self.host.shutdown(deadline - margin).await;
        self.dispatcher.stop();
        if let Err(error) = self.dispatcher.credentials.flush().await {
            tracing::warn!(%error, "when the API keys were used last could not be written down");
        }
        self.engine.close().await;
        tracing::info!("the node has stopped");
    }
}
