//! A cron expression, in crontab's meaning, and its next occurrence. (pure)
//!
//! The `cron` crate evaluates the fields. Three things are ours: five fields as crontab(5) means them (the crate wants
//! seconds first and counts Sunday as 1); ticks on the local calendar mapped to instants, so that the hour that a clock
//! change skips fires at the next valid instant and the hour that it repeats fires once; and never an instant in the past.

use std::str::FromStr;

use chrono::{DateTime, Local, LocalResult, NaiveDateTime, TimeDelta, TimeZone, Utc};

use crate::clock::Timestamp;

/// A checked cron expression with its time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    fields: cron::Schedule,
    in_utc: bool,
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.in_utc == other.in_utc
    }
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("a schedule has 5 fields, or 6 or 7 with seconds first, not {0}")]
    FieldCount(usize),
    #[error("{0:?} is no field of a schedule")]
    Field(String),
    #[error("{0:?} is none of @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually")]
    Nickname(String),
    #[error(
        "day of month and day of week cannot both be restricted: crontab would run on either, which is rarely meant"
    )]
    BothDays,
    #[error("this schedule never comes")]
    Never,
}

const DAYS: [&str; 8] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"];

impl Schedule {
    /// Reads 5 fields (minute first), 6 or 7 (second first, year last), or a nickname such as `@daily`. In all of them
    /// days of the week count from 0 or 7 = Sunday, as in crontab. `in_utc`: the fields mean UTC, not local time.
    pub fn parse(text: &str, in_utc: bool) -> Result<Self, ScheduleError> {
        let expanded = match text.trim() {
            nickname if nickname.starts_with('@') => of_nickname(nickname)?.to_owned(),
            plain => plain.to_owned(),
        };
        let parts: Vec<&str> = expanded.split_whitespace().collect();
        let (second, minute_to_month, weekday, year) = match parts.as_slice() {
            [m, h, dom, mon, dow] => ("0", [m, h, dom, mon], dow, "*"),
            [s, m, h, dom, mon, dow] => (*s, [m, h, dom, mon], dow, "*"),
            [s, m, h, dom, mon, dow, y] => (*s, [m, h, dom, mon], dow, *y),
            other => return Err(ScheduleError::FieldCount(other.len())),
        };
        let [minute, hour, day, month] = minute_to_month;
        let is_any = |field: &str| field == "*" || field == "?";
        if !is_any(day) && !is_any(weekday) {
            return Err(ScheduleError::BothDays);
        }
        let weekday = weekdays(weekday)?;
        let full = format!("{second} {minute} {hour} {day} {month} {weekday} {year}");
        let fields = cron::Schedule::from_str(&full).map_err(|_| ScheduleError::Field(text.trim().to_owned()))?;
        let schedule = Self { text: text.trim().to_owned(), fields, in_utc };
        // From a fixed instant, so that a schedule is valid or not whenever it is read. A year that is past never comes.
        match schedule.next_in(&Utc, Timestamp::from_secs(1_767_225_600)) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never),
        }
    }

    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first tick later than `after`.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        if self.in_utc { self.next_in(&Utc, after) } else { self.next_in(&Local, after) }
    }

    fn next_in<Z: TimeZone>(&self, zone: &Z, after: Timestamp) -> Option<Timestamp> {
        let here = after.to_utc().with_timezone(zone).naive_local();
        // A local time that is not later than this one maps to an instant that is not later either: of a repeated hour
        // the first pass counts. So nothing before `here` can lie ahead.
        let from = here.checked_sub_signed(TimeDelta::seconds(1))?.and_utc();
        self.fields.after(&from).map_while(|tick| instant(zone, tick.naive_utc())).find(|tick| *tick > after)
    }
}

