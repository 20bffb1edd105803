//! Forgetting a credential: the tombstone first, then whatever held it.
//!
//! A tombstone on disk is the moment of forgetting: from then on nobody uses what is still there. A run that is cut off
//! behind it leaves remains, which the next logout or login clears away.

use std::io;
use std::sync::Arc;

use super::identity::Identity;
use super::key::SealingKey;
use super::keyring::{Found, Item, KeyringError};
use super::record::Revocation;
use super::{Home, Store, StoreError, Vault, envelope};
use crate::credential::Generation;
use crate::profile::ProfileName;
use crate::sys::durable;
use crate::sys::lockfile::LockFile;

impl Vault<'_, '_> {
    /// What the fence runs before it lets a refresh token go to be revoked: journals that; durable on return.
    pub fn revocation_writer(&self, revocation: Revocation) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let mut record = self.record.clone();
        record.revocation = Some(revocation);
        let path = self.folder.record();
        move || record.write(&path)
    }

    /// Forgets the credential: the tombstone is durable, and its remains are gone, on `Ok`. Gives warnings.
    ///
    /// On an error before the tombstone nothing has changed; after it, `self.record` says that it is one.
    pub fn forget(&mut self, revocation: Option<Revocation>) -> Result<Vec<String>, StoreError> {
        let sealed = self.store.sealed_generation(self.permit.profile())?.unwrap_or(Generation::NONE);
        let before = self.record.clone();
        self.record.generation = self.record.generation.max(sealed);
        self.record.bury(revocation);
        if let Err(e) = self.save() {
            self.record = before;
            return Err(e);
        }
        self.finish_departure()
    }

    /// Clears away what a tombstone's credential was in, if this is one. Gives warnings.
    pub fn finish_departure(&self) -> Result<Vec<String>, StoreError> {
        if !self.record.is_tombstone {
            return Ok(Vec::new());
        }
        // What the server has revoked is dead, and an old copy of it must not come back.
        if let Some(revocation) = self.record.revocation.as_ref().filter(|r| r.is_confirmed) {
            self.mark_consumed(&revocation.fingerprint)?;
        }
        for path in [self.folder.received(), self.folder.sealed()] {
            durable::remove(&path).map_err(|e| StoreError::io("remove", &path, e))?;
        }
        self.unpublish()
    }

    fn unpublish(&self) -> Result<Vec<String>, StoreError> {
        let Home::Keyring { keyring, service } = &self.store.home else {
            return Ok(Vec::new());
        };
        let item = self.item(service);
        let deleted = keyring.delete(&item, &self.identity.uuid);
        // A keyring may do what it reports as failed, and the other way round.
        match (self.store.published_here(&item, &self.identity), deleted) {
            (Ok((false, 0)), _) => Ok(Vec::new()),
            (Ok((false, others)), _) => Ok(vec![format!(
                "{others} keyring items of other programs claim to be profile {}, and were left alone",
                item.user
            )]),
            (Ok((true, _)), Ok(())) => Err(KeyringError::Failed("it kept an item that it was told to delete".into()))?,
            (Ok((true, _)), Err(e)) | (Err(e), _) => Err(e.into()),
        }
    }
}

impl Store {
    /// Whether a tombstone's credential is still somewhere.
    pub fn has_remains(&self, name: &ProfileName) -> Result<bool, StoreError> {
        let folder = self.layout.folder(name);
        if folder.received().exists() || folder.sealed().exists() {
            return Ok(true);
        }
        match (&self.home, Identity::read(&self.layout.identity())?) {
            (Home::Keyring { service, .. }, Some(identity)) => {
                let item = Item { service: service.clone(), user: name.to_string() };
                Ok(self.published_here(&item, &identity)?.0)
            }
            (Home::Keyring { .. } | Home::File { .. }, _) => Ok(false),
        }
    }

    /// Whether the keyring has an item that this store published, and how many that others did.
    fn published_here(&self, item: &Item, identity: &Identity) -> Result<(bool, usize), KeyringError> {
        let Home::Keyring { keyring, .. } = &self.home else {
            return Ok((false, 0));
        };
        Ok(match keyring.read(item)? {
            None => (false, 0),
            Some(Found { value, duplicates }) if value.contains(&identity.uuid) => (true, duplicates),
            Some(Found { duplicates, .. }) => (false, duplicates + 1),
        })
    }

    /// The sealing key for what a profile has: one from memory gives way if another is named there, as after the last
    /// profile was forgotten and a new one came.
    pub fn key_for(&self, name: &ProfileName) -> Result<Arc<SealingKey>, StoreError> {
        let key = self.key(name.as_str())?;
        let path = self.layout.folder(name).sealed();
        let bytes = durable::read(&path).map_err(|e| StoreError::io("read", &path, e))?;
        let header = bytes.and_then(|bytes| envelope::header(&bytes).ok());
        if header.is_some_and(|h| h.key_id != key.id()) {
            self.forget_key();
            return self.key(name.as_str());
        }
        Ok(key)
    }

    /// Whether the keyring keeps the sealing key although nothing is sealed under it any more.
    pub fn has_orphaned_key(&self) -> Result<bool, StoreError> {
        let Home::Keyring { keyring, service } = &self.home else {
            return Ok(false);
        };
        match Identity::read(&self.layout.identity())? {
            Some(identity) if !self.has_credentials()? => {
                Ok(keyring.read(&Self::key_item(service, &identity))?.is_some())
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Removes the sealing key from the keyring if nothing is sealed under it any more. Tells whether it did.
    ///
    /// Takes the store lock, so no profile lock may be held. Whoever is about to seal something holds it too.
    pub fn retire_key(&self) -> Result<bool, StoreError> {
        let Home::Keyring { keyring, service } = &self.home else {
            return Ok(false);
        };
        let path = self.layout.store_lock();
        let _held = LockFile::acquire(&path).map_err(|e| StoreError::io("lock", &path, e))?;
        let Some(identity) = Identity::read(&self.layout.identity())? else {
            return Ok(false);
        };
        let item = Self::key_item(service, &identity);
        if self.has_credentials()? || keyring.read(&item)?.is_none() {
            return Ok(false);
        }
        self.forget_key();
        let deleted = keyring.delete(&item, &identity.uuid);
        match (keyring.read(&item), deleted) {
            (Ok(None), _) => Ok(true),
            (_, Err(e)) | (Err(e), _) => Err(e.into()),
            (Ok(Some(_)), Ok(())) => Err(KeyringError::Failed("it kept the sealing key".into()))?,
        }
    }

    /// Whether any profile has a credential, be it only by its journal: then the key may be needed.
    pub(super) fn has_credentials(&self) -> Result<bool, StoreError> {
        if self.has_sealed_files()? {
            return Ok(true);
        }
        for name in self.profiles()? {
            if self.peek(&name)?.is_some_and(|r| r.has_credential()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
