//! Reads one time as servers and tools write it: a number of any unit, a text, a date. (pure)

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use serde_json::Value;

use crate::clock::Timestamp;

/// What a member's name says about a number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeKind {
    /// A number is a lifetime in seconds; one that is too large for that is an instant.
    LifetimeOrInstant,
    /// A number is a lifetime in milliseconds.
    Millis,
    /// A number is an instant.
    Instant,
}

/// What a member says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeValue {
    Lifetime(Duration),
    Instant(Timestamp),
    /// A date and time that may be of any time zone, read as UTC.
    NoZone(Timestamp),
    /// Zero, or the first instant of a calendar: it is not known, or never comes.
    Zero,
    /// `null`, or an empty text.
    Absent,
    Unreadable,
}

/// Numbers from here on are instants since the epoch (2001-09-09), not lifetimes (31 years).
const MIN_EPOCH: f64 = 1e9;

/// Reads a member.
pub fn read(value: &Value, kind: TimeKind) -> TimeValue {
    match value {
        // Some tools have a flag of such a name.
        Value::Null | Value::Bool(_) => TimeValue::Absent,
        Value::Number(n) => n.as_f64().map_or(TimeValue::Unreadable, |n| read_number(n, kind)),
        Value::String(text) => read_text(text.trim(), kind),
        Value::Array(_) | Value::Object(_) => TimeValue::Unreadable,
    }
}

fn read_number(n: f64, kind: TimeKind) -> TimeValue {
    match kind {
        _ if n == 0.0 || n <= -MIN_EPOCH => TimeValue::Zero,
        _ if n < 0.0 || !n.is_finite() => TimeValue::Unreadable,
        TimeKind::Millis if n < MIN_EPOCH * 1000.0 => TimeValue::Lifetime(Duration::from_millis(n as u64)),
        TimeKind::LifetimeOrInstant if n < MIN_EPOCH => TimeValue::Lifetime(Duration::from_secs(n as u64)),
        TimeKind::Instant if n < MIN_EPOCH => TimeValue::Unreadable,
        TimeKind::LifetimeOrInstant | TimeKind::Millis | TimeKind::Instant => TimeValue::Instant(from_epoch(n)),
    }
}

/// An instant in seconds, milliseconds, microseconds or nanoseconds since the epoch: one of a unit is no other's before
/// the year 5138.
fn from_epoch(n: f64) -> Timestamp {
    let per_milli = [(1e11, 0.001), (1e14, 1.0), (1e17, 1e3)].into_iter().find(|(end, _)| n < *end);
    Timestamp::from_millis((n / per_milli.map_or(1e6, |(_, per)| per)) as i64)
}

fn read_text(text: &str, kind: TimeKind) -> TimeValue {
    if text.is_empty() {
        return TimeValue::Absent;
    }
    if let Ok(n) = text.parse::<f64>() {
        return read_number(n, kind);
    }
    if let (Some(Ok(n)), true) = (text.strip_suffix('s').map(str::parse::<f64>), kind != TimeKind::Instant) {
        return read_number(n, TimeKind::LifetimeOrInstant);
    }
    match read_date(text) {
        // The first instant of a calendar is a default.
        TimeValue::Instant(at) | TimeValue::NoZone(at) if at < Timestamp::from_secs(MIN_EPOCH as i64) => {
            TimeValue::Zero
        }
        read => read,
    }
}

