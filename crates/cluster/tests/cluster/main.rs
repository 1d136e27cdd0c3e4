//! Three nodes' databases with a real rqlited each, in one process.

mod conformance;
mod failover;
mod harness;
mod healing;
mod poison;
mod poison_attempts;
mod reads_and_writes;
#[path = "../../../engine/tests/replicated/same_files.rs"]
mod same_files;
#[path = "../../../rqlite/tests/support/mod.rs"]
mod support;
