//! The daemon's clockwork: wake, see who is due, ask the engine; it holds no tokens and no locks.

pub mod cadence;
pub mod plan;
mod turnstile;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};

use crate::clock::Moment;
use crate::engine::Engine;
use crate::engine::standing::{self, Standing, Terms};
use crate::outcome::{Outcome, OutcomeKind, State};
use crate::profile::{Profile, ProfileName, Profiles};
use plan::Look;
use turnstile::{RATE, Turnstile};

/// A sleep never lasts longer: after a suspend or a set clock a long one lies, and what other runs and the user changed
/// is looked at this often.
const SLICE_MS: u64 = 2_000;
const SLICE: Duration = Duration::from_millis(SLICE_MS);

/// Looks after every profile with a credential until its future is dropped. What is only configured has nothing to be
/// kept alive yet.
pub struct Scheduler {
    engine: Engine,
    profiles: Profiles,
    /// Rung when the configuration has changed.
    pub bell: Arc<Notify>,
    /// When the store is looked through again, by the boot clock.
    next_roll_ms: u64,
    entries: BTreeMap<ProfileName, Entry>,
    turnstiles: BTreeMap<String, Turnstile>,
    /// Providers of which it was said that they have too many profiles.
    crowded: BTreeSet<String>,
    /// With the name of the provider that each is at.
    flights: JoinSet<Landed>,
    /// Whose they are: one that dies cannot tell.
    in_the_air: BTreeMap<Id, ProfileName>,
}

type Landed = (ProfileName, String, Outcome);

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scheduler({} profiles)", self.entries.len())
    }
}

struct Entry {
    /// As configured when the look was planned; `None` while the configuration knows no such profile.
    profile: Option<Arc<Profile>>,
    /// `None`: nothing to do until somebody changes something.
    look: Option<Look>,
    state: Option<State>,
    is_flying: bool,
    /// Outcomes in a row that the journal knows nothing of.
    failures: u32,
    is_warned: bool,
}

impl Scheduler {
    pub fn new(engine: Engine, profiles: Profiles) -> Self {
        Self {
            engine,
            profiles,
            bell: Arc::new(Notify::new()),
            next_roll_ms: 0,
            entries: BTreeMap::new(),
            turnstiles: BTreeMap::new(),
            crowded: BTreeSet::new(),
            flights: JoinSet::new(),
            in_the_air: BTreeMap::new(),
        }
    }

