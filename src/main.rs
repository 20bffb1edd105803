//! The `keepalive` program: it only calls [`keepalive::cli::main`].

use std::process::ExitCode;

fn main() -> ExitCode {
    keepalive::cli::main()
}
