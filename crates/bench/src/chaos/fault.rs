//! What is done to nodes, drawn from a seed.

use super::nodes::ChaosCluster;
use super::random::Random;
use anyhow::Result;
use std::fmt;
use std::time::Duration;

/// The longest time for which a process is stopped.
const LONGEST_STOP_MS: u64 = 5000;

/// A kind of fault, as `--faults` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FaultKind {
    /// kill -9 of the node that leads, and of its rqlited.
    KillLeader,
    /// kill -9 of a node and of its rqlited.
    KillBoth,
    /// kill -9 of a node alone: the system ends its rqlited, which can hand over.
    KillNode,
    /// kill -9 of an rqlited.
    KillRqlited,
    /// A node and its rqlited stand still, and go on.
    StopBoth,
    /// A node stands still, and goes on.
    StopNode,
    /// An rqlited stands still, and goes on.
    StopRqlited,
    /// A node ends in order, and is started again.
    RestartNode,
    /// kill -9 of everything at once.
    KillAll,
}

/// A fault that was drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    kind: FaultKind,
    target: usize,
    /// How long it lasts.
    time: Duration,
}

impl Fault {
    pub(crate) fn draw(random: &mut Random, kinds: &[FaultKind], nodes: usize) -> Self {
        let kind = kinds[random.index(kinds.len())];
        let target = random.index(nodes);
        let time = match kind {
            FaultKind::StopBoth | FaultKind::StopNode | FaultKind::StopRqlited => {
                Duration::from_millis(100 + random.below(LONGEST_STOP_MS - 100))
            }
            _ => Duration::from_millis(random.below(3000)),
        };
        Self { kind, target, time }
    }

    /// Does it, and has it end. What was killed is started again.
    pub(crate) fn apply(self, cluster: &mut ChaosCluster) -> Result<()> {
        let Self { kind, target, time } = self;
        let wait = || std::thread::sleep(time);
        match kind {
            FaultKind::KillLeader => {
                let leader = cluster.find_leader()?;
                cluster.kill_both(leader)?;
                wait();
            }
            FaultKind::KillBoth => {
                cluster.kill_both(target)?;
                wait();
            }
            FaultKind::KillNode => {
                cluster.kill_node(target);
                wait();
            }
            FaultKind::KillRqlited => cluster.signal_rqlited(target, "KILL")?,
            FaultKind::StopNode => {
                cluster.signal_node(target, "STOP")?;
                wait();
                cluster.signal_node(target, "CONT")?;
            }
            FaultKind::StopRqlited => {
                cluster.signal_rqlited(target, "STOP")?;
                wait();
                cluster.signal_rqlited(target, "CONT")?;
            }
            FaultKind::StopBoth => {
                cluster.signal_node(target, "STOP")?;
                cluster.signal_rqlited(target, "STOP")?;
                wait();
                cluster.signal_rqlited(target, "CONT")?;
                cluster.signal_node(target, "CONT")?;
            }
            FaultKind::RestartNode => cluster.stop_node(target)?,
            FaultKind::KillAll => {
                for index in 0..cluster.nodes.len() {
                    cluster.kill_both(index)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.target + 1;
        let ms = self.time.as_millis();
        match self.kind {
            FaultKind::KillLeader => write!(f, "kill -9 of the leader, away for {ms} ms"),
            FaultKind::KillBoth => {
                write!(f, "kill -9 of node {node} and its rqlited, away for {ms} ms")
            }
            FaultKind::KillNode => write!(f, "kill -9 of node {node} alone, away for {ms} ms"),
            FaultKind::KillRqlited => write!(f, "kill -9 of node {node}'s rqlited"),
            FaultKind::StopBoth => write!(f, "node {node} and its rqlited stand still for {ms} ms"),
            FaultKind::StopNode => write!(f, "node {node} stands still for {ms} ms"),
            FaultKind::StopRqlited => write!(f, "node {node}'s rqlited stands still for {ms} ms"),
            FaultKind::RestartNode => write!(f, "node {node} ends in order and starts again"),
            FaultKind::KillAll => write!(f, "kill -9 of everything"),
        }
    }
}
