//! The results, as a table for people and as JSON.

use crate::measure::MeasuredCell;
use crate::servers::{Operation, ServerKind};
use crate::{pubsub, startup};
use serde::Serialize;
use std::fmt::{self, Write as _};

/// All results of a run.
#[derive(Debug, Serialize)]
pub(crate) struct BenchReport {
    /// The description of the machine.
    pub(crate) machine: String,
    pub(crate) runs: usize,
    pub(crate) seconds_per_cell: f64,
    pub(crate) cells: Vec<MeasuredCell>,
    pub(crate) pubsub: Vec<pubsub::PubsubOutcome>,
    pub(crate) startup: Option<startup::StartupOutcome>,
    pub(crate) goals: Vec<Goal>,
}

/// A goal, and the measured value.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    what: String,
    goal: f64,
    found: f64,
    /// `at least` or `at most`.
    bound: &'static str,
    reached: bool,
}

/// Ratios to reach at 64 connections.
const RATIOS: [(Operation, ServerKind, ServerKind, f64); 8] = [
    (Operation::Put, ServerKind::Inside, ServerKind::Ceiling, 0.85),
    (Operation::Get, ServerKind::Inside, ServerKind::Ceiling, 0.85),
    (Operation::Put, ServerKind::Separate, ServerKind::Inside, 0.6),
    (Operation::Get, ServerKind::Separate, ServerKind::Inside, 0.6),
    (Operation::Put, ServerKind::Inside, ServerKind::Rqlite, 5.5),
    (Operation::Get, ServerKind::Inside, ServerKind::Rqlite, 4.0),
    (Operation::Insert, ServerKind::Inside, ServerKind::Rqlite, 4.0),
    (Operation::Read, ServerKind::Inside, ServerKind::Rqlite, 3.0),
];
const GOAL_CONNECTIONS: usize = 64;
const READY_MS: f64 = 150.0;
const IDLE_MB: f64 = 35.0;

impl BenchReport {
    fn rate(&self, operation: Operation, connections: usize, server: ServerKind) -> Option<f64> {
        let cell = self.cells.iter().find(|cell| {
            (cell.operation, cell.connections, cell.server) == (operation, connections, server)
        })?;
        Some(cell.rate)
    }

    fn ratio(
        &self,
        operation: Operation,
        connections: usize,
        of: ServerKind,
        to: ServerKind,
    ) -> Option<f64> {
        Some(self.rate(operation, connections, of)? / self.rate(operation, connections, to)?)
    }

    /// Compares the results with the goals.
    pub(crate) fn check_goals(&mut self) {
        let mut goals = Vec::new();
        for (operation, of, to, goal) in RATIOS {
            if let Some(found) = self.ratio(operation, GOAL_CONNECTIONS, of, to) {
                let what = format!("{}: {} / {}", operation.title(), of.title(), to.title());
                goals.push(Goal { what, goal, found, bound: "at least", reached: found >= goal });
            }
        }
        if let Some(startup) = &self.startup {
            let megabytes = startup.idle_bytes as f64 / 1e6;
            for (what, goal, found) in [
                ("node with gateway ready, ms", READY_MS, startup.ready_ms),
                ("resident when idle, MB", IDLE_MB, megabytes),
            ] {
                goals.push(Goal {
                    what: what.to_owned(),
                    goal,
                    found,
                    bound: "at most",
                    reached: found <= goal,
                });
            }
        }
        self.goals = goals;
    }
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "Medians of {} runs, {} s for each figure.", self.runs, self.seconds_per_cell)?;
        self.write_rates(f)?;
        self.write_costs(f)?;
        self.write_pubsub(f)?;
        if let Some(startup) = &self.startup {
            writeln!(
                f,
                "\nNode with gateway: ready in {:.0} ms (median of restarts, worst {:.0} ms; first start {:.0} ms), \
                 {:.1} MB resident when idle",
                startup.ready_ms,
                startup.worst_ready_ms,
                startup.first_ready_ms,
                startup.idle_bytes as f64 / 1e6,
            )?;
        }
        if !self.goals.is_empty() {
            writeln!(f, "\nGoals (ratios at {GOAL_CONNECTIONS} connections)")?;
        }
        for goal in &self.goals {
            let reached = if goal.reached { "reached" } else { "NOT REACHED" };
            writeln!(
                f,
                "  {:<46} {} {:>6.2}  found {:>7.2}  {reached}",
                goal.what, goal.bound, goal.goal, goal.found
            )?;
        }
        Ok(())
    }
}

impl BenchReport {
    /// Requests per second and ratios.
    fn write_rates(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<ServerKind> = ServerKind::ALL
            .into_iter()
            .filter(|kind| self.cells.iter().any(|cell| cell.server == *kind))
            .collect();
        write!(f, "\n{:<22}", "requests/s")?;
        for server in &servers {
            write!(f, "{:>18}", server.title())?;
        }
        writeln!(f, "   {:>14}{:>16}{:>15}", "inside/ceiling", "separate/inside", "inside/rqlite")?;
        for (operation, connections) in self.row_keys() {
            let mut line = format!("{:<15}{connections:>4}   ", operation.title());
            for &server in &servers {
                let rate = self.rate(operation, connections, server).unwrap_or(f64::NAN);
                let _ = write!(line, "{rate:>18.0}");
            }
            let ratio = |of, to| self.ratio(operation, connections, of, to).unwrap_or(f64::NAN);
            writeln!(
                f,
                "{line}   {:>14.2}{:>16.2}{:>15.2}",
                ratio(ServerKind::Inside, ServerKind::Ceiling),
                ratio(ServerKind::Separate, ServerKind::Inside),
                ratio(ServerKind::Inside, ServerKind::Rqlite),
            )?;
        }
        Ok(())
    }

    /// Latency, and the use of the processor.
    fn write_costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<22}{:<18}{:>10}{:>10}{:>22}{:>14}{:>14}",
            "", "", "p50 µs", "p99 µs", "lowest-highest req/s", "server µs", "generator µs"
        )?;
        for cell in &self.cells {
            writeln!(
                f,
                "{:<15}{:>4}   {:<18}{:>10.0}{:>10.0}{:>22}{:>14.1}{:>14.1}",
                cell.operation.title(),
                cell.connections,
                cell.server.title(),
                cell.p50,
                cell.p99,
                format!("{:.0}-{:.0}", cell.spread.0, cell.spread.1),
                cell.server_cpu,
                cell.generator_cpu,
            )?;
        }
        Ok(())
    }

    fn write_pubsub(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pubsub.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n{:<22}{:>12}{:>14}{:>16}{:>10}{:>10}{:>12}",
            "pub/sub (inside)",
            "messages/s",
            "deliveries/s",
            "paced msgs/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs"
        )?;
        for outcome in &self.pubsub {
            writeln!(
                f,
                "{:<22}{:>12.0}{:>14.0}{:>16}{:>10.0}{:>10.0}{:>12.0}",
                format!("1 to {}", outcome.subscribers),
                outcome.messages_per_second,
                outcome.deliveries_per_second,
                outcome.paced_rate,
                outcome.p50,
                outcome.p99,
                outcome.p999,
            )?;
        }
        Ok(())
    }

    fn row_keys(&self) -> Vec<(Operation, usize)> {
        let mut rows: Vec<(Operation, usize)> = Vec::new();
        for cell in &self.cells {
            if !rows.contains(&(cell.operation, cell.connections)) {
                rows.push((cell.operation, cell.connections));
            }
        }
        rows
    }
}
