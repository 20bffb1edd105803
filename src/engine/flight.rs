//! The life of one flight, on a thread of its own: what may take long first, then the lock, the transaction, the outcome.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{EngineInner, SeenBeforeLock};
use crate::clock::Moment;
use crate::credential::freshness::Demand;
use crate::engine::refresh;
use crate::engine::refresh::context::RefreshContext;
use crate::events;
use crate::guard::{LeaderSlot, Lease};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::{Profile, ProfileName};
use crate::provider::PrepareError;
use crate::store::journal::Journal;
use crate::store::{Store, StoreError};
use crate::sys::lockfile::{LockError, LockWait};

/// How long a flight waits for the lock of its profile. Its callers may leave before; a daemon, which would wait for ever,
/// says who has the lock, and asks again. On a stop the callers leave, which ends the wait.
const PROFILE_LOCK_WAIT: LockWait<'_> = LockWait::at_most(Duration::from_secs(5 * 60));

/// How a flight of this process ended that tried a refresh.
#[derive(Clone, Debug)]
pub struct FlightSummary {
    pub provider: String,
    pub outcome: OutcomeKind,
    /// From the wait for the lock to the outcome.
    pub took: Duration,
}

impl EngineInner {
    /// Runs a flight: prepares what may take long, takes the lock and a place at the provider, refreshes, publishes.
    pub(super) fn run_flight(
        &self,
        leader_slot: LeaderSlot<Outcome>,
        profile: Arc<Profile>,
        demand: Demand,
        seen: SeenBeforeLock,
    ) {
        let prepared = match self.endpoint.prepare(&profile.provider, profile.name.as_str()) {
            Ok(prepared) => prepared,
            Err(error) => return self.end_early(leader_slot, &profile, self.unprepared(&profile, error)),
        };
        let is_resident = self.is_daemon && self.store.keys().has_cached();
        let key = self.store.keys().prefetch(&profile.name, seen.key_id.as_deref());
        let create_lock_file = match self.store.create_lock_file(&profile.name) {
            Ok(path) => path,
            Err(e) => return self.end_early(leader_slot, &profile, e.outcome()),
        };
        let (provider, limit) = (&profile.provider.name, profile.provider.concurrency);
        let (take, try_take) =
            (|| self.concurrency.acquire(provider, limit), || self.concurrency.try_acquire(provider, limit));
        let asked = self.clock.now();
        let (lease, concurrency_permit) =
            match Lease::admit(leader_slot, &create_lock_file, PROFILE_LOCK_WAIT, take, try_take) {
                Ok(admitted) => admitted,
                Err((leader_slot, error)) => {
                    let ended = cannot_lock(&self.store, &profile.name, &create_lock_file, error);
                    return self.end_early(leader_slot, &profile, ended);
                }
            };
        events::lock_acquired(&profile.name, self.clock.now().time_since(&asked));
        let ctx = RefreshContext {
            store: Arc::clone(&self.store),
            endpoint: Arc::clone(&self.endpoint),
            clock: Arc::clone(&self.clock),
            profile,
            prepared,
            client_mark: OnceLock::new(),
            demand,
            seen,
            stop: Arc::clone(&self.stop),
            is_daemon: is_resident,
            is_long_lived: self.is_daemon,
            prefetched_key: key,
            followed_stores: self.followed_stores.get().cloned(),
            fed_programs: self.fed_programs.get().cloned(),
            concurrency_permit,
        };
        let outcome = refresh::transaction::run(&ctx, &lease);
        self.finish_flight(ctx, lease, outcome, &asked);
    }

    /// How a flight ends whose provider cannot be asked. If nothing is stored, the server's recovery would change nothing.
    fn unprepared(&self, profile: &Profile, error: PrepareError) -> Outcome {
        let is_unreachable = matches!(error, PrepareError::Unreachable(_));
        let journal = self.store.peek(&profile.name).ok().filter(|_| is_unreachable);
        match journal {
            Some(journal) if !journal.as_ref().is_some_and(Journal::has_credential) => {
                refresh::errors::no_credential(&profile.name)
            }
            Some(_) | None => error.into(),
        }
    }

    /// Publishes the outcome of a flight that did not get the lock.
    fn end_early(&self, leader_slot: LeaderSlot<Outcome>, profile: &Profile, outcome: Outcome) {
        let outcome = super::with_names(outcome, &self.store, &profile.name);
        let after = self.after_flights.announce(profile, &outcome);
        leader_slot.complete(outcome.clone());
        if let Some(after) = after {
            after.run(profile, &outcome);
        }
    }

    /// Publishes the outcome, which releases the lock; then comes what delays no one.
    fn finish_flight(&self, ctx: RefreshContext, lease: Lease<Outcome>, outcome: Outcome, asked: &Moment) {
        let outcome = super::with_names(outcome, &ctx.store, &ctx.profile.name);
        let profile = Arc::clone(&ctx.profile);
        let after = self.after_flights.announce(&profile, &outcome).map(|after| (after, outcome.clone()));
        let took = self.clock.now().time_since(asked);
        let end = FlightSummary { provider: profile.provider.name.clone(), outcome: outcome.kind, took };
        let has_tried = has_tried(&ctx, &outcome);
        lease.finish(outcome);
        if has_tried {
            // Without a listener it is lost.
            let _heard = self.flight_ends.send(end);
        }
        // The place at the provider goes with it.
        drop(ctx);
        if let Some((after, outcome)) = after {
            after.run(&profile, &outcome);
        }
    }
}

/// Whether the flight tried a refresh. One that found that no try is allowed, as without a login, has not; callers may ask for
/// such a one as often as they like.
fn has_tried(ctx: &RefreshContext, outcome: &Outcome) -> bool {
    let has_noted = || {
        let journal = ctx.store.peek(&ctx.profile.name).ok().flatten();
        journal.is_some_and(|journal| journal.sequence > ctx.seen.sequence)
    };
    // What the store could not do, it may not have noted.
    !outcome.is_follower && (outcome.kind == OutcomeKind::StoreUnavailable || has_noted())
}

pub(super) fn cannot_lock(store: &Store, name: &ProfileName, path: &Path, error: LockError) -> Outcome {
    let LockError::Io(error) = error else { return StoreError::not_locked(path, error).outcome() };
    let failure = Failure::new(ErrorKind::Lock, format!("cannot lock {}: {error}", path.display()))
        .with_hint(format!("check the owner and the permissions of {}", path.display()));
    store.with_room_hint(name, Outcome::new(OutcomeKind::StoreUnavailable).with_error(failure))
}

/// The system has no thread for a flight: nothing was done.
pub(super) fn no_thread(error: &std::io::Error) -> Outcome {
    let failure = Failure::new(ErrorKind::Busy, format!("nothing was sent: cannot start a thread: {error}"))
        .with_hint("the limit of processes or memory of this user, service or container is reached");
    Outcome::new(OutcomeKind::Deferred).with_error(failure)
}

/// A command that keepalive runs for a profile asks for that same profile, so it would wait for itself.
pub(super) fn nested_call(profile: &Profile) -> Outcome {
    let failure = Failure::new(
        ErrorKind::NestedCall,
        format!("recursive call: keepalive started this command for profile {}", profile.name),
    )
    .with_hint("the command must not ask for this profile's token");
    Outcome::new(OutcomeKind::ConfigError).with_error(failure)
}
