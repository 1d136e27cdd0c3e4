//! What may be wrong with the node that answers: its disk, its databases, its rqlited.

use super::finding::Finding;
use super::report::Report;
use crate::network_cli::output::format_size;
use debros_client::rpc::{DiskReserve, ReplicationDiagnosis};

/// What rqlite's own files take at most, in sizes of the log: the log itself, Raft's, a snapshot and
/// the next one.
const RQLITE_SHARE: u64 = 4;

pub(super) fn check_node(report: &Report) -> Vec<Finding> {
    let mut findings = check_disk(report);
    findings.extend(check_databases(report));
    findings.extend(check_health(report));
    findings.extend(report.replication().and_then(|found| check_rqlited(report, found)));
    findings.extend(report.replication().and_then(check_rqlite_version));
    findings
}

fn check_disk(report: &Report) -> Vec<Finding> {
    let (own, node) = (&report.diagnosis, report.node_name());
    let mut findings = Vec::new();
    match own.disk_reserve() {
        DiskReserve::GivenUp => findings.push(Finding::error(
            "disk_full",
            node,
            format!("the disk of {node}'s database is full: it takes deletes and nothing else"),
            "make room on the disk, or delete data; writes go on within a second after that",
        )),
        DiskReserve::Missing => findings.push(Finding::warning(
            "disk_reserve",
            node,
            format!("{node} keeps no disk space for deletes, because the disk had no room for it at the start"),
            "make room on the disk and start the node again",
        )),
        DiskReserve::Kept | DiskReserve::Unknown => {}
    }
    let may_grow = own.max_database_size.saturating_sub(report.status.database_size);
    let of_rqlite =
        report.replication().map_or(0, |found| found.max_log_bytes.saturating_mul(RQLITE_SHARE));
    let needed = may_grow.saturating_add(own.max_temp_size).saturating_add(of_rqlite);
    if let Some(free) = own.disk_free.filter(|free| *free < needed) {
        findings.push(Finding::warning(
            "disk_short",
            node,
            format!(
                "{} are free on the disk of {node}'s database, and by its limits it may take up to {} more",
                format_size(free),
                format_size(needed)
            ),
            "make room, or lower database.max_database_size and database.max_temp_size to what the disk has",
        ));
    }
    findings
}

fn check_databases(report: &Report) -> Vec<Finding> {
    let (own, node) = (&report.diagnosis, report.node_name());
    let advice = if own.in_cluster {
        "move the node's db and rqlite folders away, remove the node on another one, and let it join anew: it gets a copy of the \
         others' data"
    } else {
        "put a backup back with `network-cli db restore`; `network-cli db backup --list` shows what there is"
    };
    let mut findings = Vec::new();
    for namespace in &own.lost_namespaces {
        let message = format!(
            "the database of the namespace {namespace} is missing or was replaced on {node}"
        );
        findings.push(Finding::error("namespace_lost", namespace, message, advice));
    }
    for namespace in &own.damaged_namespaces {
        let message = format!(
            "the database of the namespace {namespace} is damaged on {node}: it takes no writes"
        );
        findings.push(Finding::error("namespace_damaged", namespace, message, advice));
    }
    if own.system_damaged {
        let message = format!("the system's database of {node} is damaged: it takes no writes");
        findings.push(Finding::error("system_damaged", node, message, advice));
    }
    findings
}

/// The probes that failed. Those of the database say nothing new where nobody leads.
fn check_health(report: &Report) -> Vec<Finding> {
    let is_explained = |name: &str| {
        name == debros_proto::limits::NAMESPACES_CHECK
            || name.starts_with("database") && report.is_without_leader()
    };
    let failed =
        report.health.checks.iter().filter(|check| !check.ok && !is_explained(&check.name));
    failed
        .map(|check| {
            Finding::error(
                "check_failed",
                &check.name,
                format!(
                    "the probe {} of {} fails: {}",
                    check.name,
                    report.node_name(),
                    check.error
                ),
                "the node's log has more; `network-cli health` runs the probes again",
            )
        })
        .collect()
}

fn check_rqlited(report: &Report, found: &ReplicationDiagnosis) -> Option<Finding> {
    let node = report.node_name();
    let restarts = found.rqlited_restarts;
    let (code, message, advice) = match found.rqlited_state.as_str() {
        "serving" => return None,
        // Without a majority it never serves, which is said already.
        "starting" if report.is_without_leader() => return None,
        "restarting" => (
            "rqlited_restarting",
            format!(
                "rqlited of {node} ended and is started again ({restarts} times since the node started): {}",
                found.rqlited_reason
            ),
            "what it said stands in the node's log under rqlited; a port that is taken, a full disk and a damaged rqlite folder \
             are what it is most often",
        ),
        "starting" => (
            "rqlited_starting",
            format!("rqlited of {node} does not serve yet"),
            "wait some seconds and ask again; the node's log says what it waits for",
        ),
        _ => (
            "rqlited_stopped",
            format!("rqlited of {node} is stopped"),
            "start the node again, unless it is being stopped",
        ),
    };
    Some(Finding::error(code, node, message, advice))
}

