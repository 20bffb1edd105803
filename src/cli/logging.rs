//! The log: the daemon's own, and for other commands what `-v` or `KEEPALIVE_LOG` asks for.
//!
//! It has our own lines only, unless `KEEPALIVE_LOG` says otherwise: those of the HTTP library explain no decision, and
//! bury those that do.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::GlobalArgs;
use crate::cli::output::{Output, is_stderr_coloured};
use crate::sys::journal;
use crate::sys::journal::Priority;
use crate::sys::paths;
use crate::sys::paths::Environment;

/// Sets up the daemon's log: to stderr, or with `--json` one object per line to stdout, where it prints nothing else.
pub(super) fn init_for_daemon(global: &GlobalArgs, places: &Environment) {
    let level = if global.quiet { "keepalive=error" } else { level(global.verbose) };
    let (wanted, fault) = env_filter(places);
    let filter = wanted.unwrap_or_else(|| EnvFilter::new(level));
    if global.json {
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stdout);
        // A second subscriber in one process is a test's business.
        let _already = builder.json().flatten_event(true).try_init();
    } else {
        init_text(global, filter);
    }
    if let Some(fault) = fault {
        tracing::warn!(event = "config.warning", "{fault}");
    }
}

/// That of a command which is over soon: nothing unless it is asked for, and always to stderr.
pub(super) fn init_for_command(global: &GlobalArgs, places: &Environment, out: &Output) {
    let (wanted, fault) = env_filter(places);
    if let Some(fault) = fault {
        out.warn(&fault);
    }
    if global.verbose == 0 && wanted.is_none() {
        return;
    }
    init_text(global, wanted.unwrap_or_else(|| EnvFilter::new(level(global.verbose))));
}

fn level(verbosity: u8) -> &'static str {
    match verbosity {
        0 => "keepalive=info",
        1 => "keepalive=debug",
        _ => "keepalive=trace",
    }
}

/// Text to stderr, in the form that the journal wants if that is where it goes.
fn init_text(global: &GlobalArgs, filter: EnvFilter) {
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _already = if journal::is_stderr_the_journal() {
        builder.with_ansi(false).event_format(JournalFormat).try_init()
    } else {
        builder.with_target(false).with_ansi(is_stderr_coloured(global.color)).try_init()
    };
}

/// A line for the journal of systemd: its priority first, and no time, which the journal has itself.
struct JournalFormat;

impl<S, N> FormatEvent<S, N> for JournalFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = String::new();
        ctx.field_format().format_fields(Writer::new(&mut text), event)?;
        // The journal would read a second line as an entry of its own, without the priority.
        writeln!(writer, "{}{}", priority(*event.metadata().level()), text.replace('\n', " "))
    }
}

fn priority(level: Level) -> Priority {
    match level {
        Level::ERROR => Priority::Error,
        Level::WARN => Priority::Warning,
        Level::INFO => Priority::Info,
        _ => Priority::Debug,
    }
}

/// The parts of this program that log; a filter for another one shows nothing.
const TARGETS: [&str; 9] =
    ["keepalive", "hyper", "hyper_util", "reqwest", "rustls", "tokio", "zbus", "secret_service", "tracing"];

/// The filter of the environment, or what is wrong with it; an invalid filter counts as none.
fn env_filter(places: &Environment) -> (Option<EnvFilter>, Option<String>) {
    let Some(text) = &places.log_filter else { return (None, None) };
    let told = |why: String| Some(format!("{}={text:?} {why}; use for example keepalive=debug", paths::LOG));
    match EnvFilter::try_new(text) {
        Ok(_) if !names_a_target(text) => (None, told("is ignored: it names no level, and nothing that logs".into())),
        Ok(filter) => (Some(filter), None),
        Err(e) => (None, told(format!("is ignored: {e}"))),
    }
}

/// Whether a part of the filter is a level, or about something that logs. `EnvFilter` takes any word for a target.
fn names_a_target(filter: &str) -> bool {
    filter.split(',').any(|part| {
        let part = part.trim();
        let root = part.split(['=', '[', ':']).next().unwrap_or_default();
        part.parse::<LevelFilter>().is_ok() || root.is_empty() || TARGETS.contains(&root)
    })
}

#[cfg(test)]
mod tests {
    use super::names_a_target;

    #[test]
    fn log_filter_that_shows_nothing_is_told() {
        for filter in ["debug", "keepalive=debug", "keepalive::engine=trace", "hyper=info,warn", "[span]=debug", "off"]
        {
            assert!(names_a_target(filter), "{filter}");
        }
        for filter in ["garbage", "keepalve=debug", "garbage,more"] {
            assert!(!names_a_target(filter), "{filter}");
        }
    }
}
