//! What an operator sees and changes of the cluster.

use super::ClusterService;
use super::cluster_key::ClusterKey;
use super::control::ReplicationStatus;
use super::exchange::exchange_nodes;
use super::join_token::{JoinToken, TOKEN_LIFE, hash_secret};
use super::keyring::Keyring;
use super::node_record::NodeRecord;
use super::prove::call_node;
use debros_p2p::{Channel, PeerInfo};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, response};
use debros_proto::{Code, Error, Result};
use futures::future::join_all;
use std::collections::HashMap;

impl ClusterService {
    /// Calls of a verified operator.
    ///
    /// # Errors
    /// What each call documents.
    pub(crate) async fn operator_call(&self, by: &str, call: Call) -> Result<response::Result> {
        match call {
            Call::InitCluster(_) => self.init().await.map(response::Result::InitCluster),
            Call::CreateJoinToken(_) => {
                self.create_join_token().await.map(response::Result::CreateJoinToken)
            }
            Call::ClusterStatus(request) => {
                let mut status = self.status().await?;
                if request.diagnose {
                    self.diagnose(&mut status).await;
                }
                Ok(response::Result::ClusterStatus(status))
            }
            Call::RemoveNode(request) => {
                self.remove_node(by, &request.node).await.map(response::Result::RemoveNode)
            }
            Call::StepDown(_) => {
                let leader = self.control.step_down().await?;
                let leader = leader.map(|peer| peer.to_string()).unwrap_or_default();
                Ok(response::Result::StepDown(rpc::StepDownResponse { leader }))
            }
            _ => Err(Error::internal("this service does not answer the call")),
        }
    }

    /// Begins a cluster with this node.
    async fn init(&self) -> Result<rpc::InitClusterResponse> {
        let state = &self.state;
        {
            let _alone = state.changing.lock().await;
            if let Some(keyring) = state.find_keyring() {
                return Err(Error::new(
                    Code::Conflict,
                    format!("this node is part of the cluster {} already", keyring.cluster_id()),
                ));
            }
            state.register.make_tables().await?;
            // The key last: with it the node is one of the cluster. Rows of an attempt before are
            // this node's own.
            state.register.enter(state.own.peer_id, &state.own_description()?).await?;
            let keyring = Keyring::generate()?;
            state.begin_database(keyring.cluster_id())?;
            state.enter_cluster(keyring).await?;
        }
        self.refresh().await?;
        let cluster_id = state.keyring()?.cluster_id().to_owned();
        tracing::info!(cluster = cluster_id, "a cluster was begun with this node");
        state.request_restart("a cluster was begun with it");
        Ok(rpc::InitClusterResponse { cluster_id })
    }

    async fn create_join_token(&self) -> Result<rpc::CreateJoinTokenResponse> {
        let state = &self.state;
        let keyring = state.keyring()?;
        let life = i64::try_from(TOKEN_LIFE.as_millis()).unwrap_or(i64::MAX);
        let expires_at = state.register.now_ms().saturating_add(life);
        let addresses = state.own_description()?.addresses;
        let token =
            JoinToken::generate(state.own.peer_id, addresses, keyring.cluster_id(), expires_at)?;
        state.register.add_token(hash_secret(token.secret()), expires_at).await?;
        Ok(rpc::CreateJoinTokenResponse { token: token.to_text(), expires_at })
    }

    async fn status(&self) -> Result<rpc::ClusterStatusResponse> {
        let Some(keyring) = self.state.find_keyring() else {
            return Ok(rpc::ClusterStatusResponse::default());
        };
        self.refresh().await?;
        let replication = self.control.status().await;
        self.lag_watch.look(&replication, self.state.register.now_ms());
        let host = self.state.host()?;
        let peers: HashMap<_, _> = host.peers().into_iter().map(|peer| (peer.id, peer)).collect();
        let nodes = self.state.nodes();
        let live = nodes.values().filter(|node| !node.is_removed());
        let mut nodes: Vec<_> = live
            .map(|node| self.node_status(node, peers.get(&node.peer_id), &replication))
            .collect();
        self.add_health(&mut nodes).await;
        nodes.sort_by(|one, other| node_order(one).cmp(&node_order(other)));
        Ok(rpc::ClusterStatusResponse {
            cluster_id: keyring.cluster_id().to_owned(),
            nodes,
            leader: replication.leader.map(|peer| peer.to_string()),
            term: replication.term,
            diagnosis: None,
        })
    }

    fn node_status(
        &self,
        node: &NodeRecord,
        peer: Option<&PeerInfo>,
        replication: &ReplicationStatus,
    ) -> rpc::ClusterNodeStatus {
        let is_self = node.peer_id == self.state.own.peer_id;
        let progress = replication.progress.get(&node.peer_id).copied().unwrap_or_default();
        let last_seen = if is_self {
            self.state.register.now_ms()
        } else {
            peer.map_or(0, |peer| peer.last_seen_ms)
        };
        rpc::ClusterNodeStatus {
            node: Some(node.to_message()),
            connected: is_self || self.members.channel(&node.peer_id).is_some(),
            is_self,
            last_seen,
            applied_entry: progress.applied_entry,
            lag: progress.lag,
            behind_since: self.lag_watch.since(&node.peer_id),
            is_holder: replication.holders.as_ref().map(|said| said.contains(&node.peer_id)),
            health: replication.health.clone().filter(|_| is_self),
            ..Default::default()
        }
    }

