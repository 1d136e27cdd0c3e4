//! The full node.

use std::process::ExitCode;

fn main() -> ExitCode {
    debros_cli::network_node::main()
}
