//! `keepalive doctor`: looks at everything a refresh depends on, and says what to do about each finding.

mod configuration;
mod copies;
mod finding;
mod machine;
mod profiles;
mod providers;
mod store;

use clap::Args;

use super::Global;
use super::compose::Setup;
use super::output::{Output, Status};
use crate::profile::ProfileName;
use finding::Finding;

/// Check configuration, store, locks, clocks and providers, and say what to do about each finding
///
/// Asks the keyring, but never for a prompt. Asks the providers that your profiles use whether they are there, for a few
/// seconds at most; sends them no token and no secret, and refreshes nothing. With --take-over this machine and this state directory
/// become the home of the credentials: do that only when the former home is out of use.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Make this machine and state directory the home of the credentials
    #[arg(long)]
    take_over: bool,
    /// Take over this profile too, though neither the configuration nor the state directory has it; can be repeated
    #[arg(short, long = "profile", value_name = "PROFILE", value_parser = super::profile_name, requires = "take_over")]
    profiles: Vec<ProfileName>,
}

/// Looks at one concern.
type Check = fn(&Setup, &Output) -> Vec<Finding>;

/// All that is looked at, in the order in which it is told. None of them changes anything.
const CHECKS: &[Check] = &[
    configuration::check,
    store::check_directory,
    store::check_filesystem,
    store::check_locks,
    store::check_ledger,
    store::check_keyring,
    store::check_key,
    machine::check_clock,
    machine::check_daemon,
    profiles::check,
    copies::check,
    providers::check,
];

pub fn run(args: &DoctorArgs, global: &Global, out: &Output) -> Status {
    let setup = match Setup::new(global) {
        Ok(setup) => setup,
        Err(failure) => return finding::show(&[Finding::bad("configuration", failure, Status::Config)], out),
    };
    let mut findings = Vec::new();
    if args.take_over {
        findings.extend(profiles::take_over(&setup, &args.profiles));
    }
    findings.extend(CHECKS.iter().flat_map(|check| check(&setup, out)));
    finding::show(&findings, out)
}
