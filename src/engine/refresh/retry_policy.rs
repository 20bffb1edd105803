//! Decides about a refresh token that is in doubt: the decision table of [`crate::protocol`]. (pure)

use std::time::Duration;

use crate::clock::{Moment, Timestamp};
use crate::credential::freshness::Validity;
use crate::profile::{GRACE_SAFETY_MARGIN, GraceSemantics, Policy, Rotation};
use crate::provider::http::{CONNECT_SLACK, LATE_READ_TIME};
use crate::store::journal::{Intent, Journal};

/// The longest time before the access token's expiry at which the last chance comes.
const LAST_CHANCE_LEAD: Duration = Duration::from_secs(30);

/// What may be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    Send(SendKind),
    /// Nothing may be sent before this instant.
    Wait(Timestamp),
    /// Nothing may be sent any more; the token is given up when its access token expires.
    GiveUpAtExpiry(Timestamp),
    /// Nothing may be sent any more.
    Exhausted,
}

/// The rule that allows a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendKind {
    /// The token was never sent.
    First,
    /// A retry at a server that does not punish reuse.
    Retry,
    /// A retry inside the server's grace: it must be let through before this much of the boot clock has passed since
    /// the first send.
    Grace { within: Duration },
    /// One more send just before expiry, when nothing is left to lose.
    LastChance,
    /// A person insists on one more send of a token that the server rejected.
    Overruled,
}

impl RetryDecision {
    /// When the token may be sent again, by this decision and the journal; `None`: never.
    pub fn retry_at(self, journal: &Journal, now: &Moment) -> Option<Timestamp> {
        let at = match self {
            Self::Send(_) => now.wall,
            Self::Wait(at) => at,
            Self::GiveUpAtExpiry(_) | Self::Exhausted => return None,
        };
        journal.blocked_until(now).max(Some(at))
    }
}

/// Decides about the doubt of a journal, if there is one.
pub fn decide_doubt(journal: &Journal, policy: &Policy, now: &Moment) -> Option<RetryDecision> {
    Some(decide(journal.open_intent()?, policy, journal.validity.as_ref(), now))
}

/// As [`decide_doubt`], if the access token is of no use any more, however long it lives (rule 41).
pub fn decide_doubt_as_expired(journal: &Journal, policy: &Policy, now: &Moment) -> Option<RetryDecision> {
    journal.open_intent().map(|intent| decide(intent, policy, None, now))
}

/// Decides about a doubt.
fn decide(intent: &Intent, policy: &Policy, validity: Option<&Validity>, now: &Moment) -> RetryDecision {
    match policy.rotation {
        Rotation::None => RetryDecision::Send(SendKind::Retry),
        Rotation::Lenient => match settled_at(intent, policy, now) {
            Some(at) => RetryDecision::Wait(at),
            None => RetryDecision::Send(SendKind::Retry),
        },
        Rotation::Grace => {
            decide_grace_retry(intent, policy, now).unwrap_or_else(|| decide_last_chance(intent, policy, validity, now))
        }
        Rotation::Strict => decide_last_chance(intent, policy, validity, now),
    }
}

/// The one retry inside the grace window; `None` if there is none, or no longer.
fn decide_grace_retry(intent: &Intent, policy: &Policy, now: &Moment) -> Option<RetryDecision> {
    if intent.send_count > 1 || !policy.grace_fits() {
        return None;
    }
    // Rule 21: after a reboot it is unknown how much of the window is gone.
    let elapsed = now.elapsed_since(&intent.first_sent)?;
    let within = policy.reuse_grace - GRACE_SAFETY_MARGIN;
    if elapsed >= within {
        return None;
    }
    let send = RetryDecision::Send(SendKind::Grace { within });
    match (policy.grace_semantics, settled_at(intent, policy, now)) {
        (GraceSemantics::Same | GraceSemantics::Multi, _) | (GraceSemantics::Latest, None) => Some(send),
        (GraceSemantics::Latest, Some(at)) => {
            let is_open_then = elapsed + at.since(now.wall) < within;
            is_open_then.then_some(RetryDecision::Wait(at))
        }
    }
}

/// The rest of the grace window, while the one retry inside it is still possible.
pub fn grace_remaining(intent: &Intent, policy: &Policy, now: &Moment) -> Option<Duration> {
    if policy.rotation != Rotation::Grace {
        return None;
    }
    decide_grace_retry(intent, policy, now)?;
    let gone = now.elapsed_since(&intent.first_sent)?;
    Some((policy.reuse_grace - GRACE_SAFETY_MARGIN).saturating_sub(gone))
}

