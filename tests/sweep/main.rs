//! The built program under attack, from outside: killed, failed, paused, cut off and raced at every point. Run all with
//! `cargo test --test sweep -- --include-ignored`, some with `cargo test --test sweep -- kill kill-keyring`, at full length
//! with `KEEPALIVE_LONG=1`. Plain `cargo test` runs none and says so.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "the bans are the program's; tests live in the real world"
)]

mod clock;
mod errno;
mod fixture;
mod import;
mod kill;
mod logout;
mod mirror;
mod mutations;
mod power;
mod proxy;
mod race;
mod soak;
mod tracer;

#[allow(dead_code, reason = "shared with the other tests")]
#[path = "../it/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::Instant;

/// How much of a sweep is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Calls with an effect only, and of the slow sweeps a sample: a minute or two.
    Quick,
    /// Everything.
    Full,
}

impl Extent {
    fn is_full(self) -> bool {
        self == Self::Full
    }

    fn workers(self) -> u64 {
        std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
    }
}

type KillSweep = (&'static str, fn(Extent) -> bool);

const SWEEPS: &[KillSweep] = &[
    ("kill", kill::on_files),
    ("kill-keyring", kill::on_keyring),
    ("logout", logout::run),
    ("import", import::run),
    ("mirror", mirror::run),
    ("errno", errno::run),
    ("proxy", proxy::run),
    ("power", power::run),
    ("pause", race::paused_holder),
    ("herd", race::herds_with_kills),
    ("clock", clock::run),
    ("soak", soak::run),
    ("mutations", mutations::run),
];

/// What plain `cargo test` says when its tests are over.
const LEFT_OUT: &str = "
Left out: the sweeps, the model, and each test above that is `ignored`. They need more than a Rust toolchain, or minutes.
    contrib/test                                        installs what is needed (as root) and runs everything
    cargo test --test it -- --include-ignored login::    one file of tests, when its programs are there
    cargo test --test sweep -- kill                     one sweep
    cargo test -p keepalive-model                       the model
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|a| a == "--trace") {
        return tracer::main(&arguments[1..]);
    }
    #[expect(clippy::disallowed_methods, reason = "this program is not keepalive")]
    let extent = if std::env::var_os("KEEPALIVE_LONG").is_some() { Extent::Full } else { Extent::Quick };
    // What a test harness would take, like --nocapture, means nothing here.
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let is_all = wanted.is_empty() && (arguments.iter().any(|a| a == "--include-ignored") || extent.is_full());
    let is_wanted = |name: &str| is_all || wanted.iter().any(|w| *w == name);
    if !SWEEPS.iter().any(|(name, _)| is_wanted(name)) {
        println!("{LEFT_OUT}");
    }
    let mut is_good = true;
    for (name, sweep) in SWEEPS {
        if is_wanted(name) {
            let start = Instant::now();
            let held = sweep(extent);
            is_good &= held;
            let verdict = if held { "held" } else { "FAILED" };
            println!("sweep {name} ({extent:?}): {verdict}, {:.0} s\n", start.elapsed().as_secs_f64());
        }
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
