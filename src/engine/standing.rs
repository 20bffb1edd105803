//! How a profile stands now, from its journal alone: what `status` shows and the scheduler plans by. (pure)

use std::time::Duration;

use super::backoff::CONFLICT;
use super::doubt::{self, Resolution};
use super::source::nothing_to_follow;
use crate::clock::{Moment, Timestamp};
use crate::credential::freshness::{self, Demand, Margin, Validity, Verdict};
use crate::outcome::{ErrorKind, Failure, State};
use crate::profile::{Policy, Profile};
use crate::store::record::Record;

/// A profile's state, and when something is to be done about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub state: State,
    /// When the next refresh is planned: the margin, a retry, a last chance. `None`: only a person can help.
    pub refresh_at: Option<Timestamp>,
    pub error: Option<Failure>,
}

/// What a standing depends on besides the journal.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    pub policy: &'a Policy,
    pub margin: Margin,
    /// This profile's share of jitter.
    pub early: Duration,
    /// Another tool's store is looked into, which may hold what helps out of anything.
    pub is_followed: bool,
}

/// Judges a journal. Never says `fresh` of anything that is not: the worst that is known wins.
pub fn standing(record: Option<&Record>, terms: Terms<'_>, now: &Moment) -> Standing {
    let Some(record) = record.filter(|r| r.has_credential()) else {
        return Standing { state: State::NoCredential, refresh_at: None, error: None };
    };
    let last_error = record.last_attempt.as_ref().and_then(|a| a.error.clone());
    let stuck = ended(record, terms, now)
        .or_else(|| doubtful(record, terms, now, last_error.clone()))
        .or_else(|| hindered(record, now));
    if let Some(stuck) = stuck {
        return stuck;
    }
    let calm = without_trouble(record, terms, now, last_error);
    match record.open_revocation() {
        None => calm,
        // The next refresh settles it either way.
        Some(_) => Standing { state: State::InDoubt, error: Some(revocation_in_doubt(record)), ..calm },
    }
}

/// What only a person can help out of.
fn ended(record: &Record, terms: Terms<'_>, now: &Moment) -> Option<Standing> {
    if record.is_rejected() {
        let error = record.rejected.as_ref().map(|r| r.failure.clone());
        // Somebody may sign in with the tool.
        let refresh_at = terms.is_followed.then(|| now.wall.plus(CONFLICT));
        return Some(Standing { state: State::NeedsLogin, refresh_at, error });
    }
    if let Some((state, failure)) = record.flaw.clone().filter(|(state, _)| *state != State::Due) {
        let refresh_at = match state {
            // A flight finds out.
            State::InDoubt => Some(now.wall),
            _ => terms.is_followed.then(|| now.wall.plus(CONFLICT)),
        };
        return Some(Standing { state, refresh_at, error: Some(failure) });
    }
    if let Some(trouble) = &record.trouble {
        // A look costs little, and what was mended is told by nobody else.
        let (refresh_at, error) = (Some(now.wall), Some(trouble.failure.clone()));
        return Some(Standing { state: trouble.state(), refresh_at, error });
    }
    if terms.is_followed && record.followable().is_none() {
        let error = Some(nothing_to_follow(&record.profile));
        return Some(Standing { state: State::ConfigError, refresh_at: None, error });
    }
    let stop = record.conflict()?;
    let refresh_at = Some(stop.next_look.max(now.wall));
    Some(Standing { state: State::ConfigError, refresh_at, error: Some(stop.failure.clone()) })
}

fn doubtful(record: &Record, terms: Terms<'_>, now: &Moment, error: Option<Failure>) -> Option<Standing> {
    let intent = record.open_intent()?;
    let (state, refresh_at) = match doubt::resolve(intent, terms.policy, record.validity.as_ref(), now) {
        Resolution::Exhausted => (State::NeedsLogin, None),
        Resolution::GiveUpAtExpiry(_) => (State::InDoubt, None),
        Resolution::Wait(at) => (State::InDoubt, record.waits_until(now).max(Some(at))),
        Resolution::Send(_) => (State::InDoubt, Some(record.waits_until(now).unwrap_or(now.wall))),
    };
    let unknown = || {
        Failure::new(ErrorKind::InDoubt, "a refresh was started, and its outcome is not known yet").hint(format!(
            "the next attempt will show; to avoid the risk, sign in again: keepalive login {}",
            record.profile
        ))
    };
    Some(Standing { state, refresh_at, error: Some(error.unwrap_or_else(unknown)) })
}

