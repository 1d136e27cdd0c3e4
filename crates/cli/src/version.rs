//! Which build this is.

/// `MAJOR.MINOR.PATCH`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from, or "unknown".
pub const COMMIT: &str = env!("DEBROS_BUILD_COMMIT");
/// When it was built, RFC 3339 in UTC.
pub const BUILD_TIME: &str = env!("DEBROS_BUILD_TIME");

/// What `--version` prints after the program's name.
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("DEBROS_BUILD_COMMIT"),
    ", built ",
    env!("DEBROS_BUILD_TIME"),
    ")"
);