    /// Asks the other nodes how their data is.
    async fn add_health(&self, nodes: &mut [rpc::ClusterNodeStatus]) {
        if self.replication.is_none() {
            return;
        }
        let asked = nodes.iter_mut().filter(|status| !status.is_self).map(|status| async {
            let peer = status.node.as_ref().and_then(|node| node.peer_id.parse().ok());
            let Some(channel) = peer.and_then(|peer| self.members.channel(&peer)) else { return };
            let call = Call::DataHealth(rpc::DataHealthRequest {});
            // One that takes a copy, or starts, does not say.
            let answer = call_node(&channel, call).await;
            if let Ok(response::Result::DataHealth(answer)) = answer {
                status.health = answer.health;
            }
        });
        join_all(asked).await;
    }

    /// Takes a node out of the cluster for good, and changes the key among those that stay. What
    /// failed half-way is finished by the same call again.
    async fn remove_node(&self, by: &str, wanted: &str) -> Result<rpc::RemoveNodeResponse> {
        let state = &self.state;
        state.keyring()?;
        self.refresh().await?;
        let node = self.find_node(wanted)?;
        if node.peer_id == state.own.peer_id {
            let others = state
                .nodes()
                .values()
                .filter(|other| !other.is_removed())
                .count()
                .saturating_sub(1);
            return Err(Error::invalid(if others == 0 {
                "this is the last node of the cluster: it cannot be removed. Stop it and move its cluster key away to have a node \
                 that is alone"
            } else {
                "a node does not remove itself: run the command at another node of the cluster"
            }));
        }
        self.control.remove_holder(node.peer_id).await?;
        state.register.remove(node.peer_id, by).await?;
        // From here on it is refused here, and its connections are closed.
        self.refresh().await?;
        let key = state.replace_key().await?;
        let without_new_key = self.hand_out_key(&key).await;
        let name = node.description.name;
        tracing::info!(peer = %node.peer_id, name, by, "a node was removed from the cluster");
        Ok(rpc::RemoveNodeResponse { peer_id: node.peer_id.to_string(), name, without_new_key })
    }

    /// A node by its name or peer id; one that was removed by its peer id alone.
    fn find_node(&self, wanted: &str) -> Result<NodeRecord> {
        let nodes = self.state.nodes();
        let mut live = nodes.values().filter(|node| !node.is_removed());
        let is_wanted = |node: &&NodeRecord| {
            node.description.name == wanted || node.peer_id.to_string() == wanted
        };
        let removed = || nodes.values().find(|node| node.peer_id.to_string() == wanted);
        live.find(is_wanted).or_else(removed).cloned().ok_or_else(|| {
            let shown = debros_proto::ids::excerpt(wanted);
            Error::new(
                Code::NotFound,
                format!(
                    "the cluster has no node \"{shown}\": `network-cli cluster status` lists their names and peer ids"
                ),
            )
        })
    }

    /// Gives the new key to the nodes that stay, and tells them of the removal first. Returns the
    /// names of those that did not get it: they are given it when they come back.
    async fn hand_out_key(&self, key: &ClusterKey) -> Vec<String> {
        let state = &self.state;
        let nodes = state.nodes();
        let others = nodes
            .values()
            .filter(|node| !node.is_removed() && node.peer_id != state.own.peer_id)
            .map(|node| async move {
                let given = match self.members.channel(&node.peer_id) {
                    Some(channel) => self.give_key(&channel, key).await,
                    None => Err(Error::new(Code::Unavailable, "not connected")),
                };
                given.err().map(|error| {
                    let name = node.description.name.clone();
                    tracing::warn!(name, %error, "a node did not get the cluster's new key; it gets it when it comes back");
                    name
                })
            });
        join_all(others).await.into_iter().flatten().collect()
    }

    async fn give_key(&self, channel: &Channel, key: &ClusterKey) -> Result<()> {
        exchange_nodes(&self.state, channel).await?;
        let replace = rpc::ReplaceClusterKeyRequest { key: Some(key.to_message()) };
        call_node(channel, Call::ReplaceClusterKey(replace)).await.map(|_| ())
    }
}

/// Voters first, then by name.
fn node_order(status: &rpc::ClusterNodeStatus) -> (u8, &str, &str) {
    let node = status.node.as_ref();
    let rank = match node.map(|node| node.role.as_str()) {
        Some("voter") => 0,
        Some("replica") => 1,
        _ => 2,
    };
    let text = |get: fn(&rpc::ClusterNode) -> &str| node.map_or("", get);
    (rank, text(|node| &node.name), text(|node| &node.peer_id))
}
