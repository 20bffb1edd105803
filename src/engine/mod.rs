//! The engine: keeps a profile's credential fresh for whoever asks, with one request for all who ask at once.
//!
//! [`Engine::refresh`] is the whole story: look without a lock, join or open a flight, wait for it. What a flight does is
//! in [`transaction`].

pub mod backoff;
pub mod doubt;
mod flightplan;
mod follow;
pub mod handover;
mod judge;
mod lanes;
pub mod logout;
pub mod obtain;
mod refusal;
pub mod source;
pub mod standing;
pub mod transaction;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::Clock;
use crate::credential::freshness::Demand;
use crate::guard::{Flight, Guard, Landing, Lease, Seat};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind, Publication};
use crate::profile::{Profile, ProfileName};
use crate::provider::{PrepareError, TokenEndpoint};
use crate::store::record::Record;
use crate::store::{Store, StoreError};
use flightplan::{Flightplan, Seen};
use lanes::Lanes;
use source::Source;

/// Longest time that a flight past the point of no return may take to finish: request, then persistence.
pub const DRAIN: Duration = Duration::from_secs(45);
/// How often a waiting caller looks whether it was told to stop.
const SLICE: Duration = Duration::from_millis(200);
/// After this long the person is told what is being waited for.
const EXPLAIN_AFTER: Duration = Duration::from_secs(3);
/// A caller that joined flights which did not answer its demand opens its own after this many.
const JOINS: usize = 3;

/// Refreshes credentials. Cheap to clone; all clones share their flights.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<Store>,
    endpoint: Arc<dyn TokenEndpoint>,
    clock: Arc<dyn Clock>,
    guard: Guard<Outcome>,
    stop: Arc<AtomicBool>,
    lanes: Lanes,
    is_resident: bool,
    /// The profiles for which this process was started by keepalive itself.
    within: Vec<String>,
    source: OnceLock<Arc<dyn Source>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({:?})", self.shared.store)
    }
}

/// What a demand may be met by without a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belief {
    /// The journal's word.
    Journal,
    /// Nothing: what it speaks of could not be opened.
    Nothing,
}

/// A flight that the caller has joined or opened.
enum Boarding {
    Landed(Outcome),
    Aboard { flight: Flight<Outcome>, is_follower: bool },
}

