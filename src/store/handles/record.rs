//! What is kept of a handle, and whether it is good for something at this moment. (pure)

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text::HandleHash;
use crate::clock::{Moment, Timestamp};
use crate::credential::external::AccountIdentity;
use crate::profile::ProfileName;

/// The usual least validity of a token that is handed out for a handle: several programs refresh at five minutes.
pub const USUAL_MIN_VALID: Duration = Duration::from_secs(10 * 60);
/// How often the use of a handle is noted.
const USE_NOTED_EVERY: Duration = Duration::from_secs(60 * 60);

/// A handle, without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandleRecord {
    pub sha256: HandleHash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub grants: HandleGrant,
    pub created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
    /// Programs of other users may use it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_user: bool,
}

/// What a handle gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HandleGrant {
    Metrics,
    Token(TokenGrant),
}

/// The access token of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenGrant {
    pub profile: ProfileName,
    /// The account that the profile had when the handle was made, as far as it was known.
    pub account: AccountIdentity,
    min_valid_ms: u64,
    /// A token that lives less than this is not handed out.
    #[serde(default)]
    floor_ms: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub id_token: bool,
}

impl TokenGrant {
    pub fn new(
        profile: ProfileName,
        account: AccountIdentity,
        min_valid: Duration,
        floor: Duration,
        id_token: bool,
    ) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { profile, account, min_valid_ms: millis(min_valid), floor_ms: millis(floor), id_token }
    }

    pub fn floor(&self) -> Duration {
        Duration::from_millis(self.floor_ms)
    }

    /// A token below the floor is of no use, so it is refreshed before that.
    pub fn min_valid(&self) -> Duration {
        Duration::from_millis(self.min_valid_ms).max(self.floor())
    }
}

impl HandleRecord {
    pub fn id(&self) -> &str {
        self.sha256.id()
    }

    pub fn profile(&self) -> Option<&ProfileName> {
        match &self.grants {
            HandleGrant::Metrics => None,
            HandleGrant::Token(grant) => Some(&grant.profile),
        }
    }

    pub fn is_expired(&self, now: &Moment) -> bool {
        self.expires_at.is_some_and(|at| at <= now.wall)
    }

    /// Whether its use at this moment is to be noted.
    pub(super) fn is_use_news(&self, now: &Moment) -> bool {
        self.last_used_at.is_none_or(|last| now.wall.since(last) >= USE_NOTED_EVERY)
    }

    /// Whether a person means this handle by its id or its name.
    pub fn is_called(&self, word: &str) -> bool {
        self.id() == word || self.name.as_deref() == Some(word)
    }
}
