//! Runs what waits to be told, one after the other for a profile, and notes how each ended.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::clock::Moment;
use crate::credential::external::shell_quoted;
use crate::credential::redaction::SentSecrets;
use crate::events;
use crate::hooks::message::HookMessage;
use crate::hooks::record::{HookResult, LastRun, WaitingEvent};
use crate::hooks::{Hooks, notification};
use crate::outcome::{ErrorKind, Failure};
use crate::profile::{HookEvent, Profile, ProfileName};
use crate::store::StoreError;
use crate::store::journal::block::Cause;
use crate::sys::hook_process::{HookCommand, HookExit, HookRun};
use crate::sys::paths;

/// How long `notify-send` may take.
const NOTIFICATION_LIMIT: Duration = Duration::from_secs(5);
/// So much of the last words of a hook is told.
const LAST_WORDS: usize = 1024;

/// Why a hook is said to have failed.
struct HookFailure {
    result: HookResult,
    why: String,
    /// Its last words, without tokens.
    said: String,
}

impl Hooks {
    /// Runs what waits, unless another process or thread does, which then runs this, too.
    pub(super) fn run_waiting(&self, profile: &Profile, begun: &Moment) {
        let name = &profile.name;
        loop {
            let lock = match self.records.try_lock_runs(name) {
                Ok(Some(lock)) => lock,
                Ok(None) => return events::hook_waits(name),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return,
                Err(e) => return self.tell_trouble(profile, "lock the hooks of the profile", &e),
            };
            while !self.is_late(profile, begun) {
                match self.records.take(name, self.clock.now().wall) {
                    Ok(Some(waiting)) => self.run_one(profile, &waiting),
                    Ok(None) => break,
                    Err(e) => return self.tell_trouble(profile, "read what a hook is to be told", &e),
                }
            }
            drop(lock);
            // Another run may have left something between the last look and the release of the lock.
            if self.is_late(profile, begun) || !self.records.has_waiting(name) {
                return;
            }
        }
    }

    /// Shows it on the desktop and runs the hook, both at once.
    fn run_one(&self, profile: &Profile, waiting: &WaitingEvent) {
        let event = waiting.message.event;
        let notifier = self.surroundings().notifier.as_ref().filter(|_| waiting.is_shown);
        let notice = notifier.and_then(|program| notification::command(program, event, &profile.name));
        if event == HookEvent::LoginDue
            && let Some(end) = waiting.message.login_by
        {
            events::login_due(&profile.name, end);
        }
        std::thread::scope(|scope| {
            let show = || notice.iter().for_each(|argv| self.show(profile, event, argv));
            let shown = notice.as_ref().and_then(|_| std::thread::Builder::new().spawn_scoped(scope, show).ok());
            self.run_hook(profile, &waiting.message);
            if shown.is_none() {
                show();
            }
        });
    }

    fn show(&self, profile: &Profile, event: HookEvent, argv: &[String]) {
        let environment = self.environment(&profile.name, event);
        let hook = HookCommand { argv, environment: &environment, input: b"", limit: NOTIFICATION_LIMIT };
        let failed = match self.groups.run(&hook) {
            Ok(HookRun { exit: HookExit::Status(0), .. }) => return events::hook_done(&profile.name, event, argv),
            Ok(run) => failure(run, NOTIFICATION_LIMIT, &SentSecrets::default()),
            Err(error) => HookFailure::not_run(argv, &error),
        };
        events::hook_failed(&profile.name, event, argv, &failed.why, &failed.said);
    }

    fn run_hook(&self, profile: &Profile, message: &HookMessage) {
        let (event, name) = (message.event, &profile.name);
        let Some(argv) = profile.hooks.commands.get(&event) else { return };
        let at = self.clock.now().wall;
        let done = self.told_line(profile, message).and_then(|line| {
            events::hook_starts(name, event, argv);
            let environment = self.environment(name, event);
            let limit = profile.hooks.timeout;
            match self.groups.run(&HookCommand { argv, environment: &environment, input: &line, limit }) {
                Ok(HookRun { exit: HookExit::Status(0), .. }) => Ok(()),
                Ok(run) => Err(self.failure_without_tokens(profile, run)),
                Err(error) => Err(HookFailure::not_run(argv, &error)),
            }
        });
        let (result, error) = match done {
            Ok(()) => {
                events::hook_done(name, event, argv);
                (HookResult::Ok, None)
            }
            Err(failed) => {
                events::hook_failed(name, event, argv, &failed.why, &failed.said);
                let failure = failed.told(event, name, argv);
                let hint = failure.hint.as_deref().unwrap_or_default();
                self.add_news(format!("{name}: {}; {hint}", failure.message));
                (failed.result, Some(failure))
            }
        };
        let failures = u64::from(error.is_some());
        if let Err(error) = self.records.note(event, name, LastRun { at, result, error, runs: 1, failures }) {
            self.tell_trouble(profile, "note how a hook ended", &error);
        }
    }

