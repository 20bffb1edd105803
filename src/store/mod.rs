//! Where a credential lives: the sealed journal, which is the commit point, and its published copy in the OS keyring.
//!
//! A [`Store`] is one directory plus the place of its sealing key. Reading without a lock is [`Store::peek`] and
//! [`Store::snapshot`]; all else goes through a [`Vault`], which needs a permit of the guard.

pub mod aftermath;
mod census;
pub mod content;
mod custody;
mod departure;
pub mod envelope;
mod error;
mod flaw;
mod holders;
mod identity;
pub mod key;
pub mod keyring;
pub mod knowledge;
mod layout;
mod ledger;
mod naturalisation;
mod published;
mod readiness;
pub mod record;
mod recovery;
#[cfg(test)]
mod samples;
mod takeover;
mod vault;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::credential::{Credential, Generation, Snapshot};
use crate::outcome::Publication;
use crate::profile::{KeySource, ProfileName, StoreKind, StoreSettings};
use crate::sys::lockfile::LockFile;
use crate::sys::stamp::Stamp;
use crate::sys::{durable, machine, stamp};
use envelope::Damage;
pub use error::StoreError;
pub use holders::Claim;
use identity::Identity;
use key::SealingKey;
use keyring::{Item, Keyring};
pub use layout::Layout;
use ledger::Ledger;
pub use readiness::Readied;
use record::Record;
pub use recovery::PendingAnswer;
pub use takeover::Taken;
pub use vault::{Loaded, Vault};

/// One store: a directory, and where its key is.
pub struct Store {
    layout: Layout,
    ledger: Ledger,
    home: Home,
    allow_network_filesystem: bool,
    /// Kept for the life of the process, so that a daemon goes on while its keyring is away.
    key: Mutex<Option<Arc<SealingKey>>>,
    /// The key was born in this run: the keyring may not have made it durable yet.
    is_key_young: AtomicBool,
}

/// How long a new key is given to become durable before it is read again, and how often.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);
const CONFIRM_TIMES: u32 = 10;

/// Where the key is, and whether there is somewhere to publish.
enum Home {
    Keyring { keyring: Box<dyn Keyring>, service: String },
    File { source: KeySource, credentials: Option<PathBuf> },
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({}, {})", self.layout.dir().display(), self.kind())
    }
}