impl Engine {
    /// `is_resident`: a daemon, which keeps the sealing key and outlives its keyring.
    pub fn new(
        store: Arc<Store>,
        endpoint: Arc<dyn TokenEndpoint>,
        clock: Arc<dyn Clock>,
        is_resident: bool,
        within: Vec<String>,
    ) -> Self {
        let shared = Shared {
            store,
            endpoint,
            clock,
            guard: Guard::default(),
            stop: Arc::new(AtomicBool::new(false)),
            lanes: Lanes::default(),
            is_resident,
            within,
            source: OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Lets profiles with `follow = true` look into the stores of other tools. Without this they send nothing.
    #[must_use]
    pub fn following(self, source: Arc<dyn Source>) -> Self {
        // The first one stays: what is followed cannot change under a flight.
        let _first = self.shared.source.set(source);
        self
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// The demand behind `--force`: something newer than what is there now.
    pub fn force(&self, name: &ProfileName) -> Result<Demand, StoreError> {
        let record = self.shared.store.peek(name)?;
        Ok(Demand::NewerThan(record.map_or(crate::credential::Generation::NONE, |r| r.generation)))
    }

    /// Meets a demand: returns at once if it is met, else joins the flight for this profile or opens one, and shares its
    /// outcome. Blocks for at most `limit`; a flight goes on without its caller. `explain` is called once if it takes long.
    pub fn refresh(&self, profile: &Arc<Profile>, demand: Demand, limit: Duration, explain: &dyn Fn()) -> Outcome {
        self.meet(profile, demand, Belief::Journal, limit, explain)
    }

    fn meet(
        &self,
        profile: &Arc<Profile>,
        demand: Demand,
        belief: Belief,
        limit: Duration,
        explain: &dyn Fn(),
    ) -> Outcome {
        for _ in 0..JOINS {
            let (flight, is_follower) = match self.board(profile, demand, belief) {
                Boarding::Landed(outcome) => return outcome,
                Boarding::Aboard { flight, is_follower } => (flight, is_follower),
            };
            let Some(landing) = self.wait(&flight, limit, explain) else {
                let failure = Failure::new(ErrorKind::Interrupted, "cancelled before anything was sent");
                return self.now_known(profile, Outcome::new(OutcomeKind::Deferred).because(failure));
            };
            if let Some(outcome) = self.disembark(profile, demand, landing, is_follower) {
                return outcome;
            }
        }
        self.unlucky(profile)
    }

    /// Waits in slices, so that a run told to stop leaves the queue: it has done nothing yet (`None`).
    fn wait(&self, flight: &Flight<Outcome>, limit: Duration, explain: &dyn Fn()) -> Option<Landing<Outcome>> {
        let mut waited = Duration::ZERO;
        let mut is_explained = false;
        while waited < limit {
            let slice = SLICE.min(limit.saturating_sub(waited));
            match flight.wait(slice) {
                Landing::TimedOut => {}
                landing => return Some(landing),
            }
            if self.shared.stop.load(Ordering::SeqCst) && flight.is_queued() {
                return None;
            }
            waited += slice;
            if waited >= EXPLAIN_AFTER && !is_explained {
                explain();
                is_explained = true;
            }
        }
        Some(flight.wait(Duration::ZERO))
    }

    /// The same for a task. May be dropped at any await; the flight goes on.
    pub async fn refresh_async(&self, profile: &Arc<Profile>, demand: Demand) -> Outcome {
        self.meet_async(profile, demand, Belief::Journal).await
    }

    async fn meet_async(&self, profile: &Arc<Profile>, demand: Demand, belief: Belief) -> Outcome {
        for _ in 0..JOINS {
            let (flight, is_follower) = match self.board(profile, demand, belief) {
                Boarding::Landed(outcome) => return outcome,
                Boarding::Aboard { flight, is_follower } => (flight, is_follower),
            };
            if let Some(outcome) = self.disembark(profile, demand, flight.landed().await, is_follower) {
                return outcome;
            }
        }
        self.unlucky(profile)
    }

    /// Nothing new is sent from now on.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }

    /// Stops, and waits for the flights in the air for at most [`DRAIN`]. Returns those that did not make it.
    pub fn drain(&self) -> Vec<ProfileName> {
        self.stop();
        self.shared.guard.drain(DRAIN)
    }

    fn board(&self, profile: &Arc<Profile>, demand: Demand, belief: Belief) -> Boarding {
        if self.shared.within.iter().any(|name| name == profile.name.as_str()) {
            return Boarding::Landed(nested(profile));
        }
        let record = match self.shared.store.peek(&profile.name) {
            Ok(record) => record,
            Err(e) => return Boarding::Landed(e.outcome()),
        };
        let believed = record.as_ref().filter(|_| belief == Belief::Journal);
        if let Some(record) = believed.filter(|r| self.is_met(profile, demand, r)) {
            return Boarding::Landed(transaction::describe(Outcome::new(OutcomeKind::Fresh), record));
        }
        let seen = record
            .as_ref()
            .map_or_else(Seen::default, |r| Seen { generation: r.generation.get(), sequence: r.sequence });
        let (flight, seat) = self.shared.guard.enter(&profile.name);
        let is_follower = seat.is_none();
        if let Some(seat) = seat {
            self.launch(seat, profile, demand, seen);
        }
        Boarding::Aboard { flight, is_follower }
    }

    /// Whether a demand is met by the journal alone, with nothing left to publish.
    fn is_met(&self, profile: &Profile, demand: Demand, record: &Record) -> bool {
        let is_settled = record.publication != Publication::PublishPending || !matches!(demand, Demand::Margin { .. });
        is_settled && standing::meets(record, demand, profile, &self.shared.clock.now())
    }

    /// Gives the flight a thread of its own: no caller's end is the flight's end.
    fn launch(&self, seat: Seat<Outcome>, profile: &Arc<Profile>, demand: Demand, seen: Seen) {
        let shared = Arc::clone(&self.shared);
        let profile = Arc::clone(profile);
        let name = format!("refresh {}", profile.name);
        let spawned = std::thread::Builder::new().name(name).spawn(move || shared.lead(seat, profile, demand, seen));
        if let Err(error) = spawned {
            // The seat went with the closure: its drop tells the followers.
            tracing::error!(%error, "cannot start a thread for a refresh");
        }
    }

    /// What a landing means to this caller; `None`: board again.
    fn disembark(
        &self,
        profile: &Profile,
        demand: Demand,
        landing: Landing<Outcome>,
        is_follower: bool,
    ) -> Option<Outcome> {
        match landing {
            Landing::Outcome(outcome) if !is_follower => Some(outcome),
            // Followers share what was sent or refused; a flight that sent nothing may have had less to do than they ask.
            Landing::Outcome(outcome) => match outcome.kind {
                OutcomeKind::Fresh | OutcomeKind::Refreshed => {
                    let record = self.shared.store.peek(&profile.name).ok().flatten()?;
                    self.is_met(profile, demand, &record).then(|| outcome.as_follower())
                }
                OutcomeKind::Deferred
                | OutcomeKind::InDoubt
                | OutcomeKind::NeedsLogin
                | OutcomeKind::ConfigError
                | OutcomeKind::StoreUnavailable => Some(outcome.as_follower()),
            },
            Landing::Abandoned => None,
            Landing::TimedOut => Some(self.busy(profile)),
        }
    }

    fn busy(&self, profile: &Profile) -> Outcome {
        let failure = Failure::new(ErrorKind::Busy, format!("the refresh of {} is still in progress", profile.name))
            .hint("it continues; retry, or use a longer --timeout");
        self.now_known(profile, Outcome::new(OutcomeKind::Deferred).because(failure))
    }

    fn unlucky(&self, profile: &Profile) -> Outcome {
        let failure = Failure::new(
            ErrorKind::Busy,
            format!("other refreshes of {} finished but did not satisfy this request", profile.name),
        )
        .hint("retry");
        self.now_known(profile, Outcome::new(OutcomeKind::Deferred).because(failure))
    }

    fn now_known(&self, profile: &Profile, outcome: Outcome) -> Outcome {
        match self.shared.store.peek(&profile.name) {
            Ok(Some(record)) => transaction::describe(outcome, &record),
            Ok(None) | Err(_) => outcome,
        }
    }
}

impl Shared {
    /// The life of a flight's thread: resolve everything that may take long, take the lock and a lane, fly, publish.
    fn lead(&self, seat: Seat<Outcome>, profile: Arc<Profile>, demand: Demand, seen: Seen) {
        let prepared = match self.endpoint.prepare(&profile.provider, profile.name.as_str()) {
            Ok(prepared) => prepared,
            Err(PrepareError::Config(f)) => return seat.land(Outcome::new(OutcomeKind::ConfigError).because(f)),
            Err(PrepareError::Unreachable(f)) => {
                // Where nothing is stored, the server's return would change nothing.
                let outcome = match self.store.peek(&profile.name) {
                    Ok(record) if !record.as_ref().is_some_and(Record::has_credential) => {
                        refusal::no_credential(&profile.name)
                    }
                    Ok(_) | Err(_) => Outcome::new(OutcomeKind::Deferred).because(f),
                };
                return seat.land(outcome);
            }
        };
        let is_resident = self.is_resident && self.store.has_key();
        let key = self.store.ready_key(&profile.name);
        let lock_file = match self.store.lock_file(&profile.name) {
            Ok(path) => path,
            Err(e) => return seat.land(e.outcome()),
        };
        let (provider, limit) = (&profile.provider.name, profile.provider.concurrency);
        let (take, try_take) = (|| self.lanes.take(provider, limit), || self.lanes.try_take(provider, limit));
        let (lease, lane) = match Lease::admit(seat, &lock_file, take, try_take) {
            Ok(admitted) => admitted,
            Err((seat, error)) => {
                let failure = Failure::new(ErrorKind::Lock, format!("cannot lock {}: {error}", lock_file.display()));
                return seat.land(Outcome::new(OutcomeKind::StoreUnavailable).because(failure));
            }
        };
        let plan = Flightplan {
            store: Arc::clone(&self.store),
            endpoint: Arc::clone(&self.endpoint),
            clock: Arc::clone(&self.clock),
            profile,
            prepared,
            client_mark: OnceLock::new(),
            demand,
            seen,
            stop: Arc::clone(&self.stop),
            is_resident,
            key,
            source: self.source.get().cloned(),
            lane,
        };
        let outcome = transaction::run(&plan, &lease);
        lease.publish(outcome);
    }
}

/// A command that keepalive runs for a profile asks for that same profile: waiting would wait for itself.
fn nested(profile: &Profile) -> Outcome {
    let failure = Failure::new(
        ErrorKind::NestedCall,
        format!("recursive call: keepalive started this command for profile {}", profile.name),
    )
    .hint("the command must not ask for this profile's token");
    Outcome::new(OutcomeKind::ConfigError).because(failure)
}
