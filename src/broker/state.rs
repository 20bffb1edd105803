//! What the requests of the API share: the engine, the profiles, the last tokens, and the places of connections and polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::cache::{Configuration, TokenCache};
use super::handle_memory::HandleMemory;
use super::limits::ConnectionTable;
use super::metrics::Metrics;
use super::query::{Condition, TokenQuery};
use super::wire::DaemonPlaces;
use crate::clock::Moment;
use crate::credential::Generation;
use crate::engine::Engine;
use crate::engine::access_token::TokenResult;
use crate::engine::rejected_token::{RejectionReport, UnknownGeneration};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::{Profile, ProfileName};
use crate::sys::file_watch::FileVersion;

const MAX_CONNECTIONS: usize = 256;
/// How many of them may be on TCP.
const MAX_TCP_CONNECTIONS: usize = 128;
/// How many requests may wait for a newer generation.
const MAX_POLLS: usize = 64;
/// How often a waiting request looks for a generation that another process brought.
const FOREIGN_CHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// How much longer than its limit a request may take: for the files, and for a thread.
const SLACK: Duration = Duration::from_secs(5);
/// A scheduler that has not looked for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// The profiles, as they are configured at this moment.
pub trait ProfileDirectory: Send + Sync {
    /// A profile. `Err`: how a request for it ends, with the kind `unknown_profile` if there is none.
    fn profile(&self, name: &ProfileName) -> Result<Arc<Profile>, Outcome>;
    /// The configuration that is in force. It is another one after it was read again.
    fn configuration(&self) -> Configuration;
    /// A profile as `status --json` shows it.
    fn status(&self, name: &ProfileName) -> Value;
    /// How the TCP listeners stand, as `status --json` shows them.
    fn listeners(&self) -> Value;
    /// Whether the metrics have series for each profile; `None`: unless there are very many.
    fn metrics_per_profile(&self) -> Option<bool>;
    /// All of them.
    fn all_statuses(&self) -> Result<Vec<Value>, Failure>;
}

/// What the API needs to serve requests. All clones share it.
#[derive(Clone)]
pub struct Broker {
    pub(super) engine: Engine,
    pub(super) directory: Arc<dyn ProfileDirectory>,
    pub(super) places: Arc<DaemonPlaces>,
    /// When the scheduler looked last, in milliseconds of the boot clock.
    scheduler_look: Arc<AtomicU64>,
    started: Moment,
    polls: Arc<Semaphore>,
    pub(super) connections: ConnectionTable,
    pub(super) metrics: Arc<Metrics>,
    cache: Arc<TokenCache>,
    pub(super) given: Arc<HandleMemory>,
}

/// The answer to a request for a token.
pub(super) enum TokenAnswer {
    /// A token, or why there is none.
    Obtained(Box<TokenResult>),
    /// The wait for a newer generation is over.
    NothingNewer,
    UnknownGeneration(Generation),
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Broker({:?})", self.engine)
    }
}

impl Broker {
    pub fn new(
        engine: Engine,
        directory: Arc<dyn ProfileDirectory>,
        places: DaemonPlaces,
        scheduler_look: Arc<AtomicU64>,
    ) -> Self {
        let started = engine.clock().now();
        Self {
            engine,
            directory,
            places: Arc::new(places),
            scheduler_look,
            started,
            polls: Arc::new(Semaphore::new(MAX_POLLS)),
            connections: ConnectionTable::new(MAX_CONNECTIONS, MAX_TCP_CONNECTIONS),
            metrics: Arc::new(Metrics::new()),
            cache: Arc::new(TokenCache::new()),
            given: Arc::default(),
        }
    }

    /// A token as the query asks for it.
    pub(super) async fn token(&self, name: &ProfileName, query: TokenQuery) -> Result<TokenAnswer, Outcome> {
        match query.condition {
            Condition::Valid => self.valid_token(name, query).await,
            Condition::NewerThan { seen, wait } => {
                let found = self.newer_token(name, query.min_valid, seen, wait).await?;
                Ok(found.map_or(TokenAnswer::NothingNewer, TokenAnswer::from))
            }
            Condition::Rejected(generation) => {
                self.token_after_report(name, RejectionReport::proven(generation), query.min_valid, query.timeout).await
            }
        }
    }

    async fn valid_token(&self, name: &ProfileName, query: TokenQuery) -> Result<TokenAnswer, Outcome> {
        let journal = self.engine.store().layout().profile_folder(name).journal();
        let (configuration, now) = (self.directory.configuration(), self.engine.clock().now());
        let cached = self.cache.get(name, journal.clone(), query.min_valid, &configuration, &now).await;
        if let Some(cached) = cached {
            return Ok(cached.into());
        }
        let (limit, name, runtime) = (query.timeout, name.clone(), Handle::current());
        let obtain = move |broker: &Self| {
            let version = FileVersion::of(&journal);
            let profile = broker.directory.profile(&name)?;
            let obtained = broker.engine.access_token_async(&profile, query.min_valid, query.timeout);
            let obtained = runtime.block_on(obtained);
            broker.cache.put(&name, version, configuration, &obtained, now);
            Ok(obtained.into())
        };
        self.on_thread_within(limit, obtain).await
    }

