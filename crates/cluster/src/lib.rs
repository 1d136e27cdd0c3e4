//! A database that several nodes keep together.
//!
//! Each node has an engine with files of its own. rqlite keeps the log of what the leader changes;
//! [`ClusterDatabase`] holds the two together: it puts the leader's changes into the log, applies
//! the log on the others, decides who leads, and waits before a read until the node knows enough.
//! `docs/CLUSTER.md` says why it is built in this way.

mod append_task;
mod apply_queues;
mod catch_up;
mod comparison;
mod copy_need;
mod database;
mod database_name;
mod durability;
mod engine;
mod errors;
mod leader_link;
mod leader_service;
mod leadership;
mod local_state;
mod log_part;
mod log_writer;
mod pending_entries;
mod progress;
mod read_barrier;
mod write_route;

pub use comparison::DatabaseDifference;
pub use copy_need::{CopyNeed, CopyReason};
pub use database::{ClusterConfig, ClusterDatabase, ClusterStatus};
pub use engine::ClusterEngine;
pub use leader_link::{CommittedEntries, LeaderLink};
pub use local_state::{LocalState, LocalStateError};