/// The key's item in the keyring.
#[derive(Serialize, Deserialize)]
struct KeyItem {
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
            StoreKind::Keyring { service } => Home::Keyring { keyring: keyring(), service: service.clone() },
            StoreKind::File { key } => Home::File { source: key.clone(), credentials: credentials.map(Path::to_owned) },
        };
        Self {
            ledger: Ledger::new(&layout),
            layout,
            home,
            allow_network_filesystem: settings.allow_network_filesystem,
            key: Mutex::new(None),
            is_key_young: AtomicBool::new(false),
        }
    }

    /// `keyring` or `file`.
    pub fn kind(&self) -> &'static str {
        match self.home {
            Home::Keyring { .. } => "keyring",
            Home::File { .. } => "file",
        }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The keyring and its service name, under `kind = "keyring"`.
    pub fn keyring(&self) -> Option<(&dyn Keyring, &str)> {
        match &self.home {
            Home::Keyring { keyring, service } => Some((keyring.as_ref(), service)),
            Home::File { .. } => None,
        }
    }

    /// What is known of a profile without lock, key or keyring. `None`: nothing was ever stored for it.
    pub fn peek(&self, name: &ProfileName) -> Result<Option<Record>, StoreError> {
        let folder = self.layout.folder(name);
        let mut record = Record::read(&folder.record(), name)?;
        // A run that died between seal and journal left a generation that the journal does not know yet.
        let sealed = self.sealed_generation(name)?;
        let is_alone = record.is_none();
        let is_behind = sealed.is_some_and(|sealed| record.as_ref().is_none_or(|r| r.generation < sealed));
        if let Some(sealed) = sealed.filter(|_| is_behind) {
            let record = record.get_or_insert_with(|| Record::new(name.clone()));
            record.lift(Some(sealed));
            record.generation = sealed;
            // What the journal says of the generation before does not hold for this one; a flight brings it up to date.
            record.validity = None;
            if self.keyring().is_some() {
                record.publication = Publication::PublishPending;
            }
        }
        if let Some(record) = &mut record {
            let is_unsealed = sealed.is_none_or(|sealed| sealed < record.generation);
            let unsealed = || is_unsealed.then(|| self.flaw(name, record)).flatten();
            record.flaw =
                self.stray(record).or_else(unsealed).or_else(|| is_alone.then(|| flaw::without_journal(name)));
        }
        // Of what the journal is behind with, it has no fingerprint.
        let is_overtaken = match &mut record {
            Some(record) if !is_behind => self.recall_unlocked(record)?,
            Some(_) | None => false,
        };
        if is_overtaken { self.peek(name) } else { Ok(record) }
    }

    fn sealed_generation(&self, name: &ProfileName) -> Result<Option<Generation>, StoreError> {
        let path = self.layout.folder(name).sealed();
        let bytes = durable::read(&path).map_err(|e| StoreError::io("read", &path, e))?;
        match bytes.map(|bytes| envelope::header(&bytes)) {
            // Of what a later version sealed nobody here knows the generation, nor whose token it is.
            Some(Err(damage @ Damage::Later(_))) => Err(self.unopened(path, damage)),
            Some(Ok(header)) => Ok(Some(header.generation)),
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// The newest committed credential without its refresh token, read without a lock.
    pub fn snapshot(&self, name: &ProfileName) -> Result<Option<Snapshot>, StoreError> {
        let folder = self.layout.folder(name);
        // The journal first: whatever generation it names was sealed before it was written.
        let mut record = Record::read(&folder.record(), name)?;
        if let Some(record) = record.as_mut().filter(|r| r.is_tombstone) {
            record.lift(self.sealed_generation(name)?);
        }
        let read = |path: PathBuf| durable::read(&path).map_err(|e| StoreError::io("read", &path, e));
        let Some(bytes) = read(folder.sealed())?.filter(|_| record.as_ref().is_none_or(|r| !r.is_tombstone)) else {
            return Ok(None);
        };
        let (known, token) = record.map_or((Generation::NONE, None), |r| (r.generation, r.fingerprint));
        let key = self.key_for(name)?;
        let sealed = self.open_sealed(&bytes, name, &key)?;
        if sealed.generation >= known {
            return Ok(Some(sealed.snapshot()));
        }
        // An older copy was restored; or the newest answer did not get its final name, and the next run gives it that.
        let received = read(folder.received())?.and_then(|bytes| self.open_sealed(&bytes, name, &key).ok());
        let is_newest = |c: &Credential| c.generation == known && token == Some(key.fingerprint(&c.refresh));
        match received.filter(is_newest) {
            Some(credential) => Ok(Some(credential.snapshot())),
            None => Err(StoreError::Stale { found: sealed.generation.get(), known: known.get() }),
        }
    }

    /// The lock file of a profile, its directory made.
    pub fn lock_file(&self, name: &ProfileName) -> Result<PathBuf, StoreError> {
        let folder = self.layout.folder(name);
        durable::create_dir(folder.dir()).map_err(|e| StoreError::io("create", folder.dir(), e))?;
        Ok(folder.lock())
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Forgets the key in memory, so that the next use asks its source again.
    pub fn forget_key(&self) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether the key is in memory.
    pub fn has_key(&self) -> bool {
        self.key.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The sealing key, which must exist.
    pub fn key(&self, within: &str) -> Result<Arc<SealingKey>, StoreError> {
        self.key_by(|| match self.key_from_source(within) {
            Some(key) => key,
            None => {
                let identity = self.known_identity()?;
                match self.key_in_keyring(&identity)? {
                    Some(key) => Ok(key),
                    // It went with the last profile.
                    None if !self.has_credentials()? => Err(StoreError::Empty),
                    None => Err(StoreError::KeyMissing { store: identity.uuid }),
                }
            }
        })
    }

    /// The key of a file store, asked for where the settings say that it is; `None` where it is in the keyring.
    fn key_from_source(&self, within: &str) -> Option<Result<SealingKey, StoreError>> {
        let Home::File { source, credentials } = &self.home else { return None };
        Some(key::from_source(source, credentials.as_deref(), within).map_err(|e| self.keyless(e)))
    }

    /// The sealing key, born now if this store never had one.
    ///
    /// Takes the store lock, so no profile lock may be held. Under `kind = "keyring"` the order is: the identity durable,
    /// the item written, read back over a new connection; only then is anything sealed.
    pub fn key_or_born(&self, within: &str) -> Result<Arc<SealingKey>, StoreError> {
        self.key_to_seal(within).map(|(key, _)| key)
    }

    /// The same for whoever is about to seal something: as long as the store lock is held that comes with it, the key does
    /// not go with the last profile, and nobody else seals the first file under another. Refuses a key that is not the
    /// one of this store's files.
    pub fn key_to_seal(&self, within: &str) -> Result<(Arc<SealingKey>, LockFile), StoreError> {
        let dir = self.layout.dir();
        durable::create_dir(dir).map_err(|e| StoreError::io("create", dir, e))?;
        self.check_filesystem()?;
        let path = self.layout.store_lock();
        // It may come from a command, which is not waited for under a lock.
        let from_source = (!self.has_key()).then(|| self.key_from_source(within)).flatten();
        let held = LockFile::acquire(&path).map_err(|e| StoreError::io("lock", &path, e))?;
        let identity = Identity::read_or_create(&self.layout)?;
        let key = match &self.home {
            Home::File { .. } => match from_source {
                Some(key) => self.key_by(|| key)?,
                None => self.key(within)?,
            },
            Home::Keyring { keyring, .. } => self.kept_or_born(keyring.as_ref(), &identity)?,
        };
        self.check_custody(&key, within)?;
        Ok((key, held))
    }

    /// The key in the keyring; a new one if nothing is sealed yet. The caller holds the store lock.
    fn kept_or_born(&self, keyring: &dyn Keyring, identity: &Identity) -> Result<Arc<SealingKey>, StoreError> {
        // One in memory may have gone with the last profile, and another have been born since.
        self.forget_key();
        self.key_by(|| match self.key_in_keyring(identity)? {
            Some(key) => Ok(key),
            None if self.has_sealed_files()? => Err(StoreError::KeyMissing { store: identity.uuid.clone() }),
            None => {
                let key = SealingKey::generate();
                self.write_key(identity, &key)?;
                keyring.reconnect();
                match self.key_in_keyring(identity)? {
                    Some(read_back) if read_back.id() == key.id() => {
                        self.is_key_young.store(true, Ordering::SeqCst);
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
    pub fn confirm_young_key(&self, announce: &dyn Fn(Duration)) -> Result<(), StoreError> {
        if !self.is_key_young.load(Ordering::SeqCst) {
            return Ok(());
        }
        let identity = self.identity()?;
        announce(CONFIRM_AFTER);
        for _ in 0..CONFIRM_TIMES {
            #[expect(clippy::disallowed_methods, reason = "no keyring says when its disk has the key")]
            std::thread::sleep(CONFIRM_AFTER);
            if let Some((keyring, _)) = self.keyring() {
                keyring.reconnect();
            }
            if self.key_in_keyring(&identity)?.is_some() {
                self.is_key_young.store(false, Ordering::SeqCst);
                return Ok(());
            }
            let key = self.key("")?;
            self.write_key(&identity, &key)?;
        }
        Err(StoreError::KeyMissing { store: identity.uuid })
    }

    fn key_by(&self, fetch: impl FnOnce() -> Result<SealingKey, StoreError>) -> Result<Arc<SealingKey>, StoreError> {
        let mut cached = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &*cached {
            return Ok(Arc::clone(key));
        }
        let key = fetch()?;
        // A directory that is no store yet, or does not know which, has no fingerprints either.
        let Some(identity) = Identity::find(&self.layout)? else {
            return Ok(Arc::new(key));
        };
        let key = Arc::new(key.of_store(&identity.uuid));
        *cached = Some(Arc::clone(&key));
        Ok(key)
    }

    fn key_item(service: &str, identity: &Identity) -> Item {
        Item { service: format!("{service}-key"), user: identity.uuid.clone() }
    }

    fn key_in_keyring(&self, identity: &Identity) -> Result<Option<SealingKey>, StoreError> {
        let Home::Keyring { keyring, service } = &self.home else {
            return Ok(None);
        };
        let Some(found) = keyring.read(&Self::key_item(service, identity))? else {
            return Ok(None);
        };
        let item: KeyItem = serde_json::from_str(&found.value).map_err(|_| StoreError::KeyUnreadable)?;
        let key = SealingKey::from_bytes(item.key.as_bytes()).ok_or(StoreError::KeyUnreadable)?;
        if key.id() == item.key_id { Ok(Some(key)) } else { Err(StoreError::KeyUnreadable) }
    }

    fn write_key(&self, identity: &Identity, key: &SealingKey) -> Result<(), StoreError> {
        let Home::Keyring { keyring, service } = &self.home else {
            return Ok(());
        };
        let item = KeyItem {
            format: 1,
            store: identity.uuid.clone(),
            key_id: key.id().to_owned(),
            key: key.to_text(),
            generation: 1,
        };
        let text = Zeroizing::new(serde_json::to_string(&item).map_err(|_| StoreError::KeyUnreadable)?);
        Ok(keyring.write(&Self::key_item(service, identity), &text)?)
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
        let lock = self.layout.folder(name).lock();
        lock.exists() && matches!(LockFile::try_acquire(&lock), Ok(None))
    }

    /// Changes when this profile's journal is written, by whomever.
    pub fn written(&self, name: &ProfileName) -> Stamp {
        stamp::modified(&self.layout.folder(name).record())
    }
}
