//! What a node reported of itself and its cluster.

use debros_client::rpc::{
    ClusterNode, ClusterNodeStatus, ClusterStatusResponse, HealthResponse, NodeDiagnosis,
    ReplicationDiagnosis, StatusResponse,
};

/// The answers of one node to three calls.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) status: StatusResponse,
    pub(super) health: HealthResponse,
    pub(super) cluster: ClusterStatusResponse,
    pub(super) diagnosis: NodeDiagnosis,
}

impl Report {
    pub(super) fn new(
        status: StatusResponse,
        health: HealthResponse,
        mut cluster: ClusterStatusResponse,
    ) -> Self {
        let diagnosis = cluster.diagnosis.take().unwrap_or_default();
        Self { status, health, cluster, diagnosis }
    }

    /// The name of the node that answered.
    pub(super) fn node_name(&self) -> &str {
        &self.status.node_id
    }

    /// Its part in the cluster's database; `None`: it keeps its data alone.
    pub(super) fn replication(&self) -> Option<&ReplicationDiagnosis> {
        self.diagnosis.replication.as_ref()
    }

    /// The nodes of the cluster.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&ClusterNode, &ClusterNodeStatus)> {
        self.cluster.nodes.iter().filter_map(|status| Some((status.node.as_ref()?, status)))
    }

    /// The voting nodes, and which of them are there: a majority is needed.
    pub(super) fn voters(&self) -> Voters<'_> {
        let voters: Vec<_> = self.nodes().filter(|(node, _)| node.role == "voter").collect();
        let away = voters.iter().filter(|(_, status)| !status.connected);
        let away: Vec<&str> = away.map(|(node, _)| node.name.as_str()).collect();
        Voters { all: voters.len(), away }
    }

    /// The node is part of a cluster's database for which nobody writes.
    pub(super) fn is_without_leader(&self) -> bool {
        self.replication().is_some()
            && (self.cluster.leader.is_none() || !self.voters().have_majority())
    }
}

/// The voting nodes, as the node that answered sees them.
pub(super) struct Voters<'r> {
    pub(super) all: usize,
    /// Names of those to which it has no connection.
    pub(super) away: Vec<&'r str>,
}

impl Voters<'_> {
    pub(super) fn needed(&self) -> usize {
        self.all / 2 + 1
    }

    pub(super) fn there(&self) -> usize {
        self.all - self.away.len()
    }

    pub(super) fn have_majority(&self) -> bool {
        self.there() >= self.needed()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::finding::{Finding, FindingLevel};
    use super::Report;
    use debros_client::rpc::{
        ClusterNode, ClusterNodeStatus, DiskReserve, HealthCheck, ReplicationDiagnosis,
    };

    /// A healthy node that is alone.
    pub(in super::super) fn alone() -> Report {
        let mut report = Report::default();
        report.status.node_id = "one".into();
        report.status.now = 1_800_000_000_000;
        report.status.database_size = 1 << 20;
        report.diagnosis.disk_free = Some(100 << 30);
        report.diagnosis.set_disk_reserve(DiskReserve::Kept);
        report.diagnosis.max_database_size = 1 << 30;
        report.diagnosis.max_temp_size = 1 << 30;
        let check = HealthCheck { name: "database_write".into(), ok: true, ..Default::default() };
        report.health.checks.push(check);
        report
    }

    /// A healthy cluster of voting nodes on one machine; the first one answers and leads.
    pub(in super::super) fn replicated(names: &[&str]) -> Report {
        let mut report = alone();
        report.diagnosis.in_cluster = true;
        report.diagnosis.replication = Some(ReplicationDiagnosis {
            rqlited_state: "serving".into(),
            last_entry: 5000,
            log_bytes: 1 << 20,
            max_log_bytes: 256 << 20,
            ..Default::default()
        });
        report.cluster.cluster_id = "cafe".into();
        report.cluster.leader = Some("peer-one".into());
        report.cluster.nodes = names
            .iter()
            .enumerate()
            .map(|(index, name)| ClusterNodeStatus {
                node: Some(ClusterNode {
                    name: (*name).into(),
                    peer_id: format!("peer-{name}"),
                    role: "voter".into(),
                    version: "0.1.0".into(),
                    addresses: vec![format!("/ip4/127.0.0.1/tcp/{}", 4001 + index)],
                    raft_address: format!("127.0.0.1:{}", 7001 + index),
                    joined_at: 1_700_000_000_000,
                    ..Default::default()
                }),
                connected: true,
                is_self: index == 0,
                last_seen: 1_799_999_990_000,
                applied_entry: Some(5000),
                lag: Some(0),
                clock_ahead: (index > 0).then_some(0),
                is_holder: Some(true),
                ..Default::default()
            })
            .collect();
        report
    }

    pub(in super::super) fn codes(findings: &[Finding]) -> Vec<(FindingLevel, &'static str)> {
        findings.iter().map(|finding| (finding.level, finding.code)).collect()
    }
}