fn read_date(text: &str) -> TimeValue {
    const ZONED: [&str; 5] = [
        "%Y-%m-%dT%H:%M:%S%.f%z",
        "%Y-%m-%d %H:%M:%S%.f %z",
        "%Y-%m-%d %H:%M:%S%.f%z",
        "%m/%d/%Y %H:%M:%S %z",
        "%a %b %d %Y %H:%M:%S GMT%z",
    ];
    const NO_ZONE: [&str; 3] = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%m/%d/%Y %H:%M:%S"];
    let zoned = DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_rfc2822(text)).ok();
    // `+0000 UTC`, as Go prints it, and a name after the offset, as JavaScript does.
    let plain = text.split(" (").next().unwrap_or(text);
    let plain = match plain.strip_suffix(" UTC") {
        Some(rest) if rest.ends_with("00") && rest.contains(" +") => rest.to_owned(),
        Some(rest) => format!("{rest} +0000"),
        None => plain.to_owned(),
    };
    let zoned = zoned.or_else(|| ZONED.iter().find_map(|format| DateTime::parse_from_str(&plain, format).ok()));
    if let Some(at) = zoned {
        return TimeValue::Instant(Timestamp::from_millis(at.timestamp_millis()));
    }
    match NO_ZONE.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok()) {
        Some(at) => TimeValue::NoZone(Timestamp::from_millis(at.and_utc().timestamp_millis())),
        None => TimeValue::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn time_is_read_in_every_unit_and_notation() {
        let at = |ms: i64| TimeValue::Instant(Timestamp::from_millis(ms));
        let life = |secs| TimeValue::Lifetime(Duration::from_secs(secs));
        let (either, instant) = (TimeKind::LifetimeOrInstant, TimeKind::Instant);
        for (value, kind, expected) in [
            (json!(3600), either, life(3600)),
            (json!("3600"), either, life(3600)),
            (json!("3600s"), either, life(3600)),
            (json!(3600.9), either, life(3600)),
            (json!(3_600_000), TimeKind::Millis, life(3600)),
            (json!(1_790_000_000), either, at(1_790_000_000_000)),
            (json!(1_790_000_000), instant, at(1_790_000_000_000)),
            (json!(1_790_000_000.5), instant, at(1_790_000_000_500)),
            (json!("1790000000"), instant, at(1_790_000_000_000)),
            (json!(1_790_000_000_123_i64), instant, at(1_790_000_000_123)),
            (json!("1790000000123"), instant, at(1_790_000_000_123)),
            (json!(1_790_000_000_123_000_i64), instant, at(1_790_000_000_123)),
            (json!(1_790_000_000_123_000_000_i64), instant, at(1_790_000_000_123)),
            (json!("2026-09-21T14:13:20Z"), instant, at(1_790_000_000_000)),
            (json!("2026-09-21T14:13:20.123456789+02:00"), instant, at(1_789_992_800_123)),
            (json!("2026-09-21T14:13:20+0000"), instant, at(1_790_000_000_000)),
            (json!("2026-09-21 14:13:20 UTC"), instant, at(1_790_000_000_000)),
            (json!("2026-09-21 14:13:20.5 +0000 UTC"), instant, at(1_790_000_000_500)),
            (json!("2026-09-21 14:13:20+00:00"), instant, at(1_790_000_000_000)),
            (json!("Mon, 21 Sep 2026 14:13:20 GMT"), either, at(1_790_000_000_000)),
            (json!("Mon Sep 21 2026 16:13:20 GMT+0200 (CEST)"), instant, at(1_790_000_000_000)),
            (json!("09/21/2026 14:13:20 +00:00"), instant, at(1_790_000_000_000)),
            (json!("2026-09-21T14:13:20.5"), instant, TimeValue::NoZone(Timestamp::from_millis(1_790_000_000_500))),
            (json!("2026-09-21 14:13:20"), instant, TimeValue::NoZone(Timestamp::from_millis(1_790_000_000_000))),
        ] {
            assert_eq!(read(&value, kind), expected, "{value}");
        }
    }

    #[test]
    fn time_that_says_nothing_is_not_a_time() {
        for (value, expected) in [
            (json!(null), TimeValue::Absent),
            (json!(""), TimeValue::Absent),
            (json!(false), TimeValue::Absent),
            (json!(0), TimeValue::Zero),
            (json!("0"), TimeValue::Zero),
            (json!("0001-01-01T00:00:00Z"), TimeValue::Zero),
            (json!("1970-01-01T00:00:00"), TimeValue::Zero),
            (json!(-62_135_596_800_i64), TimeValue::Zero),
            (json!(-1), TimeValue::Unreadable),
            (json!(3600), TimeValue::Unreadable),
            (json!("soon"), TimeValue::Unreadable),
            (json!("in 1 hour"), TimeValue::Unreadable),
            (json!("NaN"), TimeValue::Unreadable),
            (json!({"a": 1}), TimeValue::Unreadable),
            (json!([1_790_000_000]), TimeValue::Unreadable),
        ] {
            assert_eq!(read(&value, TimeKind::Instant), expected, "{value}");
        }
    }
}
