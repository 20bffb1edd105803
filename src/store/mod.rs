//! Where credentials are kept: the sealed credential, which is the commit point, the journal, and the keyring item.
//!
//! A [`Store`] is one directory plus the place of its sealing key. Reading without a lock is [`Store::peek`] and
//! [`Store::snapshot`]; everything else goes through a [`LockedProfile`], which needs a permit of the guard.

pub mod disk;
mod error;
mod identity;
pub mod journal;
pub mod keyring;
pub mod keys;
mod profile;
#[cfg(test)]
pub(crate) mod test_samples;
pub mod tokens;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::profile::{KeySource, ProfileName, StoreKind, StoreSettings};
pub use crate::store::disk::layout::Layout;
pub use crate::store::identity::take_over::TakeOverResult;
pub use crate::store::keys::prefetch::PrefetchedKey;
use crate::store::keys::sealing_key::SealingKey;
pub use crate::store::profile::recovery::PendingResponse;
pub use crate::store::profile::view::ProfileView;
pub use crate::store::profile::{LoadedCredential, LockedProfile};
use crate::store::tokens::ledger::Ledger;
pub use crate::store::tokens::ownership::TokenClaim;
use crate::sys::file_watch::{FileStamp, FileVersion};
use crate::sys::lockfile::LockFile;
use crate::sys::{durable, file_watch, machine};
pub use error::StoreError;
use identity::StoreIdentity;
use keyring::{Keyring, KeyringItem};

/// One store: a directory, and where its key is.
pub struct Store {
    layout: Layout,
    ledger: Ledger,
    backend: StoreBackend,
    allow_network_filesystem: bool,
    /// What `store.json` said, and which version of it.
    cached_identity: Mutex<Option<(FileVersion, StoreIdentity)>>,
    /// Kept for the life of the process, so that a daemon goes on while its keyring is away.
    cached_key: Mutex<Option<Arc<SealingKey>>>,
    /// The key was born in this run: the keyring may not have made it durable yet.
    is_key_new: AtomicBool,
}

/// How long a new key is given to become durable before it is read again, and how often.
const KEY_CHECK_INTERVAL: Duration = Duration::from_secs(1);
const KEY_CHECK_TRIES: u32 = 10;

/// Where the key is, and whether there is somewhere to publish.
enum StoreBackend {
    Keyring { keyring: Box<dyn Keyring>, service: String },
    File { source: KeySource, credentials_dir: Option<PathBuf> },
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({}, {})", self.layout.dir().display(), self.kind())
    }
}

/// The key's item in the keyring.
#[derive(Serialize, Deserialize)]
struct SealingKeyItem {
    format: u32,
    store: String,
    key_id: String,
    key: Zeroizing<String>,
    generation: u64,
}

impl Store {
    /// Puts a store together; touches nothing yet. `state` is the directory used unless the settings name one;
    /// `credentials` is `$CREDENTIALS_DIRECTORY`.
    pub fn new(
        settings: &StoreSettings,
        state: &Path,
        credentials: Option<&Path>,
        keyring: impl FnOnce() -> Box<dyn Keyring>,
    ) -> Self {
        let layout = Layout::new(settings.path.as_deref().unwrap_or(state));
        let home = match &settings.kind {
            StoreKind::Keyring { service } => StoreBackend::Keyring { keyring: keyring(), service: service.clone() },
            StoreKind::File { key } => {
                StoreBackend::File { source: key.clone(), credentials_dir: credentials.map(Path::to_owned) }
            }
        };
        Self {
            ledger: Ledger::new(&layout),
            layout,
            backend: home,
            allow_network_filesystem: settings.allow_network_filesystem,
            cached_identity: Mutex::new(None),
            cached_key: Mutex::new(None),
            is_key_new: AtomicBool::new(false),
        }
    }

    /// `keyring` or `file`.
    pub fn kind(&self) -> &'static str {
        match self.backend {
            StoreBackend::Keyring { .. } => "keyring",
            StoreBackend::File { .. } => "file",
        }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The keyring and its service name, under `kind = "keyring"`.
    pub fn keyring(&self) -> Option<(&dyn Keyring, &str)> {
        match &self.backend {
            StoreBackend::Keyring { keyring, service } => Some((keyring.as_ref(), service)),
            StoreBackend::File { .. } => None,
        }
    }

