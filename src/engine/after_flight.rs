//! What follows a flight that brought tokens, once its outcome is told: the lock of the profile is released, and the callers
//! have gone on. It delays no refresh, and changes no outcome.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::outcome::{Outcome, OutcomeKind};
use crate::profile::Profile;

/// What is done after a flight, on the flight's own thread.
pub trait AfterFlight: Send + Sync {
    /// Whether there is anything to do for a profile.
    fn is_wanted(&self, profile: &Profile) -> bool;
    fn run(&self, profile: &Profile, outcome: &Outcome);
}

/// The work after flights of this process.
#[derive(Default)]
pub(super) struct AfterFlights {
    work: OnceLock<Arc<dyn AfterFlight>>,
    running: Mutex<usize>,
    ended: Condvar,
}

/// Work that is announced or under way. It counts until it is dropped.
pub(super) struct Announced<'a> {
    work: Arc<dyn AfterFlight>,
    all: &'a AfterFlights,
}

impl AfterFlights {
    /// The first value stays.
    pub(super) fn set(&self, work: Arc<dyn AfterFlight>) {
        let _first = self.work.set(work);
    }

    /// Announces the work after this outcome, before anyone is told of it: a process that ends then waits for it.
    pub(super) fn announce(&self, profile: &Profile, outcome: &Outcome) -> Option<Announced<'_>> {
        let has_token = matches!(outcome.kind, OutcomeKind::Refreshed | OutcomeKind::Fresh);
        let work = self.work.get().filter(|work| has_token && work.is_wanted(profile))?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Some(Announced { work: Arc::clone(work), all: self })
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
        self.work.run(profile, outcome);
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        *self.all.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.all.ended.notify_all();
    }
}
