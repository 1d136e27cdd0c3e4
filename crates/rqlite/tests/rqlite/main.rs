//! Against a real `rqlited`, which is fetched into `.tools/` of the project when it is missing.
//!
//! Every child is this test's own, on loopback, at addresses of its own.

// What was measured, and which end it was of several that are right.
#![allow(clippy::print_stdout)]

mod cluster;
mod common;
mod known_loss;
mod log;
mod roles;
mod supervision;
#[path = "../support/mod.rs"]
mod support;
