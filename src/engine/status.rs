//! Decides the status of a profile from its journal, for `status`, the scheduler and the other commands. (pure)

use std::time::Duration;

use crate::clock::{Moment, Timestamp};
use crate::credential::Binding;
use crate::credential::freshness;
use crate::credential::freshness::{Demand, Freshness, Margin, Validity};
use crate::engine::refresh::backoff::FOLLOW_CONFLICT_INTERVAL;
use crate::engine::refresh::followed_stores::nothing_to_follow;
use crate::engine::refresh::retry_policy;
use crate::engine::refresh::retry_policy::{RetryDecision, SendKind};
use crate::engine::status_failures::{login_ended, revocation_in_doubt, with_other_server};
use crate::outcome::{ErrorKind, Failure, Outcome, ProfileState};
use crate::profile::{Policy, Profile, ProfileName};
use crate::store::journal::block::{Block, Cause};
use crate::store::journal::{Intent, Journal};
use crate::store::{Store, StoreError};

/// What connecting and sealing may add to the time that a provider has for its response.
const HANDLING_TIME: Duration = Duration::from_secs(5);

/// The status of a profile, and when the next refresh is due.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileStatus {
    pub state: ProfileState,
    /// When the next refresh is planned: at the margin, for a retry, or for a last chance. It is past when that has not
    /// been made. `None`: only a person can help.
    pub refresh_at: Option<Timestamp>,
    pub error: Option<Failure>,
    /// Why the newest attempt failed, if it did: of a fresh profile too.
    pub last_failure: Option<Failure>,
    /// Another run is waiting for a response at this moment, so its attempt is no doubt yet.
    pub is_in_flight: bool,
    /// What the next refresh would fail by at this moment, though nothing else stands in its way: the store cannot take a
    /// response, or what the client needs is not there. Only those who show a status ask for it.
    pub obstacle: Option<Failure>,
}

impl ProfileStatus {
    pub fn new(state: ProfileState, refresh_at: Option<Timestamp>, error: Option<Failure>) -> Self {
        Self { state, refresh_at, error, last_failure: None, is_in_flight: false, obstacle: None }
    }

    /// Nothing is tried until what ended like this is mended.
    fn stopped(outcome: Outcome) -> Self {
        Self::new(outcome.kind.into(), None, outcome.error)
    }

    /// What a refresh would meet in the store at this moment. Without the identity of the store, not even a fresh access
    /// token can be had.
    #[must_use]
    pub fn with_store_checked(self, store: &Store, name: &ProfileName) -> Self {
        if !self.is_refreshable() {
            return self;
        }
        if let Err(unknown) = store.check_identity() {
            return Self { refresh_at: self.refresh_at, ..Self::stopped(unknown.outcome()) };
        }
        let no_room = store.check_room(name).err().and_then(|no_room| no_room.outcome().error);
        self.with_obstacle(ProfileState::StoreUnavailable, no_room)
    }

    /// What a refresh would meet at this moment: it would end in `state`. It is a failure beside an access token that is
    /// fresh, and the state of one that is not.
    #[must_use]
    pub fn with_obstacle(self, state: ProfileState, obstacle: Option<Failure>) -> Self {
        if obstacle.is_none() || !self.is_refreshable() {
            return self;
        }
        match self.state {
            ProfileState::Fresh | ProfileState::InDoubt => Self { obstacle, ..self },
            _ => Self { state, error: obstacle.clone(), obstacle, ..self },
        }
    }

    fn is_refreshable(&self) -> bool {
        match self.state {
            ProfileState::Fresh
            | ProfileState::Due
            | ProfileState::Expired
            | ProfileState::Deferred
            | ProfileState::InDoubt => true,
            ProfileState::NeedsLogin
            | ProfileState::ConfigError
            | ProfileState::StoreUnavailable
            | ProfileState::NoCredential => false,
        }
    }
}

/// Decides the status of a profile: by its journal as [`Store::peek`] gave it, by its configuration, and by what the store
/// can tell besides: whether a run is under way, and whether the key file is there.
pub fn status_of(
    store: &Store,
    journal: &Result<Option<Journal>, StoreError>,
    profile: Result<&Profile, &Failure>,
    now: &Moment,
) -> ProfileStatus {
    let status = match (journal, profile) {
        (Err(unreadable), _) => ProfileStatus::stopped(unreadable.outcome()),
        (_, Err(failure)) => ProfileStatus::new(ProfileState::ConfigError, None, Some(failure.clone())),
        (Ok(journal), Ok(profile)) => configured_status(store, journal.as_ref(), profile, now),
    };
    let last_attempt = journal.as_ref().ok().and_then(|journal| journal.as_ref()?.last_attempt.as_ref());
    let last_failure = last_attempt.and_then(|attempt| attempt.error.clone());
    // To wait for a followed tool is no failure while the access token lives.
    let is_told = |failure: &Failure| failure.kind != ErrorKind::ToolFirst || status.state != ProfileState::Fresh;
    ProfileStatus { last_failure: last_failure.filter(is_told), ..status }
}

