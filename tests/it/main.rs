//! All integration tests, in one binary: the built program against real servers, keyrings and service managers.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "the bans are the program's; tests live in the real world"
)]

#[allow(dead_code, reason = "shared with the sweeps")]
mod support;

mod adoption;
mod clients;
mod connections;
mod contrib;
mod daemon;
mod damages;
mod discoveries;
mod doctors;
mod faults;
mod fuzz;
mod herds;
mod imports;
mod keyrings;
mod keys;
mod logins;
mod logouts;
mod logs;
mod misuse;
mod oidc;
mod outputs;
mod protocol;
mod providers;
mod refreshes;
mod refusals;
mod rehearsals;
mod responses;
mod rules;
mod screens;
mod systemd;
mod tidy;
mod tokens;
