//! The async runtime of the programs.

use std::io;
use tokio::runtime::{Builder, Runtime};

/// Threads for blocking work besides the engine's own: file reads and name look-ups, which are short and rare.
const BLOCKING_THREADS: usize = 16;

/// A runtime for a service: a worker per core.
pub(crate) fn service() -> io::Result<Runtime> {
    Builder::new_multi_thread().max_blocking_threads(BLOCKING_THREADS).enable_all().build()
}

/// A runtime for a command that asks one node a few things: everything on the calling thread.
pub(crate) fn command() -> io::Result<Runtime> {
    Builder::new_current_thread().max_blocking_threads(BLOCKING_THREADS).enable_all().build()
}
