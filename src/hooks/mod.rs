//! Hooks: programs of the user that are told what happens to a profile, and notifications on the desktop.
//!
//! [`Hooks::look`] is where to begin. Its order is what keeps a run each minute from telling a thing twice: how the profile
//! stands, and what was told before, decide what is news; the journal notes that under the lock of the profile; only the run
//! that wrote the note tells it. What is told waits in a file while another hook of the profile runs, in this process or
//! another, and the one that runs it takes what waits. No lock of a profile is held while a hook runs.

mod decision;
mod look;
mod message;
mod notification;
mod record;
mod run;
mod slots;
pub mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::clock::{Clock, Moment, Timestamp};
use crate::engine::after_flight::AfterFlight;
use crate::events;
use crate::hooks::decision::Wishes;
use crate::hooks::look::HookLook;
pub use crate::hooks::record::HookResult;
use crate::hooks::record::{HookRecords, WaitingEvent};
use crate::hooks::slots::HookSlots;
use crate::hooks::watch::HookNote;
use crate::outcome::{Failure, Outcome, OutcomeKind};
use crate::profile::{DesktopNotices, HookEvent, Profile};
use crate::store::Store;
use crate::sys::hook_process::HookGroups;
use crate::sys::paths;
use crate::sys::tool_process::CompanionProgram;

/// How often a look is begun again when another run has changed the journal meanwhile.
const MAX_ROUNDS: usize = 4;
/// When a look is repeated that could not note what it would tell.
const RETRY: Duration = Duration::from_secs(60);
/// What a hook needs to end when it has used up its time, and one that is shown on the desktop beside it.
const ENDING: Duration = Duration::from_secs(15);

/// Tells hooks and the desktop what happens to profiles.
pub struct Hooks {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    session_bus: Option<String>,
    /// The profiles for whose hooks or commands this process was started. It runs no hook for them.
    within: Vec<String>,
    surroundings: OnceLock<Surroundings>,
    records: HookRecords,
    slots: HookSlots,
    groups: HookGroups,
    /// The longest that a hook of this process may take.
    longest: Mutex<Duration>,
    /// Runs the hooks, if this process does not.
    companion: OnceLock<CompanionProgram>,
    /// In a daemon, the thread that looks.
    listener: OnceLock<Mutex<Sender<HookNote>>>,
    /// No one waits for this process.
    is_unhurried: AtomicBool,
    news: Mutex<Vec<String>>,
}

/// What hooks find around them.
struct Surroundings {
    variables: Vec<(OsString, OsString)>,
    /// The program that shows notifications, if there is a desktop.
    notifier: Option<PathBuf>,
}

/// How the hook of an event ended last; an entry of `hooks` in `status --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HookReport {
    pub event: HookEvent,
    /// `None`: it never ran.
    pub ran_at: Option<Timestamp>,
    pub result: Option<HookResult>,
    pub error: Option<Failure>,
    pub runs: u64,
    pub failures: u64,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hooks({:?})", self.records)
    }
}

