//! The daemon's scheduler: it wakes, finds the profiles that are due, and asks the engine. It holds no tokens and no
//! locks.

pub mod plan;
mod rate_limit;
pub mod run_interval;
mod scheduled_profile;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};

use crate::clock::Moment;
use crate::engine::Engine;
use crate::engine::status;
use crate::events;
use crate::outcome::Outcome;
use crate::profile::{Profile, ProfileLookup, ProfileName};
use crate::scheduler::rate_limit::{Health, RateLimiter, STARTS_PER_SECOND, StartRequest};
use crate::scheduler::scheduled_profile::ScheduledProfile;
use crate::store::journal::Journal;
use crate::store::journal::block::Cause;
use crate::sys::network;
use plan::NextCheck;

/// The longest sleep. After a suspend or a set clock a longer one would be wrong, and changes by other runs and by the
/// user are noticed this often.
const MAX_SLEEP_MS: u64 = 2_000;
const MAX_SLEEP: Duration = Duration::from_millis(MAX_SLEEP_MS);

/// Keeps every profile with a credential fresh until its future is dropped. A profile without a credential is left
/// alone.
pub struct Scheduler {
    engine: Engine,
    profiles: ProfileLookup,
    /// Notified when the configuration has changed.
    pub config_changed: Arc<Notify>,
    /// When it looked last, in milliseconds of the boot clock: for those who watch over it.
    pub last_look: Arc<AtomicU64>,
    /// Told of each profile whose journal or configuration has changed.
    pub on_change: Option<ChangeListener>,
    /// When the profiles of the store are listed again, by the boot clock.
    next_sync_ms: u64,
    scheduled: BTreeMap<ProfileName, ScheduledProfile>,
    rate_limiters: BTreeMap<String, RateLimiter>,
    /// Providers that were already reported to have too many profiles.
    overload_warned: BTreeSet<String>,
    /// It was said how many profiles there are, and not changed by the configuration since.
    is_announced: bool,
    /// What [`network::state`] gave, while a profile waits for the network.
    network: Option<u64>,
    network_state: fn() -> u64,
    /// With the name of the provider that each is at.
    flights: JoinSet<FinishedRefresh>,
    /// The profile and the provider of each running refresh, because a task that panics cannot tell.
    in_flight: BTreeMap<Id, (ProfileName, String)>,
}

/// Whom to tell that something of a profile has changed.
pub type ChangeListener = Box<dyn Fn(&ProfileName) + Send>;

type FinishedRefresh = (ProfileName, String, Outcome);

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scheduler({} profiles)", self.scheduled.len())
    }
}

impl Scheduler {
    pub fn new(engine: Engine, profiles: ProfileLookup) -> Self {
        let last_look = Arc::new(AtomicU64::new(engine.clock().now().uptime_ms));
        Self {
            engine,
            profiles,
            config_changed: Arc::new(Notify::new()),
            last_look,
            on_change: None,
            next_sync_ms: 0,
            scheduled: BTreeMap::new(),
            rate_limiters: BTreeMap::new(),
            overload_warned: BTreeSet::new(),
            is_announced: false,
            network: None,
            network_state: network::state,
            flights: JoinSet::new(),
            in_flight: BTreeMap::new(),
        }
    }

