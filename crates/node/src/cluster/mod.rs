//! The cluster: which nodes are in it, how they prove that to each other, and the connections among
//! them.
//!
//! A node of the cluster holds its key and is in the register. It keeps one connection to each
//! other node, on which both prove the key ([`members`]); a peer that did is allowed the calls that
//! only nodes make. How a node gets in and out: [`join`], [`operator_calls`].

mod cluster_key;
mod cluster_state;
mod control;
mod diagnosis;
mod exchange;
mod file_transfer;
mod healing;
mod join;
mod join_token;
mod keyring;
mod lag_watch;
mod member_keeper;
mod members;
mod members_link;
mod node_record;
mod operator_calls;
mod proof_server;
mod prove;
mod raft_membership;
mod recovery;
mod register;
mod relay;
mod replication;
mod reseed_record;
mod role_changes;
mod role_keeper;
mod seen_members;

pub use join_token::{JoinToken, JoinTokenError};
pub use keyring::{CLUSTER_KEY_FILE, ClusterKeyError};
pub use members::{ConnectedMembers, Member, Members};
pub use recovery::{Recovered, RecoveryError, RecoverySurvey, recover, survey_recovery};
pub use replication::ReplicationStartError;
pub use seen_members::{SeenMember, read_seen_members};

pub(crate) use keyring::Keyring;
pub(crate) use members_link::MembersLink;
pub(crate) use node_record::{NodeRecord, NodeRole};
pub(crate) use relay::Relay;
pub(crate) use replication::{Replication, start_rqlited};
pub(crate) use reseed_record::{PendingCopy, ReseedRecord, record_error};

use crate::clock::Clock;
use crate::config::{ClusterConfig, NodeConfig};
use cluster_key::ClusterKey;
use cluster_state::{ClusterState, OwnNode, name_taken_error};
use control::{ClusterControl, DataAlone};
use debros_cluster::LocalState;
use debros_engine::Engine;
use debros_p2p::{CallContext, EventSource, Host, PeerId, TrustLevel};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, response};
use debros_proto::{Code, Error, Result};
use file_transfer::fetch_files;
use futures::future::join_all;
use lag_watch::{LOOK_INTERVAL, LagWatch};
use proof_server::{ProofServer, removed_error};
use register::{NodeRegister, RoleCounts};
use role_keeper::RoleKeeper;
use seen_members::WRITE_INTERVAL;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often the register is read again: other nodes may have changed it.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
/// How long a new node waits for a node that sends the data, and the pause between two attempts.
const FETCH_TIME: Duration = Duration::from_secs(120);
const FETCH_PAUSE: Duration = Duration::from_millis(500);

/// The cluster, as the node has it.
pub(crate) struct ClusterService {
    state: Arc<ClusterState>,
    pub(crate) members: Arc<Members>,
    proofs: ProofServer,
    control: Arc<dyn ClusterControl>,
    engine: Arc<dyn Engine>,
    data_dir: PathBuf,
    lag_watch: LagWatch,
    replication: Option<Arc<Replication>>,
    replace_after: Duration,
    /// The node holds none of the data: its register is a copy that others tell it.
    is_relay: bool,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What a call of another node is answered with.
pub(crate) enum NodeReply {
    Plain(Box<response::Result>),
    Stream(EventSource),
}

/// What the service is set up with beside its configuration.
pub(crate) struct ClusterSetup {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) clock: Clock,
    pub(crate) peer_id: PeerId,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) key_path: PathBuf,
    /// The node's part of the cluster's database; `None`: the node keeps its data alone.
    pub(crate) replication: Option<Arc<Replication>>,
    /// The folder of everything the node keeps.
    pub(crate) data_dir: PathBuf,
    /// The node holds none of the cluster's data.
    pub(crate) is_relay: bool,
    /// The folder of the database.
    pub(crate) database_dir: PathBuf,
}

