//! `doctor`: what is wrong with a node or its cluster, and what to do about it.
//!
//! The node is asked for what it knows (`report.rs`), and the rules turn that into findings:
//! `node_rules.rs`, `cluster_rules.rs`. Of one that does not answer its data folder is looked at:
//! `stopped_node.rs`.

mod cluster_rules;
mod finding;
mod machines;
mod node_rules;
mod report;
mod stopped_node;

use super::args::GlobalOptions;
use super::environment::{DATA_DIR, env_variable};
use super::node_connection::NodeConnection;
use super::output::Output;
use crate::cli_error::{CliError, UNREACHABLE};
use crate::local_node::{LocalNode, data_dirs};
use finding::{Finding, write_findings};
use report::Report;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use stopped_node::{FolderReport, check_folder};

/// How long a node of this machine may take to answer.
const LOCAL_CONNECT: Duration = Duration::from_secs(5);

/// Exit code 1 with errors, as of a node that does not answer.
pub(super) async fn run(global: &GlobalOptions, out: Output) -> Result<ExitCode, CliError> {
    let unreachable = match ask_node(global).await {
        Ok(report) => {
            let mut findings = node_rules::check_node(&report);
            findings.extend(cluster_rules::check_cluster(&report));
            return write_findings(out, findings, &healthy_text(&report));
        }
        Err(cli_error) if cli_error.exit == UNREACHABLE => cli_error,
        Err(cli_error) => return Err(cli_error),
    };
    let dirs = silent_folders(global);
    let message = unreachable.message.clone();
    let looked = tokio::task::spawn_blocking(move || look_at_folders(&dirs, &message)).await;
    let mut findings = looked.map_err(|error| CliError::new(error.to_string()))?;
    if findings.is_empty() {
        let advice = unreachable.hint.as_deref().unwrap_or(
            "see whether it runs (`network-cli doctor` on its machine says more), and whether a firewall is in between",
        );
        let subject = global.bootstrap.join(",");
        findings.push(Finding::error("no_answer", &subject, unreachable.message, advice));
    }
    write_findings(out, findings, "")
}

async fn ask_node(global: &GlobalOptions) -> Result<Report, CliError> {
    let connection = match named_folder(global) {
        None => NodeConnection::open(global).await?,
        // Another node of this machine must not answer for it.
        Some(folder) => match LocalNode::read(&folder) {
            Some(node) => {
                let timeout = global.timeout.min(LOCAL_CONNECT);
                let (bootstrap, timeouts) = (vec![node.address], timeout);
                let only = GlobalOptions { bootstrap, timeout: timeouts, ..global.clone() };
                let mut connection = NodeConnection::open(&only).await?;
                connection.timeout = global.timeout;
                connection
            }
            None => {
                return Err(CliError::unreachable(format!(
                    "there is no peer.info in {}",
                    folder.display()
                )));
            }
        },
    };
    let report = read_report(&connection).await;
    connection.close().await;
    report
}

async fn read_report(connection: &NodeConnection) -> Result<Report, CliError> {
    let client = connection.operator_client().await?;
    let (network, cluster) = (client.network(), client.cluster());
    let (status, health, cluster) =
        tokio::try_join!(network.status(), client.health(), cluster.diagnose())?;
    Ok(Report::new(status, health, cluster))
}

/// The data folder of the node that is meant, where only one can be.
fn named_folder(global: &GlobalOptions) -> Option<PathBuf> {
    let is_elsewhere = !global.bootstrap.is_empty()
        || global.production
        || env_variable("DEBROS_BOOTSTRAP_PEERS").is_some();
    env_variable(DATA_DIR).filter(|_| !is_elsewhere).map(PathBuf::from)
}

/// The data folders of this machine whose node may be the one that does not answer.
fn silent_folders(global: &GlobalOptions) -> Vec<PathBuf> {
    if let Some(folder) = named_folder(global) {
        return vec![folder];
    }
    let dirs = data_dirs(env_variable(DATA_DIR).as_deref());
    let is_meant = |dir: &PathBuf| match LocalNode::read(dir) {
        Some(node) if !global.bootstrap.is_empty() => {
            global.bootstrap.iter().any(|address| address.ends_with(&node.peer_id.to_string()))
        }
        _ => global.bootstrap.is_empty() && is_node_folder(dir),
    };
    dirs.into_iter().filter(is_meant).collect()
}

fn is_node_folder(dir: &Path) -> bool {
    dir.join("identity.key").exists()
}

fn look_at_folders(dirs: &[PathBuf], dial_error: &str) -> Vec<Finding> {
    let error = |dir: &Path| if LocalNode::read(dir).is_some() { dial_error } else { "" };
    let reports = dirs.iter().map(|dir| FolderReport::read(dir, error(dir).to_owned()));
    reports.flat_map(|report| check_folder(&report)).collect()
}

fn healthy_text(report: &Report) -> String {
    let (node, version) = (report.node_name(), &report.status.version);
    if report.replication().is_none() {
        return format!("all is well: {node} (version {version}) serves, alone");
    }
    let leader =
        report.nodes().find(|(node, _)| Some(&node.peer_id) == report.cluster.leader.as_ref());
    format!(
        "all is well: {node} (version {version}) serves in a cluster of {} nodes, {} of them voting, led by {}",
        report.nodes().count(),
        report.voters().all,
        leader.map_or("an unknown node", |(node, _)| node.name.as_str())
    )
}
