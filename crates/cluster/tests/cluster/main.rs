//! Three nodes' databases with a real rqlited each, in one process.

mod failover;
mod harness;
mod reads_and_writes;