impl ClusterService {
    /// Reads the key, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or others may read it.
    pub(crate) fn load(
        setup: ClusterSetup,
        config: &ClusterConfig,
    ) -> Result<Self, ClusterKeyError> {
        let counts = RoleCounts::of(config);
        let ClusterSetup {
            engine,
            clock,
            peer_id,
            name,
            version,
            key_path,
            replication,
            data_dir,
            is_relay,
            database_dir,
        } = setup;
        let register = NodeRegister::new(Arc::clone(&engine), clock, counts);
        let own = OwnNode::new(peer_id, name, config.raft_address.clone(), version);
        let own = own.map_err(|error| ClusterKeyError::Io {
            path: key_path.clone(),
            action: "used",
            source: std::io::Error::other(error.message),
        })?;
        let is_replicated = replication.is_some();
        let state =
            Arc::new(ClusterState::load(own, register, key_path, database_dir, is_replicated)?);
        let members = Arc::new(Members::new(Arc::clone(&state)));
        Ok(Self {
            proofs: ProofServer::new(Arc::clone(&state), Arc::clone(&members)),
            state,
            members,
            control: match &replication {
                Some(replication) => Arc::clone(replication) as _,
                None => Arc::new(DataAlone),
            },
            engine,
            data_dir,
            lag_watch: LagWatch::default(),
            replication,
            replace_after: config.replace_after,
            is_relay,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Joins with the token, if there is one, then begins to keep the connections to the other
    /// nodes. On a node that is part of no cluster nothing happens.
    ///
    /// # Errors
    /// When the node cannot join; when another node of the cluster has its name; when it was
    /// removed.
    pub(crate) async fn start(
        self: &Arc<Self>,
        host: Host,
        token: Option<&JoinToken>,
    ) -> Result<()> {
        self.state.set_host(host);
        if let Some(token) = token {
            join::join_cluster(&self.state, token).await?;
        }
        if self.state.find_keyring().is_some() {
            if self.replication.is_some() {
                // The way to the leader goes over these connections.
                self.state.reload().await?;
                self.members.follow_register().await;
            }
            self.check_own_entry().await?;
            self.members.follow_register().await;
        }
        let service = Arc::clone(self);
        self.spawn_task(async move { service.follow_changes().await });
        let service = Arc::clone(self);
        self.spawn_task(async move { service.follow_copy_needs().await });
        let service = Arc::clone(self);
        self.spawn_task(async move { service.drop_replaced_files().await });
        if let Some(replication) = &self.replication {
            let replication = Arc::clone(replication);
            let keeper = RoleKeeper::new(Arc::clone(self), replication, self.replace_after);
            self.spawn_task(keeper.run());
        }
        Ok(())
    }

    fn spawn_task(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Brings the node's own entry up to date.
    async fn check_own_entry(&self) -> Result<()> {
        let state = &self.state;
        state.register.make_tables().await?;
        state.reload().await?;
        let (own, described) = (state.own.peer_id, state.own_description()?);
        let known = state.nodes().get(&own).cloned();
        if let Some(removed) = known.as_ref().filter(|node| node.is_removed()) {
            return Err(removed_error(removed));
        }
        if let Some(other) = state.node_named(&described.name, &own) {
            return Err(name_taken_error(&described.name, &other));
        }
        if known.is_none_or(|known| known.description != described) {
            match state.register.enter(own, &described).await {
                // On a full disk a node that reads and deletes is needed.
                Err(error)
                    if matches!(
                        error.code,
                        Code::DatabaseFull | Code::DiskFull | Code::ReadOnly
                    ) =>
                {
                    tracing::warn!(%error, "this node's entry in the register of the cluster could not be brought up to date");
                }
                entered => entered?,
            }
            state.reload().await?;
        }
        Ok(())
    }

    async fn follow_changes(&self) {
        let mut connections = self.members.changes();
        let (mut written, mut looked) = (None::<Instant>, None::<Instant>);
        loop {
            let is_in_cluster = self.state.find_keyring().is_some();
            if is_in_cluster && written.is_none_or(|at| at.elapsed() >= WRITE_INTERVAL) {
                self.write_seen_members().await;
                written = Some(Instant::now());
            }
            if is_in_cluster && looked.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL) {
                self.lag_watch.look(&self.control.status().await, self.state.register.now_ms());
                looked = Some(Instant::now());
            }
            tokio::select! {
                () = tokio::time::sleep(REFRESH_INTERVAL) => {}
                () = self.state.changed.notified() => {}
                _ = connections.changed() => written = None,
            }
            if let Err(error) = self.refresh().await {
                tracing::debug!(%error, "the register of the cluster cannot be read; what was read before holds");
            }
            if self.is_relay {
                self.follow_holders().await;
            }
        }
    }

    /// Has a node that holds the data tell what is new in the register, and what that means for this
    /// one, which does not.
    async fn follow_holders(&self) {
        let connected = self.members.connected();
        for (peer, member) in connected.iter() {
            let role = self.state.live_node(peer).map(|node| node.role);
            if role.is_none_or(|role| role == NodeRole::Relay) {
                continue;
            }
            match exchange::exchange_nodes(&self.state, &member.channel).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::debug!(%peer, %error, "a node does not tell what is new in the register");
                }
            }
        }
        if self.own_role().is_some_and(|role| role != NodeRole::Relay) {
            self.state.request_restart("it is to hold the cluster's data from now on");
        }
    }

    /// What this node is, as far as its register says.
    pub(crate) fn own_role(&self) -> Option<NodeRole> {
        self.state.live_node(&self.state.own.peer_id).map(|node| node.role)
    }

    pub(crate) fn own_peer(&self) -> PeerId {
        self.state.own.peer_id
    }

    /// Reads the register again, and acts on what is new in it.
    async fn refresh(&self) -> Result<()> {
        if self.state.reload().await? {
            if let Some(removed) = self.own_removal() {
                tracing::error!("{}", removed_error(&removed));
            }
            self.members.follow_register().await;
        }
        Ok(())
    }

    fn own_removal(&self) -> Option<NodeRecord> {
        self.state.nodes().get(&self.state.own.peer_id).filter(|node| node.is_removed()).cloned()
    }

    /// Calls that carry a proof of their own.
    ///
    /// # Errors
    /// What each call documents.
    pub(crate) async fn public_call(
        &self,
        context: &CallContext,
        call: Call,
    ) -> Result<response::Result> {
        match call {
            Call::NodeHello(request) => {
                self.proofs.hello(context, request).await.map(response::Result::NodeHello)
            }
            Call::NodeProof(request) => {
                self.proofs.check_proof(context, &request).map(response::Result::NodeProof)
            }
            Call::JoinCluster(request) => {
                let peer = context.peer.ok_or_else(not_a_node_error)?;
                join::admit_node(&self.state, &self.proofs, peer, request).await?;
                self.refresh().await?;
                let welcome = join::welcome(&self.state)?;
                self.announce_register().await;
                Ok(response::Result::JoinCluster(welcome))
            }
            _ => Err(Error::internal("this service does not answer the call")),
        }
    }

    /// The node that makes a call which only nodes make.
    ///
    /// # Errors
    /// `forbidden` for everybody else, whatever the call.
    pub(crate) fn require_node(&self, context: &CallContext) -> Result<PeerId> {
        let is_proven =
            context.trust.as_ref().is_some_and(|trust| trust.level() == TrustLevel::Node);
        context
            .peer
            .filter(|peer| is_proven && self.state.is_live(peer))
            .ok_or_else(not_a_node_error)
    }

    /// Calls of another node, which has proven that it is one.
    ///
    /// # Errors
    /// What each call documents.
    pub(crate) async fn node_call(
        &self,
        context: &CallContext,
        peer: PeerId,
        call: Call,
    ) -> Result<NodeReply> {
        let result = match call {
            Call::FollowLog(_) => return self.replication()?.follow().map(NodeReply::Stream),
            Call::FetchFiles(request) => {
                let sent = self.replication()?.send_files(peer, &request).await;
                return sent.map(NodeReply::Stream);
            }
            Call::Checksum(request) => {
                self.replication()?.checksum(&request).await.map(response::Result::Checksum)
            }
            Call::DataHealth(_) => {
                let health = Some(self.replication()?.health());
                Ok(response::Result::DataHealth(rpc::DataHealthResponse { health }))
            }
            Call::LeaderPosition(request) => {
                self.replication()?.position(&request).await.map(response::Result::LeaderPosition)
            }
            Call::LeaderWrite(request) => {
                let done = self.replication()?.database.serve_write(request, context.deadline);
                done.await.map(response::Result::LeaderWrite)
            }
            Call::ExchangeNodes(request) => {
                let known = self.state.nodes();
                exchange::learn_nodes(&self.state, &request.nodes).await?;
                // What was learned holds before the answer: the caller may send a new key next.
                self.refresh().await?;
                let nodes = known.values().map(NodeRecord::to_message).collect();
                Ok(response::Result::ExchangeNodes(rpc::ExchangeNodesResponse { nodes }))
            }
            Call::ReplaceClusterKey(request) => {
                if self.state.adopt_key(ClusterKey::from_message(request.key)?).await? {
                    tracing::info!(%peer, "another node replaced the cluster's key");
                }
                Ok(response::Result::ReplaceClusterKey(rpc::ReplaceClusterKeyResponse {}))
            }
            _ => Err(Error::internal("this service does not answer the call")),
        };
        result.map(|answer| NodeReply::Plain(Box::new(answer)))
    }

    fn replication(&self) -> Result<&Arc<Replication>> {
        self.replication.as_ref().ok_or_else(|| {
            Error::new(
                Code::Unavailable,
                if self.is_relay {
                    "this node is a relay: it holds none of the cluster's data"
                } else {
                    "this node does not take part in the cluster's database yet: it has to be started again"
                },
            )
        })
    }

    /// Waits until the node has to be started again, and says why.
    pub(crate) async fn restart_requested(&self) -> &'static str {
        self.state.restart_requested().await
    }

