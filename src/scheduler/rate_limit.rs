//! The rate limit and the circuit breaker of each provider: so many requests at once, and only a probe while it is
//! down. (pure)

use std::time::Duration;

use crate::clock::Moment;
use crate::outcome::{ErrorKind, Outcome, OutcomeKind};
use crate::profile::ProfileName;
use crate::scheduler::plan;

/// How many requests may start at once, and how many per second after that.
const BURST: f64 = 5.0;
pub(super) const STARTS_PER_SECOND: f64 = 1.0;
/// Failures in a row, over all profiles, after which the provider counts as down.
const FAILURES_UNTIL_DOWN: u32 = 5;

/// The state of one provider.
#[derive(Clone, Debug)]
pub(super) struct RateLimiter {
    tokens: f64,
    refilled_ms: u64,
    /// Failures of the network or the server in a row.
    failures: u32,
    /// While the provider is down: when the next probe may start, by the boot clock.
    next_probe_ms: u64,
    /// The profile that probes.
    probing_profile: Option<ProfileName>,
}

/// A profile that wants to start a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartRequest<'a> {
    pub name: &'a ProfileName,
    /// How long it can wait without losing something; `None`: it has nothing left to lose.
    pub max_delay: Option<Duration>,
    /// How long a probe is waited for. One that takes longer has sent nothing: it waits for another process's lock.
    pub probe_timeout: Duration,
}

/// What an outcome says about the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Up,
    Down,
    /// It says nothing: the cause is this account, this client or this machine, or no request was made.
    Unknown,
}

impl Health {
    /// `has_asked`: the journal has an attempt that it did not have before.
    pub(super) fn of(outcome: &Outcome, has_asked: bool) -> Self {
        let kind = outcome.error.as_ref().map(|error| &error.kind);
        match (outcome.kind, kind) {
            (OutcomeKind::Refreshed, _) => Self::Up,
            (OutcomeKind::Deferred, Some(ErrorKind::Network)) | (OutcomeKind::InDoubt, Some(ErrorKind::InDoubt))
                if has_asked =>
            {
                Self::Down
            }
            // The journal has no entry for a failed discovery.
            (OutcomeKind::Deferred, Some(ErrorKind::Discovery)) => Self::Down,
            // Throttling, or a refusal without a reason, concerns one account.
            _ => Self::Unknown,
        }
    }
}

impl RateLimiter {
    pub(super) fn new(now: &Moment) -> Self {
        Self { tokens: BURST, refilled_ms: now.uptime_ms, failures: 0, next_probe_ms: 0, probing_profile: None }
    }

    /// Lets a request start, or says how long to wait before asking again.
    pub(super) fn try_start(&mut self, caller: StartRequest<'_>, now: &Moment) -> Result<(), Duration> {
        let elapsed = Duration::from_millis(now.uptime_ms.saturating_sub(self.refilled_ms));
        self.tokens = (self.tokens + elapsed.as_secs_f64() * STARTS_PER_SECOND).min(BURST);
        self.refilled_ms = now.uptime_ms;
        let wait = match self.is_down() {
            true => Duration::from_millis(self.next_probe_ms.saturating_sub(now.uptime_ms)),
            false => Duration::ZERO,
        };
        if !wait.is_zero() && caller.max_delay.is_none_or(|patience| wait <= patience) {
            return Err(wait);
        }
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) / STARTS_PER_SECOND));
        }
        self.tokens -= 1.0;
        if self.is_down() && wait.is_zero() {
            self.probing_profile = Some(caller.name.clone());
            self.next_probe_ms = uptime_after(now, caller.probe_timeout);
        }
        Ok(())
    }

    /// Records the outcome of a request that was let through.
    pub(super) fn finish(&mut self, name: &ProfileName, word: Health, now: &Moment) {
        let was_probe = self.probing_profile.take_if(|probe| probe == name).is_some();
        match word {
            Health::Up => self.failures = 0,
            // Many profiles may be unable to wait for the probe; their failures do not delay it.
            Health::Down if self.is_down() && !was_probe => {}
            Health::Down => {
                self.failures += 1;
                let pause = plan::backoff_delay(self.failures.saturating_sub(FAILURES_UNTIL_DOWN) + 1);
                self.next_probe_ms = uptime_after(now, pause);
            }
            // The probe found nothing out, so another profile may probe.
            Health::Unknown if was_probe => self.next_probe_ms = now.uptime_ms,
            Health::Unknown => {}
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.failures >= FAILURES_UNTIL_DOWN
    }
}

