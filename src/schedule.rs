//! A cron expression and its next tick, by the rules of `crontab` and of daylight saving. (pure but for the local zone)

mod fields;

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Local, LocalResult, NaiveDateTime, TimeDelta, TimeZone, Timelike, Utc};

use crate::clock::Timestamp;

/// A checked cron expression with its time zone. Cheap to clone; equal if text and zone are.
///
/// Days of the week are those of `crontab` in every form: 0 and 7 are Sunday, 1 is Monday.
/// A tick that daylight saving skips comes at the end of the gap; one that it repeats comes once, the first time.
#[derive(Clone)]
pub struct Schedule {
    text: Arc<str>,
    utc: bool,
    cron: Arc<cron::Schedule>,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("a cron expression has 5 fields, or 6 to 7 with seconds first, not {0}")]
    FieldCount(usize),
    #[error("{0:?} is not one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually")]
    UnknownName(String),
    #[error("{field} {text:?} {problem}")]
    Field { field: &'static str, text: String, problem: String },
    #[error(
        "day of month and day of week are both restricted, and programs disagree on whether both or either must match"
    )]
    BothDays,
    #[error("it never matches any date")]
    NeverFires,
    /// The cron library refuses what this module accepted.
    #[error("{0}")]
    Refused(String),
}

impl ScheduleError {
    /// What would be right, in one line.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::FieldCount(_) => "write minute, hour, day of month, month and day of week, as in \"*/10 * * * *\"",
            Self::UnknownName(_) => "write one of these, or five fields as in \"0 */4 * * *\"",
            Self::Field { .. } => {
                "a field is *, a value, a range as 1-5, a step as */10, or a list of these with commas"
            }
            Self::BothDays => "write * for one of the two",
            Self::NeverFires => "check day and month: 30 February does not exist",
            Self::Refused(_) => "write five fields as in \"*/10 * * * *\"",
        }
    }
}

impl Schedule {
    /// Reads 5 fields, 6 or 7 with seconds first (the seventh is the year, 1970 to 2100), or `@hourly` and its kin.
    ///
    /// # Errors
    /// Says which field is wrong; refuses what never fires, and what restricts both kinds of day.
    pub fn parse(text: &str, utc: bool) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let expression = fields::to_cron_expression(text)?;
        let cron: cron::Schedule =
            expression.parse().map_err(|e: cron::error::Error| ScheduleError::Refused(e.to_string()))?;
        if cron.after(&DateTime::UNIX_EPOCH).next().is_none() {
            return Err(ScheduleError::NeverFires);
        }
        Ok(Self { text: text.into(), utc, cron: Arc::new(cron) })
    }

    /// The expression as it was written, without the zone.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first tick after `after`, never equal to it; `None` when the expression names only years gone by, or 2100
    /// has passed.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.to_utc();
        let next = if self.utc { self.next_in(&Utc, after) } else { self.next_in(&Local, after) };
        next.map(Timestamp::from)
    }

    /// Walks the ticks as naive local times and maps each to its instant. The map never decreases, so the first
    /// instant past `after` is the next one; ticks that a fold has had already are walked over.
    fn next_in<Z: TimeZone>(&self, zone: &Z, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = after.with_timezone(zone).naive_local().with_nanosecond(0)?;
        self.cron
            .after(&local.and_utc())
            .filter_map(|tick| resolve_local_time(zone, tick.naive_utc()))
            .find(|at| *at > after)
    }
}

/// When a local time happens: the first of two in a fold, the end of the gap if it is skipped.
fn resolve_local_time<Z: TimeZone>(zone: &Z, local: NaiveDateTime) -> Option<DateTime<Utc>> {
    earliest_instant(zone, local).or_else(|| end_of_gap(zone, local))
}

fn earliest_instant<Z: TimeZone>(zone: &Z, local: NaiveDateTime) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(at) => Some(at.to_utc()),
        LocalResult::Ambiguous(one, other) => Some(one.to_utc().min(other.to_utc())),
        LocalResult::None => None,
    }
}

/// Longest gap looked across: Samoa skipped 24 hours when it crossed the date line.
const LONGEST_GAP_HOURS: i64 = 48;

/// The instant of the first local time after `skipped` that exists, to the second.
fn end_of_gap<Z: TimeZone>(zone: &Z, skipped: NaiveDateTime) -> Option<DateTime<Utc>> {
    let exists = |seconds: i64| earliest_instant(zone, skipped + TimeDelta::seconds(seconds)).is_some();
    let hours = (1..=LONGEST_GAP_HOURS).find(|hours| exists(hours * 3600))?;
    let (mut inside, mut beyond) = ((hours - 1) * 3600, hours * 3600);
    while beyond - inside > 1 {
        let middle = inside + (beyond - inside) / 2;
        if exists(middle) { beyond = middle } else { inside = middle }
    }
    earliest_instant(zone, skipped + TimeDelta::seconds(beyond))
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, self.utc) == (&other.text, other.utc)
    }
}

impl Eq for Schedule {}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({:?}, {})", self.text, if self.utc { "UTC" } else { "local" })
    }
}

#[cfg(test)]
mod tests;
