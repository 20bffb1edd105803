//! The log: the daemon's own, and for other commands what `-v` or `KEEPALIVE_LOG` asks for.

use tracing_subscriber::EnvFilter;

use crate::cli::GlobalArgs;
use crate::cli::output::{Output, is_stderr_coloured};
use crate::sys::paths;
use crate::sys::paths::Environment;

/// The daemon's: to stderr, or with `--json` one object a line to stdout, where it has nothing else to say.
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
    // A second subscriber in one process is a test's business.
    let _already = if global.json {
        builder.json().flatten_event(true).with_writer(std::io::stdout).try_init()
    } else {
        builder.with_target(false).with_ansi(is_stderr_coloured(global.color)).try_init()
    };
    if let Some(fault) = fault {
        tracing::warn!("{fault}");
    }
}

/// That of a command which is over soon: nothing unless somebody wants to know, and always to stderr.
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

/// The filter that the environment asks for, or what is wrong with it: then it is as if it asked for none.
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
