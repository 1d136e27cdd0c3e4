//! The arguments of the child.

use super::RqlitedConfig;
use super::program::Features;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

/// Runs a program that gets a signal when the thread that started it ends. Without it the same takes
/// code between `fork` and `exec`, which is `unsafe`.
pub(super) const SETPRIV: &str = "setpriv";
pub(super) const DIE_WITH_PARENT: [&str; 3] = ["--pdeathsig", "TERM", "--"];

/// More nodes than a cluster has. A voter that is told to expect them joins, or goes on when it finds
/// the cluster led, by itself perhaps; it never makes a new one. Told to join alone, it ends when
/// nobody lets it in, also when the cluster needs nobody but it.
const NEVER_ENOUGH: u32 = 1000;
/// How long a voter tries that; then it is started again.
const JOIN_TIME: &str = "15s";

pub(super) struct ChildFiles {
    pub(super) store: PathBuf,
    pub(super) auth: PathBuf,
}

pub(super) fn command(
    config: &RqlitedConfig,
    features: &Features,
    files: &ChildFiles,
    http: SocketAddr,
) -> Command {
    let mut command = if features.dies_with_parent {
        let mut command = Command::new(SETPRIV);
        command.args(DIE_WITH_PARENT).arg(&config.program);
        command
    } else {
        Command::new(&config.program)
    };
    command.args(arguments(config, features, files, http));
    command
}

fn arguments(
    config: &RqlitedConfig,
    features: &Features,
    files: &ChildFiles,
    http: SocketAddr,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut flag = |name: &str, value: OsString| {
        arguments.push(format!("-{name}").into());
        arguments.push(value);
    };
    flag("node-id", config.node_id.clone().into());
    flag("http-addr", http.to_string().into());
    flag("raft-addr", config.raft.to_string().into());
    if let Some(advertise) = config.raft_advertise {
        flag("raft-adv-addr", advertise.to_string().into());
    }
    flag("auth", files.auth.clone().into());
    if !config.join.is_empty() {
        flag("join", config.join.join(",").into());
        flag("join-as", super::auth_file::USER.into());
    }
    if features.has("cluster-connect-timeout") {
        // A node that hangs takes this long of the time to join through the next one.
        flag("cluster-connect-timeout", "5s".into());
    }
    if let Some(nodes) = config.bootstrap_expect {
        flag("bootstrap-expect", nodes.to_string().into());
    } else if !config.join.is_empty() && !config.non_voter {
        flag("bootstrap-expect", NEVER_ENOUGH.to_string().into());
        flag("bootstrap-expect-timeout", JOIN_TIME.into());
    }
    if let Some(tls) = &config.tls {
        flag("node-cert", tls.certificate.clone().into());
        flag("node-key", tls.key.clone().into());
        flag("node-ca-cert", tls.authority.clone().into());
        if let Some(name) = &tls.server_name {
            flag("node-verify-server-name", name.into());
        }
    }
    let heartbeat =
        if features.is_version_10() { "raft-heartbeat-timeout" } else { "raft-timeout" };
    // A new leader within about a second of the loss of the old one.
    flag(heartbeat, "500ms".into());
    flag("raft-election-timeout", "500ms".into());
    flag("raft-leader-lease-timeout", "400ms".into());
    // Small snapshots often: its database is small, and its log would grow with the entries' size.
    flag("raft-snap", "1024".into());
    flag("raft-snap-int", "5s".into());
    if features.has("compression-size") {
        // The bodies are compressed already.
        flag("compression-size", "1000000000".into());
    }
    if config.tls.is_some() {
        arguments.push("-node-verify-client".into());
    }
    if config.non_voter {
        arguments.push("-raft-non-voter=true".into());
    }
    // Last: `proc_stat::has_folder` looks for it there.
    arguments.push(files.store.clone().into());
    arguments
}