    /// Copies the cluster's data from another node into an empty folder. Returns what this node is
    /// to know of it.
    ///
    /// # Errors
    /// `unavailable` when no node sends it in time.
    pub(crate) async fn fetch_data(&self, target: &std::path::Path) -> Result<LocalState> {
        let until = Instant::now() + FETCH_TIME;
        loop {
            let connected = self.members.connected();
            for (peer, member) in connected.iter() {
                match fetch_files(&member.channel, target).await {
                    Ok(durable) => return self.local_state(durable),
                    Err(error) => {
                        tracing::warn!(%peer, error = error.message, "a node does not send the cluster's data");
                    }
                }
            }
            if Instant::now() >= until {
                return Err(Error::new(
                    Code::Unavailable,
                    "no node of the cluster sends its data: `network-cli cluster status` on one of them says what is wrong",
                ));
            }
            tokio::time::sleep(FETCH_PAUSE).await;
        }
    }

    fn local_state(&self, durable: u64) -> Result<LocalState> {
        let (keyring, nodes) = (self.state.keyring()?, self.state.nodes());
        let own = self.state.own.peer_id;
        Ok(known_local_state(keyring.cluster_id(), own, nodes.values(), durable))
    }

    /// Tells the connected nodes what changed in the register.
    async fn announce_register(&self) {
        let connected = self.members.connected();
        let told = connected.iter().map(|(peer, member)| async move {
            if let Err(error) = exchange::exchange_nodes(&self.state, &member.channel).await {
                tracing::debug!(%peer, %error, "a node could not be told what changed in the register");
            }
        });
        join_all(told).await;
    }

