//! Limits of every connection: lengths of values, steps, remembered statements.

use std::time::Duration;

/// Bytes of the largest string, BLOB or row.
pub(super) const MAX_LENGTH: usize = 33 << 20;
/// Bytes of the largest value or row that a statement meets while its steps are limited.
pub(super) const BRIEF_LENGTH: usize = 64 << 10;
/// Virtual-machine instructions between two looks at the clock: a few microseconds, or so many
/// times what the longest instruction takes, which is some 10 ms with values of `MAX_LENGTH`.
pub(super) const STEPS_PER_POLL: i32 = 200;
/// Compiled statements kept per connection.
pub(super) const CACHED_STATEMENTS: usize = 128;
/// Remembered traits of statements, per connection.
pub(super) const CACHED_TRAITS: usize = 1024;
/// Bytes of the texts of these statements, per connection.
pub(super) const CACHED_TRAITS_BYTES: usize = 512 << 10;

/// How long a connection waits for a lock of another one's.
pub(super) const BUSY_TIME: Duration = Duration::from_secs(5);
