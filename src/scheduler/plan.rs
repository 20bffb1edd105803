//! Decides when a profile is checked next, and with what demand. (pure)

use std::time::Duration;

use crate::clock::{Moment, Timestamp};
use crate::credential::freshness::Demand;
use crate::engine::status::ProfileStatus;
use crate::outcome::ProfileState;
use crate::profile::Profile;

/// The time of the next check of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextCheck {
    /// By the wall clock.
    pub at: Timestamp,
    /// By the boot clock, in milliseconds: a wall clock that is set back does not postpone the check.
    pub uptime_ms: u64,
}

impl NextCheck {
    /// A check `wait` from now.
    pub fn after(now: &Moment, wait: Duration) -> Self {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self { at: now.wall.plus(wait), uptime_ms: now.uptime_ms.saturating_add(wait_ms) }
    }

    /// A check at an instant of the wall clock.
    pub fn at(now: &Moment, at: Timestamp) -> Self {
        Self { at, uptime_ms: Self::after(now, at.since(now.wall)).uptime_ms }
    }

    /// The time left until either clock says that the check is due.
    pub fn wait(&self, now: &Moment) -> Duration {
        let by_boot = Duration::from_millis(self.uptime_ms.saturating_sub(now.uptime_ms));
        self.at.since(now.wall).min(by_boot)
    }

    pub fn is_due(&self, now: &Moment) -> bool {
        self.wait(now).is_zero()
    }
}

/// The next check: at the time that the status names (the margin, a retry, a last chance), and at every cron tick. The
/// margin is observed whatever the schedule says; cron only adds checks. `None`: only a person can help.
pub fn next_check(profile: &Profile, status: &ProfileStatus, now: &Moment) -> Option<NextCheck> {
    let planned = status.refresh_at?;
    let tick = profile.schedule.as_ref().and_then(|s| s.next_after(now.wall));
    let is_tick_useful = matches!(status.state, ProfileState::Fresh | ProfileState::Due);
    let at = match tick.filter(|_| is_tick_useful) {
        Some(tick) => planned.min(tick),
        None => planned,
    };
    Some(NextCheck::at(now, at))
}

/// Why a profile is checked at the time that [`next_check`] names, for the log.
pub fn check_reason(status: &ProfileStatus, next: Option<&NextCheck>) -> &'static str {
    match (status.state, next) {
        (_, None) if status.is_in_flight => "another process waits for its response",
        (_, None) => "only a person can help",
        (_, Some(next)) if status.refresh_at != Some(next.at) => "the schedule",
        (ProfileState::Fresh, Some(_)) => "the margin of the access token",
        (ProfileState::Due | ProfileState::Expired | ProfileState::NoCredential, Some(_)) => "a refresh is due",
        (ProfileState::InDoubt, Some(_)) => "the retry or the last chance of a request in doubt",
        (ProfileState::Deferred, Some(_)) => "the end of a pause",
        (ProfileState::NeedsLogin | ProfileState::ConfigError | ProfileState::StoreUnavailable, Some(_)) => {
            "a look whether it has been corrected"
        }
    }
}

/// What to ask for at a look. With a schedule, whatever would cross its margin before the next tick is due now
/// (rule 31); without one, what has crossed it.
pub fn demand(profile: &Profile, now: &Moment) -> Demand {
    let next = profile.schedule.as_ref().and_then(|s| s.next_after(now.wall));
    Demand::Margin { lookahead: next.map_or(Duration::ZERO, |tick| tick.since(now.wall)) }
}

/// The reason why a schedule cannot keep a profile out of its margin, if so. It is known as soon as the lifetime is.
pub fn sparse_schedule_warning(profile: &Profile, lifetime: Duration, now: Timestamp) -> Option<String> {
    if profile.margin.is_cut_by(lifetime) {
        return Some(format!(
            "the margin is more than half of the token's lifetime ({} s); using half of the lifetime",
            lifetime.as_secs()
        ));
    }
    let schedule = profile.schedule.as_ref()?;
    let first = schedule.next_after(now)?;
    let gap = schedule.next_after(first)?.since(first);
    let room = lifetime.saturating_sub(profile.margin.of(lifetime));
    (gap > room).then(|| {
        format!(
            "the schedule interval of {} s is too long for a token lifetime of {} s with this margin; the daemon also \
             refreshes between ticks",
            gap.as_secs(),
            lifetime.as_secs()
        )
    })
}

/// The reason why so many profiles of one provider cannot all be refreshed within their margin, if so: requests to a
/// provider start `rate` times a second, and half of the margin is kept as a reserve.
pub fn overload_warning(provider: &str, profiles: usize, rate: f64, margin: Duration) -> Option<String> {
    let needed = Duration::from_secs_f64(profiles as f64 / rate);
    (needed > margin / 2).then(|| {
        format!(
            "{profiles} profiles of {provider} take {} s to refresh, which is more than half of their margin ({} s): \
             increase the margin",
            needed.as_secs(),
            margin.as_secs()
        )
    })
}

/// The pause after failures in a row that name no retry time themselves.
pub fn backoff_delay(failures: u32) -> Duration {
    Duration::from_secs(5)
        .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(8)))
        .min(Duration::from_secs(300))
}

/// The shortest delay after a check that did not help, although the journal plans the next one for at once. It grows
/// with repetition.
pub fn minimum_delay(times: u32) -> Duration {
    backoff_delay(times) / 5
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 34.
    #[test]
    fn more_profiles_than_the_rate_allows_are_warned_about() {
        let hour = Duration::from_secs(3600);
        assert_eq!(overload_warning("xai", 1800, 1.0, hour), None);
        assert!(overload_warning("xai", 1801, 1.0, hour).unwrap().starts_with("1801 profiles of xai take 1801 s"));
    }
}
