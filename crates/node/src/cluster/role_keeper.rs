//! Keeps the roles of the nodes. The node that leads looks at the others, and changes the register
//! where a place is to be filled; every node follows the register in its own part.

use super::ClusterService;
use super::node_record::{NodeRecord, NodeRole};
use super::raft_membership::RaftMembership;
use super::replication::Replication;
use super::role_changes::{RoleChange, SeenNode, next_change};
use debros_p2p::PeerId;
use debros_proto::Result;
use debros_rqlite::RaftNode;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time between two looks, at most and at least.
const LONGEST_INTERVAL: Duration = Duration::from_secs(5);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(200);
/// What a look may take. A leader that stood still for longer has not seen that a node was away.
const LOOK_TIME: Duration = Duration::from_secs(5);
/// A replica that has all but the entries of this time is caught up.
const CAUGHT_UP: Duration = Duration::from_secs(10);

pub(super) struct RoleKeeper {
    service: Arc<ClusterService>,
    replication: Arc<Replication>,
    replace_after: Duration,
    membership: RaftMembership,
    sight: Sight,
}

/// What the node saw while it led.
#[derive(Default)]
struct Sight {
    looked: Option<Instant>,
    /// How long nodes have been away.
    away: HashMap<PeerId, Duration>,
    /// The log's end at the last looks.
    heads: VecDeque<(Instant, u64)>,
}

impl RoleKeeper {
    pub(super) fn new(
        service: Arc<ClusterService>,
        replication: Arc<Replication>,
        replace_after: Duration,
    ) -> Self {
        let membership = RaftMembership::new(Arc::clone(&service), Arc::clone(&replication));
        Self { service, replication, replace_after, membership, sight: Sight::default() }
    }

    /// Goes on until the task is ended.
    pub(super) async fn run(mut self) {
        let interval = (self.replace_after / 4).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        loop {
            tokio::time::sleep(interval).await;
            if let Err(error) = self.membership.check().await {
                tracing::debug!(%error, "the node's part in Raft cannot be looked at now");
            }
            if !self.replication.database.is_leader() {
                self.sight = Sight::default();
            } else if let Err(error) = self.fill_places(interval).await {
                tracing::debug!(%error, "the roles of the nodes cannot be looked at now");
            }
        }
    }

    /// Makes the next change of roles, if there is one to make.
    async fn fill_places(&mut self, interval: Duration) -> Result<()> {
        self.service.refresh().await?;
        let raft = self.replication.raft_nodes().await?;
        let raft: HashMap<String, RaftNode> =
            raft.into_iter().map(|node| (node.id.clone(), node)).collect();
        let seen = self.look(&raft, interval).await?;
        self.end_lost_votes(&seen, &raft).await?;
        let counts = self.service.state.register.counts();
        // One at a time.
        if seen.iter().any(|node| self.is_changing(node, &raft)) {
            return Ok(());
        }
        let Some(change) = next_change(&seen, counts, self.replace_after) else { return Ok(()) };
        let voters = seen.iter().filter(|node| node.role == NodeRole::Voter).count();
        let voters = voters.max(counts.voters as usize);
        self.service.state.register.change_roles(&change, voters).await?;
        log_change(&change);
        self.service.refresh().await?;
        self.service.announce_register().await;
        Ok(())
    }

