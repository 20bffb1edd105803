//! The OS keyring behind a small trait: one item at a time, no prompt, and a time limit for every call.

#[cfg(target_os = "linux")]
mod bus;
mod error;
pub mod item;
#[cfg(target_os = "linux")]
mod kwallet;
pub mod memory;
#[cfg(not(target_os = "linux"))]
mod native;
#[cfg(target_os = "linux")]
mod secret_service;
mod worker;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

pub use error::{KeyringError, KeyringProgram};
use worker::KeyringWorker;

use crate::sys::paths::SessionBus;

/// No keyring operation takes longer; a provider that needs more counts as hanging.
pub const KEYRING_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest that most keyrings take to bring a write to their disk: one lost it when it was killed within 200 ms.
pub const WRITE_DELAY: Duration = Duration::from_secs(1);

/// One item, found by the attributes `service` and `username`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyringItem {
    pub service: String,
    pub user: String,
}

/// The value found for an item.
pub struct FoundItem {
    /// The text that was stored.
    pub value: Zeroizing<String>,
    /// How many further items carry the same two attributes. Any program may add one; the value is then that of the
    /// item with the highest `generation` member, and a write goes to that same item. Worth a warning, never a deletion.
    pub duplicates: usize,
}

/// Which keyring did not have an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskedKeyring {
    /// The program, if it is known.
    pub program: Option<KeyringProgram>,
    /// It has a locked collection, and does not tell what is in it.
    pub may_hide_items: bool,
}

/// A keyring of the operating system.
///
/// Calls block for at most [`KEYRING_TIMEOUT`], never prompt, and may come from any thread. An error never means "not written":
/// some keyrings apply a write whose caller saw it fail, so the caller reads again before it decides. After an error or a
/// restart of the keyring's service the next call opens a new connection by itself.
pub trait Keyring: Send + Sync {
    /// Whether a write of an item of `service` could succeed now: reachable, and an unlocked place for it.
    fn check(&self, service: &str) -> Result<(), KeyringError>;
    /// The item's value; `None` if there is no such item. A locked keyring is an error even if it would have none.
    fn read(&self, item: &KeyringItem) -> Result<Option<FoundItem>, KeyringError>;
    /// The values of all items of a service, each with its user. Empty where the platform cannot list them.
    fn list(&self, service: &str) -> Result<Vec<(String, Zeroizing<String>)>, KeyringError>;
    /// Creates or replaces. What is durable on return depends on the keyring; see `ARCHITECTURE.md`.
    fn write(&self, item: &KeyringItem, value: &str) -> Result<(), KeyringError>;
    /// Removes the item if its value holds the text `holding`, and every other with the same two attributes that does: the
    /// twins that other programs made of it are theirs. No error if there is none. Nothing is read if `holding` is empty.
    fn delete(&self, item: &KeyringItem, holding: &str) -> Result<(), KeyringError>;
    /// Which keyring this is, for the error that an item is missing.
    fn asked(&self) -> Result<AskedKeyring, KeyringError> {
        Ok(AskedKeyring::default())
    }
    /// Closes the connection, so that the next read comes from a new one.
    fn reconnect(&self);
    /// How long a write that was acknowledged may still be in the keyring's memory alone.
    fn write_delay(&self) -> Duration {
        WRITE_DELAY
    }
}

/// A keyring, and the name under which a store keeps its items there.
#[derive(Clone)]
pub struct KeyringService {
    keyring: Arc<dyn Keyring>,
    service: String,
}

impl KeyringService {
    pub fn new(keyring: Box<dyn Keyring>, service: String) -> Self {
        Self { keyring: keyring.into(), service }
    }

    pub fn service(&self) -> &str {
        &self.service
    }

    /// Whether a write could succeed now.
    pub fn check(&self) -> Result<(), KeyringError> {
        self.keyring.check(&self.service)
    }
}

impl Deref for KeyringService {
    type Target = dyn Keyring;

    fn deref(&self) -> &Self::Target {
        self.keyring.as_ref()
    }
}

/// The keyring of this platform. `bus`: the session bus, where there is such a thing; asked only when needed.
pub fn open(bus: Option<SessionBus>) -> Box<dyn Keyring> {
    #[cfg(target_os = "linux")]
    return Box::new(KeyringWorker::new(secret_service::SecretServiceBackend::new(bus)));
    #[cfg(not(target_os = "linux"))]
    {
        let _unused = bus;
        Box::new(KeyringWorker::new(native::NativeBackend))
    }
}
