//! Who else in this store holds a refresh token: one that two profiles hold would be sent twice (rule 4).

use std::path::PathBuf;

use super::key::SealingKey;
use super::record::Record;
use super::{Store, StoreError, census, published};
use crate::credential::secret::{Fingerprint, RefreshToken};
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
    /// The keyring's item of this user, published by another state directory, has it.
    Elsewhere(String),
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
    /// theirs holds until their journal says so. What cannot be read may hold it: that is an error.
    pub fn claim(
        &self,
        token: &Fingerprint,
        name: &ProfileName,
        key: &SealingKey,
    ) -> Result<Option<Claim>, StoreError> {
        let (ours, mut dead) = (self.uuid(), None);
        for other in census::every_profile(&self.layout)?.into_iter().filter(|other| other != name) {
            match self.claim_of(&other, token, key, ours.as_deref())? {
                None => {}
                Some(Claim::Dead) => dead = Some(Claim::Dead),
                // Of two, who uses it has the word.
                held => return Ok(held),
            }
        }
        if dead.is_some() {
            return Ok(dead);
        }
        Ok(self.user_elsewhere(token, name, key)?.map(Claim::Elsewhere))
    }

    /// Who has published a token in our keyring from another state directory. That of the same profile is told when it is
    /// loaded.
    fn user_elsewhere(
        &self,
        token: &Fingerprint,
        name: &ProfileName,
        key: &SealingKey,
    ) -> Result<Option<String>, StoreError> {
        let (Some((keyring, service)), Some(ours)) = (self.keyring(), self.uuid()) else { return Ok(None) };
        let is_it = |there: &RefreshToken| key.fingerprint(there) == *token;
        Ok(published::held_elsewhere(keyring, service, &ours, name.as_str(), is_it)?)
    }

    /// What can be read and is damaged is for its own runs to tell, and holds nobody else up.
    fn claim_of(
        &self,
        other: &ProfileName,
        token: &Fingerprint,
        key: &SealingKey,
        ours: Option<&str>,
    ) -> Result<Option<Claim>, StoreError> {
        let sealed = self.sealed_generation(other)?;
        let record = match Record::read(&self.layout.folder(other).record(), other) {
            Ok(record) => record,
            Err(StoreError::DamagedRecord { .. }) => None,
            Err(e) => return Err(e),
        };
        let mut record = record.unwrap_or_else(|| Record::new(other.clone()));
        record.lift(sealed);
        // The journal may be behind, or gone; or its fingerprints are of another store, and say nothing here.
        let is_behind = sealed.is_some_and(|sealed| sealed > record.generation);
        let is_at_home = record.store.as_ref().is_some_and(|store| Some(store.uuid.as_str()) == ours);
        let is_ours = record.fingerprint.as_ref() == Some(token);
        let is_sealed = is_behind || (record.has_credential() && !is_at_home && !is_ours);
        let is_sealed = is_sealed && self.seals(other, token, key)?;
        let is_its_own = is_sealed || (record.has_credential() && is_ours);
        let is_refused = record.is_rejected() && !(is_behind && is_sealed);
        if is_its_own && !is_refused {
            return Ok(Some(Claim::Held(other.clone())));
        }
        let is_dead = is_its_own || record.given_up().any(|given_up| given_up == token);
        Ok(is_dead.then_some(Claim::Dead))
    }

    fn seals(&self, name: &ProfileName, token: &Fingerprint, key: &SealingKey) -> Result<bool, StoreError> {
        let path = self.layout.folder(name).sealed();
        let bytes = durable::read(&path).map_err(|e| StoreError::io("read", &path, e))?;
        let credential = bytes.and_then(|bytes| self.open_sealed(&bytes, name, key).ok());
        Ok(credential.is_some_and(|c| key.fingerprint(&c.refresh) == *token))
    }
}
