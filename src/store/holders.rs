//! Who else in this store holds a refresh token: one that two profiles hold would be sent twice (rule 4).

use std::path::PathBuf;

use super::key::SealingKey;
use super::record::Record;
use super::{Store, StoreError};
use crate::credential::Generation;
use crate::credential::secret::Fingerprint;
use crate::profile::ProfileName;
use crate::sys::durable;
use crate::sys::lockfile::LockFile;

/// What another profile knows of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It uses it, or waits to know what became of it.
    Held(ProfileName),
    /// It was refused there, or given up.
    Dead,
}

impl Store {
    /// Serialises all holders of one refresh token, whatever their profiles are called. Taken after the profile's lock.
    pub fn lock_token(&self, token: &Fingerprint) -> Result<LockFile, StoreError> {
        let path = self.token_lock_file(token)?;
        LockFile::acquire(&path).map_err(|e| StoreError::io("lock", &path, e))
    }

    /// The same for whoever may hold the lock of another token: without waiting.
    pub fn try_lock_token(&self, token: &Fingerprint) -> Result<Option<LockFile>, StoreError> {
        let path = self.token_lock_file(token)?;
        LockFile::try_acquire(&path).map_err(|e| StoreError::io("lock", &path, e))
    }

    fn token_lock_file(&self, token: &Fingerprint) -> Result<PathBuf, StoreError> {
        let dir = self.layout.token_locks();
        durable::create_dir(&dir).map_err(|e| StoreError::io("create", &dir, e))?;
        Ok(self.layout.token_lock(token))
    }

    /// What any profile other than `name` knows of a token. To be asked under the lock of the token, which whoever makes it
    /// theirs holds until their journal says so.
    pub fn claim(
        &self,
        token: &Fingerprint,
        name: &ProfileName,
        key: &SealingKey,
    ) -> Result<Option<Claim>, StoreError> {
        let mut dead = None;
        for other in self.profiles()?.into_iter().filter(|other| other != name) {
            match self.claim_of(&other, token, key) {
                None => {}
                Some(Claim::Dead) => dead = Some(Claim::Dead),
                // Of two, who uses it has the word.
                held => return Ok(held),
            }
        }
        Ok(dead)
    }

    /// What cannot be read there is for its own runs to tell, and holds nobody else up.
    fn claim_of(&self, other: &ProfileName, token: &Fingerprint, key: &SealingKey) -> Option<Claim> {
        let sealed = self.sealed_generation(other).ok().flatten();
        let record = Record::read(&self.layout.folder(other).record(), other).ok().flatten();
        let mut record = record.unwrap_or_else(|| Record::new(other.clone()));
        record.lift(sealed);
        let is_held = record.has_credential() && record.fingerprint.as_ref() == Some(token) && !record.is_rejected();
        // The journal may be behind, or gone.
        let is_behind = sealed.is_some_and(|sealed| sealed > record.generation);
        if is_held || (is_behind && self.seals(other, token, key)) {
            return Some(Claim::Held(other.clone()));
        }
        record.given_up().any(|given_up| given_up == token).then_some(Claim::Dead)
    }

    fn seals(&self, name: &ProfileName, token: &Fingerprint, key: &SealingKey) -> bool {
        let bytes = std::fs::read(self.layout.folder(name).sealed()).ok();
        let credential = bytes.and_then(|bytes| self.open_sealed(&bytes, name, key).ok());
        credential.is_some_and(|c| c.generation > Generation::NONE && key.fingerprint(&c.refresh) == *token)
    }
}
