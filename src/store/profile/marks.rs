//! What a profile's run tells the ledger of its tokens, and learns from it.

use crate::clock::Timestamp;
use crate::credential::Generation;
use crate::credential::secret::Fingerprint;
use crate::store::tokens::ledger::LedgerEntry;
use crate::store::{LockedProfile, StoreError};

impl LockedProfile<'_, '_> {
    /// Notes in the ledger that a token was consumed, and in the journal (not saved) that the ledger has it.
    pub fn mark_consumed(&mut self, token: &Fingerprint) -> Result<(), StoreError> {
        self.ledger.add_consumed(token)?;
        self.journal.last_ledgered = Some(token.clone());
        Ok(())
    }

    /// Notes in the ledger that a server rejected a token. If that fails, the journal (not saved yet) keeps it as consumed.
    pub fn mark_rejected_or_queue(&mut self, token: &Fingerprint) -> Result<(), StoreError> {
        let written = self.mark_rejected(token);
        self.or_queue(token, written)
    }

    fn mark_rejected(&mut self, token: &Fingerprint) -> Result<(), StoreError> {
        self.ledger.add_rejected(token)?;
        self.journal.last_ledgered = Some(token.clone());
        Ok(())
    }

    /// A server has accepted a token that it had rejected, and did not use it up.
    pub fn clear_rejected(&self, token: &Fingerprint) -> Result<(), StoreError> {
        self.ledger.clear(token)
    }

    /// Whether all that speaks against a token is that a server rejected it: it is not known to be consumed, and no attempt
    /// with it is open.
    pub fn is_only_rejected(&self, token: &Fingerprint) -> Result<bool, StoreError> {
        let is_doubtful = self.journal.intent.as_ref().is_some_and(|i| i.fingerprint == *token && !i.is_reusable);
        let is_known_here = self.journal.ledger_backlog.contains(token);
        Ok(!is_doubtful && !is_known_here && self.ledger.entry(token)? == Some(LedgerEntry::Rejected))
    }

    /// Whether a token is known to be consumed or rejected.
    pub fn is_consumed(&self, token: &Fingerprint) -> Result<bool, StoreError> {
        self.ledger.is_consumed(token)
    }

    /// Journal and ledger tell each other what they know of the tokens here. That the ledger cannot be written is a warning:
    /// the journal still knows.
    pub(super) fn reconcile_with_ledger(&mut self, warnings: &mut Vec<String>) -> Result<(), StoreError> {
        let set_at = self.journal.open_intent().cloned();
        self.ledger.apply(&mut self.journal)?;
        match set_at {
            // A run may have died with it.
            Some(intent) if !intent.is_reusable => {
                let written = self.mark_in_doubt(&intent.fingerprint, intent.last_sent.wall);
                warnings.extend(written.err().map(|e| e.to_string()));
                Ok(())
            }
            None if self.journal.open_intent().is_some() => self.save_journal(),
            Some(_) | None => Ok(()),
        }
    }

    /// Tries once more to write what the ledger could not take.
    pub(super) fn flush_ledger_backlog(&mut self, warnings: &mut Vec<String>) -> Result<(), StoreError> {
        let missing = std::mem::take(&mut self.journal.ledger_backlog);
        let rejected = self.journal.rejected.as_ref().filter(|r| r.may_be_sent_again()).map(|r| r.fingerprint.clone());
        for token in &missing {
            let written = match Some(token) == rejected.as_ref() {
                true => self.mark_rejected_or_queue(token),
                false => self.mark_consumed_or_queue(token),
            };
            warnings.extend(written.err().map(|e| e.to_string()));
        }
        if missing == self.journal.ledger_backlog { Ok(()) } else { self.save_journal() }
    }

    /// Notes in the ledger that a token must not be sent again. If that fails, the journal (not saved yet) keeps it for the
    /// next run.
    pub fn mark_consumed_or_queue(&mut self, token: &Fingerprint) -> Result<(), StoreError> {
        let written = self.mark_consumed(token);
        self.or_queue(token, written)
    }

    fn or_queue(&mut self, token: &Fingerprint, written: Result<(), StoreError>) -> Result<(), StoreError> {
        if written.is_err() && !self.journal.ledger_backlog.contains(token) {
            self.journal.ledger_backlog.push(token.clone());
        }
        written
    }

    /// Records in the ledger that a token was sent with unknown outcome, at a server that punishes reuse.
    pub fn mark_in_doubt(&self, token: &Fingerprint, at: Timestamp) -> Result<(), StoreError> {
        self.ledger.add_in_doubt(token, at)
    }

    /// A doubt is over, and the token was not used up.
    pub fn clear_in_doubt(&self, token: &Fingerprint) -> Result<(), StoreError> {
        self.ledger.clear_in_doubt(token)
    }

    /// Whatever was doubted or said of a token is taken back: its provider has just granted it, so it lives. Durable on
    /// return.
    pub fn clear_marks(&mut self, token: &Fingerprint) -> Result<(), StoreError> {
        if self.journal.clear_marks(token) {
            self.save_journal()?;
        }
        self.ledger.clear(token)
    }

    /// Whether a token that comes from elsewhere must not be taken: it is consumed or rejected, or in a doubt that this
    /// journal cannot take over.
    pub fn is_consumed_or_in_doubt(&self, token: &Fingerprint) -> Result<bool, StoreError> {
        let is_open_here = self.journal.intent.as_ref().is_some_and(|intent| intent.fingerprint == *token);
        Ok(match self.ledger.entry(token)? {
            Some(LedgerEntry::Consumed | LedgerEntry::Rejected) => true,
            Some(LedgerEntry::InDoubt(_)) => !is_open_here,
            None => self.journal.ledger_backlog.contains(token),
        })
    }

    /// Puts into the ledger what the journal is about to forget of its tokens: a doubt or a refusal outlives the
    /// credential. `current` is the token that takes its place.
    pub fn record_forgotten_tokens(&mut self, current: Option<&Fingerprint>) -> Result<(), StoreError> {
        let given_up = self.journal.unusable_tokens().filter(|token| Some(*token) != current);
        let given_up: Vec<Fingerprint> = given_up.cloned().collect();
        let doubtful = self.journal.intent.as_ref().filter(|i| !i.is_reusable).map(|i| i.fingerprint.clone());
        let rejected = self.journal.rejected.as_ref().filter(|r| r.may_be_sent_again()).map(|r| r.fingerprint.clone());
        let rejected = rejected.filter(|token| Some(token) != doubtful.as_ref());
        given_up.iter().try_for_each(|token| match Some(token) == rejected.as_ref() {
            true => self.mark_rejected(token),
            false => self.mark_consumed(token),
        })
    }

    /// A token in doubt that is about to be sealed once more, as `next`, stays in doubt; durable on return.
    pub fn move_intent(&mut self, token: &Fingerprint, next: Generation) -> Result<(), StoreError> {
        match &mut self.journal.intent {
            Some(intent) if intent.fingerprint == *token => {
                intent.generation = next;
                self.save_journal()
            }
            Some(_) | None => Ok(()),
        }
    }
}
