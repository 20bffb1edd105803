//! A line of the user's crontab. Its text is that of contrib/crontab.

use std::io;
use std::time::Duration;

use crate::cli::service::failure;
use crate::cli::service::program::{MARK, Program};
use crate::outcome::Failure;
use crate::sys::tool_process;

const TEMPLATE: &str = include_str!("../../../contrib/crontab");
const CRONTAB_TIMEOUT: Duration = Duration::from_secs(10);

/// Adds the line, or brings ours up to date. Returns whether something changed.
pub(super) fn install(program: &Program) -> Result<bool, Failure> {
    let line = program.cron_line(TEMPLATE).ok_or_else(|| failure("there is no line for cron"))?;
    let there = read()?;
    let mut wanted = without_ours(&there);
    if !wanted.is_empty() && !wanted.ends_with('\n') {
        wanted.push('\n');
    }
    wanted.push_str(&format!("{MARK}\n{line}\n"));
    if wanted == there {
        return Ok(false);
    }
    write(&wanted).map(|()| true)
}

/// Removes our line. `is_wanted`: the person asked for it, so a missing cron is an error.
pub(super) fn uninstall(is_wanted: bool) -> Result<bool, Failure> {
    let there = match read() {
        Ok(there) => there,
        Err(_) if !is_wanted => return Ok(false),
        Err(e) => return Err(e),
    };
    let rest = without_ours(&there);
    if rest == there {
        return Ok(false);
    }
    write(&rest).map(|()| true)
}

pub(super) fn is_installed() -> bool {
    read().is_ok_and(|text| text.lines().any(|line| line == MARK))
}

/// The crontab without our mark and the line below it.
fn without_ours(text: &str) -> String {
    let mut lines = text.split_inclusive('\n');
    let mut rest = String::new();
    while let Some(line) = lines.next() {
        if line.trim_end() == MARK {
            lines.next();
        } else {
            rest.push_str(line);
        }
    }
    rest
}

fn read() -> Result<String, Failure> {
    match tool_process::run_tool(&["crontab", "-l"], "", None, CRONTAB_TIMEOUT) {
        Ok(run) if run.is_success => Ok(run.stdout),
        Ok(run) if run.stderr.contains("no crontab") || run.stderr.contains("can't open") => Ok(String::new()),
        Ok(run) => Err(failure(format!("cannot read your crontab: {}", run.stderr.trim()))),
        Err(e) => Err(missing(&e)),
    }
}

fn write(text: &str) -> Result<(), Failure> {
    match tool_process::run_tool(&["crontab", "-"], text, None, CRONTAB_TIMEOUT) {
        Ok(run) if run.is_success => Ok(()),
        Ok(run) => Err(failure(format!("cannot write your crontab: {}", run.stderr.trim()))),
        Err(e) => Err(missing(&e)),
    }
}

fn missing(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => failure("crontab is not installed").with_hint(
            "install cron; or, with a systemd user manager, leave out --cron; or run `keepalive daemon` yourself",
        ),
        _ => failure(format!("cannot run crontab: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_two_lines_are_taken_from_a_crontab() {
        let theirs = "# mine\n0 1 * * * backup\n";
        assert_eq!(
            without_ours(&format!("{theirs}{MARK}\n*/10 * * * * keepalive\n5 * * * * x\n")),
            format!("{theirs}5 * * * * x\n")
        );
        assert_eq!(without_ours(theirs), theirs);
    }
}