fn configured_status(store: &Store, journal: Option<&Journal>, profile: &Profile, now: &Moment) -> ProfileStatus {
    let status_policy = StatusPolicy {
        policy: &profile.provider.policy,
        margin: profile.margin,
        jitter: jitter(profile.name.as_str(), profile.margin, journal.and_then(|j| j.validity.as_ref())),
        is_following: profile.follow,
    };
    let Some(journal) = journal.filter(|j| j.has_credential()) else {
        return profile_status(None, status_policy, now);
    };
    // Without its key what is stored can neither be used nor refreshed.
    if let Some(missing) = store.keys().missing_file() {
        return ProfileStatus::stopped(missing.outcome());
    }
    let status = match is_awaited(journal, status_policy.policy, now) && store.is_locked(&journal.profile) {
        true => {
            let settled = Journal { intent: None, revocation: None, ..journal.clone() };
            ProfileStatus { is_in_flight: true, ..profile_status(Some(&settled), status_policy, now) }
        }
        false => profile_status(Some(journal), status_policy, now),
    };
    let is_ended = status.error.as_ref().is_some_and(|error| error.kind == ErrorKind::LoginEnded);
    match binding_mismatch(journal, profile) {
        Some(failure) if status.state != ProfileState::NeedsLogin || is_ended => {
            ProfileStatus::new(ProfileState::ConfigError, None, Some(failure))
        }
        Some(failure) if journal.is_rejected() => {
            ProfileStatus { error: status.error.map(|error| with_other_server(error, &failure)), ..status }
        }
        Some(_) | None => status,
    }
}

/// Whether the run that sent something may still be waiting for the response. A run that has the lock for another reason,
/// or for longer than a response may take, is not.
fn is_awaited(journal: &Journal, policy: &Policy, now: &Moment) -> bool {
    let at_most = policy.timeout + policy.connect_timeout + HANDLING_TIME;
    let is_first = |i: &Intent| i.send_count == 1 && i.gave_up_at.is_none() && now.time_since(&i.last_sent) <= at_most;
    match (journal.open_intent(), journal.open_revocation()) {
        (Some(intent), _) => is_first(intent),
        (None, Some(sent)) => now.wall.since(sent.at) <= at_most,
        (None, None) => false,
    }
}

/// Why no refresh will be sent, if the configuration has come to name another server or client than the credential's. One
/// that is discovered is known to the refresh alone.
fn binding_mismatch(journal: &Journal, profile: &Profile) -> Option<Failure> {
    let (belongs, provider) = (journal.binding.as_ref()?, &profile.provider);
    let named = provider.token_endpoint.as_ref().map(|url| url.origin().ascii_serialization());
    let configured = Binding {
        origin: named.unwrap_or_else(|| belongs.origin.clone()),
        client_id: provider.client_id.clone(),
        ..belongs.clone()
    };
    other_server(belongs, &configured)
}

/// Why a credential must not be sent to the configured server, if it was issued by another one or to another client.
pub fn other_server(belongs: &Binding, configured: &Binding) -> Option<Failure> {
    if belongs.origin == configured.origin && belongs.client_id == configured.client_id {
        return None;
    }
    let message = format!(
        "the credential was issued to client {} at {}, but the configuration has client {} at {}",
        belongs.client_id, belongs.origin, configured.client_id, configured.origin
    );
    let hint = format!("restore [provider.{}], sign in again, or import with --replace", belongs.provider);
    Some(Failure::new(ErrorKind::OtherServer, message).with_hint(hint))
}

/// What a status depends on besides the journal.
#[derive(Clone, Copy, Debug)]
pub struct StatusPolicy<'a> {
    pub policy: &'a Policy,
    pub margin: Margin,
    /// This profile's share of jitter.
    pub jitter: Duration,
    /// The profile follows another tool, whose store may bring a new credential at any time.
    pub is_following: bool,
}

