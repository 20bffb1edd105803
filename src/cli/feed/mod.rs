//! `keepalive feed`: keeps another program supplied with access tokens, so that it holds no refresh token.

mod plan;
mod undo;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueHint};
use clap_complete::ArgValueCandidates;
use serde_json::json;

use super::output::{CommandStatus, Output};
use super::refresher::Refresher;
use super::{GlobalArgs, completion, import, store_choice};
use crate::access::setup::Setup;
use crate::config::addition::Addition;
use crate::credential::freshness::Demand;
use crate::mirror::{MirrorReport, MirrorState};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::consumers::{CONSUMERS, Consumer};
use crate::profile::{Profile, ProfileName};
use plan::FeedPlan;

/// Keep another program supplied with access tokens
///
/// The program gets a file of its own form with the access token and without the refresh token, written anew after each
/// refresh: then it refreshes nothing, and two programs cannot sign each other out. Shows the exact change and asks before it
/// makes it. If the program is signed in and the profile has no credential, takes the credential over first. A second call
/// changes nothing.
///
/// --undo removes what was written, and gives back no token: the one that was there is consumed. It says how to sign in
/// there again.
#[derive(Debug, Args)]
pub struct FeedArgs {
    /// Program to feed
    #[arg(value_name = "CONSUMER", value_parser = consumer_names())]
    consumer: &'static Consumer,
    /// Profile whose access token it gets
    #[arg(value_name = "PROFILE", value_parser = super::profile_name, add = ArgValueCandidates::new(completion::profiles))]
    profile: ProfileName,
    /// The program's file, if it is not in its usual place
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    path: Option<PathBuf>,
    /// Its name for the sign-in, if its store has several
    #[arg(long, value_name = "NAME")]
    entry: Option<String>,
    /// Overwrite a sign-in there even if it belongs to another account
    #[arg(long, conflicts_with = "undo")]
    replace: bool,
    /// Only show the change
    #[arg(long)]
    dry_run: bool,
    /// Take it back
    #[arg(long)]
    undo: bool,
    /// Make the change without asking
    #[arg(short, long)]
    yes: bool,
}

fn consumer_names() -> impl TypedValueParser<Value = &'static Consumer> {
    PossibleValuesParser::new(CONSUMERS.iter().map(|consumer| consumer.name))
        .try_map(|name| Consumer::from_name(&name).ok_or("no such program"))
}

/// How the command ended without what was asked for.
type FeedFailure = (CommandStatus, Failure);

pub(super) fn run(args: &FeedArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    let done = if args.undo { undo::undo(args, global, out) } else { feed(args, global, out) };
    done.unwrap_or_else(|(status, failure)| {
        out.fail(&failure);
        status
    })
}

fn of_outcome(outcome: Outcome) -> FeedFailure {
    match outcome.error.as_ref().map(|e| &e.kind) {
        Some(
            ErrorKind::Input | ErrorKind::Source | ErrorKind::Conflict | ErrorKind::Consumed | ErrorKind::Declined,
        ) => (CommandStatus::Failed, CommandStatus::of_failed(outcome).1),
        _ => CommandStatus::of_failed(outcome),
    }
}

fn config(failure: Failure) -> FeedFailure {
    (CommandStatus::Config, failure)
}

fn feed(args: &FeedArgs, global: &GlobalArgs, out: &Output) -> Result<CommandStatus, FeedFailure> {
    let mut setup = Setup::for_new_config(global.places()).map_err(config)?;
    let plan = FeedPlan::of(args, &setup).map_err(of_outcome)?;
    plan.show(args, out);
    if args.dry_run {
        out.info("nothing was changed (--dry-run)");
        return Ok(report(args, &plan, None, false, out));
    }
    if !plan.is_done() {
        agree(args, out)?;
    }
    if let Some(arguments) = &plan.import {
        store_choice::offer_file_store(&mut setup, out).map_err(config)?;
        import::take_over(arguments, &setup, out).map_err(of_outcome)?;
    }
    write_config(&mut setup, plan.addition.as_ref(), out)?;
    let profile = setup.profile(&args.profile).map_err(of_outcome)?;
    let mirrored = write_mirror(&setup, &plan, &profile)?;
    // It has told of it below, or in its own words.
    drop(setup.mirrors().take_news());
    Refresher::of(&setup).warn_if_nobody("this", out);
    Ok(report(args, &plan, Some(mirrored), !plan.is_done(), out))
}