/// The token is well, and something else keeps it from being refreshed.
fn hindered(record: &Record, now: &Moment) -> Option<Standing> {
    if let Some((state, failure)) = record.flaw.clone() {
        return Some(Standing { state, refresh_at: Some(now.wall), error: Some(failure) });
    }
    if let Some(hold) = &record.hold {
        // A probe that went nowhere is none, and is paused for like anything else.
        let at = hold.waits_until(now).max(record.waits_until(now)).unwrap_or(now.wall);
        let refresh_at = (hold.probes < MAX_PROBES).then_some(at);
        return Some(Standing { state: State::ConfigError, refresh_at, error: Some(hold.failure.clone()) });
    }
    let error = record.unusable.clone()?;
    let refresh_at = Some(record.waits_until(now).unwrap_or(now.wall));
    Some(Standing { state: State::ConfigError, refresh_at, error: Some(error) })
}

/// A logout was cut off, or got no answer.
fn revocation_in_doubt(record: &Record) -> Failure {
    let name = &record.profile;
    Failure::new(
        ErrorKind::RevocationInDoubt,
        "a logout asked the provider to revoke this credential, but no response was recorded",
    )
    .hint(format!(
        "finish it: keepalive logout {name}; or see whether it is still valid: keepalive refresh -p {name} --force"
    ))
}

/// Automatic probes of a refused client (rule 24).
pub const MAX_PROBES: u32 = 3;

fn without_trouble(record: &Record, terms: Terms<'_>, now: &Moment, last_error: Option<Failure>) -> Standing {
    let validity = record.validity.as_ref();
    let demand = Demand::Margin { lookahead: Duration::ZERO };
    let is_due = freshness::assess(record.generation, validity, demand, terms.margin, terms.early, now)
        != Verdict::Fresh
        || is_renewal_due(record, Duration::ZERO, now);
    let is_alive = validity.is_some_and(|v| !v.left(now).is_zero());
    let not_before = record.waits_until(now).max(record.standstill.as_ref().and_then(|s| s.waits_until(now)));
    let planned = validity.map_or(now.wall, |v| planned_at(v, terms, now));
    let planned = renewal_at(record).map_or(planned, |at| planned.min(at.max(now.wall)));
    let planned = not_before.map_or(planned, |at| planned.max(at));
    let state = match (is_alive, is_due, not_before) {
        (false, ..) if validity.is_some() => State::Expired,
        (_, true, Some(_)) => State::Deferred,
        (_, true, None) => State::Due,
        (_, false, _) => State::Fresh,
    };
    let error = if state == State::Fresh { None } else { last_error };
    Standing { state, refresh_at: Some(planned), error }
}

/// A refresh token with less life than this is not renewed for its own sake: it is refreshed with its access token, or
/// ends for good.
const LAST_RENEWAL: Duration = Duration::from_secs(3600);

/// When a refresh token must be renewed whatever its access token says (rule 35): after three quarters of its life. One
/// that no refresh prolongs has less left each time, so it is asked for a few times and then no more.
fn renewal_at(record: &Record) -> Option<Timestamp> {
    let told = record.validity.as_ref()?.obtained.wall;
    let life = record.login_by?.since(told);
    (life > LAST_RENEWAL).then(|| told.plus(life / 4 * 3))
}

fn is_renewal_due(record: &Record, lookahead: Duration, now: &Moment) -> bool {
    renewal_at(record).is_some_and(|at| at <= now.wall.plus(lookahead))
}

/// When the margin is reached, by whichever clock says so first.
fn planned_at(validity: &Validity, terms: Terms<'_>, now: &Moment) -> Timestamp {
    let by_wall = freshness::refresh_at(validity, terms.margin, terms.early);
    let ahead = validity.expires_at().since(by_wall);
    let by_both = now.wall.plus(validity.left(now).saturating_sub(ahead));
    by_wall.min(by_both).max(now.wall)
}

