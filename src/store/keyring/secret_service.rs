//! The Secret Service of Linux desktops, spoken to over a connection of our own.
//!
//! `secret-service` is the crate beneath `keyring`'s own Linux store. It is used directly because that store unlocks (and
//! so prompts for) whatever it touches, has no timeouts, and keeps a dead session for ever after the service restarts.

use std::collections::HashMap;
use std::time::Duration;

use secret_service::Error;
use secret_service::blocking::{Collection, Item as SecretItem};
use zbus::zvariant::OwnedObjectPath;
use zeroize::Zeroizing;

use super::bus::{SecretServiceLink, is_stale_connection};
use super::worker::KeyringBackend;
use super::{FoundItem, KeyringError, KeyringItem, KeyringProgram, WRITE_DELAY};

/// KWallet writes a wallet 5 s after the last change of it.
const KWALLET_WRITE_DELAY: Duration = Duration::from_secs(6);

/// Text, because some providers keep nothing else.
const CONTENT_TYPE: &str = "text/plain";
/// What the service name of a sealing key's item has beyond that of the published items.
const KEY_SUFFIX: &str = "-key";

/// A connection to the Secret Service, made when needed and made anew when it has gone stale.
pub(super) struct SecretServiceBackend {
    bus_address: Option<String>,
    link: Option<SecretServiceLink>,
}

impl SecretServiceBackend {
    /// `bus_address`: the session bus; `None`: there is none.
    pub(super) fn new(bus_address: Option<String>) -> Self {
        Self { bus_address, link: None }
    }

    /// Runs `call`, once more over a new connection if the old one turns out to be of a service that has restarted.
    fn with_service<T>(&mut self, call: impl Fn(&SecretServiceLink) -> Result<T, Error>) -> Result<T, KeyringError> {
        let address = self.bus_address.as_deref().ok_or(KeyringError::NoBus)?;
        if let Some(link) = self.link.take() {
            match call(&link) {
                Err(e) if is_stale_connection(&e) => {}
                done => return self.keep(link, done),
            }
        }
        let link = SecretServiceLink::connect(address)?;
        let done = call(&link);
        self.keep(link, done)
    }

    /// Keeps a link that worked for the next call.
    fn keep<T>(&mut self, link: SecretServiceLink, done: Result<T, Error>) -> Result<T, KeyringError> {
        match done {
            Ok(value) => {
                self.link = Some(link);
                Ok(value)
            }
            Err(e) => Err(link.explain(e)),
        }
    }
}

impl KeyringBackend for SecretServiceBackend {
    fn check(&mut self, service: &str) -> Result<(), KeyringError> {
        self.with_service(|link| collection_for_new(link, service).map(drop))
    }

