//! Forgets a credential: first the tombstone, then everything that held it.
//!
//! The credential is forgotten when the tombstone is on disk; from then on nothing uses what is still there. A run that
//! is cut off after it leaves remains, which the next logout or login clears away. A sealed file of a higher generation
//! is no remains: it is a later login's.

use std::io;

use crate::credential::Generation;
use crate::outcome::Publication;
use crate::profile::ProfileName;
use crate::store::journal::{Journal, Revocation};
use crate::store::keyring::item::ProfileItem;
use crate::store::{LockedProfile, Store, StoreError};

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
        let is_stray = self.item.is_none() && published != Publication::None;
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
        self.received.remove()?;
        self.sealed.remove()?;
        Ok(match &self.item {
            Some(item) if !self.identity.is_permanent() => item.leave()?,
            Some(item) if self.keys.is_owner(&self.identity)? => item.delete()?,
            // The directory that took this store over has its items under the same names.
            Some(_) | None => Vec::new(),
        })
    }
}

impl Store {
    /// Whether a tombstone's credential is still somewhere.
    pub fn has_remains(&self, name: &ProfileName) -> Result<bool, StoreError> {
        let folder = self.layout.profile_folder(name);
        if folder.received().exists() || folder.sealed().exists() {
            return Ok(true);
        }
        match (&self.keyring, self.identity.find()?) {
            (Some(keyring), Some(identity)) => {
                Ok(ProfileItem::new(keyring, name, &identity.uuid).find_own()?.0 && self.keys.is_owner(&identity)?)
            }
            (_, _) => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    use super::*;
    use crate::credential::Credential;
    use crate::guard::Permit;
    use crate::profile::{StoreKind, StoreSettings};
    use crate::store::keyring::memory::MemoryKeyring;
    use crate::store::keyring::{KeyringError, KeyringItem};
    use crate::store::keys::key_item;
    use crate::store::keys::sealing_key::SealingKey;
    use crate::sys::lockfile::LockFile;

    fn store(dir: &std::path::Path, keyring: &MemoryKeyring) -> Store {
        let kind = StoreKind::Keyring { service: "keepalive".into() };
        let settings = StoreSettings { kind, path: None, allow_network_filesystem: true };
        Store::new(&settings, dir, None, || Box::new(keyring.clone()))
    }

    fn credential() -> Credential {
        crate::store::test_samples::credential(1, "r")
    }

    /// The key that another process finds.
    fn key_of(store: &Store, name: &ProfileName) -> Arc<SealingKey> {
        let view = store.view(name).unwrap();
        store.keys().load_for(name.as_str(), view.key_id()).unwrap()
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
        let (key, kept) = store.prepare_to_seal("").unwrap();
        let (told, hear) = channel();
        let (start, started) = channel();
        std::thread::scope(|scope| {
            let store = &store;
            scope.spawn(move || {
                start.send(()).unwrap();
                told.send(store.keys().delete_unused().unwrap())
            });
            started.recv().unwrap();
            assert_eq!(hear.recv_timeout(Duration::from_millis(100)), Err(RecvTimeoutError::Timeout), "it waits");
            seal(store, &name, &key);
            drop(kept);
            assert!(!hear.recv().unwrap(), "there is a credential now");
        });
        assert_eq!(store.keys().load("").unwrap().id(), key.id());
    }

    #[test]
    fn key_is_deleted_with_the_last_credential_and_made_anew() {
        let (dir, keyring) = (tempfile::tempdir().unwrap(), MemoryKeyring::default());
        let (store, daemon) = (store(dir.path(), &keyring), self::store(dir.path(), &keyring));
        let name: ProfileName = "demo".parse().unwrap();
        let first = store.prepare_to_seal("").unwrap().0;
        seal(&store, &name, &first);
        assert!(!store.keys().has_unused().unwrap(), "a credential needs it");
        assert_eq!(key_of(&daemon, &name).id(), first.id());
        assert!(!store.keys().delete_unused().unwrap());
        let lock = LockFile::acquire(&store.create_lock_file(&name).unwrap()).unwrap();
        let mut locked = store.open_profile(Permit::from_lock(&name, &lock)).unwrap();
        locked.forget(None).unwrap();
        assert!(locked.journal.is_tombstone && locked.journal.generation == Generation::FIRST);
        drop(lock);
        assert!(store.keys().has_unused().unwrap());
        assert!(store.keys().delete_unused().unwrap() && !store.keys().has_unused().unwrap());
        assert!(matches!(store.keys().load(""), Err(StoreError::Empty)));
        let second = store.prepare_to_seal("").unwrap().0;
        assert_ne!(second.id(), first.id());
        seal(&store, &name, &second);
        assert_eq!(key_of(&daemon, &name).id(), second.id(), "the one in memory gives way");
    }

    /// A directory was copied, and the copy has a profile that the original has not.
    #[test]
    fn key_that_a_copy_uses_is_not_deleted() {
        let (dir, keyring) = (tempfile::tempdir().unwrap(), MemoryKeyring::default());
        let store = store(dir.path(), &keyring);
        let name: ProfileName = "demo".parse().unwrap();
        let key = store.prepare_to_seal("").unwrap().0;
        seal(&store, &name, &key);
        let theirs: ProfileName = "theirs".parse().unwrap();
        let service = store.keyring().unwrap();
        ProfileItem::new(service, &theirs, &store.uuid().unwrap()).write(&key, &credential()).unwrap();
        let lock = LockFile::acquire(&store.create_lock_file(&name).unwrap()).unwrap();
        store.open_profile(Permit::from_lock(&name, &lock)).unwrap().forget(None).unwrap();
        assert!(!store.keys().has_unused().unwrap() && !store.keys().delete_unused().unwrap());
        let kept = key_item::read(service, &store.uuid().unwrap()).unwrap();
        assert_eq!(kept.map(|kept| kept.id().to_owned()).as_deref(), Some(key.id()));
    }

    #[test]
    fn leftovers_are_found_if_the_keyring_failed_in_logout() {
        let (dir, keyring) = (tempfile::tempdir().unwrap(), MemoryKeyring::default());
        let store = store(dir.path(), &keyring);
        let name: ProfileName = "demo".parse().unwrap();
        let key = store.prepare_to_seal("").unwrap().0;
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
        seal(&store, &name, &store.prepare_to_seal("").unwrap().0);
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
            seal(&store, &name, &store.prepare_to_seal("").unwrap().0);
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
