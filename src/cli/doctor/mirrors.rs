//! Checks what other programs are fed: whether each mirror has the newest token, is private, and has its margin.

use crate::access::setup::Setup;
use crate::cli::doctor::Finding;
use crate::cli::output::{CommandStatus, Output};
use crate::config::FED_MARGIN;
use crate::mirror::{MirrorReport, MirrorState};
use crate::profile::{Profile, ProfileName};
use crate::store::journal::Journal;

pub(super) fn check(setup: &Setup, _: &Output) -> Vec<Finding> {
    let names = setup.config.profile_names().filter(|name| setup.config.has_mirrors(name));
    names.flat_map(|name| check_profile(setup, name)).collect()
}

fn check_profile(setup: &Setup, name: &ProfileName) -> Vec<Finding> {
    let Ok(profile) = setup.profile(name) else { return Vec::new() };
    let journal = setup.store.peek(name).ok().flatten().filter(Journal::has_credential);
    let newest = journal.as_ref().map(|journal| journal.generation);
    let reports = setup.mirrors().reports(&profile, newest);
    let mut findings: Vec<Finding> = reports.iter().map(|report| finding(name, report)).collect();
    let loose = setup.mirrors().loose_files(&profile);
    findings.extend(loose.into_iter().map(|(path, access)| {
        let text = format!("{name}: the mirror {path} has an access token, and {access} it");
        Finding::warning("mirror", text, &format!("chmod go= {path}"))
    }));
    findings.extend(journal.and_then(|journal| check_margin(&profile, &journal)));
    findings
}

fn finding(name: &ProfileName, report: &MirrorReport) -> Finding {
    let path = &report.path;
    match (&report.error, report.state) {
        (Some(failure), state) => {
            let hint = failure.hint.clone().unwrap_or_else(|| format!("keepalive refresh -p {name}"));
            let finding = Finding::warning("mirror", format!("{name}: {}", failure.message), &hint);
            match state {
                MirrorState::Conflict => finding.with_status(CommandStatus::TryAgain),
                MirrorState::Current | MirrorState::Pending | MirrorState::Failed => finding,
            }
        }
        (None, MirrorState::Current) => Finding::good("mirror", format!("{name}: {path} has the newest access token")),
        (None, _) => {
            let text = format!("{name}: {path} does not have the newest access token yet");
            Finding::warning("mirror", text, &format!("keepalive refresh -p {name}"))
        }
    }
}

/// A token that lives less than twice the margin is too old for some programs before it can be replaced.
fn check_margin(profile: &Profile, journal: &Journal) -> Option<Finding> {
    let lifetime = journal.validity.as_ref()?.full_lifetime()?;
    if profile.margin.of(lifetime) >= FED_MARGIN {
        return None;
    }
    let life = humantime::format_duration(lifetime);
    let text = format!(
        "{}: its access tokens live {life}, so a mirror has less than 6 min left before it is renewed; a program that \
         wants more may take it for expired",
        profile.name
    );
    Some(Finding::warning("mirror", text, "give it to programs by `keepalive token` instead, if they fail"))
}
