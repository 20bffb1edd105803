//! The fields of a cron expression: from what crontab means to what the `cron` crate means. (pure)
//!
//! The crate counts Sunday as 1, wants seconds, and knows neither `@midnight` nor a range that ends on Sunday. So each
//! field is read here, into the set of its values, and the crate is handed plain lists in its own counting.

use std::collections::BTreeSet;

use super::ScheduleError;

/// The range and the names of one field.
struct FieldSpec {
    name: &'static str,
    first: u32,
    /// Last value of `*`.
    last: u32,
    /// Highest number that may be written.
    highest: u32,
    /// Names of the values from `first` on; their first three letters do.
    names: &'static [&'static str],
    /// Whether `?` may stand for `*`.
    allows_question_mark: bool,
}

impl FieldSpec {
    const fn numbers(name: &'static str, first: u32, last: u32) -> Self {
        Self { name, first, last, highest: last, names: &[], allows_question_mark: false }
    }
}

const SECOND: FieldSpec = FieldSpec::numbers("second", 0, 59);
const MINUTE: FieldSpec = FieldSpec::numbers("minute", 0, 59);
const HOUR: FieldSpec = FieldSpec::numbers("hour", 0, 23);
const DAY: FieldSpec = FieldSpec { allows_question_mark: true, ..FieldSpec::numbers("day of month", 1, 31) };
const MONTH: FieldSpec = FieldSpec {
    names: &[
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ],
    ..FieldSpec::numbers("month", 1, 12)
};
const WEEKDAY: FieldSpec = FieldSpec {
    highest: 7,
    names: &["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"],
    allows_question_mark: true,
    ..FieldSpec::numbers("day of week", 0, 6)
};
/// The years that the `cron` crate knows.
const YEAR: FieldSpec = FieldSpec::numbers("year", 1970, 2100);

/// Translates an expression of the user into one of the `cron` crate.
pub(super) fn to_cron_expression(text: &str) -> Result<String, ScheduleError> {
    let text = if text.starts_with('@') { expand_alias(text)? } else { text };
    let fields: Vec<&str> = text.split_whitespace().collect();
    let (second, rest) = match fields.len() {
        5 => ("0", &fields[..]),
        6 | 7 => (fields[0], &fields[1..]),
        count => return Err(ScheduleError::FieldCount(count)),
    };
    let (day, weekday) = (values(&DAY, rest[2])?, values(&WEEKDAY, rest[4])?);
    if is_restricted(&DAY, rest[2], &day) && is_restricted(&WEEKDAY, rest[4], &weekday) {
        return Err(ScheduleError::BothDays);
    }
    let sundays_first = weekday.iter().map(|day| day + 1).collect();
    Ok([
        list(&SECOND, &values(&SECOND, second)?),
        list(&MINUTE, &values(&MINUTE, rest[0])?),
        list(&HOUR, &values(&HOUR, rest[1])?),
        list(&DAY, &day),
        list(&MONTH, &values(&MONTH, rest[3])?),
        list(&WEEKDAY, &sundays_first),
        list(&YEAR, &values(&YEAR, rest.get(5).unwrap_or(&"*"))?),
    ]
    .join(" "))
}

fn expand_alias(text: &str) -> Result<&'static str, ScheduleError> {
    match text.to_ascii_lowercase().as_str() {
        "@hourly" => Ok("0 * * * *"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@weekly" => Ok("0 0 * * 0"),
        "@monthly" => Ok("0 0 1 * *"),
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        _ => Err(ScheduleError::UnknownName(text.into())),
    }
}

/// Whether crontab counts the field as a restriction: `1-31` is one, although it holds every day.
fn is_restricted(unit: &FieldSpec, text: &str, values: &BTreeSet<u32>) -> bool {
    !(text.starts_with(['*', '?']) && is_full(unit, values))
}

fn is_full(unit: &FieldSpec, values: &BTreeSet<u32>) -> bool {
    values.len() == (unit.last - unit.first + 1) as usize
}

fn list(unit: &FieldSpec, values: &BTreeSet<u32>) -> String {
    if is_full(unit, values) {
        return "*".into();
    }
    values.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// The values that a field names.
fn values(unit: &FieldSpec, text: &str) -> Result<BTreeSet<u32>, ScheduleError> {
    let mut values = BTreeSet::new();
    for item in text.split(',') {
        let (from, to, step) = parse_item(unit, item).map_err(|problem| ScheduleError::Field {
            field: unit.name,
            text: item.into(),
            problem,
        })?;
        // 7 is a second name of Sunday, the only value beyond `last`.
        values.extend((from..=to).step_by(step).map(|v| if v > unit.last { unit.first } else { v }));
    }
    Ok(values)
}

/// First value, last value and step of `*`, `a`, `a-b`, and of these with `/step`; `a/step` runs to the end.
fn parse_item(unit: &FieldSpec, item: &str) -> Result<(u32, u32, usize), String> {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(parse_step(unit, step)?)),
        None => (item, None),
    };
    let (from, to) = match range.split_once('-') {
        _ if range == "*" || (range == "?" && unit.allows_question_mark) => (unit.first, unit.last),
        Some((from, to)) => check_range(unit, value(unit, from)?, value(unit, to)?)?,
        None => {
            let from = value(unit, range)?;
            (from, if step.is_some() { unit.last.max(from) } else { from })
        }
    };
    Ok((from, to, step.unwrap_or(1)))
}

fn check_range(unit: &FieldSpec, from: u32, to: u32) -> Result<(u32, u32), String> {
    let ends_on_sunday = unit.highest > unit.last && to == unit.first;
    let to = if ends_on_sunday && from > to { unit.highest } else { to };
    if from > to { Err("runs backwards".into()) } else { Ok((from, to)) }
}

fn parse_step(unit: &FieldSpec, text: &str) -> Result<usize, String> {
    let count = unit.last - unit.first + 1;
    match text.parse::<u32>() {
        Ok(0) => Err("has a step of zero".into()),
        Ok(step) if step > count => Err(format!("has a step beyond its {count} values")),
        Ok(step) => Ok(step as usize),
        Err(_) => Err("has a step that is not a number".into()),
    }
}

fn value(unit: &FieldSpec, text: &str) -> Result<u32, String> {
    let outside = || format!("is outside {}-{}", unit.first, unit.highest);
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let number = text.parse().map_err(|_| outside())?;
        return if (unit.first..=unit.highest).contains(&number) { Ok(number) } else { Err(outside()) };
    }
    let is_called = |name: &&str| name.eq_ignore_ascii_case(text) || name[..3].eq_ignore_ascii_case(text);
    match unit.names.iter().position(is_called) {
        Some(index) => Ok(unit.first + index as u32),
        None if unit.names.is_empty() => Err("is not a number".into()),
        None => Err("is neither a number nor a name".into()),
    }
}
