//! The whole run: every operation on every server, side by side, as often as asked.

use crate::load::{self, LoadPlan};
use crate::servers::{BenchServer, Operation, ServerKind};
use crate::{median, pubsub};
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use std::net::SocketAddr;
use std::time::Duration;

/// The operations to measure, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct MeasurePlan {
    pub(crate) runs: usize,
    pub(crate) operations: Vec<Operation>,
    pub(crate) connections: Vec<usize>,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// Keys that puts and gets draw from, and rows that point reads draw from.
    pub(crate) keys: u64,
}

/// One figure of the table: the medians over the runs.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MeasuredCell {
    pub(crate) operation: Operation,
    pub(crate) connections: usize,
    pub(crate) server: ServerKind,
    /// Requests per second.
    pub(crate) rate: f64,
    /// Lowest and highest of the runs.
    pub(crate) spread: (f64, f64),
    /// Microseconds.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
    /// Processor time of the serving processes per request, microseconds.
    pub(crate) server_cpu: f64,
    /// Processor time of the generator per request, microseconds.
    pub(crate) generator_cpu: f64,
}

/// Runs the table. `progress` receives the next step.
pub(crate) fn table(
    servers: &[BenchServer],
    scope: &MeasurePlan,
    mut progress: impl FnMut(&str),
) -> Result<Vec<MeasuredCell>> {
    let mut found: Vec<(Operation, usize, ServerKind, CellSample)> = Vec::new();
    for run in 0..scope.runs {
        for &operation in &scope.operations {
            for &connections in &scope.connections {
                // The servers take turns at going first: other load on the machine then affects
                // none more than the others.
                for turn in 0..servers.len() {
                    let server = &servers[(turn + run) % servers.len()];
                    progress(&format!(
                        "run {} of {}: {}, {connections} connections, {}",
                        run + 1,
                        scope.runs,
                        operation.title(),
                        server.kind.title(),
                    ));
                    let sample = measure_cell(server, operation, connections, run, scope)
                        .with_context(|| {
                            format!(
                                "{} on {} with {connections} connections",
                                operation.title(),
                                server.kind.title()
                            )
                        })?;
                    found.push((operation, connections, server.kind, sample));
                }
            }
        }
    }
    let mut cells = Vec::new();
    for &operation in &scope.operations {
        for &connections in &scope.connections {
            for server in servers {
                let samples: Vec<&CellSample> = found
                    .iter()
                    .filter(|(of, with, on, _)| {
                        (*of, *with, *on) == (operation, connections, server.kind)
                    })
                    .map(|(.., sample)| sample)
                    .collect();
                let of = |part: fn(&CellSample) -> f64| {
                    median(&mut samples.iter().map(|s| part(s)).collect::<Vec<_>>())
                };
                let rates = samples.iter().map(|sample| sample.rate);
                cells.push(MeasuredCell {
                    operation,
                    connections,
                    server: server.kind,
                    rate: of(|s| s.rate),
                    spread: (
                        rates.clone().fold(f64::INFINITY, f64::min),
                        rates.fold(0.0, f64::max),
                    ),
                    p50: of(|s| s.p50),
                    p99: of(|s| s.p99),
                    server_cpu: of(|s| s.server_cpu),
                    generator_cpu: of(|s| s.generator_cpu),
                });
            }
        }
    }
    Ok(cells)
}

struct CellSample {
    rate: f64,
    p50: f64,
    p99: f64,
    server_cpu: f64,
    generator_cpu: f64,
}

/// One run of one cell, and the check that the server did what it answered.
fn measure_cell(
    server: &BenchServer,
    operation: Operation,
    connections: usize,
    run: usize,
    scope: &MeasurePlan,
) -> Result<CellSample> {
    let template = server.template(operation);
    let seed = ((run as u64) << 32) ^ ((operation as u64) << 16) ^ connections as u64;
    let plan = LoadPlan {
        connections,
        warm_up: scope.warm_up,
        duration: scope.duration,
        keys: scope.keys,
        // Distinguished from the writes of other cells.
        fresh: crate::request_template::FIRST * 2 + seed % 1000 * 1_000_000,
        seed,
    };
    let before = if operation == Operation::Insert { server.count_items()? } else { 0 };
    let busy = server.cpu_time()?;
    let outcome = load::run(server.address, &template, plan)?;
    let busy = server.cpu_time()?.saturating_sub(busy);
    match operation {
        Operation::Put => {
            outcome.last.iter().try_for_each(|&(key, fresh)| server.verify_put(key, fresh))?
        }
        Operation::Insert => {
            let rows = server.count_items()? - before;
            ensure!(
                rows == outcome.answered,
                "{} inserts were answered, {rows} rows are there",
                outcome.answered
            );
        }
        Operation::Get | Operation::Read => {}
    }
    Ok(CellSample {
        rate: outcome.rate,
        p50: outcome.p50,
        p99: outcome.p99,
        server_cpu: busy.as_secs_f64() * 1e6 / outcome.answered as f64,
        generator_cpu: outcome.generator_cpu,
    })
}

/// Pub/sub through the gateway at an address, the medians over the runs.
pub(crate) fn pubsub(
    address: SocketAddr,
    key: &str,
    subscribers: &[usize],
    scope: &MeasurePlan,
    mut progress: impl FnMut(&str),
) -> Result<Vec<pubsub::PubsubOutcome>> {
    let mut outcomes = Vec::new();
    for &subscribers in subscribers {
        let mut runs = Vec::with_capacity(scope.runs);
        for run in 0..scope.runs {
            progress(&format!(
                "run {} of {}: pub/sub, {subscribers} subscribers",
                run + 1,
                scope.runs
            ));
            let outcome = pubsub::run(address, key, subscribers, scope.duration);
            runs.push(outcome.with_context(|| format!("pub/sub with {subscribers} subscribers"))?);
        }
        let of = |part: fn(&pubsub::PubsubOutcome) -> f64| {
            median(&mut runs.iter().map(part).collect::<Vec<_>>())
        };
        outcomes.push(pubsub::PubsubOutcome {
            subscribers,
            paced_rate: runs[0].paced_rate,
            messages_per_second: of(|run| run.messages_per_second),
            deliveries_per_second: of(|run| run.deliveries_per_second),
            p50: of(|run| run.p50),
            p99: of(|run| run.p99),
            p999: of(|run| run.p999),
        });
    }
    Ok(outcomes)
}
