//! Lays out text for a terminal: columns, words wrapped to its width, and times as people read them.

use std::io;
use std::io::IsTerminal;
use std::time::Duration;

use terminal_size::{Height, Width};

use crate::clock::Timestamp;

/// Below this, a terminal is taken to say nothing sensible about itself.
const MIN_WIDTH: usize = 20;

/// The width of the terminal that data goes to; `None`: it goes to none, so lines are not cut.
pub(super) fn stdout_width() -> Option<usize> {
    width(io::stdout().is_terminal(), terminal_size::terminal_size_of(io::stdout()))
}

/// The width of the terminal that messages go to.
pub(super) fn stderr_width() -> Option<usize> {
    width(io::stderr().is_terminal(), terminal_size::terminal_size_of(io::stderr()))
}

fn width(is_terminal: bool, size: Option<(Width, Height)>) -> Option<usize> {
    let (Width(columns), _) = size.filter(|_| is_terminal)?;
    Some(usize::from(columns)).filter(|columns| *columns >= MIN_WIDTH)
}

/// The width that a text takes on the screen. Styles have none.
pub(super) fn visible_width(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().chars().count()
}

/// Wraps every line of a text at its words, and indents what it continues by `indent`. A word is never cut: it may be a
/// path, or part of a command. Without a width nothing changes.
pub(super) fn wrap(text: &str, width: Option<usize>, indent: usize) -> String {
    let Some(width) = width else { return text.to_owned() };
    text.split('\n').map(|line| wrap_line(line, width, indent)).collect::<Vec<_>>().join("\n")
}

fn wrap_line(line: &str, width: usize, indent: usize) -> String {
    if visible_width(line) <= width {
        return line.to_owned();
    }
    let (mut wrapped, mut used, mut is_start) = (String::new(), 0, true);
    for word in words(line) {
        let length = visible_width(&word);
        if !wrapped.trim().is_empty() && used + 1 + length > width {
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent));
            used = indent;
        } else if !is_start {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.push_str(&word);
        used += length;
        is_start = false;
    }
    wrapped
}

/// The words of a line; what stands between backticks is one, because a command is copied whole.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        match words.last_mut().filter(|last| last.matches('`').count() % 2 == 1) {
            Some(open) => open.push_str(&format!(" {word}")),
            None => words.push(word.to_owned()),
        }
    }
    words
}

/// Aligns rows in columns as wide as their widest cell.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| rows.iter().filter_map(|row| row.get(i)).map(|cell| visible_width(cell)).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, w)| format!("{cell}{}", " ".repeat(w - visible_width(cell))));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// A distance in time, in one unit.
pub(super) fn distance(distance: Duration) -> String {
    match distance.as_secs() {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    }
}

/// An instant for a person: how far away; if `is_exact`, also when, on the clock of this machine.
pub(super) fn relative_time(at: Timestamp, now: Timestamp, is_exact: bool) -> String {
    let away = match at >= now {
        true => format!("in {}", distance(at.since(now))),
        false => format!("{} ago", distance(now.since(at))),
    };
    if is_exact { format!("{away} ({})", at.local()) } else { away }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_columns_align_despite_colour_codes() {
        let rows = [["A", "B"], ["long", "x"], ["\u{1b}[32mc\u{1b}[0m", "y"]].map(|r| r.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "A     B\nlong  x\n\u{1b}[32mc\u{1b}[0m     y\n");
    }

    #[test]
    fn text_is_wrapped_at_words_which_are_never_cut() {
        assert_eq!(wrap("one two three", Some(8), 2), "one two\n  three");
        assert_eq!(wrap("a /very/long/path b", Some(8), 2), "a\n  /very/long/path\n  b");
        assert_eq!(wrap("\u{1b}[1mone two\u{1b}[0m x", Some(9), 0), "\u{1b}[1mone two\u{1b}[0m x");
        assert_eq!(wrap("run `a b c` now", Some(10), 2), "run\n  `a b c`\n  now");
        assert_eq!(wrap("one two three", None, 2), "one two three");
    }
}
