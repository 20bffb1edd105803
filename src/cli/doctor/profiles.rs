//! Whether each profile's credential is at home here; and making it so, when told to.

use super::Finding;
use crate::cli::compose::Setup;
use crate::cli::output::{Output, Status};
use crate::cli::status::judge;
use crate::outcome::{ErrorKind, Failure, State};
use crate::profile::{Profile, ProfileName};
use crate::store::record::Record;
use crate::store::{Claim, StoreError, Taken};

pub fn check(setup: &Setup, _: &Output) -> Vec<Finding> {
    let names = match setup.all_profiles() {
        Ok(names) => names,
        Err(e) => return vec![Finding::of_store("profiles", &e)],
    };
    names.iter().filter_map(|name| profile(setup, name)).collect()
}

fn profile(setup: &Setup, name: &ProfileName) -> Option<Finding> {
    // First: of a profile without a section the journal alone says which provider it is for.
    let record = match setup.store.peek(name) {
        Ok(record) => record,
        Err(e) => return Some(Finding::of_store("profile", &e)),
    };
    let profile = match setup.profile(name) {
        Ok(profile) => profile,
        Err(failure) => return Some(Finding::bad("profile", failure, Status::Config)),
    };
    let nothing = || {
        let text = format!("{name} has no credential");
        Some(Finding::warning("profile", text, &format!("keepalive login {name}, or keepalive import {name}")))
    };
    match record {
        Some(record) if record.is_tombstone && setup.store.has_remains(name).unwrap_or(false) => {
            let text = format!("{name} is signed out, but the logout was interrupted before everything was deleted");
            Some(Finding::warning("profile", text, &format!("keepalive logout {name}")))
        }
        // Before the first login there is nothing to examine.
        None if !setup.store.layout().dir().exists() => nothing(),
        record => match setup.store.examine(name) {
            Ok(_) | Err(StoreError::Empty) if !record.as_ref().is_some_and(Record::has_credential) => nothing(),
            Ok(warnings) if warnings.is_empty() => Some(stands(setup, record.as_ref(), &profile)),
            Ok(warnings) => {
                let hint = format!("keepalive refresh -p {name} --force writes the keyring item again");
                Some(Finding::warning("profile", format!("{name}: {}", warnings.join("; ")), &hint))
            }
            // Told once already, for the store as a whole.
            Err(StoreError::Keyring(_) | StoreError::KeyMissing { .. } | StoreError::Key { .. }) => None,
            Err(e) => Some(Finding::of_store("profile", &e)),
        },
    }
}

/// A credential that is at home may still be one that nobody can use: `status` says so, and so must this.
fn stands(setup: &Setup, record: Option<&Record>, profile: &Profile) -> Finding {
    let (name, standing) = (&profile.name, judge(setup, record, Some(profile)));
    let is_stuck = matches!(standing.state, State::NeedsLogin | State::ConfigError | State::InDoubt);
    match standing.error.filter(|_| is_stuck) {
        Some(failure) => {
            let text = format!("{name}: cannot be refreshed: {}", failure.message);
            Finding::warning("profile", text, failure.hint.as_deref().unwrap_or("keepalive status"))
        }
        None => Finding::good("profile", format!("{name}: ok")),
    }
}

/// Takes over what is configured or stored here, and what is `named`: of a profile that is neither, the keyring alone knows.
pub fn take_over(setup: &Setup, named: &[ProfileName]) -> Vec<Finding> {
    let mut names = match setup.all_profiles() {
        Ok(names) => names,
        Err(e) => return vec![Finding::of_store("take-over", &e)],
    };
    names.extend(named.iter().cloned());
    names.sort();
    names.dedup();
    match setup.store.take_over(&names) {
        Err(e) => vec![Finding::of_store("take-over", &e)],
        Ok(taken) if taken.is_empty() => {
            let text = "this machine and state directory are now the owner, but of no profile: none is configured or stored here";
            vec![Finding::warning("take-over", text, "name the profile: keepalive doctor --take-over -p PROFILE")]
        }
        Ok(taken) => taken.iter().map(|(name, taken)| told(setup, name, taken)).collect(),
    }
}

fn told(setup: &Setup, name: &ProfileName, taken: &Taken) -> Finding {
    let service = setup.store.keyring().map_or("keepalive", |(_, service)| service);
    let clear = format!("secret-tool clear service {service} username {name}");
    let anew = format!("remove it ({clear}) and sign in again: keepalive login {name}");
    match taken {
        Taken::Failed(outcome) => Finding::of_outcome("take-over", outcome).about(name),
        Taken::AtHome => Finding::good("take-over", format!("{name}: already owned by this state directory")),
        Taken::Adopted(g) => Finding::good("take-over", format!("{name}: adopted the keyring item as generation {g}")),
        Taken::Republished(g) => {
            Finding::good("take-over", format!("{name}: wrote the stored credential to the keyring as generation {g}"))
        }
        Taken::Unproven { claimed } => {
            let text =
                format!("{name}: the keyring item (generation {claimed}) cannot be verified; it was left unchanged");
            Finding::bad("take-over", Failure::new(ErrorKind::Unproven, text).hint(anew), Status::Config)
        }
        Taken::Claimed(Claim::Held(other)) => {
            let text = format!(
                "{name}: profile {other} already has the refresh token of the keyring item, and two profiles must not \
                 share one; the item was left unchanged"
            );
            let hint = format!("use profile {other}, and remove the item: {clear}");
            Finding::bad("take-over", Failure::new(ErrorKind::Conflict, text).hint(hint), Status::Config)
        }
        Taken::Claimed(claim @ Claim::Elsewhere(_)) => {
            Finding::of_store("take-over", &StoreError::Claimed { profile: name.clone(), claim: claim.clone() })
        }
        Taken::Claimed(Claim::Dead) => {
            let text = format!(
                "{name}: the refresh token of the keyring item has been used or rejected before; the item was left unchanged"
            );
            Finding::bad("take-over", Failure::new(ErrorKind::Consumed, text).hint(anew), Status::NeedsLogin)
        }
    }
}
