//! Lets requests to one provider start: so many at a time, and while the provider is down one, to see whether it is back.
//! (pure)

use std::time::Duration;

use super::plan;
use crate::clock::Moment;
use crate::outcome::{ErrorKind, Outcome, OutcomeKind};
use crate::profile::ProfileName;

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
    /// Failures of the network or the server in a row.
    failures: u32,
    /// While the provider is down: when the next probe may start, by the boot clock.
    probe_ms: u64,
    /// Who probes.
    probe: Option<ProfileName>,
}

/// Who asks to be let through.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    pub name: &'a ProfileName,
    /// How long it can wait without losing something; `None`: it has nothing left to lose.
    pub patience: Option<Duration>,
    /// How long a probe is waited for. One that takes longer does not ask: it waits for somebody else's lock.
    pub bound: Duration,
}

/// What a landing says about the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Up,
    Down,
    /// A matter of this account, this client or this machine, or nobody was asked.
    Nothing,
}

impl Word {
    /// `has_asked`: the journal notes an attempt that it did not before.
    pub fn of(outcome: &Outcome, has_asked: bool) -> Self {
        let kind = outcome.error.as_ref().map(|error| &error.kind);
        match (outcome.kind, kind) {
            (OutcomeKind::Refreshed, _) => Self::Up,
            (OutcomeKind::Deferred, Some(ErrorKind::Network)) | (OutcomeKind::InDoubt, Some(ErrorKind::InDoubt))
                if has_asked =>
            {
                Self::Down
            }
            // No journal notes that.
            (OutcomeKind::Deferred, Some(ErrorKind::Discovery)) => Self::Down,
            // An account that is throttled, or refused without a reason, is one account.
            _ => Self::Nothing,
        }
    }
}

impl Turnstile {
    pub fn new(now: &Moment) -> Self {
        Self { tokens: BURST, filled_ms: now.uptime_ms, failures: 0, probe_ms: 0, probe: None }
    }

    /// Lets one through, or says how long to wait before asking again.
    pub fn pass(&mut self, caller: Caller<'_>, now: &Moment) -> Result<(), Duration> {
        let elapsed = Duration::from_millis(now.uptime_ms.saturating_sub(self.filled_ms));
        self.tokens = (self.tokens + elapsed.as_secs_f64() * RATE).min(BURST);
        self.filled_ms = now.uptime_ms;
        let wait = match self.is_down() {
            true => Duration::from_millis(self.probe_ms.saturating_sub(now.uptime_ms)),
            false => Duration::ZERO,
        };
        if !wait.is_zero() && caller.patience.is_none_or(|patience| wait <= patience) {
            return Err(wait);
        }
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) / RATE));
        }
        self.tokens -= 1.0;
        if self.is_down() && wait.is_zero() {
            self.probe = Some(caller.name.clone());
            self.probe_ms = after(now, caller.bound);
        }
        Ok(())
    }

    /// One that was let through has landed.
    pub fn land(&mut self, name: &ProfileName, word: Word, now: &Moment) {
        let was_probe = self.probe.take_if(|probe| probe == name).is_some();
        match word {
            Word::Up => self.failures = 0,
            // Those who cannot wait for the probe may be many; it does not come later for their failures.
            Word::Down if self.is_down() && !was_probe => {}
            Word::Down => {
                self.failures += 1;
                let pause = plan::pause(self.failures.saturating_sub(DOWN_AFTER) + 1);
                self.probe_ms = after(now, pause);
            }
            // It did not find out; let another one try.
            Word::Nothing if was_probe => self.probe_ms = now.uptime_ms,
            Word::Nothing => {}
        }
    }

    pub fn is_down(&self) -> bool {
        self.failures >= DOWN_AFTER
    }
}

