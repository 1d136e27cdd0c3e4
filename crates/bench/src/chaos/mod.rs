//! `debros-bench chaos`: a cluster of real nodes, to which everything is done that a seed draws,
//! while clients write and read; then what they were told is held against what is there.

mod clients;
mod clock;
mod cut_off;
mod disk;
mod facility;
mod fault;
mod network;
mod nodes;
mod random;
mod register;
mod register_pool;
mod summary;
mod verdict;

use crate::print_progress;
use crate::servers::node::ProgramPaths;
use anyhow::{Context as _, Result, bail, ensure};
use clients::{CallOutcome, ChaosClient, DISK_FULL, Gateways, Journal, SCHEMA, Shared};
use clock::ClockLibrary;
use cut_off::CutOffWatch;
use facility::{Facilities, Facility};
use fault::{Fault, FaultKind};
use network::Network;
use nodes::{ChaosCluster, ChaosSetup};
use random::Random;
use register::Moment;
use register_pool::RegisterPool;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use summary::Round;

/// The namespace of the clients.
const NAMESPACE: &str = "chaos";
/// The number of faults when neither that nor a time is given.
const ROUNDS: usize = 20;

/// Does everything to a cluster, and looks for lost or doubled writes.
#[derive(Debug, clap::Args)]
pub(crate) struct ChaosOptions {
    /// Repeats the draws of another run, which printed it; the other options have to be the same.
    #[arg(long)]
    seed: Option<u64>,
    /// The number of faults, one after the other; 20 without --seconds.
    #[arg(long)]
    rounds: Option<usize>,
    /// Begins no fault after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// The number of nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// The number of clients.
    #[arg(long, default_value_t = 8)]
    clients: u64,
    /// Only these faults; all that the machine can do if none is given.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<FaultKind>,
    /// Keeps the nodes' logs and data, also when all is well.
    #[arg(long)]
    keep: bool,
    /// The network-node program, with network-cli beside it; without it, both are built with the
    /// release profile.
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
    /// The rqlited program; without it, .tools/rqlited.
    #[arg(long, value_name = "FILE")]
    rqlited: Option<PathBuf>,
    /// What the namespaces have, in which the program started itself again.
    #[arg(long, hide = true, value_enum, value_delimiter = ',')]
    inside: Vec<Facility>,
}

/// Runs as the options say: finds out what the machine can do, and starts itself again in
/// namespaces when the faults need them.
///
/// # Errors
/// A cluster that does not start or heal; violations.
pub(crate) fn run(options: &ChaosOptions) -> Result<()> {
    ensure!((1..=9).contains(&options.nodes), "--nodes takes 1 to 9");
    if !options.inside.is_empty() {
        return run_with(options, &options.inside.iter().copied().collect());
    }
    let wanted = options.kinds().iter().flat_map(|kind| kind.needs()).copied().collect();
    let facilities = Facilities::probe(&wanted);
    for (facility, why) in &facilities.missing {
        let kinds = options.kinds().into_iter().filter(|kind| kind.needs().contains(facility));
        let names: Vec<String> = kinds.map(FaultKind::name).collect();
        print_progress(&format!("skipped: {}: {why}", names.join(", ")));
    }
    if facilities.found.is_empty() {
        return run_with(options, &BTreeSet::new());
    }
    // Before it has no network any more.
    let node = options.programs()?.node().canonicalize()?;
    let names = facilities.found.iter().filter_map(clap::ValueEnum::to_possible_value);
    let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
    let mut arguments = vec!["--inside".to_owned(), names.join(",")];
    if options.node.is_none() {
        arguments.extend(["--node".to_owned(), node.display().to_string()]);
    }
    facilities.enter(&arguments)
}

impl ChaosOptions {
    fn kinds(&self) -> Vec<FaultKind> {
        let kinds = match &self.faults[..] {
            [] => <FaultKind as clap::ValueEnum>::value_variants(),
            some => some,
        };
        let fits = |kind: &FaultKind| self.nodes > 1 || !kind.needs_two_nodes();
        kinds.iter().copied().filter(fits).collect()
    }

    fn programs(&self) -> Result<ProgramPaths> {
        self.node.clone().map_or_else(ProgramPaths::build, |node| Ok(ProgramPaths::with_node(node)))
    }

    /// Whether another fault is begun.
    fn goes_on(&self, rounds: usize, since: Duration) -> bool {
        let limit = match (self.rounds, self.seconds) {
            (Some(rounds), _) => rounds,
            (None, Some(_)) => usize::MAX,
            (None, None) => ROUNDS,
        };
        rounds < limit && self.seconds.is_none_or(|seconds| since.as_secs() < seconds)
    }
}

