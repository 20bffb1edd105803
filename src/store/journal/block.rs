//! What stands in the way of a refresh, beside the state of the refresh token itself. (pure)

use serde::{Deserialize, Serialize};

use crate::clock::{Moment, Timestamp};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};

/// Why a profile is blocked, in the order of precedence: the first one is the one that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// What is stored, or its key, cannot be used. Set by a run that could not open it, and cleared by one that could. It was
    /// no attempt, so followers learn nothing from it. `token` is such a run where the key is concerned.
    Store,
    /// The newest response belongs to another account than the credential did, or the followed tool names another account
    /// for the stored token. It is kept, because the old token is spent, and not handed out until a person signs in or
    /// imports anew.
    OtherAccount,
    /// What the followed tool holds cannot be reconciled with what is here, and a person must say which is meant.
    FollowConflict,
    /// The provider refuses the client, not the token: wait until the configuration changes. `--force` tries it once.
    Client,
    /// The newest response held no access token that can be used: what is there, if anything, is the one before.
    AccessToken,
    /// The store of the followed tool cannot be read, which may pass.
    FollowSource,
    /// The followed tool has the same token, at a provider that rotates: the tool refreshes it.
    FollowWait,
}

impl Cause {
    /// Those that a look into the followed tool's store decides.
    pub const FOLLOW: [Self; 3] = [Self::FollowConflict, Self::FollowSource, Self::FollowWait];

    /// Whether it only delays the refresh, so that the profile stands as it would without it.
    pub fn is_delay(self) -> bool {
        matches!(self, Self::FollowSource | Self::FollowWait)
    }
}

/// One thing that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    pub cause: Cause,
    /// How a run ends that meets it.
    pub outcome: OutcomeKind,
    pub failure: Failure,
    /// When it is tried again, if that is planned by time.
    pub next_check: Option<Timestamp>,
    /// When `next_check` was set: for clocks that are set meanwhile.
    pub set_at: Option<Moment>,
    /// Of [`Cause::Client`].
    pub client: Option<RefusedClient>,
}

/// The client that a provider refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedClient {
    /// Identifies the settings that were refused: a hash under the sealing key, for the client secret is among them.
    pub config_fingerprint: String,
    /// Automatic probes made since.
    pub probe_count: u32,
}

impl Block {
    pub fn new(cause: Cause, failure: Failure) -> Self {
        let outcome = match cause {
            Cause::Store => OutcomeKind::StoreUnavailable,
            Cause::OtherAccount | Cause::FollowConflict | Cause::Client | Cause::AccessToken => {
                OutcomeKind::ConfigError
            }
            Cause::FollowSource | Cause::FollowWait => OutcomeKind::Deferred,
        };
        Self { cause, outcome, failure, next_check: None, set_at: None, client: None }
    }

    /// What a run ended with, if every run will until what is stored is mended, or if it was without the sealing key.
    pub fn from_outcome(outcome: &Outcome) -> Option<Self> {
        let failure = outcome.error.clone().filter(|_| outcome.is_persistent || outcome.is_without_key)?;
        Some(Self { outcome: outcome.kind, ..Self::new(Cause::Store, failure) })
    }

    /// Whether it notes that the sealing key could not be had. It says nothing of what is stored.
    pub fn is_about_key(&self) -> bool {
        self.cause == Cause::Store && self.failure.kind.is_about_key()
    }

    /// Whether it is to take the place of `noted`, the block of the same cause. That the credential is a copy's, or another
    /// store's, is known only by that block, so a run without the key leaves it; and keyrings word one failure in many ways.
    pub fn is_news_after(&self, noted: Option<&Self>) -> bool {
        let Some(noted) = noted else { return true };
        let is_foreign = matches!(noted.failure.kind, ErrorKind::Clone | ErrorKind::DomainMismatch);
        let is_reworded =
            self.failure.kind == ErrorKind::KeyringFailed && noted.failure.kind == ErrorKind::KeyringFailed;
        let is_withheld = is_reworded || (self.is_about_key() && is_foreign);
        !is_withheld && self != noted
    }

    #[must_use]
    pub fn until(self, next_check: Timestamp, set_at: &Moment) -> Self {
        Self { next_check: Some(next_check), set_at: Some(set_at.clone()), ..self }
    }

    /// Until when it is not tried again, if that is not over.
    pub fn blocked_until(&self, now: &Moment) -> Option<Timestamp> {
        now.pending_until(self.next_check?, self.set_at.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::journal::Journal;
    use crate::store::test_samples::journal;

    fn blocked(causes: &[Cause]) -> Journal {
        let mut journal = journal();
        for cause in causes {
            journal.set_block(Block::new(*cause, Failure::new(ErrorKind::Io, "x")));
        }
        journal
    }

    fn causes(journal: &Journal) -> Vec<Cause> {
        journal.blocks.iter().map(|block| block.cause).collect()
    }

    #[test]
    fn blocks_stand_in_their_order_whatever_was_set_first() {
        let journal = blocked(&[Cause::AccessToken, Cause::Store, Cause::Client, Cause::Store]);
        assert_eq!(causes(&journal), [Cause::Store, Cause::Client, Cause::AccessToken]);
        assert_eq!(journal.deciding_block().map(|block| block.cause), Some(Cause::Store));
        assert_eq!(blocked(&[Cause::FollowSource]).deciding_block(), None);
        assert_eq!(blocked(&[Cause::FollowWait]).deciding_block(), None);
    }

    #[test]
    fn key_that_cannot_be_had_is_noted_once_and_hides_no_copy() {
        let noted = |kind, message: &str| Block::new(Cause::Store, Failure::new(kind, message));
        let locked = noted(ErrorKind::KeyringLocked, "locked");
        let failed = noted(ErrorKind::KeyringFailed, "prompt 1");
        for (new, before, is_news) in [
            (&locked, None, true),
            (&locked, Some(&locked), false),
            (&locked, Some(&failed), true),
            (&noted(ErrorKind::KeyringFailed, "prompt 2"), Some(&failed), false),
            (&locked, Some(&noted(ErrorKind::Clone, "restored")), false),
            (&locked, Some(&noted(ErrorKind::DomainMismatch, "of another")), false),
            (&locked, Some(&noted(ErrorKind::Damaged, "other key")), true),
            (&noted(ErrorKind::Clone, "restored"), Some(&locked), true),
            (&noted(ErrorKind::Key, "too long"), Some(&noted(ErrorKind::Key, "too short")), true),
        ] {
            assert_eq!(new.is_news_after(before), is_news, "{new:?} after {before:?}");
        }
    }

    #[test]
    fn look_at_a_followed_tool_leaves_one_block() {
        assert_eq!(causes(&blocked(&[Cause::FollowConflict, Cause::FollowSource])), [Cause::FollowSource]);
        assert_eq!(causes(&blocked(&[Cause::FollowSource, Cause::FollowWait])), [Cause::FollowWait]);
    }

    #[test]
    fn stored_credential_clears_the_blocks_that_it_ends() {
        let all = [Cause::Store, Cause::FollowConflict, Cause::Client, Cause::AccessToken];
        for (is_new_token, left) in
            [(true, &[Cause::FollowConflict][..]), (false, &[Cause::FollowConflict, Cause::AccessToken])]
        {
            let mut journal = blocked(&all);
            journal.clear_blocks_for(is_new_token);
            assert_eq!(causes(&journal), left);
        }
    }
}