/// Whether a demand is met by what the journal says. A live access token is enough for whoever asks for one; whoever asks
/// for a refresh is told of a doubt, a dead token or a refused client even while it lives.
pub fn meets(record: &Record, demand: Demand, profile: &Profile, now: &Moment) -> bool {
    if record.flaw.is_some() {
        return false;
    }
    let validity = record.validity.as_ref();
    let early = jitter(profile.name.as_str(), profile.margin, validity);
    let verdict = freshness::assess(record.generation, validity, demand, profile.margin, early, now);
    if let Demand::Margin { lookahead } = demand
        && is_renewal_due(record, lookahead, now)
    {
        return false;
    }
    let is_doubtful = record.open_intent().is_some() || record.open_revocation().is_some();
    let is_untroubled = !is_doubtful
        && !record.is_rejected()
        && record.hold.is_none()
        && record.conflict().is_none()
        && record.unusable.is_none()
        && record.trouble.is_none()
        && (!profile.follow || record.followable().is_some());
    verdict == Verdict::Fresh && record.has_credential() && (is_untroubled || matches!(demand, Demand::ValidFor(_)))
}

/// This profile's jitter: the same at every run, up to a tenth of its margin, so that profiles signed in together drift
/// apart (rule 34: it only ever advances).
pub fn jitter(profile: &str, margin: Margin, validity: Option<&Validity>) -> Duration {
    let Some(validity) = validity else {
        return Duration::ZERO;
    };
    // FNV-1a: stable between versions and machines, which std's hasher is not.
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
    use crate::credential::foreign::{Identity, Origin};
    use crate::credential::secret::Fingerprint;
    use crate::outcome::OutcomeKind;
    use crate::store::record::{Attempt, Hold, Intent, Rejection, Revocation, Standstill, Trouble};

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn clock() -> ManualClock {
        ManualClock::new(Timestamp::from_secs(1_790_000_000))
    }

    fn record(clock: &ManualClock) -> Record {
        let mut r = Record::new("p".parse().unwrap());
        r.generation = Generation::FIRST;
        r.fingerprint = Some(Fingerprint::from_hex("ab".into()));
        r.validity = Some(Validity { obtained: clock.now(), lifetime_ms: 1_000_000, assumed: false, is_rest: false });
        r
    }

    fn judge(r: &Record, clock: &ManualClock) -> Standing {
        let policy = Policy::default();
        let terms = Terms { policy: &policy, margin: Margin::Fixed(S(200)), early: Duration::ZERO, is_followed: false };
        standing(Some(r), terms, &clock.now())
    }

    #[test]
    fn a_credential_goes_from_fresh_to_due_to_expired() {
        let c = clock();
        let r = record(&c);
        let fresh = judge(&r, &c);
        assert_eq!((fresh.state, fresh.refresh_at), (State::Fresh, Some(c.now().wall.plus(S(800)))));
        c.advance(S(800));
        assert_eq!(judge(&r, &c).state, State::Due);
        c.advance(S(200));
        assert_eq!(judge(&r, &c).state, State::Expired);
    }

    #[test]
    fn a_pause_is_over_at_its_end() {
        let c = clock();
        let mut r = record(&c);
        c.advance(S(800));
        let (outcome, failure) = (OutcomeKind::Deferred, Failure::new(ErrorKind::Source, "away"));
        r.standstill = Some(Standstill { outcome, failure, next_look: c.now().wall.plus(S(10)), noted: None });
        assert_eq!(judge(&r, &c).state, State::Deferred);
        c.advance(S(10));
        assert_eq!(judge(&r, &c).state, State::Due);
    }

    #[test]
    fn r35_a_refresh_token_near_its_end_is_renewed_while_the_access_token_is_fresh() {
        let c = clock();
        let mut r = record(&c);
        r.validity = Some(Validity { obtained: c.now(), lifetime_ms: 90 * 86_400_000, assumed: false, is_rest: false });
        r.login_by = Some(c.now().wall.plus(S(40_000)));
        let fresh = judge(&r, &c);
        assert_eq!((fresh.state, fresh.refresh_at), (State::Fresh, Some(c.now().wall.plus(S(30_000)))));
        c.advance(S(29_999));
        assert_eq!(judge(&r, &c).state, State::Fresh);
        c.advance(S(1));
        assert_eq!(judge(&r, &c).state, State::Due);
        // A refresh that did not prolong it: three quarters of what is left, down to an hour.
        let mut times = 0;
        while judge(&r, &c).state == State::Due {
            times += 1;
            r.validity =
                Some(Validity { obtained: c.now(), lifetime_ms: 90 * 86_400_000, assumed: false, is_rest: false });
            c.advance(r.login_by.unwrap().since(c.now().wall) / 4 * 3);
        }
        assert_eq!(times, 2);
    }

    #[test]
    fn a_deferred_refresh_is_planned_when_it_is_allowed() {
        let c = clock();
        let mut r = record(&c);
        r.not_before = Some(c.now().wall.plus(S(900)));
        assert_eq!(judge(&r, &c).state, State::Fresh);
        c.advance(S(850));
        let s = judge(&r, &c);
        assert_eq!((s.state, s.refresh_at), (State::Deferred, r.not_before));
    }

    #[test]
    fn a_dead_token_is_never_fresh() {
        let c = clock();
        let mut r = record(&c);
        r.rejected = Some(Rejection {
            fingerprint: r.fingerprint.clone().unwrap(),
            at: c.now().wall,
            failure: Failure::new(ErrorKind::of_provider("invalid_grant"), "gone"),
        });
        let s = judge(&r, &c);
        assert_eq!((s.state, s.refresh_at, s.error.unwrap().kind.word()), (State::NeedsLogin, None, "invalid_grant"));
        r.fingerprint = Some(Fingerprint::from_hex("cd".into()));
        assert_eq!(judge(&r, &c).state, State::Fresh, "r22: a new token clears it");
    }

    #[test]
    fn a_followed_profile_is_looked_at_again_whatever_stands_in_its_way() {
        let c = clock();
        let mut r = record(&c);
        let policy = Policy::default();
        let judge = |r: &Record| {
            let terms =
                Terms { policy: &policy, margin: Margin::Fixed(S(200)), early: Duration::ZERO, is_followed: true };
            let s = standing(Some(r), terms, &c.now());
            (s.state, s.refresh_at.map(|at| at.since(c.now().wall).as_secs()))
        };
        assert_eq!(judge(&r), (State::ConfigError, None), "there is nothing to follow");
        let place = Some("auth.json".into());
        r.origin = Some(Origin { tool: "codex".into(), place, account: None, identity: Identity::default() });
        assert_eq!(judge(&r), (State::Fresh, Some(800)));
        let mut stop = Standstill {
            outcome: OutcomeKind::Deferred,
            failure: Failure::new(ErrorKind::Source, "away"),
            next_look: c.now().wall.plus(S(900)),
            noted: None,
        };
        r.standstill = Some(stop.clone());
        assert_eq!(judge(&r), (State::Fresh, Some(900)));
        stop.outcome = OutcomeKind::ConfigError;
        r.standstill = Some(stop);
        assert_eq!(judge(&r), (State::ConfigError, Some(900)));
        let fingerprint = r.fingerprint.clone().unwrap();
        let failure = Failure::new(ErrorKind::of_provider("invalid_grant"), "gone");
        r.rejected = Some(Rejection { fingerprint, at: c.now().wall, failure });
        assert_eq!(judge(&r), (State::NeedsLogin, Some(600)), "somebody may sign in with the tool");
    }

    #[test]
    fn r17_a_doubt_is_never_fresh() {
        let c = clock();
        let mut r = record(&c);
        r.intent = Some(Intent {
            attempt: "a".into(),
            generation: r.generation,
            fingerprint: r.fingerprint.clone().unwrap(),
            sends: 1,
            first_sent: c.now(),
            last_sent: c.now(),
            abandoned: Some(c.now()),
            abandoned_before: None,
            is_last_chance_spent: false,
            is_reusable: false,
        });
        let s = judge(&r, &c);
        assert_eq!((s.state, s.refresh_at), (State::InDoubt, Some(c.now().wall.plus(S(970)))));
        assert_eq!(s.error.unwrap().kind, ErrorKind::InDoubt, "though no run has told how it ended");
    }

    #[test]
    fn what_a_flight_can_find_out_is_looked_at_now_and_what_it_cannot_is_not() {
        let c = clock();
        let flaw = Some((State::InDoubt, Failure::new(ErrorKind::JournalMissing, "gone")));
        let mut r = Record { flaw, ..record(&c) };
        let s = judge(&r, &c);
        assert_eq!((s.state, s.refresh_at), (State::InDoubt, Some(c.now().wall)));
        r.flaw = Some((State::NeedsLogin, Failure::new(ErrorKind::Lost, "gone")));
        let s = judge(&r, &c);
        assert_eq!((s.state, s.refresh_at), (State::NeedsLogin, None));
    }

    #[test]
    fn r16_an_answer_with_nothing_to_use_is_never_fresh() {
        let c = clock();
        let mut r = record(&c);
        let error = Failure::new(ErrorKind::AtUnusable, "nothing to use");
        r.unusable = Some(error);
        // Whatever was tried since: it brought nothing to use either.
        let error = Some(Failure::new(ErrorKind::Throttled, "later"));
        r.last_attempt = Some(Attempt { at: c.now().wall, outcome: OutcomeKind::Deferred, retry_at: None, error });
        let s = judge(&r, &c);
        assert_eq!((s.state, s.refresh_at), (State::ConfigError, Some(c.now().wall)));
        assert_eq!(s.error.unwrap().kind, ErrorKind::AtUnusable);
        r.not_before = Some(c.now().wall.plus(S(9)));
        assert_eq!(judge(&r, &c).refresh_at, r.not_before);
        c.advance(S(10));
        assert_eq!(judge(&r, &c).refresh_at, Some(c.now().wall));
    }

    #[test]
    fn nothing_stored_is_no_credential() {
        let c = clock();
        let mut r = record(&c);
        r.is_tombstone = true;
        assert_eq!(judge(&r, &c).state, State::NoCredential);
        let policy = Policy::default();
        let terms = Terms { policy: &policy, margin: Margin::DEFAULT, early: Duration::ZERO, is_followed: false };
        assert_eq!(standing(None, terms, &c.now()).state, State::NoCredential);
    }

    #[test]
    fn r17_a_doubt_is_the_worse_news_beside_what_may_be_mended_and_the_better_beside_a_loss() {
        let c = clock();
        let now = c.now();
        let intent = Intent {
            attempt: "x".into(),
            generation: Generation::FIRST,
            fingerprint: Fingerprint::from_hex("aa".into()),
            sends: 1,
            first_sent: now.clone(),
            last_sent: now.clone(),
            abandoned: None,
            abandoned_before: None,
            is_last_chance_spent: false,
            is_reusable: false,
        };
        let failure = || Failure::new(ErrorKind::Io, "y");
        let hold = Some(Hold { config: "x".into(), failure: failure(), probes: 0, next_probe: now.wall, noted: None });
        let flaw = |state| Some((state, failure()));
        for (hold, flaw, with_doubt, without) in [
            (hold, None, State::InDoubt, State::ConfigError),
            (None, flaw(State::Due), State::InDoubt, State::Due),
            (None, flaw(State::NeedsLogin), State::NeedsLogin, State::NeedsLogin),
        ] {
            let calm = Record { hold, flaw, ..record(&c) };
            let doubtful = Record { intent: Some(intent.clone()), ..calm.clone() };
            assert_eq!([judge(&doubtful, &c).state, judge(&calm, &c).state], [with_doubt, without]);
        }
    }

    #[test]
    fn r34_jitter_is_stable_and_small() {
        let c = clock();
        let v = record(&c).validity;
        let of = |name: &str| jitter(name, Margin::Fixed(S(200)), v.as_ref());
        assert_eq!(of("a"), of("a"));
        let many: std::collections::BTreeSet<_> = (0..100).map(|i| of(&format!("profile-{i}"))).collect();
        assert!(many.len() > 50 && many.iter().all(|j| *j <= S(20)));
        assert_eq!(jitter("a", Margin::DEFAULT, None), Duration::ZERO);
    }

    #[test]
    fn r24_a_refused_client_is_planned_for_as_long_as_it_is_tried_by_itself() {
        let c = clock();
        for (probes, is_planned) in [(MAX_PROBES - 1, true), (MAX_PROBES, false), (MAX_PROBES + 1, false)] {
            let mut r = record(&c);
            let next_probe = c.now().wall.plus(S(60));
            let failure = Failure::new(ErrorKind::ClientRefused, "no");
            r.hold = Some(Hold { config: "x".into(), failure, probes, next_probe, noted: None });
            let s = judge(&r, &c);
            assert_eq!((s.state, s.refresh_at), (State::ConfigError, is_planned.then_some(next_probe)));
            // The probe found no server.
            let not_before = c.now().wall.plus(S(90));
            r.pause_until(Some(not_before), Some(&c.now()));
            assert_eq!(judge(&r, &c).refresh_at, is_planned.then_some(not_before));
        }
    }

    #[test]
    fn without_an_access_token_a_refresh_is_due_and_may_be_made_at_the_instant_that_was_named() {
        let c = clock();
        let mut r = Record { validity: None, ..record(&c) };
        assert_eq!(judge(&r, &c).state, State::Due);
        r.not_before = Some(c.now().wall.plus(S(1)));
        assert_eq!(judge(&r, &c).state, State::Deferred);
        c.advance(S(1));
        assert_eq!(judge(&r, &c).state, State::Due);
    }

    #[test]
    fn what_went_wrong_is_told_until_it_does_not_matter_any_more() {
        let c = clock();
        let error = Some(Failure::new(ErrorKind::Network, "away"));
        let attempt =
            Attempt { at: c.now().wall, outcome: OutcomeKind::Deferred, retry_at: None, error: error.clone() };
        let mut r = Record { last_attempt: Some(attempt), ..record(&c) };
        assert_eq!(judge(&r, &c).error, None, "the token is fresh");
        c.advance(S(800));
        assert_eq!(judge(&r, &c).error, error);
        let fingerprint = r.fingerprint.clone().unwrap();
        r.revocation = Some(Revocation { fingerprint, at: c.now().wall, is_confirmed: false });
        let s = judge(&r, &c);
        assert_eq!((s.state, s.error.unwrap().kind.word()), (State::InDoubt, "revocation_in_doubt"));
    }

    #[test]
    fn r35_a_refresh_token_of_an_hour_is_not_renewed_for_its_own_sake() {
        let c = clock();
        for (life, renewed_after) in [(3600, None), (3604, Some(2703))] {
            let r = Record { login_by: Some(c.now().wall.plus(S(life))), ..record(&c) };
            assert_eq!(renewal_at(&r).map(|at| at.since(c.now().wall)), renewed_after.map(S));
        }
    }

    #[test]
    fn whoever_asks_for_a_refresh_is_told_of_trouble_and_whoever_asks_for_a_token_gets_it() {
        let c = clock();
        let now = c.now();
        let token = record(&c).fingerprint.unwrap();
        let failure = || Failure::new(ErrorKind::Io, "y");
        let intent = Intent {
            attempt: "a".into(),
            generation: Generation::FIRST,
            fingerprint: token.clone(),
            sends: 1,
            first_sent: now.clone(),
            last_sent: now.clone(),
            abandoned: None,
            abandoned_before: None,
            is_last_chance_spent: false,
            is_reusable: false,
        };
        let unusable = Failure::new(ErrorKind::AtUnusable, "y");
        let config = OutcomeKind::ConfigError;
        let troubles = [
            Record { intent: Some(intent), ..record(&c) },
            Record {
                revocation: Some(Revocation { fingerprint: token.clone(), at: now.wall, is_confirmed: false }),
                ..record(&c)
            },
            Record { rejected: Some(Rejection { fingerprint: token, at: now.wall, failure: failure() }), ..record(&c) },
            Record {
                hold: Some(Hold {
                    config: "x".into(),
                    failure: failure(),
                    probes: 0,
                    next_probe: now.wall,
                    noted: None,
                }),
                ..record(&c)
            },
            Record {
                standstill: Some(Standstill { outcome: config, failure: failure(), next_look: now.wall, noted: None }),
                ..record(&c)
            },
            Record { unusable: Some(unusable), ..record(&c) },
            Record { trouble: Some(Trouble { outcome: config, failure: failure() }), ..record(&c) },
        ];
        let profile = |follow| Profile {
            name: "p".parse().unwrap(),
            provider: std::sync::Arc::new(crate::profile::Provider::named("acme")),
            margin: Margin::Fixed(S(200)),
            schedule: None,
            follow,
        };
        let tick = Demand::Margin { lookahead: Duration::ZERO };
        let is_met = |r: &Record, demand, follow| meets(r, demand, &profile(follow), &now);
        assert!(is_met(&record(&c), tick, false) && !is_met(&record(&c), tick, true), "nothing to follow");
        for trouble in troubles {
            assert!(!is_met(&trouble, tick, false), "{trouble:?}");
            assert!(is_met(&trouble, Demand::ValidFor(S(60)), false), "{trouble:?}");
            assert_ne!(judge(&trouble, &c).state, State::Fresh, "{trouble:?}");
        }
        assert!(!is_met(&Record { is_tombstone: true, ..record(&c) }, tick, false));
    }

    #[test]
    fn r34_a_profiles_jitter_is_the_same_on_every_machine() {
        let v = record(&clock()).validity;
        assert_eq!(jitter("xai:default", Margin::Fixed(S(200)), v.as_ref()).as_micros(), 4_160_156);
    }
}
