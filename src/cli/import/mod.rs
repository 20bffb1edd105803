//! `keepalive import`: imports a credential from a token response, or from the store of another tool.

mod args;
mod common;
mod from_response;
mod from_tool;

use super::GlobalArgs;
use super::keeper::Keeper;
use super::output::{CommandStatus, Output};
use super::store_choice;
use crate::cli::setup::Setup;
use crate::engine::with_names;
use crate::outcome::{ErrorKind, Outcome, OutcomeKind};
pub(super) use args::ImportArgs;
use common::ImportResult;

pub(super) fn run(args: &ImportArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    match import(args, global, out) {
        Ok((provider, ImportResult { outcome, validity })) => {
            for warning in &outcome.warnings {
                out.warn(warning);
            }
            if out.is_json {
                let mut report = super::output::outcome_json(&args.profile, Some(&provider), &outcome);
                report["assumed"] = validity.is_some_and(|v| v.assumed).into();
                out.json(&report);
            }
            CommandStatus::from_outcome(&outcome)
        }
        Err(outcome) => {
            if let Some(error) = &outcome.error {
                out.fail(error);
            }
            match outcome.error.as_ref().map(|e| &e.kind) {
                Some(
                    ErrorKind::Input
                    | ErrorKind::Declined
                    | ErrorKind::Source
                    | ErrorKind::Conflict
                    | ErrorKind::Consumed,
                ) => CommandStatus::Failed,
                _ => CommandStatus::from_outcome(&outcome),
            }
        }
    }
}

/// The import that comes before a feed.
pub(super) fn take_over(args: &ImportArgs, setup: &Setup, out: &Output) -> Result<(), Outcome> {
    let Some(tool) = args.from else { return Ok(()) };
    let imported = from_tool::import(tool, args, setup, out);
    if imported.as_ref().is_err_and(|outcome| outcome.kind != OutcomeKind::StoreUnavailable) {
        setup.discard_preparation();
    }
    imported.map(drop).map_err(|outcome| with_names(outcome, &setup.store, &args.profile))
}

/// Runs the import. Returns the provider and the result.
fn import(args: &ImportArgs, global: &GlobalArgs, out: &Output) -> Result<(String, ImportResult), Outcome> {
    let mut setup = Setup::new(global).map_err(common::config_error)?;
    store_choice::offer_file_store(&mut setup, out).map_err(common::config_error)?;
    let imported = match args.from {
        Some(tool) => from_tool::import(tool, args, &setup, out),
        None => from_response::import(args, &setup, out),
    };
    // A store that is unavailable got no key.
    if imported.as_ref().is_err_and(|outcome| outcome.kind != OutcomeKind::StoreUnavailable) {
        setup.discard_preparation();
    }
    let imported = imported.map_err(|outcome| with_names(outcome, &setup.store, &args.profile))?;
    setup.follow_new_credential(&args.profile, out);
    Keeper::of(&setup).warn_if_nobody("this", out);
    Ok(imported)
}
