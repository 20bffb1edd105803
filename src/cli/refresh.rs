//! `keepalive refresh`: refreshes one profile or many, once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::GlobalArgs;
use super::output::{CommandStatus, Output, outcome_json, outcome_line};
use crate::cli::setup::Setup;
use crate::credential::freshness::Demand;
use crate::engine::Engine;
use crate::outcome::{ErrorKind, Failure, Outcome};
use crate::profile::{Profile, ProfileName};
use crate::provider::http::HttpEndpoint;
use crate::scheduler::run_interval;
use crate::scheduler::run_interval::RunHistory;
use crate::sys::durable;

/// Refresh the profiles that are due, then exit
///
/// Without --profile, checks all profiles. Suitable for cron and systemd timers: with --lookahead set to the interval
/// between runs, no token expires between two runs.
#[derive(Debug, Args)]
pub struct RefreshArgs {
    /// Refresh this profile; can be repeated
    #[arg(short, long = "profile", value_name = "PROFILE", value_parser = super::profile_name)]
    profiles: Vec<ProfileName>,
    /// Refresh now, even if not due
    #[arg(long)]
    force: bool,
    /// Also refresh what becomes due within DUR; set it to the interval between runs
    #[arg(long, value_name = "DUR", value_parser = super::duration, default_value = "0s")]
    lookahead: Duration,
}

/// How many flights one run has at once, over all providers.
const MAX_CONCURRENT: usize = 32;
/// Longer than any flight can take: queue, connect, request, storing.
const FLIGHT_TIMEOUT: Duration = Duration::from_secs(15 * 60);

pub fn run(args: &RefreshArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    let rows = match refresh(args, global, out) {
        Ok(rows) => rows,
        Err((status, failure)) => {
            out.fail(&failure);
            return status;
        }
    };
    let status = rows.iter().map(|(_, _, o)| CommandStatus::from_outcome(o)).max().unwrap_or(CommandStatus::Ok);
    if out.is_json {
        let results: Vec<_> =
            rows.iter().map(|(name, provider, o)| outcome_json(name, provider.as_deref(), o)).collect();
        out.json(&json!({ "results": results }));
    }
    for (name, _, outcome) in &rows {
        report(out, name, outcome);
    }
    status
}

/// A profile, the name of its provider if it has one, and the outcome of its refresh.
type ProfileOutcome = (ProfileName, Option<String>, Outcome);

fn refresh(
    args: &RefreshArgs,
    global: &GlobalArgs,
    out: &Output,
) -> Result<Vec<ProfileOutcome>, (CommandStatus, Failure)> {
    let setup = Setup::new(global).map_err(|f| (CommandStatus::Config, f))?;
    let names = if args.profiles.is_empty() { all_profile_names(&setup, out)? } else { args.profiles.clone() };
    let is_routine = args.profiles.is_empty() && !args.force;
    let (engine, endpoint) = setup.engine(false).map_err(|f| (CommandStatus::Failed, f))?;
    super::signals::stop_on_signal(&endpoint, &engine);
    let (profiles, mut rows) = resolve_profiles(&setup, names);
    if is_routine {
        warn_if_runs_too_sparse(&setup, &profiles, args.lookahead, out);
    }
    rows.extend(run_all(&engine, &endpoint, profiles, args, out));
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let late = engine.drain();
    for name in late {
        out.warn(&format!("{name}: the refresh did not finish in time; its outcome is in doubt"));
    }
    Ok(rows)
}

/// Records this run, and warns if such runs are too far apart to keep a profile alive. This is advice, so its own
/// errors are ignored.
fn warn_if_runs_too_sparse(setup: &Setup, profiles: &[Arc<Profile>], lookahead: Duration, out: &Output) {
    let path = setup.store.layout().runs();
    let mut runs: RunHistory =
        std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    runs.record_run(setup.clock.now().wall);
    if let (false, Ok(bytes)) = (profiles.is_empty(), serde_json::to_vec(&runs)) {
        let _advice = durable::replace(&path, &bytes);
    }
    let Some(interval) = runs.interval() else { return };
    for profile in profiles {
        let journal = setup.store.peek(&profile.name).ok().flatten();
        let lifetime = journal.and_then(|r| r.validity).and_then(|v| v.full_lifetime());
        if let Some(warning) =
            lifetime.and_then(|life| run_interval::sparse_runs_warning(profile, life, interval, lookahead))
        {
            out.warn(&warning);
        }
    }
}

fn all_profile_names(setup: &Setup, out: &Output) -> Result<Vec<ProfileName>, (CommandStatus, Failure)> {
    let names = setup.all_profiles().map_err(|e| {
        let outcome = e.outcome();
        let failure = outcome.error.clone().unwrap_or_else(|| Failure::new(ErrorKind::Io, e.to_string()));
        (CommandStatus::from_outcome(&outcome), failure)
    })?;
    if names.is_empty() {
        out.info(
            "no profiles yet; create one: keepalive login PROFILE --provider NAME, or keepalive import PROFILE \
                 --provider NAME",
        );
    }
    Ok(names)
}

/// Splits the names into profiles and rows with the error of those that have none.
fn resolve_profiles(setup: &Setup, names: Vec<ProfileName>) -> (Vec<Arc<Profile>>, Vec<ProfileOutcome>) {
    let mut profiles = Vec::new();
    let mut rows = Vec::new();
    for name in names {
        match setup.profile(&name) {
            Ok(profile) => profiles.push(Arc::new(profile)),
            Err(outcome) => rows.push((name, None, outcome)),
        }
    }
    (profiles, rows)
}

/// Refreshes all of them, at most `MAX_CONCURRENT` at a time, each on its own.
fn run_all(
    engine: &Engine,
    endpoint: &HttpEndpoint,
    profiles: Vec<Arc<Profile>>,
    args: &RefreshArgs,
    out: &Output,
) -> Vec<ProfileOutcome> {
    let _keeps_running = endpoint.runtime();
    let workers = MAX_CONCURRENT.min(profiles.len());
    let queue = Mutex::new(VecDeque::from(profiles));
    let rows = Mutex::new(Vec::new());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|s| {
        for _ in 0..workers {
            s.spawn(|| {
                while let Some(profile) = next() {
                    let outcome = refresh_one(engine, &profile, args, out);
                    let row = (profile.name.clone(), Some(profile.provider.name.clone()), outcome);
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
                }
            });
        }
    });
    rows.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn refresh_one(engine: &Engine, profile: &Arc<Profile>, args: &RefreshArgs, out: &Output) -> Outcome {
    let demand = if args.force {
        match engine.force_demand(&profile.name) {
            Ok(demand) => demand,
            Err(e) => return e.outcome(),
        }
    } else {
        Demand::Margin { lookahead: args.lookahead }
    };
    engine.refresh(profile, demand, FLIGHT_TIMEOUT, &|| {
        out.info(&format!("{}: waiting for a refresh in progress …", profile.name));
    })
}

fn report(out: &Output, name: &ProfileName, outcome: &Outcome) {
    for warning in &outcome.warnings {
        out.warn(&format!("{name}: {warning}"));
    }
    if !out.is_json {
        out.info(&outcome_line(name, outcome));
    }
    if let Some(error) = &outcome.error {
        out.error(&Failure { message: format!("{name}: {}", error.message), ..error.clone() });
    }
}
