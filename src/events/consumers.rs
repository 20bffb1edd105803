//! The events of programs that ask for tokens.

use std::fmt::Display;

use crate::credential::Generation;
use crate::profile::ProfileName;

pub fn helper_serves(profile: &ProfileName, server: &dyn Display) {
    tracing::debug!(event = "helper.serves", profile = %profile, "{server} is one of its hosts");
}

pub fn helper_declines(reason: &str) {
    tracing::debug!(event = "helper.declines", reason, "nothing is given out");
}

pub fn exec_starts(profile: &ProfileName, generation: Generation) {
    tracing::debug!(event = "exec.start", profile = %profile, generation = generation.get(), "the command starts");
}

pub fn exec_again(profile: &ProfileName, reason: &str) {
    tracing::debug!(event = "exec.again", profile = %profile, reason, "the command ended with the status to refresh on");
}
