//! Where credentials are kept: the sealed credential, which is the commit point, the journal, and the keyring item.
//!
//! A [`Store`] is one directory plus the place of its sealing key. Reading without a lock is [`Store::peek`] and
//! [`Store::snapshot`]; everything else goes through a [`LockedProfile`], which needs a permit of the guard.

pub mod disk;
mod error;
pub mod handles;
mod identity;
pub mod journal;
pub mod keyring;
pub mod keys;
mod profile;
#[cfg(test)]
pub(crate) mod test_samples;
pub mod tokens;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::credential::secret::RefreshToken;
use crate::profile::{ProfileName, StoreKind, StoreSettings};
pub use crate::store::disk::layout::Layout;
use crate::store::handles::HandleStore;
pub use crate::store::identity::take_over::TakeOverResult;
use crate::store::identity::{IdentityCache, profiles};
use crate::store::keyring::{Keyring, KeyringService};
use crate::store::keys::KeyPlace;
pub use crate::store::keys::Keys;
pub use crate::store::keys::prefetch::PrefetchedKey;
use crate::store::keys::sealing_key::SealingKey;
pub use crate::store::profile::recovery::PendingResponse;
pub use crate::store::profile::view::ProfileView;
pub use crate::store::profile::{LoadedCredential, LockedProfile};
use crate::store::tokens::ledger::Ledger;
pub use crate::store::tokens::ownership::{TokenClaim, TokenLock};
use crate::sys::file_watch::{self, FileStamp};
use crate::sys::lockfile::{LockFile, LockHolder, LockWait};
use crate::sys::{durable, machine};
pub use error::StoreError;

/// How long the lock of the store is waited for. Its holder waits for no other lock, so one that has it longer is stopped.
pub(in crate::store) const STORE_LOCK_WAIT: LockWait<'_> = LockWait::at_most(Duration::from_secs(30));
/// How long a command that is no refresh waits for a profile or a token: longer than a flight takes.
pub const PROFILE_LOCK_WAIT: Duration = Duration::from_secs(90);
/// How often the locks for sealing are tried together, when others take them in between.
const LOCK_ROUNDS: usize = 8;

/// The locks of a caller that is about to seal a credential, and the key.
#[derive(Debug)]
pub struct SealLocks {
    pub key: Arc<SealingKey>,
    /// While it is held, the key is not deleted with the last profile.
    pub store: LockFile,
    pub profile: LockFile,
    pub token: Option<TokenLock>,
}

