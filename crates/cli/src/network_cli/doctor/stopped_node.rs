//! What its data folder says of a node that does not answer.

use super::finding::Finding;
use crate::dialled_members::dial_members;
use crate::network_cli::output::{format_size, format_time};
use debros_node::{RunPhase, RunState, SeenMember};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

/// With less disk space than this a database does not open: its reserve, and some room.
const MIN_DISK_FREE: u64 = 64 << 20;

/// What is known of a node by its data folder.
#[derive(Clone, Debug, Default)]
pub(super) struct FolderReport {
    pub(super) data_dir: PathBuf,
    /// It holds something of a node.
    pub(super) has_node: bool,
    /// What the node did last, and whether it runs.
    pub(super) run: Option<(RunState, bool)>,
    /// Why it does not answer where it said that it listens; empty: it says nowhere.
    pub(super) dial_error: String,
    /// Addresses that it listens on and that other programs have.
    pub(super) taken_ports: Vec<String>,
    /// A process that holds the database although the node does not run.
    pub(super) holder: Option<String>,
    /// Bytes that are free on the disk of the folder.
    pub(super) disk_free: Option<u64>,
    /// The other nodes of its cluster, with why their Raft ports cannot be reached.
    pub(super) members: Vec<(SeenMember, Option<String>)>,
}

impl FolderReport {
    /// Looks at a folder. Waits some seconds where other nodes of the cluster do not answer.
    pub(super) fn read(data_dir: &Path, dial_error: String) -> Self {
        let run = RunState::read(data_dir);
        let is_running = run.as_ref().is_some_and(|(_, is_running)| *is_running);
        let waits = run.as_ref().is_some_and(|(state, is_running)| {
            *is_running && state.phase == RunPhase::WaitingForMajority
        });
        let state = run.as_ref().map(|(state, _)| state).filter(|_| !is_running);
        Self {
            data_dir: data_dir.to_owned(),
            has_node: run.is_some() || data_dir.join("identity.key").exists(),
            taken_ports: state.map(taken_ports).unwrap_or_default(),
            holder: state.and_then(|state| {
                let locks = [state.database_dir.join("LOCK"), data_dir.join("rqlite/rqlited.lock")];
                locks.iter().find_map(|path| lock_holder(path))
            }),
            disk_free: nix::sys::statvfs::statvfs(data_dir)
                .ok()
                .map(|disk| disk.fragment_size() * disk.blocks_available()),
            members: if waits { dial_members(data_dir) } else { Vec::new() },
            run,
            dial_error,
        }
    }
}

fn taken_ports(state: &RunState) -> Vec<String> {
    let listen = state.listen.iter().filter_map(|address| tcp_address(address));
    let raft = state.raft_listen.parse().ok();
    listen.chain(raft).filter(|address| is_taken(*address)).map(|it| it.to_string()).collect()
}

/// The address of `/ip4/<address>/tcp/<port>`, unless the port is any free one.
fn tcp_address(multiaddr: &str) -> Option<SocketAddr> {
    match multiaddr.split('/').collect::<Vec<_>>()[..] {
        ["", "ip4" | "ip6", ip, "tcp", port, ..] => {
            let ip: IpAddr = ip.parse().ok()?;
            port.parse().ok().filter(|port| *port != 0).map(|port| SocketAddr::new(ip, port))
        }
        _ => None,
    }
}

fn is_taken(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

fn lock_holder(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    if !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return None;
    }
    let pid = debros_proto::regular_file::read_to_string(path).unwrap_or_default();
    Some(match pid.trim().parse::<u32>() {
        Ok(pid) => format!("process {pid}"),
        Err(_) => "another process".to_owned(),
    })
}

