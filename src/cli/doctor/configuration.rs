//! Reports which configuration is in force, and its warnings.

use super::Finding;
use crate::access::setup::Setup;
use crate::cli::output::Output;

pub(super) fn check(setup: &Setup, _: &Output) -> Vec<Finding> {
    let mut findings = vec![place(setup)];
    findings.extend(warnings(setup));
    findings
}

fn place(setup: &Setup) -> Finding {
    let text = match &setup.config.path {
        Some(path) => format!("using {}", path.display()),
        None => format!("no file at {}; using defaults", setup.environment.config.display()),
    };
    Finding::good("configuration", text)
}

fn warnings(setup: &Setup) -> impl Iterator<Item = Finding> {
    let told = |w: &crate::config::error::Diagnostic| {
        Finding::warning("configuration", w.to_string(), w.hint.as_deref().unwrap_or("see keepalive.toml(5)"))
    };
    setup.config.warnings.iter().map(told)
}
