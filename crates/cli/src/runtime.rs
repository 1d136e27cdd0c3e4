//! How the programs run: an async runtime, and for a service its log and what it does before it
//! starts.

use crate::cli_error::CliError;
use crate::config::LogSettings;
use crate::logging::{self, LogHandle};
use std::io::{self, Write as _};
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};

/// Threads for blocking work besides the engine's own: file reads and name look-ups, which are
/// short and rare.
const BLOCKING_THREADS: usize = 16;

/// How a service's process ends. Its error is written as text: services have no `--format json`.
pub(crate) fn exit_code(ended: Result<(), CliError>) -> ExitCode {
    let as_json = false;
    ended.map_or_else(|cli_error| cli_error.report(as_json), |()| ExitCode::SUCCESS)
}

/// Runs a service to its end: a worker per core, and its log until all of it is written. With
/// `print_config`, only that is printed.
pub(crate) fn run_service(
    print_config: Option<String>,
    log: &LogSettings,
    serve: impl AsyncFnOnce(&LogHandle) -> Result<(), CliError>,
) -> Result<(), CliError> {
    if let Some(config) = print_config {
        return Ok(io::stdout().write_all(config.as_bytes())?);
    }
    let log = logging::start(log).map_err(|error| CliError::new(error.to_string()))?;
    let runtime =
        Builder::new_multi_thread().max_blocking_threads(BLOCKING_THREADS).enable_all().build()?;
    let result = runtime.block_on(serve(&log));
    // Nothing that is still waiting for a name server or a file may hold the process back.
    runtime.shutdown_background();
    drop(log);
    result
}

/// A runtime for a command that asks one node a few things: everything on the calling thread.
pub(crate) fn command_runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().max_blocking_threads(BLOCKING_THREADS).enable_all().build()
}