/// What is wrong with a node that does not answer.
pub(super) fn check_folder(report: &FolderReport) -> Vec<Finding> {
    let folder = report.data_dir.display().to_string();
    let mut findings = Vec::new();
    match &report.run {
        Some((state, true)) => findings.extend(check_running(report, state, &folder)),
        Some((state, false)) => findings.push(check_ended(state, &folder)),
        None if report.has_node => findings.push(Finding::error(
            "no_answer",
            &folder,
            format!("the node of {folder} does not answer{}", dial_text(report)),
            &start_advice(&folder),
        )),
        None => findings.push(Finding::error(
            "no_node",
            &folder,
            format!("there is no node in {folder}"),
            "name the node's data folder with DEBROS_NODE_DATA_DIR, or its address with --bootstrap; or start one with \
             `network-node --data-dir`",
        )),
    }
    for address in &report.taken_ports {
        let message =
            format!("another program has {address}, which the node of {folder} listens on");
        let advice = format!(
            "end that program (`ss -ltnp` names it), or give the node another port: node.listen_addresses for peers, \
             database.rqlite_raft_port for Raft ({address})"
        );
        findings.push(Finding::error("port_in_use", address, message, &advice));
    }
    if let Some(holder) = &report.holder {
        let message =
            format!("{holder} holds the database of {folder}, although no node runs there");
        let advice = "wait until it has ended; if it does not, end it: a node of an earlier version, a recovery, or an rqlited";
        findings.push(Finding::error("folder_locked", &folder, message, advice));
    }
    if let Some(free) = report.disk_free.filter(|free| *free < MIN_DISK_FREE) {
        let message = format!("{} are left on the disk of {folder}", format_size(free));
        findings.push(Finding::error("disk_full", &folder, message, "make room on the disk"));
    }
    findings
}

fn check_running(report: &FolderReport, state: &RunState, folder: &str) -> Vec<Finding> {
    let (pid, since) = (state.pid, format_time(state.since));
    match state.phase {
        RunPhase::WaitingForMajority => check_waiting(report, state, folder),
        RunPhase::Starting => vec![Finding::error(
            "starting",
            folder,
            format!(
                "the node of {folder} (process {pid}) is starting since {since} and does not serve yet"
            ),
            "wait: a database that was not closed in order is checked first, and a node that joins copies the data; its log says \
             what it does",
        )],
        RunPhase::Ready | RunPhase::Stopped | RunPhase::Failed => vec![Finding::error(
            "no_answer",
            folder,
            format!(
                "the node of {folder} (process {pid}) runs and does not answer{}",
                dial_text(report)
            ),
            "ask again in a moment: it may be starting again or stopping; if it stays so, its log has more, and a second SIGTERM \
             ends it",
        )],
    }
}

fn check_waiting(report: &FolderReport, state: &RunState, folder: &str) -> Vec<Finding> {
    let voters: Vec<_> = report.members.iter().filter(|(member, _)| member.is_voter).collect();
    // This node votes as well, or waits for the same.
    let (all, there) =
        (voters.len() + 1, voters.iter().filter(|(_, failure)| failure.is_none()).count() + 1);
    let message = format!(
        "the node of {folder} waits for a majority of the cluster's {all} voting nodes since {}: {there} {} there, and {} are needed",
        format_time(state.since),
        if there == 1 { "is" } else { "are" },
        all / 2 + 1
    );
    let mut findings = vec![Finding::error(
        "no_quorum",
        "cluster",
        message,
        "start the other nodes. If they are lost for good, stop this one and run `network-node recover` on it",
    )];
    for (member, failure) in &report.members {
        let Some(why) = failure else { continue };
        let (name, address) = (&member.name, &member.raft_address);
        let message = format!(
            "the Raft port of {name}, {address}, cannot be reached: {why}; {name} was seen last at {}",
            format_time(member.last_seen)
        );
        let advice = format!("start {name}, or mend the network between the two");
        findings.push(Finding::error("away", name, message, &advice));
    }
    findings
}

fn check_ended(state: &RunState, folder: &str) -> Finding {
    let since = format_time(state.since);
    let (code, message) = match state.phase {
        RunPhase::Stopped => ("stopped", format!("the node of {folder} was stopped at {since}")),
        RunPhase::Failed => {
            let message = format!("the node of {folder} ended at {since}: {}", state.message);
            return Finding::error(
                "start_failed",
                folder,
                message,
                "do what it says, and start it again",
            );
        }
        RunPhase::Starting | RunPhase::WaitingForMajority | RunPhase::Ready => (
            "died",
            format!(
                "the node of {folder} does not run, and was not stopped in order: after {since} it was killed, it crashed, or its \
                 machine lost power"
            ),
        ),
    };
    Finding::error(code, folder, message, &start_advice(folder))
}

fn start_advice(folder: &str) -> String {
    format!("start it as it was started before, as with `network-node --data-dir {folder}`")
}

