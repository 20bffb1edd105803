//! What each form of a schedule means, and what daylight saving does to it.

use chrono_tz::Tz;
use proptest::prelude::*;

use super::*;

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The first `count` ticks after `after`, as local times with offset.
fn ticks(expression: &str, zone: Tz, after: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::parse(expression, false).unwrap();
    let mut at = utc(after);
    let mut found = Vec::new();
    for _ in 0..count {
        at = schedule.next_in(&zone, at).unwrap();
        found.push(at.with_timezone(&zone).format("%a %m-%d %H:%M:%S %z").to_string());
    }
    found
}

fn next(expression: &str, after: &str) -> String {
    ticks(expression, Tz::UTC, after, 1).remove(0)
}

fn refused(expression: &str) -> String {
    Schedule::parse(expression, true).unwrap_err().to_string()
}

// 2026-11-24 is a Tuesday.
const TUESDAY: &str = "2026-11-24T10:07:30.250Z";

#[test]
fn five_field_expressions_follow_crontab() {
    assert_eq!(next("*/10 * * * *", TUESDAY), "Tue 11-24 10:10:00 +0000");
    assert_eq!(next("0 */4 * * *", TUESDAY), "Tue 11-24 12:00:00 +0000");
    assert_eq!(next("5/20 10 * * *", TUESDAY), "Tue 11-24 10:25:00 +0000");
    assert_eq!(next("0 0 1 jan,Feb *", TUESDAY), "Fri 01-01 00:00:00 +0000");
}

#[test]
fn weekdays_count_from_sunday_as_zero() {
    for (day, expected) in [
        ("0", "Sun 11-29"),
        ("7", "Sun 11-29"),
        ("sun", "Sun 11-29"),
        ("1", "Mon 11-30"),
        ("Monday", "Mon 11-30"),
        ("2", "Tue 12-01"),
        ("3", "Wed 11-25"),
        ("6", "Sat 11-28"),
        ("5-7", "Fri 11-27"),
        ("6-7", "Sat 11-28"),
        ("sat-sun", "Sat 11-28"),
        ("5-0", "Fri 11-27"),
        ("*/6", "Sat 11-28"),
        ("7,1", "Sun 11-29"),
        ("0-6/3", "Wed 11-25"),
        ("?", "Wed 11-25"),
    ] {
        let expected = format!("{expected} 03:00:00 +0000");
        assert_eq!(next(&format!("0 3 * * {day}"), TUESDAY), expected, "{day}");
        assert_eq!(next(&format!("0 0 3 * * {day}"), TUESDAY), expected, "six fields, {day}");
    }
}

#[test]
fn six_and_seven_fields_begin_with_seconds() {
    assert_eq!(next("*/15 * * * * *", TUESDAY), "Tue 11-24 10:07:45 +0000");
    assert_eq!(next("30 0 0 1 1 * 2030", TUESDAY), "Tue 01-01 00:00:30 +0000");
}

#[test]
fn named_schedules_expand_to_their_fields() {
    assert_eq!(next("@hourly", TUESDAY), "Tue 11-24 11:00:00 +0000");
    assert_eq!(next("@daily", TUESDAY), "Wed 11-25 00:00:00 +0000");
    assert_eq!(next("@Midnight", TUESDAY), "Wed 11-25 00:00:00 +0000");
    assert_eq!(next("@weekly", TUESDAY), "Sun 11-29 00:00:00 +0000");
    assert_eq!(next(" @monthly ", TUESDAY), "Tue 12-01 00:00:00 +0000");
    assert_eq!(next("@yearly", TUESDAY), next("@annually", TUESDAY));
}

