//! Stopping: the first SIGINT or SIGTERM asks for an orderly stop, the second ends the process at once.

use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long an orderly stop may take.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(10);

/// The signals that stop a program.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Takes the signals over; without this they end the process at once.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for a signal and returns its name and the exit code of a process that it ended.
    pub(crate) async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.interrupt.recv() => ("SIGINT", 130),
            _ = self.terminate.recv() => ("SIGTERM", 143),
        }
    }

    /// Does the work of a start. A signal meanwhile ends the process: nothing was acknowledged yet that could be lost.
    pub(crate) async fn during_start<T>(&mut self, start: impl Future<Output = T>) -> T {
        tokio::select! {
            started = start => started,
            (name, code) = self.next() => {
                tracing::info!(signal = name, "ending before the start was complete");
                std::process::exit(code)
            }
        }
    }

    /// From now on a signal ends the process at once. What was acknowledged is durable already.
    pub(crate) fn exit_at_next(mut self) {
        tokio::spawn(async move {
            let (name, code) = self.next().await;
            tracing::warn!(signal = name, "a second signal: ending at once");
            std::process::exit(code);
        });
    }
}
