//! The `keepalive` program: it only calls [`keepalive::main`].

use std::process::ExitCode;

fn main() -> ExitCode {
    keepalive::main()
}