#[test]
fn invalid_expression_names_the_field_and_the_reason() {
    for (text, message) in [
        ("", "a cron expression has 5 fields, or 6 to 7 with seconds first, not 0"),
        ("* * * *", "a cron expression has 5 fields, or 6 to 7 with seconds first, not 4"),
        ("@reboot", "\"@reboot\" is not one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually"),
        ("75 * * * *", "minute \"75\" is outside 0-59"),
        ("* 24 * * *", "hour \"24\" is outside 0-23"),
        ("* * 0 * *", "day of month \"0\" is outside 1-31"),
        ("* * * foo *", "month \"foo\" is neither a number nor a name"),
        ("* * * * 8", "day of week \"8\" is outside 0-7"),
        ("* 22-2 * * *", "hour \"22-2\" runs backwards"),
        ("*/0 * * * *", "minute \"*/0\" has a step of zero"),
        ("*/90 * * * *", "minute \"*/90\" has a step beyond its 60 values"),
        ("*/x * * * *", "minute \"*/x\" has a step that is not a number"),
        ("1,,2 * * * *", "minute \"\" is not a number"),
        ("-5 * * * *", "minute \"-5\" is not a number"),
        ("? * * * *", "minute \"?\" is not a number"),
        ("99999999999 * * * *", "minute \"99999999999\" is outside 0-59"),
        ("0 0 L * *", "day of month \"L\" is not a number"),
        (
            "0 0 13 * 5",
            "day of month and day of week are both restricted, and programs disagree on whether both or either must match",
        ),
        // crontab takes 1-31 for a restriction.
        (
            "0 0 1-31 * 1",
            "day of month and day of week are both restricted, and programs disagree on whether both or either must match",
        ),
        ("0 0 30 2 *", "it never matches any date"),
    ] {
        assert_eq!(refused(text), message, "{text}");
    }
    assert!(Schedule::parse("0 0 29 2 *", true).is_ok());
}

#[test]
fn schedule_of_a_past_year_has_no_next_tick() {
    let schedule = Schedule::parse("0 0 0 1 1 * 2020", true).unwrap();
    assert_eq!(schedule.next_after(Timestamp::parse_rfc3339(TUESDAY).unwrap()), None);
    let daily = Schedule::parse("@daily", false).unwrap();
    assert_eq!(daily.next_after(Timestamp::from_secs(i64::MAX)), None);
}

#[test]
fn a_skipped_hour_fires_when_the_gap_ends() {
    // New York springs from 02:00 to 03:00 on 8 March 2026, at 07:00 UTC.
    let daily = ticks("30 2 * * *", Tz::America__New_York, "2026-03-07T12:00:00Z", 2);
    assert_eq!(daily, ["Sun 03-08 03:00:00 -0400", "Mon 03-09 02:30:00 -0400"]);
    let often = ticks("*/30 * * * *", Tz::America__New_York, "2026-03-08T06:00:00Z", 3);
    assert_eq!(often, ["Sun 03-08 01:30:00 -0500", "Sun 03-08 03:00:00 -0400", "Sun 03-08 03:30:00 -0400"]);
    // Lord Howe springs by half an hour.
    let half = ticks("15 2 * * *", Tz::Australia__Lord_Howe, "2026-10-03T12:00:00Z", 2);
    assert_eq!(half, ["Sun 10-04 02:30:00 +1100", "Mon 10-05 02:15:00 +1100"]);
    // Samoa skipped 30 December 2011.
    let day = ticks("0 12 30 12 *", Tz::Pacific__Apia, "2011-12-30T00:00:00Z", 1);
    assert_eq!(day, ["Sat 12-31 00:00:00 +1400"]);
}

#[test]
fn repeated_hour_fires_only_in_its_first_pass() {
    // Berlin falls from 03:00 to 02:00 on 25 October 2026, at 01:00 UTC.
    let daily = ticks("30 2 * * *", Tz::Europe__Berlin, "2026-10-24T12:00:00Z", 2);
    assert_eq!(daily, ["Sun 10-25 02:30:00 +0200", "Mon 10-26 02:30:00 +0100"]);
    let often = ticks("*/30 * * * *", Tz::Europe__Berlin, "2026-10-25T00:00:00Z", 3);
    assert_eq!(often, ["Sun 10-25 02:30:00 +0200", "Sun 10-25 03:00:00 +0100", "Sun 10-25 03:30:00 +0100"]);
    // Asked in the middle of the second pass, with a tick each second.
    let second_pass = ticks("* * * * * *", Tz::Europe__Berlin, "2026-10-25T01:20:00Z", 1);
    assert_eq!(second_pass, ["Sun 10-25 03:00:00 +0100"]);
    let half = ticks("45 1 * * *", Tz::Australia__Lord_Howe, "2026-04-04T12:00:00Z", 2);
    assert_eq!(half, ["Sun 04-05 01:45:00 +1100", "Mon 04-06 01:45:00 +1030"]);
}

