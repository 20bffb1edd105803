//! How long to wait after a refusal or a failure that may pass. (pure)

use std::time::Duration;

/// The first step of the pause, which doubles with every failure in a row.
const BASE_DELAY: Duration = Duration::from_secs(2);
/// The longest pause without `Retry-After`.
const MAX_DELAY: Duration = Duration::from_secs(15 * 60);
/// The longest pause after a failed connection: the server has asked for none, and the network may be back at any moment.
pub const UNSENT_MAX_DELAY: Duration = Duration::from_secs(60);
/// The shortest pause, so that no run can spin.
const MIN_DELAY: Duration = Duration::from_secs(1);
/// The pause after a refusal without a known reason: the token is presumed unspent, but another request would probably
/// not help.
pub const UNCLASSIFIED_DELAY: Duration = Duration::from_secs(10 * 60);
/// The pause between automatic probes of a client that the provider refuses.
pub const CLIENT_PROBE_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// The pause before the store of a followed tool is read again, after it could not be read.
pub const FOLLOW_RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// The pause before it is read again, after it held something that cannot be reconciled.
pub const FOLLOW_CONFLICT_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// The delay after the `failures`-th failure in a row (1 is the first): full jitter, cut so that one more try fits into
/// what is `left` of the access token, but never below what the server asked for (`Retry-After`).
///
/// `random` is uniform in 0..=1.
pub fn retry_delay(failures: u32, retry_after: Option<Duration>, left: Duration, random: f64) -> Duration {
    let step = BASE_DELAY.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(16))).min(MAX_DELAY);
    let jittered = step.mul_f64(random.clamp(0.0, 1.0)).max(MIN_DELAY);
    let half_left = left / 2;
    let cut = if half_left > MIN_DELAY { jittered.min(half_left) } else { jittered };
    cut.max(retry_after.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn backoff_doubles_up_to_fifteen_minutes() {
        let steps: Vec<_> = [1, 2, 3, 9, 10, 40].map(|n| retry_delay(n, None, S(0), 1.0).as_secs()).into();
        assert_eq!(steps, [2, 4, 8, 512, 900, 900]);
        assert_eq!(retry_delay(5, None, S(0), 0.0), MIN_DELAY);
    }

    /// Rule 25.
    #[test]
    fn retry_after_is_the_minimum_backoff() {
        assert_eq!(retry_delay(1, Some(S(600)), S(60), 0.5), S(600));
        assert_eq!(retry_delay(10, Some(S(1)), S(0), 1.0), S(900));
    }

    #[test]
    fn backoff_leaves_time_for_one_more_try_before_expiry() {
        assert_eq!(retry_delay(10, None, S(120), 1.0), S(60));
        assert_eq!(retry_delay(10, None, S(3), 1.0), Duration::from_millis(1500));
        assert_eq!(retry_delay(10, None, S(2), 1.0), S(900), "too late for one more");
    }
}
