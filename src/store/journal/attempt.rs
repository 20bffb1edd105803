//! How requests ended, as the journal keeps it: the newest attempt to refresh, and a revocation.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::credential::secret::Fingerprint;
use crate::outcome::{Failure, OutcomeKind};

/// How the newest attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastAttempt {
    pub at: Timestamp,
    pub outcome: OutcomeKind,
    pub retry_at: Option<Timestamp>,
    pub error: Option<Failure>,
}

/// A refresh token that a logout sent to be revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    pub fingerprint: Fingerprint,
    pub at: Timestamp,
    /// The server said so. Else it may be revoked, or not.
    pub is_confirmed: bool,
}
