//! The results, as a table for people and as JSON.

use super::neighbour::{NeighbourFigures, NewcomerFigures};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// All results.
#[derive(Debug, Serialize)]
pub(crate) struct AttackReport {
    /// The description of the machine.
    pub(crate) machine: String,
    /// How long each attack stayed at its full strength.
    pub(crate) seconds: f64,
    pub(crate) outcomes: Vec<AttackOutcome>,
}

/// One node under one attack, or under all.
#[derive(Debug, Serialize)]
pub(crate) struct AttackOutcome {
    pub(crate) attack: String,
    pub(crate) neighbour: NeighbourFigures,
    /// Bytes of the node's process.
    pub(crate) resident_before: u64,
    /// The peak until the attack ended.
    pub(crate) resident_peak: u64,
    /// 5 s after the end of the attack.
    pub(crate) resident_after: u64,
    /// Whether the neighbour can store a value on a fresh connection, while the attackers still
    /// hold everything they took.
    pub(crate) put_afterwards: String,
    /// Why the attack did not last as long as it should.
    pub(crate) ended_early: Option<String>,
    pub(crate) attackers: Vec<AttackerFigures>,
}

/// The counts of an attacker.
#[derive(Debug, Serialize)]
pub(crate) struct AttackerFigures {
    pub(crate) attack: &'static str,
    /// Events and how often they came.
    pub(crate) met: BTreeMap<String, u64>,
}

impl fmt::Display for AttackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "Each attack stays {} s at its full strength.", self.seconds)?;
        writeln!(
            f,
            "\n{:<18}{:^27}{:^14}{:^32}{:^25}",
            "", "neighbour, ms", "", "newcomers refused", "node, MiB"
        )?;
        writeln!(
            f,
            "{:<18}{:>9}{:>9}{:>9}{:>14}{:>12}{:>11}{:>9}{:>8}{:>8}{:>9}",
            "attack",
            "p50",
            "p99",
            "max",
            "failed",
            "connections",
            "WebSockets",
            "peers",
            "before",
            "peak",
            "5 s later"
        )?;
        for outcome in &self.outcomes {
            let AttackOutcome { attack, neighbour, .. } = outcome;
            writeln!(
                f,
                "{attack:<18}{:>9.2}{:>9.2}{:>9.1}{:>14}{:>12}{:>11}{:>9}{:>8}{:>8}{:>9}",
                neighbour.p50,
                neighbour.p99,
                neighbour.max,
                format!("{}/{}", neighbour.failed, neighbour.asked),
                refusal_text(&neighbour.connections),
                refusal_text(&neighbour.websockets),
                refusal_text(&neighbour.peers),
                outcome.resident_before >> 20,
                outcome.resident_peak >> 20,
                outcome.resident_after >> 20,
            )?;
        }
        for outcome in &self.outcomes {
            outcome.write_details(f)?;
        }
        Ok(())
    }
}

fn refusal_text(newcomers: &NewcomerFigures) -> String {
    format!("{}/{}", newcomers.refused, newcomers.tried)
}

impl AttackOutcome {
    /// Details that do not fit into a row.
    fn write_details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NeighbourFigures { failure, connections, websockets, peers, .. } = &self.neighbour;
        writeln!(f, "\n{}", self.attack)?;
        if let Some(why) = &self.ended_early {
            writeln!(f, "  {why}")?;
        }
        for (what, found) in [
            ("first failed request", failure),
            ("first refused connection", &connections.refusal),
            ("first refused WebSocket", &websockets.refusal),
            ("first refused peer", &peers.refusal),
        ] {
            if let Some(found) = found {
                writeln!(f, "  neighbour's {what}: {found}")?;
            }
        }
        let kinds =
            self.neighbour.kinds.iter().map(|kind| format!("{} {:.2}", kind.name, kind.p99));
        writeln!(f, "  neighbour's p99 by kind, ms: {}", kinds.collect::<Vec<_>>().join(", "))?;
        writeln!(f, "  neighbour's put at the end: {}", self.put_afterwards)?;
        for attacker in &self.attackers {
            let met = attacker.met.iter().map(|(event, number)| format!("{event}: {number}"));
            let met = met.collect::<Vec<_>>().join("; ");
            // A single attacker is named already.
            let name = if self.attackers.len() == 1 { "attacker" } else { attacker.attack };
            writeln!(f, "  {name}: {}", if met.is_empty() { "nothing" } else { &met })?;
        }
        Ok(())
    }
}
