//! Recovery of what a dead run left: an answer that it had sealed, be it under its first name or its last.

use std::sync::Arc;
use std::time::Duration;

use super::aftermath::Aftermath;
use super::content::{Answer, Content, Reading};
use super::envelope::{self, Damage, Header};
use super::key::SealingKey;
use super::published::{self, Published};
use super::record::Intent;
use super::{Home, Store, StoreError, Vault};
use crate::credential::secret::Fingerprint;
use crate::credential::{Credential, Generation};
use crate::profile::ProfileName;
use crate::sys::durable;

/// How long a server rests that gave nothing to use, where the answer is settled by whoever asks it for nothing.
const PAUSE: Duration = Duration::from_secs(15);

/// An answer that arrived before the run that asked for it died.
pub struct PendingAnswer {
    pub answer: Answer,
    pub generation: Generation,
    pub attempt: Option<String>,
    /// It has its final name: it is S already.
    pub is_promoted: bool,
}

/// A sealed credential, and how it came.
pub(super) struct Unsealed {
    pub credential: Credential,
    /// The attempt whose answer it is, and what else that said. `None`: it came by a login, an import or the keyring.
    pub answer: Option<(Intent, Aftermath)>,
}

impl From<Credential> for Unsealed {
    fn from(credential: Credential) -> Self {
        Self { credential, answer: None }
    }
}

impl Store {
    pub(super) fn open_sealed(
        &self,
        bytes: &[u8],
        name: &ProfileName,
        key: &SealingKey,
    ) -> Result<Credential, StoreError> {
        self.unseal(bytes, name, key).map(|unsealed| unsealed.credential)
    }

    pub(super) fn unseal(&self, bytes: &[u8], name: &ProfileName, key: &SealingKey) -> Result<Unsealed, StoreError> {
        let path = self.layout.folder(name).sealed();
        let damaged = |damage| self.unopened(path.clone(), damage);
        let (Header { generation, attempt, .. }, content) =
            envelope::open::<Content>(bytes, name, key).map_err(damaged)?;
        let unsealed = match content {
            Content::Credential(_) => content.into_credential(generation).map(Unsealed::from),
            Content::Answer(answer) => match answer.read(generation) {
                Reading::Granted { credential, notes, .. } => {
                    let asked = answer.asked(attempt.as_deref(), generation, key);
                    let answer = asked.map(|asked| (asked, answer.aftermath(notes)));
                    Some(Unsealed { credential: *credential, answer })
                }
                Reading::Denied(_) | Reading::Unreadable | Reading::TooLarge => None,
            },
        };
        unsealed.ok_or_else(|| damaged(Damage::Content("it has no refresh token".into())))
    }
}

impl Vault<'_, '_> {
    /// An answer that was received and sealed, but whose consequences are not in the journal yet.
    pub fn pending_answer(&self, key: &SealingKey) -> Result<Option<PendingAnswer>, StoreError> {
        let path = self.folder.received();
        let Some(bytes) = durable::read(&path).map_err(|e| StoreError::io("read", &path, e))? else {
            return Ok(None);
        };
        // What a logout left behind must not come back.
        if self.record.is_tombstone {
            return Ok(None);
        }
        let header = match envelope::header(&bytes) {
            Ok(header) => header,
            Err(damage @ Damage::Later(_)) => return Err(self.store.unopened(path, damage)),
            // A torn file cannot have been acknowledged; the intent says what to make of it.
            Err(_) => return Ok(None),
        };
        let is_judged = match &self.record.intent {
            Some(intent) => header.attempt.as_deref() == Some(&intent.attempt) && intent.abandoned.is_some(),
            None => false,
        };
        let sealed = self.store.sealed_generation(self.permit.profile())?.unwrap_or(Generation::NONE);
        // Rule 13: what the journal is beyond was settled, and brought back by somebody who restored old files.
        let is_over = header.generation <= sealed || header.generation < self.record.generation;
        if is_over {
            return Ok(None);
        }
        match envelope::open::<Content>(&bytes, self.permit.profile(), key) {
            Ok((header, Content::Answer(answer))) => {
                let Header { generation, attempt, .. } = header;
                let pending = PendingAnswer { answer, generation, attempt, is_promoted: false };
                // What the version that received it could not read, this one perhaps can.
                let is_news = !is_judged || matches!(pending.answer.read(generation), Reading::Granted { .. });
                Ok(Some(pending).filter(|pending| is_news && self.is_above_or_of(pending, key)))
            }
            Ok((_, Content::Credential(_))) => Ok(None),
            Err(damage) => Err(self.store.unopened(path, damage)),
        }
    }

    /// Whether an answer is newer than the journal, or is what the journal speaks of and did not get its final name.
    fn is_above_or_of(&self, pending: &PendingAnswer, key: &SealingKey) -> bool {
        if pending.generation > self.record.generation {
            return true;
        }
        match pending.answer.read(pending.generation) {
            Reading::Granted { credential, .. } => {
                self.record.fingerprint.as_ref() == Some(&key.fingerprint(&credential.refresh))
            }
            Reading::Denied(_) | Reading::Unreadable | Reading::TooLarge => false,
        }
    }

