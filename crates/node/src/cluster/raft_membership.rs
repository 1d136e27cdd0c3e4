//! Has this node's rqlited take part in Raft as the register says: with a vote, or without.

use super::ClusterService;
use super::node_record::NodeRole;
use super::prove::call_node;
use super::replication::Replication;
use debros_proto::rpc;
use debros_proto::rpc::request::Call;
use debros_proto::{Error, Result};
use futures::future::join_all;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an rqlited that is to join may take for it: it tries by itself, and until then its list
/// of nodes may be that of before.
const JOIN_TIME: Duration = Duration::from_secs(20);

/// This node's part in Raft.
pub(super) struct RaftMembership {
    service: Arc<ClusterService>,
    replication: Arc<Replication>,
    /// Raft has this node as the register does, as far as it is known.
    is_verified: bool,
    joined: Option<Instant>,
    leaderless: Option<Instant>,
}

impl RaftMembership {
    pub(super) fn new(service: Arc<ClusterService>, replication: Arc<Replication>) -> Self {
        Self { service, replication, is_verified: false, joined: None, leaderless: None }
    }

    /// Looks whether Raft has this node as the register does, and does the next step to that.
    ///
    /// # Errors
    /// When rqlited or the disk does not do it now: it is tried again with the next look.
    pub(super) async fn check(&mut self) -> Result<()> {
        let own = self.service.state.own.peer_id;
        let Some(node) = self.service.state.live_node(&own) else { return Ok(()) };
        let (non_voter, peers) = (node.role != NodeRole::Voter, self.raft_peers());
        let kept = self.replication.database.local_state();
        if self.is_verified && kept.non_voter == non_voter {
            if kept.raft_peers != peers {
                self.keep(non_voter, peers)?;
            }
            return self.join_if_removed(non_voter).await;
        }
        let (nodes, own_id) = (self.replication.raft_nodes().await?, own.to_string());
        let votes = nodes.iter().find(|node| node.id == own_id).map(|node| node.voter);
        if votes == Some(!non_voter) {
            self.is_verified = true;
            return self.keep(non_voter, peers);
        }
        if self.joined.is_some_and(|at| at.elapsed() < JOIN_TIME) {
            return Ok(());
        }
        let joins_as_told = votes.is_none() && kept.non_voter == non_voter;
        if joins_as_told || !self.replication.knows_raft_leader().await {
            return self.join_if_removed(non_voter).await;
        }
        if votes.is_some() {
            if self.replication.leads_raft().await? {
                return self.service.control.step_down().await.map(|_| ());
            }
            // rqlite ignores the joining of a node that it has with another part.
            self.replication.remove_from_raft(own).await?;
        }
        tracing::info!(role = %node.role, "the node's rqlited joins the cluster in the node's new role");
        self.join(non_voter).await
    }

    /// Joins again when the others have a leader and this node's rqlited does not hear of it for
    /// longer than an election takes: it was taken out while the node was cut off. If its role is
    /// another one by now, the node learns that from the log, which it gets when it has joined.
    async fn join_if_removed(&mut self, non_voter: bool) -> Result<()> {
        if self.replication.knows_raft_leader().await {
            self.leaderless = None;
            return Ok(());
        }
        let since = *self.leaderless.get_or_insert_with(Instant::now);
        if since.elapsed() < JOIN_TIME || !self.others_have_a_leader().await {
            return Ok(());
        }
        tracing::warn!(
            "the other nodes have a leader and this node's rqlited does not hear of it: it joins them again"
        );
        self.join(non_voter).await
    }

    async fn join(&mut self, non_voter: bool) -> Result<()> {
        let mut peers = self.raft_peers();
        // First, so that a start after a crash goes on here.
        self.keep(non_voter, peers.clone())?;
        if let Some(leader) = self.leader_address() {
            // Of the others one may hang.
            peers.sort_by_key(|address| *address != leader);
        }
        self.replication.join_raft_again(peers, non_voter).await;
        (self.is_verified, self.joined, self.leaderless) = (false, Some(Instant::now()), None);
        Ok(())
    }

    fn leader_address(&self) -> Option<String> {
        let leader = self.replication.database.status().leader?.parse().ok()?;
        self.service.state.live_node(&leader).map(|node| node.description.raft_address)
    }

    async fn others_have_a_leader(&self) -> bool {
        let connected = self.service.members.connected();
        let asked = connected.values().map(|member| {
            let call = Call::LeaderPosition(rpc::LeaderPositionRequest { confirm: true });
            call_node(&member.channel, call)
        });
        join_all(asked).await.iter().any(Result::is_ok)
    }

    /// Where the Raft ports of the other nodes that hold the data are.
    fn raft_peers(&self) -> Vec<String> {
        let (own, nodes) = (self.service.state.own.peer_id, self.service.state.nodes());
        let holders = nodes.values().filter(|node| {
            node.peer_id != own
                && !node.is_removed()
                && node.role != NodeRole::Relay
                && !node.description.raft_address.is_empty()
        });
        holders.map(|node| node.description.raft_address.clone()).collect()
    }

    fn keep(&self, non_voter: bool, peers: Vec<String>) -> Result<()> {
        let kept = self.replication.database.keep_raft_membership(non_voter, peers);
        kept.map_err(|error| {
            tracing::error!(%error, "how the node takes part in the cluster cannot be written");
            Error::internal("how the node takes part in the cluster cannot be written")
        })
    }
}
