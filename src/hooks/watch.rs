//! The daemon's looks for hooks: after each flight, when a journal or the configuration has changed, and when a reminder or a
//! warning is due. Flights wait for none of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use crate::clock::Moment;
use crate::events;
use crate::hooks::Hooks;
use crate::outcome::Outcome;
use crate::profile::{Profile, ProfileLookup, ProfileName};

/// How many profiles' hooks run at once.
const AT_ONCE: usize = 8;
/// The longest sleep while a look is planned: a suspended machine does not count it.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// What the thread of the daemon is told.
#[derive(Debug)]
pub enum HookNote {
    /// The journal of a profile was written, or its configuration has changed.
    Changed(ProfileName),
    /// A flight has ended.
    Ended(ProfileName, Box<Outcome>),
    /// A look has ended, with the time until the next.
    Looked(ProfileName, Option<Duration>),
}

/// A profile that is to be looked at.
#[derive(Default)]
struct Planned {
    /// Since when, and after how long.
    at: Option<(Moment, Duration)>,
    outcome: Option<Box<Outcome>>,
    /// Its hooks run.
    is_busy: bool,
}

impl Planned {
    fn wait(&self, now: &Moment) -> Option<Duration> {
        self.at.as_ref().filter(|_| !self.is_busy).map(|(since, wait)| wait.saturating_sub(now.time_since(since)))
    }
}

/// The plan of the thread.
pub struct HookWatch {
    hooks: Arc<Hooks>,
    profiles: ProfileLookup,
    notes: Receiver<HookNote>,
    sender: Sender<HookNote>,
    planned: BTreeMap<ProfileName, Planned>,
}

impl HookWatch {
    /// From now on flights leave it to this watch to look.
    pub fn new(
        hooks: Arc<Hooks>,
        profiles: ProfileLookup,
        (sender, notes): (Sender<HookNote>, Receiver<HookNote>),
    ) -> Self {
        hooks.listen(sender.clone());
        Self { hooks, profiles, notes, sender, planned: BTreeMap::new() }
    }

    /// Looks as long as the process lives. Blocks the thread.
    pub fn run(mut self) {
        loop {
            let now = self.hooks.clock.now();
            self.start_due(&now);
            let is_full = self.busy() >= AT_ONCE;
            let wait = self.planned.values().filter(|_| !is_full).filter_map(|planned| planned.wait(&now)).min();
            let note = match wait {
                Some(wait) => self.notes.recv_timeout(wait.min(MAX_SLEEP)),
                None => self.notes.recv().map_err(RecvTimeoutError::from),
            };
            match note {
                Ok(note) => self.take(note),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn busy(&self) -> usize {
        self.planned.values().filter(|planned| planned.is_busy).count()
    }

    fn take(&mut self, note: HookNote) {
        let now = self.hooks.clock.now();
        match note {
            HookNote::Changed(name) => self.planned.entry(name).or_default().at = Some((now, Duration::ZERO)),
            HookNote::Ended(name, outcome) => {
                let planned = self.planned.entry(name).or_default();
                planned.outcome = Some(outcome);
                planned.at = Some((now, Duration::ZERO));
            }
            HookNote::Looked(name, next) => {
                let planned = self.planned.entry(name.clone()).or_default();
                planned.is_busy = false;
                planned.at = planned.at.take().or(next.map(|next| (now, next)));
                if planned.at.is_none() {
                    self.planned.remove(&name);
                }
            }
        }
    }

    fn start_due(&mut self, now: &Moment) {
        let is_due = |planned: &Planned| planned.wait(now).is_some_and(|wait| wait.is_zero());
        let due: Vec<_> = self.planned.iter().filter(|(_, p)| is_due(p)).map(|(name, _)| name.clone()).collect();
        let mut busy = self.busy();
        for name in due {
            if busy >= AT_ONCE {
                return;
            }
            let Some(planned) = self.planned.get_mut(&name) else { continue };
            (planned.at, planned.is_busy) = (None, true);
            let outcome = planned.outcome.take();
            let Ok(profile) = (self.profiles)(&name) else {
                self.planned.remove(&name);
                continue;
            };
            busy += usize::from(self.look(profile, outcome));
        }
    }

    /// Looks, on a thread of its own if there is something to tell. Returns whether that runs.
    fn look(&mut self, profile: Arc<Profile>, outcome: Option<Box<Outcome>>) -> bool {
        let (is_news, next) = self.hooks.glance(&profile, outcome.as_deref());
        let name = profile.name.clone();
        if !is_news {
            self.take(HookNote::Looked(name, next));
            return false;
        }
        let (hooks, sender) = (Arc::clone(&self.hooks), self.sender.clone());
        let work = move || {
            let next = hooks.look(&profile, outcome.as_deref());
            // They are in the log.
            drop(hooks.take_news());
            let _heard = sender.send(HookNote::Looked(profile.name.clone(), next));
        };
        match std::thread::Builder::new().name(format!("hooks {name}")).spawn(work) {
            Ok(_) => true,
            Err(error) => {
                events::hook_trouble(&name, "start a thread", &error);
                self.take(HookNote::Looked(name, Some(MAX_SLEEP)));
                false
            }
        }
    }
}
