//! The log: the daemon's own, and for other commands what `-v` or `KEEPALIVE_LOG` asks for.

use tracing_subscriber::EnvFilter;

use super::{Colour, Global};
use crate::sys::paths::Places;

/// The daemon's: to stderr, or with `--json` one object a line to stdout, where it has nothing else to say.
pub fn of_daemon(global: &Global, places: &Places) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "keepalive=info,warn",
        (false, 1) => "keepalive=debug,info",
        (false, _) => "trace",
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter(places, level)).with_writer(std::io::stderr);
    // A second subscriber in one process is a test's business.
    let _already = if global.json {
        builder.json().flatten_event(true).with_writer(std::io::stdout).try_init()
    } else {
        builder.with_target(false).with_ansi(is_coloured(global)).try_init()
    };
}

/// That of a command which is over soon: nothing unless somebody wants to know, and always to stderr.
pub fn of_command(global: &Global, places: &Places) {
    if global.verbose == 0 && places.log_filter.is_none() {
        return;
    }
    let level = if global.verbose > 1 { "trace" } else { "keepalive=debug,info" };
    let builder = tracing_subscriber::fmt().with_env_filter(filter(places, level)).with_writer(std::io::stderr);
    let _already = builder.with_target(false).with_ansi(is_coloured(global)).try_init();
}

fn filter(places: &Places, level: &str) -> EnvFilter {
    let wanted = places.log_filter.as_deref().and_then(|text| EnvFilter::try_new(text).ok());
    wanted.unwrap_or_else(|| EnvFilter::new(level))
}

fn is_coloured(global: &Global) -> bool {
    matches!(global.color, Colour::Always)
}
