//! Forgets a credential: first the tombstone, then everything that held it.
//!
//! The credential is forgotten when the tombstone is on disk; from then on nothing uses what is still there. A run that
//! is cut off after it leaves remains, which the next logout or login clears away. A sealed file of a higher generation
//! is no remains: it is a later login's.

use std::io;
use std::sync::Arc;

use crate::credential::Generation;
use crate::credential::secret::Fingerprint;
use crate::outcome::Publication;
use crate::profile::ProfileName;
use crate::store::disk::envelope::SealedHeader;
use crate::store::identity::StoreIdentity;
use crate::store::journal::{Journal, Revocation};
use crate::store::keyring::{FoundItem, KeyringError, KeyringItem};
use crate::store::keys::sealing_key::SealingKey;
use crate::store::profile::files::SealedSlot;
use crate::store::{LockedProfile, Store, StoreBackend, StoreError};
use crate::sys::durable;
use crate::sys::lockfile::LockFile;

impl LockedProfile<'_, '_> {
    /// The function that the send gate runs before it lets a refresh token go to be revoked: it writes the journal;
    /// durable on return.
    pub fn revocation_writer(&self, revocation: Revocation) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let mut journal = self.journal.clone();
        journal.revocation = Some(revocation);
        let path = self.folder.journal();
        move || journal.write(&path)
    }

    /// Forgets the credential. On `Ok` the tombstone is durable and the remains are gone; the result has the warnings.
    ///
    /// On an error before the tombstone nothing has changed; after it, `self.journal` says that it is one.
    pub fn forget(&mut self, revocation: Option<Revocation>) -> Result<Vec<String>, StoreError> {
        let sealed = self.sealed.generation()?.unwrap_or(Generation::NONE);
        let before = self.journal.clone();
        self.journal.generation = self.journal.generation.max(sealed);
        self.journal.make_tombstone(revocation);
        if let Err(e) = self.save_journal() {
            // The tombstone may have its name without being durable; the next reader finds it.
            if !self.is_tombstone_on_disk() {
                self.journal = before;
            }
            return Err(e);
        }
        let mut warnings = self.remove_remains()?;
        warnings.extend(self.leftover_keyring_item(before.publication));
        Ok(warnings)
    }

    fn is_tombstone_on_disk(&self) -> bool {
        let there = Journal::read(&self.folder.journal(), self.permit.profile());
        there.is_ok_and(|journal| journal.is_some_and(|journal| journal.is_tombstone))
    }

    /// What was published while the settings named a keyring is still there, under settings that name none.
    fn leftover_keyring_item(&self, published: Publication) -> Option<String> {
        let is_stray = matches!(self.store.backend, StoreBackend::File { .. }) && published != Publication::None;
        let profile = self.permit.profile();
        is_stray.then(|| {
            format!(
                "the keyring may still have a copy of its tokens, from when [store] kind was \"keyring\"; remove it: \
                 secret-tool clear service keepalive username {profile} (or the service configured then)"
            )
        })
    }

    /// Clears away what a tombstone's credential was in, if this is one. Gives warnings.
    pub fn remove_remains(&mut self) -> Result<Vec<String>, StoreError> {
        if !self.journal.is_tombstone {
            return Ok(Vec::new());
        }
        self.record_forgotten_tokens(None)?;
        for slot in [&mut self.received, &mut self.sealed] {
            durable::remove(slot.path()).map_err(|e| StoreError::io("remove", slot.path(), e))?;
            slot.clear();
        }
        self.delete_keyring_item()
    }

    /// Puts into the ledger what the journal is about to forget of its tokens: a doubt or a refusal outlives the
    /// credential. `current` is the token that takes its place.
    pub fn record_forgotten_tokens(&mut self, current: Option<&Fingerprint>) -> Result<(), StoreError> {
        let given_up = self.journal.unusable_tokens().filter(|token| Some(*token) != current);
        let given_up: Vec<Fingerprint> = given_up.cloned().collect();
        given_up.iter().try_for_each(|token| self.mark_consumed(token))
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

    fn delete_keyring_item(&self) -> Result<Vec<String>, StoreError> {
        let StoreBackend::Keyring { keyring, service } = &self.store.backend else {
            return Ok(Vec::new());
        };
        let item = self.keyring_item(service);
        if !self.identity.is_permanent() {
            return Ok(match keyring.read(&item)? {
                Some(_) => vec![format!(
                    "the keyring has an item for profile {user}, but this store can no longer tell whether it wrote \
                     that item; if it did: secret-tool clear service {service} username {user}",
                    user = item.user
                )],
                None => Vec::new(),
            });
        }
        let deleted = keyring.delete(&item, &self.identity.uuid);
        // A keyring may do what it reports as failed, and the other way round.
        match (self.store.find_own_keyring_item(&item, &self.identity), deleted) {
            (Ok((false, 0)), _) => Ok(Vec::new()),
            (Ok((false, others)), _) => Ok(vec![format!(
                "{others} keyring items of other programs also name profile {}; they were left unchanged",
                item.user
            )]),
            (Ok((true, _)), Ok(())) => Err(KeyringError::Failed("it did not delete the item".into()))?,
            (Ok((true, _)), Err(e)) | (Err(e), _) => Err(e.into()),
        }
    }
}