fn decide_last_chance(intent: &Intent, policy: &Policy, validity: Option<&Validity>, now: &Moment) -> RetryDecision {
    if intent.is_last_chance_used {
        return RetryDecision::Exhausted;
    }
    let left = validity.map_or(Duration::ZERO, |v| v.max_remaining(now));
    if !policy.last_chance {
        return if left.is_zero() {
            RetryDecision::Exhausted
        } else {
            RetryDecision::GiveUpAtExpiry(now.wall.plus(left))
        };
    }
    let lead = validity.map_or(Duration::ZERO, last_chance_lead);
    let until_lead = left.saturating_sub(lead);
    let until_settled = settled_at(intent, policy, now).map_or(Duration::ZERO, |at| at.since(now.wall));
    let wait = until_lead.max(until_settled);
    if wait.is_zero() { RetryDecision::Send(SendKind::LastChance) } else { RetryDecision::Wait(now.wall.plus(wait)) }
}

fn last_chance_lead(validity: &Validity) -> Duration {
    LAST_CHANCE_LEAD.min(validity.lifetime() / 4)
}

/// When the last chance comes.
pub fn last_chance_at(validity: &Validity) -> Timestamp {
    validity.expires_at().minus(last_chance_lead(validity))
}

/// Until when the abandoned request may still be processed; `None` once that is over.
fn settled_at(intent: &Intent, policy: &Policy, now: &Moment) -> Option<Timestamp> {
    // A process that died recorded no end. It had connected by the first send, and waited at most `timeout` after the
    // send, and then read on.
    let exchange = policy.connect_timeout + CONNECT_SLACK + policy.timeout + LATE_READ_TIME;
    let (from, bound) = match &intent.gave_up_at {
        Some(abandoned) => (abandoned, policy.settle),
        None => (&intent.last_sent, exchange + policy.settle),
    };
    let left = bound.saturating_sub(now.time_since(from));
    (!left.is_zero()).then(|| now.wall.plus(left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::credential::Generation;
    use crate::credential::secret::Fingerprint;

    const S: fn(u64) -> Duration = Duration::from_secs;

    struct Case {
        clock: ManualClock,
        intent: Intent,
        policy: Policy,
        validity: Option<Validity>,
    }

    fn case(rotation: Rotation) -> Case {
        let clock = ManualClock::new(Timestamp::from_secs(1_790_000_000));
        let now = clock.now();
        let sent = Intent::new("a", Generation::FIRST, Fingerprint::from_hex("0".repeat(32)), &now);
        let intent = Intent { gave_up_at: Some(now.clone()), ..sent };
        let validity = Some(Validity {
            obtained: now,
            lifetime_ms: 600_000,
            assumed: false,
            is_remainder: false,
            expired_at: None,
        });
        Case { clock, intent, policy: Policy { rotation, ..Policy::default() }, validity }
    }

    impl Case {
        fn resolve(&self) -> RetryDecision {
            decide(&self.intent, &self.policy, self.validity.as_ref(), &self.clock.now())
        }

        fn wait(&self) -> Duration {
            match self.resolve() {
                RetryDecision::Wait(at) => at.since(self.clock.now().wall),
                other => panic!("{other:?}"),
            }
        }

        fn grace(mut self, semantics: GraceSemantics, grace: u64, timeout: u64) -> Self {
            self.policy.grace_semantics = semantics;
            self.policy.reuse_grace = S(grace);
            self.policy.timeout = S(timeout);
            self
        }
    }

    /// Rule 17.
    #[test]
    fn strict_token_in_doubt_waits_until_just_before_expiry() {
        let c = case(Rotation::Strict);
        assert_eq!(c.wait(), S(570));
        c.clock.advance(S(569));
        assert_eq!(c.wait(), S(1));
        c.clock.advance(S(1));
        assert_eq!(c.resolve(), RetryDecision::Send(SendKind::LastChance));
    }

    /// Rule 18.
    #[test]
    fn last_chance_is_sent_only_once() {
        let mut c = case(Rotation::Strict);
        c.intent.is_last_chance_used = true;
        assert_eq!(c.resolve(), RetryDecision::Exhausted);
        c.clock.advance(S(10_000));
        assert_eq!(c.resolve(), RetryDecision::Exhausted);
    }

    /// Rule 20.
    #[test]
    fn last_chance_waits_until_the_first_request_is_settled() {
        let mut c = case(Rotation::Strict);
        c.validity = None;
        assert_eq!(c.wait(), S(15));
        c.intent.gave_up_at = None;
        assert_eq!(c.wait(), S(61));
        c.clock.advance(S(61));
        assert_eq!(c.resolve(), RetryDecision::Send(SendKind::LastChance));
    }

    #[test]
    fn short_lifetime_shortens_the_lead_of_the_last_chance() {
        let mut c = case(Rotation::Strict);
        c.validity.as_mut().unwrap().lifetime_ms = 60_000;
        assert_eq!(c.wait(), S(45));
    }

    #[test]
    fn token_is_given_up_at_expiry_without_a_last_chance() {
        let mut c = case(Rotation::Strict);
        c.policy.last_chance = false;
        assert_eq!(c.resolve(), RetryDecision::GiveUpAtExpiry(c.clock.now().wall.plus(S(600))));
        c.clock.advance(S(600));
        assert_eq!(c.resolve(), RetryDecision::Exhausted);
    }

    #[test]
    fn server_that_does_not_rotate_is_retried_at_once() {
        assert_eq!(case(Rotation::None).resolve(), RetryDecision::Send(SendKind::Retry));
    }

    #[test]
    fn lenient_server_is_retried_once_the_first_request_settles() {
        let c = case(Rotation::Lenient);
        assert_eq!(c.wait(), S(15));
        c.clock.advance(S(15));
        assert_eq!(c.resolve(), RetryDecision::Send(SendKind::Retry));
    }

    /// Rule 19.
    #[test]
    fn same_and_multi_grace_retry_only_inside_the_window() {
        for semantics in [GraceSemantics::Same, GraceSemantics::Multi] {
            let c = case(Rotation::Grace).grace(semantics, 30, 10);
            assert_eq!(c.resolve(), RetryDecision::Send(SendKind::Grace { within: S(28) }));
            c.clock.advance(S(28));
            assert_eq!(c.wait(), S(570 - 28));
        }
    }

    /// Rule 19.
    #[test]
    fn grace_is_reported_only_while_a_retry_fits_into_it() {
        let left = |c: &Case| grace_remaining(&c.intent, &c.policy, &c.clock.now());
        let mut c = case(Rotation::Grace).grace(GraceSemantics::Same, 30, 10);
        assert_eq!(left(&c), Some(S(28)));
        c.clock.advance(S(27));
        assert_eq!(left(&c), Some(S(1)));
        c.clock.advance(S(1));
        assert_eq!(left(&c), None);
        c = case(Rotation::Grace).grace(GraceSemantics::Same, 30, 10);
        c.intent.send_count = 2;
        assert_eq!(left(&c), None, "it has been made");
        assert_eq!(left(&case(Rotation::Strict).grace(GraceSemantics::Same, 30, 10)), None);
    }

    /// Rule 19.
    #[test]
    fn grace_too_short_for_the_timeouts_acts_as_strict() {
        let c = case(Rotation::Grace).grace(GraceSemantics::Same, 30, 15);
        assert!(!c.policy.grace_fits());
        assert_eq!(c.wait(), S(570));
        assert!(case(Rotation::Grace).grace(GraceSemantics::Same, 30, 14).policy.grace_fits());
    }

    /// Rule 20.
    #[test]
    fn latest_grace_waits_until_the_first_request_is_settled() {
        let c = case(Rotation::Grace).grace(GraceSemantics::Latest, 60, 10);
        assert_eq!(c.wait(), S(15));
        c.clock.advance(S(15));
        assert_eq!(c.resolve(), RetryDecision::Send(SendKind::Grace { within: S(58) }));
        let mut late = case(Rotation::Grace).grace(GraceSemantics::Latest, 60, 10);
        late.clock.advance(S(42));
        late.intent.gave_up_at = Some(late.clock.now());
        assert_eq!(late.wait(), S(15));
        late.clock.advance(S(1));
        late.intent.gave_up_at = Some(late.clock.now());
        assert_eq!(late.wait(), S(527), "the window closes as Q is over");
    }

    /// Rule 21.
    #[test]
    fn reboot_closes_the_grace_window() {
        let c = case(Rotation::Grace).grace(GraceSemantics::Same, 30, 10);
        c.clock.reboot();
        assert_eq!(c.wait(), S(570));
    }

    /// Rule 18.
    #[test]
    fn second_send_inside_grace_leaves_only_the_last_chance() {
        let mut c = case(Rotation::Grace).grace(GraceSemantics::Same, 300, 10);
        c.intent.send_count = 2;
        assert_eq!(c.wait(), S(570));
    }
}
