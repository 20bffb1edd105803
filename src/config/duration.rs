//! Durations and margins as people write them: `90s`, `1d 12h`, `20%`. (pure)

use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{ValueError, quoted};
use crate::credential::freshness::Margin;

/// The error for a text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a duration: write it like \"90s\", \"15m\", \"2h\" or \"1d 12h\"", quoted(.0))]
pub struct BadDuration(String);

/// Reads `90s`, `15m`, `2h`, `1d 12h`; zero is a duration, a negative is not.
///
/// # Errors
/// For a text without a unit or with an unknown one, and for what overflows.
pub fn parse_duration(text: &str) -> Result<Duration, BadDuration> {
    humantime::parse_duration(text.trim()).map_err(|_| BadDuration(text.into()))
}

const DAY: Duration = Duration::from_secs(24 * 3600);
/// No token that we believe in lives longer; `expires_in` is cut to this (PROTOCOL.md, "What a response means").
const MAX_LIFETIME: Duration = DAY.saturating_mul(400);
/// Shortest span that means anything to a timer.
const TICK: Duration = Duration::from_millis(1);

/// The longest time limit of a request: no caller waits longer than an hour for one response.
pub(super) const WAIT_LIMITS: RangeInclusive<Duration> = TICK..=Duration::from_secs(3600);
/// The longest grace found documented is a few minutes; a day allows for the unknown.
pub(super) const GRACE_LIMITS: RangeInclusive<Duration> = TICK..=DAY;
pub(super) const LIFETIME_LIMITS: RangeInclusive<Duration> = Duration::from_secs(1)..=MAX_LIFETIME;

/// A duration within limits.
pub(super) fn parse_within(limits: RangeInclusive<Duration>, text: &str) -> Result<Duration, ValueError> {
    let how =
        || with_seconds(text).unwrap_or_else(|| "write it like \"90s\", \"15m\", \"2h\" or \"1d 12h\"".to_owned());
    let duration =
        parse_duration(text).map_err(|_| ValueError::new(format!("{} is not a duration", quoted(text))).hint(how()))?;
    if limits.contains(&duration) {
        return Ok(duration);
    }
    let [least, most] = [limits.start(), limits.end()].map(|limit| format_limit(*limit));
    Err(ValueError::new(format!("must be between {least} and {most}, not {}", quoted(text))))
}

/// What was meant by a number without a unit.
fn with_seconds(text: &str) -> Option<String> {
    let digits = text.trim();
    let is_number = !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| format!("did you mean \"{digits}s\"?"))
}

/// A limit as a person would write it; `humantime` makes a year and a month of 400 days.
fn format_limit(limit: Duration) -> String {
    match limit.as_secs() / DAY.as_secs() {
        0 => humantime::format_duration(limit).to_string(),
        days => format!("{days}d"),
    }
}

/// A margin: a duration, or a share of the token's lifetime above 0% and below 100%, to a tenth of a percent.
pub(super) fn margin(text: &str) -> Result<Margin, ValueError> {
    let how = "write a share of the lifetime like \"20%\", or a duration like \"90s\", \"15m\" or \"2h\"";
    let text = text.trim();
    if text.starts_with('-') {
        return Err(ValueError::new(format!("cannot be negative, as {} is", quoted(text))).hint(how));
    }
    let Some(percent) = text.strip_suffix('%') else {
        let unreadable = |_| {
            let how = with_seconds(text).unwrap_or_else(|| how.to_owned());
            ValueError::new(format!("{} is neither a duration nor a share of the lifetime", quoted(text))).hint(how)
        };
        parse_duration(text).map_err(unreadable)?;
        return parse_within(TICK..=MAX_LIFETIME, text).map(Margin::Fixed);
    };
    match thousandths(percent.trim_end()) {
        None => Err(ValueError::new(format!("{} is not a valid share", quoted(text))).hint(how)),
        Some(share @ 1..1000) => Ok(Margin::Share(share)),
        Some(_) => Err(ValueError::new(format!("must be above 0% and below 100%, not {}", quoted(text))).hint(how)),
    }
}

/// Digits with at most one behind the point, in tenths; what is too large for sense counts as 100%.
fn thousandths(percent: &str) -> Option<u16> {
    let (whole, tenth) = percent.split_once('.').unwrap_or((percent, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(tenth) || tenth.len() > 1 {
        return None;
    }
    let whole: u16 = whole.parse().unwrap_or(u16::MAX);
    Some(whole.min(100) * 10 + tenth.parse::<u16>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_and_malformed_ones_are_refused() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7200), ("1d 12h", 129_600), (" 1h30m ", 5400)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "30", "h", "-5m", "2 fortnights", "99999999999999999999y", "1.5x"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(
            parse_duration("30").unwrap_err().to_string(),
            "\"30\" is not a duration: write it like \"90s\", \"15m\", \"2h\" or \"1d 12h\""
        );
    }

    #[test]
    fn a_margin_is_a_duration_or_a_share() {
        assert_eq!(margin("20%"), Ok(Margin::Share(200)));
        assert_eq!(margin("12.5 %"), Ok(Margin::Share(125)));
        assert_eq!(margin("99.9%"), Ok(Margin::Share(999)));
        assert_eq!(margin("2h"), Ok(Margin::Fixed(Duration::from_secs(7200))));
    }

    #[test]
    fn margin_outside_its_bounds_is_refused() {
        for (text, message) in [
            ("0%", "must be above 0% and below 100%, not \"0%\""),
            ("100%", "must be above 0% and below 100%, not \"100%\""),
            ("70000%", "must be above 0% and below 100%, not \"70000%\""),
            ("-5%", "cannot be negative, as \"-5%\" is"),
            ("-5m", "cannot be negative, as \"-5m\" is"),
            ("0s", "must be between 1ms and 400d, not \"0s\""),
            ("12.55%", "\"12.55%\" is not a valid share"),
            ("%", "\"%\" is not a valid share"),
            ("2hh", "\"2hh\" is neither a duration nor a share of the lifetime"),
        ] {
            assert_eq!(margin(text).unwrap_err().message, message, "{text}");
        }
    }
}