/// Decides the status. It is `fresh` only if nothing is wrong; of several problems the worst wins.
pub fn profile_status(journal: Option<&Journal>, status_policy: StatusPolicy<'_>, now: &Moment) -> ProfileStatus {
    let Some(journal) = journal.filter(|r| r.has_credential()) else {
        return ProfileStatus::new(ProfileState::NoCredential, None, None);
    };
    let last_error = journal.last_attempt.as_ref().and_then(|a| a.error.clone());
    let blocked = needs_user_status(journal, status_policy, now)
        .or_else(|| in_doubt_status(journal, status_policy, now, last_error.clone()))
        .or_else(|| blocked_status(journal, now));
    if let Some(blocked) = blocked {
        return blocked;
    }
    let unblocked = unblocked_status(journal, status_policy, now, last_error);
    match journal.open_revocation() {
        None => unblocked,
        // The next refresh settles it either way.
        Some(_) => {
            ProfileStatus { state: ProfileState::InDoubt, error: Some(revocation_in_doubt(journal)), ..unblocked }
        }
    }
}

/// The states that only a person can end.
fn needs_user_status(journal: &Journal, status_policy: StatusPolicy<'_>, now: &Moment) -> Option<ProfileStatus> {
    if journal.is_rejected() {
        let error = journal.rejected.as_ref().map(|r| r.failure.clone());
        // The person may sign in with the tool.
        let refresh_at = status_policy.is_following.then(|| now.wall.plus(FOLLOW_CONFLICT_INTERVAL));
        return Some(ProfileStatus::new(ProfileState::NeedsLogin, refresh_at, error));
    }
    if let Some((state, failure)) = journal.integrity_error.clone().filter(|(state, _)| *state != ProfileState::Due) {
        let refresh_at = match state {
            // A flight finds out.
            ProfileState::InDoubt => Some(now.wall),
            _ => status_policy.is_following.then(|| now.wall.plus(FOLLOW_CONFLICT_INTERVAL)),
        };
        return Some(ProfileStatus::new(state, refresh_at, Some(failure)));
    }
    let block = journal.deciding_block();
    if status_policy.is_following
        && journal.followed_origin().is_none()
        && block.is_none_or(|block| block.cause != Cause::Store)
    {
        let error = Some(nothing_to_follow(&journal.profile));
        return Some(ProfileStatus::new(ProfileState::ConfigError, None, error));
    }
    block.filter(|block| block.cause <= Cause::FollowConflict).map(|block| block_status(journal, block, now))
}

/// The status that a block gives. What sends a request waits for `not_before` as well; a look at what is stored costs
/// little, and what was mended is told in no other way.
fn block_status(journal: &Journal, block: &Block, now: &Moment) -> ProfileStatus {
    let sends = block.cause > Cause::FollowConflict;
    let pause = block.blocked_until(now).max(journal.blocked_until(now).filter(|_| sends));
    let is_planned = has_probes_left(block) && block.cause != Cause::OtherAccount;
    let refresh_at = is_planned.then(|| pause.unwrap_or(now.wall));
    ProfileStatus::new(block.outcome.into(), refresh_at, Some(block.failure.clone()))
}

/// Automatic probes of a refused client (rule 24).
pub const MAX_CLIENT_PROBES: u32 = 3;

/// Whether a block is tried again by itself.
pub fn has_probes_left(block: &Block) -> bool {
    block.client.as_ref().is_none_or(|client| client.probe_count < MAX_CLIENT_PROBES)
}

fn in_doubt_status(
    journal: &Journal,
    status_policy: StatusPolicy<'_>,
    now: &Moment,
    error: Option<Failure>,
) -> Option<ProfileStatus> {
    let decision = retry_policy::decide_doubt(journal, status_policy.policy, now)?;
    let state = match decision {
        RetryDecision::Exhausted => ProfileState::NeedsLogin,
        RetryDecision::GiveUpAtExpiry(_) | RetryDecision::Wait(_) | RetryDecision::Send(_) => ProfileState::InDoubt,
    };
    let unknown = || {
        Failure::new(ErrorKind::InDoubt, "a refresh was started, and its outcome is not known yet").with_hint(format!(
            "the next attempt will show; to avoid the risk, sign in again: keepalive login {}",
            journal.profile
        ))
    };
    let since = journal.validity.as_ref().map(|validity| retry_policy::last_chance_at(validity).min(now.wall));
    let refresh_at = match decision {
        RetryDecision::Send(SendKind::LastChance) if journal.blocked_until(now).is_none() => since.or(Some(now.wall)),
        _ => decision.retry_at(journal, now),
    };
    Some(ProfileStatus::new(state, refresh_at, Some(error.unwrap_or_else(unknown))))
}

