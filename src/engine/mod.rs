//! The engine keeps a profile's credential fresh, with one request for all callers that ask at once.
//!
//! [`Engine::refresh`] is where to begin: it reads the journal without a lock, joins or opens a flight, and waits for
//! it. The flight itself is in [`refresh::transaction`].

pub mod access_token;
pub mod after_flight;
mod explain;
mod flight;
pub mod logout;
pub mod new_credential;
pub mod refresh;
pub mod rejected_token;
pub mod status;
mod status_failures;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::credential::Generation;
use crate::credential::freshness::Demand;
use crate::engine::after_flight::{AfterFlight, AfterFlights};
pub use crate::engine::flight::FlightSummary;
use crate::engine::refresh::concurrency::ConcurrencyLimit;
use crate::engine::refresh::context::SeenBeforeLock;
use crate::engine::refresh::fed_programs::FedPrograms;
use crate::engine::refresh::followed_stores::FollowedStores;
use crate::events;
use crate::guard::{FlightGroup, FlightHandle, LeaderSlot, WaitResult};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind, Publication};
use crate::profile::{Profile, ProfileName};
use crate::provider::TokenEndpoint;
use crate::store::journal::Journal;
use crate::store::keyring::KeyringService;
use crate::store::{ProfileView, Store, StoreError};
use tokio::sync::broadcast;

/// The longest time that an admitted flight may take to finish, storing included.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(45);
/// How long a run that ends waits for what follows its flights.
const AFTER_RUN_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a daemon does that is stopped: its next start does what is left.
const AFTER_STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How many ends of flights a listener may be behind.
const REMEMBERED_ENDS: usize = 256;
/// How often a waiting caller checks whether it was told to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// After this time the person is told what is being waited for.
const EXPLAIN_AFTER: Duration = Duration::from_secs(3);
/// After joining this many flights that did not satisfy its demand, a caller gives up.
const MAX_JOINS: usize = 3;

/// Refreshes credentials. Cheap to clone; all clones share their flights.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<EngineInner>,
}

struct EngineInner {
    store: Arc<Store>,
    endpoint: Arc<dyn TokenEndpoint>,
    clock: Arc<dyn Clock>,
    flights: FlightGroup<Outcome>,
    stop: Arc<AtomicBool>,
    concurrency: ConcurrencyLimit,
    is_daemon: bool,
    /// The profiles for which keepalive itself started this process.
    caller_profiles: Vec<String>,
    followed_stores: OnceLock<Arc<dyn FollowedStores>>,
    fed_programs: OnceLock<Arc<dyn FedPrograms>>,
    flight_ends: broadcast::Sender<FlightSummary>,
    after_flights: AfterFlights,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({:?})", self.inner.store)
    }
}

/// What a demand may be met by without a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrustJournal {
    /// The journal.
    Yes,
    /// Nothing, because the credential that the journal names could not be opened.
    No,
}

/// A flight that was joined or opened.
struct Waiting {
    flight: FlightHandle<Outcome>,
    is_follower: bool,
    since: Moment,
}

/// How a demand was met or failed; with what was seen, where no flight has changed it since.
type Met = (Outcome, Option<ProfileView>);

impl Engine {
    /// `is_daemon`: a daemon, which keeps the sealing key and outlives its keyring.
    pub fn new(
        store: Arc<Store>,
        endpoint: Arc<dyn TokenEndpoint>,
        clock: Arc<dyn Clock>,
        is_resident: bool,
        within: Vec<String>,
    ) -> Self {
        let shared = EngineInner {
            store,
            endpoint,
            clock,
            flights: FlightGroup::default(),
            stop: Arc::new(AtomicBool::new(false)),
            concurrency: ConcurrencyLimit::default(),
            is_daemon: is_resident,
            caller_profiles: within,
            followed_stores: OnceLock::new(),
            fed_programs: OnceLock::new(),
            flight_ends: broadcast::Sender::new(REMEMBERED_ENDS),
            after_flights: AfterFlights::default(),
        };
        Self { inner: Arc::new(shared) }
    }

