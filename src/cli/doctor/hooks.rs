//! Checks the hooks of the profiles: whether their programs are there, and how they ended last.

use std::path::Path;

use crate::cli::doctor::Finding;
use crate::cli::output::Output;
use crate::cli::setup::Setup;
use crate::hooks::HookReport;
use crate::profile::{Profile, ProfileName};
use crate::sys::paths;

pub(super) fn check(setup: &Setup, _: &Output) -> Vec<Finding> {
    let names = setup.all_profiles().unwrap_or_default();
    names.iter().flat_map(|name| check_profile(setup, name)).collect()
}

fn check_profile(setup: &Setup, name: &ProfileName) -> Vec<Finding> {
    let Ok(profile) = setup.profile(name) else { return Vec::new() };
    let reports = setup.hooks().reports(&profile);
    reports.iter().map(|report| finding(&profile, report)).collect()
}

fn finding(profile: &Profile, report: &HookReport) -> Finding {
    let (name, key) = (&profile.name, report.event.key());
    let program = profile.hooks.commands.get(&report.event).and_then(|argv| argv.first()).map_or("", String::as_str);
    if !is_there(program) {
        let text = format!("{name}: the program of {key} is not there, or cannot be run: {program}");
        return Finding::warning(
            "hooks",
            text,
            "check its path and its mode; hooks run in /, with the PATH of keepalive",
        );
    }
    match &report.error {
        Some(failure) => {
            let hint = failure.hint.as_deref().unwrap_or("see the log");
            Finding::warning("hooks", format!("{name}: {}", failure.message), hint)
        }
        None => Finding::good("hooks", format!("{name}: {key} runs {program}")),
    }
}

fn is_there(program: &str) -> bool {
    if program.contains('/') { paths::is_program(Path::new(program)) } else { paths::find_program(program).is_some() }
}
