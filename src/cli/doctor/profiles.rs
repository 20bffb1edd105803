//! Checks whether each profile's credential belongs to this machine and store; `--take-over` makes it so.

use super::Finding;
use crate::access::setup::Setup;
use crate::cli::output::{CommandStatus, Output};
use crate::cli::refresher::{REMEDY, Refresher};
use crate::cli::status::StatusRow;
use crate::engine::with_names;
use crate::outcome::{ErrorKind, Failure, Outcome, ProfileState, Publication};
use crate::profile::ProfileName;
use crate::store::journal::block::{Block, Cause};
use crate::store::keyring::KeyringService;
use crate::store::{StoreError, TakeOverResult, TokenClaim};

pub(super) fn check(setup: &Setup, _: &Output) -> Vec<Finding> {
    let names = match setup.all_profiles() {
        Ok(names) => names,
        Err(e) => return vec![Finding::from_store_error("profiles", &e)],
    };
    let refresher = Refresher::of(setup);
    names.iter().flat_map(|name| check_profile(setup, StatusRow::new(setup, name.clone()), &refresher)).collect()
}

fn check_profile(setup: &Setup, row: StatusRow, refresher: &Refresher) -> Vec<Finding> {
    // It names the place, which profiles may share: then it is told once.
    let is_of_store = |failure: &&Failure| failure.kind.exit_status() == CommandStatus::StoreUnavailable.code();
    let no_room = row.status.obstacle.as_ref().filter(is_of_store).map(|failure| {
        let message = format!("a refresh could not be stored: {}", failure.message);
        Finding::bad("store", Failure { message, ..failure.clone() }, CommandStatus::StoreUnavailable)
    });
    let is_all = no_room.is_some() && row.status.state == ProfileState::StoreUnavailable;
    no_room.into_iter().chain(check_credential(setup, &row, refresher).filter(|_| !is_all)).collect()
}

fn check_credential(setup: &Setup, row: &StatusRow, refresher: &Refresher) -> Option<Finding> {
    let name = &row.name;
    let is_absent = row.status.state == ProfileState::NoCredential;
    let journal = row.journal.as_ref();
    if !is_absent && journal.is_none() {
        return Some(status_finding(row, refresher));
    }
    if journal.is_some_and(|j| j.is_tombstone) && setup.store.has_remains(name).unwrap_or(false) {
        let text = format!("{name} is signed out, but the logout was interrupted before everything was deleted");
        return Some(
            Finding::warning("profile", text, &format!("keepalive logout {name}")).with_status(row.exit_status()),
        );
    }
    // Before the first login there is nothing to examine.
    if journal.is_none() && !setup.store.layout().dir().exists() {
        return Some(status_finding(row, refresher));
    }
    match setup.store.check_copies_agree(name) {
        Ok(warnings) if !warnings.is_empty() && !is_absent && !row.status.state.needs_person() => {
            let hint = format!("keepalive refresh -p {name} --force writes the keyring item again");
            let finding = Finding::warning("profile", format!("{name}: {}", warnings.join("; ")), &hint);
            Some(finding.with_status(row.exit_status()))
        }
        Ok(_) if journal.and_then(|j| j.block(Cause::Store)).is_some_and(Block::is_about_key) => Some(key_is_back(row)),
        Ok(_) | Err(StoreError::Empty) => Some(status_finding(row, refresher)),
        // Told once already, for the store as a whole.
        Err(StoreError::Keyring(_) | StoreError::KeyMissing { .. } | StoreError::KeyUnavailable { .. }) => {
            (row.status.state == ProfileState::NeedsLogin).then(|| status_finding(row, refresher))
        }
        Err(e) => Some(Finding::from_outcome("profile", &with_names(e.outcome(), &setup.store, name))),
    }
}

/// The key was had just now, though the last run had none: the next one notes that.
fn key_is_back(row: &StatusRow) -> Finding {
    let why = row.status.error.as_ref().map_or(String::new(), |failure| format!(": {}", failure.message));
    let text = format!("{}: the last run had no sealing key{why}; it is there now", row.name);
    Finding::warning("profile", text, &format!("keepalive refresh -p {}", row.name)).with_status(row.exit_status())
}

