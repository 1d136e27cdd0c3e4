//! The HTTP gateway.

use std::process::ExitCode;

fn main() -> ExitCode {
    debros_cli::network_gateway::main()
}
