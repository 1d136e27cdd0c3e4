//! What may be wrong with this node and its cluster, as `network-cli doctor` asks it.

use super::ClusterService;
use super::prove::call_node;
use super::seen_members::read_seen_members;
use debros_engine::DiskReserveState;
use debros_p2p::{Channel, PeerId};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, response};
use debros_proto::{Result, now_ms};
use futures::future::join_all;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// How long another node's Raft port may take to answer.
const RAFT_PORT_TIME: Duration = Duration::from_secs(2);

impl ClusterService {
    /// Fills in what a status that is asked for it says of what is wrong.
    pub(super) async fn diagnose(&self, status: &mut rpc::ClusterStatusResponse) {
        let seen = read_seen_members(&self.data_dir);
        for node in status.nodes.iter_mut().filter(|node| node.last_seen == 0) {
            let peer_id = node.node.as_ref().map_or("", |node| node.peer_id.as_str());
            let before = seen.iter().find(|seen| seen.peer_id == peer_id);
            // From before the last start.
            node.last_seen = before.map_or(0, |seen| seen.last_seen);
        }
        let (own, _) = tokio::join!(
            self.diagnose_node(),
            join_all(status.nodes.iter_mut().map(|node| self.diagnose_member(node)))
        );
        status.diagnosis = Some(own);
    }

    async fn diagnose_node(&self) -> rpc::NodeDiagnosis {
        let storage = self.engine.storage_report();
        let names = |namespaces: Vec<debros_proto::Namespace>| {
            namespaces.iter().map(ToString::to_string).collect()
        };
        rpc::NodeDiagnosis {
            disk_free: storage.disk_free,
            disk_reserve: match storage.disk_reserve {
                DiskReserveState::Unknown => rpc::DiskReserve::Unknown,
                DiskReserveState::Kept => rpc::DiskReserve::Kept,
                DiskReserveState::GivenUp => rpc::DiskReserve::GivenUp,
                DiskReserveState::Missing => rpc::DiskReserve::Missing,
            }
            .into(),
            max_database_size: storage.max_size,
            max_temp_size: storage.max_temp_size,
            lost_namespaces: names(self.engine.lost_namespaces()),
            damaged_namespaces: names(storage.damaged_namespaces),
            system_damaged: storage.is_system_damaged,
            replication: self.control.diagnose().await,
            in_cluster: self.state.find_keyring().is_some(),
        }
    }

    /// Another node, as this one sees it.
    async fn diagnose_member(&self, status: &mut rpc::ClusterNodeStatus) {
        let Some(node) = status.node.as_ref().filter(|_| !status.is_self) else { return };
        let Ok(peer) = node.peer_id.parse::<PeerId>() else { return };
        let channel = self.members.channel(&peer);
        let asked = async {
            match &channel {
                Some(channel) => ask_clock(channel).await,
                None => Ok(None),
            }
        };
        let (clock, raft) = tokio::join!(asked, try_raft_port(&node.raft_address));
        match clock {
            Ok(ahead) => status.clock_ahead = ahead,
            Err(error) => status.connection_error = error.message,
        }
        if channel.is_none() {
            status.connection_error = self.members.failure(&peer).unwrap_or_default();
        }
        status.raft_error = raft.err().unwrap_or_default();
    }
}

/// How far another node's clock is ahead, in milliseconds; `None` from a version that does not say.
async fn ask_clock(channel: &Channel) -> Result<Option<i64>> {
    let (began, before) = (Instant::now(), now_ms());
    let answer = call_node(channel, Call::Status(rpc::StatusRequest {})).await?;
    let took = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
    Ok(match answer {
        response::Result::Status(status) if status.now > 0 => {
            Some(sure_difference(status.now, before, took))
        }
        _ => None,
    })
}

/// The other clock read `theirs` at some time from `before` to `took` later, all in milliseconds.
/// What is left of the difference wherever in between that was.
fn sure_difference(theirs: i64, before: i64, took: i64) -> i64 {
    let after = before.saturating_add(took);
    if theirs > after { theirs - after } else { theirs.saturating_sub(before).min(0) }
}

/// Connects to a Raft port and closes the connection. Says why that did not work.
async fn try_raft_port(address: &str) -> std::result::Result<(), String> {
    if address.is_empty() {
        return Ok(());
    }
    match tokio::time::timeout(RAFT_PORT_TIME, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", RAFT_PORT_TIME.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::{sure_difference, try_raft_port};

    #[test]
    fn a_slow_answer_is_no_difference_of_clocks() {
        for theirs in [1000, 1500, 3000] {
            assert_eq!(sure_difference(theirs, 1000, 2000), 0, "{theirs}");
        }
        assert_eq!(sure_difference(5000, 1000, 2000), 2000);
        assert_eq!(sure_difference(400, 1000, 2000), -600);
    }

    #[tokio::test]
    async fn a_port_at_which_nobody_listens_is_named_as_that() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        try_raft_port(&address).await.unwrap();
        drop(listener);
        assert!(try_raft_port(&address).await.unwrap_err().contains("refused"));
        try_raft_port("").await.unwrap();
    }
}
