//! The life of the sealing key: where it is, how it is made, kept and deleted, and which key a store is sealed under.

pub mod key_id;
pub mod key_item;
pub mod prefetch;
pub mod sealing_key;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::profile::KeySource;
use crate::store::disk::layout::Layout;
use crate::store::identity::{IdentityCache, StoreIdentity, profiles};
use crate::store::keyring::{KeyringError, KeyringService, item};
use crate::store::keys::sealing_key::SealingKey;
use crate::store::{STORE_LOCK_WAIT, StoreError};
use crate::sys::lockfile::LockFile;

/// How often a new key is read again to see whether it has become durable.
const KEY_CHECK_TRIES: u32 = 10;

/// Where the key is kept.
pub(in crate::store) enum KeyPlace {
    Keyring(KeyringService),
    File { source: KeySource, credentials_dir: Option<PathBuf> },
}

/// The sealing key of one store.
pub struct Keys {
    layout: Layout,
    identity: Arc<IdentityCache>,
    place: KeyPlace,
    /// Kept for the life of the process, so that a daemon goes on while its keyring is away.
    cached: Mutex<Option<Arc<SealingKey>>>,
    /// The key was born in this run: the keyring may not have made it durable yet.
    is_new: AtomicBool,
}

impl Keys {
    pub(in crate::store) fn new(layout: Layout, identity: Arc<IdentityCache>, place: KeyPlace) -> Self {
        Self { layout, identity, place, cached: Mutex::new(None), is_new: AtomicBool::new(false) }
    }