    /// What the hook reads. With the access token, if it is to have it: then the newest one, which may be newer than what
    /// has happened.
    fn told_line(&self, profile: &Profile, message: &HookMessage) -> Result<Zeroizing<Vec<u8>>, HookFailure> {
        if message.event != HookEvent::Refreshed || !profile.hooks.gives_token {
            return Ok(message.line(None));
        }
        let unread = |why: String| HookFailure { result: HookResult::Failed, why, said: String::new() };
        let read = |e: StoreError| unread(format!("the access token cannot be read: {e}"));
        let view = self.store.view(&profile.name).map_err(read)?;
        if view.journal.as_ref().is_some_and(|journal| journal.block(Cause::OtherAccount).is_some()) {
            return Err(unread("the access token belongs to another account".into()));
        }
        let snapshot = self.store.snapshot_of(&profile.name, &view).map_err(read)?;
        let newest = snapshot.and_then(|snapshot| Some((snapshot.grant.access.clone()?, snapshot)));
        let Some((access, snapshot)) = newest else { return Err(unread("there is no access token".into())) };
        let told =
            HookMessage { generation: snapshot.generation, expires_at: snapshot.expires_at(), ..message.clone() };
        Ok(told.line(Some(access.expose())))
    }

    fn environment(&self, name: &ProfileName, event: HookEvent) -> Vec<(OsString, OsString)> {
        let mut within = self.within.clone();
        within.push(name.to_string());
        let own = [
            (paths::EVENT, event.word().to_owned()),
            (paths::PROFILE, name.to_string()),
            (paths::ACTIVE_PROFILES, within.join(",")),
        ];
        let own = own.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.surroundings().variables.iter().cloned().chain(own).collect()
    }

    /// A hook may print a token that it was given, or asked for.
    fn failure_without_tokens(&self, profile: &Profile, run: HookRun) -> HookFailure {
        if run.said.is_empty() {
            return failure(run, profile.hooks.timeout, &SentSecrets::default());
        }
        match self.store.snapshot(&profile.name) {
            Ok(snapshot) => {
                let mut tokens = SentSecrets::default();
                let grant = snapshot.as_ref().map(|snapshot| &snapshot.grant);
                grant
                    .and_then(|grant| grant.access.as_ref())
                    .into_iter()
                    .for_each(|access| tokens.add(access.expose()));
                grant.and_then(|grant| grant.id_token.as_ref()).into_iter().for_each(|jwt| tokens.add(jwt.expose()));
                failure(run, profile.hooks.timeout, &tokens)
            }
            // Without the key it is not known what is a token.
            Err(_) => {
                failure(HookRun { said: Zeroizing::default(), ..run }, profile.hooks.timeout, &SentSecrets::default())
            }
        }
    }
}

fn failure(run: HookRun, limit: Duration, tokens: &SentSecrets) -> HookFailure {
    let (result, why) = match run.exit {
        HookExit::Status(status) => (HookResult::Failed, format!("exit status {status}")),
        HookExit::Signal(signal) => (HookResult::Failed, format!("ended by signal {signal}")),
        HookExit::TimedOut => (HookResult::TimedOut, format!("not done within {}", humantime::format_duration(limit))),
    };
    HookFailure { result, why, said: tokens.last_words(&run.said, LAST_WORDS) }
}

impl HookFailure {
    fn not_run(argv: &[String], error: &io::Error) -> Self {
        let program = argv.first().map_or("", String::as_str);
        let is_there = std::path::Path::new(program).is_file();
        let why = match error.kind() {
            io::ErrorKind::PermissionDenied if is_there => {
                format!("it may not be run; chmod +x {}", shell_quoted(program))
            }
            io::ErrorKind::NotFound if is_there => "the program that its first line names is not there".to_owned(),
            _ => error.to_string(),
        };
        Self { result: HookResult::Failed, why: format!("cannot run `{program}`: {why}"), said: String::new() }
    }

    /// For `status`.
    fn told(&self, event: HookEvent, profile: &ProfileName, argv: &[String]) -> Failure {
        let last = self.said.lines().rev().find(|line| !line.trim().is_empty());
        let last = last.map_or(String::new(), |line| format!(": {}", crate::credential::server_text::printable(line)));
        let message = format!("the hook {} failed: {}{last}", event.key(), self.why);
        let example = format!("{{\"event\":\"{event}\",\"profile\":\"{profile}\"}}");
        let words: Vec<String> = argv.iter().map(|word| shell_quoted(word)).collect();
        Failure::new(ErrorKind::Hook, message).with_hint(format!("try it: echo '{example}' | {}", words.join(" ")))
    }
}
