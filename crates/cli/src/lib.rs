//! The three programs of DeBros Network: `network-node`, `network-gateway` and `network-cli`.
//!
//! This crate is the only place that reads the environment, configuration files and flags; it turns
//! them into the set-up of the other crates' parts, starts those, and stops them at a signal.

mod arg_parsers;
pub mod cli_error;
pub mod config;
pub mod credentials;
mod dialled_members;
mod file_descriptors;
mod gateway_url;
pub mod local_node;
pub mod logging;
mod metrics;
pub mod network_cli;
pub mod network_gateway;
pub mod network_node;
mod runtime;
mod sign_in;
mod signals;
pub mod version;