    /// Runs until dropped. Dropping it starts nothing new and stops no flight: those belong to the engine.
    pub async fn run(mut self) {
        loop {
            let now = self.engine.clock().now();
            self.call_the_roll(&now);
            self.start_due(&now);
            let wait = self.next_wait(&now);
            let bell = Arc::clone(&self.bell);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = bell.notified() => self.replan_all(),
                Some(landed) = self.flights.join_next_with_id() => self.land(landed),
            }
        }
    }

    /// Takes up what came into the store, lets go what went, and replans those that slept without a date.
    fn call_the_roll(&mut self, now: &Moment) {
        if now.uptime_ms < self.next_roll_ms {
            return;
        }
        self.next_roll_ms = now.uptime_ms + SLICE_MS;
        let names: BTreeSet<ProfileName> = match self.engine.store().profiles() {
            Ok(names) => names.into_iter().collect(),
            Err(error) => {
                tracing::error!(%error, "cannot list the profiles");
                return;
            }
        };
        self.entries.retain(|name, entry| names.contains(name) || entry.is_flying);
        for name in names {
            self.entries.entry(name).or_insert_with(Entry::new);
        }
        let asleep: Vec<_> =
            self.entries.iter().filter(|(_, e)| e.look.is_none() && !e.is_flying).map(|(n, _)| n.clone()).collect();
        for name in asleep {
            self.replan(&name, now);
        }
        self.count_heads();
    }

    /// Says once of a provider that its profiles cannot all be refreshed in time (rule 34).
    fn count_heads(&mut self) {
        let mut heads: BTreeMap<&str, (usize, Duration)> = BTreeMap::new();
        for profile in self.entries.values().filter_map(|e| e.profile.as_ref()) {
            let margin = profile.margin.of(profile.provider.default_lifetime);
            let (count, least) = heads.entry(&profile.provider.name).or_insert((0, margin));
            (*count, *least) = (*count + 1, margin.min(*least));
        }
        for (provider, (count, margin)) in heads {
            let warning = plan::crowded(provider, count, RATE, margin);
            if let Some(warning) = warning.filter(|_| self.crowded.insert(provider.to_owned())) {
                tracing::warn!("{warning}");
            }
        }
    }

    fn replan_all(&mut self) {
        self.crowded.clear();
        self.next_roll_ms = 0;
        for entry in self.entries.values_mut() {
            entry.look = None;
            entry.is_warned = false;
        }
    }

    /// Plans a profile's next look by its journal.
    fn replan(&mut self, name: &ProfileName, now: &Moment) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        let profile = match (self.profiles)(name) {
            Ok(profile) => profile,
            Err(failure) => {
                entry.look = None;
                entry.tell(name, &Standing { state: State::ConfigError, refresh_at: None, error: Some(failure) });
                return;
            }
        };
        entry.profile = Some(Arc::clone(&profile));
        let record = match self.engine.store().peek(name) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(profile = %name, %error, "cannot read the journal");
                entry.failures += 1;
                entry.look = Some(Look::after(now, plan::pause(entry.failures)));
                return;
            }
        };
        let validity = record.as_ref().and_then(|r| r.validity.clone());
        let terms = Terms {
            policy: &profile.provider.policy,
            margin: profile.margin,
            early: standing::jitter(name.as_str(), profile.margin, validity.as_ref()),
            is_followed: profile.follow,
        };
        let standing = standing::standing(record.as_ref(), terms, now);
        entry.look = plan::next_look(&profile, &standing, now);
        entry.tell(name, &standing);
        if let (false, Some(life)) = (entry.is_warned, validity.and_then(|v| v.span()))
            && let Some(warning) = plan::infeasible(&profile, life, now.wall)
        {
            tracing::warn!(profile = %name, "{warning}");
            entry.is_warned = true;
        }
    }

    fn start_due(&mut self, now: &Moment) {
        let due: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, e)| !e.is_flying && e.look.as_ref().is_some_and(|l| l.is_due(now)))
            .filter_map(|(name, e)| Some((name.clone(), e.profile.clone()?)))
            .collect();
        for (name, profile) in due {
            let turnstile = self.turnstiles.entry(profile.provider.name.clone()).or_insert_with(|| Turnstile::new(now));
            let Some(entry) = self.entries.get_mut(&name) else {
                continue;
            };
            if let Err(wait) = turnstile.pass(now) {
                entry.look = Some(Look::after(now, wait));
                continue;
            }
            entry.is_flying = true;
            let demand = plan::demand(&profile, now);
            let engine = self.engine.clone();
            let whose = name.clone();
            let task = self.flights.spawn(async move {
                let outcome = engine.refresh_async(&profile, demand).await;
                (name, profile.provider.name.clone(), outcome)
            });
            self.in_the_air.insert(task.id(), whose);
        }
    }

    /// A task that died leaves its profile to be looked at again.
    fn crash(&mut self, error: &JoinError) {
        let name = self.in_the_air.remove(&error.id());
        let entry = name.as_ref().and_then(|name| self.entries.get_mut(name));
        tracing::error!(profile = name.map(|name| name.to_string()), %error, "a refresh task died");
        if let Some(entry) = entry {
            entry.is_flying = false;
            entry.failures += 1;
            entry.look = Some(Look::after(&self.engine.clock().now(), plan::pause(entry.failures)));
        }
    }

    fn land(&mut self, landed: Result<(Id, Landed), JoinError>) {
        let (name, provider, outcome) = match landed {
            Ok((id, landed)) => {
                self.in_the_air.remove(&id);
                landed
            }
            Err(error) => return self.crash(&error),
        };
        let now = self.engine.clock().now();
        for warning in &outcome.warnings {
            tracing::warn!(profile = %name, "{warning}");
        }
        log(&name, &outcome);
        if let Some(entry) = self.entries.get_mut(&name) {
            entry.is_flying = false;
        }
        if let Some(turnstile) = self.turnstiles.get_mut(&provider) {
            turnstile.land(&outcome, &now);
        }
        self.replan(&name, &now);
        let Some(entry) = self.entries.get_mut(&name) else {
            return;
        };
        let is_pending = outcome.publication == crate::outcome::Publication::PublishPending;
        match outcome.kind {
            OutcomeKind::Refreshed | OutcomeKind::Fresh if !is_pending => entry.failures = 0,
            _ => {
                // The journal may plan this for now; it did not work now, so leave it alone for a moment.
                entry.failures += 1;
                let pause = Look::after(&now, plan::pause(entry.failures));
                let is_sooner = |look: &Look| look.wait(&now) < pause.wait(&now);
                let is_later_needed = is_pending || entry.look.as_ref().is_some_and(is_sooner);
                if is_later_needed {
                    entry.look = Some(pause);
                }
            }
        }
    }

    fn next_wait(&self, now: &Moment) -> Duration {
        let looks = self.entries.values().filter(|e| !e.is_flying).filter_map(|e| e.look.as_ref());
        looks.map(|look| look.wait(now)).min().unwrap_or(SLICE).min(SLICE)
    }
}