fn check_rqlite_version(found: &ReplicationDiagnosis) -> Option<Finding> {
    found.rqlited_is_version_8.then(|| {
        Finding::warning(
            "rqlited_version_8",
            "rqlited",
            "rqlited is of version 8, which can lose rows in a snapshot; the node guards against that, at the cost of disk writes"
                .to_owned(),
            "take rqlite 9.4.5 or later, one node after another",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::FindingLevel::{Error, Warning};
    use super::super::report::Report;
    use super::super::report::tests::{alone, codes, replicated};
    use super::check_node;
    use debros_client::rpc::{DiskReserve, HealthCheck};

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_healthy_node_has_no_findings() {
        assert_eq!(codes(&check_node(&alone())), []);
        assert_eq!(codes(&check_node(&replicated(&["one", "two"]))), []);
    }

    #[test]
    fn a_disk_without_room_is_said_with_what_the_limits_need() {
        let with = |change: fn(&mut Report)| {
            let mut report = alone();
            change(&mut report);
            check_node(&report)
        };
        let full = with(|report| report.diagnosis.set_disk_reserve(DiskReserve::GivenUp));
        assert_eq!(codes(&full), [(Error, "disk_full")]);
        let missing = with(|report| report.diagnosis.set_disk_reserve(DiskReserve::Missing));
        assert_eq!(codes(&missing), [(Warning, "disk_reserve")]);
        let short = with(|report| report.diagnosis.disk_free = Some(GIB));
        assert_eq!(codes(&short), [(Warning, "disk_short")]);
        assert!(short[0].message.contains("1024 MiB") && short[0].message.contains("2047 MiB"));
        // Where rqlite needs room as well.
        let mut report = replicated(&["one", "two"]);
        report.diagnosis.disk_free = Some(2 * GIB + 1);
        assert_eq!(codes(&check_node(&report)), [(Warning, "disk_short")]);
    }

    #[test]
    fn lost_and_damaged_databases_are_named() {
        let mut report = alone();
        report.diagnosis.lost_namespaces = vec!["a".into()];
        report.diagnosis.damaged_namespaces = vec!["b".into()];
        report.diagnosis.system_damaged = true;
        let check = HealthCheck { name: "namespaces".into(), ..Default::default() };
        report.health.checks.push(check);
        let findings = check_node(&report);
        assert_eq!(
            codes(&findings),
            [(Error, "namespace_lost"), (Error, "namespace_damaged"), (Error, "system_damaged")]
        );
        assert_eq!((findings[0].subject.as_str(), findings[1].subject.as_str()), ("a", "b"));
        assert!(findings[0].advice.contains("db restore"));
        report.diagnosis.in_cluster = true;
        assert!(check_node(&report)[0].advice.contains("join anew"));
    }

    #[test]
    fn a_probe_that_fails_is_said_unless_the_missing_leader_explains_it() {
        let check = |name: &str| HealthCheck {
            name: name.into(),
            error: "no answer".into(),
            ..Default::default()
        };
        let mut report = replicated(&["one", "two"]);
        report.health.checks = vec![check("database_write"), check("pubsub")];
        assert_eq!(codes(&check_node(&report)), [(Error, "check_failed"); 2]);
        report.cluster.leader = None;
        let findings = check_node(&report);
        assert_eq!(codes(&findings), [(Error, "check_failed")]);
        assert!(
            findings[0].message.contains("pubsub") && findings[0].message.contains("no answer")
        );
    }

    #[test]
    fn rqlited_that_does_not_serve_is_said_with_its_reason() {
        let with = |state: &str| {
            let mut report = replicated(&["one", "two"]);
            let found = report.diagnosis.replication.as_mut().unwrap();
            found.rqlited_state = state.into();
            found.rqlited_reason = "address already in use".into();
            found.rqlited_restarts = 7;
            check_node(&report)
        };
        let restarting = with("restarting");
        assert_eq!(codes(&restarting), [(Error, "rqlited_restarting")]);
        let said = &restarting[0].message;
        assert!(said.contains("7 times") && said.contains("address already in use"), "{said}");
        assert_eq!(codes(&with("starting")), [(Error, "rqlited_starting")]);
        assert_eq!(codes(&with("stopped")), [(Error, "rqlited_stopped")]);
        let mut report = replicated(&["one", "two"]);
        report.diagnosis.replication.as_mut().unwrap().rqlited_is_version_8 = true;
        assert_eq!(codes(&check_node(&report)), [(Warning, "rqlited_version_8")]);
    }
}
