//! Handles what the argument parser returns instead of a command: help, version, and wrong command lines.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::output::{CommandStatus, Output};
use crate::cli::{Colour, GlobalArgs};
use crate::outcome::{ErrorKind, Failure};

/// The exit status for a wrong command line.
const USAGE: u8 = 2;

/// Prints the parser's text instead of running a command.
pub(super) fn report_parse_error(error: &clap::Error) -> ExitCode {
    let is_json = asks_for_json(std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()));
    let out = Output::new(&GlobalArgs { config: None, json: is_json, quiet: false, verbose: 0, color: Colour::Auto });
    if !error.use_stderr() {
        out.data(&error.render().ansi().to_string());
        return out.finish(CommandStatus::Ok).into();
    }
    out.prompt(error.render().ansi().to_string().trim_end());
    if is_json {
        out.json(&json!({ "error": parse_failure(error) }));
        // If this output is lost, stderr says so; the wrong command line keeps the worse status.
        out.finish(CommandStatus::Ok);
    }
    ExitCode::from(USAGE)
}

/// Looks for `--json`, because the parser has given up. Words after `--` belong to another program.
fn asks_for_json(mut words: impl Iterator<Item = String>) -> bool {
    words.by_ref().take_while(|word| word != "--").any(|word| word == "--json")
}

/// The parser's first paragraph and its tip, without the usage lines.
fn parse_failure(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or(&text);
    let words: Vec<&str> = first.strip_prefix("error: ").unwrap_or(first).split_whitespace().collect();
    let tip = text.lines().find_map(|line| line.trim_start().strip_prefix("tip: "));
    Failure::new(ErrorKind::Usage, words.join(" ")).with_hint(tip.unwrap_or("see keepalive --help"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_flag_is_ignored_after_a_double_dash() {
        let asks = |line: &str| asks_for_json(line.split(' ').map(str::to_owned));
        assert_eq!(["token --json", "--json x -- y", "x -- --json", "x --jso"].map(asks), [true, true, false, false]);
    }
}
