//! The interface through which the engine reads the stores of other tools; it never writes them.

use crate::credential::external::{ExternalCredential, ImportSource};
use crate::outcome::{ErrorKind, Failure};
use crate::profile::ProfileName;

/// What a tool's store holds for one account.
#[derive(Debug)]
pub enum StoreContent {
    Credential(Box<ExternalCredential>),
    /// The store is gone, or was understood and has no refresh token for that account; the text says which.
    SignedOut(String),
}

/// What a person must know of a tool that refreshes a credential by itself, or that does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolFacts {
    /// Whether the tool refreshes its tokens. One that does not would never bring a newer token.
    pub is_refreshing: bool,
    /// How to sign out of it on this machine only.
    pub sign_out: String,
}

/// The stores of other tools, as the engine needs them.
pub trait FollowedStores: Send + Sync {
    /// What the store at `origin` holds now for the same account. An error means that this is unknown. `caller_profile`:
    /// the profile that it is read for.
    fn read(&self, origin: &ImportSource, caller_profile: &str) -> Result<StoreContent, Failure>;

    /// What is known of the tool itself.
    fn about(&self, origin: &ImportSource) -> ToolFacts;
}

/// The error of a profile that has no tool to follow.
pub fn nothing_to_follow(name: &ProfileName) -> Failure {
    Failure::new(ErrorKind::Follow, format!("profile {name} has follow = true, but was not imported from a tool"))
        .with_hint(format!("remove follow = true from [profile.{name}], or keepalive import {name} --from TOOL"))
}

/// The error of a profile whose tool holds the same token and never refreshes it, at a provider that rotates.
pub fn tool_never_refreshes(name: &ProfileName, origin: &ImportSource, about: &ToolFacts) -> Failure {
    Failure::new(
        ErrorKind::Follow,
        format!("profile {name} has follow = true, but {} does not refresh its tokens, so it would wait for ever", origin.tool),
    )
    .with_hint(format!(
        "sign out of that tool on this machine, and keepalive goes on alone: {}; then remove follow = true from [profile.{name}]",
        about.sign_out
    ))
}

/// Why a flight sends nothing while the tool holds the same token, at a provider that rotates, and what a person can do.
pub fn tool_refreshes_first(origin: &ImportSource, about: &ToolFacts) -> Failure {
    let tool = &origin.tool;
    Failure::new(
        ErrorKind::ToolFirst,
        format!(
            "{origin} has the same refresh token, which works once at this provider, so {tool} refreshes it and keepalive adopts the result"
        ),
    )
    .with_hint(format!(
        "run {tool} once when its token is about to end, and keepalive adopts the new one; or sign out of it on this machine, \
         and keepalive goes on alone: {}",
        about.sign_out
    ))
}
