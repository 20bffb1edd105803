//! Time as values: the wall clock, the boot clock beside it, and a clock that tests can set.

use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant of the wall clock, in milliseconds since the Unix epoch. Serialised as RFC 3339 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// 9999-12-31T23:59:59Z: the last instant that RFC 3339 can write.
const MAX_MS: i64 = 253_402_300_799_000;

impl Timestamp {
    /// An instant from milliseconds since the Unix epoch, clamped to what RFC 3339 can write.
    pub const fn from_millis(ms: i64) -> Self {
        Self(if ms < 0 {
            0
        } else if ms > MAX_MS {
            MAX_MS
        } else {
            ms
        })
    }

    pub const fn from_secs(secs: i64) -> Self {
        Self::from_millis(secs.saturating_mul(1000))
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero if `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// The time since the Unix epoch; none before it.
    pub fn since_epoch(self) -> Duration {
        self.since(Self::from_secs(0))
    }

    pub fn plus(self, d: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(as_i64_millis(d)))
    }

    pub fn minus(self, d: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(as_i64_millis(d)))
    }

    /// The instant without its milliseconds, for people.
    pub const fn to_the_second(self) -> Self {
        Self(self.0 - self.0.rem_euclid(1000))
    }

    /// The instant on the clock of this machine, to the second, with its offset.
    pub fn local(self) -> String {
        self.to_utc().with_timezone(&chrono::Local).format("%Y-%m-%d %H:%M:%S %:z").to_string()
    }

    /// The instant as a person says it who knows that it is near `now`: the time, and the day if it is another one.
    pub fn local_short(self, now: Self) -> String {
        let [at, now] = [self, now].map(|t| t.to_utc().with_timezone(&chrono::Local));
        let form = if at.date_naive() == now.date_naive() { "%H:%M" } else { "%b %-d, %H:%M" };
        at.format(form).to_string()
    }

    /// The instant in chrono's type, for calendar work.
    pub fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or_default()
    }

    /// Reads RFC 3339 with any offset.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let t = DateTime::parse_from_rfc3339(text).ok()?;
        Some(Self::from_millis(t.timestamp_millis()))
    }
}

/// A duration as people write it: `90s`, `15m`, `2h`, `1d 12h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| {
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match is_number {
            true => format!("it has no unit; did you mean {text}s?"),
            false => "it is not a duration; write it like 90s, 15m, 2h or \"1d 12h\"".into(),
        }
    })
}

fn as_i64_millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(t: DateTime<Utc>) -> Self {
        Self::from_millis(t.timestamp_millis())
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let form = if self.0 % 1000 == 0 { SecondsFormat::Secs } else { SecondsFormat::Millis };
        f.write_str(&self.to_utc().to_rfc3339_opts(form, true))
    }
}

impl std::fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse_rfc3339(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

/// What both clocks of this machine say at one instant.
///
/// The wall clock can be set; the boot clock (Linux: `CLOCK_BOOTTIME`, which counts suspend) cannot, but starts anew at
/// every boot. Elapsed time is trusted only within one boot; see rule 21 of the refresh protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    pub wall: Timestamp,
    /// Names this boot; the empty text where the platform has no such name.
    pub boot_id: String,
    /// Milliseconds since boot, suspend included.
    pub uptime_ms: u64,
}

impl Moment {
    /// The time from `earlier` to `self` by the boot clock, or `None` after a reboot.
    pub fn elapsed_since(&self, earlier: &Moment) -> Option<Duration> {
        if self.boot_id.is_empty() || self.boot_id != earlier.boot_id {
            return None;
        }
        self.uptime_ms.checked_sub(earlier.uptime_ms).map(Duration::from_millis)
    }

    /// Until when a wait for `at` lasts, by the wall clock as it is set now; `None` if it is over. Within the boot in
    /// which the wait was noted the boot clock alone decides, however the wall clock was set. After a reboot, a wall
    /// clock that shows a time before the note proves nothing.
    pub fn pending_until(&self, at: Timestamp, noted: Option<&Moment>) -> Option<Timestamp> {
        let until = match noted.map(|noted| (noted, self.elapsed_since(noted))) {
            None => at,
            Some((noted, None)) if self.wall < noted.wall => return None,
            Some((_, None)) => at,
            Some((noted, Some(elapsed))) => {
                let by_boot = self.wall.plus(at.since(noted.wall).saturating_sub(elapsed));
                // The two clocks drift by milliseconds; a time that is told should stay the same.
                let is_set = at.since(by_boot).max(by_boot.since(at)) > Duration::from_secs(1);
                if is_set { by_boot } else { at }
            }
        };
        (until > self.wall).then_some(until)
    }

    /// The time from `earlier` to `self`, by the boot clock where it can tell, else by the wall clock.
    pub fn time_since(&self, earlier: &Moment) -> Duration {
        self.elapsed_since(earlier).unwrap_or_else(|| self.wall.since(earlier.wall))
    }
}

/// A clock. Outside `sys` it is the only way to the time.
pub trait Clock: Send + Sync {
    fn now(&self) -> Moment;
}

/// A clock for tests, which stands still until it is moved.
pub struct ManualClock(Mutex<Moment>);

impl ManualClock {
    pub fn new(wall: Timestamp) -> Self {
        Self(Mutex::new(Moment { wall, boot_id: "boot-1".into(), uptime_ms: 1_000_000 }))
    }

    /// Lets `d` pass on both clocks.
    pub fn advance(&self, d: Duration) {
        let mut m = self.lock();
        m.wall = m.wall.plus(d);
        m.uptime_ms += d.as_millis() as u64;
    }

    /// Sets the wall clock alone, as `date -s` or NTP does.
    pub fn set_wall(&self, to: Timestamp) {
        self.lock().wall = to;
    }

    /// Starts a new boot: the boot clock is back at zero under another name.
    pub fn reboot(&self) {
        let mut m = self.lock();
        m.boot_id.push('+');
        m.uptime_ms = 0;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Moment> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        self.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_text_parses_back_to_the_same_instant() {
        for ms in [0, 1, 999, 1_000, 1_790_000_000_123, MAX_MS] {
            let t = Timestamp::from_millis(ms);
            assert_eq!(Timestamp::parse_rfc3339(&t.to_string()), Some(t), "{t}");
        }
        assert_eq!(Timestamp::from_secs(i64::MAX).to_string(), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn elapsed_time_is_unknown_after_a_reboot() {
        let clock = ManualClock::new(Timestamp::from_secs(1_000));
        let before = clock.now();
        clock.advance(Duration::from_secs(5));
        clock.set_wall(Timestamp::from_secs(1));
        assert_eq!(clock.now().elapsed_since(&before), Some(Duration::from_secs(5)));
        clock.reboot();
        assert_eq!(clock.now().elapsed_since(&before), None);
    }
}
