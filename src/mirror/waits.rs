//! How long the mirrors may delay the process that writes them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

/// How long a run that ends waits for all its mirrors together.
const OF_A_RUN: Duration = Duration::from_secs(5);

/// What is left of the time that this process may wait; `None`: as long as each wait needs.
#[derive(Debug)]
pub(super) struct Waits(Mutex<Option<Duration>>);

impl Default for Waits {
    fn default() -> Self {
        Self(Mutex::new(Some(OF_A_RUN)))
    }
}

impl Waits {
    pub(super) fn limit(&self, left: Option<Duration>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = left;
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether nothing may wait any longer.
    pub(super) fn is_used_up(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|left| left.is_zero())
    }

    /// Does something that may wait for the time that it is told: at most `most`, and what is left.
    pub(super) fn within<T>(&self, clock: &dyn Clock, most: Duration, wait: impl FnOnce(Duration) -> T) -> T {
        let left = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let began = clock.now();
        let done = wait(left.map_or(most, |left| left.min(most)));
        let waited = clock.now().time_since(&began);
        if let Some(left) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            *left = left.saturating_sub(waited);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    /// What was lost: five seconds for each of ten mirrors.
    #[test]
    fn mirrors_of_a_run_share_one_wait() {
        let (waits, clock) = (Waits::default(), ManualClock::new(Timestamp::from_secs(1)));
        let seconds = |most: u64, used: u64| {
            let most = Duration::from_secs(most);
            waits.within(&clock, most, |given| {
                clock.advance(Duration::from_secs(used));
                given.as_secs()
            })
        };
        assert_eq!([seconds(15, 3), seconds(15, 4), seconds(15, 0)], [5, 2, 0]);
        waits.limit(None);
        assert_eq!([seconds(15, 9), seconds(60, 0)], [15, 60]);
        waits.limit(Some(Duration::ZERO));
        assert_eq!(seconds(15, 0), 0);
    }
}