/// The instant of a local time: the earlier of two, and the first valid one after a gap.
fn instant<Z: TimeZone>(zone: &Z, local: NaiveDateTime) -> Option<Timestamp> {
    let of = |t: DateTime<Z>| Timestamp::from(t.with_timezone(&Utc));
    match zone.from_local_datetime(&local) {
        LocalResult::Single(t) => Some(of(t)),
        LocalResult::Ambiguous(earlier, _) => Some(of(earlier)),
        // No gap of a time zone is longer than a day; most are an hour, some half of one.
        LocalResult::None => (1..=24 * 60).find_map(|minutes| {
            let later = local.checked_add_signed(TimeDelta::minutes(minutes))?;
            let on_the_minute =
                later.checked_sub_signed(TimeDelta::seconds(i64::from(chrono::Timelike::second(&later))))?;
            zone.from_local_datetime(&on_the_minute).earliest().map(of)
        }),
    }
}

fn of_nickname(nickname: &str) -> Result<&'static str, ScheduleError> {
    Ok(match nickname {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        other => return Err(ScheduleError::Nickname(other.to_owned())),
    })
}

/// A day-of-week field with numbers as crontab counts them, as a list of names, which nobody counts differently.
fn weekdays(field: &str) -> Result<String, ScheduleError> {
    let bad = || ScheduleError::Field(field.to_owned());
    if field == "*" || field == "?" {
        return Ok("*".into());
    }
    let mut chosen = [false; 7];
    for part in field.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let step: usize = step.parse().ok().filter(|s| *s > 0).ok_or_else(bad)?;
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (0, 6),
            Some((a, b)) => (weekday(a).ok_or_else(bad)?, weekday(b).ok_or_else(bad)?),
            None if part.contains('/') => (weekday(range).ok_or_else(bad)?, 6),
            None => (weekday(range).ok_or_else(bad)?, weekday(range).ok_or_else(bad)?),
        };
        // `FRI-MON` and `5-0` wrap around the week.
        let last = if last < first { last + 7 } else { last };
        for day in (first..=last).step_by(step) {
            if let Some(flag) = chosen.get_mut(day % 7) {
                *flag = true;
            }
        }
    }
    let names: Vec<&str> = DAYS.iter().zip(chosen).filter(|(_, is_chosen)| *is_chosen).map(|(name, _)| *name).collect();
    Ok(names.join(","))
}

fn weekday(text: &str) -> Option<usize> {
    match text.parse::<usize>() {
        Ok(n) => (n <= 7).then_some(n),
        Err(_) => DAYS.iter().position(|day| {
            text.len() >= 3 && (day.eq_ignore_ascii_case(text) || long(day).eq_ignore_ascii_case(text))
        }),
    }
}

