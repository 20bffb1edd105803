//! The events of hooks.

use std::fmt::Display;

use crate::clock::Timestamp;
use crate::profile::{HookEvent, ProfileName};

pub fn login_due(profile: &ProfileName, end: Timestamp) {
    let at = end.to_the_second();
    tracing::warn!(event = "login.due", profile = %profile, %at, "the refresh token ends then: sign in again before");
}

/// Something of the hooks that is not the hook's own fault.
pub fn hook_trouble(profile: &ProfileName, what: &str, error: &dyn Display) {
    tracing::warn!(event = "hook.failed", profile = %profile, "cannot {what}: {error}");
}

pub fn hook_failed(profile: &ProfileName, hook: HookEvent, argv: &[String], why: &str, stderr: &str) {
    let (program, stderr) = (program(argv), Some(stderr).filter(|said| !said.is_empty()));
    tracing::warn!(event = "hook.failed", profile = %profile, %hook, stderr, "`{program}` failed: {why}");
}

pub fn hook_starts(profile: &ProfileName, hook: HookEvent, argv: &[String]) {
    tracing::debug!(event = "hook.start", profile = %profile, %hook, "running `{}`", program(argv));
}

pub fn hook_done(profile: &ProfileName, hook: HookEvent, argv: &[String]) {
    tracing::debug!(event = "hook.done", profile = %profile, %hook, "`{}` is done", program(argv));
}

pub fn hook_waits(profile: &ProfileName) {
    tracing::debug!(event = "hook.waits", profile = %profile, "another hook of the profile runs");
}

fn program(argv: &[String]) -> &str {
    argv.first().map_or("", String::as_str)
}
