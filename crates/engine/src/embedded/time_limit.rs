//! How long a statement may run, and which of its limits ended it.

use super::conn::SqliteConnection;
use debros_proto::{Code, Error, Result};
use std::time::{Duration, Instant};

/// How much longer than its time by the processor a statement runs by the clock.
const TIMES_BY_CLOCK: u32 = 10;

/// When a statement must be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimit {
    /// How long one statement may run.
    pub(super) statement: Duration,
    /// The thread's processor counts, and not the clock, so that a busy machine takes nothing of
    /// it. By the clock it is [`TIMES_BY_CLOCK`] as long at most.
    pub(super) by_processor: bool,
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
}

/// Interrupts what runs inside when its time is over, and says which of the two times it was.
pub(super) fn with_time_limit<T>(
    conn: &SqliteConnection,
    time: TimeLimit,
    run: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let limit =
        Instant::now() + time.statement * if time.by_processor { TIMES_BY_CLOCK } else { 1 };
    conn.set_deadline(limit.min(time.deadline));
    if time.by_processor {
        conn.limit_cpu_time(time.statement);
    }
    let outcome = run();
    conn.clear_limits();
    outcome.map_err(|error| match error.code {
        _ if !was_interrupted(conn, &error) => error,
        Code::StatementTimeout if conn.temp_space_error().is_some() => {
            conn.temp_space_error().unwrap_or(error)
        }
        _ if limit <= time.deadline || (time.by_processor && Instant::now() < time.deadline) => {
            Error::new(
                Code::StatementTimeout,
                format!(
                    "the statement ran longer than {} s and was interrupted; nothing was changed",
                    time.statement.as_secs_f64()
                ),
            )
        }
        _ => Error::new(
            Code::DeadlineExceeded,
            "the statement was not done by the deadline and was interrupted; nothing was changed",
        ),
    })
}

/// Whether the statement was interrupted, while it ran or while it was compiled.
pub(super) fn was_interrupted(conn: &SqliteConnection, error: &Error) -> bool {
    error.code == Code::StatementTimeout || conn.authorizer.has_timed_out()
}
