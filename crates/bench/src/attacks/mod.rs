//! `debros-bench attacks`: a neighbour's latency, and the node's memory, while others try to take
//! everything.
//!
//! Every attack has a node of its own, and at the end all of them together have one. An attack
//! reaches its full strength, stays there for a few seconds, and ends. Attackers use one thread of
//! this process, the neighbour another.

mod attack_list;
mod attacker;
mod connections;
mod cpu;
mod disk;
mod memory;
mod neighbour;
mod report;

use crate::print_progress;
use crate::proc_stat::{peak_resident_bytes, resident_bytes};
use crate::servers::node::{NodeOverrides, NodeProcess, ProgramPaths};
use anyhow::{Context as _, Result, ensure};
use attack_list::{ATTACKS, Attack};
use attacker::{Attacker, EventTally};
use neighbour::{Neighbour, NeighbourTarget};
use report::{AttackOutcome, AttackReport, AttackerFigures};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// How long an attack may take to reach its full strength.
const SETTING_UP: Duration = Duration::from_secs(40);
/// How long after an attack the memory is read again.
const CALM: Duration = Duration::from_secs(5);
/// An attack ends early when the node takes more than that, so that the measuring machine survives.
const MOST_RESIDENT: u64 = 4 << 30;
const MEMORY_LOOK: Duration = Duration::from_millis(20);
/// Sockets of this process for anything else than attacks on places.
const OTHER_SOCKETS: f64 = 2000.0;
/// The namespace of the neighbour, and of those that attack it from within.
const NEIGHBOURS_NAMESPACE: &str = "default";
/// So small that attackers fill it in seconds.
const DATABASE_SIZE: &str = "256MiB";
/// The default of a node that is no bootstrap node: fewer than one attacker's identities.
const PEERS: u32 = 50;
/// The name of all attacks together, and of none.
const ALL: &str = "all";
const NONE: &str = "none";

/// Attacks a node, and measures what a neighbour feels.
#[derive(Debug, clap::Args)]
pub(crate) struct AttackOptions {
    /// The network-node program; without it, one is built with the release profile.
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
    /// How long each attack stays at its full strength.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Only these attacks; `none` measures a node without one, `all` all attacks together.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Prints JSON in place of the table, or writes it to a file beside it.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
}

/// Measures as the options say.
///
/// An unknown attack, a node that does not start, and refusals of a neighbour without an attack.
pub(crate) fn run(options: &AttackOptions) -> Result<()> {
    let names: Vec<&str> =
        [NONE].into_iter().chain(ATTACKS.iter().map(|attack| attack.name)).chain([ALL]).collect();
    for name in &options.only {
        ensure!(
            names.contains(&name.as_str()),
            "there is no attack \"{name}\"; there are {}",
            names.join(", ")
        );
    }
    ensure!(
        options.seconds > 0.0 && options.seconds <= 600.0,
        "--seconds takes more than 0 and 600 at most"
    );
    let programs = match &options.node {
        Some(node) => ProgramPaths::with_node(node.clone()),
        None => ProgramPaths::build()?,
    };
    let files = rlimit::increase_nofile_limit(u64::MAX).context("raise the limit on open files")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut outcomes = Vec::new();
    for name in names
        .iter()
        .filter(|name| options.only.is_empty() || options.only.iter().any(|only| only == **name))
    {
        let attacks: Vec<&Attack> =
            ATTACKS.iter().filter(|attack| *name == ALL || attack.name == *name).collect();
        let scale = socket_scale(&attacks, files);
        if scale < 1.0 {
            print_progress(&format!(
                "{name}: only {files} files may be open, so {:.0} % of the sockets are",
                scale * 100.0
            ));
        } else {
            print_progress(name);
        }
        let outcome = AttackSetup::start(&programs, &attacks, scale)
            .and_then(|scene| runtime.block_on(measure(scene, name, &attacks, options.seconds)));
        outcomes.push(outcome.with_context(|| format!("attack {name}"))?);
    }
    let report =
        AttackReport { machine: crate::machine_description(), seconds: options.seconds, outcomes };
    if let Some(path) = &options.json {
        let json = serde_json::to_vec_pretty(&report)?;
        if path.as_os_str() == "-" {
            std::io::stdout().write_all(&json)?;
            return Ok(());
        }
        std::fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    }
    write!(std::io::stdout(), "{report}")?;
    Ok(())
}

/// The part of the many sockets that this process may have.
fn socket_scale(attacks: &[&Attack], files: u64) -> f64 {
    let wanted: usize = attacks.iter().map(|attack| attack.sockets).sum();
    ((files as f64 - OTHER_SOCKETS) / wanted.max(1) as f64).clamp(0.0, 1.0)
}

/// A node with the neighbour's data, and the attackers with a key each.
struct AttackSetup {
    node: NodeProcess,
    home: NeighbourTarget,
    attackers: Vec<Attacker>,
    _folder: TempDir,
}

