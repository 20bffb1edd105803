//! The keychain of macOS and the Credential Manager of Windows, through the `keyring` crate. Not tested by this project;
//! see the README.

use keyring::Entry;
use zeroize::Zeroizing;

use super::worker::Backend;
use super::{Found, Item, KeyringError};

/// Windows keeps 2,560 bytes, written as UTF-16.
#[cfg(windows)]
const MAX_VALUE_LEN: usize = 1280;

/// The platform's own store; the library keeps no connection.
pub struct NativeBackend;

impl Backend for Native {
    fn check(&mut self) -> Result<(), KeyringError> {
        let probe = Item { service: "keepalive-probe".into(), user: "probe".into() };
        self.read(&probe).map(drop)
    }

    fn read(&mut self, item: &Item) -> Result<Option<Found>, KeyringError> {
        match entry(item)?.get_password() {
            Ok(value) => Ok(Some(Found { value: Zeroizing::new(value), duplicates: 0 })),
            Err(keyring_core::Error::NoEntry) => Ok(None),
            Err(e) => Err(fault(&e)),
        }
    }

    /// The library cannot list what a service has.
    fn list(&mut self, _: &str, _: &dyn Fn()) -> Result<Vec<(String, Zeroizing<String>)>, KeyringError> {
        Ok(Vec::new())
    }

    fn write(&mut self, item: &Item, value: &str) -> Result<(), KeyringError> {
        #[cfg(windows)]
        if value.encode_utf16().count() > LONGEST {
            return Err(KeyringError::Failed(format!(
                "Windows stores at most {LONGEST} characters; this item is longer"
            )));
        }
        entry(item)?.set_password(value).map_err(|e| fault(&e))
    }

    fn delete(&mut self, item: &Item, holding: &str) -> Result<(), KeyringError> {
        if self.read(item)?.is_some_and(|found| !found.value.contains(holding)) {
            return Ok(());
        }
        match entry(item)?.delete_credential() {
            Ok(()) | Err(keyring_core::Error::NoEntry) => Ok(()),
            Err(e) => Err(fault(&e)),
        }
    }

    fn disconnect(&mut self) {}

    fn renew(&self) -> Self {
        Self
    }
}

fn entry(item: &Item) -> Result<Entry, KeyringError> {
    Entry::new(&item.service, &item.user).map_err(|e| fault(&e))
}

fn to_keyring_error(error: &keyring_core::Error) -> KeyringError {
    match error {
        keyring_core::Error::NoStorageAccess(_) => KeyringError::Denied,
        other => KeyringError::Failed(other.to_string()),
    }
}