fn long(day: &str) -> &'static str {
    match day {
        "SUN" => "SUNDAY",
        "MON" => "MONDAY",
        "TUE" => "TUESDAY",
        "WED" => "WEDNESDAY",
        "THU" => "THURSDAY",
        "FRI" => "FRIDAY",
        _ => "SATURDAY",
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::{America::New_York, Australia::Lord_Howe, Europe::Berlin, Tz};
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn ticks(expression: &str, zone: Tz, from: &str, n: usize) -> Vec<String> {
        let schedule = Schedule::parse(expression, false).unwrap();
        let mut now = at(from);
        (0..n)
            .map(|_| {
                now = schedule.next_in(&zone, now).unwrap();
                now.to_string()
            })
            .collect()
    }

    fn next_utc(expression: &str, from: &str) -> String {
        Schedule::parse(expression, true).unwrap().next_after(at(from)).unwrap().to_string()
    }

    #[test]
    fn five_fields_mean_what_crontab_means() {
        // 2026-11-24 is a Tuesday.
        let from = "2026-11-24T12:00:00Z";
        for (expression, expected) in [
            ("*/10 * * * *", "2026-11-24T12:10:00Z"),
            ("0 3 * * 1", "2026-11-30T03:00:00Z"),
            ("0 3 * * 0", "2026-11-29T03:00:00Z"),
            ("0 3 * * 7", "2026-11-29T03:00:00Z"),
            ("0 3 * * mon", "2026-11-30T03:00:00Z"),
            ("0 3 * * 5-7", "2026-11-27T03:00:00Z"),
            ("0 3 * * 6-1", "2026-11-28T03:00:00Z"),
            ("0 3 * * */3", "2026-11-25T03:00:00Z"),
            ("0 3 1 * *", "2026-12-01T03:00:00Z"),
            ("30 0 12 * * 4", "2026-11-26T12:00:30Z"),
            ("0 0 0 1 1 * 2030", "2030-01-01T00:00:00Z"),
            ("@daily", "2026-11-25T00:00:00Z"),
            ("@weekly", "2026-11-29T00:00:00Z"),
        ] {
            assert_eq!(next_utc(expression, from), expected, "{expression}");
        }
    }

    #[test]
    fn a_tick_is_strictly_later() {
        assert_eq!(next_utc("0 * * * *", "2026-11-24T12:00:00Z"), "2026-11-24T13:00:00Z");
        assert_eq!(next_utc("0 * * * *", "2026-11-24T11:59:59.999Z"), "2026-11-24T12:00:00Z");
    }

    #[test]
    fn bad_expressions_say_what_is_wrong() {
        for (expression, error) in [
            ("* * * *", ScheduleError::FieldCount(4)),
            ("", ScheduleError::FieldCount(0)),
            ("61 * * * *", ScheduleError::Field("61 * * * *".into())),
            ("0 0 * * 8", ScheduleError::Field("8".into())),
            ("0 0 1 * 1", ScheduleError::BothDays),
            ("0 0 30 2 *", ScheduleError::Never),
            ("@reboot", ScheduleError::Nickname("@reboot".into())),
        ] {
            assert_eq!(Schedule::parse(expression, true).unwrap_err(), error, "{expression}");
        }
    }

    #[test]
    fn r33_an_hour_that_is_skipped_fires_at_the_next_valid_instant() {
        assert_eq!(
            ticks("30 2 * * *", New_York, "2026-03-07T12:00:00Z", 2),
            ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]
        );
        assert_eq!(ticks("30 2 * * *", Berlin, "2026-03-28T12:00:00Z", 1), ["2026-03-29T01:00:00Z"]);
        assert_eq!(ticks("15 2 * * *", Lord_Howe, "2026-10-03T00:00:00Z", 1), ["2026-10-03T15:30:00Z"]);
    }

    #[test]
    fn r33_an_hour_that_is_repeated_fires_once() {
        assert_eq!(
            ticks("30 1 * * *", New_York, "2026-10-31T12:00:00Z", 2),
            ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
        );
        assert_eq!(
            ticks("*/30 * * * *", New_York, "2026-11-01T05:10:00Z", 3),
            ["2026-11-01T05:30:00Z", "2026-11-01T07:00:00Z", "2026-11-01T07:30:00Z"]
        );
    }

    proptest! {
        #[test]
        fn ticks_only_go_forward(secs in 1_760_000_000_i64..1_830_000_000, which in 0_usize..6, zone in 0_usize..3) {
            let expressions = ["*/7 * * * *", "30 2 * * *", "0 0 * * 0", "*/13 30 1 * * *", "@hourly", "45 1-3 * * *"];
            let schedule = Schedule::parse(expressions[which], false).unwrap();
            let zone = [New_York, Berlin, Lord_Howe][zone];
            let mut now = Timestamp::from_secs(secs);
            for _ in 0..20 {
                let next = schedule.next_in(&zone, now).unwrap();
                prop_assert!(next > now);
                now = next;
            }
        }

        #[test]
        fn no_text_is_a_panic(text in "[-0-9*,/@?a-zA-Z ]{0,40}") {
            let _checked = Schedule::parse(&text, true);
        }
    }
}
