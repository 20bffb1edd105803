//! The interface through which the engine reads the stores of other tools; it never writes them.

use crate::credential::external::{ExternalCredential, ImportSource};
use crate::outcome::{ErrorKind, Failure};
use crate::profile::ProfileName;

/// The stores of other tools, as the engine needs them.
pub trait FollowedStores: Send + Sync {
    /// The credential that the store at `origin` holds now for the same account. `caller_profile`: the profile that it
    /// is read for.
    fn read(&self, origin: &ImportSource, caller_profile: &str) -> Result<ExternalCredential, Failure>;
}

/// The error of a profile that has no tool to follow.
pub fn nothing_to_follow(name: &ProfileName) -> Failure {
    Failure::new(ErrorKind::Follow, format!("profile {name} has follow = true, but was not imported from a tool"))
        .with_hint(format!("remove follow = true from [profile.{name}], or keepalive import {name} --from TOOL"))
}
