//! `keepalive refresh`: refreshes one profile or many, once.

use std::collections::VecDeque;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCandidates;
use serde_json::json;

use super::output::{CommandStatus, Output, outcome_json, outcome_line};
use super::told::ToldFailures;
use super::{GlobalArgs, completion, refresher};
use crate::access::setup::Setup;
use crate::cli::warnings::tell_news;
use crate::clock::{Clock, Moment, Timestamp};
use crate::credential::freshness::Demand;
use crate::engine::{Engine, with_names};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::{Profile, ProfileName};
use crate::scheduler::run_interval;
use crate::sys::clock::SystemClock;
use crate::sys::lockfile::LockHolder;
use crate::sys::threads;

/// Refresh the profiles that are due, then exit
///
/// Without --profile, checks all profiles. Suitable for cron and systemd timers: with --lookahead set to the interval
/// between runs, no token expires between two runs.
#[derive(Debug, Args)]
pub struct RefreshArgs {
    /// Refresh this profile; can be repeated
    #[arg(short, long = "profile", value_name = "PROFILE", value_parser = super::profile_name, add = ArgValueCandidates::new(completion::profiles))]
    profiles: Vec<ProfileName>,
    /// Refresh now, even if not due
    ///
    /// A pause after a failure is not waited for. A refresh token that the server rejected is sent once more, at most once a
    /// minute: some servers reject one for a reason that passes. One that is consumed or in doubt is not.
    #[arg(long)]
    force: bool,
    /// Also refresh what becomes due within DUR; set it to the interval between runs
    #[arg(long, value_name = "DUR", value_parser = super::duration, default_value = "0s")]
    lookahead: Duration,
    /// End after DUR; a request that was sent is still completed
    #[arg(long, value_name = "DUR", value_parser = super::duration, default_value = "5m")]
    timeout: Duration,
    /// Run the hooks that wait, and refresh nothing: so a command has them run that does not wait for them.
    #[arg(long, hide = true, requires = "profiles")]
    only_hooks: bool,
}

/// How many flights one run has at once, over all providers.
const MAX_CONCURRENT: usize = 32;

/// How often it is checked that the workers live.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn run(args: &RefreshArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    if args.only_hooks {
        return run_hooks(args, global);
    }
    let rows = match refresh(args, global, out) {
        Ok(rows) => rows,
        Err((status, failure)) => {
            fail(args, global, &failure, out);
            return status;
        }
    };
    let status = rows.iter().map(|(_, _, o)| CommandStatus::from_outcome(o)).max().unwrap_or(CommandStatus::Ok);
    if out.is_json {
        let results: Vec<_> =
            rows.iter().map(|(name, provider, o)| outcome_json(name, provider.as_deref(), o)).collect();
        out.json(&json!({ "results": results }));
    }
    status
}

/// Runs what waits for the hooks of the profiles. No one hears it: hooks tell by their records.
fn run_hooks(args: &RefreshArgs, global: &GlobalArgs) -> CommandStatus {
    let Ok(setup) = Setup::new(global.places()) else { return CommandStatus::Config };
    let hooks = Arc::clone(setup.hooks());
    // Without the handler a stop leaves a hook behind.
    let _handled = super::signals::on_stop_signal(move || hooks.end_all());
    let profiles = args.profiles.iter().filter_map(|name| setup.profile(name).ok());
    profiles.for_each(|profile| setup.hooks().run_left_behind(&profile));
    CommandStatus::Ok
}

/// Reports what stops the whole run: a standing one once, as that of a profile.
fn fail(args: &RefreshArgs, global: &GlobalArgs, failure: &Failure, out: &Output) {
    let dir = global.places().state_dir;
    let mut told = args.is_routine(global).then(|| ToldFailures::open(&dir));
    let is_news = told.as_mut().is_none_or(|told| told.is_news("", failure.kind.word(), SystemClock.now().wall));
    told.into_iter().for_each(|told| told.save());
    match (is_news, out.is_json) {
        (true, _) => out.fail(failure),
        (false, true) => out.json(&json!({ "error": failure })),
        (false, false) => {}
    }
}

impl RefreshArgs {
    /// As cron runs it: over all profiles, and its output is mailed.
    fn is_routine(&self, global: &GlobalArgs) -> bool {
        self.is_over_all() && global.quiet
    }

    fn is_over_all(&self) -> bool {
        self.profiles.is_empty() && !self.force
    }
}

/// A profile, the name of its provider if it has one, and the outcome of its refresh.
type ProfileOutcome = (ProfileName, Option<String>, Outcome);