#[test]
fn schedules_are_equal_by_text_and_zone() {
    let parse = |text, utc| Schedule::parse(text, utc).unwrap();
    assert_eq!(parse(" @daily", true), parse("@daily", true));
    assert_ne!(parse("@daily", true), parse("@daily", false));
    assert_ne!(parse("@daily", true), parse("@hourly", true));
    assert_eq!(format!("{:?}", parse("@daily", true)), "Schedule(\"@daily\", UTC)");
}

fn field(first: u32, last: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => (first..=last).prop_map(|v| v.to_string()),
        2 => (1..=last).prop_map(|step| format!("*/{step}")),
        1 => (first..=last, first..=last).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => proptest::collection::vec(first..=last, 1..4)
            .prop_map(|vs| vs.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
    ]
}

fn expression() -> impl Strategy<Value = String> {
    let weekday = prop_oneof![Just("*".to_owned()), field(0, 7)];
    let days = prop_oneof![field(1, 28).prop_map(|d| format!("{d}|*")), weekday.prop_map(|d| format!("*|{d}"))];
    (prop_oneof![Just("0".to_owned()), field(0, 59)], field(0, 59), field(0, 23), days, field(1, 12)).prop_map(
        |(second, minute, hour, days, month)| {
            let (day, weekday) = days.split_once('|').unwrap();
            format!("{second} {minute} {hour} {day} {month} {weekday}")
        },
    )
}

const ZONES: [Tz; 5] =
    [Tz::UTC, Tz::America__New_York, Tz::Europe__Berlin, Tz::Australia__Lord_Howe, Tz::Pacific__Apia];

proptest! {
    #[test]
    fn ticks_increase_and_come_after_the_given_time(
        text in expression(),
        zone in proptest::sample::select(&ZONES[..]),
        // 2011 to 2026, to the millisecond: many changes of the clock.
        start_ms in 1_300_000_000_000i64..1_790_000_000_000,
    ) {
        let Ok(schedule) = Schedule::parse(&text, false) else { return Ok(()) };
        let mut at = DateTime::from_timestamp_millis(start_ms).unwrap();
        for _ in 0..30 {
            let next = schedule.next_in(&zone, at).unwrap();
            prop_assert!(next > at, "{text}: {next} after {at}");
            at = next;
        }
        let local = Schedule::parse(&text, false).unwrap();
        let start = Timestamp::from_millis(start_ms);
        prop_assert!(local.next_after(start).unwrap() > start);
    }

    #[test]
    fn time_between_two_ticks_gives_the_second(
        text in expression(),
        zone in proptest::sample::select(&ZONES[..]),
        start in 1_300_000_000i64..1_790_000_000,
        share in 0.0f64..1.0,
    ) {
        let Ok(schedule) = Schedule::parse(&text, false) else { return Ok(()) };
        let first = schedule.next_in(&zone, DateTime::from_timestamp(start, 0).unwrap()).unwrap();
        let second = schedule.next_in(&zone, first).unwrap();
        let millis = (second - first).num_milliseconds() as f64 * share;
        prop_assert_eq!(schedule.next_in(&zone, first + TimeDelta::milliseconds(millis as i64)), Some(second));
    }

    #[test]
    fn schedule_parser_never_panics_on_any_text(text in "[-0-9*/,?@a-zA-Z# ]{0,40}", any in "\\PC{0,40}") {
        drop(Schedule::parse(&text, true));
        drop(Schedule::parse(&any, false));
    }
}
