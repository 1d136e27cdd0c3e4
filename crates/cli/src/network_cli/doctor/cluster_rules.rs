//! What may be wrong with the cluster, as the node that answers sees it.

use super::finding::{Finding, FindingLevel};
use super::machines::{has_loopback_raft, is_elsewhere};
use super::report::Report;
use crate::network_cli::output::{format_size, format_time};
use debros_client::rpc::{ClusterNode, ClusterNodeStatus, ReplicationDiagnosis};

/// A connected node that is behind by more entries than this lags: each says how far it is every
/// two seconds.
const MAX_LAG: u64 = 10_000;
/// Clocks that differ by more milliseconds than this are worth a sentence.
const MAX_CLOCK_DIFFERENCE: i64 = 1000;
/// A node that joined within so many milliseconds may still be copying the data.
const JOINING_TIME: i64 = 10 * 60 * 1000;
/// A part of the largest log, from which on it is said that somebody holds it.
const HELD_PART: u64 = 4;

const JOIN_ANEW: &str = "stop it, move its data folder away, remove it with `network-cli cluster remove`, and let it join anew with a token";

pub(super) fn check_cluster(report: &Report) -> Vec<Finding> {
    if !report.diagnosis.in_cluster {
        return Vec::new();
    }
    let Some(replication) = report.replication() else {
        return vec![data_alone(report)];
    };
    let mut findings = Vec::new();
    findings.extend(check_leader(report));
    findings.extend(check_following(report, replication));
    for (node, status) in report.nodes().filter(|(_, status)| !status.is_self) {
        findings.extend(check_connection(report, node, status));
        findings.extend(check_copy(report, node, status));
        findings.extend(check_lag(report, node, status));
        findings.extend(check_clock(report, node, status));
        findings.extend(check_raft_port(report, node, status));
        findings.extend(check_held_log(replication, node, status));
    }
    findings.extend(check_raft_addresses(report));
    findings.extend(check_versions(report));
    findings
}

fn data_alone(report: &Report) -> Finding {
    let node = report.node_name();
    Finding::warning(
        "not_replicated",
        node,
        format!(
            "{node} is a node of the cluster and keeps its data alone: what it writes is on no other node"
        ),
        "if it was started with database.engine embedded, remove it on another node and let it join anew; if the cluster was just \
         begun, it starts again by itself",
    )
}

/// A majority, and somebody who leads it.
fn check_leader(report: &Report) -> Option<Finding> {
    let voters = report.voters();
    if !voters.have_majority() {
        let message = format!(
            "the cluster has no majority: {} of its {} voting nodes {} there, and {} are needed. Nothing can be written until then; \
             reads with consistency none go on",
            voters.there(),
            voters.all,
            if voters.there() == 1 { "is" } else { "are" },
            voters.needed()
        );
        let advice = format!(
            "start these nodes, or mend their network: {}. If they are lost for good, stop this node and run `network-node \
             recover` on it",
            voters.away.join(", ")
        );
        return Some(Finding::error("no_quorum", "cluster", message, &advice));
    }
    report.cluster.leader.is_none().then(|| {
        Finding::error(
            "no_leader",
            "cluster",
            format!("no node leads, although {} of {} voting nodes are there", voters.there(), voters.all),
            "an election takes about a second: ask again. If it stays so, the nodes' Raft ports do not reach each other \
             (discovery.raft_adv_address, database.rqlite_raft_port, firewalls)",
        )
    })
}

fn check_following(report: &Report, replication: &ReplicationDiagnosis) -> Option<Finding> {
    let (node, problem) = (report.node_name(), &replication.problem);
    if problem.is_empty() || report.is_without_leader() {
        return None;
    }
    let message = format!("{node} does not follow the cluster's log: {problem}");
    let advice = if problem.contains("lost entries") {
        JOIN_ANEW
    } else {
        "it tries again, or takes a new copy of the data, by itself; if it stays so, the node's log has more"
    };
    Some(Finding::error("not_following", node, message, advice))
}