    /// All nodes of the register, as they are now.
    async fn look(
        &mut self,
        raft: &HashMap<String, RaftNode>,
        interval: Duration,
    ) -> Result<Vec<SeenNode>> {
        let durable = self.replication.durable_entries().await?;
        let since_last = self.sight.begin_look(self.replication.database.status().head, interval);
        let nodes = self.service.state.nodes();
        let live: Vec<&NodeRecord> = nodes.values().filter(|node| !node.is_removed()).collect();
        self.sight.away.retain(|peer, _| live.iter().any(|node| node.peer_id == *peer));
        Ok(live
            .into_iter()
            .map(|node| {
                let peer_id = node.peer_id;
                let is_relay = node.role == NodeRole::Relay;
                let answers = raft.get(&peer_id.to_string()).is_some_and(|node| node.reachable);
                let is_here = self.is_connected(&peer_id) && (is_relay || answers);
                let entry = durable.get(&peer_id).copied();
                SeenNode {
                    peer_id,
                    role: node.role,
                    joined_at: node.joined_at,
                    is_here,
                    away: self.sight.note(peer_id, is_here, since_last),
                    is_caught_up: is_relay || self.sight.is_caught_up(entry),
                }
            })
            .collect())
    }

    fn is_connected(&self, peer: &PeerId) -> bool {
        *peer == self.service.state.own.peer_id || self.service.members.channel(peer).is_some()
    }

    /// Takes nodes that are to vote no more and are away out of Raft's voters, so that a majority is
    /// one of those that are left.
    async fn end_lost_votes(
        &self,
        seen: &[SeenNode],
        raft: &HashMap<String, RaftNode>,
    ) -> Result<()> {
        for node in seen.iter().filter(|node| node.role != NodeRole::Voter && !node.is_here) {
            if raft.get(&node.peer_id.to_string()).is_some_and(|node| node.voter) {
                self.replication.remove_from_raft(node.peer_id).await?;
                tracing::info!(peer = %node.peer_id, "a node that is gone votes no more");
            }
        }
        Ok(())
    }

    /// Whether a node is about to take its role on. One that does not manage is not waited for
    /// longer than for a lost one.
    fn is_changing(&self, node: &SeenNode, raft: &HashMap<String, RaftNode>) -> bool {
        let votes = raft.get(&node.peer_id.to_string()).is_some_and(|node| node.voter);
        let is_as_told = match node.role {
            NodeRole::Voter => votes,
            NodeRole::Replica => !votes,
            NodeRole::Relay => true,
        };
        !is_as_told && self.is_connected(&node.peer_id) && node.away < self.replace_after
    }
}

impl Sight {
    /// Notes a look, and the log's end at it. Returns how much time since the last look counts.
    fn begin_look(&mut self, head: u64, interval: Duration) -> Duration {
        let now = Instant::now();
        self.heads.push_back((now, head));
        // The newest of those that are old enough is the one to compare with.
        while self.heads.get(1).is_some_and(|(at, _)| at.elapsed() >= CAUGHT_UP) {
            self.heads.pop_front();
        }
        let since = self.looked.replace(now).map_or(Duration::ZERO, |at| now - at);
        since.min(interval + LOOK_TIME)
    }

    /// How long a node has been away, with the time since the last look.
    fn note(&mut self, peer: PeerId, is_here: bool, since_last: Duration) -> Duration {
        if is_here {
            self.away.remove(&peer);
            return Duration::ZERO;
        }
        // The first look at which it is missing is when it went.
        let away = self.away.entry(peer).and_modify(|away| *away += since_last);
        *away.or_default()
    }

    /// Whether a node that said that it has the log up to `entry` has all but its last moments.
    fn is_caught_up(&self, entry: Option<u64>) -> bool {
        let (Some(entry), Some((_, newest))) = (entry, self.heads.back()) else { return false };
        let old = self.heads.front().filter(|(at, _)| at.elapsed() >= CAUGHT_UP);
        entry >= *newest || old.is_some_and(|(_, head)| entry >= *head)
    }
}

fn log_change(change: &RoleChange) {
    match change {
        RoleChange::Promote { replica, lost: Some(lost) } => {
            tracing::warn!(%lost, %replica, "a voter is gone for long: a replica takes its place");
        }
        RoleChange::Promote { replica, lost: None } => {
            tracing::info!(%replica, "a replica takes the free place of a voter");
        }
        RoleChange::Hold { relay } => {
            tracing::info!(%relay, "a relay is to hold the data, as a place is free");
        }
    }
}