/// The token is fine, but a block keeps it from being refreshed.
fn blocked_status(journal: &Journal, now: &Moment) -> Option<ProfileStatus> {
    if let Some((state, failure)) = journal.integrity_error.clone() {
        return Some(ProfileStatus::new(state, Some(now.wall), Some(failure)));
    }
    journal.deciding_block().map(|block| block_status(journal, block, now))
}

fn unblocked_status(
    journal: &Journal,
    status_policy: StatusPolicy<'_>,
    now: &Moment,
    last_error: Option<Failure>,
) -> ProfileStatus {
    let validity = journal.validity.as_ref();
    let demand = Demand::Margin { lookahead: Duration::ZERO };
    let is_due =
        freshness::assess(journal.generation, validity, demand, status_policy.margin, status_policy.jitter, now)
            != Freshness::Fresh
            || is_renewal_due(journal, Duration::ZERO, now);
    let is_alive = validity.is_some_and(|v| !v.remaining(now).is_zero());
    let delay = journal.blocks.iter().filter(|block| block.cause.is_delay()).find_map(|block| block.blocked_until(now));
    let not_before = journal.blocked_until(now).max(delay);
    let planned = validity.map_or(now.wall, |v| margin_reached_at(v, status_policy, now));
    let planned = renewal_at(journal).map_or(planned, |at| planned.min(at));
    let planned = not_before.map_or(planned, |at| planned.max(at));
    let is_waiting = status_policy.is_following && journal.block(Cause::FollowWait).is_some();
    let state = match (is_alive, is_due, not_before) {
        (false, ..) if validity.is_some() => ProfileState::Expired,
        // The tool refreshes it.
        (true, true, _) if is_waiting => ProfileState::Fresh,
        (_, true, Some(_)) => ProfileState::Deferred,
        (_, true, None) => ProfileState::Due,
        (_, false, _) => ProfileState::Fresh,
    };
    let error = if state == ProfileState::Fresh { None } else { last_error };
    let may_end = state == ProfileState::Fresh && renewal_at(journal).is_none();
    match login_ended(journal, now).filter(|_| may_end) {
        Some(ended) => ProfileStatus::new(ProfileState::NeedsLogin, Some(planned), Some(ended)),
        None => ProfileStatus::new(state, Some(planned), error),
    }
}

/// A refresh token that lives shorter cannot be renewed in time, and asking for it would be a loop.
const MIN_RENEWAL_LIFETIME: Duration = Duration::from_secs(5);

/// When a refresh token must be renewed whatever its access token says (rule 35): after three quarters of its lifetime.
/// If a refresh did not prolong it, no other will, and the end stays.
fn renewal_at(journal: &Journal) -> Option<Timestamp> {
    let told = journal.validity.as_ref()?.obtained.wall;
    let life = journal.login_by.filter(|_| !journal.is_login_by_final)?.since(told);
    (life >= MIN_RENEWAL_LIFETIME).then(|| told.plus(life / 4 * 3))
}

fn is_renewal_due(journal: &Journal, lookahead: Duration, now: &Moment) -> bool {
    renewal_at(journal).is_some_and(|at| at <= now.wall.plus(lookahead))
}

/// When the margin is reached, by whichever clock reaches it first. Once it is past, that is one instant at every look.
fn margin_reached_at(validity: &Validity, status_policy: StatusPolicy<'_>, now: &Moment) -> Timestamp {
    let by_wall = freshness::refresh_at(validity, status_policy.margin, status_policy.jitter);
    if by_wall <= now.wall {
        return by_wall;
    }
    let ahead = validity.expires_at().since(by_wall);
    let by_both = now.wall.plus(validity.remaining(now).saturating_sub(ahead));
    by_wall.min(by_both).max(now.wall)
}

/// Whether the journal satisfies a demand. A caller that wants an access token gets any live one. A caller that wants a
/// refresh is told of a doubt, a rejected token or a refused client even while the access token lives.
pub fn meets_demand(journal: &Journal, demand: Demand, profile: &Profile, now: &Moment) -> bool {
    if journal.integrity_error.is_some() {
        return false;
    }
    // Rule 41: what there is, is handed out.
    if let Demand::Rejected { seen, .. } = demand {
        return journal.has_credential() && (journal.generation > seen || journal.is_rejection_too_soon(now));
    }
    if let Demand::Margin { lookahead } = demand
        && is_renewal_due(journal, lookahead, now)
    {
        return false;
    }
    let is_doubtful = journal.open_intent().is_some() || journal.open_revocation().is_some();
    let is_untroubled = !is_doubtful
        && !journal.is_rejected()
        && journal.deciding_block().is_none()
        && (!profile.follow || journal.followed_origin().is_some());
    freshness_for(journal, demand, profile, now) == Freshness::Fresh
        && journal.has_credential()
        && (is_untroubled || matches!(demand, Demand::ValidFor(_)))
}

