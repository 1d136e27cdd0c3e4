//! Signals: the first SIGINT or SIGTERM asks for an orderly stop, the second ends the process at
//! once. SIGHUP makes a service read its certificates again and open its log file again; when it
//! says that the terminal is gone, it stops as SIGTERM does. SIGUSR1 and SIGUSR2 mean nothing, and
//! end nothing.

use std::fs::File;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long an orderly stop may take.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(10);

/// The signals that stop a program, or make it read its files again.
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    on_hang_up: HangUpAction,
}

/// What SIGHUP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HangUpAction {
    /// The end.
    Stop,
    /// The end when the terminal that the program was started on is gone, else that files changed.
    StopWithTerminal,
    /// That files changed.
    Reload,
}

impl StopSignals {
    /// Takes the signals of a service over; without this they end the process at once.
    pub(crate) fn of_service() -> io::Result<Self> {
        // Looked at first: from now on nothing is ignored. What nohup started outlives its
        // terminal.
        let on_hang_up = if has_terminal() && !ignores_hang_up() {
            HangUpAction::StopWithTerminal
        } else {
            HangUpAction::Reload
        };
        for meaningless in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
            // Once taken over, a signal stays so.
            drop(signal(meaningless)?);
        }
        Self::listen(on_hang_up)
    }

    /// Takes the signals of a command over, which has something to tidy up before it ends.
    pub(crate) fn of_command() -> io::Result<Self> {
        Self::listen(HangUpAction::Stop)
    }

    fn listen(on_hang_up: HangUpAction) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            on_hang_up,
        })
    }

    /// Waits for a signal to stop and returns its name and the exit code of a process that it
    /// ended. Meanwhile `reload` is called whenever files are to be read again.
    pub(crate) async fn next_stop(&mut self, mut reload: impl FnMut()) -> (&'static str, i32) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return ("SIGINT", 130),
                _ = self.terminate.recv() => return ("SIGTERM", 143),
                _ = self.hang_up.recv() => match self.on_hang_up {
                    HangUpAction::Stop => return ("SIGHUP", 129),
                    HangUpAction::StopWithTerminal if !has_terminal() => return ("SIGHUP: the terminal is gone", 129),
                    HangUpAction::StopWithTerminal | HangUpAction::Reload => reload(),
                },
            }
        }
    }

    /// Does the work of a start. A signal meanwhile ends the process: nothing was acknowledged yet
    /// that could be lost.
    pub(crate) async fn during_start<T>(&mut self, start: impl Future<Output = T>) -> T {
        tokio::select! {
            started = start => started,
            // What is being started reads its files as they are now.
            (name, code) = self.next_stop(|| {}) => {
                tracing::info!(signal = name, "ending before the start was complete");
                std::process::exit(code)
            }
        }
    }

    /// From now on a signal ends the process at once. What was acknowledged is durable already. A
    /// hang-up does not count: the system and the shell may each send one for the same terminal.
    pub(crate) fn exit_at_next(mut self) {
        self.on_hang_up = HangUpAction::Reload;
        tokio::spawn(async move {
            let (name, code) = self.next_stop(|| {}).await;
            tracing::warn!(signal = name, "a second signal: ending at once");
            std::process::exit(code);
        });
    }
}

/// Whether the process has a controlling terminal now.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether the process was started with SIGHUP ignored, where the system reports it (Linux).
fn ignores_hang_up() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| is_hang_up_ignored(&status))
}

/// SIGHUP is signal 1: the lowest bit.
fn is_hang_up_ignored(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::is_hang_up_ignored;

    #[test]
    fn an_ignored_hang_up_is_read_from_the_mask_of_linux() {
        assert!(is_hang_up_ignored("Name:\tx\nSigIgn:\t0000000000001001\n"));
        assert!(!is_hang_up_ignored("SigIgn:\t0000000000001000\n"));
        assert!(!is_hang_up_ignored("SigBlk:\t0000000000000001\n"));
    }
}