impl Entry {
    fn new() -> Self {
        Self { profile: None, look: None, state: None, is_flying: false, failures: 0, is_warned: false }
    }

    /// Says it once when a profile comes to need a person, and once when it no longer does.
    fn tell(&mut self, name: &ProfileName, standing: &Standing) {
        let needs_person = |s: State| matches!(s, State::NeedsLogin | State::ConfigError | State::InDoubt);
        let was = self.state.is_some_and(needs_person);
        let message = standing.error.as_ref().map_or("", |e| e.message.as_str());
        let kind = standing.error.as_ref().map(|e| e.kind.as_ref());
        let hint = standing.error.as_ref().and_then(|e| e.hint.as_deref());
        if needs_person(standing.state) && self.state != Some(standing.state) {
            tracing::error!(profile = %name, state = %standing.state, kind, hint, "needs attention: {message}");
        } else if was && !needs_person(standing.state) {
            tracing::info!(profile = %name, state = %standing.state, "is well again");
        }
        self.state = Some(standing.state);
    }
}

fn log(name: &ProfileName, outcome: &Outcome) {
    let error = outcome.error.as_ref().map_or("", |e| e.message.as_str());
    let kind = outcome.error.as_ref().map(|e| e.kind.as_ref());
    let retry_at = outcome.retry_at.map(tracing::field::display);
    match outcome.kind {
        // The transaction has told it already.
        OutcomeKind::Fresh | OutcomeKind::Refreshed => {}
        OutcomeKind::NeedsLogin if outcome.error.as_ref().is_some_and(|e| e.kind == "no_credential") => {
            tracing::info!(profile = %name, "is signed out");
        }
        OutcomeKind::Deferred => tracing::warn!(profile = %name, kind, retry_at, "deferred: {error}"),
        OutcomeKind::InDoubt | OutcomeKind::NeedsLogin | OutcomeKind::ConfigError | OutcomeKind::StoreUnavailable => {
            tracing::error!(profile = %name, outcome = %outcome.kind, kind, retry_at, "{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};
    use crate::guard::Held;
    use crate::outcome::Failure;
    use crate::profile::{KeySource, Provider, StoreKind, StoreSettings};
    use crate::provider::{Exchange, Gate, PrepareError, Prepared, TokenEndpoint};
    use crate::store::Store;
    use crate::store::keyring::memory::MemoryKeyring;

    /// No server.
    struct Nowhere;

    impl TokenEndpoint for Nowhere {
        fn prepare(&self, _: &Arc<Provider>, _: &str) -> Result<Prepared, PrepareError> {
            Err(PrepareError::Config(Failure::new("test", "nowhere")))
        }

        fn exchange<'l>(&self, _: &Prepared, _: Held<'l>, _: Gate) -> Exchange<'l> {
            unreachable!("nothing is prepared")
        }
    }

    fn scheduler(dir: &std::path::Path) -> Scheduler {
        let kind = StoreKind::File { key: KeySource::File(dir.join("key")) };
        let settings = StoreSettings { kind, path: None, allow_network_filesystem: true };
        let store = Store::new(&settings, dir, None, || Box::new(MemoryKeyring::default()));
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_790_000_000)));
        let engine = Engine::new(Arc::new(store), Arc::new(Nowhere), clock, true, Vec::new());
        Scheduler::new(engine, Arc::new(|_| Err(Failure::new("test", "no profile"))))
    }

    #[tokio::test]
    async fn a_profile_whose_task_died_is_looked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut scheduler = scheduler(dir.path());
        let name: ProfileName = "demo".parse().unwrap();
        scheduler.entries.insert(name.clone(), Entry { is_flying: true, ..Entry::new() });
        let task = scheduler.flights.spawn(async { panic!("as if by a bug") });
        scheduler.in_the_air.insert(task.id(), name.clone());
        let landed = scheduler.flights.join_next_with_id().await.unwrap();
        scheduler.land(landed);
        let now = scheduler.engine.clock().now();
        let entry = &scheduler.entries[&name];
        assert!(!entry.is_flying && scheduler.in_the_air.is_empty());
        assert_eq!(entry.look.as_ref().map(|look| look.wait(&now)), Some(plan::pause(1)));
    }
}
