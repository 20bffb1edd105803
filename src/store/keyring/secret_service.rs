//! The Secret Service of Linux desktops, spoken to over a connection of our own.
//!
//! `secret-service` is the crate beneath `keyring`'s own Linux store. It is used directly because that store unlocks (and
//! so prompts for) whatever it touches, has no timeouts, and keeps a dead session for ever after the service restarts.

use std::collections::HashMap;
use std::time::Duration;

use secret_service::blocking::{Item as SecretItem, SecretService};
use secret_service::{EncryptionType, Error};
use zbus::blocking::connection::Builder;
use zeroize::Zeroizing;

use super::worker::KeyringBackend;
use super::{FoundItem, KeyringError, KeyringItem};

/// Bound on each D-Bus call. Below `DEADLINE`, so that a stopped service is noticed by the call itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Text, because some providers keep nothing else.
const CONTENT_TYPE: &str = "text/plain";

/// A connection to the Secret Service, made when needed and made anew when it has gone stale.
pub struct SecretServiceBackend {
    bus_address: Option<String>,
    service: Option<SecretService<'static>>,
}

impl SecretServiceBackend {
    /// `bus_address`: the session bus; `None`: there is none.
    pub fn new(bus_address: Option<String>) -> Self {
        Self { bus_address, service: None }
    }

    fn connect(&self) -> Result<SecretService<'static>, KeyringError> {
        let address = self.bus_address.as_deref().ok_or(KeyringError::NoBus)?;
        let connection = Builder::address(address)
            .and_then(|builder| builder.method_timeout(CALL_TIMEOUT).build())
            .map_err(|e| if is_timeout(&e) { KeyringError::TimedOut } else { KeyringError::NoBus })?;
        SecretService::connect_with_existing(EncryptionType::Dh, connection).map_err(to_keyring_error)
    }

    /// Runs `call`, once more over a new connection if the old one turns out to be of a service that has restarted.
    fn with_service<T>(
        &mut self,
        call: impl Fn(&SecretService<'static>) -> Result<T, Error>,
    ) -> Result<T, KeyringError> {
        let had_connection = self.service.is_some();
        let service = match self.service.take() {
            Some(service) => service,
            None => self.connect()?,
        };
        match call(&service) {
            Ok(value) => {
                self.service = Some(service);
                Ok(value)
            }
            Err(e) if had_connection && is_stale_connection(&e) => {
                let service = self.connect()?;
                let result = call(&service).map_err(to_keyring_error);
                self.service = Some(service);
                result
            }
            Err(e) => Err(to_keyring_error(e)),
        }
    }
}

impl KeyringBackend for SecretServiceBackend {
    fn check(&mut self) -> Result<(), KeyringError> {
        self.with_service(ensure_unlocked)
    }

    fn read(&mut self, item: &KeyringItem) -> Result<Option<FoundItem>, KeyringError> {
        let texts = self.with_service(|service| {
            let items = find_items(service, item)?;
            if items.is_empty() {
                // A locked keyring must not pass for one that lacks the item. No keyring at all lacks it.
                return match ensure_unlocked(service) {
                    Err(Error::NoResult) | Ok(()) => Ok(Vec::new()),
                    Err(e) => Err(e),
                };
            }
            items.iter().map(SecretItem::get_secret).collect::<Result<Vec<_>, _>>()
        })?;
        let texts = texts
            .into_iter()
            .map(|bytes| String::from_utf8(bytes).map(Zeroizing::new))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| KeyringError::Failed("the item is not text".into()))?;
        let duplicates = texts.len().saturating_sub(1);
        let value = texts.into_iter().max_by_key(|text| generation_in(text));
        Ok(value.map(|value| FoundItem { value, duplicates }))
    }

    fn list(&mut self, of: &str, alive: &dyn Fn()) -> Result<Vec<(String, Zeroizing<String>)>, KeyringError> {
        let found = self.with_service(|service| {
            let items = search_items(service, HashMap::from([("service", of)]))?;
            let told = |item: &SecretItem<'_>| {
                alive();
                Ok((item.get_attributes()?.remove("username"), item.get_secret()?))
            };
            items.iter().map(told).collect::<Result<Vec<_>, Error>>()
        })?;
        // An item that is not text or has no user is not ours.
        let ours = |(user, secret): (Option<String>, Vec<u8>)| Some((user?, String::from_utf8(secret).ok()?.into()));
        Ok(found.into_iter().filter_map(ours).collect())
    }

    fn write(&mut self, item: &KeyringItem, value: &str) -> Result<(), KeyringError> {
        self.with_service(|service| {
            ensure_unlocked(service)?;
            let items = find_items(service, item)?;
            let mut aged = Vec::new();
            for found in items {
                let secret = Zeroizing::new(found.get_secret()?);
                aged.push((generation_in(&String::from_utf8_lossy(&secret)), found));
            }
            match aged.into_iter().max_by_key(|(generation, _)| *generation) {
                Some((_, newest)) => newest.set_secret(value.as_bytes(), CONTENT_TYPE),
                None => {
                    let label = format!("keepalive: {}", item.user);
                    let collection = service.get_default_collection()?;
                    collection.create_item(&label, attribute_map(item), value.as_bytes(), true, CONTENT_TYPE).map(drop)
                }
            }
        })
    }

    fn delete(&mut self, item: &KeyringItem, holding: &str) -> Result<(), KeyringError> {
        self.with_service(|service| {
            ensure_unlocked(service)?;
            for found in find_items(service, item)? {
                let secret = Zeroizing::new(found.get_secret()?);
                if String::from_utf8_lossy(&secret).contains(holding) {
                    found.delete()?;
                }
            }
            Ok(())
        })
    }

    fn disconnect(&mut self) {
        self.service = None;
    }

    fn renew(&self) -> Self {
        Self::new(self.bus_address.clone())
    }
}

