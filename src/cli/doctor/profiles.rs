//! Checks whether each profile's credential belongs to this machine and store; `--take-over` makes it so.

use super::Finding;
use crate::cli::output::{CommandStatus, Output};
use crate::cli::setup::Setup;
use crate::cli::status::profile_status;
use crate::outcome::{ErrorKind, Failure, ProfileState};
use crate::profile::{Profile, ProfileName};
use crate::store::journal::Journal;
use crate::store::{StoreError, TakeOverResult, TokenClaim};

pub fn check(setup: &Setup, _: &Output) -> Vec<Finding> {
    let names = match setup.all_profiles() {
        Ok(names) => names,
        Err(e) => return vec![Finding::from_store_error("profiles", &e)],
    };
    names.iter().filter_map(|name| check_profile(setup, name)).collect()
}

fn check_profile(setup: &Setup, name: &ProfileName) -> Option<Finding> {
    // The journal comes first: for a profile without a section it alone names the provider.
    let journal = match setup.store.peek(name) {
        Ok(journal) => journal,
        Err(e) => return Some(Finding::from_store_error("profile", &e)),
    };
    let profile = match setup.profile(name) {
        Ok(profile) => profile,
        Err(failure) => return Some(Finding::bad("profile", failure, CommandStatus::Config)),
    };
    let nothing = || {
        let text = format!("{name} has no credential");
        Some(Finding::warning("profile", text, &format!("keepalive login {name}, or keepalive import {name}")))
    };
    match journal {
        Some(journal) if journal.is_tombstone && setup.store.has_remains(name).unwrap_or(false) => {
            let text = format!("{name} is signed out, but the logout was interrupted before everything was deleted");
            Some(Finding::warning("profile", text, &format!("keepalive logout {name}")))
        }
        // Before the first login there is nothing to check.
        None if !setup.store.layout().dir().exists() => nothing(),
        journal => match setup.store.check_copies_agree(name) {
            Ok(_) | Err(StoreError::Empty) if !journal.as_ref().is_some_and(Journal::has_credential) => nothing(),
            Ok(warnings) if warnings.is_empty() => Some(refreshability(setup, journal.as_ref(), &profile)),
            Ok(warnings) => {
                let hint = format!("keepalive refresh -p {name} --force writes the keyring item again");
                Some(Finding::warning("profile", format!("{name}: {}", warnings.join("; ")), &hint))
            }
            // Already reported for the store as a whole.
            Err(StoreError::Keyring(_) | StoreError::KeyMissing { .. } | StoreError::KeyUnavailable { .. }) => None,
            Err(e) => Some(Finding::from_store_error("profile", &e)),
        },
    }
}

/// A credential that belongs here may still be unusable. `status` reports that, so `doctor` does too.
fn refreshability(setup: &Setup, journal: Option<&Journal>, profile: &Profile) -> Finding {
    let (name, standing) = (&profile.name, profile_status(setup, journal, Some(profile)));
    let is_stuck =
        matches!(standing.state, ProfileState::NeedsLogin | ProfileState::ConfigError | ProfileState::InDoubt);
    match standing.error.filter(|_| is_stuck) {
        Some(failure) => {
            let text = format!("{name}: cannot be refreshed: {}", failure.message);
            Finding::warning("profile", text, failure.hint.as_deref().unwrap_or("keepalive status"))
        }
        None => Finding::good("profile", format!("{name}: ok")),
    }
}

/// Takes over the profiles that are configured or stored here, and the `named` ones: a profile that is neither is known
/// only to the keyring.
pub fn take_over(setup: &Setup, named: &[ProfileName]) -> Vec<Finding> {
    let mut names = match setup.all_profiles() {
        Ok(names) => names,
        Err(e) => return vec![Finding::from_store_error("take-over", &e)],
    };
    names.extend(named.iter().cloned());
    names.sort();
    names.dedup();
    match setup.store.take_over(&names) {
        Err(e) => vec![Finding::from_store_error("take-over", &e)],
        Ok(taken) if taken.is_empty() => {
            let text = "this machine and state directory are now the owner, but of no profile: none is configured or stored here";
            vec![Finding::warning("take-over", text, "name the profile: keepalive doctor --take-over -p PROFILE")]
        }
        Ok(taken) => taken.iter().map(|(name, taken)| take_over_finding(setup, name, taken)).collect(),
    }
}

fn take_over_finding(setup: &Setup, name: &ProfileName, taken: &TakeOverResult) -> Finding {
    let service = setup.store.keyring().map_or("keepalive", |(_, service)| service);
    let clear = format!("secret-tool clear service {service} username {name}");
    let anew = format!("remove it ({clear}) and sign in again: keepalive login {name}");
    match taken {
        TakeOverResult::Failed(outcome) => Finding::from_outcome("take-over", outcome).for_profile(name),
        TakeOverResult::AlreadyOwned => {
            Finding::good("take-over", format!("{name}: already owned by this state directory"))
        }
        TakeOverResult::Adopted(g) => {
            Finding::good("take-over", format!("{name}: adopted the keyring item as generation {g}"))
        }
        TakeOverResult::Republished(g) => {
            Finding::good("take-over", format!("{name}: wrote the stored credential to the keyring as generation {g}"))
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
        TakeOverResult::Claimed(claim @ TokenClaim::PublishedElsewhere(_)) => Finding::from_store_error(
            "take-over",
            &StoreError::TokenClaimed { profile: name.clone(), claim: claim.clone() },
        ),
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
