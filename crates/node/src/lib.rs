//! A full node of DeBros Network, as a library: the programs and the tests start it alike and stop
//! it alike.
//!
//! A node owns an identity, a P2P host, a database engine and the services on them. Every call,
//! from a peer or from the gateway in the same process, passes the dispatcher, which verifies its
//! credential and checks its permission, and then one service. See `DESIGN.md` beside this crate.
//!
//! ```no_run
//! # async fn run() -> Result<(), debros_node::NodeStartError> {
//! let node = debros_node::Node::start(debros_node::NodeConfig::new("./data/node")).await?;
//! println!("{} listens on {:?}", node.peer_id(), node.listen_addresses());
//! node.shutdown(std::time::Instant::now() + std::time::Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```

mod auth;
mod background_tasks;
pub mod caller;
mod clock;
mod cluster;
mod config;
mod dispatcher;
mod health;
mod late_handler;
pub mod operator_key;
mod pubsub;
mod relay_calls;
mod run_record;
mod services;
mod start;

pub use auth::{SigningError, TokenKeyError};
pub use clock::Clock;
pub use cluster::ReplicationStartError;
pub use cluster::{
    CLUSTER_KEY_FILE, ClusterKeyError, ConnectedMembers, JoinToken, JoinTokenError, Member,
    Members, Recovered, RecoveryError, RecoverySurvey, SeenMember, read_seen_members, recover,
    survey_recovery,
};
pub use config::{ClusterConfig, DatabaseConfig, NodeBuildInfo, NodeConfig, NodeKind};
pub use debros_auth::Wallet;
pub use debros_p2p::{Handler, Multiaddr, PeerId};
pub use debros_proto::Namespace;
pub use run_record::{RunPhase, RunState, note_failure};
pub use start::NodeStartError;

use background_tasks::BackgroundTasks;
use cluster::Replication;
use debros_engine::Engine;
use debros_p2p::Host;
use debros_proto::hex;
use dispatcher::{CallDispatcher, RpcHandler};
use run_record::RunRecord;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Kept of the time to stop, for what comes after the last statement: the disk, and the end of the
/// process.
const EXIT_MARGIN: Duration = Duration::from_millis(500);
/// How long the leader may take, when a node stops, to write down what the node has counted.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// A running node.
pub struct Node {
    host: Host,
    dispatcher: Arc<CallDispatcher>,
    engine: Arc<dyn Engine>,
    /// The engine goes with the node.
    owns_engine: bool,
    /// Its part of a cluster's database.
    replication: Option<Arc<Replication>>,
    background_tasks: BackgroundTasks,
    operator_credential: String,
    peer_info: PathBuf,
    /// What it does, for those who find it not answering.
    record: RunRecord,
}

impl Node {
    /// Starts a node. When this returns, it listens, serves, and its `peer.info` is written.
    ///
    /// # Errors
    /// When anything that it needs is not there: nothing is left half-started. The message says
    /// what, where, and what to do.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeStartError> {
        start::start(config, None).await
    }

    /// Starts a node on an engine that is open already and is not closed with the node: several
    /// nodes of one process can share it. `config.database` sets nothing up then but the backups.
    ///
    /// # Errors
    /// As [`start`](Node::start).
    pub async fn start_on(
        config: NodeConfig,
        engine: Arc<dyn Engine>,
    ) -> Result<Self, NodeStartError> {
        start::start(config, Some(engine)).await
    }

    /// What answers calls, for a client in the same process.
    pub fn handler(&self) -> Arc<dyn Handler> {
        Arc::new(RpcHandler(Arc::clone(&self.dispatcher)))
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

    /// Waits until the node has to be started again with the same set-up, and says why: it became
    /// the first of a cluster, or the cluster's key was replaced.
    pub async fn restart_requested(&self) -> &'static str {
        self.dispatcher.services.cluster.restart_requested().await
    }

    /// The connections to the other nodes of the cluster.
    pub fn members(&self) -> &Members {
        &self.dispatcher.services.cluster.members
    }

    /// Deletes what has expired and writes down what was counted, as the node does every minute by
    /// itself. Returns how many rows went.
    ///
    /// # Errors
    /// As a write to the database.
    pub async fn sweep(&self) -> debros_proto::Result<u64> {
        self.dispatcher.sweep().await
    }

    /// Takes a new key for access tokens if the node's own is 30 days old, as the node does every
    /// day by itself.
    ///
    /// # Errors
    /// When the key cannot be made, kept or made known. The old one stays in use.
    pub async fn renew_token_key(&self) -> Result<(), SigningError> {
        self.dispatcher.auth.rotate_signing_key_if_old().await
    }

    /// Stops in order, finishing what was accepted, at the latest at `deadline`.
    ///
    /// 1. `peer.info` goes, so that no program on this machine finds a node that is leaving.
    /// 2. Background work ends, and the connections to the other nodes of a cluster are given up:
    ///    nothing new starts by itself.
    /// 3. Subscriptions end after their queues; they would otherwise hold their streams open
    ///    forever.
    /// 4. The host takes no more calls, lets the running ones answer, and closes its connections.
    /// 5. Callers in this process are refused; by now their gateway has finished.
    /// 6. The database finishes its queue and closes: last, because everything above may still
    ///    write.
    pub async fn shutdown(self, deadline: Instant) {
        if let Err(error) = std::fs::remove_file(&self.peer_info)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.peer_info.display(), "peer.info cannot be removed");
        }
        self.background_tasks.stop().await;
        if self.replication.is_some() {
            // While there is a way to the leader.
            let flush = self.dispatcher.auth.flush_counts();
            let _ = tokio::time::timeout(FLUSH_TIME, flush).await;
        }
        self.dispatcher.services.cluster.stop().await;
        self.dispatcher.services.hub.close_all();
        // A part of the time is kept for the database.
        let margin = deadline
            .saturating_duration_since(Instant::now())
            .mul_f64(0.3)
            .min(Duration::from_secs(3));
        self.host.shutdown(deadline - margin).await;
        self.dispatcher.refuse_calls();
        if let Some(replication) = &self.replication {
            replication.database.step_down();
        } else if let Err(error) = self.dispatcher.auth.flush_counts().await {
            tracing::warn!(%error, "when credentials were used last could not be written down");
        }
        if self.owns_engine {
            // What follows takes a moment too.
            self.engine.close_by(deadline.checked_sub(EXIT_MARGIN).unwrap_or(deadline)).await;
        }
        if let Some(replication) = &self.replication {
            replication.stop().await;
        }
        self.record.note(RunPhase::Stopped);
        tracing::info!("the node has stopped");
    }
}