/// Whether the default collection exists and is unlocked. Asking never prompts; everything that could prompt comes after.
fn ensure_unlocked(service: &SecretService<'static>) -> Result<(), Error> {
    match service.get_default_collection()?.is_locked()? {
        true => Err(Error::Locked),
        false => Ok(()),
    }
}

/// The items with these two attributes; an error if any of them is locked.
fn find_items<'a>(service: &'a SecretService<'static>, item: &KeyringItem) -> Result<Vec<SecretItem<'a>>, Error> {
    search_items(service, attribute_map(item))
}

fn search_items<'a>(
    service: &'a SecretService<'static>,
    attributes: HashMap<&str, &str>,
) -> Result<Vec<SecretItem<'a>>, Error> {
    let found = service.search_items(attributes)?;
    if found.locked.is_empty() { Ok(found.unlocked) } else { Err(Error::Locked) }
}

fn attribute_map(item: &KeyringItem) -> HashMap<&str, &str> {
    HashMap::from([("service", item.service.as_str()), ("username", item.user.as_str())])
}

/// The `generation` member of a value of ours; `None` sorts before all.
fn generation_in(text: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(text).ok()?.get("generation")?.as_u64()
}

fn is_timeout(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::InputOutput(e) if e.kind() == std::io::ErrorKind::TimedOut)
}

/// The name of a D-Bus error, if it is one.
fn dbus_error_name(error: &Error) -> Option<String> {
    match error {
        Error::Zbus(zbus::Error::MethodError(name, ..)) => Some(name.to_string()),
        Error::Zbus(zbus::Error::FDO(e)) => Some(zbus::DBusError::name(e.as_ref()).to_string()),
        Error::ZbusFdo(e) => Some(zbus::DBusError::name(e).to_string()),
        _ => None,
    }
}

/// Whether the service has restarted since the connection was made, or the bus has: a new connection may help.
fn is_stale_connection(error: &Error) -> bool {
    let is_broken =
        matches!(error, Error::Zbus(zbus::Error::InputOutput(e)) if e.kind() != std::io::ErrorKind::TimedOut);
    let named = dbus_error_name(error).unwrap_or_default();
    let words =
        ["NoSession", "UnknownObject", "UnknownMethod", "NoReply", "Disconnected", "NameHasNoOwner", "ServiceUnknown"];
    is_broken || words.iter().any(|word| named.ends_with(word))
}

fn to_keyring_error(error: Error) -> KeyringError {
    let named = dbus_error_name(&error).unwrap_or_default();
    let is_named = |words: &[&str]| words.iter().any(|word| named.ends_with(word));
    match &error {
        Error::Zbus(e) if is_timeout(e) => KeyringError::TimedOut,
        Error::Locked => KeyringError::Locked,
        Error::NoResult => KeyringError::NoCollection,
        Error::Prompt | Error::PromptDisconnected => KeyringError::Denied,
        Error::Unavailable => KeyringError::NoService,
        _ if is_named(&["ServiceUnknown", "NameHasNoOwner", "Spawn.ServiceNotFound"]) => KeyringError::NoService,
        _ if is_named(&["IsLocked"]) => KeyringError::Locked,
        _ if is_named(&["AccessDenied"]) => KeyringError::Denied,
        _ if is_named(&["NoReply", "TimedOut", "Timeout"]) => KeyringError::TimedOut,
        _ => KeyringError::Failed(error.to_string()),
    }
}
