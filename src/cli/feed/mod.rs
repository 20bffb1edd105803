//! `keepalive feed`: keeps another program supplied with access tokens, so that it holds no refresh token.
//!
//! The order is what holds the promise. All that could fail is looked at first. Then come the section of the configuration,
//! the import, and, before the lock of the profile is released, the removal of the refresh token from the program's file.
//! Only then may it be sent. A run that is killed in between leaves a mirror that a refresh sees (rule 39), and the next
//! `feed` goes on where it stopped.

mod checks;
mod plan;
mod undo;

use std::cell::Cell;
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
/// there again. A sign-out in the program itself does not last: the next refresh writes its file anew, unless --undo has ended
/// the feed.
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
    /// Overwrite a sign-in there even if it belongs to another account, and feed a program of another provider
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
    /// Write the mirror if it is configured, and change nothing else: so a run has a slow program fed.
    #[arg(long, hide = true, conflicts_with_all = ["undo", "dry_run"])]
    only_configured: bool,
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
    let status = if failure.kind == ErrorKind::Busy { CommandStatus::TryAgain } else { CommandStatus::Config };
    (status, failure)
}

fn try_again(failure: Failure) -> FeedFailure {
    (CommandStatus::TryAgain, failure)
}

fn feed(args: &FeedArgs, global: &GlobalArgs, out: &Output) -> Result<CommandStatus, FeedFailure> {
    let mut setup = Setup::for_new_config(global.places()).map_err(config)?;
    // The person who asks for it waits for it.
    setup.mirrors().limit_waits(None);
    setup.mirrors().leave_to_caller();
    let plan = FeedPlan::of(args, &setup).map_err(of_outcome)?;
    if args.only_configured {
        return Ok(write_configured(&setup, &plan));
    }
    plan.show(args, out);
    if args.dry_run {
        out.info("nothing was changed (--dry-run)");
        return Ok(report(args, &plan, None, false, out));
    }
    let is_new = !plan.is_done();
    let plan = if is_new { change(args, &mut setup, plan, out)? } else { plan };
    let profile = setup.profile(&args.profile).map_err(of_outcome)?;
    let mirrored = write_mirror(&setup, &plan, &profile)?;
    // It has told of it below, or in its own words.
    drop(setup.mirrors().take_news());
    Refresher::of(&setup).warn_if_nobody("this", out);
    Ok(report(args, &plan, Some(mirrored), is_new, out))
}

/// Makes the change, after a yes: the configuration, the import, and the end of the refresh token in the program's file.
fn change(args: &FeedArgs, setup: &mut Setup, plan: FeedPlan, out: &Output) -> Result<FeedPlan, FeedFailure> {
    agree(args, out)?;
    if plan.import.is_some() {
        store_choice::offer_file_store(setup, out).map_err(config)?;
        setup.mirrors().limit_waits(None);
        setup.mirrors().leave_to_caller();
    }
    let held = setup.mirrors().hold(&plan.profile, &plan.mirror).map_err(try_again)?;
    // Another run, or the program, may have changed it while the person was asked, or the lock was waited for.
    let plan = plan.looked_at_again(args, setup).map_err(of_outcome)?;
    let added = write_config(setup, &plan, out)?;
    let disarmed = Cell::new(None);
    let disarm = || disarmed.set(Some(setup.mirrors().disarm(&plan.profile, &plan.mirror, &plan.seen, &held)));
    match &plan.import {
        Some(arguments) => {
            if let Err(outcome) = import::take_over(arguments, setup, &disarm, out) {
                let was_stored = outcome.error.as_ref().is_some_and(|error| error.kind == ErrorKind::HalfTaken);
                if added && !was_stored {
                    remove_config(args, setup, &plan, out);
                }
                return Err(of_outcome(outcome));
            }
        }
        None => disarm(),
    }
    let seen = disarmed.take().unwrap_or_else(|| Ok(plan.seen.clone())).map_err(try_again)?;
    Ok(plan.with_seen(seen))
}

/// Adds the section, and goes on with the configuration that has it. Whether it was added by this run.
fn write_config(setup: &mut Setup, plan: &FeedPlan, out: &Output) -> Result<bool, FeedFailure> {
    let Some(addition) = &plan.addition else { return Ok(false) };
    let new = addition.preview().map_err(|e| config(e.to_failure()))?;
    addition.write(&store_choice::config_lock(setup)).map_err(|e| config(e.to_failure()))?;
    out.info(&format!("added the mirror to {}", addition.path().display()));
    setup.use_config(new);
    Ok(true)
}

/// Takes the section out again: the sign-in could not be taken over.
fn remove_config(args: &FeedArgs, setup: &Setup, plan: &FeedPlan, out: &Output) {
    let profile = setup.config.profile(&args.profile, Some(&plan.profile.provider.name)).ok();
    let index = profile.and_then(|profile| profile.mirrors.iter().position(|there| plan.is_same(setup, there)));
    let Some(index) = index else { return };
    let mut removal = Addition::new(&setup.environment.config, setup.environment.home.as_deref());
    removal.remove_mirror(args.profile.as_str(), index);
    match removal.write(&store_choice::config_lock(setup)) {
        Ok(()) => out.info(&format!("removed the mirror from {} again", removal.path().display())),
        Err(error) => out.error(&error.to_failure()),
    }
}

/// Writes the mirror. Of a credential whose access token is not known to live, a refresh comes first.
fn write_mirror(setup: &Setup, plan: &FeedPlan, profile: &Profile) -> Result<MirrorReport, FeedFailure> {
    let mirror = profile.mirrors.iter().find(|mirror| plan.is_same(setup, mirror)).unwrap_or(&plan.mirror);
    let first = setup.mirrors().take_over(profile, mirror, &plan.seen);
    if first.state != MirrorState::Pending {
        return Ok(first);
    }
    let (engine, _endpoint) = setup.engine(false).map_err(of_outcome)?;
    let shared = std::sync::Arc::new(profile.clone());
    let demand = Demand::Margin { lookahead: std::time::Duration::ZERO };
    let outcome = engine.refresh(&shared, demand, crate::engine::DRAIN_TIMEOUT, &|| {});
    engine.drain();
    match outcome.kind {
        OutcomeKind::Refreshed | OutcomeKind::Fresh => Ok(setup.mirrors().take_over(profile, mirror, &plan.seen)),
        _ => Err(of_outcome(outcome)),
    }
}

/// What a run has done by a process of its own: it tells by the record of the mirror.
fn write_configured(setup: &Setup, plan: &FeedPlan) -> CommandStatus {
    let mirror = plan.profile.mirrors.iter().find(|mirror| plan.is_same(setup, mirror));
    let report = mirror.map(|mirror| setup.mirrors().take_over(&plan.profile, mirror, &plan.seen));
    match report {
        Some(MirrorReport { state: MirrorState::Current, .. }) => CommandStatus::Ok,
        Some(_) => CommandStatus::TryAgain,
        None => CommandStatus::Config,
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
