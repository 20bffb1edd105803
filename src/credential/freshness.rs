//! Decides whether an access token is fresh enough for a demand, and when it will not be. (pure)

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Generation;
use crate::clock::{Moment, Timestamp};

/// How long before expiry a refresh is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Margin {
    Fixed(Duration),
    /// Thousandths of the token's lifetime.
    Share(u16),
    /// Thousandths of the token's lifetime, but no less than this.
    ShareAtLeast(u16, Duration),
}

impl Margin {
    /// The margin when neither profile, provider nor configuration names one: a fifth of the lifetime.
    pub const DEFAULT: Margin = Margin::Share(200);

    /// The margin for a token that lives `lifetime`: never more than half of it, so that a short token is refreshed at
    /// half its life and not in a loop.
    pub fn of(self, lifetime: Duration) -> Duration {
        let wanted = match self {
            Margin::Fixed(d) => d,
            Margin::Share(thousandths) => lifetime / 1000 * u32::from(thousandths),
            Margin::ShareAtLeast(thousandths, least) => Margin::Share(thousandths).of(lifetime).max(least),
        };
        wanted.min(lifetime / 2)
    }

    /// The margin, or `least` where that is more.
    #[must_use]
    pub fn at_least(self, least: Duration) -> Self {
        match self {
            Margin::Fixed(d) => Margin::Fixed(d.max(least)),
            Margin::Share(thousandths) => Margin::ShareAtLeast(thousandths, least),
            Margin::ShareAtLeast(thousandths, before) => Margin::ShareAtLeast(thousandths, before.max(least)),
        }
    }

    /// Whether the margin had to be cut for a token of this lifetime.
    pub fn is_cut_by(self, lifetime: Duration) -> bool {
        matches!(self, Margin::Fixed(d) if d > lifetime / 2)
    }
}

/// When an access token was obtained and how long it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// When the request for it was sent. That is the cautious moment, so latency errs on the safe side.
    pub obtained: Moment,
    /// `expires_at` minus the obtaining, in milliseconds.
    pub lifetime_ms: u64,
    /// The server did not say how long it lives; `lifetime_ms` is the provider's default.
    #[serde(default)]
    pub assumed: bool,
    /// The token was imported: `lifetime_ms` is what was left then. How long such tokens live in all is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_remainder: bool,
    /// When the token had ended that was imported too late; nothing was left then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_at: Option<Timestamp>,
}

impl Validity {
    pub fn lifetime(&self) -> Duration {
        Duration::from_millis(self.lifetime_ms)
    }

    /// How long this provider's access tokens live, if this one shows it.
    pub fn full_lifetime(&self) -> Option<Duration> {
        (!self.is_remainder).then(|| self.lifetime())
    }

    /// The margin for this token. The rest of an imported token does not show how often tokens like it can be
    /// refreshed, so a fixed margin is not cut by it.
    pub fn margin(&self, margin: Margin) -> Duration {
        match (self.full_lifetime(), margin) {
            (None, Margin::Fixed(d)) => d.min(self.lifetime()),
            (None, Margin::ShareAtLeast(_, least)) => margin.of(self.lifetime()).max(least.min(self.lifetime())),
            (None | Some(_), _) => margin.of(self.lifetime()),
        }
    }

    /// Expiry by the wall clock.
    pub fn expires_at(&self) -> Timestamp {
        self.expired_at.unwrap_or_else(|| self.obtained.wall.plus(self.lifetime()))
    }

    /// Whether nothing shows that the token lives at all: it was imported, and its age or its end is not known.
    pub fn is_unproven(&self) -> bool {
        self.assumed && self.is_remainder
    }

    /// The time left. Within the boot that obtained the token the shorter of both clocks counts; after a reboot the
    /// wall clock. A wall clock that shows a time before the token was obtained is not believed, and then nothing is
    /// left.
    pub fn remaining(&self, now: &Moment) -> Duration {
        let wall = self.expires_at().since(now.wall);
        match now.elapsed_since(&self.obtained) {
            Some(age) => wall.min(self.lifetime().saturating_sub(age)),
            None if now.wall < self.obtained.wall => Duration::ZERO,
            None => wall,
        }
    }