impl Store {
    /// Whether a tombstone's credential is still somewhere.
    pub fn has_remains(&self, name: &ProfileName) -> Result<bool, StoreError> {
        let folder = self.layout.profile_folder(name);
        if folder.received().exists() || folder.sealed().exists() {
            return Ok(true);
        }
        match (&self.backend, self.find_identity()?) {
            (StoreBackend::Keyring { service, .. }, Some(identity)) => {
                let item = KeyringItem { service: service.clone(), user: name.to_string() };
                Ok(self.find_own_keyring_item(&item, &identity)?.0)
            }
            (StoreBackend::Keyring { .. } | StoreBackend::File { .. }, _) => Ok(false),
        }
    }

    /// Whether the keyring has an item that this store published, and how many that others did.
    fn find_own_keyring_item(
        &self,
        item: &KeyringItem,
        identity: &StoreIdentity,
    ) -> Result<(bool, usize), KeyringError> {
        let StoreBackend::Keyring { keyring, .. } = &self.backend else {
            return Ok((false, 0));
        };
        Ok(match keyring.read(item)? {
            None => (false, 0),
            Some(FoundItem { value, duplicates }) if value.contains(&identity.uuid) => (true, duplicates),
            Some(FoundItem { duplicates, .. }) => (false, duplicates + 1),
        })
    }

    /// The sealing key for what a profile has: one from memory gives way if another is named there, as after the last
    /// profile was forgotten and a new one came.
    pub fn key_for_profile(&self, name: &ProfileName) -> Result<Arc<SealingKey>, StoreError> {
        let sealed = SealedSlot::read(self.layout.profile_folder(name).sealed());
        sealed.get()?;
        self.key_for_header(name, sealed.header())
    }

    /// The sealing key for a file with this header.
    pub(in crate::store) fn key_for_header(
        &self,
        name: &ProfileName,
        header: Option<&SealedHeader>,
    ) -> Result<Arc<SealingKey>, StoreError> {
        self.key_named(name, header.map(|header| header.key_id.as_str()))
    }

    pub(in crate::store) fn key_named(
        &self,
        name: &ProfileName,
        key_id: Option<&str>,
    ) -> Result<Arc<SealingKey>, StoreError> {
        let key = self.key(name.as_str())?;
        if key_id.is_some_and(|id| id != key.id()) {
            self.drop_cached_key();
            return self.key(name.as_str());
        }
        Ok(key)
    }

