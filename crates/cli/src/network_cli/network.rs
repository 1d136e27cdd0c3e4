//! The node, its peers and its health.

use super::output::{Output, Shown, json_time, note, printable, size, time};
use super::session::Session;
use crate::fail::{FAILED, Failure};
use crate::version::{BUILD_TIME, COMMIT, VERSION};
use debros_gateway::answers::{CheckAnswer, NodeAnswer, PeerAnswer};
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub(super) fn version(out: Output) -> Result<(), Failure> {
    out.result(
        || json!({ "version": VERSION, "commit": COMMIT, "build_time": BUILD_TIME }),
        || format!("network-cli {VERSION} (commit {COMMIT}, built {BUILD_TIME})"),
    )
}

/// Exit code 1 when a probe failed: the answer itself is a success, the node's health is not.
pub(super) async fn health(session: &Session, out: Output) -> Result<ExitCode, Failure> {
    let asked = Instant::now();
    let health = session.public().health().await?;
    let response_time = asked.elapsed();
    let healthy = !health.checks.is_empty() && health.checks.iter().all(|check| check.ok);
    let status = if healthy { "ok" } else { "degraded" };
    if out.is_json() {
        // What the gateway says of the node behind it.
        let checks: Vec<_> = health.checks.iter().map(CheckAnswer::from).collect();
        out.json(&json!({
            "status": status,
            "checks": checks,
            "last_updated": json_time(health.checked_at),
            "response_time": response_time.as_secs_f64() * 1000.0,
        }))?;
    } else {
        let rows = health.checks.iter().map(|check| {
            let state = if check.ok { "ok".to_owned() } else { format!("failed: {}", check.error) };
            vec![Shown::from(check.name.as_str()), Shown::Number(took(check.took_us)), state.into()]
        });
        out.table(&["CHECK", "TOOK", "RESULT"], rows)?;
        note(&format!("{status}, checked at {}", time(health.checked_at)));
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn took(microseconds: u64) -> String {
    match microseconds {
        0..10_000 => format!("{microseconds} µs"),
        _ => format!("{} ms", microseconds / 1000),
    }
}

pub(super) async fn peers(session: &Session, out: Output) -> Result<(), Failure> {
    let peers = session.operator().await?.network().peers().await?;
    if out.is_json() {
        return out.json(&peers.into_iter().map(PeerAnswer::from).collect::<Vec<_>>());
    }
    if peers.is_empty() {
        note("the node knows no peers");
        return Ok(());
    }
    let rows = peers.iter().map(|peer| {
        let rtt = if peer.rtt_us == 0 { "-".to_owned() } else { took(peer.rtt_us) };
        vec![
            Shown::from(peer.id.as_str()),
            if peer.connected { "yes" } else { "no" }.into(),
            Shown::Number(rtt),
            peer.agent.as_str().into(),
            time(peer.last_seen).into(),
            peer.addresses.join(" ").into(),
        ]
    });
    out.table(&["PEER", "CONNECTED", "RTT", "AGENT", "LAST SEEN", "ADDRESSES"], rows)
}

pub(super) async fn status(session: &Session, out: Output) -> Result<(), Failure> {
    let status = session.public().network().status().await?;
    if out.is_json() {
        return out.json(&NodeAnswer::from(status));
    }
    let mut lines = vec![
        ("node", printable(&status.node_id)),
        ("peer id", printable(&status.peer_id)),
        ("version", format!("{} (commit {})", printable(&status.version), printable(&status.commit))),
        ("started", format!("{}, {} ago", time(status.started_at), uptime(status.uptime_ms))),
        ("peers", status.peer_count.to_string()),
        ("database", format!("{}, {} engine", size(status.database_size), printable(&status.engine))),
    ];
    lines.extend(status.addresses.iter().map(|address| ("address", printable(address))));
    let text: Vec<String> = lines.iter().map(|(name, value)| format!("{name:<10}{value}")).collect();
    out.line(&text.join("\n"))
}

/// Whole seconds, in the units of a time span.
fn uptime(milliseconds: u64) -> String {
    let seconds = Duration::from_secs(milliseconds / 1000);
    if seconds.is_zero() { "less than 1s".to_owned() } else { crate::config::duration_text(seconds) }
}

pub(super) fn peer_id(session: &Session, out: Output) -> Result<(), Failure> {
    out.result(|| json!({ "peer_id": session.peer_id }), || session.peer_id.clone())
}

pub(super) async fn connect(session: &Session, out: Output, address: String) -> Result<(), Failure> {
    let peer = session.operator().await?.operator().connect_peer(address).await?;
    out.result(|| json!({ "status": "ok", "peer_id": peer }), || format!("connected to {}", printable(&peer)))
}
