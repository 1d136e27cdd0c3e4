//! What is done to nodes and their links, drawn from a seed.

use super::cut_off::CutOffWatch;
use super::facility::Facility;
use super::network::LinkLimit;
use super::nodes::ChaosCluster;
use super::random::Random;
use anyhow::Result;
use std::fmt;
use std::time::{Duration, Instant};

/// The pause before a disk is filled again, with what was given up on it.
const FILL_AGAIN: Duration = Duration::from_millis(100);

/// A kind of fault, as `--faults` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum FaultKind {
    /// kill -9 of the node that leads, and of its rqlited.
    KillLeader,
    /// kill -9 of a node and of its rqlited.
    KillBoth,
    /// kill -9 of a node alone: the system ends its rqlited, which can hand over.
    KillNode,
    /// kill -9 of an rqlited.
    KillRqlited,
    /// An rqlited ends in order, which hands the lead of Raft over.
    EndRqlited,
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
    /// Everything ends in order at once, and is started again.
    RestartAll,
    /// Some nodes, fewer than half, cannot reach the others.
    CutMinority,
    /// The node that leads cannot reach the others.
    CutLeader,
    /// Two nodes cannot reach each other.
    CutLink,
    /// What one node sends another is lost; the other way works.
    CutOneWay,
    /// All that a node sends the others is lost, and it hears them.
    MuteNode,
    /// All that the others send a node is lost, and they hear it.
    DeafNode,
    /// All that a node sends the others arrives late.
    DelayNode,
    /// A node's links to the others take few bits in a second.
    SlowNode,
    /// A node's disk has no room.
    FillDisk,
    /// The disk of the node that leads has no room.
    FillLeaderDisk,
    /// A node's clock is moved.
    MoveClock,
}

impl FaultKind {
    /// Whether a majority of at least three nodes goes on meanwhile, and can talk.
    pub(crate) fn leaves_majority(self) -> bool {
        !matches!(self, Self::KillAll | Self::RestartAll)
    }

    /// Whether it fills a disk.
    pub(crate) fn fills_disk(self) -> bool {
        matches!(self, Self::FillDisk | Self::FillLeaderDisk)
    }

    /// What it needs of the machine.
    pub(crate) fn needs(self) -> &'static [Facility] {
        match self {
            Self::CutMinority
            | Self::CutLeader
            | Self::CutLink
            | Self::CutOneWay
            | Self::MuteNode
            | Self::DeafNode => &[Facility::Network],
            Self::DelayNode => &[Facility::Network, Facility::Delay],
            Self::SlowNode => &[Facility::Network, Facility::Rate],
            Self::FillDisk | Self::FillLeaderDisk => &[Facility::Mounts],
            Self::MoveClock => &[Facility::Clock],
            _ => &[],
        }
    }

    /// Whether it concerns the links between two nodes.
    pub(crate) fn needs_two_nodes(self) -> bool {
        self.needs().contains(&Facility::Network)
    }

    /// As `--faults` names it.
    pub(crate) fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// A fault that was drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    target: usize,
    /// Another node than the target, where there is one.
    other: usize,
    /// How long it lasts.
    time: Duration,
    /// How many nodes are a minority, or how slow a link is.
    size: u64,
}

impl Fault {
    pub(crate) fn draw(random: &mut Random, kinds: &[FaultKind], nodes: usize) -> Self {
        let kind = kinds[random.index(kinds.len())];
        let target = random.index(nodes);
        let other = (target + 1 + random.index(nodes.max(2) - 1)) % nodes;
        let mut ms = |from: u64, to: u64| from + random.below(to - from);
        let time =
            match kind {
                // A lease is over sooner, an election later than the shorter ones.
                FaultKind::StopBoth | FaultKind::StopNode | FaultKind::StopRqlited => {
                    if ms(0, 2) == 0 { ms(100, 1000) } else { ms(1000, 20_000) }
                }
                // Longer than a node may take to say that it is cut off.
                FaultKind::CutMinority | FaultKind::CutLeader => ms(6000, 12_000),
                kind if kind.needs().contains(&Facility::Network) => ms(500, 10_000),
                FaultKind::FillDisk | FaultKind::FillLeaderDisk => ms(2000, 15_000),
                FaultKind::MoveClock => ms(1000, 8000),
                _ => ms(0, 3000),
            };
        let size = match kind {
            FaultKind::CutMinority => ms(1, (nodes as u64).div_ceil(2).max(2)),
            FaultKind::DelayNode => ms(20, 600),
            FaultKind::SlowNode => ms(50, 500),
            FaultKind::MoveClock => ms(1000, 60_000),
            _ => 0,
        };
        Self { kind, target, other, time: Duration::from_millis(time), size }
    }

