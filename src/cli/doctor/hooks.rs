//! Checks the hooks of the profiles: whether their programs are there, and how they ended last.

use std::collections::BTreeSet;
use std::path::Path;

use crate::cli::doctor::Finding;
use crate::cli::output::Output;
use crate::cli::setup::Setup;
use crate::hooks::HookReport;
use crate::profile::Profile;
use crate::sys::paths;

pub(super) fn check(setup: &Setup, _: &Output) -> Vec<Finding> {
    let profiles: Vec<Profile> =
        setup.all_profiles().unwrap_or_default().iter().filter_map(|name| setup.profile(name).ok()).collect();
    // Many profiles have one hook.
    let commands = profiles.iter().flat_map(|profile| &profile.hooks.commands);
    let programs: BTreeSet<_> =
        commands.map(|(event, argv)| (*event, argv.first().map_or("", String::as_str))).collect();
    let missing = programs.into_iter().filter(|(_, program)| !is_there(program)).map(|(event, program)| {
        let text = format!("the program of {} is not there, or cannot be run: {program}", event.key());
        Finding::warning("hooks", text, "check its path and its mode; hooks run in /, with the PATH of keepalive")
    });
    let ended = profiles.iter().flat_map(|profile| {
        setup.hooks().reports(profile).into_iter().filter_map(|report| finding(profile, &report)).collect::<Vec<_>>()
    });
    missing.chain(ended).collect()
}

/// How it ended last, if it ran.
fn finding(profile: &Profile, report: &HookReport) -> Option<Finding> {
    let (name, key) = (&profile.name, report.event.key());
    Some(match &report.error {
        Some(failure) => {
            let hint = failure.hint.as_deref().unwrap_or("see the log");
            Finding::warning("hooks", format!("{name}: {}", failure.message), hint)
        }
        None => Finding::good("hooks", format!("{name}: {key} ran {}", report.ran_at?.to_the_second())),
    })
}

fn is_there(program: &str) -> bool {
    if program.contains('/') { paths::is_program(Path::new(program)) } else { paths::find_program(program).is_some() }
}
