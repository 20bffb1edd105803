//! When an access token is refreshed because an API has rejected it, and when that has been done too lately. (pure)
//!
//! Some callers are wrong: their API answers 401 where a permission is lacking, and a new token changes nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;
use crate::store::journal::Journal;

/// A token that is younger is handed out again: many callers complain at once.
const YOUNG: Duration = Duration::from_secs(60);
const MIN_INTERVAL: Duration = Duration::from_secs(60);
const MAX_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// The intervals start anew when none was used up for this long.
const RESET_AFTER: Duration = Duration::from_secs(60 * 60);

/// The last refresh that was made because an API had rejected the access token (rule 41).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicion {
    pub at: Moment,
    /// How many of them came one after the other before it.
    pub step: u32,
}

impl Suspicion {
    fn interval(&self) -> Duration {
        MIN_INTERVAL.saturating_mul(2_u32.saturating_pow(self.step)).min(MAX_INTERVAL)
    }

    fn is_within(&self, time: Duration, now: &Moment) -> bool {
        now.pending_until(self.at.wall.plus(time), Some(&self.at)).is_some()
    }
}

impl Journal {
    /// Whether no refresh is made for an access token that an API has rejected: it is new, or one was made a moment ago.
    pub fn is_rejection_too_soon(&self, now: &Moment) -> bool {
        let is_young = self.validity.as_ref().is_some_and(|validity| validity.age(now) < YOUNG);
        // A caller that comes while that refresh is being made waits for it.
        let is_under_way = self.open_intent().is_some_and(|intent| intent.gave_up_at.is_none());
        let last = self.suspicion.as_ref().filter(|_| !is_under_way);
        is_young || last.is_some_and(|last| last.is_within(last.interval(), now))
    }

    /// A refresh is about to be made for such a token.
    pub fn note_suspicion(&mut self, now: &Moment) {
        let last = self.suspicion.as_ref().filter(|last| last.is_within(last.interval() + RESET_AFTER, now));
        let step = last.map_or(0, |last| last.step.saturating_add(1));
        self.suspicion = Some(Suspicion { at: now.clone(), step });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::credential::freshness::Validity;
    use crate::store::journal::Intent;
    use crate::store::test_samples::{intent, journal};

    const MINUTE: Duration = Duration::from_secs(60);

    fn clock() -> ManualClock {
        ManualClock::new(Timestamp::from_secs(1_790_000_000))
    }

    /// Makes a refresh if it is allowed.
    fn complain(journal: &mut Journal, clock: &ManualClock) -> bool {
        let is_allowed = !journal.is_rejection_too_soon(&clock.now());
        if is_allowed {
            journal.note_suspicion(&clock.now());
        }
        is_allowed
    }

    /// Rule 41.
    #[test]
    fn complaint_each_minute_refreshes_seven_times_an_hour() {
        let (clock, mut journal) = (clock(), journal());
        let mut minutes = Vec::new();
        for minute in 0..=190 {
            if complain(&mut journal, &clock) {
                minutes.push(minute);
            }
            clock.advance(MINUTE);
        }
        assert_eq!(minutes, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
    }

    /// Rule 41.
    #[test]
    fn complaints_start_anew_after_an_hour_of_peace() {
        let (clock, mut journal) = (clock(), journal());
        assert!(complain(&mut journal, &clock) && !complain(&mut journal, &clock));
        clock.advance(MINUTE);
        assert!(complain(&mut journal, &clock));
        clock.advance(MINUTE);
        assert!(!complain(&mut journal, &clock), "it is two minutes now");
        clock.advance(MINUTE * 61);
        assert!(complain(&mut journal, &clock));
        assert_eq!(journal.suspicion.as_ref().map(|last| last.step), Some(0));
        // After a reboot a clock that shows an earlier time proves nothing.
        clock.reboot();
        clock.set_wall(Timestamp::from_secs(1_780_000_000));
        assert!(!journal.is_rejection_too_soon(&clock.now()));
    }

    /// Rule 41.
    #[test]
    fn complaint_during_the_refresh_for_another_waits_for_it() {
        let (clock, mut journal) = (clock(), journal());
        journal.note_suspicion(&clock.now());
        journal.intent = Some(intent(journal.generation));
        assert!(!journal.is_rejection_too_soon(&clock.now()));
        journal.intent = journal.intent.map(|intent| Intent { gave_up_at: Some(clock.now()), ..intent });
        assert!(journal.is_rejection_too_soon(&clock.now()), "it is in doubt");
    }

    /// Rule 41.
    #[test]
    fn young_token_is_not_refreshed_for_a_complaint() {
        let (clock, mut journal) = (clock(), journal());
        let (obtained, lifetime_ms) = (clock.now(), 600_000);
        journal.validity =
            Some(Validity { obtained, lifetime_ms, assumed: false, is_remainder: false, expired_at: None });
        clock.advance(MINUTE - Duration::from_secs(1));
        assert!(journal.is_rejection_too_soon(&clock.now()));
        clock.advance(Duration::from_secs(1));
        assert!(!journal.is_rejection_too_soon(&clock.now()));
    }
}
