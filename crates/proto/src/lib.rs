//! The language that every part of DeBros Network shares: names, values, messages, errors and
//! limits.
//!
//! - [`rpc`]: the messages of `/debros/rpc/1.0.0`, generated from the commented files under
//!   `proto/`.
//! - [`frame`]: how messages stand on a stream, with size limits.
//! - [`ids`]: namespaces, keys, topics and other names, checked when they are made.
//! - [`call_kinds`]: one line for each call: its name, what it requires, what it does.
//! - [`Permission`]: what a call needs to be allowed.
//! - [`error`]: the one error type of a call, with its catalogue of stable codes.
//! - [`value`] and [`json`]: SQL values, and how they read in JSON.
//! - [`sql`]: splitting a script into statements.
//! - [`limits`]: the sizes and counts that the system accepts.
//! - [`LogThrottle`]: how often a line of the log is written that strangers can cause.
//! - [`network`]: which addresses are one caller.
//! - [`regular_file`]: opening what a configured path names; [`durable_file`]: writing small files
//!   that survive a crash, and secrets.
//! - [`lock`]: locking a mutex that a panic may have poisoned.
//! - [`time`], [`words`] and [`hex`]: how times, counts and digests are written.
//!
//! This crate knows no async runtime, no network, no web framework and no database driver, so that
//! a light client which needs only the words compiles nothing else.

pub mod call_kinds;
pub mod durable_file;
pub mod error;
pub mod frame;
pub mod hex;
pub mod ids;
pub mod json;
pub mod limits;
mod log_throttle;
mod mutex;
pub mod network;
mod permission;
mod redacted_debug;
pub mod regular_file;
pub mod sql;
pub mod time;
pub mod value;
pub mod words;

/// The messages of the RPC protocol, version 1. Documented in `proto/debros/v1/*.proto`.
// The comments are written for readers of any language, not for rustdoc.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod rpc {
    include!(concat!(env!("OUT_DIR"), "/debros.v1.rs"));
}

pub use error::{Code, Error, Result};
pub use ids::{Key, Namespace, Topic};
pub use log_throttle::{LOG_INTERVAL, LogThrottle};
pub use mutex::lock;
pub use permission::Permission;
pub use time::now_ms;

/// The RPC protocol's name on a libp2p connection.
pub const RPC_PROTOCOL: &str = "/debros/rpc/1.0.0";
