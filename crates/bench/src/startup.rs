//! How long a node with its gateway takes to be ready, and how much memory it holds when idle.

use crate::median;
use crate::proc_stat;
use crate::servers::node::{NodeOverrides, ProgramPaths};
use anyhow::Result;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// Starts on a data folder that exists already.
const RESTARTS: usize = 10;
/// How long a node is idle before its memory is read.
const IDLE: Duration = Duration::from_secs(2);

/// The results.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StartupOutcome {
    /// Milliseconds from exec to the first 200 of `/ready`, on an empty folder: identity, keys and
    /// schema are created.
    pub(crate) first_ready_ms: f64,
    /// The same on a folder that exists, the median.
    pub(crate) ready_ms: f64,
    /// The worst of them.
    pub(crate) worst_ready_ms: f64,
    /// Resident bytes after two idle seconds.
    pub(crate) idle_bytes: u64,
}

/// Measures in a folder of its own.
pub(crate) fn measure(programs: &ProgramPaths, folder: &Path) -> Result<StartupOutcome> {
    let folder = folder.join("startup");
    std::fs::create_dir_all(&folder)?;
    let first = programs.start_node(&folder, &NodeOverrides::default())?;
    std::thread::sleep(IDLE);
    let idle_bytes = proc_stat::resident_bytes(first.process.pid())?;
    let first_ready_ms = milliseconds(first.ready);
    first.process.stop()?;
    let mut restarts = Vec::with_capacity(RESTARTS);
    for _ in 0..RESTARTS {
        let node = programs.start_node(&folder, &NodeOverrides::default())?;
        restarts.push(milliseconds(node.ready));
        node.process.stop()?;
    }
    let worst_ready_ms = restarts.iter().copied().fold(0.0, f64::max);
    Ok(StartupOutcome {
        first_ready_ms,
        ready_ms: median(&mut restarts),
        worst_ready_ms,
        idle_bytes,
    })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