    /// Ends the background work and gives up the connections.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        // Here, because a start that failed comes here too.
        self.tasks.close();
        self.tasks.wait().await;
        self.members.stop().await;
    }
}

/// What a node is, as the register in an engine has it; `None`: there is none, or not this node.
pub(crate) async fn known_role(
    engine: &Arc<dyn Engine>,
    config: &NodeConfig,
    own: &PeerId,
) -> Option<NodeRole> {
    let counts = RoleCounts::of(&config.cluster);
    let register = NodeRegister::new(Arc::clone(engine), config.clock.clone(), counts);
    let nodes = register.list().await.ok()?;
    nodes.iter().find(|node| node.peer_id == *own && !node.is_removed()).map(|node| node.role)
}

/// What a node is to know of a copy that it took.
pub(crate) fn known_local_state<'n>(
    cluster: &str,
    own: PeerId,
    nodes: impl IntoIterator<Item = &'n NodeRecord>,
    durable: u64,
) -> LocalState {
    let live = nodes.into_iter().filter(|node| !node.is_removed());
    let (itself, others): (Vec<_>, Vec<_>) = live.partition(|node| node.peer_id == own);
    let raft_peers = others.into_iter().map(|node| node.description.raft_address.clone());
    LocalState {
        cluster: cluster.to_owned(),
        durable,
        begins: false,
        non_voter: !itself.iter().any(|node| node.role == NodeRole::Voter),
        raft_peers: raft_peers.filter(|address| !address.is_empty()).collect(),
    }
}

/// Enters nodes into an empty database, so that it knows the way to them.
///
/// # Errors
/// As a write to the database.
pub(crate) async fn enter_known_nodes(
    engine: &Arc<dyn Engine>,
    config: &NodeConfig,
    nodes: &[NodeRecord],
) -> Result<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    // The records have their roles.
    let counts = RoleCounts { voters: 0, holders: 0 };
    let register = NodeRegister::new(Arc::clone(engine), config.clock.clone(), counts);
    register.make_tables().await?;
    register.merge(nodes).await
}

fn not_a_node_error() -> Error {
    Error::new(Code::Forbidden, "this call is for nodes of the cluster alone")
}
