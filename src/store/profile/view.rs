//! What can be known of a profile without its lock.

use crate::credential::{Credential, Generation, Snapshot};
use crate::outcome::Publication;
use crate::profile::ProfileName;
use crate::store::journal::Journal;
use crate::store::profile::files::{ProfileFiles, SealedSlot};
use crate::store::profile::integrity;
use crate::store::{Store, StoreError};

/// What a look without the lock tells.
#[derive(Debug)]
pub struct ProfileView {
    /// The journal, with what the other files add to it. `None`: nothing was ever stored.
    pub journal: Option<Journal>,
    files: ProfileFiles,
}

impl ProfileView {
    /// The key that the credential is sealed under.
    pub fn key_id(&self) -> Option<&str> {
        self.files.sealed.header().map(|header| header.key_id.as_str())
    }

    /// Whether the files were copied here, or restored from a backup, so that the keyring may have a newer credential.
    pub fn is_copied(&self) -> bool {
        self.files.is_copied() == Some(true)
    }
}

impl Store {
    /// What is known of a profile without lock, key or keyring.
    pub fn view(&self, name: &ProfileName) -> Result<ProfileView, StoreError> {
        let files = self.read_files(name)?;
        let sealed = files.sealed.generation()?;
        let mut journal = files.journal.clone();
        // A run that died between seal and journal left a generation that the journal does not know yet.
        let is_behind = sealed.is_some_and(|sealed| journal.as_ref().is_none_or(|r| r.generation < sealed));
        if let Some(sealed) = sealed.filter(|_| is_behind) {
            let journal = journal.get_or_insert_with(|| Journal::new(name.clone()));
            journal.reopen_for_newer_login(Some(sealed));
            journal.generation = sealed;
            // What the journal says of the generation before does not hold for this one; a flight brings it up to date.
            journal.validity = None;
            if self.keyring.is_some() {
                journal.publication = Publication::PublishPending;
            }
        }
        if let Some(journal) = &mut journal {
            let is_unsealed = sealed.is_none_or(|sealed| sealed < journal.generation);
            let unsealed = || is_unsealed.then(|| self.integrity_error(&files, journal)).flatten();
            journal.integrity_error = self
                .store_unusable_error(journal)
                .or_else(unsealed)
                .or_else(|| self.restored_error(&files))
                .or_else(|| files.journal.is_none().then(|| integrity::journal_missing(name)));
        }
        // Of what the journal is behind with, it has no fingerprint.
        let is_overtaken = match &mut journal {
            Some(journal) if !is_behind => self.ledger.apply_unlocked(journal, &self.layout)?,
            Some(_) | None => false,
        };
        if is_overtaken { self.view(name) } else { Ok(ProfileView { journal, files }) }
    }

    /// An identity that cannot be read is told by `Store::store_unusable_error`.
    fn read_files(&self, name: &ProfileName) -> Result<ProfileFiles, StoreError> {
        let identity = self.identity.find().ok().flatten();
        ProfileFiles::read(&self.layout.profile_folder(name), name, identity.as_ref())
    }

    /// The journal of [`Store::view`].
    pub fn peek(&self, name: &ProfileName) -> Result<Option<Journal>, StoreError> {
        self.view(name).map(|view| view.journal)
    }

    /// The newest committed credential without its refresh token, read without a lock.
    pub fn snapshot(&self, name: &ProfileName) -> Result<Option<Snapshot>, StoreError> {
        let files = self.read_files(name)?;
        self.snapshot_of_files(name, &files)
    }

    /// The credential that was there at that look, as [`Store::snapshot`] gives it.
    pub fn snapshot_of(&self, name: &ProfileName, view: &ProfileView) -> Result<Option<Snapshot>, StoreError> {
        self.snapshot_of_files(name, &view.files)
    }

    fn snapshot_of_files(&self, name: &ProfileName, files: &ProfileFiles) -> Result<Option<Snapshot>, StoreError> {
        let is_forgotten = match &files.journal {
            Some(journal) if journal.is_tombstone => {
                files.sealed.generation()?.is_none_or(|sealed| sealed <= journal.generation)
            }
            Some(_) | None => false,
        };
        if is_forgotten || files.sealed.get()?.is_none() {
            return Ok(None);
        }
        let known = files.journal.as_ref().map_or(Generation::NONE, |journal| journal.generation);
        let key_id = files.sealed.header().map(|header| header.key_id.as_str());
        let key = self.keys.load_for(name.as_str(), key_id)?;
        let unseal = |slot: &SealedSlot| -> Result<Option<Credential>, StoreError> {
            Ok(slot.unseal(name, &key, &self.keys)?.map(|unsealed| unsealed.credential))
        };
        let Some(sealed) = unseal(&files.sealed)? else { return Ok(None) };
        if sealed.generation >= known {
            return Ok(Some(sealed.snapshot()));
        }
        // An older copy was restored; or the newest response did not get its final name, and the next run gives it that.
        let token = files.journal.as_ref().and_then(|journal| journal.fingerprint.as_ref());
        files.received.get()?;
        let received = unseal(&files.received).ok().flatten();
        let is_newest = |c: &Credential| c.generation == known && token == Some(&key.fingerprint(&c.refresh));
        match received.filter(is_newest) {
            Some(credential) => Ok(Some(credential.snapshot())),
            None => Err(StoreError::StaleCredential { found: sealed.generation.get(), known: known.get() }),
        }
    }
}