    /// Recovery for whoever makes no request: tokens that a dead run received become S, lest something older take their
    /// place; loading it settles the journal, doubts included. Any other answer is for the next flight to judge.
    pub fn take_up_answer(&self, key: &SealingKey) -> Result<(), StoreError> {
        let Some(pending) = self.pending_answer(key)? else { return Ok(()) };
        match pending.answer.read(pending.generation) {
            Reading::Granted { .. } => self.promote_answer(),
            Reading::Denied(_) | Reading::Unreadable | Reading::TooLarge => Ok(()),
        }
    }

    /// An answer whose consequences are not in the journal yet, be it S already or not.
    pub fn unsettled_answer(&self, key: &SealingKey) -> Result<Option<PendingAnswer>, StoreError> {
        let unsettled = match self.pending_answer(key)? {
            None => self.promoted_answer(key)?,
            pending => pending,
        };
        Ok(unsettled.filter(|answer| !self.is_overtaken(answer.generation, key)))
    }

    /// Whether the keyring has a newer credential of ours: then this directory is the one that was restored, and its
    /// journal does not know that the answer was settled long ago.
    fn is_overtaken(&self, generation: Generation, key: &SealingKey) -> bool {
        let Home::Keyring { keyring, service } = &self.store.home else { return false };
        let found = published::read(keyring.as_ref(), &self.item(service), &self.identity.uuid, key);
        matches!(found, Ok((Published::Ours(k), _)) if k.generation > generation)
    }

    /// What does not open here is for [`Vault::load`] to tell.
    fn promoted_answer(&self, key: &SealingKey) -> Result<Option<PendingAnswer>, StoreError> {
        let path = self.folder.sealed();
        let bytes = durable::read(&path).map_err(|e| StoreError::io("read", &path, e))?;
        let is_ahead = |bytes: &Vec<u8>| envelope::header(bytes).is_ok_and(|h| h.generation > self.record.generation);
        let Some(bytes) = bytes.filter(is_ahead).filter(|_| !self.record.is_tombstone) else {
            return Ok(None);
        };
        Ok(match envelope::open::<Content>(&bytes, self.permit.profile(), key) {
            Ok((Header { generation, attempt, .. }, Content::Answer(answer))) => {
                Some(PendingAnswer { answer, generation, attempt, is_promoted: true })
            }
            Ok((_, Content::Credential(_))) | Err(_) => None,
        })
    }

    /// S, if there is one.
    pub(super) fn open_sealed(&self, key: &SealingKey) -> Option<Result<Unsealed, StoreError>> {
        let path = self.folder.sealed();
        match durable::read(&path) {
            Ok(None) => None,
            Ok(Some(bytes)) => Some(self.store.unseal(&bytes, self.permit.profile(), key)),
            Err(e) => Some(Err(StoreError::io("read", &path, e))),
        }
    }

    /// The newest generation that journal or sealed copy speaks of. A run that died between the two left the journal behind.
    pub fn newest_generation(&self) -> Result<Generation, StoreError> {
        let sealed = self.store.sealed_generation(self.permit.profile())?;
        Ok(self.record.generation.max(sealed.unwrap_or(Generation::NONE)))
    }

    /// The newest sealed credential, whatever the keyring says, with the journal brought up to it.
    pub(super) fn newest_sealed(&mut self, key: &Arc<SealingKey>) -> Result<Option<Credential>, StoreError> {
        let Some(newest) = self.open_sealed(key).transpose()? else { return Ok(None) };
        let fingerprint = key.fingerprint(&newest.credential.refresh);
        self.naturalise(&newest.credential, &fingerprint, key)?;
        self.catch_up(&newest, &fingerprint)?;
        Ok(Some(newest.credential))
    }

    /// Brings the journal up to a credential that a dead run sealed, or that came from the keyring. What troubled the one
    /// before is over; what its answer said besides holds, as it would for the run that received it.
    pub(super) fn catch_up(&mut self, newest: &Unsealed, fingerprint: &Fingerprint) -> Result<(), StoreError> {
        let Unsealed { credential, answer } = newest;
        if credential.generation <= self.record.generation && self.record.fingerprint.is_some() {
            return Ok(());
        }
        let older = self.record.intent.as_ref().filter(|intent| intent.generation < credential.generation);
        let sent =
            older.into_iter().chain(answer.as_ref().map(|(asked, _)| asked)).map(|intent| intent.fingerprint.clone());
        let spent: Vec<_> = sent.filter(|sent| sent != fingerprint).collect();
        spent.iter().try_for_each(|sent| self.mark_consumed(sent))?;
        self.write_off(Some(fingerprint))?;
        match answer {
            Some((asked, after)) => {
                // The journal may be older than the attempt.
                let known = self.record.intent.take().filter(|intent| intent.fingerprint == asked.fingerprint);
                self.record.intent = known.or_else(|| Some(asked.clone()));
                self.record.settle_grant(credential, fingerprint.clone(), after, &asked.last_sent, |_| PAUSE);
            }
            None => self.record.settle_arrival(credential, fingerprint),
        }
        self.record.sequence += 1;
        self.record.last_attempt = None;
        self.publication_is_lost();
        self.save()
    }
}
