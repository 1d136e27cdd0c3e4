//! The programs from outside: their configuration, how they start and refuse to, what they print
//! and how they end.

#[allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

mod browser;
mod chromium;
mod cluster;
mod command_line;
mod completion;
mod configuration;
mod descriptors;
mod dev;
mod doctor;
mod json;
mod local_nodes;
mod migrations;
mod namespaces;
mod recovery;
mod separate_gateway;
mod sign_in;
mod signals;
mod terminal;
mod wallets;