    /// The most time that may be left, for places where a step of the wall clock must not make a token look expired.
    /// Within the boot that obtained the token the boot clock alone counts.
    pub fn max_remaining(&self, now: &Moment) -> Duration {
        self.lifetime().saturating_sub(self.age(now))
    }

    /// Age, by the boot clock where it can tell.
    pub fn age(&self, now: &Moment) -> Duration {
        now.time_since(&self.obtained)
    }
}

/// What a caller demands of the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// It must not be within its margin before `lookahead` has passed, the time to the next tick.
    Margin { lookahead: Duration },
    /// It must have at least this much time left.
    ValidFor(Duration),
    /// It must be of a newer generation than the one seen (`--force`).
    NewerThan(Generation),
    /// So it must be, because an API has rejected the token of the one seen. `is_proven`: the caller knows which it was.
    Rejected { seen: Generation, is_proven: bool },
}

/// Whether a refresh is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    Due(DueReason),
}

/// Why a refresh is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DueReason {
    /// There is no access token.
    NoAccessToken,
    /// The access token has expired.
    Expired,
    /// The access token was imported, and its age or its end is not known.
    Unproven,
    /// It is within its margin, or will be before the next check.
    WithinMargin,
    /// It is valid, but not for as long as asked.
    TooShort,
    /// A newer generation was asked for.
    Forced,
    /// An API has rejected the access token.
    Rejected,
}

/// Assesses a credential against a demand.
///
/// `early` is the profile's share of jitter: it only ever advances a refresh, and is cut so that no refresh comes
/// before half of the lifetime (rules 32 and 34).
pub fn assess(
    generation: Generation,
    validity: Option<&Validity>,
    demand: Demand,
    margin: Margin,
    early: Duration,
    now: &Moment,
) -> Freshness {
    if let Demand::NewerThan(seen) = demand {
        return if generation > seen { Freshness::Fresh } else { Freshness::Due(DueReason::Forced) };
    }
    if let Demand::Rejected { seen, .. } = demand {
        return if generation > seen { Freshness::Fresh } else { Freshness::Due(DueReason::Rejected) };
    }
    let Some(validity) = validity else {
        return Freshness::Due(DueReason::NoAccessToken);
    };
    let left = validity.remaining(now);
    if left.is_zero() {
        return Freshness::Due(DueReason::Expired);
    }
    if validity.is_unproven() {
        return Freshness::Due(DueReason::Unproven);
    }
    let (needed, reason) = match demand {
        Demand::Margin { lookahead } => {
            (margin_with_jitter(validity, margin, early).saturating_add(lookahead), DueReason::WithinMargin)
        }
        Demand::ValidFor(wanted) => (capped_demand(wanted, validity), DueReason::TooShort),
        Demand::NewerThan(_) | Demand::Rejected { .. } => unreachable!("answered above"),
    };
    let within = match demand {
        Demand::Margin { .. } => left <= needed,
        _ => left < needed,
    };
    if within { Freshness::Due(reason) } else { Freshness::Fresh }
}

/// When the margin is reached by the wall clock, jitter included.
pub fn refresh_at(validity: &Validity, margin: Margin, early: Duration) -> Timestamp {
    if validity.is_unproven() {
        return validity.obtained.wall;
    }
    validity.expires_at().minus(margin_with_jitter(validity, margin, early))
}

fn margin_with_jitter(validity: &Validity, margin: Margin, early: Duration) -> Duration {
    let most = validity.full_lifetime().map_or(validity.lifetime(), |life| life / 2);
    validity.margin(margin).saturating_add(early).min(most)
}

/// Whether a token like this one can have `wanted` left when it reaches the caller: a twentieth of the lifetime, at
/// least 2 s, is allowed for the exchange. If the lifetime of such tokens is unknown, it can.
pub fn is_reachable(wanted: Duration, validity: &Validity) -> bool {
    validity.full_lifetime().is_none_or(|life| wanted.saturating_add((life / 20).max(Duration::from_secs(2))) <= life)
}