fn refresh(
    args: &RefreshArgs,
    global: &GlobalArgs,
    out: &Output,
) -> Result<Vec<ProfileOutcome>, (CommandStatus, Failure)> {
    let setup = Setup::new(global.places()).map_err(|f| (CommandStatus::Config, f))?;
    let names = if args.profiles.is_empty() { all_profile_names(&setup, out)? } else { args.profiles.clone() };
    let (engine, endpoint) = setup.engine(false).map_err(CommandStatus::of_failed)?;
    let (events, arrivals) = mpsc::channel();
    let on_stop = events.clone();
    let hooks = Arc::clone(setup.hooks());
    super::signals::stop_on_signal(&endpoint, &engine, move |count| {
        let _ended = on_stop.send(Event::Stopping(count));
        // Without a thread they end at their time limit.
        let _best_effort = std::thread::Builder::new().name("hooks".into()).spawn(move || hooks.end_all());
    });
    let runs = (args.is_over_all() && !names.is_empty()).then(|| refresher::record_run(&setup)).flatten();
    let told = args.is_routine(global).then(|| ToldFailures::open(setup.store.layout().dir()));
    let begun = setup.clock.now();
    let mut report = Report { out, total: names.len(), rows: Vec::new(), told, now: setup.clock.now().wall };
    run_all(&Run { setup: &setup, engine: &engine, args, begun, events }, names, &arrivals, &mut report);
    let (seen, mut rows) = report.finish();
    if let Some(interval) = runs.and_then(|runs| runs.interval()) {
        warn_if_runs_too_sparse(&seen, interval, args.lookahead, out);
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let late = engine.drain();
    // Of a profile that was fresh, an earlier run may have left a mirror behind.
    seen.iter().flatten().for_each(|(profile, _)| drop(setup.mirrors().update(profile)));
    let profiles = seen.iter().flatten().map(|(profile, _)| profile).collect();
    // A reminder may be due for one that nothing was tried for, and of some an earlier run has left something to tell.
    drop(threads::map(MAX_CONCURRENT, profiles, |profile| setup.hooks().look(profile, None)));
    // What has outlived its time, as after a stop, ends with this run.
    setup.hooks().end_all();
    tell_news(&setup, out);
    for name in late {
        out.warn(&format!("{name}: the refresh did not finish in time; its outcome is in doubt"));
    }
    Ok(rows)
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
    let names = setup.all_profiles().map_err(|e| CommandStatus::of_failed(e.outcome()))?;
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

/// What happens during a run, for the thread that reports it.
enum Event {
    Done(Box<(SeenProfile, ProfileOutcome)>),
    /// A refresh takes long; the other process that has the lock.
    Waiting(ProfileName, Option<LockHolder>),
    /// A stop signal came while so many refreshes were in progress.
    Stopping(usize),
}

struct Run<'a> {
    setup: &'a Setup,
    engine: &'a Engine,
    args: &'a RefreshArgs,
    begun: Moment,
    events: Sender<Event>,
}

/// Refreshes all of them, at most `MAX_CONCURRENT` at a time, each on its own, and reports each as it ends.
fn run_all(run: &Run<'_>, names: Vec<ProfileName>, arrivals: &mpsc::Receiver<Event>, report: &mut Report<'_>) {
    let workers = MAX_CONCURRENT.min(names.len());
    let queue = Mutex::new(VecDeque::from(names));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|s| {
        let work = || {
            while let Some(name) = next() {
                let _listening = run.events.send(Event::Done(Box::new(run.refresh_one(name))));
            }
        };
        let spawn = |_| std::thread::Builder::new().spawn_scoped(s, work).ok();
        let workers: Vec<_> = (0..workers).map_while(spawn).collect();
        if workers.is_empty() {
            // There is no thread to be had, so this one does it, and reports afterwards.
            work();
        }
        report.show_progress();
        while report.rows.len() < report.total {
            match arrivals.recv_timeout(LIVENESS_INTERVAL) {
                Ok(event) => report.add(event),
                Err(RecvTimeoutError::Timeout) if workers.iter().any(|worker| !worker.is_finished()) => {}
                // A worker that panicked sends nothing; the scope passes the panic on.
                Err(_) => break,
            }
        }
    });
}