impl Hooks {
    /// `session_bus`: its address, if there is one. `within`: the profiles for which keepalive itself started this process.
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>, session_bus: Option<String>, within: Vec<String>) -> Self {
        let records = HookRecords::of(store.layout());
        Self {
            store,
            clock,
            session_bus,
            within,
            surroundings: OnceLock::new(),
            records,
            slots: HookSlots::default(),
            groups: HookGroups::default(),
            longest: Mutex::default(),
            companion: OnceLock::new(),
            is_unhurried: AtomicBool::new(false),
            listener: OnceLock::new(),
            news: Mutex::default(),
        }
    }

    /// From now on this process notes what is to be told, and a companion tells it: [`Hooks::run_left_behind`].
    pub fn leave_to(&self, companion: CompanionProgram) {
        let _first = self.companion.set(companion);
    }

    /// Tells what another process has left, and what is left meanwhile. Blocks until that is done.
    pub fn run_left_behind(&self, profile: &Profile) {
        self.is_unhurried.store(true, Ordering::Relaxed);
        self.look(profile, None);
    }

    /// Has a companion run what waits.
    fn start_companion(&self, companion: &CompanionProgram, profile: &Profile) {
        if let Err(error) = companion.leave_behind(&["refresh", "--profile", profile.name.as_str(), "--only-hooks"]) {
            // It waits for the next run.
            self.tell_trouble(profile, "start a process for hooks", &error);
        }
    }

    /// Looks at a profile, and tells its hooks what is news. Blocks until they have ended, unless they are left to a
    /// companion. Returns when to look again if nothing happens until then. `outcome`: how a flight of this process has just ended.
    pub fn look(&self, profile: &Profile, outcome: Option<&Outcome>) -> Option<Duration> {
        let wishes = self.wishes(profile)?;
        let begun = self.clock.now();
        let first = HookLook::at(&self.store, profile, outcome, &wishes, begun.clone())?;
        if !first.is_news() && !self.records.has_waiting(&profile.name) {
            return first.plan.next;
        }
        let companion = self.companion.get();
        let slot = if companion.is_none() { self.slots.take(profile.hooks.timeout) } else { None };
        if slot.is_none() && companion.is_none() {
            return Some(RETRY);
        }
        let mut told = Vec::new();
        let next = self.note_news(profile, outcome, &wishes, &mut told);
        self.put(profile, told);
        match companion {
            Some(companion) => self.start_companion(companion, profile),
            None => self.run_waiting(profile, &begun),
        }
        next
    }

    /// Lets this wait until the hook before it has ended.
    fn put(&self, profile: &Profile, told: Vec<WaitingEvent>) {
        if !told.is_empty()
            && let Err(error) = self.records.put(&profile.name, told)
        {
            self.tell_trouble(profile, "note what a hook is to be told", &error);
        }
    }

    /// A flight of this process brought tokens. That is told by the next look.
    fn put_refreshed(&self, profile: &Profile, outcome: &Outcome) {
        let is_own = outcome.kind == OutcomeKind::Refreshed && !outcome.is_follower;
        let wishes = self.wishes(profile).filter(|wishes| is_own && wishes.has(HookEvent::Refreshed));
        let now = self.clock.now();
        let look = wishes.and_then(|wishes| HookLook::at(&self.store, profile, Some(outcome), &wishes, now));
        let message = look.map(|look| look.message(HookEvent::Refreshed, &self.store, profile, Some(outcome)));
        self.put(profile, message.map(|message| WaitingEvent { message, is_shown: false }).into_iter().collect());
    }

    /// Whether a look would find anything to tell, and when to look again.
    fn glance(&self, profile: &Profile, outcome: Option<&Outcome>) -> (bool, Option<Duration>) {
        let wishes = self.wishes(profile);
        let look = wishes.and_then(|wishes| HookLook::at(&self.store, profile, outcome, &wishes, self.clock.now()));
        let Some(look) = look else { return (false, None) };
        (look.is_news() || self.records.has_waiting(&profile.name), look.plan.next)
    }

    /// Notes in the journal what is news. What this run has noted, it tells.
    fn note_news(
        &self,
        profile: &Profile,
        outcome: Option<&Outcome>,
        wishes: &Wishes,
        told: &mut Vec<WaitingEvent>,
    ) -> Option<Duration> {
        for _ in 0..MAX_ROUNDS {
            let look = HookLook::at(&self.store, profile, outcome, wishes, self.clock.now())?;
            if !look.is_news() {
                return look.plan.next;
            }
            match self.store.replace_hook_stamps(&look.journal, &look.plan.stamps) {
                Ok(true) => {
                    told.extend(look.messages(&self.store, profile, outcome));
                    return look.plan.next;
                }
                Ok(false) => {}
                Err(error) => {
                    self.tell_trouble(profile, "note in the journal what hooks are told", &error);
                    return Some(RETRY);
                }
            }
        }
        Some(RETRY)
    }

    /// Of the profiles that hooks or the desktop are told of, which events. `None`: this profile is none.
    fn wishes(&self, profile: &Profile) -> Option<Wishes> {
        if self.within.iter().any(|name| name == profile.name.as_str()) {
            return None;
        }
        let is_desktop = profile.hooks.notices == DesktopNotices::Auto && self.surroundings().notifier.is_some();
        let hooks = profile.hooks.commands.keys().copied().collect();
        let wishes = Wishes { hooks, is_desktop, remind: profile.hooks.remind };
        Some(wishes).filter(|wishes| !wishes.is_none())
    }

    fn surroundings(&self) -> &Surroundings {
        self.surroundings.get_or_init(|| {
            const BUS: &str = "DBUS_SESSION_BUS_ADDRESS";
            let mut variables = paths::inherited_by_hooks();
            // Under cron it is not set, and is where systemd puts it.
            if let Some(address) = self.session_bus.as_ref().filter(|_| !variables.iter().any(|(name, _)| name == BUS))
            {
                variables.push((BUS.into(), address.into()));
            }
            let has_bus = self.session_bus.is_some();
            Surroundings { variables, notifier: has_bus.then(|| paths::find_program(notification::PROGRAM)).flatten() }
        })
    }

    /// Has a thread look from now on: this process is a daemon, whose flights wait for no hook.
    fn listen(&self, listener: Sender<HookNote>) {
        let _first = self.listener.set(Mutex::new(listener));
    }

    /// Tells the thread of a daemon. `false`: there is none.
    fn send(&self, note: HookNote) -> bool {
        let Some(listener) = self.listener.get() else { return false };
        // A thread that is gone is told in the log.
        let _heard = listener.lock().unwrap_or_else(PoisonError::into_inner).send(note);
        true
    }

    /// How the hooks of a profile ended last, as far as it is noted.
    pub fn reports(&self, profile: &Profile) -> Vec<HookReport> {
        if profile.hooks.commands.is_empty() {
            return Vec::new();
        }
        let mut record = self.records.read(&profile.name);
        let report = |event: &HookEvent| {
            let last = record.last.remove(event);
            let (runs, failures) = last.as_ref().map_or((0, 0), |last| (last.runs, last.failures));
            HookReport {
                event: *event,
                ran_at: last.as_ref().map(|last| last.at),
                result: last.as_ref().map(|last| last.result),
                error: last.and_then(|last| last.error),
                runs,
                failures,
            }
        };
        profile.hooks.commands.keys().map(report).collect()
    }

    /// What is new since the last call, for a person: one line for each failure.
    pub fn take_news(&self) -> Vec<String> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts no more hooks, and ends those that run and do not end soon by themselves: this process ends.
    pub fn end_all(&self) {
        self.groups.end_all();
    }

    fn tell_trouble(&self, profile: &Profile, what: &str, error: &dyn std::fmt::Display) {
        events::hook_trouble(&profile.name, what, error);
    }

    fn add_news(&self, line: String) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn is_late(&self, profile: &Profile, begun: &Moment) -> bool {
        // A run by cron is not kept for longer than one hook may take; what waits is told by the next.
        let is_unhurried = self.listener.get().is_some() || self.is_unhurried.load(Ordering::Relaxed);
        !is_unhurried && self.clock.now().time_since(begun) >= profile.hooks.timeout
    }
}

impl AfterFlight for Hooks {
    fn is_wanted(&self, profile: &Profile, _outcome: &Outcome) -> bool {
        self.wishes(profile).is_some()
    }

    fn run(&self, profile: &Profile, outcome: &Outcome) {
        let mut longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
        *longest = profile.hooks.timeout.max(*longest);
        drop(longest);
        self.put_refreshed(profile, outcome);
        if !self.send(HookNote::Ended(profile.name.clone(), Box::new(outcome.clone()))) {
            self.look(profile, Some(outcome));
        }
    }

    fn longest(&self) -> Duration {
        // The wait for a slot, and the run.
        *self.longest.lock().unwrap_or_else(PoisonError::into_inner) * 2 + ENDING
    }
}