/// A node that is away, or connected and silent.
fn check_connection(
    report: &Report,
    node: &ClusterNode,
    status: &ClusterNodeStatus,
) -> Option<Finding> {
    let (name, why) = (&node.name, &status.connection_error);
    if status.connected {
        let message = format!("{name} is connected and does not answer: {why}");
        let advice = "look at its log, and whether its machine or its disk hangs";
        return (!why.is_empty()).then(|| Finding::error("silent", name, message, advice));
    }
    let since = match status.last_seen {
        0 => format!("never seen by {}", report.node_name()),
        at => format!("seen last at {}", format_time(at)),
    };
    let behind = match (status.applied_entry, status.lag) {
        (Some(entry), Some(lag)) => {
            format!("; it said last that it has entry {entry}, {lag} behind")
        }
        _ => String::new(),
    };
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    let message = format!("{name} is away, {since}{behind}{why}");
    let addresses = match node.addresses.join(" ") {
        none if none.is_empty() => "none is known".to_owned(),
        some => some,
    };
    let mut advice = format!("start it, or see why its addresses cannot be dialled: {addresses}");
    // Without a majority nobody can be removed.
    if report.voters().have_majority() {
        advice.push_str(&format!(
            ". If it is lost for good, `network-cli cluster remove {name}` on a node that stays"
        ));
    }
    let found = Finding::error("away", name, message, &advice);
    // Without one that does not vote nothing is at risk.
    let level = if node.role == "voter" { FindingLevel::Error } else { FindingLevel::Warning };
    Some(Finding { level, ..found })
}

/// A node for which the log was not kept.
fn check_copy(report: &Report, node: &ClusterNode, status: &ClusterNodeStatus) -> Option<Finding> {
    let is_new = report.status.now.saturating_sub(node.joined_at) < JOINING_TIME;
    let holds_data = node.role != "relay";
    (status.is_holder == Some(false) && holds_data && !is_new).then(|| {
        let name = &node.name;
        let message =
            format!("{name} was away for too long: the log does not reach back to what it has");
        let advice = "start it when it is away: it takes a new copy of the data by itself, and `network-cli cluster status` shows it";
        Finding::warning("needs_copy", name, message, advice)
    })
}

fn check_lag(report: &Report, node: &ClusterNode, status: &ClusterNodeStatus) -> Option<Finding> {
    let lag = status.lag.filter(|lag| *lag > MAX_LAG && status.connected)?;
    let (name, entry) = (&node.name, status.applied_entry.unwrap_or_default());
    let since = match status.behind_since {
        0 => report.status.now,
        since => since,
    };
    let since = format_time(since);
    let message =
        format!("{name} is behind since {since}: {lag} entries, it has those up to {entry}");
    let advice = "ask again: if the number falls, it catches up; if not, its disk or processor is too slow, or its log says why";
    Some(Finding::warning("lags", name, message, advice))
}

fn check_clock(report: &Report, node: &ClusterNode, status: &ClusterNodeStatus) -> Option<Finding> {
    let ahead = status.clock_ahead.filter(|ahead| ahead.abs() > MAX_CLOCK_DIFFERENCE)?;
    let (name, tenths) = (&node.name, ahead.unsigned_abs() / 100);
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    let message = format!(
        "the clock of {name} is {}.{} s {direction} that of {}",
        tenths / 10,
        tenths % 10,
        report.node_name()
    );
    let advice = "have both machines set their clocks by NTP: tokens, keys with an end and expiring values go by them";
    Some(Finding::warning("clock", name, message, advice))
}

fn check_raft_port(
    report: &Report,
    node: &ClusterNode,
    status: &ClusterNodeStatus,
) -> Option<Finding> {
    let (name, address) = (&node.name, &node.raft_address);
    let own = report.nodes().find(|(_, status)| status.is_self);
    // Said by `check_raft_addresses`, with what to do.
    let is_explained =
        own.is_some_and(|(own, _)| has_loopback_raft(node) && is_elsewhere(own, node));
    if !status.connected || status.raft_error.is_empty() || is_explained {
        return None;
    }
    let message = format!(
        "the Raft port of {name}, {address}, cannot be reached from {}: {}",
        report.node_name(),
        status.raft_error
    );
    let advice = "see whether its rqlited runs (`network-cli doctor` there), whether discovery.raft_adv_address is an address that \
                  this machine reaches, and whether a firewall is in between";
    Some(Finding::error("raft_unreachable", name, message, advice))
}

/// A holder that is away keeps the log long.
fn check_held_log(
    replication: &ReplicationDiagnosis,
    node: &ClusterNode,
    status: &ClusterNodeStatus,
) -> Option<Finding> {
    let is_long = replication.log_bytes > replication.max_log_bytes / HELD_PART;
    let holds = status.is_holder == Some(true) && !status.connected;
    let lag = status.lag.filter(|lag| *lag > 0 && is_long && holds)?;
    let name = &node.name;
    let message = format!(
        "the log is kept for {name}, which is away: {lag} entries; the log has {} of at most {}",
        format_size(replication.log_bytes),
        format_size(replication.max_log_bytes)
    );
    let advice = format!(
        "bring {name} back before the log is full, else it needs a copy of the data; or remove it with `network-cli cluster remove \
         {name}`"
    );
    Some(Finding::warning("log_held", name, message, &advice))
}

