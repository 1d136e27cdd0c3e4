//! The full node.

use std::process::ExitCode;

/// Every call allocates a dozen small things on one thread and frees some on another: what this
/// allocator is made for. On Linux it serves SQLite as well (Cargo.toml).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    debros_cli::network_node::main()
}
