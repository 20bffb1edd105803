//! Sets up the log: the daemon's, and for other commands what `-v` or `KEEPALIVE_LOG` asks for.

use tracing_subscriber::EnvFilter;

use crate::cli::GlobalArgs;
use crate::cli::output::{Output, is_stderr_coloured};
use crate::sys::paths;
use crate::sys::paths::Environment;

/// Sets up the daemon's log: to stderr, or with `--json` one object per line to stdout, where it prints nothing else.
pub fn init_for_daemon(global: &GlobalArgs, places: &Environment) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "keepalive=info,warn",
        (false, 1) => "keepalive=debug,info",
        (false, _) => "trace",
    };
    let (wanted, fault) = env_filter(places);
    let filter = wanted.unwrap_or_else(|| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Only tests install a second subscriber in one process.
    let _already = if global.json {
        builder.json().flatten_event(true).with_writer(std::io::stdout).try_init()
    } else {
        builder.with_target(false).with_ansi(is_stderr_coloured(global.color)).try_init()
    };
    if let Some(fault) = fault {
        tracing::warn!("{fault}");
    }
}

/// Sets up the log of a short command: to stderr, and empty unless it is asked for.
pub fn init_for_command(global: &GlobalArgs, places: &Environment, out: &Output) {
    let (wanted, fault) = env_filter(places);
    if let Some(fault) = fault {
        out.warn(&fault);
    }
    if global.verbose == 0 && wanted.is_none() {
        return;
    }
    let level = if global.verbose > 1 { "trace" } else { "keepalive=debug,info" };
    let filter = wanted.unwrap_or_else(|| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _already = builder.with_target(false).with_ansi(is_stderr_coloured(global.color)).try_init();
}

/// The filter of the environment, or what is wrong with it; an invalid filter counts as none.
fn env_filter(places: &Environment) -> (Option<EnvFilter>, Option<String>) {
    let Some(text) = &places.log_filter else { return (None, None) };
    match EnvFilter::try_new(text) {
        Ok(filter) => (Some(filter), None),
        Err(e) => {
            let why = format!("{}={text:?} is ignored: {e}; use for example keepalive=debug", paths::LOG);
            (None, Some(why))
        }
    }
}
