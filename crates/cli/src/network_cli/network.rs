//! The node, its peers and its health.

use super::node_connection::NodeConnection;
use super::output::{
    Output, TableCell, format_size, format_time, json_time, print_note, printable,
};
use crate::cli_error::{CliError, FAILED};
use crate::version::{BUILD_TIME, COMMIT, VERSION};
use debros_gateway::answers::{CheckAnswer, NodeAnswer, PeerAnswer};
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub(super) fn version(out: Output) -> Result<(), CliError> {
    out.write_result(
        || json!({ "version": VERSION, "commit": COMMIT, "build_time": BUILD_TIME }),
        || format!("network-cli {VERSION} (commit {COMMIT}, built {BUILD_TIME})"),
    )
}

/// Exit code 1 when a probe failed: the answer itself is a success, the node's health is not.
pub(super) async fn health(connection: &NodeConnection, out: Output) -> Result<ExitCode, CliError> {
    let asked = Instant::now();
    let health = connection.public_client().health().await?;
    let response_time = asked.elapsed();
    let healthy = !health.checks.is_empty() && health.checks.iter().all(|check| check.ok);
    let status = if healthy { "ok" } else { "degraded" };
    if out.is_json() {
        // What the gateway says of the node behind it.
        let checks: Vec<_> = health.checks.iter().map(CheckAnswer::from).collect();
        out.write_json(&json!({
            "status": status,
            "checks": checks,
            "last_updated": json_time(health.checked_at),
            "response_time": response_time.as_secs_f64() * 1000.0,
        }))?;
    } else {
        let rows = health.checks.iter().map(|check| {
            let state = if check.ok { "ok".to_owned() } else { format!("failed: {}", check.error) };
            vec![
                TableCell::from(check.name.as_str()),
                TableCell::Number(latency_text(check.took_us)),
                state.into(),
            ]
        });
        out.write_table(&["CHECK", "TOOK", "RESULT"], rows)?;
        print_note(&format!("{status}, checked at {}", format_time(health.checked_at)));
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn latency_text(microseconds: u64) -> String {
    match microseconds {
        0..10_000 => format!("{microseconds} µs"),
        _ => format!("{} ms", microseconds / 1000),
    }
}

pub(super) async fn peers(connection: &NodeConnection, out: Output) -> Result<(), CliError> {
    let peers = connection.operator_client().await?.network().peers().await?;
    if out.is_json() {
        return out.write_json(&peers.into_iter().map(PeerAnswer::from).collect::<Vec<_>>());
    }
    if peers.is_empty() {
        print_note("the node knows no peers");
        return Ok(());
    }
    let rows = peers.iter().map(|peer| {
        let rtt = if peer.rtt_us == 0 { "-".to_owned() } else { latency_text(peer.rtt_us) };
        vec![
            TableCell::from(peer.id.as_str()),
            if peer.connected { "yes" } else { "no" }.into(),
            TableCell::Number(rtt),
            peer.agent.as_str().into(),
            format_time(peer.last_seen).into(),
            peer.addresses.join(" ").into(),
        ]
    });
    out.write_table(&["PEER", "CONNECTED", "RTT", "AGENT", "LAST SEEN", "ADDRESSES"], rows)
}

pub(super) async fn status(connection: &NodeConnection, out: Output) -> Result<(), CliError> {
    let status = connection.public_client().network().status().await?;
    if out.is_json() {
        return out.write_json(&NodeAnswer::from(status));
    }
    let mut lines = vec![
        ("node", printable(&status.node_id)),
        ("peer id", printable(&status.peer_id)),
        (
            "version",
            format!("{} (commit {})", printable(&status.version), printable(&status.commit)),
        ),
        (
            "started",
            format!("{}, {} ago", format_time(status.started_at), uptime_text(status.uptime_ms)),
        ),
        ("peers", status.peer_count.to_string()),
        (
            "database",
            format!("{}, {} engine", format_size(status.database_size), printable(&status.engine)),
        ),
    ];
    lines.extend(status.addresses.iter().map(|address| ("address", printable(address))));
    let text: Vec<String> =
        lines.iter().map(|(name, value)| format!("{name:<10}{value}")).collect();
    out.write_line(&text.join("\n"))
}

/// Whole seconds, in the units of a time span.
fn uptime_text(milliseconds: u64) -> String {
    let seconds = Duration::from_secs(milliseconds / 1000);
    if seconds.is_zero() {
        "less than 1s".to_owned()
    } else {
        crate::config::duration_text(seconds)
    }
}

pub(super) fn peer_id(connection: &NodeConnection, out: Output) -> Result<(), CliError> {
    out.write_result(|| json!({ "peer_id": connection.peer_id }), || connection.peer_id.clone())
}

pub(super) async fn connect(
    connection: &NodeConnection,
    out: Output,
    address: String,
) -> Result<(), CliError> {
    let peer = connection.operator_client().await?.operator().connect_peer(address).await?;
    out.write_result(
        || json!({ "status": "ok", "peer_id": peer }),
        || format!("connected to {}", printable(&peer)),
    )
}
