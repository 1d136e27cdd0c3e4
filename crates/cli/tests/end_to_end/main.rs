//! The whole system from outside: real processes, and the same thing through every way in.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test prints what it draws and finds"
)]

#[allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

mod apart;
mod cluster;
mod cluster_roles;
mod conversion;
mod faults;
mod idempotency;
mod namespaces;
mod network;
mod readme;
mod secrets;
mod values;
mod wallets;
mod ways;