    /// A token for a caller who says that an API has rejected the one that it has.
    pub(super) async fn token_after_report(
        &self,
        name: &ProfileName,
        report: RejectionReport,
        min_valid: Duration,
        limit: Duration,
    ) -> Result<TokenAnswer, Outcome> {
        let name = name.clone();
        let obtain = move |broker: &Self| {
            let profile = broker.directory.profile(&name)?;
            let obtained = broker.engine.access_token_after_rejection(&profile, report, min_valid, limit, &|| {});
            match obtained {
                Ok((obtained, answer)) => {
                    broker.metrics.count_rejected(&name, answer);
                    Ok(obtained.into())
                }
                Err(UnknownGeneration(generation)) => Ok(TokenAnswer::UnknownGeneration(generation)),
            }
        };
        self.on_thread_within(limit, obtain).await
    }

    /// Waits for a token after `seen`, and starts no refresh.
    async fn newer_token(
        &self,
        name: &ProfileName,
        min_valid: Duration,
        seen: Generation,
        wait: Duration,
    ) -> Result<Option<TokenResult>, Outcome> {
        let mut is_over = std::pin::pin!(tokio::time::sleep(wait));
        let mut place = None;
        loop {
            let mut ends = self.engine.flight_ends();
            let found = self.stored_after(name, min_valid, seen).await?;
            if found.is_some() || wait.is_zero() {
                return Ok(found);
            }
            if place.is_none() {
                let taken = Arc::clone(&self.polls).try_acquire_owned();
                place = Some(taken.map_err(|_| busy("too many requests wait for a newer generation"))?);
            }
            tokio::select! {
                () = is_over.as_mut() => return self.stored_after(name, min_valid, seen).await,
                _ = ends.recv() => {}
                () = tokio::time::sleep(FOREIGN_CHANGE_INTERVAL) => {}
            }
        }
    }

    /// The stored token, if it can be handed out and is newer than what was seen.
    async fn stored_after(
        &self,
        name: &ProfileName,
        min_valid: Duration,
        seen: Generation,
    ) -> Result<Option<TokenResult>, Outcome> {
        let name = name.clone();
        let look = move |broker: &Self| {
            let profile = broker.directory.profile(&name)?;
            Ok(broker.engine.access_token_after(&profile, seen, min_valid))
        };
        self.on_thread(look).await?
    }

    pub(super) async fn status(&self, name: ProfileName) -> Result<Value, Outcome> {
        let look = move |broker: &Self| match broker.directory.profile(&name) {
            Err(outcome) if is_unknown(&outcome) => Err(outcome),
            // What is wrong is in the status.
            Ok(_) | Err(_) => Ok(broker.directory.status(&name)),
        };
        self.on_thread(look).await?
    }

    pub(super) async fn all_statuses(&self) -> Result<Vec<Value>, Outcome> {
        let look = |broker: &Self| broker.directory.all_statuses();
        self.on_thread(look).await?.map_err(|e| Outcome::new(OutcomeKind::StoreUnavailable).with_error(e))
    }

    pub(super) async fn listeners(&self) -> Value {
        self.on_thread(|broker| broker.directory.listeners()).await.unwrap_or_default()
    }

    /// How long the daemon has run, and whether its scheduler still looks.
    pub(super) fn pulse(&self) -> (Duration, bool) {
        let now = self.engine.clock().now();
        let last = Duration::from_millis(self.scheduler_look.load(Ordering::Relaxed));
        let is_stuck = Duration::from_millis(now.uptime_ms).saturating_sub(last) > STUCK_AFTER;
        (now.time_since(&self.started), is_stuck)
    }

    /// As [`Broker::on_thread`], for work that has a limit of its own and needs the files besides.
    async fn on_thread_within(
        &self,
        limit: Duration,
        work: impl FnOnce(&Self) -> Result<TokenAnswer, Outcome> + Send + 'static,
    ) -> Result<TokenAnswer, Outcome> {
        match tokio::time::timeout(limit + SLACK, self.on_thread(work)).await {
            Ok(done) => done?,
            Err(_) => Err(busy("the files of the profile cannot be read in time")),
        }
    }

    /// Does what may wait for the disk where it holds up no other request.
    pub(super) async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Outcome> {
        let broker = self.clone();
        tokio::task::spawn_blocking(move || work(&broker)).await.map_err(|error| {
            tracing::error!(event = "internal", %error, "a request of the API failed");
            let failure = Failure::new(ErrorKind::Broken, "internal error; the log of the daemon says more");
            Outcome::new(OutcomeKind::StoreUnavailable).with_error(failure)
        })
    }
}

impl From<TokenResult> for TokenAnswer {
    fn from(obtained: TokenResult) -> Self {
        Self::Obtained(Box::new(obtained))
    }
}

fn is_unknown(outcome: &Outcome) -> bool {
    outcome.error.as_ref().is_some_and(|error| error.kind == ErrorKind::UnknownProfile)
}

fn busy(message: &str) -> Outcome {
    Outcome::new(OutcomeKind::Deferred).with_error(Failure::new(ErrorKind::Busy, message).with_hint("ask again"))
}
