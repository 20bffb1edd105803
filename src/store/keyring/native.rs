//! The keychain of macOS and the Credential Manager of Windows, through the `keyring` crate. Not tested by this project;
//! see the README.

use keyring::Entry;
use zeroize::Zeroizing;

use super::worker::KeyringBackend;
use super::{FoundItem, KeyringError, KeyringItem};

/// Windows keeps 2,560 bytes, written as UTF-16.
#[cfg(windows)]
const MAX_VALUE_LEN: usize = 1280;

/// The platform's own store; the library keeps no connection.
pub struct NativeBackend;

impl KeyringBackend for NativeBackend {
    fn check(&mut self, _: &str) -> Result<(), KeyringError> {
        let probe = KeyringItem { service: "keepalive-probe".into(), user: "probe".into() };
        self.read(&probe).map(drop)
    }

    fn read(&mut self, item: &KeyringItem) -> Result<Option<FoundItem>, KeyringError> {
        match entry(item)?.get_password() {
            Ok(value) => Ok(Some(FoundItem { value: Zeroizing::new(value), duplicates: 0 })),
            Err(keyring_core::Error::NoEntry) => Ok(None),
            Err(e) => Err(to_keyring_error(&e)),
        }
    }

    /// The library cannot list what a service has.
    fn list(&mut self, _: &str, _: &dyn Fn()) -> Result<Vec<(String, Zeroizing<String>)>, KeyringError> {
        Ok(Vec::new())
    }

    fn write(&mut self, item: &KeyringItem, value: &str) -> Result<(), KeyringError> {
        #[cfg(windows)]
        if value.encode_utf16().count() > MAX_VALUE_LEN {
            return Err(KeyringError::Failed(format!(
                "Windows stores at most {MAX_VALUE_LEN} characters; this item is longer"
            )));
        }
        entry(item)?.set_password(value).map_err(|e| to_keyring_error(&e))
    }

    fn delete(&mut self, item: &KeyringItem, holding: &str) -> Result<(), KeyringError> {
        if self.read(item)?.is_some_and(|found| !found.value.contains(holding)) {
            return Ok(());
        }
        match entry(item)?.delete_credential() {
            Ok(()) | Err(keyring_core::Error::NoEntry) => Ok(()),
            Err(e) => Err(to_keyring_error(&e)),
        }
    }

    fn disconnect(&mut self) {}

    fn renew(&self) -> Self {
        Self
    }
}

fn entry(item: &KeyringItem) -> Result<Entry, KeyringError> {
    Entry::new(&item.service, &item.user).map_err(|e| to_keyring_error(&e))
}

fn to_keyring_error(error: &keyring_core::Error) -> KeyringError {
    match error {
        keyring_core::Error::NoStorageAccess(_) => KeyringError::Denied,
        other => KeyringError::Failed(other.to_string()),
    }
}