impl Run<'_> {
    /// Looks at one profile, and refreshes it by what was seen.
    fn refresh_one(&self, name: ProfileName) -> (SeenProfile, ProfileOutcome) {
        let left = self.args.timeout.saturating_sub(self.setup.clock.now().time_since(&self.begun));
        let view = self.setup.store.view(&name);
        let profile = match self.setup.profile_of_view(&name, &view) {
            Ok(profile) => Arc::new(profile),
            Err(outcome) => return (None, (name, None, outcome)),
        };
        let journal = view.as_ref().ok().and_then(|view| view.journal.as_ref());
        let lifetime = journal.and_then(|r| r.validity.as_ref()).and_then(|v| v.full_lifetime());
        let outcome = match view {
            Err(e) => with_names(e.outcome(), &self.setup.store, &name),
            Ok(_) if left.is_zero() => not_begun(self.args.timeout),
            Ok(view) => {
                let force = self.args.force.then(|| Engine::newer_than(&view));
                let demand = force.unwrap_or(Demand::Margin { lookahead: self.args.lookahead });
                self.engine.refresh_seen(&profile, demand, view, left, &|| {
                    let holder =
                        self.setup.store.lock_holder(&name).filter(|holder| holder.pid != Some(std::process::id()));
                    let _listening = self.events.send(Event::Waiting(name.clone(), holder));
                })
            }
        };
        let provider = Some(profile.provider.name.clone());
        (Some((profile, lifetime)), (name, provider, outcome))
    }
}

/// The outcome of a profile whose turn did not come in time.
fn not_begun(limit: Duration) -> Outcome {
    let limit = humantime::format_duration(limit);
    let failure = Failure::new(ErrorKind::Busy, format!("nothing was sent: its turn did not come within {limit}"))
        .with_hint("run it again, or use a longer --timeout");
    Outcome::new(OutcomeKind::Deferred).with_error(failure)
}

/// What has been reported so far.
struct Report<'a> {
    out: &'a Output,
    total: usize,
    rows: Vec<(SeenProfile, ProfileOutcome)>,
    /// Of a run that only tells errors: those that earlier runs have told.
    told: Option<ToldFailures>,
    now: Timestamp,
}

impl Report<'_> {
    fn add(&mut self, event: Event) {
        match event {
            Event::Done(row) => {
                self.tell(&row.1.0, &row.1.2);
                self.rows.push(*row);
                self.show_progress();
            }
            // Of many, most wait for a place in this run; the count says so.
            Event::Waiting(name, holder) if self.total == 1 => {
                let whose = holder.map_or(String::new(), |holder| format!(" by {holder}"));
                self.out.info(&format!("{name}: waiting for a refresh in progress{whose} …"));
            }
            Event::Waiting(..) => {}
            Event::Stopping(0) => self.out.info("stopping"),
            Event::Stopping(1) => self.out.info("stopping; 1 refresh in progress is being finished"),
            Event::Stopping(n) => self.out.info(&format!("stopping; {n} refreshes in progress are being finished")),
        }
    }

    fn show_progress(&self) {
        if self.total > 1 {
            self.out.progress(&format!("refreshing {} profiles … {} done", self.total, self.rows.len()));
        }
    }

    fn tell(&mut self, name: &ProfileName, outcome: &Outcome) {
        if self.total > 1 && is_interrupted(outcome) {
            return;
        }
        for warning in &outcome.warnings {
            self.out.warn(&format!("{name}: {warning}"));
        }
        if !self.out.is_json {
            self.out.info(&outcome_line(name, outcome, self.now));
        }
        let word = outcome.error.as_ref().map_or("", |error| error.kind.word());
        let is_news = self.told.as_mut().is_none_or(|told| told.is_news(name.as_str(), word, self.now));
        if let Some(error) = outcome.error.as_ref().filter(|_| is_news) {
            self.out.error(&Failure { message: with_name(name, &error.message), ..error.clone() });
        }
    }

    fn finish(self) -> (Vec<SeenProfile>, Vec<ProfileOutcome>) {
        self.out.end_countdown();
        let stopped = self.rows.iter().filter(|(_, (_, _, outcome))| is_interrupted(outcome)).count();
        if stopped > 0 && self.total > 1 {
            self.out.info(&format!(
                "{stopped} of {} profiles were not refreshed: stopped before anything was sent",
                self.total
            ));
        }
        self.told.into_iter().for_each(|told| told.save());
        self.rows.into_iter().unzip()
    }
}

fn is_interrupted(outcome: &Outcome) -> bool {
    outcome.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Interrupted)
}

/// A message that is not about a named profile already.
fn with_name(name: &ProfileName, message: &str) -> String {
    if message.starts_with("no profile ") { message.to_owned() } else { format!("{name}: {message}") }
}
