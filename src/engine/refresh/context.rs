//! What one flight needs to know: profile, caller, dependencies, and the conditions under which it must not send any
//! more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::credential::Generation;
use crate::credential::freshness::Demand;
use crate::engine::refresh::concurrency::ConcurrencyPermit;
use crate::engine::refresh::fed_programs::FedPrograms;
use crate::engine::refresh::followed_stores::FollowedStores;
use crate::engine::refresh::{backoff, retry_policy};
use crate::profile::{Policy, Profile, Rotation};
use crate::provider::{PreparedProvider, TokenEndpoint};
use crate::store::journal::block::{Block, Cause, RefusedClient};
use crate::store::journal::{Journal, Pause, PauseCause};
use crate::store::keys::sealing_key;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::{PrefetchedKey, ProfileView, Store};

/// The context of one flight.
pub struct RefreshContext {
    pub store: Arc<Store>,
    pub endpoint: Arc<dyn TokenEndpoint>,
    pub clock: Arc<dyn Clock>,
    pub profile: Arc<Profile>,
    pub prepared: PreparedProvider,
    /// Identifies the client's settings for a client block. Set under the lock, as soon as the sealing key is known.
    pub(in crate::engine) client_mark: OnceLock<String>,
    pub demand: Demand,
    pub(in crate::engine) seen: SeenBeforeLock,
    /// Set when the process is told to stop: nothing new is sent, and a request that was sent is completed.
    pub stop: Arc<AtomicBool>,
    /// Whether this is a daemon, which may go on with the key in memory while the keyring is away.
    pub is_daemon: bool,
    /// Whether this process lives until it is told to stop, so that a response in hand need not be given up.
    pub is_long_lived: bool,
    /// Fetched before the lock, because it may come from a command.
    pub prefetched_key: PrefetchedKey,
    /// The stores of other tools, for profiles that follow one.
    pub followed_stores: Option<Arc<dyn FollowedStores>>,
    /// The files of the programs that profiles feed.
    pub fed_programs: Option<Arc<dyn FedPrograms>>,
    /// Freed when the flight is over.
    pub(in crate::engine) concurrency_permit: ConcurrencyPermit,
}

/// What a caller saw before it waited for the lock.
pub(in crate::engine) struct SeenBeforeLock {
    pub generation: Generation,
    pub sequence: u64,
    /// The key that the credential was sealed under.
    pub key_id: Option<String>,
}

impl SeenBeforeLock {
    pub(crate) fn of(view: &ProfileView) -> Self {
        let (generation, sequence) =
            view.journal.as_ref().map_or((Generation::NONE, 0), |journal| (journal.generation, journal.sequence));
        Self { generation, sequence, key_id: view.key_id().map(str::to_owned) }
    }
}

impl RefreshContext {
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Makes the mark of the client's settings (rule 24).
    pub(in crate::engine) fn mark_client(&self, key: &SealingKey) {
        self.client_mark.get_or_init(|| key.client_mark(&self.prepared.client_bytes()));
    }

    /// What a decision depends on at this moment.
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            profile: &self.profile,
            prepared: &self.prepared,
            now: self.now(),
            client_mark: self.client_mark.get().map_or("", String::as_str),
            demand: self.demand,
            random: f64::from(u32::from_le_bytes(sealing_key::random_bytes())) / f64::from(u32::MAX),
        }
    }
}

/// What a decision depends on beside the journal and the response, so that it needs neither store nor clock.
pub struct Facts<'a> {
    pub profile: &'a Profile,
    pub prepared: &'a PreparedProvider,
    pub now: Moment,
    /// Empty until the sealing key is known; before that nothing is sent.
    pub client_mark: &'a str,
    pub demand: Demand,
    /// For the jitter of a pause: uniform in 0..=1.
    pub random: f64,
}

impl Facts<'_> {
    pub fn policy(&self) -> &Policy {
        &self.profile.provider.policy
    }

    /// A person asked for a new token regardless of the old one (`--force`).
    pub fn is_forced(&self) -> bool {
        matches!(self.demand, Demand::NewerThan(_))
    }

    /// The block of the client, if it is on the client as it is configured now.
    pub fn client_block<'j>(&self, journal: &'j Journal) -> Option<&'j Block> {
        let is_held = |client: &RefusedClient| client.config_fingerprint == self.client_mark;
        journal.block(Cause::Client).filter(|block| block.client.as_ref().is_some_and(is_held))
    }

    /// A pause that ends when the configuration does that it came from.
    pub fn pause(&self, cause: PauseCause) -> Pause {
        Pause { cause, client: self.client_mark.to_owned() }
    }

    /// Whether the journal's pause is none for this flight. That after a failed connection holds the daemon's plan, which
    /// looks at the journal before it starts a flight, and a caller that has a live token. That after a refusal without a known
    /// reason holds all but a person who insists.
    pub fn may_ignore_pause(&self, journal: &Journal) -> bool {
        let Some(pause) = &journal.pause else { return false };
        let is_alive = journal.validity.as_ref().is_some_and(|v| !v.remaining(&self.now).is_zero());
        let is_patient = matches!(self.demand, Demand::ValidFor(_) | Demand::Rejected { .. }) && is_alive;
        let is_over = match pause.cause {
            PauseCause::Unsent => !is_patient,
            PauseCause::Unexplained => self.is_forced() && journal.may_be_overruled(&self.now),
        };
        is_over || pause.client != self.client_mark
    }

    /// Whether a second use of a token can end the family.
    pub fn punishes_reuse(&self) -> bool {
        matches!(self.policy().rotation, Rotation::Strict | Rotation::Grace)
    }

    /// The delay before the next try, for the journal's `not_before`. One more try must fit before the access token
    /// ends, and before the server's grace does.
    pub fn next_retry_delay(&self, journal: &Journal, retry_after: Option<Duration>) -> Duration {
        let life = journal.validity.as_ref().map_or(Duration::ZERO, |v| v.remaining(&self.now));
        let grace = journal.open_intent().and_then(|i| retry_policy::grace_remaining(i, self.policy(), &self.now));
        let left = grace.into_iter().chain([life]).filter(|left| !left.is_zero()).min().unwrap_or_default();
        backoff::retry_delay(journal.consecutive_failures, retry_after, left, self.random)
    }
}
