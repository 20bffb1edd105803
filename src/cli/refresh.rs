//! `keepalive refresh`: refreshes one profile or many, once.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::GlobalArgs;
use super::output::{CommandStatus, Output, outcome_json, outcome_line};
use crate::cli::setup::Setup;
use crate::credential::freshness::Demand;
use crate::engine::Engine;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::{Profile, ProfileName};
use crate::provider::http::HttpEndpoint;
use crate::scheduler::run_interval;
use crate::scheduler::run_interval::RunHistory;
use crate::sys::{durable, threads};

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
    /// End after DUR; a request that was sent is still completed
    #[arg(long, value_name = "DUR", value_parser = super::duration, default_value = "5m")]
    timeout: Duration,
}

/// How many flights one run has at once, over all providers.
const MAX_CONCURRENT: usize = 32;

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
    let runs = (is_routine && !names.is_empty()).then(|| record_run(&setup));
    let (seen, mut rows): (Vec<_>, Vec<_>) = run_all(&setup, &engine, &endpoint, names, args, out).into_iter().unzip();
    if let Some(interval) = runs.and_then(|runs| runs.interval()) {
        warn_if_runs_too_sparse(&seen, interval, args.lookahead, out);
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let late = engine.drain();
    for name in late {
        out.warn(&format!("{name}: the refresh did not finish in time; its outcome is in doubt"));
    }
    Ok(rows)
}

/// Notes this run. All that follows from it is advice: what cannot be read or written is left alone.
fn record_run(setup: &Setup) -> RunHistory {
    let path = setup.store.layout().runs();
    let mut runs: RunHistory =
        durable::read_foreign(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    runs.record_run(setup.clock.now().wall);
    if let Ok(bytes) = serde_json::to_vec(&runs) {
        let _advice = durable::replace(&path, &bytes);
    }
    runs
}

/// Says so if runs like this one are too far apart to keep a profile alive.
fn warn_if_runs_too_sparse(seen: &[SeenProfile], interval: Duration, lookahead: Duration, out: &Output) {
    for (profile, lifetime) in seen.iter().flatten() {
        let warning = lifetime.and_then(|life| run_interval::sparse_runs_warning(profile, life, interval, lookahead));
        if let Some(warning) = warning {
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

/// A profile with the lifetime of the access token that it had; `None` if there is no such profile.
type SeenProfile = Option<(Arc<Profile>, Option<Duration>)>;

/// Refreshes all of them, at most `MAX_CONCURRENT` at a time, each on its own.
fn run_all(
    setup: &Setup,
    engine: &Engine,
    endpoint: &HttpEndpoint,
    names: Vec<ProfileName>,
    args: &RefreshArgs,
    out: &Output,
) -> Vec<(SeenProfile, ProfileOutcome)> {
    let _keeps_running = endpoint.runtime();
    let begun = setup.clock.now();
    threads::map(MAX_CONCURRENT, names, |name| {
        let left = args.timeout.saturating_sub(setup.clock.now().time_since(&begun));
        refresh_one(setup, engine, name, args, left, out)
    })
}

/// Looks at one profile, and refreshes it by what was seen.
fn refresh_one(
    setup: &Setup,
    engine: &Engine,
    name: ProfileName,
    args: &RefreshArgs,
    left: Duration,
    out: &Output,
) -> (SeenProfile, ProfileOutcome) {
    let view = setup.store.view(&name);
    let profile = match setup.profile_of_view(&name, &view) {
        Ok(profile) => Arc::new(profile),
        Err(outcome) => return (None, (name, None, outcome)),
    };
    let journal = view.as_ref().ok().and_then(|view| view.journal.as_ref());
    let lifetime = journal.and_then(|r| r.validity.as_ref()).and_then(|v| v.full_lifetime());
    let outcome = match view {
        Err(e) => e.outcome(),
        Ok(_) if left.is_zero() => not_begun(args.timeout),
        Ok(view) => {
            let force = args.force.then(|| Engine::newer_than(&view));
            let demand = force.unwrap_or(Demand::Margin { lookahead: args.lookahead });
            engine.refresh_seen(&profile, demand, view, left, &|| {
                let holder = setup.store.lock_holder(&name).filter(|holder| holder.pid != Some(std::process::id()));
                let whose = holder.map_or(String::new(), |holder| format!(" by {holder}"));
                out.info(&format!("{name}: waiting for a refresh in progress{whose} …"));
            })
        }
    };
    let provider = Some(profile.provider.name.clone());
    (Some((profile, lifetime)), (name, provider, outcome))
}

/// The outcome of a profile whose turn did not come in time.
fn not_begun(limit: Duration) -> Outcome {
    let limit = humantime::format_duration(limit);
    let failure = Failure::new(ErrorKind::Busy, format!("nothing was sent: its turn did not come within {limit}"))
        .with_hint("run it again, or use a longer --timeout");
    Outcome::new(OutcomeKind::Deferred).with_error(failure)
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