    fn read(&mut self, item: &KeyringItem) -> Result<Option<FoundItem>, KeyringError> {
        let texts = self.with_service(|link| {
            let items = find_items(link, item)?;
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
        let found = self.with_service(|link| {
            let items = find(link, of, &HashMap::from([("service", of)]))?;
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
        self.with_service(|link| {
            let mut aged = Vec::new();
            for found in find_items(link, item)? {
                let secret = Zeroizing::new(found.get_secret()?);
                aged.push((generation_in(&String::from_utf8_lossy(&secret)), found));
            }
            match aged.into_iter().max_by_key(|(generation, _)| *generation) {
                Some((_, newest)) => newest.set_secret(value.as_bytes(), CONTENT_TYPE),
                None => {
                    let label = format!("keepalive: {}", item.user);
                    let collection = collection_for_new(link, &item.service)?;
                    collection.create_item(&label, attribute_map(item), value.as_bytes(), true, CONTENT_TYPE).map(drop)
                }
            }
        })
    }

    fn delete(&mut self, item: &KeyringItem, holding: &str) -> Result<(), KeyringError> {
        self.with_service(|link| {
            for found in find_items(link, item)? {
                let secret = Zeroizing::new(found.get_secret()?);
                if String::from_utf8_lossy(&secret).contains(holding) {
                    found.delete()?;
                }
            }
            Ok(())
        })
    }

    fn write_delay(&mut self) -> Duration {
        match self.link.as_ref().and_then(SecretServiceLink::program) {
            Some(KeyringProgram::KWallet) => KWALLET_WRITE_DELAY,
            _ => WRITE_DELAY,
        }
    }

    fn disconnect(&mut self) {
        self.link = None;
    }

    fn renew(&self) -> Self {
        Self::new(self.bus_address.clone())
    }
}

/// The items with these attributes, wherever they are, of a store whose items have this service name. None is found only
/// where that is certain: a locked collection may not tell what it has.
fn find<'a>(
    link: &'a SecretServiceLink,
    service: &str,
    attributes: &HashMap<&str, &str>,
) -> Result<Vec<SecretItem<'a>>, Error> {
    // An open wallet that calls itself locked is open from here on.
    let default = open_default(link);
    let (mut open, locked) = link.collections()?;
    let mut found = search(link, &open, attributes)?;
    if found.is_empty() && !locked.is_empty() {
        open = link.unlock_without_prompt(&locked)?;
        found = search(link, &open, attributes)?;
    }
    if !found.is_empty() {
        // A locked collection may have a copy; the one that is open is what can be used now.
        return Ok(found);
    }
    match default {
        Ok(_) | Err(Error::NoResult) if link.is_in_locked(&locked, attributes)? => Err(Error::Locked),
        // No default collection at all lacks the item.
        Ok(_) | Err(Error::NoResult) => Ok(found),
        Err(Error::Locked) if home_collection(link, service)?.is_some() => Ok(found),
        Err(e) => Err(e),
    }
}

fn find_items<'a>(link: &'a SecretServiceLink, item: &KeyringItem) -> Result<Vec<SecretItem<'a>>, Error> {
    find(link, &item.service, &attribute_map(item))
}

/// The items with these attributes in some collections. Not asked of the service as a whole: KeePassXC shows a prompt for
/// every database that is locked.
fn search<'a>(
    link: &'a SecretServiceLink,
    collections: &[OwnedObjectPath],
    attributes: &HashMap<&str, &str>,
) -> Result<Vec<SecretItem<'a>>, Error> {
    let mut found = Vec::new();
    for collection in collections {
        for path in link.search_in(collection, attributes)? {
            found.push(link.service.get_item_by_path(path)?);
        }
    }
    Ok(found)
}

/// The default collection, unlocked. Nothing here prompts; everything that could prompt comes after.
fn open_default(link: &SecretServiceLink) -> Result<Collection<'_>, Error> {
    let collection = link.service.get_default_collection()?;
    let path = collection.collection_path.clone();
    if collection.is_locked()? && !link.unlock_without_prompt(std::slice::from_ref(&path))?.contains(&path) {
        return Err(Error::Locked);
    }
    Ok(collection)
}

/// Where a new item of `service` goes: the default collection, or if that is locked or gone, the one with our other items.
fn collection_for_new<'a>(link: &'a SecretServiceLink, service: &str) -> Result<Collection<'a>, Error> {
    match open_default(link) {
        Err(unusable @ (Error::Locked | Error::NoResult)) => home_collection(link, service)?.ok_or(unusable),
        opened => opened,
    }
}

/// An unlocked collection with items of ours: the sealing key or published ones.
fn home_collection<'a>(link: &'a SecretServiceLink, service: &str) -> Result<Option<Collection<'a>>, Error> {
    let service = service.strip_suffix(KEY_SUFFIX).unwrap_or(service);
    let (open, _) = link.collections()?;
    for name in [format!("{service}{KEY_SUFFIX}"), service.to_owned()] {
        for collection in &open {
            if !link.search_in(collection, &HashMap::from([("service", name.as_str())]))?.is_empty() {
                return link.service.get_collection_by_path(collection.clone()).map(Some);
            }
        }
    }
    Ok(None)
}

fn attribute_map(item: &KeyringItem) -> HashMap<&str, &str> {
    HashMap::from([("service", item.service.as_str()), ("username", item.user.as_str())])
}

/// The `generation` member of a value of ours; `None` sorts before all.
fn generation_in(text: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(text).ok()?.get("generation")?.as_u64()
}
