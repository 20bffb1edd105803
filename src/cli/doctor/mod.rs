//! `keepalive doctor`: checks everything that a refresh depends on, and says how to fix each problem.

mod clock_and_daemon;
mod configuration;
mod finding;
mod hooks;
mod mirrors;
mod profiles;
mod providers;
mod store;
mod tool_copies;

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::output::{CommandStatus, Output};
use super::{GlobalArgs, completion};
use crate::cli::setup::Setup;
use crate::profile::ProfileName;
use finding::Finding;

/// Check configuration, store, locks, clock and providers, and say how to fix each problem
///
/// Shows problems first, each with what to do; with -v also what is well. Uses the keyring but never opens an unlock dialog. Checks, for a few seconds at most, whether the providers of your
/// profiles can be reached; sends no tokens or secrets, and refreshes nothing. --take-over makes this machine and state
/// directory the owner of the credentials; use it only if the previous one no longer refreshes them.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Make this machine and state directory the owner of the credentials
    #[arg(long)]
    take_over: bool,
    /// Also take over this profile, which is neither configured nor stored here; can be repeated
    #[arg(short, long = "profile", value_name = "PROFILE", value_parser = super::profile_name, requires = "take_over", add = ArgValueCandidates::new(completion::profiles))]
    profiles: Vec<ProfileName>,
}

/// Checks one concern.
type Check = fn(&Setup, &Output) -> Vec<Finding>;

/// All checks, in the order of the output. None of them changes anything.
const CHECKS: &[Check] = &[
    configuration::check,
    store::check_directory,
    store::check_filesystem,
    store::check_locks,
    store::check_ledger,
    store::check_keyring,
    store::check_key,
    clock_and_daemon::check_clock,
    clock_and_daemon::check_daemon,
    clock_and_daemon::check_listener,
    profiles::check,
    tool_copies::check,
    mirrors::check,
    hooks::check,
    providers::check,
];

pub(super) fn run(args: &DoctorArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    let setup = match Setup::new(global) {
        Ok(setup) => setup,
        Err(failure) => {
            return finding::print_findings(Finding::from_configuration(failure), out);
        }
    };
    let mut findings = Vec::new();
    if args.take_over {
        findings.extend(profiles::take_over(&setup, &args.profiles));
    }
    findings.extend(CHECKS.iter().flat_map(|check| check(&setup, out)));
    finding::print_findings(findings, out)
}
