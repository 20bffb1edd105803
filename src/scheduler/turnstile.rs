//! Lets requests to one provider start: so many at a time, and while the provider is down one, to see whether it is back.
//! (pure)

use std::time::Duration;

use super::plan;
use crate::clock::Moment;
use crate::outcome::{Outcome, OutcomeKind};

/// Most requests started at once, and per second after that.
const BURST: f64 = 5.0;
pub const RATE: f64 = 1.0;
/// Failures in a row, over all profiles, after which the provider counts as down.
const DOWN_AFTER: u32 = 5;

/// One provider's.
#[derive(Clone, Debug)]
pub struct Turnstile {
    tokens: f64,
    filled_ms: u64,
    flying: u32,
    /// Failures of the network or the server in a row.
    failures: u32,
    /// While the provider is down: when the next probe may start, by the boot clock.
    probe_ms: u64,
}

impl Turnstile {
    pub fn new(now: &Moment) -> Self {
        Self { tokens: BURST, filled_ms: now.uptime_ms, flying: 0, failures: 0, probe_ms: 0 }
    }

    /// Lets one through, or says how long to wait before asking again.
    pub fn pass(&mut self, now: &Moment) -> Result<(), Duration> {
        let elapsed = Duration::from_millis(now.uptime_ms.saturating_sub(self.filled_ms));
        self.tokens = (self.tokens + elapsed.as_secs_f64() * RATE).min(BURST);
        self.filled_ms = now.uptime_ms;
        if self.is_down() {
            let wait = Duration::from_millis(self.probe_ms.saturating_sub(now.uptime_ms));
            if self.flying > 0 || !wait.is_zero() {
                return Err(wait.max(Duration::from_secs(1)));
            }
        }
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) / RATE));
        }
        self.tokens -= 1.0;
        self.flying += 1;
        Ok(())
    }

    /// One that was let through has landed.
    pub fn land(&mut self, outcome: &Outcome, now: &Moment) {
        self.flying = self.flying.saturating_sub(1);
        match outcome.kind {
            OutcomeKind::Refreshed => self.failures = 0,
            OutcomeKind::Deferred | OutcomeKind::InDoubt => {
                self.failures += 1;
                let pause = plan::pause(self.failures.saturating_sub(DOWN_AFTER) + 1);
                self.probe_ms = now.uptime_ms.saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
            }
            // A matter of this profile, this client or this machine: it says nothing about the provider.
            OutcomeKind::Fresh | OutcomeKind::NeedsLogin | OutcomeKind::ConfigError | OutcomeKind::StoreUnavailable => {
            }
        }
    }

    fn is_down(&self) -> bool {
        self.failures >= DOWN_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};

    fn clock() -> ManualClock {
        ManualClock::new(Timestamp::from_secs(1_790_000_000))
    }

    fn land(turnstile: &mut Turnstile, clock: &ManualClock, kind: OutcomeKind) {
        turnstile.land(&Outcome::new(kind), &clock.now());
    }

    #[test]
    fn a_burst_goes_through_and_then_one_a_second() {
        let clock = clock();
        let mut turnstile = Turnstile::new(&clock.now());
        for _ in 0..5 {
            assert_eq!(turnstile.pass(&clock.now()), Ok(()));
        }
        assert_eq!(turnstile.pass(&clock.now()), Err(Duration::from_secs(1)));
        clock.advance(Duration::from_secs(1));
        assert_eq!(turnstile.pass(&clock.now()), Ok(()));
        assert!(turnstile.pass(&clock.now()).is_err());
    }

    #[test]
    fn a_provider_that_is_down_is_probed_by_one_at_a_time_and_opens_at_once() {
        let clock = clock();
        let mut turnstile = Turnstile::new(&clock.now());
        for _ in 0..5 {
            turnstile.pass(&clock.now()).unwrap();
        }
        for _ in 0..5 {
            land(&mut turnstile, &clock, OutcomeKind::Deferred);
        }
        assert_eq!(turnstile.pass(&clock.now()), Err(Duration::from_secs(5)));
        clock.advance(Duration::from_secs(5));
        assert_eq!(turnstile.pass(&clock.now()), Ok(()), "the probe");
        assert_eq!(turnstile.pass(&clock.now()), Err(Duration::from_secs(1)), "one at a time");
        land(&mut turnstile, &clock, OutcomeKind::InDoubt);
        assert_eq!(turnstile.pass(&clock.now()), Err(Duration::from_secs(10)), "and less and less often");
        clock.advance(Duration::from_secs(10));
        turnstile.pass(&clock.now()).unwrap();
        land(&mut turnstile, &clock, OutcomeKind::Refreshed);
        for _ in 0..4 {
            assert_eq!(turnstile.pass(&clock.now()), Ok(()));
        }
    }

    #[test]
    fn troubles_of_one_profile_say_nothing_about_its_provider() {
        let clock = clock();
        let mut turnstile = Turnstile::new(&clock.now());
        for _ in 0..9 {
            clock.advance(Duration::from_secs(1));
            turnstile.pass(&clock.now()).unwrap();
            land(&mut turnstile, &clock, OutcomeKind::NeedsLogin);
        }
        assert!(!turnstile.is_down());
    }
}