fn uptime_after(now: &Moment, wait: Duration) -> u64 {
    now.uptime_ms.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::outcome::Failure;

    const S: fn(u64) -> Duration = Duration::from_secs;

    struct LimiterFixture {
        clock: ManualClock,
        limiter: RateLimiter,
    }

    impl LimiterFixture {
        fn new() -> Self {
            let clock = ManualClock::new(Timestamp::from_secs(1_790_000_000));
            let turnstile = RateLimiter::new(&clock.now());
            Self { clock, limiter: turnstile }
        }

        /// At a provider that has just gone down.
        fn down() -> Self {
            let mut case = Self::new();
            for _ in 0..FAILURES_UNTIL_DOWN {
                assert_eq!(case.try_start("a"), Ok(()));
                case.finish("a", Health::Down);
            }
            case
        }

        fn try_start(&mut self, name: &str) -> Result<(), Duration> {
            self.try_start_within(name, None)
        }

        fn try_start_within(&mut self, name: &str, patience: Option<Duration>) -> Result<(), Duration> {
            let caller = StartRequest { name: &name.parse().unwrap(), max_delay: patience, probe_timeout: S(40) };
            self.limiter.try_start(caller, &self.clock.now())
        }

        fn finish(&mut self, name: &str, word: Health) {
            self.limiter.finish(&name.parse().unwrap(), word, &self.clock.now());
        }
    }

    #[test]
    fn rate_limit_allows_a_burst_then_one_per_second() {
        let mut case = LimiterFixture::new();
        for _ in 0..5 {
            assert_eq!(case.try_start("a"), Ok(()));
        }
        assert_eq!(case.try_start("a"), Err(S(1)));
        case.clock.advance(S(1));
        assert_eq!(case.try_start("a"), Ok(()));
        assert_eq!(case.try_start("a"), Err(S(1)));
    }

    #[test]
    fn down_provider_is_probed_singly_and_reopens_on_success() {
        let mut case = LimiterFixture::down();
        assert_eq!(case.try_start("a"), Err(S(5)));
        case.clock.advance(S(5));
        assert_eq!(case.try_start("a"), Ok(()), "the probe");
        assert_eq!(case.try_start("b"), Err(S(40)), "one at a time");
        case.finish("a", Health::Down);
        assert_eq!(case.try_start("b"), Err(S(10)), "and less and less often");
        case.clock.advance(S(10));
        case.try_start("b").unwrap();
        case.finish("b", Health::Up);
        for _ in 0..4 {
            assert_eq!(case.try_start("a"), Ok(()));
        }
    }

    #[test]
    fn probe_that_waits_for_a_lock_is_replaced_by_another() {
        let mut case = LimiterFixture::down();
        case.clock.advance(S(5));
        assert_eq!(case.try_start("stuck"), Ok(()));
        case.clock.advance(S(39));
        assert_eq!(case.try_start("b"), Err(S(1)));
        case.clock.advance(S(1));
        assert_eq!(case.try_start("b"), Ok(()));
        case.finish("stuck", Health::Unknown);
        assert_eq!(case.try_start("c"), Err(S(40)), "that was not the probe any more");
        case.finish("b", Health::Unknown);
        assert_eq!(case.try_start("c"), Ok(()), "nobody was asked");
    }

    /// Rule 33.
    #[test]
    fn caller_that_cannot_wait_for_the_probe_is_let_through() {
        let mut case = LimiterFixture::down();
        assert_eq!(case.try_start_within("a", Some(S(5))), Err(S(5)));
        case.clock.advance(S(1));
        assert_eq!(case.try_start_within("a", Some(S(3))), Ok(()));
        assert_eq!(case.try_start("b"), Err(S(4)), "that was no probe");
        case.finish("a", Health::Down);
        assert_eq!(case.try_start("b"), Err(S(4)), "and does not put it off");
        let refused = (0..9).find_map(|_| case.try_start_within("a", Some(S(0))).err());
        assert_eq!(refused, Some(S(1)), "nor is the rate given up");
    }

    #[test]
    fn unrelated_outcomes_do_not_mark_the_provider_down() {
        let mut case = LimiterFixture::new();
        for _ in 0..9 {
            case.clock.advance(S(1));
            case.try_start("a").unwrap();
            case.finish("a", Health::Unknown);
        }
        assert!(!case.limiter.is_down());
    }

    #[test]
    fn provider_health_follows_only_requests_sent_to_it() {
        let word =
            |kind, error, has_asked| Health::of(&Outcome::new(kind).with_error(Failure::new(error, "")), has_asked);
        use ErrorKind::{Busy, Interrupted, Network, Refused, Source, Throttled};
        for error in [Network, Throttled, Refused, Interrupted, Busy, Source] {
            let asked = if error == Network { Health::Down } else { Health::Unknown };
            assert_eq!(word(OutcomeKind::Deferred, error.clone(), false), Health::Unknown, "{error}");
            assert_eq!(word(OutcomeKind::Deferred, error.clone(), true), asked, "{error}");
        }
        assert_eq!(word(OutcomeKind::InDoubt, ErrorKind::InDoubt, true), Health::Down);
        assert_eq!(
            word(OutcomeKind::InDoubt, ErrorKind::InDoubt, false),
            Health::Unknown,
            "it waits for its last chance"
        );
        assert_eq!(word(OutcomeKind::Deferred, ErrorKind::Discovery, false), Health::Down);
        assert_eq!(word(OutcomeKind::NeedsLogin, ErrorKind::of_provider("invalid_grant"), true), Health::Unknown);
        assert_eq!(Health::of(&Outcome::new(OutcomeKind::Refreshed), true), Health::Up);
    }
}