/// The time that is demanded of a token: no more than half of its lifetime if the wish is out of reach, so that an
/// impossible `--min-valid` refreshes at most once per half lifetime.
fn capped_demand(wanted: Duration, validity: &Validity) -> Duration {
    if is_reachable(wanted, validity) { wanted } else { wanted.min(validity.lifetime() / 2) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    const S: fn(u64) -> Duration = Duration::from_secs;
    const NO_JITTER: Duration = Duration::ZERO;

    fn token(clock: &ManualClock, lifetime: Duration) -> Validity {
        Validity {
            obtained: clock.now(),
            lifetime_ms: lifetime.as_millis() as u64,
            assumed: false,
            is_remainder: false,
            expired_at: None,
        }
    }

    fn clock() -> ManualClock {
        ManualClock::new(Timestamp::from_secs(1_790_000_000))
    }

    fn due(v: &Validity, demand: Demand, margin: Margin, now: &Moment) -> bool {
        assess(Generation::FIRST, Some(v), demand, margin, NO_JITTER, now) != Freshness::Fresh
    }

    const TICK: Demand = Demand::Margin { lookahead: Duration::ZERO };

    /// Rule 31.
    #[test]
    fn token_crossing_its_margin_before_the_next_tick_is_due() {
        let c = clock();
        let v = token(&c, S(6 * 3600));
        let margin = Margin::Fixed(S(2 * 3600));
        c.advance(S(3 * 3600 + 50 * 60));
        assert!(!due(&v, TICK, margin, &c.now()));
        assert!(due(&v, Demand::Margin { lookahead: S(4 * 3600) }, margin, &c.now()));
    }

    /// Rule 32.
    #[test]
    fn margin_beyond_the_lifetime_refreshes_at_half_life() {
        let c = clock();
        let v = token(&c, S(60));
        let margin = Margin::Fixed(S(7200));
        c.advance(S(29));
        assert!(!due(&v, TICK, margin, &c.now()));
        c.advance(S(1));
        assert!(due(&v, TICK, margin, &c.now()));
        assert!(margin.is_cut_by(S(60)) && !margin.is_cut_by(S(4 * 3600)));
    }

    /// Rule 34.
    #[test]
    fn jitter_only_advances_refresh_and_not_before_half_life() {
        let c = clock();
        let v = token(&c, S(100));
        let plain = refresh_at(&v, Margin::Fixed(S(20)), NO_JITTER);
        assert_eq!(plain, c.now().wall.plus(S(80)));
        assert_eq!(refresh_at(&v, Margin::Fixed(S(20)), S(5)), c.now().wall.plus(S(75)));
        assert_eq!(refresh_at(&v, Margin::Fixed(S(20)), S(500)), c.now().wall.plus(S(50)));
    }

    /// Rule 33.
    #[test]
    fn clock_set_back_does_not_keep_an_expired_token_fresh() {
        let c = clock();
        let v = token(&c, S(100));
        c.advance(S(101));
        c.set_wall(Timestamp::from_secs(1_790_000_010));
        assert!(due(&v, TICK, Margin::DEFAULT, &c.now()));
        assert_eq!(v.remaining(&c.now()), Duration::ZERO);
    }

    /// Rule 33.
    #[test]
    fn clock_set_forward_counts_for_expiry() {
        let c = clock();
        let v = token(&c, S(100));
        c.set_wall(Timestamp::from_secs(1_790_000_090));
        assert_eq!(v.remaining(&c.now()), S(10));
    }

    #[test]
    fn token_obtained_in_the_future_is_due_after_a_reboot() {
        let c = clock();
        let v = token(&c, S(100));
        c.reboot();
        c.set_wall(Timestamp::from_secs(1_000));
        assert!(due(&v, TICK, Margin::DEFAULT, &c.now()));
        c.set_wall(Timestamp::from_secs(1_790_000_000));
        assert_eq!(v.remaining(&c.now()), S(100));
        c.set_wall(Timestamp::from_secs(1_790_000_050));
        assert!(!due(&v, TICK, Margin::DEFAULT, &c.now()));
        assert_eq!(v.age(&c.now()), S(50));
    }

    #[test]
    fn margin_share_is_taken_of_the_lifetime_up_to_half() {
        assert_eq!(Margin::Share(200).of(S(1000)), S(200));
        assert_eq!(Margin::Share(900).of(S(1000)), S(500));
    }

    #[test]
    fn valid_for_is_met_by_exactly_the_demanded_time() {
        let c = clock();
        let v = token(&c, S(1000));
        c.advance(S(940));
        assert!(!due(&v, Demand::ValidFor(S(60)), Margin::DEFAULT, &c.now()));
        c.advance(Duration::from_millis(1));
        assert!(due(&v, Demand::ValidFor(S(60)), Margin::DEFAULT, &c.now()));
    }

    #[test]
    fn unreachable_min_valid_refreshes_once_per_half_life() {
        let c = clock();
        let v = token(&c, S(60));
        let wish = Demand::ValidFor(S(60));
        assert!(!due(&v, wish, Margin::DEFAULT, &c.now()));
        c.advance(S(30));
        assert!(!due(&v, wish, Margin::DEFAULT, &c.now()));
        c.advance(Duration::from_millis(1));
        assert!(due(&v, wish, Margin::DEFAULT, &c.now()));
        assert!(is_reachable(S(57), &v) && !is_reachable(S(58), &v));
    }

    #[test]
    fn rest_of_an_imported_lifetime_caps_no_margin_or_min_valid() {
        let c = clock();
        let v = Validity { is_remainder: true, ..token(&c, S(100)) };
        assert_eq!((v.full_lifetime(), token(&c, S(100)).full_lifetime()), (None, Some(S(100))));
        assert!(is_reachable(S(3600), &v) && due(&v, Demand::ValidFor(S(101)), Margin::DEFAULT, &c.now()));
        assert!(!due(&v, Demand::ValidFor(S(100)), Margin::DEFAULT, &c.now()));
        let fixed = |secs| Margin::Fixed(S(secs));
        assert_eq!([60, 200].map(|secs| v.margin(fixed(secs))), [S(60), S(100)]);
        assert_eq!((v.margin(Margin::Share(300)), token(&c, S(100)).margin(fixed(60))), (S(30), S(50)));
        assert!(due(&v, TICK, fixed(100), &c.now()) && !due(&v, TICK, fixed(99), &c.now()));
        // Jitter may advance it up to now, and not beyond.
        assert_eq!(refresh_at(&v, fixed(99), S(2)), c.now().wall);
    }

    #[test]
    fn imported_token_of_unknown_age_is_due_at_once() {
        let c = clock();
        let v = Validity { assumed: true, is_remainder: true, ..token(&c, S(1000)) };
        assert!(due(&v, TICK, Margin::DEFAULT, &c.now()) && due(&v, Demand::ValidFor(S(1)), Margin::DEFAULT, &c.now()));
        assert_eq!((refresh_at(&v, Margin::DEFAULT, NO_JITTER), v.remaining(&c.now())), (c.now().wall, S(1000)));
        // A server that told no lifetime granted it just now.
        let granted = Validity { assumed: true, ..token(&c, S(1000)) };
        assert!(!due(&granted, TICK, Margin::DEFAULT, &c.now()));
    }

    #[test]
    fn token_that_had_ended_keeps_the_time_of_its_end() {
        let c = clock();
        let end = c.now().wall.minus(S(86_400));
        let v = Validity { expired_at: Some(end), ..token(&c, S(0)) };
        assert_eq!((v.expires_at(), v.remaining(&c.now())), (end, S(0)));
        c.reboot();
        c.set_wall(end.minus(S(5)));
        assert_eq!(v.remaining(&c.now()), S(0), "a clock that was set back does not revive it");
    }

    #[test]
    fn newer_than_compares_generations_only() {
        let c = clock();
        let v = token(&c, S(1000));
        let g = Generation::FIRST;
        let judge = |g, seen| assess(g, Some(&v), Demand::NewerThan(seen), Margin::DEFAULT, NO_JITTER, &c.now());
        assert_eq!(judge(g, g), Freshness::Due(DueReason::Forced));
        assert_eq!(judge(g.next(), g), Freshness::Fresh);
    }

    #[test]
    fn a_credential_without_an_access_token_is_due() {
        let verdict = assess(Generation::FIRST, None, TICK, Margin::DEFAULT, NO_JITTER, &clock().now());
        assert_eq!(verdict, Freshness::Due(DueReason::NoAccessToken));
    }
}
