//! The log of a cluster, kept by rqlite: a supervised `rqlited`, a client of it, and the log.
//!
//! - [`find_program`]: where `rqlited` is on this machine.
//! - [`Rqlited`]: one `rqlited` as a child of this process: started, watched, restarted, stopped.
//! - [`RqliteClient`]: calls of the own `rqlited`, with what each failure means.
//! - [`RqliteLog`]: the three tables of `docs/CLUSTER.md`, "The log": claiming, appending, reading
//!   and trimming.
//! - [`certificates`]: TLS for rqlite's Raft port, and the members' password, from the cluster key.
//!
//! Nothing here knows tenants, peers or callers: an entry's body is bytes.
//!
//! The tests need a real `rqlited`; `make tools` puts one into `.tools/`, and so do the tests.

pub mod certificates;
mod client;
mod log;
mod supervisor;

pub use certificates::RaftTls;
pub use client::{
    ClientError, Leader, RaftNode, ReadLevel, RqliteClient, Statement, StatementResult,
};
pub use log::{AppendError, Entry, Leadership, MAX_BATCH_BYTES, NewEntry, ReadError, RqliteLog};
pub use supervisor::{
    Features, ProgramError, Rqlited, RqlitedConfig, RqlitedFolder, RqlitedState, StartError,
    find_program,
};