/// Whether the access token satisfies a demand, whatever else is known of the profile.
pub fn freshness_for(journal: &Journal, demand: Demand, profile: &Profile, now: &Moment) -> Freshness {
    let validity = journal.validity.as_ref();
    let early = jitter(profile.name.as_str(), profile.margin, validity);
    freshness::assess(journal.generation, validity, demand, profile.margin, early, now)
}

/// This profile's jitter: the same at every run, up to a tenth of its margin, so that profiles signed in together drift
/// apart (rule 34: it only ever advances).
pub fn jitter(profile: &str, margin: Margin, validity: Option<&Validity>) -> Duration {
    let Some(validity) = validity else {
        return Duration::ZERO;
    };
    // FNV-1a is stable between versions and machines; std's hasher is not.
    let hash =
        profile.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let share = (hash >> 40) as u32 & 0x3ff;
    (validity.margin(margin) / 10 / 1024) * share
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::credential::Generation;
    use crate::credential::external::ImportSource;
    use crate::credential::secret::Fingerprint;
    use crate::outcome::OutcomeKind;
    use crate::store::journal::block::RefusedClient;
    use crate::store::journal::{LastAttempt, Rejection, Revocation};

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn clock() -> ManualClock {
        ManualClock::new(Timestamp::from_secs(1_790_000_000))
    }

    fn journal(clock: &ManualClock) -> Journal {
        let mut r = Journal::new("p".parse().unwrap());
        r.generation = Generation::FIRST;
        r.fingerprint = Some(Fingerprint::from_hex("ab".into()));
        r.validity = Some(Validity {
            obtained: clock.now(),
            lifetime_ms: 1_000_000,
            assumed: false,
            is_remainder: false,
            expired_at: None,
        });
        r
    }

    fn blocked(journal: Journal, block: Block) -> Journal {
        let mut journal = journal;
        journal.set_block(block);
        journal
    }

    fn refused_client(probe_count: u32, next_probe: Timestamp) -> Block {
        let client = RefusedClient { config_fingerprint: "x".into(), probe_count };
        let failure = Failure::new(ErrorKind::ClientRefused, "no");
        Block { client: Some(client), next_check: Some(next_probe), ..Block::new(Cause::Client, failure) }
    }

    fn judge(r: &Journal, clock: &ManualClock) -> ProfileStatus {
        let policy = Policy::default();
        let status_policy = StatusPolicy {
            policy: &policy,
            margin: Margin::Fixed(S(200)),
            jitter: Duration::ZERO,
            is_following: false,
        };
        profile_status(Some(r), status_policy, &clock.now())
    }

    #[test]
    fn a_credential_goes_from_fresh_to_due_to_expired() {
        let c = clock();
        let r = journal(&c);
        let fresh = judge(&r, &c);
        assert_eq!((fresh.state, fresh.refresh_at), (ProfileState::Fresh, Some(c.now().wall.plus(S(800)))));
        c.advance(S(800));
        assert_eq!(judge(&r, &c).state, ProfileState::Due);
        c.advance(S(200));
        assert_eq!(judge(&r, &c).state, ProfileState::Expired);
    }

    #[test]
    fn deferred_state_ends_when_the_pause_is_over() {
        let c = clock();
        let mut r = journal(&c);
        c.advance(S(800));
        let away = Block::new(Cause::FollowSource, Failure::new(ErrorKind::Source, "away"));
        r.set_block(Block { next_check: Some(c.now().wall.plus(S(10))), ..away });
        assert_eq!(judge(&r, &c).state, ProfileState::Deferred);
        c.advance(S(10));
        assert_eq!(judge(&r, &c).state, ProfileState::Due);
    }

    /// Rule 35.
    #[test]
    fn refresh_token_near_its_end_is_renewed_early() {
        let c = clock();
        let mut r = journal(&c);
        r.validity = Some(Validity {
            obtained: c.now(),
            lifetime_ms: 90 * 86_400_000,
            assumed: false,
            is_remainder: false,
            expired_at: None,
        });
        r.login_by = Some(c.now().wall.plus(S(40_000)));
        let fresh = judge(&r, &c);
        assert_eq!((fresh.state, fresh.refresh_at), (ProfileState::Fresh, Some(c.now().wall.plus(S(30_000)))));
        c.advance(S(29_999));
        assert_eq!(judge(&r, &c).state, ProfileState::Fresh);
        c.advance(S(1));
        assert_eq!(judge(&r, &c).state, ProfileState::Due);
        // A refresh did not prolong it.
        r.is_login_by_final = true;
        assert_eq!(judge(&r, &c).state, ProfileState::Fresh);
        c.advance(S(10_000));
        let ended = judge(&r, &c);
        let kind = ended.error.unwrap().kind;
        assert_eq!(
            (ended.state, ended.refresh_at.is_some(), kind),
            (ProfileState::NeedsLogin, true, ErrorKind::LoginEnded)
        );
    }

    #[test]
    fn due_refresh_is_deferred_until_not_before() {
        let c = clock();
        let mut r = journal(&c);
        r.not_before = Some(c.now().wall.plus(S(900)));
        assert_eq!(judge(&r, &c).state, ProfileState::Fresh);
        c.advance(S(850));
        let s = judge(&r, &c);
        assert_eq!((s.state, s.refresh_at), (ProfileState::Deferred, r.not_before));
    }

    #[test]
    fn rejected_token_is_never_fresh() {
        let c = clock();
        let mut r = journal(&c);
        r.rejected = Some(Rejection {
            fingerprint: r.fingerprint.clone().unwrap(),
            at: c.now().wall,
            failure: Failure::new(ErrorKind::of_provider("invalid_grant"), "gone"),
            client: None,
            was_in_doubt: false,
        });
        let s = judge(&r, &c);
        assert_eq!(
            (s.state, s.refresh_at, s.error.unwrap().kind.word()),
            (ProfileState::NeedsLogin, None, "invalid_grant")
        );
        r.fingerprint = Some(Fingerprint::from_hex("cd".into()));
        assert_eq!(judge(&r, &c).state, ProfileState::Fresh, "r22: a new token clears it");
    }

    #[test]
    fn followed_profile_keeps_a_next_check_despite_errors() {
        let c = clock();
        let mut r = journal(&c);
        let policy = Policy::default();
        let judge = |r: &Journal| {
            let status_policy = StatusPolicy {
                policy: &policy,
                margin: Margin::Fixed(S(200)),
                jitter: Duration::ZERO,
                is_following: true,
            };
            let s = profile_status(Some(r), status_policy, &c.now());
            (s.state, s.refresh_at.map(|at| at.since(c.now().wall).as_secs()))
        };
        assert_eq!(judge(&r), (ProfileState::ConfigError, None), "there is nothing to follow");
        let place = Some("auth.json".into());
        r.origin = Some(ImportSource { tool: "codex".into(), location: place, ..ImportSource::default() });
        assert_eq!(judge(&r), (ProfileState::Fresh, Some(800)));
        let stop = |cause| Block {
            next_check: Some(c.now().wall.plus(S(900))),
            ..Block::new(cause, Failure::new(ErrorKind::Source, "away"))
        };
        r.set_block(stop(Cause::FollowSource));
        assert_eq!(judge(&r), (ProfileState::Fresh, Some(900)));
        r.set_block(stop(Cause::FollowConflict));
        assert_eq!(judge(&r), (ProfileState::ConfigError, Some(900)));
        let fingerprint = r.fingerprint.clone().unwrap();
        let failure = Failure::new(ErrorKind::of_provider("invalid_grant"), "gone");
        r.rejected = Some(Rejection { fingerprint, at: c.now().wall, failure, client: None, was_in_doubt: false });
        assert_eq!(judge(&r), (ProfileState::NeedsLogin, Some(600)), "a person may sign in with the tool");
    }

    /// Rule 17.
    #[test]
    fn token_in_doubt_is_never_fresh() {
        let c = clock();
        let mut r = journal(&c);
        let sent = Intent::new("a", r.generation, r.fingerprint.clone().unwrap(), &c.now());
        r.intent = Some(Intent { gave_up_at: Some(c.now()), ..sent });
        let s = judge(&r, &c);
        assert_eq!((s.state, s.refresh_at), (ProfileState::InDoubt, Some(c.now().wall.plus(S(970)))));
        assert_eq!(s.error.unwrap().kind, ErrorKind::InDoubt, "though no run has told how it ended");
    }

    #[test]
    fn flaw_is_checked_at_once_only_if_a_flight_can_settle_it() {
        let c = clock();
        let flaw = Some((ProfileState::InDoubt, Failure::new(ErrorKind::JournalMissing, "gone")));
        let mut r = Journal { integrity_error: flaw, ..journal(&c) };
        let s = judge(&r, &c);
        assert_eq!((s.state, s.refresh_at), (ProfileState::InDoubt, Some(c.now().wall)));
        r.integrity_error = Some((ProfileState::NeedsLogin, Failure::new(ErrorKind::Lost, "gone")));
        let s = judge(&r, &c);
        assert_eq!((s.state, s.refresh_at), (ProfileState::NeedsLogin, None));
    }

    /// Rule 16.
    #[test]
    fn response_without_a_usable_token_is_never_fresh() {
        let c = clock();
        let mut r = journal(&c);
        r.set_block(Block::new(Cause::AccessToken, Failure::new(ErrorKind::AtUnusable, "nothing to use")));
        // Whatever was tried since: it brought nothing to use either.
        let error = Some(Failure::new(ErrorKind::Throttled, "later"));
        r.last_attempt = Some(LastAttempt { at: c.now().wall, outcome: OutcomeKind::Deferred, retry_at: None, error });
        let s = judge(&r, &c);
        assert_eq!((s.state, s.refresh_at), (ProfileState::ConfigError, Some(c.now().wall)));
        assert_eq!(s.error.unwrap().kind, ErrorKind::AtUnusable);
        r.not_before = Some(c.now().wall.plus(S(9)));
        assert_eq!(judge(&r, &c).refresh_at, r.not_before);
        c.advance(S(10));
        assert_eq!(judge(&r, &c).refresh_at, Some(c.now().wall));
    }

    #[test]
    fn tombstone_or_missing_journal_is_no_credential() {
        let c = clock();
        let mut r = journal(&c);
        r.is_tombstone = true;
        assert_eq!(judge(&r, &c).state, ProfileState::NoCredential);
        let policy = Policy::default();
        let status_policy =
            StatusPolicy { policy: &policy, margin: Margin::DEFAULT, jitter: Duration::ZERO, is_following: false };
        assert_eq!(profile_status(None, status_policy, &c.now()).state, ProfileState::NoCredential);
    }

    /// Rule 17.
    #[test]
    fn in_doubt_outranks_curable_states_but_not_needs_login() {
        let c = clock();
        let now = c.now();
        let intent = Intent::new("x", Generation::FIRST, Fingerprint::from_hex("aa".into()), &now);
        let failure = || Failure::new(ErrorKind::Io, "y");
        let flaw = |state| Some((state, failure()));
        let client = vec![refused_client(0, now.wall)];
        for (blocks, flaw, with_doubt, without) in [
            (client, None, ProfileState::InDoubt, ProfileState::ConfigError),
            (Vec::new(), flaw(ProfileState::Due), ProfileState::InDoubt, ProfileState::Due),
            (Vec::new(), flaw(ProfileState::NeedsLogin), ProfileState::NeedsLogin, ProfileState::NeedsLogin),
        ] {
            let unblocked = Journal { blocks, integrity_error: flaw, ..journal(&c) };
            let doubtful = Journal { intent: Some(intent.clone()), ..unblocked.clone() };
            assert_eq!([judge(&doubtful, &c).state, judge(&unblocked, &c).state], [with_doubt, without]);
        }
    }

    /// Rule 34.
    #[test]
    fn jitter_is_stable_and_at_most_a_tenth_of_the_margin() {
        let c = clock();
        let v = journal(&c).validity;
        let of = |name: &str| jitter(name, Margin::Fixed(S(200)), v.as_ref());
        assert_eq!(of("a"), of("a"));
        let many: std::collections::BTreeSet<_> = (0..100).map(|i| of(&format!("profile-{i}"))).collect();
        assert!(many.len() > 50 && many.iter().all(|j| *j <= S(20)));
        assert_eq!(jitter("a", Margin::DEFAULT, None), Duration::ZERO);
    }

    /// Rule 24.
    #[test]
    fn refused_client_is_retried_only_up_to_the_probe_limit() {
        let c = clock();
        for (probes, is_planned) in
            [(MAX_CLIENT_PROBES - 1, true), (MAX_CLIENT_PROBES, false), (MAX_CLIENT_PROBES + 1, false)]
        {
            let mut r = journal(&c);
            let next_probe = c.now().wall.plus(S(60));
            r.set_block(refused_client(probes, next_probe));
            let s = judge(&r, &c);
            assert_eq!((s.state, s.refresh_at), (ProfileState::ConfigError, is_planned.then_some(next_probe)));
            // The probe found no server.
            let not_before = c.now().wall.plus(S(90));
            r.set_not_before(Some(not_before), Some(&c.now()));
            assert_eq!(judge(&r, &c).refresh_at, is_planned.then_some(not_before));
        }
    }

    #[test]
    fn refresh_without_access_token_is_due_from_not_before() {
        let c = clock();
        let mut r = Journal { validity: None, ..journal(&c) };
        assert_eq!(judge(&r, &c).state, ProfileState::Due);
        r.not_before = Some(c.now().wall.plus(S(1)));
        assert_eq!(judge(&r, &c).state, ProfileState::Deferred);
        c.advance(S(1));
        assert_eq!(judge(&r, &c).state, ProfileState::Due);
    }

    #[test]
    fn last_error_is_reported_only_while_it_matters() {
        let c = clock();
        let error = Some(Failure::new(ErrorKind::Network, "away"));
        let attempt =
            LastAttempt { at: c.now().wall, outcome: OutcomeKind::Deferred, retry_at: None, error: error.clone() };
        let mut r = Journal { last_attempt: Some(attempt), ..journal(&c) };
        assert_eq!(judge(&r, &c).error, None, "the token is fresh");
        c.advance(S(800));
        assert_eq!(judge(&r, &c).error, error);
        let fingerprint = r.fingerprint.clone().unwrap();
        r.revocation = Some(Revocation { fingerprint, at: c.now().wall, is_confirmed: false });
        let s = judge(&r, &c);
        assert_eq!((s.state, s.error.unwrap().kind.word()), (ProfileState::InDoubt, "revocation_in_doubt"));
    }

    /// Rule 35.
    #[test]
    fn refresh_token_is_renewed_however_short_it_lives() {
        let c = clock();
        for (life, renewed_after) in [(4, None), (20, Some(15)), (1800, Some(1350)), (3604, Some(2703))] {
            let r = Journal { login_by: Some(c.now().wall.plus(S(life))), ..journal(&c) };
            assert_eq!(renewal_at(&r).map(|at| at.since(c.now().wall)), renewed_after.map(S));
        }
    }

    #[test]
    fn troubled_token_meets_valid_for_but_not_a_margin_demand() {
        let c = clock();
        let now = c.now();
        let token = journal(&c).fingerprint.unwrap();
        let failure = || Failure::new(ErrorKind::Io, "y");
        let intent = Intent::new("a", Generation::FIRST, token.clone(), &now);
        let troubles = [
            Journal { intent: Some(intent), ..journal(&c) },
            Journal {
                revocation: Some(Revocation { fingerprint: token.clone(), at: now.wall, is_confirmed: false }),
                ..journal(&c)
            },
            Journal {
                rejected: Some(Rejection {
                    fingerprint: token,
                    at: now.wall,
                    failure: failure(),
                    client: None,
                    was_in_doubt: false,
                }),
                ..journal(&c)
            },
            blocked(journal(&c), refused_client(0, now.wall)),
            blocked(journal(&c), Block::new(Cause::FollowConflict, failure())),
            blocked(journal(&c), Block::new(Cause::AccessToken, failure())),
            blocked(journal(&c), Block::new(Cause::Store, failure())),
        ];
        let profile = |follow| Profile {
            name: "p".parse().unwrap(),
            provider: std::sync::Arc::new(crate::profile::Provider::named("acme")),
            margin: Margin::Fixed(S(200)),
            schedule: None,
            follow,
            consumers: crate::profile::ConsumerSettings::default(),
            mirrors: Vec::new(),
            hooks: crate::profile::HookSettings::default(),
        };
        let tick = Demand::Margin { lookahead: Duration::ZERO };
        let is_met = |r: &Journal, demand, follow| meets_demand(r, demand, &profile(follow), &now);
        assert!(is_met(&journal(&c), tick, false) && !is_met(&journal(&c), tick, true), "nothing to follow");
        for trouble in troubles {
            assert!(!is_met(&trouble, tick, false), "{trouble:?}");
            assert!(is_met(&trouble, Demand::ValidFor(S(60)), false), "{trouble:?}");
            assert_ne!(judge(&trouble, &c).state, ProfileState::Fresh, "{trouble:?}");
        }
        assert!(!is_met(&Journal { is_tombstone: true, ..journal(&c) }, tick, false));
    }

    /// Rule 34.
    #[test]
    fn jitter_of_a_profile_is_the_same_on_every_machine() {
        let v = journal(&clock()).validity;
        assert_eq!(jitter("xai:default", Margin::Fixed(S(200)), v.as_ref()).as_micros(), 4_160_156);
    }
}
