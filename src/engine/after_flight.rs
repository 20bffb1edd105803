//! What follows a flight, once its outcome is told: the lock of the profile is released, and the callers
//! have gone on. It delays no refresh, and changes no outcome.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::outcome::{Outcome, OutcomeKind};
use crate::profile::Profile;

/// What is done after a flight, on the flight's own thread.
pub trait AfterFlight: Send + Sync {
    /// Whether there is anything to do for a profile after a flight that ended like this.
    fn is_wanted(&self, profile: &Profile, outcome: &Outcome) -> bool;
    fn run(&self, profile: &Profile, outcome: &Outcome);

    /// How long a run that ends waits for it, beyond what it waits for all.
    fn longest(&self) -> Duration {
        Duration::ZERO
    }
}

/// Whether a flight ended with a token.
pub fn has_token(outcome: &Outcome) -> bool {
    matches!(outcome.kind, OutcomeKind::Refreshed | OutcomeKind::Fresh)
}

/// The work after flights of this process.
#[derive(Default)]
pub(super) struct AfterFlights {
    /// In their order.
    works: OnceLock<Vec<Arc<dyn AfterFlight>>>,
    running: Mutex<usize>,
    ended: Condvar,
}

/// Work that is announced or under way. It counts until it is dropped.
pub(super) struct Announced<'a> {
    works: Vec<Arc<dyn AfterFlight>>,
    all: &'a AfterFlights,
}

impl AfterFlights {
    /// The first value stays.
    pub(super) fn set(&self, works: Vec<Arc<dyn AfterFlight>>) {
        let _first = self.works.set(works);
    }

    /// Announces the work after this outcome, before anyone is told of it: a process that ends then waits for it.
    pub(super) fn announce(&self, profile: &Profile, outcome: &Outcome) -> Option<Announced<'_>> {
        let wanted = self.works.get()?.iter().filter(|work| work.is_wanted(profile, outcome));
        let works: Vec<_> = wanted.cloned().collect();
        if works.is_empty() {
            return None;
        }
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Some(Announced { works, all: self })
    }

    /// What a run that ends waits for at most, beside `limit`.
    pub(super) fn longest(&self) -> Duration {
        self.works.get().into_iter().flatten().map(|work| work.longest()).max().unwrap_or_default()
    }

    /// Waits until nothing is under way, for at most `limit`.
    pub(super) fn wait(&self, limit: Duration) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Work that takes longer is done by the next run.
        drop(self.ended.wait_timeout_while(running, limit, |running| *running > 0));
    }
}

impl Announced<'_> {
    pub(super) fn run(self, profile: &Profile, outcome: &Outcome) {
        self.works.iter().for_each(|work| work.run(profile, outcome));
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        *self.all.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.all.ended.notify_all();
    }
}
