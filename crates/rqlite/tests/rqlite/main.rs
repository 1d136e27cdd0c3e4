//! Against a real `rqlited`, which is fetched into `.tools/` of the project when it is missing.
//!
//! Every child is this test's own, on loopback, at ports that are free.

mod cluster;
mod common;
mod known_loss;
mod log;
mod supervision;
