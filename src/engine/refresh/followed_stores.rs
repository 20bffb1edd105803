//! The stores of other tools, as the engine sees them: asked for what they hold, and never written.

use crate::credential::external::{ExternalCredential, ImportSource};
use crate::outcome::{ErrorKind, Failure};
use crate::profile::ProfileName;

/// The stores of other tools. The engine knows none of them.
pub trait FollowedStores: Send + Sync {
    /// What the store that a credential came from holds now for the same account. `within`: the profile it is asked for.
    fn read(&self, origin: &ImportSource, caller_profile: &str) -> Result<ExternalCredential, Failure>;
}

/// Why a profile cannot follow anything.
pub fn nothing_to_follow(name: &ProfileName) -> Failure {
    Failure::new(ErrorKind::Follow, format!("profile {name} has follow = true, but was not imported from a tool"))
        .with_hint(format!("remove follow = true from [profile.{name}], or keepalive import {name} --from TOOL"))
}