    /// Runs until dropped. Dropping it starts nothing new and stops no flight: those belong to the engine.
    pub async fn run(mut self) -> Infallible {
        loop {
            let now = self.engine.clock().now();
            self.last_look.store(now.uptime_ms, Ordering::Relaxed);
            self.sync_profiles(&now);
            self.start_due(&now);
            let wait = self.next_wait(&now);
            let bell = Arc::clone(&self.config_changed);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = bell.notified() => self.replan_all(),
                Some(landed) = self.flights.join_next_with_id() => self.handle_finished(landed),
            }
        }
    }

    /// Adds new profiles, drops those that are gone, and replans those that had no date or whose journal was written by
    /// another run.
    fn sync_profiles(&mut self, now: &Moment) {
        if now.uptime_ms < self.next_sync_ms {
            return;
        }
        self.next_sync_ms = now.uptime_ms + MAX_SLEEP_MS;
        let names: BTreeSet<ProfileName> = match self.engine.store().list_profiles() {
            Ok(names) => names.into_iter().collect(),
            Err(error) => {
                tracing::error!(event = "store.unavailable", %error, "cannot list the profiles");
                return;
            }
        };
        self.scheduled.retain(|name, entry| names.contains(name) || entry.is_in_flight);
        for name in names {
            self.scheduled.entry(name).or_default();
        }
        let unplanned: Vec<_> = self
            .scheduled
            .iter()
            .filter(|(name, e)| !e.is_in_flight && (e.next_check.is_none() || self.has_external_change(name, e)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in unplanned {
            let before = self.scheduled.get_mut(&name).and_then(|entry| entry.next_check.take());
            self.replan(&name, now);
            if let (Some(before), Some(entry)) = (before, self.scheduled.get_mut(&name)) {
                entry.keep_earlier_check(before, now);
            }
        }
        self.end_pauses_if_network_changed(now);
        self.warn_if_overloaded();
        if !std::mem::replace(&mut self.is_announced, true) {
            self.announce(now);
        }
    }

    /// Says how many profiles there are and which comes first.
    fn announce(&self, now: &Moment) {
        let checks =
            self.scheduled.iter().filter_map(|(name, entry)| Some((name, entry.next_check.as_ref()?.wait(now))));
        events::daemon_watching(self.scheduled.len(), checks.min_by_key(|(_, wait)| *wait));
    }

    /// Whether another process has written this journal since it was read, and has released the lock. A doubt left by a
    /// run by hand may have to be settled within seconds, long before the next check (rule 19).
    fn has_external_change(&self, name: &ProfileName, entry: &ScheduledProfile) -> bool {
        let store = self.engine.store();
        store.journal_stamp(name) != entry.journal_stamp && !store.is_locked(name)
    }

    /// Rule 6: a profile that reached no server is tried again when the network has changed.
    fn end_pauses_if_network_changed(&mut self, now: &Moment) {
        let mut waiting: Vec<_> = self
            .scheduled
            .values_mut()
            .filter(|e| e.is_unreachable && !e.is_in_flight && e.next_check.is_some())
            .collect();
        let state = (!waiting.is_empty()).then(|| (self.network_state)());
        let before = std::mem::replace(&mut self.network, state);
        if before.is_some() && state.is_some() && before != state {
            tracing::info!(
                event = "network.changed",
                profiles = waiting.len(),
                "the network has changed; trying again"
            );
            waiting.iter_mut().for_each(|entry| entry.next_check = Some(NextCheck::after(now, Duration::ZERO)));
        }
    }

    /// Warns once per provider whose profiles cannot all be refreshed in time (rule 34).
    fn warn_if_overloaded(&mut self) {
        let mut heads: BTreeMap<&str, (usize, Duration)> = BTreeMap::new();
        for profile in self.scheduled.values().filter_map(|e| e.profile.as_ref()) {
            let margin = profile.margin.of(profile.provider.default_lifetime);
            let (count, least) = heads.entry(&profile.provider.name).or_insert((0, margin));
            (*count, *least) = (*count + 1, margin.min(*least));
        }
        for (provider, (count, margin)) in heads {
            let warning = plan::overload_warning(provider, count, STARTS_PER_SECOND, margin);
            if let Some(warning) = warning.filter(|_| self.overload_warned.insert(provider.to_owned())) {
                tracing::warn!(event = "schedule.warning", provider, "{warning}");
            }
        }
    }

    fn replan_all(&mut self) {
        self.overload_warned.clear();
        self.is_announced = false;
        self.next_sync_ms = 0;
        for entry in self.scheduled.values_mut() {
            entry.next_check = None;
            entry.is_schedule_warned = false;
            entry.is_reconfigured = true;
        }
    }

    /// Plans a profile's next check by its journal.
    fn replan(&mut self, name: &ProfileName, now: &Moment) {
        let Some(entry) = self.scheduled.get_mut(name) else {
            return;
        };
        let profile = (self.profiles)(name);
        // Asked before, so that what is written meanwhile is read again.
        let stamp = self.engine.store().journal_stamp(name);
        let is_changed = std::mem::replace(&mut entry.journal_stamp, stamp) != stamp || entry.is_reconfigured;
        if let Some(tell) = self.on_change.as_ref().filter(|_| is_changed) {
            tell(name);
        }
        let journal = self.engine.store().peek(name);
        let status = status::status_of(self.engine.store(), &journal, profile.as_deref(), now);
        entry.report_transition(name, &status);
        let Ok(profile) = profile else {
            entry.next_check = None;
            return;
        };
        entry.profile = Some(Arc::clone(&profile));
        let Ok(journal) = journal else {
            entry.back_off(now);
            return;
        };
        entry.update_from_journal(journal.as_ref(), &profile.provider.policy, now);
        // While another run waits for its response nothing is planned, so the next sync looks again.
        entry.next_check = if status.is_in_flight { None } else { plan::next_check(&profile, &status, now) };
        let is_held = |journal: &Journal| journal.block(Cause::Client).is_some() || journal.pause.is_some();
        if std::mem::take(&mut entry.is_reconfigured) && journal.as_ref().is_some_and(is_held) {
            // Only a flight can tell whether it is another client now; for the same one it sends nothing (rule 24).
            entry.next_check = Some(NextCheck::after(now, Duration::ZERO));
        }
        let reason = plan::check_reason(&status, entry.next_check.as_ref());
        entry.report_next_check(name, Some(status.state), reason, now);
        let validity = journal.and_then(|r| r.validity);
        if let (false, Some(life)) = (entry.is_schedule_warned, validity.and_then(|v| v.full_lifetime()))
            && let Some(warning) = plan::sparse_schedule_warning(&profile, life, now.wall)
        {
            tracing::warn!(event = "schedule.warning", profile = %name, "{warning}");
            entry.is_schedule_warned = true;
        }
    }

    /// The profiles that are due, the most pressing first. At a provider that is down the first one probes: it is the
    /// one that failed longest ago, so that a few profiles with failures of their own do not keep the others from
    /// probing.
    fn due(&self, now: &Moment) -> Vec<(ProfileName, Arc<Profile>)> {
        let is_due = |e: &ScheduledProfile| !e.is_in_flight && e.next_check.as_ref().is_some_and(|l| l.is_due(now));
        let mut due: Vec<_> = self
            .scheduled
            .iter()
            .filter(|(_, e)| is_due(e))
            .filter_map(|(name, e)| Some((name, e, Arc::clone(e.profile.as_ref()?))))
            .collect();
        due.sort_by_cached_key(|(_, e, profile)| {
            let is_down = self.rate_limiters.get(&profile.provider.name).is_some_and(RateLimiter::is_down);
            let failed_ms = if is_down { e.last_failure_ms } else { 0 };
            (!e.is_in_grace(now), failed_ms, e.time_left(now).unwrap_or_default())
        });
        due.into_iter().map(|(name, _, profile)| (name.clone(), profile)).collect()
    }

    fn start_due(&mut self, now: &Moment) {
        for (name, profile) in self.due(now) {
            let provider = &profile.provider;
            let turnstile = self.rate_limiters.entry(provider.name.clone()).or_insert_with(|| RateLimiter::new(now));
            let Some(entry) = self.scheduled.get_mut(&name) else {
                continue;
            };
            let bound = provider.policy.connect_timeout + provider.policy.timeout;
            if let Err(wait) = turnstile
                .try_start(StartRequest { name: &name, max_delay: entry.max_delay(now), probe_timeout: bound }, now)
            {
                entry.report_held(&name, &provider.name, turnstile.is_down(), wait);
                // Looked at again sooner, so that all who wait are there when one is let through.
                entry.next_check = Some(NextCheck::after(now, wait.min(MAX_SLEEP)));
                continue;
            }
            entry.is_in_flight = true;
            entry.is_held = false;
            let demand = plan::demand(&profile, now);
            let engine = self.engine.clone();
            let whose = (name.clone(), provider.name.clone());
            let task = self.flights.spawn(async move {
                let outcome = engine.refresh_async(&profile, demand).await;
                (name, profile.provider.name.clone(), outcome)
            });
            self.in_flight.insert(task.id(), whose);
        }
    }

    /// A task that panicked leaves its profile to be checked again.
    fn handle_panic(&mut self, error: &JoinError) {
        let Some((name, provider)) = self.in_flight.remove(&error.id()) else {
            return;
        };
        tracing::error!(event = "internal", profile = %name, %error, "a refresh task panicked");
        let now = self.engine.clock().now();
        if let Some(turnstile) = self.rate_limiters.get_mut(&provider) {
            turnstile.finish(&name, Health::Unknown, &now);
        }
        if let Some(entry) = self.scheduled.get_mut(&name) {
            entry.is_in_flight = false;
            entry.back_off(&now);
        }
    }

    fn handle_finished(&mut self, landed: Result<(Id, FinishedRefresh), JoinError>) {
        let (name, provider, outcome) = match landed {
            Ok((id, landed)) => {
                self.in_flight.remove(&id);
                landed
            }
            Err(error) => return self.handle_panic(&error),
        };
        let now = self.engine.clock().now();
        for warning in &outcome.warnings {
            tracing::warn!(event = "refresh.warning", profile = %name, "{warning}");
        }
        if let Some(entry) = self.scheduled.get_mut(&name) {
            entry.report_outcome(&name, &provider, &outcome);
        }
        let sequence = |entries: &BTreeMap<_, ScheduledProfile>| entries.get(&name).map(|entry| entry.sequence);
        let before = sequence(&self.scheduled);
        if let Some(entry) = self.scheduled.get_mut(&name) {
            entry.is_in_flight = false;
        }
        self.replan(&name, &now);
        if let Some(turnstile) = self.rate_limiters.get_mut(&provider) {
            let has_asked = sequence(&self.scheduled) > before;
            turnstile.finish(&name, Health::of(&outcome, has_asked), &now);
        }
        if let Some(entry) = self.scheduled.get_mut(&name) {
            entry.reschedule(&outcome, &now);
            entry.report_next_check(&name, None, "the last attempt did not succeed", &now);
        }
    }

    fn next_wait(&self, now: &Moment) -> Duration {
        let looks = self.scheduled.values().filter(|e| !e.is_in_flight).filter_map(|e| e.next_check.as_ref());
        looks.map(|look| look.wait(now)).min().unwrap_or(MAX_SLEEP).min(MAX_SLEEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::guard::LockedCredential;
    use crate::outcome::{ErrorKind, Failure};
    use crate::profile::{KeySource, Provider, StoreKind, StoreSettings};
    use crate::provider::{BeforeSend, ExchangeResult, PrepareError, PreparedProvider, TokenEndpoint};
    use crate::store::Store;
    use crate::store::keyring::memory::MemoryKeyring;

    /// No server.
    struct Nowhere;

    impl TokenEndpoint for Nowhere {
        fn prepare(&self, _: &Arc<Provider>, _: &str) -> Result<PreparedProvider, PrepareError> {
            Err(PrepareError::Config(Failure::new(ErrorKind::Io, "nowhere")))
        }

        fn exchange<'l>(&self, _: &PreparedProvider, _: LockedCredential<'l>, _: BeforeSend) -> ExchangeResult<'l> {
            unreachable!("nothing is prepared")
        }
    }

    fn scheduler(dir: &std::path::Path) -> Scheduler {
        let kind = StoreKind::File { key: KeySource::File(dir.join("key")) };
        let settings = StoreSettings { kind, path: None, allow_network_filesystem: true };
        let store = Store::new(&settings, dir, None, || Box::new(MemoryKeyring::default()));
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_790_000_000)));
        let engine = Engine::new(Arc::new(store), Arc::new(Nowhere), clock, true, Vec::new());
        Scheduler::new(engine, Arc::new(|_| Err(Failure::new(ErrorKind::Io, "no profile"))))
    }

    fn now(scheduler: &Scheduler) -> Moment {
        scheduler.engine.clock().now()
    }

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[tokio::test]
    async fn profile_is_checked_again_after_its_task_panics() {
        let dir = tempfile::tempdir().unwrap();
        let mut scheduler = scheduler(dir.path());
        let name: ProfileName = "demo".parse().unwrap();
        scheduler
            .scheduled
            .insert(name.clone(), ScheduledProfile { is_in_flight: true, ..ScheduledProfile::default() });
        let task = scheduler.flights.spawn(async { panic!("as if by a bug") });
        scheduler.in_flight.insert(task.id(), (name.clone(), "acme".into()));
        let landed = scheduler.flights.join_next_with_id().await.unwrap();
        scheduler.handle_finished(landed);
        let now = now(&scheduler);
        let entry = &scheduler.scheduled[&name];
        assert!(!entry.is_in_flight && scheduler.in_flight.is_empty());
        assert_eq!(entry.next_check.as_ref().map(|look| look.wait(&now)), Some(plan::backoff_delay(1)));
    }

    #[tokio::test]
    async fn probe_whose_task_panicked_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut scheduler = scheduler(dir.path());
        let now = now(&scheduler);
        let name: ProfileName = "demo".parse().unwrap();
        let caller = StartRequest { name: &name, max_delay: None, probe_timeout: S(40) };
        let before = Moment { uptime_ms: now.uptime_ms - 5_000, ..now.clone() };
        let mut turnstile = RateLimiter::new(&before);
        (0..5).for_each(|_| turnstile.finish(&name, Health::Down, &before));
        assert_eq!(turnstile.try_start(caller, &now), Ok(()));
        assert_eq!(turnstile.try_start(caller, &now), Err(S(40)));
        scheduler.rate_limiters.insert("acme".into(), turnstile);
        let task = scheduler.flights.spawn(async { panic!("as if by a bug") });
        scheduler.in_flight.insert(task.id(), (name.clone(), "acme".into()));
        let landed = scheduler.flights.join_next_with_id().await.unwrap();
        scheduler.handle_finished(landed);
        assert_eq!(scheduler.rate_limiters.get_mut("acme").unwrap().try_start(caller, &now), Ok(()));
    }

    /// The names that are due, in the order in which they are offered the turnstile of one provider.
    fn order(entries: Vec<(&str, ScheduledProfile)>, is_down: bool, now: &Moment) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let mut scheduler = scheduler(dir.path());
        let mut turnstile = RateLimiter::new(now);
        if is_down {
            (0..5).for_each(|_| turnstile.finish(&"a".parse().unwrap(), Health::Down, now));
        }
        scheduler.rate_limiters.insert("acme".into(), turnstile);
        for (name, mut entry) in entries {
            let name: ProfileName = name.parse().unwrap();
            entry.profile = Some(Arc::new(Profile {
                name: name.clone(),
                provider: Arc::new(Provider::named("acme")),
                margin: crate::credential::freshness::Margin::Fixed(S(60)),
                schedule: None,
                follow: false,
                consumers: crate::profile::ConsumerSettings::default(),
                mirrors: Vec::new(),
                hooks: crate::profile::HookSettings::default(),
            }));
            scheduler.scheduled.insert(name, entry);
        }
        scheduler.due(now).into_iter().map(|(name, _)| name.to_string()).collect()
    }

    /// Rule 33.
    #[test]
    fn failing_profiles_are_probed_after_healthy_ones() {
        let now = ManualClock::new(Timestamp::from_secs(1_790_000_000)).now();
        let end = |left| Some(NextCheck::after(&now, S(left)));
        let entries = || {
            vec![
                ("a", ScheduledProfile { last_failure_ms: 9, ..ScheduledProfile::planned(&now, 0) }),
                ("b", ScheduledProfile { last_failure_ms: 3, ..ScheduledProfile::planned(&now, 0) }),
                ("flying", ScheduledProfile { is_in_flight: true, ..ScheduledProfile::planned(&now, 0) }),
                (
                    "grace",
                    ScheduledProfile {
                        last_failure_ms: 12,
                        grace_end: end(20),
                        access_expiry: end(600),
                        ..ScheduledProfile::planned(&now, 0)
                    },
                ),
                ("later", ScheduledProfile { next_check: end(1), ..ScheduledProfile::planned(&now, 0) }),
                ("y", ScheduledProfile { access_expiry: end(300), ..ScheduledProfile::planned(&now, 0) }),
                ("z", ScheduledProfile { access_expiry: end(100), ..ScheduledProfile::planned(&now, 0) }),
            ]
        };
        assert_eq!(order(entries(), true, &now), ["grace", "z", "y", "b", "a"], "who failed last comes last");
        assert_eq!(order(entries(), false, &now), ["grace", "a", "b", "z", "y"], "whose token has ended comes first");
    }

    /// Rule 6.
    #[test]
    fn network_change_ends_the_wait_for_a_server() {
        use std::sync::atomic::{AtomicU64, Ordering};
        static STATE: AtomicU64 = AtomicU64::new(1);
        let dir = tempfile::tempdir().unwrap();
        let mut scheduler = scheduler(dir.path());
        scheduler.network_state = || STATE.load(Ordering::SeqCst);
        let now = now(&scheduler);
        for (name, is_unreachable) in [("away", true), ("throttled", false)] {
            let next_check = Some(NextCheck::after(&now, S(50)));
            let entry = ScheduledProfile { next_check, is_unreachable, ..ScheduledProfile::default() };
            scheduler.scheduled.insert(name.parse().unwrap(), entry);
        }
        let mut waits = || {
            scheduler.end_pauses_if_network_changed(&now);
            let wait = |e: &ScheduledProfile| e.next_check.as_ref().map(|look| look.wait(&now).as_secs());
            scheduler.scheduled.values().map(wait).collect::<Vec<_>>()
        };
        assert_eq!(waits(), [Some(50), Some(50)]);
        assert_eq!(waits(), [Some(50), Some(50)], "the network is as it was");
        STATE.store(2, Ordering::SeqCst);
        assert_eq!(waits(), [Some(0), Some(50)]);
    }
}
