//! The one writer of what a flight has decided. The decisions are pure, and say with a [`Settlement`] what is to be
//! written and how the flight ends.

use std::sync::Arc;

use crate::clock::{Moment, Timestamp};
use crate::credential::Credential;
use crate::credential::freshness::Validity;
use crate::credential::secret::Fingerprint;
use crate::engine::refresh::context::RefreshContext;
use crate::events;
use crate::outcome::Outcome;
use crate::store::LockedProfile;
use crate::store::journal::Journal;
use crate::store::journal::block::Block;
use crate::store::keys::sealing_key::SealingKey;

/// What is to be written to the ledger of a token that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerWrite {
    Consumed(Fingerprint),
    Rejected(Fingerprint),
    /// The server has accepted a token that it had rejected, and did not use it up.
    ClearRejected(Fingerprint),
    InDoubt(Fingerprint, Timestamp),
    /// The token was not used up, so a doubt about it is over.
    ClearDoubt(Fingerprint),
}

/// What the attempt came to, which says what becomes of its response.
#[derive(Debug)]
pub enum End {
    /// Nothing was sent, or no response is stored.
    Unsent,
    /// The response refused the attempt, and is removed once that is written.
    Refused,
    /// The response, if any, stays as evidence.
    InDoubt,
    /// The response brought this credential. From here on the new token is safe, so errors are warnings.
    Granted { credential: Box<Credential>, is_promoted: bool },
}

/// Journal and ledger as they are to be written.
#[derive(Debug)]
pub struct Changes {
    pub journal: Journal,
    pub ledger: Vec<LedgerWrite>,
}

impl From<Journal> for Changes {
    fn from(journal: Journal) -> Self {
        Self { journal, ledger: Vec::new() }
    }
}

impl Changes {
    /// Ends the attempt, and records the outcome for followers and for `status`.
    pub fn end(mut self, end: End, outcome: Outcome, now: &Moment) -> Settlement {
        self.journal.record_attempt(&outcome, now.wall);
        Settlement { changes: self, end, outcome }
    }
}

/// How an attempt ends: decided, and not written yet.
#[derive(Debug)]
#[must_use]
pub struct Settlement {
    pub changes: Changes,
    pub end: End,
    pub outcome: Outcome,
}

impl Settlement {
    /// What was granted is kept, and this stands in the way of its use.
    pub fn blocked_by(mut self, block: Block) -> Self {
        let outcome = Outcome::new(block.outcome).with_error(block.failure.clone());
        if let Some(last) = &mut self.changes.journal.last_attempt {
            (last.outcome, last.error) = (outcome.kind, outcome.error.clone());
        }
        self.changes.journal.set_block(block);
        Self { outcome: Outcome { warnings: self.outcome.warnings, ..outcome }, ..self }
    }

    /// Steps 7b to 9: a response with tokens becomes the sealed credential, and the keyring gets it; then the ledger and
    /// after it the journal are written; then a response that refused the attempt is removed.
    ///
    /// What the ledger does not take, the journal keeps for the next run, which is a warning. That the journal cannot
    /// be written is the outcome, unless a token was granted or is in doubt: that matters more, and the next run finds
    /// the response or the intent.
    pub fn apply(self, ctx: &RefreshContext, locked: &mut LockedProfile<'_, '_>, key: &Arc<SealingKey>) -> Outcome {
        let Self { changes: Changes { journal, ledger }, end, mut outcome } = self;
        let mut warn = |what: &str, error: String| {
            tracing::error!(event = "store.unavailable", profile = %ctx.profile.name, %error, "{what}");
            outcome.warnings.push(format!("{what}: {error}"));
        };
        locked.journal = journal;
        if let End::Granted { credential, is_promoted } = &end {
            if !is_promoted && let Err(e) = locked.promote_response() {
                warn("the new token is stored, but not under its final file name yet", e.to_string());
            }
            if let Err(e) = locked.publish(credential, key) {
                warn("the new token is not in the keyring yet", e.to_string());
            }
        }
        for write in &ledger {
            let written = match write {
                LedgerWrite::Consumed(token) => locked.mark_consumed_or_queue(token),
                LedgerWrite::Rejected(token) => locked.mark_rejected_or_queue(token),
                LedgerWrite::ClearRejected(token) => locked.clear_rejected(token),
                LedgerWrite::InDoubt(token, at) => locked.mark_in_doubt(token, *at),
                LedgerWrite::ClearDoubt(token) => locked.clear_in_doubt(token),
            };
            if let Err(e) = written {
                warn("cannot write the ledger", e.to_string());
            }
        }
        let saved = locked.save_journal().and_then(|()| match end {
            End::Refused => locked.discard_response(),
            End::Unsent | End::InDoubt | End::Granted { .. } => Ok(()),
        });
        match (saved, &end) {
            (Ok(()), _) => {}
            (Err(e), End::Unsent | End::Refused) => return e.outcome(),
            (Err(e), End::InDoubt | End::Granted { .. }) => {
                warn("cannot write the journal; the next refresh will update it", e.to_string());
            }
        }
        if let End::Granted { credential, .. } = &end {
            let expires_at = credential.validity().map(Validity::expires_at);
            events::refreshed(&ctx.profile, credential.generation, expires_at);
        }
        outcome
    }
}
