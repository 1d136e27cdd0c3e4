//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    debros_cli::network_cli::main()
}