    /// Lets profiles with `follow = true` read the stores of other tools. Without this they send nothing.
    #[must_use]
    pub fn with_followed_stores(self, source: Arc<dyn FollowedStores>) -> Self {
        // The first value stays, so that it cannot change during a flight.
        let _first = self.inner.followed_stores.set(source);
        self
    }

    /// Lets a flight look whether a program that the profile feeds has the same refresh token.
    #[must_use]
    pub fn with_fed_programs(self, programs: Arc<dyn FedPrograms>) -> Self {
        let _first = self.inner.fed_programs.set(programs);
        self
    }

    /// Has this done after each flight, in this order.
    #[must_use]
    pub fn with_after_flight(self, works: Vec<Arc<dyn AfterFlight>>) -> Self {
        self.inner.after_flights.set(works);
        self
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    /// The ends of the flights of this process, from now on.
    pub fn flight_ends(&self) -> broadcast::Receiver<FlightSummary> {
        self.inner.flight_ends.subscribe()
    }

    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// The demand of `--force`: a generation newer than the current one.
    pub fn force_demand(&self, name: &ProfileName) -> Result<Demand, StoreError> {
        Ok(Self::newer_than(&self.inner.store.view(name)?))
    }

    /// The demand for something newer than what was seen.
    pub fn newer_than(view: &ProfileView) -> Demand {
        Demand::NewerThan(view.journal.as_ref().map_or(Generation::NONE, |r| r.generation))
    }

    /// Satisfies a demand: returns at once if it is met, else joins the flight of this profile or opens one, and shares
    /// its outcome. Blocks for at most `limit`; a flight goes on without its caller. `explain` is called once if it
    /// takes long.
    pub fn refresh(&self, profile: &Arc<Profile>, demand: Demand, limit: Duration, on_long_wait: &dyn Fn()) -> Outcome {
        self.refresh_until_met(profile, demand, TrustJournal::Yes, None, limit, on_long_wait).0
    }

    /// As [`Engine::refresh`], by what the caller has seen of the profile just now.
    pub fn refresh_seen(
        &self,
        profile: &Arc<Profile>,
        demand: Demand,
        view: ProfileView,
        limit: Duration,
        on_long_wait: &dyn Fn(),
    ) -> Outcome {
        self.refresh_until_met(profile, demand, TrustJournal::Yes, Some(view), limit, on_long_wait).0
    }

    fn refresh_until_met(
        &self,
        profile: &Arc<Profile>,
        demand: Demand,
        trust: TrustJournal,
        mut view: Option<ProfileView>,
        limit: Duration,
        on_long_wait: &dyn Fn(),
    ) -> Met {
        for _ in 0..MAX_JOINS {
            let waiting = match self.join_or_lead(profile, demand, trust, view.take()) {
                Ok(waiting) => waiting,
                Err(met) => return *met,
            };
            let Some(wait_result) = self.wait_in_slices(&waiting.flight, limit, on_long_wait) else {
                let message = "cancelled before anything was sent".into();
                return (self.deferred(profile, ErrorKind::Interrupted, message, None), None);
            };
            if let Some(outcome) = self.resolve_wait(profile, demand, &waiting, wait_result) {
                return (outcome, None);
            }
        }
        (self.gave_up(profile), None)
    }

    /// Waits in slices, so that a run told to stop can leave a flight that has done nothing yet (`None`).
    fn wait_in_slices(
        &self,
        flight: &FlightHandle<Outcome>,
        limit: Duration,
        on_long_wait: &dyn Fn(),
    ) -> Option<WaitResult<Outcome>> {
        let mut waited = Duration::ZERO;
        let mut is_explained = false;
        while waited < limit {
            let slice = POLL_INTERVAL.min(limit.saturating_sub(waited));
            match flight.wait(slice) {
                WaitResult::TimedOut => {}
                wait_result => return Some(wait_result),
            }
            if self.inner.stop.load(Ordering::SeqCst) && flight.is_queued() {
                return None;
            }
            waited += slice;
            if waited >= EXPLAIN_AFTER && !is_explained {
                on_long_wait();
                is_explained = true;
            }
        }
        Some(flight.wait(Duration::ZERO))
    }

    /// The async form of [`Engine::refresh`]. May be dropped at any await; the flight goes on.
    pub async fn refresh_async(&self, profile: &Arc<Profile>, demand: Demand) -> Outcome {
        self.refresh_until_met_async(profile, demand, TrustJournal::Yes).await.0
    }

    async fn refresh_until_met_async(&self, profile: &Arc<Profile>, demand: Demand, trust: TrustJournal) -> Met {
        for _ in 0..MAX_JOINS {
            let waiting = match self.join_or_lead(profile, demand, trust, None) {
                Ok(waiting) => waiting,
                Err(met) => return *met,
            };
            let wait_result = waiting.flight.wait_async().await;
            if let Some(outcome) = self.resolve_wait(profile, demand, &waiting, wait_result) {
                return (outcome, None);
            }
        }
        (self.gave_up(profile), None)
    }

    /// From now on nothing new is sent.
    pub fn stop(&self) {
        self.inner.stop.store(true, Ordering::SeqCst);
    }

    /// How many flights of this process have a place at their provider.
    pub fn flights_in_progress(&self) -> usize {
        self.inner.concurrency.in_use()
    }

    /// Stops, and waits for flights, [`DRAIN_TIMEOUT`] at most, and for what follows them. Returns those that did not finish.
    pub fn drain(&self) -> Vec<ProfileName> {
        self.drain_with(if self.inner.is_daemon { AFTER_STOP_TIMEOUT } else { AFTER_RUN_TIMEOUT })
    }

    /// As [`Engine::drain`], for a caller that waits for what follows the flights for at most `after`.
    pub fn drain_with(&self, after: Duration) -> Vec<ProfileName> {
        self.stop();
        let late = self.inner.flights.drain(DRAIN_TIMEOUT);
        let after_flights = &self.inner.after_flights;
        after_flights.wait(if self.inner.is_daemon { after } else { after + after_flights.longest() });
        late
    }

    fn join_or_lead(
        &self,
        profile: &Arc<Profile>,
        demand: Demand,
        trust: TrustJournal,
        view: Option<ProfileView>,
    ) -> Result<Waiting, Box<Met>> {
        let since = self.inner.clock.now();
        let is_nested = self.inner.caller_profiles.iter().any(|name| name == profile.name.as_str());
        let view = match view.map_or_else(|| self.inner.store.view(&profile.name), Ok) {
            Ok(view) => view,
            Err(_) if is_nested => return Err(Box::new((flight::nested_call(profile), None))),
            Err(e) => return Err(Box::new((with_names(e.outcome(), &self.inner.store, &profile.name), None))),
        };
        let trusted_journal = view.journal.as_ref().filter(|_| trust == TrustJournal::Yes);
        if let Some(journal) = trusted_journal.filter(|r| self.is_demand_met(profile, demand, r)) {
            explain::fresh(profile, demand, journal);
            let outcome = refresh::transaction::with_journal_fields(Outcome::new(OutcomeKind::Fresh), journal);
            return Err(Box::new((outcome, Some(view))));
        }
        if is_nested {
            return Err(Box::new((flight::nested_call(profile), Some(view))));
        }
        explain::due(profile, demand, trusted_journal, &since, || {
            status::status_of(&self.inner.store, &Ok(view.journal.clone()), Ok(profile), &since).state
        });
        let seen = SeenBeforeLock::of(&view);
        let (flight, leader_slot) = self.inner.flights.join_or_lead(&profile.name);
        let is_follower = leader_slot.is_none();
        events::flight(&profile.name, is_follower);
        if let Some(leader_slot) = leader_slot {
            self.spawn_leader(leader_slot, profile, demand, seen);
        }
        Ok(Waiting { flight, is_follower, since })
    }

    /// Whether the journal alone satisfies a demand, with nothing left to publish.
    fn is_demand_met(&self, profile: &Profile, demand: Demand, journal: &Journal) -> bool {
        let is_settled = journal.publication != Publication::PublishPending || !matches!(demand, Demand::Margin { .. });
        // What is stored is of no use without its key, which the journal cannot know.
        let has_key = !matches!(demand, Demand::Margin { .. }) || self.inner.store.keys().missing_file().is_none();
        is_settled && has_key && status::meets_demand(journal, demand, profile, &self.inner.clock.now())
    }

    /// Starts the flight on a thread of its own, so that it does not end with its caller.
    fn spawn_leader(
        &self,
        leader_slot: LeaderSlot<Outcome>,
        profile: &Arc<Profile>,
        demand: Demand,
        seen: SeenBeforeLock,
    ) {
        let shared = Arc::clone(&self.inner);
        let profile = Arc::clone(profile);
        let name = format!("refresh {}", profile.name);
        let (lead, led) = mpsc::channel();
        let fly = move || {
            // A thread that was had gets the leader slot.
            if let Ok(leader_slot) = led.recv() {
                shared.run_flight(leader_slot, profile, demand, seen);
            }
        };
        match std::thread::Builder::new().name(name).spawn(fly) {
            // If the thread is gone, the leader slot goes with the message: its drop tells the followers.
            Ok(_) => drop(lead.send(leader_slot)),
            Err(error) => leader_slot.complete(flight::no_thread(&error)),
        }
    }

    /// What the end of a flight means to this caller; `None`: join or lead again.
    fn resolve_wait(
        &self,
        profile: &Profile,
        demand: Demand,
        waiting: &Waiting,
        wait_result: WaitResult<Outcome>,
    ) -> Option<Outcome> {
        let ended = if let WaitResult::Outcome(outcome) = &wait_result { Some(outcome.kind) } else { None };
        events::flight_done(&profile.name, ended, self.inner.clock.now().time_since(&waiting.since));
        match wait_result {
            WaitResult::Outcome(outcome) if !waiting.is_follower => Some(outcome),
            // Followers share a success and an error of a request. A flight that sent nothing may have had a smaller
            // demand.
            WaitResult::Outcome(outcome) => match outcome.kind {
                OutcomeKind::Fresh | OutcomeKind::Refreshed => {
                    let journal = self.inner.store.peek(&profile.name).ok().flatten()?;
                    self.is_demand_met(profile, demand, &journal).then(|| outcome.as_follower())
                }
                OutcomeKind::Deferred
                | OutcomeKind::InDoubt
                | OutcomeKind::NeedsLogin
                | OutcomeKind::ConfigError
                | OutcomeKind::StoreUnavailable => Some(outcome.as_follower()),
            },
            WaitResult::Abandoned => None,
            WaitResult::TimedOut => Some(self.still_running(profile)),
        }
    }

    fn still_running(&self, profile: &Profile) -> Outcome {
        let message = format!("the refresh of {} is still in progress", profile.name);
        let holder =
            self.inner.store.lock_holder(&profile.name).filter(|holder| holder.pid != Some(std::process::id()));
        match holder {
            Some(holder) => {
                let message = format!("{message}: {holder} has the lock of the profile");
                self.deferred(profile, ErrorKind::Busy, message, Some(&holder.hint()))
            }
            None => self.deferred(profile, ErrorKind::Busy, message, Some("it continues; ask again, or wait longer")),
        }
    }

    /// The outcome of a caller that leaves without that of a flight.
    fn deferred(&self, profile: &Profile, kind: ErrorKind, message: String, hint: Option<&str>) -> Outcome {
        let failure = Failure { hint: hint.map(str::to_owned), ..Failure::new(kind, message) };
        self.with_journal_fields(profile, Outcome::new(OutcomeKind::Deferred).with_error(failure))
    }

    fn gave_up(&self, profile: &Profile) -> Outcome {
        let message = format!("other refreshes of {} finished but did not satisfy this request", profile.name);
        self.deferred(profile, ErrorKind::Busy, message, Some("retry"))
    }

    fn with_journal_fields(&self, profile: &Profile, outcome: Outcome) -> Outcome {
        let Ok(Some(journal)) = self.inner.store.peek(&profile.name) else { return outcome };
        refresh::transaction::with_journal_fields(outcome, &journal)
    }
}

/// An outcome of the store, which does not know for which profile it was asked.
pub(crate) fn with_names(outcome: Outcome, store: &Store, name: &ProfileName) -> Outcome {
    outcome.with_names(name.as_str(), store.keyring().map(KeyringService::service))
}
