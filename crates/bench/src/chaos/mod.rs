//! `debros-bench chaos`: a cluster of real nodes, to which everything is done that a seed draws,
//! while clients write and read; then what they were told is held against what is there.

mod clients;
mod fault;
mod nodes;
mod random;
mod register;
mod verdict;

use crate::print_progress;
use crate::servers::node::ProgramPaths;
use anyhow::{Context as _, Result, bail, ensure};
use clients::{CallOutcome, ChaosClient, Gateways, Journal, SCHEMA, Shared};
use fault::{Fault, FaultKind};
use nodes::ChaosCluster;
use random::Random;
use register::Moment;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// The namespace of the clients.
const NAMESPACE: &str = "chaos";
/// What this does not do.
const LEFT_OUT: &str = "not among the faults: cut or slow links, full disks, clocks that are moved";

/// Does everything to a cluster, and looks for lost or doubled writes.
#[derive(Debug, clap::Args)]
pub(crate) struct ChaosOptions {
    /// Repeats the draws of another run, which printed it.
    #[arg(long)]
    seed: Option<u64>,
    /// The number of faults, one after the other.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// The number of nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// The number of clients.
    #[arg(long, default_value_t = 8)]
    clients: u64,
    /// Only these faults; all if none is given.
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
}

/// Runs as the options say.
///
/// # Errors
/// A cluster that does not start or heal; violations.
pub(crate) fn run(options: &ChaosOptions) -> Result<()> {
    ensure!((1..=9).contains(&options.nodes), "--nodes takes 1 to 9");
    let seed = options.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_secs())
    });
    let kinds: Vec<FaultKind> = match &options.faults[..] {
        [] => <FaultKind as clap::ValueEnum>::value_variants().to_vec(),
        some => some.to_vec(),
    };
    let programs = match &options.node {
        Some(node) => ProgramPaths::with_node(node.clone()),
        None => ProgramPaths::build()?,
    };
    let rqlited = nodes::find_rqlited(options.rqlited.as_deref())?;
    print_progress(&format!("seed {seed}: {} rounds, {} nodes", options.rounds, options.nodes));
    // Beside the program, because the disk is there.
    let program = std::env::current_exe()?;
    let beside = program.parent().context("the program has no folder")?;
    let mut folder = tempfile::Builder::new().prefix("chaos-").tempdir_in(beside)?;
    let outcome = run_in(options, seed, &kinds, &programs, &rqlited, folder.path());
    if outcome.is_err() || options.keep {
        folder.disable_cleanup(true);
        print_progress(&format!("the nodes' logs and data are in {}", folder.path().display()));
    }
    outcome
}

fn run_in(
    options: &ChaosOptions,
    seed: u64,
    kinds: &[FaultKind],
    programs: &ProgramPaths,
    rqlited: &std::path::Path,
    folder: &std::path::Path,
) -> Result<()> {
    let mut random = Random::new(seed);
    let program = programs.node().canonicalize()?;
    let mut cluster = ChaosCluster::start(program, rqlited.to_owned(), folder, options.nodes)?;
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
    });
    let clients: Vec<_> = (0..options.clients)
        .map(|number| {
            runtime.spawn(ChaosClient::new(number, random.next(), Arc::clone(&shared)).run())
        })
        .collect();
    let mut rounds = Vec::new();
    let mut healed = Ok(());
    for number in 1..=options.rounds {
        let fault = Fault::draw(&mut random, kinds, options.nodes);
        std::thread::sleep(Duration::from_millis(300 + random.below(1500)));
        let from = shared.began.elapsed();
        print_progress(&format!("round {number}, at {:.3} s: {fault}", from.as_secs_f64()));
        healed = fault.apply(&mut cluster).and_then(|()| cluster.heal());
        if healed.is_err() {
            break;
        }
        // Whatever the fault left behind shows while everything runs.
        std::thread::sleep(Duration::from_millis(700));
        rounds.push((moment(from), moment(shared.began.elapsed())));
    }
    shared.stop.store(true, SeqCst);
    let journals: Vec<Journal> =
        runtime.block_on(futures::future::try_join_all(clients))?.into_iter().collect();
    let mut violations = runtime.block_on(verdict::compare(&gateways, &journals))?;
    violations.extend(healed.err().map(|error| format!("{error:#}")));
    print_summary(seed, &rounds, &journals)?;
    for violation in violations.iter().take(40) {
        writeln!(std::io::stdout(), "VIOLATION: {violation}")?;
    }
    ensure!(violations.is_empty(), "seed {seed}: {} violations", violations.len());
    Ok(())
}

fn moment(since: Duration) -> Moment {
    u64::try_from(since.as_nanos()).unwrap_or(Moment::MAX)
}

fn print_summary(seed: u64, rounds: &[(Moment, Moment)], journals: &[Journal]) -> Result<()> {
    let sum = |count: fn(&Journal) -> u64| journals.iter().map(count).sum::<u64>();
    let mut all: Vec<Moment> =
        journals.iter().flat_map(|journal| journal.acknowledged.iter().copied()).collect();
    all.sort_unstable();
    let numbered = || (1_usize..).zip(rounds);
    let mut everybody: Vec<(Moment, usize)> =
        numbered().map(|(number, round)| (verdict::longest_gap(&all, *round), number)).collect();
    let of_one = |round: &(Moment, Moment)| {
        let gaps = journals.iter().map(|j| verdict::longest_gap(&j.acknowledged, *round));
        gaps.max().unwrap_or_default()
    };
    let mut anybody: Vec<(Moment, usize)> =
        numbered().map(|(number, round)| (of_one(round), number)).collect();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "seed {seed}: {} rounds; acknowledged: {} writes, of them {} rows and {} transactions; \
         {} repeated under their key, {} of unknown outcome; {} calls on registers",
        rounds.len(),
        all.len(),
        sum(|journal| journal.once.len() as u64),
        sum(|journal| journal.pairs.len() as u64),
        sum(|journal| journal.repeated),
        sum(|journal| journal.unknown),
        sum(|journal| journal.registers.values().map(|calls| calls.len() as u64).sum()),
    )?;
    for (what, gaps) in [
        ("no write of anybody was acknowledged for", &mut everybody),
        ("the unluckiest writer waited for", &mut anybody),
    ] {
        gaps.sort_unstable();
        if let (Some((median, _)), Some((worst, number))) = (gaps.get(gaps.len() / 2), gaps.last())
        {
            let seconds = |gap: &Moment| *gap as f64 / 1e9;
            writeln!(
                out,
                "{what} {:.2} s (median of the rounds), {:.2} s (worst, round {number})",
                seconds(median),
                seconds(worst)
            )?;
        }
    }
    let mut refusals = BTreeMap::<&str, u64>::new();
    for (why, count) in journals.iter().flat_map(|journal| &journal.refusals) {
        *refusals.entry(why).or_default() += count;
    }
    for (why, count) in refusals {
        writeln!(out, "  {count} calls without success: {why}")?;
    }
    writeln!(out, "{LEFT_OUT}")?;
    Ok(())
}
