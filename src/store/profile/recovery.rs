//! Recovers what a killed run left: a response that it had sealed, under its first or its final name.

use std::sync::Arc;
use std::time::Duration;

use crate::credential::secret::Fingerprint;
use crate::credential::{Credential, Generation};
use crate::store::disk::envelope::{SealedHeader, UnsealError};
use crate::store::disk::sealed_content::{ResponseContent, SealedContent, SealedResponse};
use crate::store::keyring::item::PublishedItem;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::profile::files::{SealedFile, UnsealedCredential};
use crate::store::{LockedProfile, StoreError};

/// The pause after a grant without a usable access token, where the response is settled by a run that sends nothing.
const UNUSABLE_GRANT_DELAY: Duration = Duration::from_secs(15);

/// A response that arrived before its run died.
pub struct PendingResponse {
    pub response: SealedResponse,
    /// What it says.
    pub content: ResponseContent,
    pub generation: Generation,
    pub attempt_id: Option<String>,
    /// It has its final name and is the sealed credential already.
    pub is_promoted: bool,
}

impl PendingResponse {
    fn new(header: SealedHeader, response: SealedResponse, is_promoted: bool) -> Self {
        let SealedHeader { generation, attempt_id, .. } = header;
        Self { content: response.parse(generation), response, generation, attempt_id, is_promoted }
    }

    fn is_grant(&self) -> bool {
        matches!(self.content, ResponseContent::Granted { .. })
    }
}

impl LockedProfile<'_, '_> {
    /// A response that was received and sealed, but is not settled in the journal yet.
    pub fn pending_response(&self, key: &SealingKey) -> Result<Option<PendingResponse>, StoreError> {
        // What a logout left behind must not come back.
        let Some(file) = self.received.get()?.filter(|_| !self.journal.is_tombstone) else { return Ok(None) };
        let path = || self.received.path().to_owned();
        let header = match file.header() {
            Ok(header) => header,
            Err(UnsealError::LaterVersion(found)) => {
                return Err(StoreError::LaterVersion { path: path(), found: *found });
            }
            // A torn file cannot have been acknowledged; the intent says what to make of it.
            Err(_) => return Ok(None),
        };
        let is_judged = match &self.journal.intent {
            Some(intent) => header.attempt_id.as_deref() == Some(&intent.attempt_id) && intent.gave_up_at.is_some(),
            None => false,
        };
        let sealed = self.sealed.generation()?.unwrap_or(Generation::NONE);
        // Rule 13: what is older than the journal was settled; restored files brought it back.
        let is_over = header.generation <= sealed || header.generation < self.journal.generation;
        if is_over {
            return Ok(None);
        }
        match file.open(self.permit.profile(), key) {
            Ok((header, SealedContent::Response(response))) => {
                let pending = PendingResponse::new(header, response, false);
                // What the version that received it could not read, this one perhaps can.
                let is_news = !is_judged || pending.is_grant();
                Ok(Some(pending).filter(|pending| is_news && self.is_newer_or_unpromoted(pending, key)))
            }
            Ok((_, SealedContent::Credential(_))) => Ok(None),
            Err(damage) => Err(self.keys.unseal_error(path(), damage)),
        }
    }

    /// Whether a response is newer than the journal, or is the journal's own without its final name.
    fn is_newer_or_unpromoted(&self, pending: &PendingResponse, key: &SealingKey) -> bool {
        if pending.generation > self.journal.generation {
            return true;
        }
        match &pending.content {
            ResponseContent::Granted { credential, .. } => {
                self.journal.fingerprint.as_ref() == Some(&key.fingerprint(&credential.refresh))
            }
            ResponseContent::Denied(_) | ResponseContent::Unreadable | ResponseContent::TooLarge => false,
        }
    }

    /// Recovery by an operation that makes no request. Tokens that a dead run received become the sealed credential, so
    /// that nothing older takes their place; loading it settles the journal, doubts included. Any other response is for
    /// the next flight.
    pub fn promote_pending_grant(&mut self, key: &SealingKey) -> Result<(), StoreError> {
        match self.pending_response(key)? {
            Some(pending) if pending.is_grant() => self.promote_response(),
            Some(_) | None => Ok(()),
        }
    }