    /// Does it, and has it end. What was killed is started again by [`ChaosCluster::heal`], which
    /// heals the links too.
    pub(crate) fn apply(self, cluster: &mut ChaosCluster, cut_off: &mut CutOffWatch) -> Result<()> {
        let Self { kind, target, other, time, size } = self;
        let wait = || std::thread::sleep(time);
        let all = 0..cluster.nodes.len();
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
            FaultKind::EndRqlited => cluster.signal_rqlited(target, "TERM")?,
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
            FaultKind::KillAll => all.clone().try_for_each(|index| cluster.kill_both(index))?,
            FaultKind::RestartAll => cluster.stop_all()?,
            FaultKind::CutMinority => {
                let minority: Vec<usize> = all
                    .clone()
                    .take(size_of(size))
                    .map(|step| (target + step) % all.len())
                    .collect();
                cut_from_others(cluster, &minority)?;
                cut_off.watch(target, time)?;
            }
            FaultKind::CutLeader => {
                let leader = cluster.find_leader()?;
                cut_from_others(cluster, &[leader])?;
                cut_off.watch(leader, time)?;
            }
            FaultKind::CutLink => {
                cluster.cut(target, other)?;
                cluster.cut(other, target)?;
                wait();
            }
            FaultKind::CutOneWay => {
                cluster.cut(target, other)?;
                wait();
            }
            FaultKind::MuteNode => {
                all.filter(|to| *to != target).try_for_each(|to| cluster.cut(target, to))?;
                wait();
            }
            FaultKind::DeafNode => {
                all.filter(|from| *from != target)
                    .try_for_each(|from| cluster.cut(from, target))?;
                wait();
            }
            FaultKind::DelayNode | FaultKind::SlowNode => {
                let limit = match kind {
                    FaultKind::DelayNode => LinkLimit::Delay(size),
                    _ => LinkLimit::Rate(size),
                };
                let mut others = all.filter(|to| *to != target);
                others.try_for_each(|to| cluster.limit_link(target, to, limit))?;
                wait();
            }
            FaultKind::FillDisk => keep_disk_full(cluster, target, time)?,
            FaultKind::FillLeaderDisk => keep_disk_full(cluster, cluster.find_leader()?, time)?,
            FaultKind::MoveClock => {
                cluster.move_clock(target, self.clock_offset())?;
                wait();
                cluster.move_clock(target, 0)?;
            }
        }
        Ok(())
    }
}

impl Fault {
    /// Forwards or backwards, in milliseconds.
    fn clock_offset(self) -> i64 {
        let offset = i64::try_from(self.size).unwrap_or_default();
        if offset % 2 == 0 { offset } else { -offset }
    }
}

fn size_of(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn cut_from_others(cluster: &ChaosCluster, some: &[usize]) -> Result<()> {
    let others = (0..cluster.nodes.len()).filter(|index| !some.contains(index));
    for other in others {
        for one in some {
            cluster.cut(*one, other)?;
            cluster.cut(other, *one)?;
        }
    }
    Ok(())
}

fn keep_disk_full(cluster: &ChaosCluster, index: usize, time: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        cluster.fill_disk(index)?;
        std::thread::sleep(FILL_AGAIN);
    }
    cluster.clear_disk(index)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, other) = (self.target + 1, self.other + 1);
        let ms = self.time.as_millis();
        let size = self.size;
        match self.kind {
            FaultKind::KillLeader => write!(f, "kill -9 of the leader, away for {ms} ms"),
            FaultKind::KillBoth => {
                write!(f, "kill -9 of node {node} and its rqlited, away for {ms} ms")
            }
            FaultKind::KillNode => write!(f, "kill -9 of node {node} alone, away for {ms} ms"),
            FaultKind::KillRqlited => write!(f, "kill -9 of node {node}'s rqlited"),
            FaultKind::EndRqlited => write!(f, "node {node}'s rqlited ends in order"),
            FaultKind::StopBoth => write!(f, "node {node} and its rqlited stand still for {ms} ms"),
            FaultKind::StopNode => write!(f, "node {node} stands still for {ms} ms"),
            FaultKind::StopRqlited => write!(f, "node {node}'s rqlited stands still for {ms} ms"),
            FaultKind::RestartNode => write!(f, "node {node} ends in order and starts again"),
            FaultKind::KillAll => write!(f, "kill -9 of everything"),
            FaultKind::RestartAll => write!(f, "everything ends in order and starts again"),
            FaultKind::CutMinority => {
                write!(f, "{size} nodes from node {node} on are cut off for {ms} ms")
            }
            FaultKind::CutLeader => write!(f, "the leader is cut off for {ms} ms"),
            FaultKind::CutLink => {
                write!(f, "nodes {node} and {other} cannot reach each other for {ms} ms")
            }
            FaultKind::CutOneWay => {
                write!(f, "what node {node} sends node {other} is lost for {ms} ms")
            }
            FaultKind::MuteNode => write!(f, "what node {node} sends is lost for {ms} ms"),
            FaultKind::DeafNode => write!(f, "what node {node} is sent is lost for {ms} ms"),
            FaultKind::DelayNode => {
                write!(f, "what node {node} sends is late by {size} ms for {ms} ms")
            }
            FaultKind::SlowNode => {
                write!(f, "node {node} sends {size} kbit/s to each other node for {ms} ms")
            }
            FaultKind::MoveClock => {
                write!(f, "node {node}'s clock is moved by {} ms for {ms} ms", self.clock_offset())
            }
            FaultKind::FillDisk => write!(f, "node {node}'s disk is full for {ms} ms"),
            FaultKind::FillLeaderDisk => write!(f, "the leader's disk is full for {ms} ms"),
        }
    }
}
