//! The `keepalive` program: parse, run, exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    keepalive::cli::main()
}
