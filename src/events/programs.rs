//! What is logged of other programs: where they are served, what they ask, and what helpers and `exec` do for them.

use std::fmt::Display;
use std::net::SocketAddr;

use crate::credential::Generation;
use crate::outcome::Failure;
use crate::profile::ProfileName;

pub fn listener_up(address: SocketAddr) {
    tracing::info!(event = "listener.up", "listening on {address}");
}

pub fn listener_failed(address: SocketAddr, failure: &Failure) {
    let hint = failure.hint.as_deref();
    tracing::error!(event = "listener.failed", %address, hint, "{}", failure.message);
}

/// `path`: without a profile's name or a query. `handle`: its id.
pub fn socket_request(
    listener: &'static str,
    path: &'static str,
    status: u16,
    profile: Option<&ProfileName>,
    handle: Option<&str>,
) {
    let profile = profile.map(tracing::field::display);
    tracing::debug!(event = "socket.request", listener, profile, handle, path, status, "answered");
}

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
