//! The connections to the other nodes of the cluster: one to each, proven.

use super::cluster_state::{ClusterState, Incarnation};
use super::member_keeper::MemberKeeper;
use super::prove::NODE_CALL_TIMEOUT;
use debros_p2p::{Channel, PeerId};
use debros_proto::rpc::request::Call;
use debros_proto::{lock, rpc};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A node of the cluster with a connection on which both have proven themselves.
#[derive(Clone, Debug)]
pub struct Member {
    /// Calls it. Calls that only nodes may make are answered.
    pub channel: Channel,
    pub(super) incarnation: Incarnation,
}

/// The nodes that are connected, by peer id.
pub type ConnectedMembers = Arc<BTreeMap<PeerId, Member>>;

/// Keeps a proven connection to each node of the register.
pub struct Members {
    state: Arc<ClusterState>,
    connected: Arc<watch::Sender<ConnectedMembers>>,
    keepers: Mutex<HashMap<PeerId, KeeperHandle>>,
    failures: ConnectionFailures,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Why nodes are not connected, by peer id; those that are not in it are, or were not tried yet.
pub(super) type ConnectionFailures = Arc<Mutex<HashMap<PeerId, String>>>;

struct KeeperHandle {
    wake: Arc<Notify>,
    stop: CancellationToken,
}

impl Members {
    pub(super) fn new(state: Arc<ClusterState>) -> Self {
        Self {
            state,
            connected: Arc::new(watch::Sender::default()),
            keepers: Mutex::default(),
            failures: ConnectionFailures::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// The way to call a node; `None` while there is no proven connection to it.
    pub fn channel(&self, peer: &PeerId) -> Option<Channel> {
        self.connected.borrow().get(peer).map(|member| member.channel.clone())
    }

    /// The nodes that are connected now.
    pub fn connected(&self) -> ConnectedMembers {
        Arc::clone(&self.connected.borrow())
    }

    /// Why a node is not connected, if it was tried.
    pub(super) fn failure(&self, peer: &PeerId) -> Option<String> {
        lock(&self.failures).get(peer).cloned()
    }

    /// The version of this node's program.
    pub(super) fn own_version(&self) -> &str {
        &self.state.own.version
    }

    /// Follows [`connected`](Members::connected): wakes up whenever a node comes or goes.
    pub fn changes(&self) -> watch::Receiver<ConnectedMembers> {
        self.connected.subscribe()
    }

    /// Begins to keep a connection to each node that is new in the register, and gives up those
    /// that are not in it any more.
    pub(super) async fn follow_register(&self) {
        let nodes = self.state.nodes();
        let wanted: HashSet<PeerId> = nodes
            .keys()
            .filter(|peer| **peer != self.state.own.peer_id && self.state.is_live(peer))
            .copied()
            .collect();
        let Ok(host) = self.state.host() else { return };
        host.set_reserved_peers(wanted.clone());
        let gone: Vec<PeerId> = {
            let mut keepers = lock(&self.keepers);
            for peer in &wanted {
                keepers.entry(*peer).or_insert_with(|| self.start_keeper(*peer));
            }
            keepers
                .extract_if(|peer, _| !wanted.contains(peer))
                .map(|(peer, keeper)| {
                    keeper.stop.cancel();
                    lock(&self.failures).remove(&peer);
                    peer
                })
                .collect()
        };
        // Also those that have no keeper: a peer may have proven itself and been removed at once.
        let removed = nodes.values().filter(|node| node.is_removed()).map(|node| node.peer_id);
        let gone: HashSet<PeerId> = gone.into_iter().chain(removed).collect();
        for peer in gone {
            if let Some(trust) = host.trust(&peer) {
                trust.revoke();
                host.disconnect(peer).await;
                tracing::info!(%peer, "closed the connections to a node that is not in the cluster any more");
            }
        }
    }

    fn start_keeper(&self, peer: PeerId) -> KeeperHandle {
        let (wake, stop) = (Arc::new(Notify::new()), self.stop.child_token());
        let keeper = MemberKeeper::new(
            Arc::clone(&self.state),
            peer,
            Arc::clone(&self.connected),
            Arc::clone(&wake),
            Arc::clone(&self.failures),
        );
        let stopped = stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = keeper.run() => {}
            }
        });
        KeeperHandle { wake, stop }
    }

    /// Has a node dialled, or its new connection used, without waiting for the next attempt.
    pub(super) fn wake(&self, peer: &PeerId) {
        if let Some(keeper) = lock(&self.keepers).get(peer) {
            keeper.wake.notify_one();
        }
    }

    /// Whether a program with the identity of a node runs and is connected, other than the one with
    /// this incarnation. A connection that has died without a word does not count: it is asked.
    pub(super) async fn has_other_incarnation(
        &self,
        peer: &PeerId,
        incarnation: &Incarnation,
    ) -> bool {
        let known = self.connected.borrow().get(peer).cloned();
        let Some(known) = known.filter(|known| known.incarnation != *incarnation) else {
            return false;
        };
        let call = Some(Call::Status(rpc::StatusRequest {}));
        let request = rpc::Request { call, ..Default::default() };
        known.channel.call(request, NODE_CALL_TIMEOUT / 2).await.is_ok()
    }

    /// Ends all of it.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