fn run_with(options: &ChaosOptions, facilities: &BTreeSet<Facility>) -> Result<()> {
    let seed = options.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_secs())
    });
    let possible =
        |kind: &FaultKind| kind.needs().iter().all(|facility| facilities.contains(facility));
    let kinds: Vec<FaultKind> = options.kinds().into_iter().filter(possible).collect();
    ensure!(!kinds.is_empty(), "none of the faults is possible here");
    let names: Vec<String> = kinds.iter().map(|kind| kind.name()).collect();
    print_progress(&format!(
        "to repeat the draws: --seed {seed} --nodes {} --clients {} --faults {}",
        options.nodes,
        options.clients,
        names.join(",")
    ));
    let programs = options.programs()?;
    // Beside the program, because the disk is there.
    let program = std::env::current_exe()?;
    let beside = program.parent().context("the program has no folder")?;
    let mut folder = tempfile::Builder::new().prefix("chaos-").tempdir_in(beside)?;
    let setup = ChaosSetup {
        program: programs.node().canonicalize()?,
        rqlited: nodes::find_rqlited(options.rqlited.as_deref())?,
        folder: folder.path().to_owned(),
        network: match facilities.contains(&Facility::Network) {
            true => Some(Network::build(options.nodes)?),
            false => None,
        },
        has_small_disks: kinds.iter().any(|kind| kind.fills_disk()),
        clock: match kinds.contains(&FaultKind::MoveClock) {
            true => Some(ClockLibrary::build(folder.path())?),
            false => None,
        },
    };
    let mut cluster = ChaosCluster::start(setup, options.nodes)?;
    let outcome = run_on(options, seed, &kinds, &mut cluster);
    if outcome.is_err() || options.keep {
        cluster.save_small_disks()?;
        folder.disable_cleanup(true);
        print_progress(&format!("the nodes' logs and data are in {}", folder.path().display()));
    }
    outcome
}

fn run_on(
    options: &ChaosOptions,
    seed: u64,
    kinds: &[FaultKind],
    cluster: &mut ChaosCluster,
) -> Result<()> {
    let gateways = Gateways::new(cluster.gateways(), &cluster.make_key(NAMESPACE)?)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let create = gateways.post(0, "/v1/db/create-table", &json!({ "schema": SCHEMA }));
    match runtime.block_on(clients::send(create)) {
        CallOutcome::Done(_) => {}
        other => bail!("the tables cannot be made: {other:?}"),
    }
    let shared = Arc::new(Shared {
        gateways: gateways.clone(),
        began: Instant::now(),
        stop: false.into(),
        next_value: 1.into(),
        registers: RegisterPool::new(),
    });
    let clients: Vec<_> = (0..options.clients)
        .map(|number| runtime.spawn(ChaosClient::new(number, seed, Arc::clone(&shared)).run()))
        .collect();
    let mut cut_off = CutOffWatch::new(runtime.handle().clone(), gateways.clone());
    let (rounds, healed) = make_faults(options, seed, kinds, cluster, &shared, &mut cut_off);
    shared.stop.store(true, SeqCst);
    let journals: Vec<Journal> =
        runtime.block_on(futures::future::try_join_all(clients))?.into_iter().collect();
    let mut violations = runtime
        .block_on(verdict::compare(&gateways, &journals))
        .unwrap_or_else(|error| vec![format!("SILENT: the nodes cannot be compared: {error:#}")]);
    violations.extend(cut_off.violations.iter().cloned());
    violations.extend(healed.err().map(|error| format!("HEAL: {error:#}")));
    violations.extend(full_without_reason(&rounds, &journals));
    if options.nodes > 2 {
        violations.extend(summary::long_pauses(&rounds, &journals));
    }
    let mut out = std::io::stdout();
    writeln!(out, "seed {seed}: {} rounds, {} nodes", rounds.len(), options.nodes)?;
    summary::write(&mut out, &rounds, &journals, violations.len())?;
    writeln!(out, "{}", cut_off.summary())?;
    writeln!(out, "{} registers, whose calls were put into one order", shared.registers.made())?;
    for violation in violations.iter().take(40) {
        writeln!(out, "VIOLATION: {violation}")?;
    }
    ensure!(violations.is_empty(), "seed {seed}: {} violations", violations.len());
    Ok(())
}

/// One fault after the other, each followed by a time in which everything runs.
fn make_faults(
    options: &ChaosOptions,
    seed: u64,
    kinds: &[FaultKind],
    cluster: &mut ChaosCluster,
    shared: &Shared,
    cut_off: &mut CutOffWatch,
) -> (Vec<Round>, Result<()>) {
    let mut random = Random::new(seed);
    let mut rounds = Vec::new();
    while options.goes_on(rounds.len(), shared.began.elapsed()) {
        let fault = Fault::draw(&mut random, kinds, options.nodes);
        std::thread::sleep(Duration::from_millis(300 + random.below(1500)));
        let from = shared.began.elapsed();
        let number = rounds.len() + 1;
        print_progress(&format!("round {number}, at {:.3} s: {fault}", from.as_secs_f64()));
        let healed = fault.apply(cluster, cut_off).and_then(|()| cluster.heal());
        // Whatever the fault left behind shows while everything runs.
        std::thread::sleep(Duration::from_millis(700));
        let to = moment(shared.began.elapsed());
        rounds.push(Round { kind: fault.kind, from: moment(from), to });
        if healed.is_err() {
            return (rounds, healed.with_context(|| format!("round {number}, {fault}")));
        }
    }
    (rounds, Ok(()))
}

/// Refusals because of a full disk in a run that filled none.
fn full_without_reason(rounds: &[Round], journals: &[Journal]) -> Option<String> {
    let is_full =
        journals.iter().flat_map(|j| j.refusals.keys()).any(|why| why.contains(DISK_FULL));
    let was_filled = rounds.iter().any(|round| round.kind.fills_disk());
    (is_full && !was_filled)
        .then(|| "FULL: a write was refused for a disk that has room".to_owned())
}

fn moment(since: Duration) -> Moment {
    u64::try_from(since.as_nanos()).unwrap_or(Moment::MAX)
}
