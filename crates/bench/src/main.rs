//! `debros-bench`: the node and its gateways, side by side with a ceiling and with rqlite, on this
//! machine.
//!
//! Every server runs as a process of its own on a free loopback port, all with their data on the
//! same disk. The servers take turns within one run, so that a ratio compares neighbours in time.
//! `docs/PERFORMANCE.md` says how to read the table.

/// The ceiling uses the same allocator as the node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod attacks;
mod ceiling;
mod chaos;
mod load;
mod measure;
mod proc_stat;
mod pubsub;
mod report;
mod request_template;
mod servers;
mod startup;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use measure::MeasurePlan;
use report::BenchReport;
use servers::node::{NAMESPACE, NodeOverrides, NodeProcess, ProgramPaths, STATIC_KEY};
use servers::{BenchServer, Operation, ServerKind};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Measures the node and its gateways beside a bare SQLite handler and rqlite.
#[derive(Debug, Parser)]
struct BenchOptions {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    /// The number of runs; the table shows medians.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Short and coarse: one run, half a second for each figure, fewer keys.
    #[arg(long)]
    quick: bool,
    /// Writes all results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds for each figure.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Connections, each with one request in flight.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
    connections: Vec<usize>,
    /// Operations to measure; all if none is given.
    #[arg(long, value_delimiter = ',')]
    operations: Vec<Operation>,
    /// Servers to measure; all if none is given.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<ServerKind>,
    /// Leaves out pub/sub and the start of a node.
    #[arg(long)]
    table_only: bool,
    /// Uses a key from GATEWAY_API_KEYS instead of a real API key.
    #[arg(long)]
    static_key: bool,
    /// The rqlited program; without it, 8.26.8 from .tools/, fetched there with npm the first time.
    #[arg(long)]
    rqlited: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Serves the ceiling: the bare handler on SQLite.
    Ceiling(ceiling::CeilingOptions),
    /// Attacks a node in every known way, and measures a neighbour's latency and the node's memory.
    Attacks(attacks::AttackOptions),
    /// Does everything to the nodes of a cluster under load, and looks for wrong answers.
    Chaos(chaos::ChaosOptions),
}

fn main() -> Result<()> {
    let options = BenchOptions::parse();
    match &options.command {
        Some(BenchCommand::Ceiling(ceiling)) => ceiling::serve(ceiling),
        Some(BenchCommand::Attacks(attacks)) => attacks::run(attacks),
        Some(BenchCommand::Chaos(chaos)) => chaos::run(chaos),
        None => run(&options),
    }
}

fn run(options: &BenchOptions) -> Result<()> {
    let scope = measure_plan(options);
    let wanted = |kind: ServerKind| options.servers.is_empty() || options.servers.contains(&kind);
    // Beside the program, because the disk is there: a folder for temporary files may be in memory,
    // where fsync costs nothing.
    let program = std::env::current_exe()?;
    let folder = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(program.parent().context("the program has no folder")?)?;
    let programs = if wanted(ServerKind::Inside) || wanted(ServerKind::Separate) {
        Some(ProgramPaths::build()?)
    } else {
        None
    };
    let startup = match &programs {
        Some(programs) if !options.table_only => Some(startup::measure(programs, folder.path())?),
        _ => None,
    };
    let node = programs
        .as_ref()
        .map(|programs| start_node(programs, options, folder.path()))
        .transpose()?;

    let mut servers = Vec::new();
    if wanted(ServerKind::Ceiling) {
        servers.push(BenchServer::ceiling(folder.path())?);
    }
    if let Some((programs, (node, key))) = programs.as_ref().zip(node.as_ref()) {
        let inside = BenchServer::inside(node, key);
        print_progress("preparing the node");
        inside.prepare(scope.keys)?;
        if wanted(ServerKind::Inside) {
            servers.push(inside);
        }
        if wanted(ServerKind::Separate) {
            servers.push(BenchServer::separate(programs, node, key, folder.path())?);
        }
    }
    if wanted(ServerKind::Rqlite) {
        let rqlited = options.rqlited.clone().map_or_else(servers::rqlite::find_or_download, Ok)?;
        servers.push(BenchServer::rqlite(&rqlited, folder.path())?);
    }
    for server in servers
        .iter()
        .filter(|server| matches!(server.kind, ServerKind::Ceiling | ServerKind::Rqlite))
    {
        print_progress(&format!("preparing {}", server.kind.title()));
        server.prepare(scope.keys)?;
    }
    let cells = measure::table(&servers, &scope, print_progress)?;
    let pubsub = match &node {
        Some((node, key)) if !options.table_only => {
            measure::pubsub(node.gateway, key, &[1, 10, 100], &scope, print_progress)?
        }
        _ => Vec::new(),
    };
    let mut report = BenchReport {
        machine: machine_description(),
        runs: scope.runs,
        seconds_per_cell: scope.duration.as_secs_f64(),
        cells,
        pubsub,
        startup,
        goals: Vec::new(),
    };
    report.check_goals();
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    write!(std::io::stdout(), "{report}")?;
    Ok(())
}

/// Starts the node, and creates the key for all measurements.
fn start_node(
    programs: &ProgramPaths,
    options: &BenchOptions,
    folder: &Path,
) -> Result<(NodeProcess, String)> {
    let node = programs.start_node(folder, &NodeOverrides::default())?;
    let key = if options.static_key {
        STATIC_KEY.to_owned()
    } else {
        programs.make_key(&node, NAMESPACE)?
    };
    Ok((node, key))
}

fn measure_plan(options: &BenchOptions) -> MeasurePlan {
    let operations = if options.operations.is_empty() {
        Operation::ALL.to_vec()
    } else {
        options.operations.clone()
    };
    let connections = options.connections.clone();
    if options.quick {
        let (warm_up, duration) = (Duration::from_millis(200), Duration::from_millis(500));
        return MeasurePlan { runs: 1, operations, connections, warm_up, duration, keys: 10_000 };
    }
    MeasurePlan {
        runs: options.runs.max(1),
        operations,
        connections,
        warm_up: Duration::from_millis(500),
        duration: Duration::from_secs_f64(options.seconds),
        keys: 100_000,
    }
}

/// The description of the machine.
fn machine_description() -> String {
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("", |(_, m)| m);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {cores} cores, shared by the servers and the load generator.")
}

/// The median; sorts the list.
fn median(list: &mut [f64]) -> f64 {
    list.sort_by(f64::total_cmp);
    match list.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => list[n / 2],
        n => f64::midpoint(list[n / 2 - 1], list[n / 2]),
    }
}

/// Prints progress that is not part of the table.
fn print_progress(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}