impl AttackSetup {
    fn start(programs: &ProgramPaths, attacks: &[&Attack], scale: f64) -> Result<Self> {
        // Beside the program, because the disk is there.
        let program = std::env::current_exe()?;
        let beside = program.parent().context("the program has no folder")?;
        let folder = tempfile::Builder::new().prefix("attack-").tempdir_in(beside)?;
        let settings =
            NodeOverrides { max_database_size: Some(DATABASE_SIZE), max_connections: Some(PEERS) };
        let node = programs.start_node(folder.path(), &settings)?;
        let home = NeighbourTarget {
            gateway: node.gateway,
            peer: node.peer_address()?,
            key: programs.make_key(&node, NEIGHBOURS_NAMESPACE)?,
        };
        Neighbour::prepare(&home)?;
        let mut attackers = Vec::new();
        for (index, attack) in attacks.iter().enumerate() {
            let namespace =
                if attack.in_neighbours_namespace { NEIGHBOURS_NAMESPACE } else { attack.name };
            attackers.push(Attacker {
                gateway: node.gateway,
                peer: home.peer.clone(),
                // Every attacker has an address of its own, which is not the neighbour's.
                source: Ipv4Addr::new(127, 0, 1, u8::try_from(index + 1)?),
                key: programs.make_key(&node, namespace)?,
                more_keys: (1..attack.keys)
                    .map(|_| programs.make_key(&node, namespace))
                    .collect::<Result<_>>()?,
                scale,
                tally: EventTally::default(),
                tasks: Arc::default(),
            });
        }
        Ok(Self { node, home, attackers, _folder: folder })
    }
}

/// The neighbour and these attacks at the same time.
async fn measure(
    scene: AttackSetup,
    name: &str,
    attacks: &[&Attack],
    seconds: f64,
) -> Result<AttackOutcome> {
    let AttackSetup { mut node, home, attackers, _folder } = scene;
    let before = resident_bytes(node.process.pid())?;
    let neighbour = Neighbour::start(home.clone())?;
    let ended_early = hold_attacks(&attackers, attacks, &node, seconds).await;

    let seen = tokio::task::spawn_blocking(|| neighbour.stop()).await??;
    let put_afterwards = tokio::task::spawn_blocking(move || Neighbour::put_once(&home)).await?;
    for (attacker, attack) in attackers.iter().zip(attacks) {
        if let Some(after) = attack.after {
            after(attacker.clone()).await;
        }
    }
    let peak = peak_resident_bytes(node.process.pid());
    for attacker in &attackers {
        attacker.stop_tasks().await;
    }
    sleep(CALM).await;
    let died = node.process.exit_message();
    Ok(AttackOutcome {
        attack: name.to_owned(),
        neighbour: seen,
        resident_before: before,
        resident_peak: peak.unwrap_or_default(),
        resident_after: resident_bytes(node.process.pid()).unwrap_or_default(),
        put_afterwards,
        ended_early: died.or(ended_early),
        attackers: attackers
            .iter()
            .zip(attacks)
            .map(|(attacker, attack)| AttackerFigures {
                attack: attack.name,
                met: attacker.tally.counts(),
            })
            .collect(),
    })
}

/// Brings all attacks to their full strength at the same time, and leaves them there for a while.
/// Returns why that ended early.
async fn hold_attacks(
    attackers: &[Attacker],
    attacks: &[&Attack],
    node: &NodeProcess,
    seconds: f64,
) -> Option<String> {
    let pid = node.process.pid();
    let strike = async {
        let all = attackers.iter().zip(attacks).map(|(attacker, attack)| async move {
            match timeout(SETTING_UP, (attack.run)(attacker.clone())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => attacker.tally.count(format!("it failed: {error:#}")),
                Err(_) => attacker
                    .tally
                    .count(format!("not at full strength after {} s", SETTING_UP.as_secs())),
            }
        });
        futures::future::join_all(all).await;
        sleep(Duration::from_secs_f64(seconds)).await;
    };
    let grow = async {
        loop {
            sleep(MEMORY_LOOK).await;
            match resident_bytes(pid) {
                Ok(bytes) if bytes < MOST_RESIDENT => {}
                Ok(_) => return format!("ended early: the node took {} MiB", MOST_RESIDENT >> 20),
                Err(_) => return "the node is gone".to_owned(),
            }
        }
    };
    tokio::select! {
        () = strike => None,
        why = grow => {
            for attacker in attackers {
                attacker.stop_tasks().await;
            }
            Some(why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ATTACKS, Attack, socket_scale};
    use std::collections::BTreeSet;

    #[test]
    fn sockets_are_as_many_as_files_allow() {
        let all: Vec<&Attack> = ATTACKS.iter().collect();
        assert_eq!(socket_scale(&all, 1_000_000), 1.0);
        assert_eq!(socket_scale(&[], 4000), 1.0);
        assert!((0.1..0.9).contains(&socket_scale(&all, 20_000)));
        assert_eq!(socket_scale(&all, 1000), 0.0);
    }

    #[test]
    fn every_attack_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = ATTACKS.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), ATTACKS.len());
    }
}