fn after(now: &Moment, wait: Duration) -> u64 {
    now.uptime_ms.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::outcome::Failure;

    const S: fn(u64) -> Duration = Duration::from_secs;

    struct Case {
        clock: ManualClock,
        turnstile: Turnstile,
    }

    impl Case {
        fn new() -> Self {
            let clock = ManualClock::new(Timestamp::from_secs(1_790_000_000));
            let turnstile = Turnstile::new(&clock.now());
            Self { clock, turnstile }
        }

        /// At a provider that has just gone down.
        fn down() -> Self {
            let mut case = Self::new();
            for _ in 0..DOWN_AFTER {
                assert_eq!(case.pass("a"), Ok(()));
                case.land("a", Word::Down);
            }
            case
        }

        fn pass(&mut self, name: &str) -> Result<(), Duration> {
            self.pass_within(name, None)
        }

        fn pass_within(&mut self, name: &str, patience: Option<Duration>) -> Result<(), Duration> {
            let caller = Caller { name: &name.parse().unwrap(), patience, bound: S(40) };
            self.turnstile.pass(caller, &self.clock.now())
        }

        fn land(&mut self, name: &str, word: Word) {
            self.turnstile.land(&name.parse().unwrap(), word, &self.clock.now());
        }
    }

    #[test]
    fn a_burst_goes_through_and_then_one_a_second() {
        let mut case = Case::new();
        for _ in 0..5 {
            assert_eq!(case.pass("a"), Ok(()));
        }
        assert_eq!(case.pass("a"), Err(S(1)));
        case.clock.advance(S(1));
        assert_eq!(case.pass("a"), Ok(()));
        assert!(case.pass("a").is_err());
    }

    #[test]
    fn a_provider_that_is_down_is_probed_by_one_at_a_time_and_opens_at_once() {
        let mut case = Case::down();
        assert_eq!(case.pass("a"), Err(S(5)));
        case.clock.advance(S(5));
        assert_eq!(case.pass("a"), Ok(()), "the probe");
        assert_eq!(case.pass("b"), Err(S(40)), "one at a time");
        case.land("a", Word::Down);
        assert_eq!(case.pass("b"), Err(S(10)), "and less and less often");
        case.clock.advance(S(10));
        case.pass("b").unwrap();
        case.land("b", Word::Up);
        for _ in 0..4 {
            assert_eq!(case.pass("a"), Ok(()));
        }
    }

    #[test]
    fn a_probe_that_waits_for_a_lock_gives_way_to_another() {
        let mut case = Case::down();
        case.clock.advance(S(5));
        assert_eq!(case.pass("stuck"), Ok(()));
        case.clock.advance(S(39));
        assert_eq!(case.pass("b"), Err(S(1)));
        case.clock.advance(S(1));
        assert_eq!(case.pass("b"), Ok(()));
        case.land("stuck", Word::Nothing);
        assert_eq!(case.pass("c"), Err(S(40)), "that was not the probe any more");
        case.land("b", Word::Nothing);
        assert_eq!(case.pass("c"), Ok(()), "nobody was asked");
    }

    #[test]
    fn r33_who_cannot_wait_for_the_probe_does_not() {
        let mut case = Case::down();
        assert_eq!(case.pass_within("a", Some(S(5))), Err(S(5)));
        case.clock.advance(S(1));
        assert_eq!(case.pass_within("a", Some(S(3))), Ok(()));
        assert_eq!(case.pass("b"), Err(S(4)), "that was no probe");
        case.land("a", Word::Down);
        assert_eq!(case.pass("b"), Err(S(4)), "and does not put it off");
        assert!((0..9).any(|_| case.pass_within("a", Some(S(0))).is_err()), "nor is the rate given up");
    }

    #[test]
    fn what_says_nothing_about_the_provider_does_not_close_it() {
        let mut case = Case::new();
        for _ in 0..9 {
            case.clock.advance(S(1));
            case.pass("a").unwrap();
            case.land("a", Word::Nothing);
        }
        assert!(!case.turnstile.is_down());
    }

    #[test]
    fn only_what_was_asked_of_the_provider_tells_of_it() {
        let word =
            |kind, error, has_asked| Word::of(&Outcome::new(kind).with_error(Failure::new(error, "")), has_asked);
        use ErrorKind::{Busy, Interrupted, Network, Refused, Source, Throttled};
        for error in [Network, Throttled, Refused, Interrupted, Busy, Source] {
            let asked = if error == Network { Word::Down } else { Word::Nothing };
            assert_eq!(word(OutcomeKind::Deferred, error.clone(), false), Word::Nothing, "{error}");
            assert_eq!(word(OutcomeKind::Deferred, error.clone(), true), asked, "{error}");
        }
        assert_eq!(word(OutcomeKind::InDoubt, ErrorKind::InDoubt, true), Word::Down);
        assert_eq!(
            word(OutcomeKind::InDoubt, ErrorKind::InDoubt, false),
            Word::Nothing,
            "it waits for its last chance"
        );
        assert_eq!(word(OutcomeKind::Deferred, ErrorKind::Discovery, false), Word::Down);
        assert_eq!(word(OutcomeKind::NeedsLogin, ErrorKind::of_provider("invalid_grant"), true), Word::Nothing);
        assert_eq!(Word::of(&Outcome::new(OutcomeKind::Refreshed), true), Word::Up);
    }
}
