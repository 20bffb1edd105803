//! Finds the profile that holds a refresh token: one that two profiles hold would be sent twice (rule 4).

use std::path::PathBuf;

use crate::credential::Generation;
use crate::credential::secret::{Fingerprint, RefreshToken};
use crate::profile::ProfileName;
use crate::store::keyring::item;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::tokens::journal_facts::JournalFacts;
use crate::store::tokens::scan::{ScannedProfile, StoreScan};
use crate::store::{Store, StoreError};
use crate::sys::durable;
use crate::sys::lockfile::{LockFile, LockWait};

/// What another profile knows of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenClaim {
    /// It uses it, or waits to know what became of it.
    HeldBy(ProfileName),
    /// It was refused there, or given up.
    Unusable,
    /// The keyring's item of this user, published by another state directory, has it.
    PublishedElsewhere(String),
}

/// The lock of one refresh token, whatever the profiles that have it are called. Its file has the name of the token's
/// fingerprint, so no other token is kept waiting, and goes with its holder, so that none is left behind.
#[derive(Debug)]
pub struct TokenLock(Option<LockFile>);

impl Drop for TokenLock {
    fn drop(&mut self) {
        if let Some(lock) = self.0.take() {
            lock.release_and_remove();
        }
    }
}

impl Store {
    /// Serialises all holders of one refresh token. Taken after the profile's lock, and not waited for by a caller that
    /// has the lock of the store.
    pub fn lock_token(&self, token: &Fingerprint, wait: LockWait<'_>) -> Result<TokenLock, StoreError> {
        StoreError::lock(&self.create_token_lock_file(token)?, wait).map(|lock| TokenLock(Some(lock)))
    }

    /// Takes the lock of a token without waiting, for a caller that has the lock of the store or of another token.
    pub fn try_lock_token(&self, token: &Fingerprint) -> Result<Option<TokenLock>, StoreError> {
        let path = self.create_token_lock_file(token)?;
        let lock = LockFile::try_acquire(&path).map_err(|e| StoreError::io("lock", &path, e))?;
        Ok(lock.map(|lock| TokenLock(Some(lock))))
    }

    /// The lock file of a token, its directory made.
    fn create_token_lock_file(&self, token: &Fingerprint) -> Result<PathBuf, StoreError> {
        let dir = self.layout.token_locks();
        durable::create_dir(&dir).map_err(|e| StoreError::io("create", &dir, e))?;
        Ok(self.layout.token_lock(token))
    }

    /// The claim of any profile other than `name` to a token. The caller holds the lock of the token until its own
    /// journal has the claim. A profile that cannot be read may hold the token, so that is an error.
    pub fn find_claim(
        &self,
        scan: &StoreScan,
        token: &Fingerprint,
        name: &ProfileName,
        key: &SealingKey,
    ) -> Result<Option<TokenClaim>, StoreError> {
        let (ours, mut dead) = (self.uuid(), None);
        for other in scan.profiles.iter().filter(|other| other.name != *name) {
            match self.claim_by_profile(other, token, key, ours.as_deref())? {
                None => {}
                Some(TokenClaim::Unusable) => dead = Some(TokenClaim::Unusable),
                // Of two, who uses it has the word.
                held => return Ok(held),
            }
        }
        if dead.is_some() {
            return Ok(dead);
        }
        Ok(self.find_published_elsewhere(token, name, key)?.map(TokenClaim::PublishedElsewhere))
    }

    /// Who has published a token in our keyring from another state directory. That of the same profile is told when it is
    /// loaded.
    fn find_published_elsewhere(
        &self,
        token: &Fingerprint,
        name: &ProfileName,
        key: &SealingKey,
    ) -> Result<Option<String>, StoreError> {
        let (Some(keyring), Some(ours)) = (&self.keyring, self.uuid()) else { return Ok(None) };
        let is_it = |there: &RefreshToken| key.fingerprint(there) == *token;
        Ok(item::find_other_holder(keyring, &ours, name, is_it)?)
    }

    fn claim_by_profile(
        &self,
        other: &ScannedProfile,
        token: &Fingerprint,
        key: &SealingKey,
        ours: Option<&str>,
    ) -> Result<Option<TokenClaim>, StoreError> {
        let sealed = other.other_generation()?;
        let absent;
        let journal = match &other.journal {
            Some(journal) => journal,
            None => {
                absent = JournalFacts::default();
                &absent
            }
        };
        // The journal may be behind, or gone; or its fingerprints are of another store, and say nothing here.
        let is_behind = sealed.is_some_and(|sealed| sealed > journal.generation);
        let has_credential = journal.generation > Generation::NONE && (is_behind || !journal.is_tombstone);
        let is_at_home = ours.is_some_and(|ours| journal.is_of(ours));
        let is_ours = journal.fingerprint.as_ref() == Some(token);
        let is_sealed = is_behind || (has_credential && !is_at_home && !is_ours);
        let is_sealed = is_sealed && other.has_sealed_token(self, token, key)?;
        let is_its_own = is_sealed || (has_credential && is_ours);
        let is_refused = journal.is_rejected && !(is_behind && is_sealed);
        if is_its_own && !is_refused {
            return Ok(Some(TokenClaim::HeldBy(other.name.clone())));
        }
        let is_dead = is_its_own || journal.unusable_tokens.contains(token);
        Ok(is_dead.then_some(TokenClaim::Unusable))
    }
}
