//! What hooks were told of a profile, so that a run each minute does not tell it again. (pure)

use serde::{Deserialize, Serialize};

use crate::clock::{Moment, Timestamp};

/// What was told, and is not over. Written by [`Store::replace_hook_stamps`](crate::store::Store::replace_hook_stamps).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStamps {
    /// When it was last told that a login is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_login: Option<Moment>,
    /// It was told that refreshes fail.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_failure_told: bool,
    /// The last warning that the refresh token will end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_due: Option<LoginDueStamp>,
}

/// A warning so many days ahead of the end of the refresh token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginDueStamp {
    pub login_by: Timestamp,
    pub days: u64,
}

impl HookStamps {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