    /// Forgets the key in memory, so that the next use asks its source again.
    pub fn drop_cached(&self) {
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the key is in memory.
    pub fn has_cached(&self) -> bool {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The sealing key, which must exist.
    pub fn load(&self, within: &str) -> Result<Arc<SealingKey>, StoreError> {
        self.cached_or(|| match &self.place {
            KeyPlace::File { source, credentials_dir } => self.read_source(source, credentials_dir.as_deref(), within),
            KeyPlace::Keyring(keyring) => {
                let identity = self.identity.of_any_machine()?;
                match key_item::read(keyring, &identity.uuid)? {
                    Some(key) => Ok(key),
                    // It went with the last profile.
                    None if !profiles::has_credentials(&self.layout)? => Err(StoreError::Empty),
                    None => Err(key_item::missing(keyring, &identity.uuid)),
                }
            }
        })
    }

    /// The sealing key; one in memory gives way if a file names another (`key_id`), as after the last profile was forgotten
    /// and a new one came.
    pub fn load_for(&self, within: &str, key_id: Option<&str>) -> Result<Arc<SealingKey>, StoreError> {
        let key = self.load(within)?;
        if key_id.is_some_and(|id| id != key.id()) {
            self.drop_cached();
            return self.load(within);
        }
        Ok(key)
    }

    fn read_source(&self, source: &KeySource, dir: Option<&Path>, within: &str) -> Result<SealingKey, StoreError> {
        sealing_key::read_key(source, dir, within).map_err(|e| self.unavailable_error(e))
    }

    /// The sealing key, made now if this store never had one, and the store lock, for a caller that is about to seal. While
    /// the lock is held, the key is not deleted with the last profile, and no other process seals the first file with
    /// another key. Refuses a key that does not fit the store's files.
    ///
    /// No profile lock may be held. Under `kind = "keyring"` the order is: the identity durable, the item written, read back
    /// over a new connection; only then is anything sealed.
    pub(in crate::store) fn load_or_generate(&self, within: &str) -> Result<(Arc<SealingKey>, LockFile), StoreError> {
        // It may come from a command, which is not waited for under a lock.
        let from_source = match &self.place {
            KeyPlace::File { source, credentials_dir } if !self.has_cached() => {
                Some(self.read_source(source, credentials_dir.as_deref(), within))
            }
            KeyPlace::File { .. } | KeyPlace::Keyring(_) => None,
        };
        let held = StoreError::lock(&self.layout.store_lock(), STORE_LOCK_WAIT)?;
        let is_first = self.identity.find()?.is_none();
        let from_source = match from_source {
            Some(Err(e)) if is_first => return Err(e),
            other => other,
        };
        let identity = self.identity.find_or_create()?;
        let key = match (&self.place, from_source) {
            (KeyPlace::Keyring(keyring), _) => {
                let mut is_item_left = false;
                let key = self.load_or_generate_item(keyring, &identity, &mut is_item_left);
                if key.is_err() && is_first && !is_item_left {
                    // The next first credential uses one that stays.
                    let _stays = self.identity.discard();
                }
                key?
            }
            (KeyPlace::File { .. }, Some(key)) => self.cached_or(|| key)?,
            (KeyPlace::File { .. }, None) => self.load(within)?,
        };
        self.check_id(&key, within)?;
        Ok((key, held))
    }

    /// The key in the keyring; a new one if nothing is sealed yet. The caller holds the store lock. `is_item_left`: there
    /// may be an item of a key that failed.
    fn load_or_generate_item(
        &self,
        keyring: &KeyringService,
        identity: &StoreIdentity,
        is_item_left: &mut bool,
    ) -> Result<Arc<SealingKey>, StoreError> {
        // One in memory may have gone with the last profile, and another have been born since.
        self.drop_cached();
        self.cached_or(|| match key_item::read(keyring, &identity.uuid)? {
            Some(key) => Ok(key),
            None if profiles::has_sealed_files(&self.layout)? => Err(key_item::missing(keyring, &identity.uuid)),
            None => self.generate_item(keyring, identity, is_item_left),
        })
    }

    /// A new key, in the keyring. One that cannot be read back is taken back: nothing is sealed with it.
    fn generate_item(
        &self,
        keyring: &KeyringService,
        identity: &StoreIdentity,
        is_item_left: &mut bool,
    ) -> Result<SealingKey, StoreError> {
        let key = SealingKey::generate();
        let made = key_item::write(keyring, identity, &key).and_then(|()| {
            keyring.reconnect();
            key_item::read(keyring, &identity.uuid)
        });
        *is_item_left = match &made {
            Ok(Some(read_back)) if read_back.id() == key.id() => {
                self.is_new.store(true, Ordering::SeqCst);
                return Ok(key);
            }
            Ok(Some(_)) => true,
            // It may still be written, and nothing else would be heard now.
            Err(StoreError::Keyring(e)) if *e.cause() == KeyringError::TimedOut => true,
            Ok(None) | Err(_) => !key_item::discard(keyring, &identity.uuid),
        };
        Err(made.err().unwrap_or_else(|| key_item::missing(keyring, &identity.uuid)))
    }

    /// Takes back a key that was made in this run, since what it was made for was refused. The caller holds the store lock.
    /// Failing costs only an item that nothing needs, and the next first credential uses it.
    pub(in crate::store) fn discard_unused_new(&self) {
        let KeyPlace::Keyring(keyring) = &self.place else { return };
        if !self.is_new.load(Ordering::SeqCst) || !matches!(profiles::has_credentials(&self.layout), Ok(false)) {
            return;
        }
        let Ok(Some(identity)) = self.identity.find() else { return };
        self.is_new.store(false, Ordering::SeqCst);
        self.drop_cached();
        let _stays = key_item::delete(keyring, &identity.uuid);
    }

    /// Makes sure that a key born in this run is kept. Some keyrings acknowledge a write before it is durable (one lost it
    /// when killed within 200 ms), so this waits, reads it over a new connection and writes it again if need be, a few
    /// times. `on_wait` is told of the wait.
    pub fn verify_persisted(&self, on_wait: &dyn Fn(Duration)) -> Result<(), StoreError> {
        let KeyPlace::Keyring(keyring) = &self.place else { return Ok(()) };
        if !self.is_new.load(Ordering::SeqCst) {
            return Ok(());
        }
        let identity = self.identity.usable_here()?;
        let interval = keyring.write_delay();
        on_wait(interval);
        for _ in 0..KEY_CHECK_TRIES {
            #[expect(clippy::disallowed_methods, reason = "no keyring says when its disk has the key")]
            std::thread::sleep(interval);
            keyring.reconnect();
            if key_item::read(keyring, &identity.uuid)?.is_some() {
                self.is_new.store(false, Ordering::SeqCst);
                return Ok(());
            }
            let key = self.load("")?;
            key_item::write(keyring, &identity, &key)?;
        }
        Err(key_item::missing(keyring, &identity.uuid))
    }

    fn cached_or(&self, fetch: impl FnOnce() -> Result<SealingKey, StoreError>) -> Result<Arc<SealingKey>, StoreError> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &*cached {
            return Ok(Arc::clone(key));
        }
        let key = fetch()?;
        // A directory that is no store yet, or does not know which, has no fingerprints either.
        let Some(identity) = self.identity.find()? else {
            return Ok(Arc::new(key));
        };
        let key = Arc::new(key.for_store(&identity.uuid));
        *cached = Some(Arc::clone(&key));
        Ok(key)
    }

    /// A keyring that was wiped under a running daemon gets the key back; another key in its place is an error, and
    /// another owner beside it. Returns whether the key was missing.
    pub(in crate::store) fn restore_item(&self, key: &SealingKey, store: &StoreIdentity) -> Result<bool, StoreError> {
        let KeyPlace::Keyring(keyring) = &self.place else { return Ok(false) };
        match key_item::read_owned(keyring, &store.uuid)? {
            Some((there, _)) if there.id() != key.id() => Err(key_item::missing(keyring, &store.uuid)),
            Some((_, owner)) if owner.is_some() && store.owner.is_some() && owner != store.owner => {
                Err(StoreError::TakenOver { dir: self.layout.dir().to_owned() })
            }
            // An earlier version wrote it.
            Some((_, None)) if store.owner.is_some() => key_item::write(keyring, store, key).map(|()| false),
            Some(_) => Ok(false),
            None if keyring.asked()?.may_hide_items => Err(key_item::missing(keyring, &store.uuid)),
            None => key_item::write(keyring, store, key).map(|()| true),
        }
    }

    /// Whether the keyring names this owner of the store, or none.
    pub(in crate::store) fn is_owner(&self, store: &StoreIdentity) -> Result<bool, StoreError> {
        let KeyPlace::Keyring(keyring) = &self.place else { return Ok(true) };
        let item = key_item::read_owned(keyring, &store.uuid)?;
        Ok(item.and_then(|(_, owner)| owner).is_none_or(|owner| store.owner.as_ref() == Some(&owner)))
    }

    /// Makes the keyring name the owner of the store. The caller has made this one it.
    pub(in crate::store) fn set_owner(&self, key: &SealingKey, store: &StoreIdentity) -> Result<(), StoreError> {
        let KeyPlace::Keyring(keyring) = &self.place else { return Ok(()) };
        key_item::write(keyring, store, key)?;
        match self.is_owner(store)? {
            true => Ok(()),
            false => Err(KeyringError::Failed("it did not take the new owner".into()).into()),
        }
    }

    /// Whether the keyring keeps the sealing key although it is of no use any more.
    pub fn has_unused(&self) -> Result<bool, StoreError> {
        let KeyPlace::Keyring(keyring) = &self.place else { return Ok(false) };
        match self.identity.find()? {
            Some(identity) => self.is_unused(keyring, &identity),
            None => Ok(false),
        }
    }

    /// A copy of this directory may have profiles of its own, which their items in the keyring tell of, or may have taken
    /// this store over.
    fn is_unused(&self, keyring: &KeyringService, store: &StoreIdentity) -> Result<bool, StoreError> {
        Ok(!profiles::has_credentials(&self.layout)?
            && key_item::exists(keyring, &store.uuid)?
            && self.is_owner(store)?
            && !item::is_published_by(keyring, &store.uuid)?)
    }

    /// Removes the sealing key from the keyring if nothing needs it any more. Returns whether it did.
    ///
    /// Takes the store lock, so no profile lock may be held. A run that is about to seal holds it too.
    pub fn delete_unused(&self) -> Result<bool, StoreError> {
        let KeyPlace::Keyring(keyring) = &self.place else { return Ok(false) };
        let _held = StoreError::lock(&self.layout.store_lock(), STORE_LOCK_WAIT)?;
        let Some(identity) = self.identity.find()? else { return Ok(false) };
        if !self.is_unused(keyring, &identity)? {
            return Ok(false);
        }
        self.drop_cached();
        key_item::delete(keyring, &identity.uuid).map(|()| true)
    }
}