    /// Whether the keyring keeps the sealing key although it is of no use any more.
    pub fn has_unused_key(&self) -> Result<bool, StoreError> {
        let StoreBackend::Keyring { keyring, service } = &self.backend else {
            return Ok(false);
        };
        match self.find_identity()? {
            Some(identity) if !self.has_credentials()? => {
                Ok(keyring.read(&Self::key_item_attributes(service, &identity))?.is_some())
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Removes the sealing key from the keyring if nothing needs it any more. Returns whether it did.
    ///
    /// Takes the store lock, so no profile lock may be held. A run that is about to seal holds it too.
    pub fn delete_unused_key(&self) -> Result<bool, StoreError> {
        let StoreBackend::Keyring { keyring, service } = &self.backend else {
            return Ok(false);
        };
        let path = self.layout.store_lock();
        let _held = LockFile::acquire(&path).map_err(|e| StoreError::io("lock", &path, e))?;
        let Some(identity) = self.find_identity()? else {
            return Ok(false);
        };
        let item = Self::key_item_attributes(service, &identity);
        if self.has_credentials()? || keyring.read(&item)?.is_none() {
            return Ok(false);
        }
        self.drop_cached_key();
        let deleted = keyring.delete(&item, &identity.uuid);
        match (keyring.read(&item), deleted) {
            (Ok(None), _) => Ok(true),
            (_, Err(e)) | (Err(e), _) => Err(e.into()),
            (Ok(Some(_)), Ok(())) => Err(KeyringError::Failed("it did not delete the sealing key".into()))?,
        }
    }

    /// Whether any profile has a credential, be it only by its journal: then the key may be needed.
    pub(in crate::store) fn has_credentials(&self) -> Result<bool, StoreError> {
        if self.has_sealed_files()? {
            return Ok(true);
        }
        for name in self.list_profiles()? {
            if self.peek(&name)?.is_some_and(|r| r.has_credential()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    use super::*;
    use crate::credential::Credential;
    use crate::guard::Permit;
    use crate::profile::{StoreKind, StoreSettings};
    use crate::store::keyring::memory::MemoryKeyring;

    fn store(dir: &std::path::Path, keyring: &MemoryKeyring) -> Store {
        let kind = StoreKind::Keyring { service: "keepalive".into() };
        let settings = StoreSettings { kind, path: None, allow_network_filesystem: true };
        Store::new(&settings, dir, None, || Box::new(keyring.clone()))
    }

    fn credential() -> Credential {
        crate::store::test_samples::credential(1, "r")
    }

    /// Seals a first credential, as a login does.
    fn seal(store: &Store, name: &ProfileName, key: &SealingKey) {
        let lock = LockFile::acquire(&store.create_lock_file(name).unwrap()).unwrap();
        let mut locked = store.open_profile(Permit::from_lock(name, &lock)).unwrap();
        locked.seal_credential(&credential(), key).unwrap();
        locked.journal.set_credential(&credential(), key.fingerprint(&credential().refresh));
        locked.save_journal().unwrap();
    }

    #[test]
    fn key_is_kept_while_a_writer_is_about_to_seal_with_it() {
        let (dir, keyring) = (tempfile::tempdir().unwrap(), MemoryKeyring::default());
        let store = store(dir.path(), &keyring);
        let name: ProfileName = "demo".parse().unwrap();
        let (key, kept) = store.key_with_store_lock("").unwrap();
        let (told, hear) = channel();
        let (start, started) = channel();
        std::thread::scope(|scope| {
            let store = &store;
            scope.spawn(move || {
                start.send(()).unwrap();
                told.send(store.delete_unused_key().unwrap())
            });
            started.recv().unwrap();
            assert_eq!(hear.recv_timeout(Duration::from_millis(100)), Err(RecvTimeoutError::Timeout), "it waits");
            seal(store, &name, &key);
            drop(kept);
            assert!(!hear.recv().unwrap(), "there is a credential now");
        });
        assert_eq!(store.key("").unwrap().id(), key.id());
    }

    #[test]
    fn key_is_deleted_with_the_last_credential_and_made_anew() {
        let (dir, keyring) = (tempfile::tempdir().unwrap(), MemoryKeyring::default());
        let (store, daemon) = (store(dir.path(), &keyring), self::store(dir.path(), &keyring));
        let name: ProfileName = "demo".parse().unwrap();
        let first = store.load_or_generate_key("").unwrap();
        seal(&store, &name, &first);
        assert!(!store.has_unused_key().unwrap(), "a credential needs it");
        assert_eq!(daemon.key_for_profile(&name).unwrap().id(), first.id());
        assert!(!store.delete_unused_key().unwrap());
        let lock = LockFile::acquire(&store.create_lock_file(&name).unwrap()).unwrap();
        let mut locked = store.open_profile(Permit::from_lock(&name, &lock)).unwrap();
        locked.forget(None).unwrap();
        assert!(locked.journal.is_tombstone && locked.journal.generation == Generation::FIRST);
        drop(lock);
        assert!(store.has_unused_key().unwrap());
        assert!(store.delete_unused_key().unwrap() && !store.has_unused_key().unwrap());
        assert!(matches!(store.key(""), Err(StoreError::Empty)));
        let second = store.load_or_generate_key("").unwrap();
        assert_ne!(second.id(), first.id());
        seal(&store, &name, &second);
        assert_eq!(daemon.key_for_profile(&name).unwrap().id(), second.id(), "the one in memory gives way");
    }

    #[test]
    fn leftovers_are_found_if_the_keyring_failed_in_logout() {
        let (dir, keyring) = (tempfile::tempdir().unwrap(), MemoryKeyring::default());
        let store = store(dir.path(), &keyring);
        let name: ProfileName = "demo".parse().unwrap();
        let key = store.load_or_generate_key("").unwrap();
        seal(&store, &name, &key);
        let lock = LockFile::acquire(&store.create_lock_file(&name).unwrap()).unwrap();
        let mut locked = store.open_profile(Permit::from_lock(&name, &lock)).unwrap();
        locked.publish(&credential(), &key).unwrap();
        keyring.set_fault(Some(KeyringError::Locked));
        let error = locked.forget(None).unwrap_err();
        assert_eq!(error.kind(), crate::outcome::ErrorKind::KeyringLocked, "{error:?}");
        assert!(locked.journal.is_tombstone);
        assert!(store.peek(&name).unwrap().unwrap().is_tombstone);
        keyring.set_fault(None);
        assert!(store.has_remains(&name).unwrap());
        locked.remove_remains().unwrap();
        assert!(!store.has_remains(&name).unwrap());
    }

    #[test]
    fn keyring_item_of_another_program_is_reported_and_kept() {
        let (dir, keyring) = (tempfile::tempdir().unwrap(), MemoryKeyring::default());
        let store = store(dir.path(), &keyring);
        let name: ProfileName = "demo".parse().unwrap();
        seal(&store, &name, &store.load_or_generate_key("").unwrap());
        let theirs = KeyringItem { service: "keepalive".into(), user: "demo".into() };
        keyring.restore(keyring.snapshot().into_iter().chain([(theirs.clone(), "theirs".to_owned())]).collect());
        let lock = LockFile::acquire(&store.create_lock_file(&name).unwrap()).unwrap();
        let warnings = store.open_profile(Permit::from_lock(&name, &lock)).unwrap().forget(None).unwrap();
        assert!(warnings.iter().any(|w| w.starts_with("1 keyring items of other programs")), "{warnings:?}");
        assert_eq!(keyring.snapshot().get(&theirs).map(String::as_str), Some("theirs"));
        assert!(!store.has_remains(&name).unwrap(), "theirs are none of ours");
    }

    #[test]
    fn leftovers_of_a_killed_logout_are_found_and_removed() {
        for left in ["sealed", "received"] {
            let (dir, keyring) = (tempfile::tempdir().unwrap(), MemoryKeyring::default());
            let store = store(dir.path(), &keyring);
            let name: ProfileName = "demo".parse().unwrap();
            seal(&store, &name, &store.load_or_generate_key("").unwrap());
            let lock = LockFile::acquire(&store.create_lock_file(&name).unwrap()).unwrap();
            let mut locked = store.open_profile(Permit::from_lock(&name, &lock)).unwrap();
            locked.forget(None).unwrap();
            let path = dir.path().join("profiles/demo").join(left);
            std::fs::write(&path, "dust").unwrap();
            assert!(store.has_remains(&name).unwrap(), "{left}");
            locked.remove_remains().unwrap();
            assert!(!path.exists(), "{left}");
        }
    }
}