/// Adds the section, and goes on with the configuration that has it.
fn write_config(setup: &mut Setup, addition: Option<&Addition>, out: &Output) -> Result<(), FeedFailure> {
    let Some(addition) = addition else { return Ok(()) };
    let new = addition.preview().map_err(|e| config(e.to_failure()))?;
    addition.write(&store_choice::config_lock(setup)).map_err(|e| config(e.to_failure()))?;
    out.info(&format!("added the mirror to {}", addition.path().display()));
    setup.use_config(new);
    Ok(())
}

/// Writes the mirror. Of a credential whose access token is not known to live, a refresh comes first.
fn write_mirror(setup: &Setup, plan: &FeedPlan, profile: &Profile) -> Result<MirrorReport, FeedFailure> {
    let mirror = profile.mirrors.iter().find(|mirror| plan.is_same(mirror)).unwrap_or(&plan.mirror);
    let first = setup.mirrors().take_over(profile, mirror, &plan.seen);
    if first.state != MirrorState::Pending {
        return Ok(first);
    }
    let (engine, _endpoint) = setup.engine(false).map_err(of_outcome)?;
    let shared = std::sync::Arc::new(Profile { mirrors: Vec::new(), ..profile.clone() });
    let demand = Demand::Margin { lookahead: std::time::Duration::ZERO };
    let outcome = engine.refresh(&shared, demand, crate::engine::DRAIN_TIMEOUT, &|| {});
    engine.drain();
    match outcome.kind {
        OutcomeKind::Refreshed | OutcomeKind::Fresh => Ok(setup.mirrors().take_over(profile, mirror, &plan.seen)),
        _ => Err(of_outcome(outcome)),
    }
}

fn agree(args: &FeedArgs, out: &Output) -> Result<(), FeedFailure> {
    if args.yes {
        return Ok(());
    }
    if !out.can_ask() {
        let failure = Failure::new(ErrorKind::Declined, "there is no terminal to ask at; nothing was changed");
        return Err((CommandStatus::Failed, failure.with_hint("add --yes")));
    }
    match out.ask("Do it?") {
        Some(true) => Ok(()),
        Some(false) | None => Err((CommandStatus::Failed, store_choice::declined())),
    }
}

/// Tells how it ended. `mirrored`: nothing, if nothing was to be done.
fn report(
    args: &FeedArgs,
    plan: &FeedPlan,
    mirrored: Option<MirrorReport>,
    is_new: bool,
    out: &Output,
) -> CommandStatus {
    let (name, title) = (&args.profile, args.consumer.title);
    if out.is_json {
        out.json(&json!({
            "consumer": args.consumer.name,
            "profile": name,
            "path": plan.shown_path(),
            "changed": is_new,
            "mirror": mirrored,
        }));
    }
    match mirrored {
        None => CommandStatus::Ok,
        Some(MirrorReport { error: Some(failure), .. }) => {
            out.error(&failure);
            CommandStatus::TryAgain
        }
        Some(MirrorReport { generation: Some(generation), .. }) => {
            let verb = if is_new { "is fed by" } else { "is already fed by" };
            out.info(&format!("{title} {verb} {name}: it has the access token of generation {generation}"));
            CommandStatus::Ok
        }
        Some(_) => {
            out.warn(&format!("{title} gets its token with the next refresh: keepalive refresh -p {name}"));
            CommandStatus::TryAgain
        }
    }
}