/// One store: a directory, and where its key is.
pub struct Store {
    layout: Layout,
    identity: Arc<IdentityCache>,
    keys: Keys,
    ledger: Ledger,
    handles: HandleStore,
    /// Where credentials are published, under `kind = "keyring"`.
    keyring: Option<KeyringService>,
    allow_network_filesystem: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({}, {})", self.layout.dir().display(), self.kind())
    }
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
        let identity = Arc::new(IdentityCache::new(layout.clone()));
        let (keyring, place) = match &settings.kind {
            StoreKind::Keyring { service } => {
                let keyring = KeyringService::new(keyring(), service.clone());
                (Some(keyring.clone()), KeyPlace::Keyring(keyring))
            }
            StoreKind::File { key } => {
                (None, KeyPlace::File { source: key.clone(), credentials_dir: credentials.map(Path::to_owned) })
            }
        };
        Self {
            keys: Keys::new(layout.clone(), Arc::clone(&identity), place),
            ledger: Ledger::new(&layout),
            handles: HandleStore::new(&layout),
            layout,
            identity,
            keyring,
            allow_network_filesystem: settings.allow_network_filesystem,
        }
    }

    /// `keyring` or `file`.
    pub fn kind(&self) -> &'static str {
        if self.keyring.is_some() { "keyring" } else { "file" }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    pub fn handles(&self) -> &HandleStore {
        &self.handles
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub fn keyring(&self) -> Option<&KeyringService> {
        self.keyring.as_ref()
    }

    /// The store's UUID, once it has one.
    pub fn uuid(&self) -> Option<String> {
        self.identity.uuid()
    }

    /// Every profile that something is stored for, by name.
    pub fn list_profiles(&self) -> Result<Vec<ProfileName>, StoreError> {
        profiles::list_profiles(&self.layout)
    }

    /// The lock file of a profile, its directory made.
    pub fn create_lock_file(&self, name: &ProfileName) -> Result<PathBuf, StoreError> {
        let folder = self.layout.profile_folder(name);
        durable::create_dir(folder.dir()).map_err(|e| StoreError::io("create", folder.dir(), e))?;
        Ok(folder.lock())
    }

    /// The sealing key and the store lock, for a caller that is about to seal, as `Keys::load_or_generate` gives them.
    pub fn prepare_to_seal(&self, within: &str) -> Result<(Arc<SealingKey>, LockFile), StoreError> {
        let dir = self.layout.dir();
        durable::create_dir(dir).map_err(|e| StoreError::io("create", dir, e))?;
        self.check_filesystem()?;
        self.identity.check_usable_here()?;
        self.keys.load_or_generate(within)
    }

    /// The key and the locks for sealing a credential with `refresh_token`, or one that is not known yet.
    ///
    /// The lock of the profile and that of the token may be held for long, and then the lock of the store is let go, so that
    /// no other profile's login waits for them. `on_wait` is told of each such wait.
    pub fn lock_to_seal(
        &self,
        name: &ProfileName,
        refresh_token: Option<&RefreshToken>,
        wait: LockWait<'_>,
        on_wait: &dyn Fn(&LockHolder),
    ) -> Result<SealLocks, StoreError> {
        let path = self.create_lock_file(name)?;
        for _ in 0..LOCK_ROUNDS {
            let (key, store) = self.prepare_to_seal(name.as_str())?;
            let fingerprint = refresh_token.map(|token| key.fingerprint(token));
            let Some(profile) = LockFile::try_acquire(&path).map_err(|e| StoreError::io("lock", &path, e))? else {
                drop(store);
                on_wait(&LockHolder::of(&path));
                drop(StoreError::lock(&path, wait)?);
                continue;
            };
            let Some(fingerprint) = fingerprint else {
                return Ok(SealLocks { key, store, profile, token: None });
            };
            if let Some(token) = self.try_lock_token(&fingerprint)? {
                return Ok(SealLocks { key, store, profile, token: Some(token) });
            }
            drop((store, profile));
            on_wait(&LockHolder::of(&self.layout.token_lock(&fingerprint)));
            drop(self.lock_token(&fingerprint, wait)?);
        }
        let holder = LockHolder::of(&path);
        Err(StoreError::Locked { path, holder })
    }

    /// Undoes what [`Store::prepare_to_seal`] made for a credential that was refused, under the lock that it gave.
    pub fn discard_preparation(&self, _store_lock: LockFile) {
        self.keys.discard_unused_new();
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
        LockFile::is_held(&self.layout.profile_folder(name).lock())
    }

    /// Who has this profile's lock at this moment.
    pub fn lock_holder(&self, name: &ProfileName) -> Option<LockHolder> {
        let lock = self.layout.profile_folder(name).lock();
        LockFile::is_held(&lock).then(|| LockHolder::of(&lock))
    }

    /// Who has had this profile's lock for suspiciously long at `now`, and for how long.
    pub fn long_lock(&self, name: &ProfileName, now: Timestamp) -> Option<(LockHolder, Duration)> {
        LockFile::long_held(&self.layout.profile_folder(name).lock(), now.since_epoch())
    }

    /// The locks that belong to no profile and are held for suspiciously long at `now`.
    pub fn long_shared_locks(&self, now: Timestamp) -> Vec<(PathBuf, LockHolder, Duration)> {
        let tokens = std::fs::read_dir(self.layout.token_locks()).into_iter().flatten().flatten().map(|e| e.path());
        let shared = [self.layout.store_lock(), self.layout.ledger_lock()].into_iter().chain(tokens);
        let held =
            |path: PathBuf| LockFile::long_held(&path, now.since_epoch()).map(|(holder, age)| (path, holder, age));
        shared.filter_map(held).collect()
    }

    /// Changes when any process writes this profile's journal.
    pub fn journal_stamp(&self, name: &ProfileName) -> FileStamp {
        file_watch::file_stamp(&self.layout.profile_folder(name).journal())
    }
}