    /// A response that is not settled in the journal yet, with its final name or without.
    pub fn unsettled_response(&self, key: &SealingKey) -> Result<Option<PendingResponse>, StoreError> {
        let unsettled = match self.pending_response(key)? {
            None => self.promoted_response(key)?,
            pending => pending,
        };
        Ok(unsettled.filter(|response| !self.is_superseded_in_keyring(response.generation, key)))
    }

    /// Whether the keyring has a newer credential of ours. Then this directory was restored, and its journal does not
    /// know that the response was settled long ago.
    fn is_superseded_in_keyring(&self, generation: Generation, key: &SealingKey) -> bool {
        let found = self.item.as_ref().map(|item| item.read(key));
        matches!(found, Some(Ok((PublishedItem::Ours(k), _))) if k.generation > generation)
    }

    /// What does not open here is for [`LockedProfile::load`] to tell.
    fn promoted_response(&self, key: &SealingKey) -> Result<Option<PendingResponse>, StoreError> {
        let is_ahead = |file: &&SealedFile| file.generation().is_some_and(|g| g > self.journal.generation);
        let Some(file) = self.sealed.get()?.filter(is_ahead).filter(|_| !self.journal.is_tombstone) else {
            return Ok(None);
        };
        Ok(match file.open(self.permit.profile(), key) {
            Ok((header, SealedContent::Response(response))) => Some(PendingResponse::new(header, response, true)),
            Ok((_, SealedContent::Credential(_))) | Err(_) => None,
        })
    }

    /// The sealed credential, if there is one.
    pub(in crate::store) fn unseal_current(&self, key: &SealingKey) -> Option<Result<UnsealedCredential, StoreError>> {
        self.sealed.unseal(self.permit.profile(), key, self.keys).transpose()
    }

    /// The newest generation that journal or sealed copy speaks of. A run that died between the two left the journal behind.
    pub fn newest_generation(&self) -> Result<Generation, StoreError> {
        Ok(self.journal.generation.max(self.sealed.generation()?.unwrap_or(Generation::NONE)))
    }

    /// The newest sealed credential, whatever the keyring says, with the journal brought up to it.
    pub(in crate::store) fn newest_sealed(&mut self, key: &Arc<SealingKey>) -> Result<Option<Credential>, StoreError> {
        let Some(newest) = self.unseal_current(key).transpose()? else { return Ok(None) };
        let fingerprint = key.fingerprint(&newest.credential.refresh);
        self.update_journal_to(&newest, &fingerprint)?;
        Ok(Some(newest.credential))
    }

    /// Brings the journal up to a credential that a killed run sealed, or that came from the keyring. The errors of the
    /// previous credential are cleared; the effects of its response apply as they would for the run that received it.
    pub(in crate::store) fn update_journal_to(
        &mut self,
        newest: &UnsealedCredential,
        fingerprint: &Fingerprint,
    ) -> Result<(), StoreError> {
        let UnsealedCredential { credential, attempt: response } = newest;
        if credential.generation <= self.journal.generation && self.journal.fingerprint.is_some() {
            return Ok(());
        }
        let older = self.journal.intent.as_ref().filter(|intent| intent.generation < credential.generation);
        let sent =
            older.into_iter().chain(response.as_ref().map(|(asked, _)| asked)).map(|intent| intent.fingerprint.clone());
        let spent: Vec<_> = sent.filter(|sent| sent != fingerprint).collect();
        spent.iter().try_for_each(|sent| self.mark_consumed(sent))?;
        self.record_forgotten_tokens(Some(fingerprint))?;
        match response {
            Some((asked, after)) => {
                // The journal may be older than the attempt.
                let known = self.journal.intent.take().filter(|intent| intent.fingerprint == asked.fingerprint);
                self.journal.intent = known.or_else(|| Some(asked.clone()));
                self.journal
                    .apply_grant(credential, fingerprint.clone(), after, &asked.last_sent, |_| UNUSABLE_GRANT_DELAY);
            }
            None => self.journal.apply_new_credential(credential, fingerprint),
        }
        self.journal.sequence += 1;
        self.journal.last_attempt = None;
        self.set_publication_pending();
        self.save_journal()
    }
}