    /// The lock file of a profile, its directory made.
    pub fn create_lock_file(&self, name: &ProfileName) -> Result<PathBuf, StoreError> {
        let folder = self.layout.profile_folder(name);
        durable::create_dir(folder.dir()).map_err(|e| StoreError::io("create", folder.dir(), e))?;
        Ok(folder.lock())
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Forgets the key in memory, so that the next use asks its source again.
    pub fn drop_cached_key(&self) {
        *self.cached_key.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the key is in memory.
    pub fn has_cached_key(&self) -> bool {
        self.cached_key.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The sealing key, which must exist.
    pub fn key(&self, within: &str) -> Result<Arc<SealingKey>, StoreError> {
        self.cached_key_or(|| match self.key_from_source(within) {
            Some(key) => key,
            None => {
                let identity = self.identity_of_any_machine()?;
                match self.read_keyring_key(&identity)? {
                    Some(key) => Ok(key),
                    // It went with the last profile.
                    None if !self.has_credentials()? => Err(StoreError::Empty),
                    None => Err(StoreError::KeyMissing { store: identity.uuid }),
                }
            }
        })
    }

    /// The key of a file store, read from where the settings say; `None` if it is in the keyring.
    fn key_from_source(&self, within: &str) -> Option<Result<SealingKey, StoreError>> {
        let StoreBackend::File { source, credentials_dir: credentials } = &self.backend else { return None };
        Some(keys::sealing_key::read_key(source, credentials.as_deref(), within).map_err(|e| self.key_error(e)))
    }

    /// The sealing key, born now if this store never had one.
    ///
    /// Takes the store lock, so no profile lock may be held. Under `kind = "keyring"` the order is: the identity durable,
    /// the item written, read back over a new connection; only then is anything sealed.
    pub fn load_or_generate_key(&self, within: &str) -> Result<Arc<SealingKey>, StoreError> {
        self.key_with_store_lock(within).map(|(key, _)| key)
    }

    /// The key, and the store lock, for a caller that is about to seal. While the lock is held, the key is not deleted
    /// with the last profile, and no other process seals the first file with another key. Refuses a key that does not
    /// fit the store's files.
    pub fn key_with_store_lock(&self, within: &str) -> Result<(Arc<SealingKey>, LockFile), StoreError> {
        let dir = self.layout.dir();
        durable::create_dir(dir).map_err(|e| StoreError::io("create", dir, e))?;
        self.check_filesystem()?;
        let path = self.layout.store_lock();
        // It may come from a command, which is not waited for under a lock.
        let from_source = (!self.has_cached_key()).then(|| self.key_from_source(within)).flatten();
        let held = LockFile::acquire(&path).map_err(|e| StoreError::io("lock", &path, e))?;
        let identity = match self.find_identity()? {
            Some(identity) if self.layout.identity().exists() => identity,
            Some(_) | None => StoreIdentity::read_or_create(&self.layout)?,
        };
        let key = match &self.backend {
            StoreBackend::File { .. } => match from_source {
                Some(key) => self.cached_key_or(|| key)?,
                None => self.key(within)?,
            },
            StoreBackend::Keyring { keyring, .. } => self.load_or_generate_keyring_key(keyring.as_ref(), &identity)?,
        };
        self.check_key_id(&key, within)?;
        Ok((key, held))
    }

    /// The key in the keyring; a new one if nothing is sealed yet. The caller holds the store lock.
    fn load_or_generate_keyring_key(
        &self,
        keyring: &dyn Keyring,
        identity: &StoreIdentity,
    ) -> Result<Arc<SealingKey>, StoreError> {
        // One in memory may have gone with the last profile, and another have been born since.
        self.drop_cached_key();
        self.cached_key_or(|| match self.read_keyring_key(identity)? {
            Some(key) => Ok(key),
            None if self.has_sealed_files()? => Err(StoreError::KeyMissing { store: identity.uuid.clone() }),
            None => {
                let key = SealingKey::generate();
                self.write_keyring_key(identity, &key)?;
                keyring.reconnect();
                match self.read_keyring_key(identity)? {
                    Some(read_back) if read_back.id() == key.id() => {
                        self.is_key_new.store(true, Ordering::SeqCst);
                        Ok(key)
                    }
                    _ => Err(StoreError::KeyMissing { store: identity.uuid.clone() }),
                }
            }
        })
    }

    /// Makes sure that a key born in this run is kept. Some keyrings acknowledge a write before it is durable (one lost it
    /// when killed within 200 ms), so this waits, reads it over a new connection and writes it again if need be, for up to
    /// 10 s. `announce` is told of the wait.
    pub fn verify_key_persisted(&self, on_wait: &dyn Fn(Duration)) -> Result<(), StoreError> {
        if !self.is_key_new.load(Ordering::SeqCst) {
            return Ok(());
        }
        let identity = self.identity()?;
        on_wait(KEY_CHECK_INTERVAL);
        for _ in 0..KEY_CHECK_TRIES {
            #[expect(clippy::disallowed_methods, reason = "no keyring says when its disk has the key")]
            std::thread::sleep(KEY_CHECK_INTERVAL);
            if let Some((keyring, _)) = self.keyring() {
                keyring.reconnect();
            }
            if self.read_keyring_key(&identity)?.is_some() {
                self.is_key_new.store(false, Ordering::SeqCst);
                return Ok(());
            }
            let key = self.key("")?;
            self.write_keyring_key(&identity, &key)?;
        }
        Err(StoreError::KeyMissing { store: identity.uuid })
    }

    fn cached_key_or(
        &self,
        fetch: impl FnOnce() -> Result<SealingKey, StoreError>,
    ) -> Result<Arc<SealingKey>, StoreError> {
        let mut cached = self.cached_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &*cached {
            return Ok(Arc::clone(key));
        }
        let key = fetch()?;
        // A directory that is no store yet, or does not know which, has no fingerprints either.
        let Some(identity) = self.find_identity()? else {
            return Ok(Arc::new(key));
        };
        let key = Arc::new(key.for_store(&identity.uuid));
        *cached = Some(Arc::clone(&key));
        Ok(key)
    }

    fn key_item_attributes(service: &str, identity: &StoreIdentity) -> KeyringItem {
        KeyringItem { service: format!("{service}-key"), user: identity.uuid.clone() }
    }

    fn read_keyring_key(&self, identity: &StoreIdentity) -> Result<Option<SealingKey>, StoreError> {
        let StoreBackend::Keyring { keyring, service } = &self.backend else {
            return Ok(None);
        };
        let Some(found) = keyring.read(&Self::key_item_attributes(service, identity))? else {
            return Ok(None);
        };
        let item: SealingKeyItem = serde_json::from_str(&found.value).map_err(|_| StoreError::KeyDamaged)?;
        let key = SealingKey::from_bytes(item.key.as_bytes()).ok_or(StoreError::KeyDamaged)?;
        if key.id() == item.key_id { Ok(Some(key)) } else { Err(StoreError::KeyDamaged) }
    }

    fn write_keyring_key(&self, identity: &StoreIdentity, key: &SealingKey) -> Result<(), StoreError> {
        let StoreBackend::Keyring { keyring, service } = &self.backend else {
            return Ok(());
        };
        let item = SealingKeyItem {
            format: 1,
            store: identity.uuid.clone(),
            key_id: key.id().to_owned(),
            key: key.to_base64(),
            generation: 1,
        };
        let text = Zeroizing::new(serde_json::to_string(&item).map_err(|_| StoreError::KeyDamaged)?);
        Ok(keyring.write(&Self::key_item_attributes(service, identity), &text)?)
    }

    /// Rule 30: a lock on a network filesystem may exclude only the processes of this machine.
    pub fn check_filesystem(&self) -> Result<(), StoreError> {
        let dir = self.layout.dir();
        let filesystem = machine::filesystem(dir).map_err(|e| StoreError::io("examine", dir, e))?;
        if filesystem.is_network && !self.allow_network_filesystem {
            return Err(StoreError::NetworkFilesystem { dir: dir.to_owned(), name: filesystem.name });
        }
        Ok(())
    }

    /// Whether some run has this profile's lock at this moment.
    pub fn is_locked(&self, name: &ProfileName) -> bool {
        let lock = self.layout.profile_folder(name).lock();
        lock.exists() && matches!(LockFile::try_acquire(&lock), Ok(None))
    }

    /// Changes when any process writes this profile's journal.
    pub fn journal_stamp(&self, name: &ProfileName) -> FileStamp {
        file_watch::file_stamp(&self.layout.profile_folder(name).journal())
    }
}