/// Raft ports that are only for nodes on the same machine.
fn check_raft_addresses(report: &Report) -> Vec<Finding> {
    let nodes: Vec<&ClusterNode> = report.nodes().map(|(node, _)| node).collect();
    let unreachable = nodes.iter().filter(|node| has_loopback_raft(node));
    unreachable
        .filter_map(|node| {
            let other = nodes.iter().find(|other| is_elsewhere(node, other))?;
            let (name, address) = (&node.name, &node.raft_address);
            let message = format!(
                "the Raft port of {name} is {address}, which {} on another machine cannot reach",
                other.name
            );
            let advice = format!(
                "set discovery.raft_adv_address on {name} to the IP address at which the other machines reach it, and start it again"
            );
            Some(Finding::error("raft_on_loopback", name, message, &advice))
        })
        .collect()
}

fn check_versions(report: &Report) -> Option<Finding> {
    let known: Vec<(&str, &str)> = report
        .nodes()
        .filter(|(node, _)| !node.version.is_empty())
        .map(|(node, _)| (node.name.as_str(), node.version.as_str()))
        .collect();
    let (_, first) = known.first()?;
    if known.iter().all(|(_, version)| version == first) {
        return None;
    }
    let list: Vec<String> =
        known.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let message = format!("the nodes run different versions: {}", list.join(", "));
    let advice = "finish the update: stop and start one node after another with the newest version";
    Some(Finding::warning("versions", "cluster", message, advice))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Finding;
    use super::super::finding::FindingLevel::{Error, Warning};
    use super::super::report::Report;
    use super::super::report::tests::{alone, codes, replicated};
    use super::check_cluster;
    use debros_client::rpc::ClusterNodeStatus;

    /// What is found in a cluster of three after a change of the second node.
    fn with_second(change: impl FnOnce(&mut ClusterNodeStatus)) -> Vec<Finding> {
        let mut report = replicated(&["one", "two", "three"]);
        change(&mut report.cluster.nodes[1]);
        check_cluster(&report)
    }

    fn lose(report: &mut Report, index: usize) {
        report.cluster.nodes[index].connected = false;
        report.cluster.nodes[index].connection_error = "connection refused".into();
    }

    #[test]
    fn a_healthy_cluster_has_no_findings() {
        assert_eq!(codes(&check_cluster(&alone())), []);
        assert_eq!(codes(&check_cluster(&replicated(&["one"]))), []);
        assert_eq!(codes(&check_cluster(&replicated(&["one", "two", "three"]))), []);
    }

    #[test]
    fn a_cluster_without_a_majority_says_how_many_are_missing() {
        let mut report = replicated(&["one", "two", "three"]);
        lose(&mut report, 1);
        let findings = check_cluster(&report);
        assert_eq!(codes(&findings), [(Error, "away")]);
        assert!(findings[0].advice.contains("cluster remove two"));
        lose(&mut report, 2);
        let findings = check_cluster(&report);
        assert!(!findings[1].advice.contains("cluster remove"), "nobody could");
        assert_eq!(codes(&findings), [(Error, "no_quorum"), (Error, "away"), (Error, "away")]);
        let (said, advice) = (&findings[0].message, &findings[0].advice);
        assert!(said.contains("1 of its 3 voting nodes is there, and 2 are needed"), "{said}");
        assert!(advice.contains("two, three") && advice.contains("recover"), "{advice}");
    }

    #[test]
    fn a_majority_without_a_leader_is_said() {
        let mut report = replicated(&["one", "two"]);
        report.cluster.leader = None;
        assert_eq!(codes(&check_cluster(&report)), [(Error, "no_leader")]);
    }

    #[test]
    fn a_node_that_is_away_is_said_with_how_far_it_was_and_since_when() {
        let away = |status: &mut ClusterNodeStatus| {
            status.connected = false;
            (status.applied_entry, status.lag) = (Some(4988), Some(12));
            status.connection_error = "connection refused".into();
        };
        let findings = with_second(away);
        assert_eq!(codes(&findings), [(Error, "away")]);
        let said = &findings[0].message;
        for part in ["two", "2027-01-15T", "entry 4988, 12 behind", "connection refused"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(findings[0].advice.contains("/ip4/127.0.0.1/tcp/4002"), "{}", findings[0].advice);
        let never = with_second(|status| {
            away(status);
            status.last_seen = 0;
            status.node.as_mut().unwrap().role = "replica".into();
        });
        assert_eq!(codes(&never), [(Warning, "away")]);
        assert!(never[0].message.contains("never seen by one"));
    }

    #[test]
    fn a_connected_node_that_lags_or_is_silent_is_said() {
        let findings = with_second(|status| {
            status.lag = Some(20_000);
            status.behind_since = 1_700_000_000_000;
        });
        assert_eq!(codes(&findings), [(Warning, "lags")]);
        let said = &findings[0].message;
        assert!(said.contains("20000 entries") && said.contains("since 2023-11-14"), "{said}");
        let findings = with_second(|status| status.connection_error = "no answer".into());
        assert_eq!(codes(&findings), [(Error, "silent")]);
    }

    #[test]
    fn a_node_that_the_log_was_not_kept_for_needs_a_copy_unless_it_just_joined() {
        let findings = with_second(|status| status.is_holder = Some(false));
        assert_eq!(codes(&findings), [(Warning, "needs_copy")]);
        assert!(findings[0].advice.contains("by itself"));
        let new = with_second(|status| {
            status.is_holder = Some(false);
            status.node.as_mut().unwrap().joined_at = 1_799_999_900_000;
        });
        assert_eq!(codes(&new), []);
    }

    #[test]
    fn clocks_more_than_a_second_apart_are_said() {
        for (ahead, expected) in
            [(1000, None), (3250, Some("3.2 s ahead of")), (-1900, Some("1.9 s behind"))]
        {
            let findings = with_second(|status| status.clock_ahead = Some(ahead));
            let said = findings.first().map(|finding| finding.message.as_str());
            assert_eq!(said.is_some(), expected.is_some(), "{ahead}");
            assert!(expected.is_none_or(|part| said.unwrap().contains(part)), "{said:?}");
        }
    }

    #[test]
    fn a_raft_port_that_cannot_be_dialled_is_said_once() {
        let findings = with_second(|status| status.raft_error = "connection refused".into());
        assert_eq!(codes(&findings), [(Error, "raft_unreachable")]);
        assert!(findings[0].message.contains("127.0.0.1:7002"));
        let elsewhere = with_second(|status| {
            status.raft_error = "connection refused".into();
            status.node.as_mut().unwrap().addresses = vec!["/ip4/10.0.0.2/tcp/4001".into()];
        });
        assert_eq!(
            codes(&elsewhere),
            [(Error, "raft_unreachable")],
            "nobody is known to be elsewhere"
        );
        let mut report = replicated(&["one", "two"]);
        for (index, status) in report.cluster.nodes.iter_mut().enumerate() {
            status.node.as_mut().unwrap().addresses = vec![format!("/ip4/10.0.0.{index}/tcp/4001")];
            status.raft_error = "connection refused".into();
        }
        let findings = check_cluster(&report);
        assert_eq!(codes(&findings), [(Error, "raft_on_loopback"); 2]);
        assert!(findings[0].advice.contains("discovery.raft_adv_address on one"));
    }

    #[test]
    fn versions_that_differ_are_listed() {
        let findings = with_second(|status| status.node.as_mut().unwrap().version = "0.2.0".into());
        assert_eq!(codes(&findings), [(Warning, "versions")]);
        assert!(findings[0].message.contains("one 0.1.0, two 0.2.0"));
    }

    #[test]
    fn a_log_that_is_kept_for_a_node_that_is_away_is_said() {
        let mut report = replicated(&["one", "two", "three"]);
        lose(&mut report, 1);
        report.cluster.nodes[1].lag = Some(900);
        report.diagnosis.replication.as_mut().unwrap().log_bytes = 100 << 20;
        let findings = check_cluster(&report);
        assert_eq!(codes(&findings), [(Error, "away"), (Warning, "log_held")]);
        let said = &findings[1].message;
        assert!(
            said.contains("900 entries") && said.contains("100 MiB of at most 256 MiB"),
            "{said}"
        );
    }

    #[test]
    fn files_that_do_not_follow_the_log_are_said() {
        let mut report = replicated(&["one", "two"]);
        report.diagnosis.replication.as_mut().unwrap().problem =
            "the log begins at entry 9: they have to be copied from another node".into();
        let findings = check_cluster(&report);
        assert_eq!(codes(&findings), [(Error, "not_following")]);
        assert!(findings[0].advice.contains("by itself"));
        report.diagnosis.replication = None;
        assert_eq!(codes(&check_cluster(&report)), [(Warning, "not_replicated")]);
    }
}