/// What `status` says of a profile, and the exit status that it gives.
fn status_finding(row: &StatusRow, refresher: &Refresher) -> Finding {
    let name = &row.name;
    let (status, exit) = (&row.status, row.exit_status());
    let hint = |failure: &Failure| failure.hint.clone().unwrap_or_else(|| "keepalive status".into());
    if status.state == ProfileState::NoCredential {
        let text = format!("{name} has no credential");
        let hint = format!("keepalive login {name}, or keepalive import {name}");
        return Finding::bad("profile", Failure::new(ErrorKind::NoCredential, text).with_hint(hint), exit);
    }
    if status.state == ProfileState::Expired && *refresher == Refresher::Nobody {
        let why = status.last_failure.as_ref().map_or(String::new(), |f| format!(": {}", f.message));
        let text = format!("{name}: the access token has expired, and nothing refreshes it{why}");
        let hint = format!("keepalive refresh -p {name}; {REMEDY}");
        return Finding::bad("profile", Failure::new(ErrorKind::NoToken, text).with_hint(hint), exit);
    }
    match (&status.error, &status.last_failure) {
        (Some(failure), _) if status.state.needs_person() => {
            let message = format!("{name}: cannot be refreshed: {}", failure.message);
            Finding::bad("profile", Failure { message, hint: Some(hint(failure)), ..failure.clone() }, exit)
        }
        (Some(failure), _) | (None, Some(failure)) => {
            let text = format!("{name}: the last refresh failed: {}", failure.message);
            Finding::warning("profile", text, &hint(failure)).with_status(exit)
        }
        (None, None) => {
            let what = match status.state {
                ProfileState::Expired => "the access token has expired",
                _ if journal_is_pending(row) => "the newest token is not in the keyring yet",
                // A mirror has a finding of its own.
                _ => return Finding::good("profile", format!("{name}: ok")),
            };
            let text = format!("{name}: {what}");
            Finding::warning("profile", text, &format!("keepalive refresh -p {name}")).with_status(exit)
        }
    }
}

fn journal_is_pending(row: &StatusRow) -> bool {
    row.journal.as_ref().is_some_and(|journal| journal.publication == Publication::PublishPending)
}

/// Takes over the profiles that are configured or stored here, and the `named` ones: a profile that is neither is known
/// only to the keyring.
pub(super) fn take_over(setup: &Setup, named: &[ProfileName]) -> Vec<Finding> {
    let mut names = match setup.all_profiles() {
        Ok(names) => names,
        Err(e) => return vec![Finding::from_store_error("take-over", &e)],
    };
    names.extend(named.iter().cloned());
    names.sort();
    names.dedup();
    match setup.store.take_over(&names) {
        Err(e) => {
            let outcome = match &names[..] {
                [name] => with_names(e.outcome(), &setup.store, name),
                _ => e.outcome(),
            };
            vec![Finding::from_outcome("take-over", &outcome)]
        }
        Ok(taken) if taken.is_empty() => {
            let text = "this machine and state directory are now the owner, but of no profile: none is configured or stored here";
            vec![Finding::warning("take-over", text, "name the profile: keepalive doctor --take-over -p PROFILE")]
        }
        Ok(taken) => taken.iter().map(|(name, taken)| take_over_finding(setup, name, taken)).collect(),
    }
}

fn take_over_finding(setup: &Setup, name: &ProfileName, taken: &TakeOverResult) -> Finding {
    let service = setup.store.keyring().map_or("keepalive", KeyringService::service);
    let clear = format!("secret-tool clear service {service} username {name}");
    let anew = format!("remove it ({clear}) and sign in again: keepalive login {name}");
    match taken {
        TakeOverResult::Failed(outcome) => {
            let outcome = with_names(Outcome::clone(outcome), &setup.store, name);
            Finding::from_outcome("take-over", &outcome).for_profile(name)
        }
        TakeOverResult::AlreadyOwned => {
            Finding::done("take-over", format!("{name}: already owned by this state directory"))
        }
        TakeOverResult::TakenOver => {
            Finding::done("take-over", format!("{name}: owned by this machine and state directory from now on"))
        }
        TakeOverResult::Adopted(g) => {
            Finding::done("take-over", format!("{name}: adopted the keyring item as generation {g}"))
        }
        TakeOverResult::Republished(g) => {
            Finding::done("take-over", format!("{name}: wrote the stored credential to the keyring as generation {g}"))
        }
        TakeOverResult::Unverified { claimed } => {
            let text =
                format!("{name}: the keyring item (generation {claimed}) cannot be verified; it was left unchanged");
            Finding::bad("take-over", Failure::new(ErrorKind::Unproven, text).with_hint(anew), CommandStatus::Config)
        }
        TakeOverResult::Claimed(TokenClaim::HeldBy(other)) => {
            let text = format!(
                "{name}: profile {other} already has the refresh token of the keyring item, and two profiles must not \
                 share one; the item was left unchanged"
            );
            let hint = format!("use profile {other}, and remove the item: {clear}");
            Finding::bad("take-over", Failure::new(ErrorKind::Conflict, text).with_hint(hint), CommandStatus::Config)
        }
        TakeOverResult::Claimed(claim @ TokenClaim::PublishedElsewhere(_)) => {
            let error = StoreError::TokenClaimed { profile: name.clone(), claim: claim.clone() };
            Finding::from_outcome("take-over", &with_names(error.outcome(), &setup.store, name))
        }
        TakeOverResult::Claimed(TokenClaim::Unusable) => {
            let text = format!(
                "{name}: the refresh token of the keyring item has been used or rejected before; the item was left unchanged"
            );
            Finding::bad(
                "take-over",
                Failure::new(ErrorKind::Consumed, text).with_hint(anew),
                CommandStatus::NeedsLogin,
            )
        }
    }
}