fn dial_text(report: &FolderReport) -> String {
    match report.dial_error.as_str() {
        "" => String::new(),
        error => format!(": {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::FindingLevel::Error;
    use super::super::report::tests::codes;
    use super::{FolderReport, check_folder, is_taken, lock_holder, tcp_address};
    use debros_node::{RunPhase, RunState, SeenMember};
    use std::net::TcpListener;

    fn folder(phase: RunPhase, is_running: bool) -> FolderReport {
        let state = RunState {
            pid: 77,
            phase,
            since: 1_700_000_000_000,
            message: String::new(),
            database_dir: "/d/db".into(),
            listen: Vec::new(),
            raft_listen: String::new(),
        };
        let run = Some((state, is_running));
        FolderReport { data_dir: "/d".into(), has_node: true, run, ..Default::default() }
    }

    #[track_caller]
    fn only(report: &FolderReport) -> (&'static str, String) {
        let findings = check_folder(report);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].level, Error);
        (findings[0].code, findings[0].message.clone())
    }

    #[test]
    fn what_the_node_did_last_says_why_it_does_not_answer() {
        for (phase, is_running, code, part) in [
            (RunPhase::Stopped, false, "stopped", "was stopped at 2023-11-14"),
            (RunPhase::Ready, false, "died", "not stopped in order"),
            (RunPhase::Starting, false, "died", "not stopped in order"),
            (RunPhase::Starting, true, "starting", "process 77"),
            (RunPhase::Ready, true, "no_answer", "process 77"),
        ] {
            let (found, said) = only(&folder(phase, is_running));
            assert_eq!(found, code);
            assert!(said.contains(part), "{said}");
        }
        let mut failed = folder(RunPhase::Failed, false);
        failed.run.as_mut().unwrap().0.message = "rqlited was not found".into();
        let (code, said) = only(&failed);
        assert!(code == "start_failed" && said.contains("rqlited was not found"), "{said}");
        assert_eq!(only(&FolderReport::default()).0, "no_node");
        let unknown =
            FolderReport { has_node: true, dial_error: "refused".into(), ..Default::default() };
        let (code, said) = only(&unknown);
        assert!(code == "no_answer" && said.ends_with(": refused"), "{said}");
    }

    #[test]
    fn a_node_that_waits_for_a_majority_names_those_it_waits_for() {
        let mut report = folder(RunPhase::WaitingForMajority, true);
        let member = |name: &str| SeenMember {
            peer_id: name.into(),
            name: name.into(),
            raft_address: "10.0.0.2:7001".into(),
            is_voter: true,
            last_seen: 1_700_000_000_000,
        };
        report.members =
            vec![(member("two"), None), (member("three"), Some("connection refused".into()))];
        report.members.push((member("four"), Some("connection refused".into())));
        let findings = check_folder(&report);
        assert_eq!(codes(&findings), [(Error, "no_quorum"), (Error, "away"), (Error, "away")]);
        let said = &findings[0].message;
        assert!(said.contains("4 voting nodes") && said.contains("2 are there"), "{said}");
        assert!(findings[0].advice.contains("network-node recover"));
        assert!(findings[1].message.contains("three") && findings[1].message.contains("2023-11"));
    }

    #[test]
    fn ports_locks_and_disks_in_the_way_are_said() {
        let mut report = folder(RunPhase::Stopped, false);
        report.taken_ports = vec!["0.0.0.0:4001".into()];
        report.holder = Some("process 9".into());
        report.disk_free = Some(1 << 20);
        let findings = check_folder(&report);
        let expected = [
            (Error, "stopped"),
            (Error, "port_in_use"),
            (Error, "folder_locked"),
            (Error, "disk_full"),
        ];
        assert_eq!(codes(&findings), expected);
        assert!(findings[2].message.contains("process 9"));
    }

    #[test]
    fn ports_and_locks_are_found_where_they_are() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(is_taken(address));
        drop(listener);
        assert!(!is_taken(address));
        assert_eq!(tcp_address("/ip4/127.0.0.1/tcp/0"), None);
        assert_eq!(tcp_address("/ip4/127.0.0.1/udp/1/quic-v1"), None);
        assert_eq!(tcp_address("/ip6/::1/tcp/1"), Some("[::1]:1".parse().unwrap()));

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("LOCK");
        assert_eq!(lock_holder(&path), None);
        std::fs::write(&path, "12\n").unwrap();
        assert_eq!(lock_holder(&path), None);
        let held = std::fs::File::open(&path).unwrap();
        held.lock().unwrap();
        assert_eq!(lock_holder(&path).as_deref(), Some("process 12"));
    }
}
