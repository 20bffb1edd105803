//! The Secret Service of Linux desktops, spoken to over a connection of our own.
//!
//! `secret-service` is the crate beneath `keyring`'s own Linux store. It is used directly because that store unlocks (and
//! so prompts for) whatever it touches, has no timeouts, and keeps a dead session for ever after the service restarts.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use secret_service::Error;
use secret_service::blocking::{Collection, Item as SecretItem};
use zbus::zvariant::OwnedObjectPath;
use zeroize::Zeroizing;

use super::bus::{CallError, SecretServiceLink, is_stale_connection, is_unknown_object};
use super::kwallet::{RefusedWallets, WalletRefusal};
use super::worker::KeyringBackend;
use super::{AskedKeyring, FoundItem, KeyringError, KeyringItem, KeyringProgram, WRITE_DELAY};
use crate::sys::paths::SessionBus;

/// KWallet writes a wallet 5 s after the last change of it.
const KWALLET_WRITE_DELAY: Duration = Duration::from_secs(6);

/// Text, because some providers keep nothing else.
const CONTENT_TYPE: &str = "text/plain";
/// What the service name of a sealing key's item has beyond that of the published items.
const KEY_SUFFIX: &str = "-key";

/// A connection to the Secret Service, made when needed and made anew when it has gone stale.
pub(super) struct SecretServiceBackend {
    /// `None`: there is none.
    bus: Option<SessionBus>,
    refused: RefusedWallets,
    link: Option<SecretServiceLink>,
}

/// A connection, with what is known of KWallet's wish to ask a person.
struct Session<'a> {
    link: &'a SecretServiceLink,
    kwallet_settings: &'a [PathBuf],
    refused: &'a RefusedWallets,
}

/// Which of some collections can be used.
#[derive(Default)]
struct OpenedWallets {
    usable: Vec<OwnedObjectPath>,
    unusable: Vec<OwnedObjectPath>,
    /// Why one that is open cannot.
    refusal: Option<WalletRefusal>,
}

impl SecretServiceBackend {
    pub(super) fn new(bus: Option<SessionBus>) -> Self {
        Self { bus, refused: RefusedWallets::default(), link: None }
    }

    /// Runs `call`, once more over a new connection if the old one turns out to be of a service that has restarted.
    fn with_service<T>(&mut self, call: impl Fn(&Session<'_>) -> Result<T, CallError>) -> Result<T, KeyringError> {
        let bus = self.bus.as_ref().ok_or(KeyringError::NoBus)?;
        let refused = self.refused.clone();
        let call = |link: &_| call(&Session { link, kwallet_settings: &bus.kwallet_settings, refused: &refused });
        if let Some(link) = self.link.take() {
            match call(&link) {
                Err(e) if is_stale_connection(&e) => {}
                done => return keep(&mut self.link, link, done),
            }
        }
        let link = SecretServiceLink::connect(&bus.address)?;
        let done = call(&link);
        keep(&mut self.link, link, done)
    }
}

/// Keeps a link that worked for the next call.
fn keep<T>(
    place: &mut Option<SecretServiceLink>,
    link: SecretServiceLink,
    done: Result<T, CallError>,
) -> Result<T, KeyringError> {
    match done {
        Ok(value) => {
            *place = Some(link);
            Ok(value)
        }
        Err(e) => {
            let error = link.explain(e);
            link.close();
            Err(error)
        }
    }
}

impl KeyringBackend for SecretServiceBackend {
    fn check(&mut self, service: &str) -> Result<(), KeyringError> {
        self.with_service(|session| collection_for_new(session, service).map(drop))
    }

    fn read(&mut self, item: &KeyringItem) -> Result<Option<FoundItem>, KeyringError> {
        let texts = self.with_service(|session| {
            let items = find_items(session, item)?;
            Ok(items.iter().map(SecretItem::get_secret).collect::<Result<Vec<_>, _>>()?)
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
        let found = self.with_service(|session| {
            let items = find(session, of, &HashMap::from([("service", of)]))?;
            let told = |item: &SecretItem<'_>| {
                alive();
                Ok((item.get_attributes()?.remove("username"), item.get_secret()?))
            };
            Ok(items.iter().map(told).collect::<Result<Vec<_>, Error>>()?)
        })?;
        // An item that is not text or has no user is not ours.
        let ours = |(user, secret): (Option<String>, Vec<u8>)| Some((user?, String::from_utf8(secret).ok()?.into()));
        Ok(found.into_iter().filter_map(ours).collect())
    }

    fn write(&mut self, item: &KeyringItem, value: &str) -> Result<(), KeyringError> {
        self.with_service(|session| {
            let mut aged = Vec::new();
            for found in find_items(session, item)? {
                let secret = Zeroizing::new(found.get_secret()?);
                aged.push((generation_in(&String::from_utf8_lossy(&secret)), found));
            }
            match aged.into_iter().max_by_key(|(generation, _)| *generation) {
                Some((_, newest)) => newest.set_secret(value.as_bytes(), CONTENT_TYPE)?,
                None => {
                    let label = format!("keepalive: {}", item.user);
                    let collection = collection_for_new(session, &item.service)?;
                    collection.create_item(&label, attribute_map(item), value.as_bytes(), true, CONTENT_TYPE)?;
                }
            }
            Ok(())
        })
    }

    fn delete(&mut self, item: &KeyringItem, holding: &str) -> Result<(), KeyringError> {
        self.with_service(|session| {
            for found in find_items(session, item)? {
                // One that may not be read can be deleted all the same.
                if holding.is_empty() || holds(&found, holding)? {
                    session.link.delete(&found.item_path)?;
                }
            }
            Ok(())
        })
    }

    fn asked(&mut self) -> Result<AskedKeyring, KeyringError> {
        self.with_service(|session| {
            let program = session.link.program();
            // The others tell what a locked collection has.
            let may_hide_items =
                program == Some(KeyringProgram::KeePassXc) && !session.link.collections()?.1.is_empty();
            Ok(AskedKeyring { program, may_hide_items })
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
        Self { bus: self.bus.clone(), refused: self.refused.clone(), link: None }
    }
}

impl<'a> Session<'a> {
    /// Opens those of some locked collections that only call themselves so.
    fn open_wallets(&self, locked: Vec<OwnedObjectPath>) -> Result<OpenedWallets, CallError> {
        let mut opened = OpenedWallets::default();
        for path in locked {
            match self.link.open_wallet(&path, self.kwallet_settings, self.refused) {
                Ok(true) => opened.usable.push(path),
                Ok(false) => opened.unusable.push(path),
                Err(CallError::Refused(refusal)) => {
                    opened.unusable.push(path);
                    opened.refusal = opened.refusal.or(Some(refusal));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(opened)
    }

    /// The items with these attributes in some collections. Not asked of the service as a whole: KeePassXC shows a prompt
    /// for every database that is locked.
    fn search(
        &self,
        collections: &[OwnedObjectPath],
        attributes: &HashMap<&str, &str>,
    ) -> Result<Vec<SecretItem<'a>>, CallError> {
        let mut found = Vec::new();
        for collection in collections {
            for path in self.link.search_in(collection, attributes)? {
                found.push(self.link.service.get_item_by_path(path)?);
            }
        }
        Ok(found)
    }

    /// The default collection, if it can be used. Nothing here prompts; everything that could prompt comes after.
    fn open_default(&self) -> Result<Collection<'a>, CallError> {
        let collection = self.link.service.get_default_collection()?;
        let path = &collection.collection_path;
        let is_locked = match self.link.is_locked(path) {
            // gnome-keyring keeps the name of a default collection that is gone.
            Err(e) if is_unknown_object(&e) => return Err(Error::NoResult.into()),
            is_locked => is_locked?,
        };
        if is_locked && !self.link.open_wallet(path, self.kwallet_settings, self.refused)? {
            return Err(Error::Locked.into());
        }
        Ok(collection)
    }

    /// A collection that can be used and has items of ours: the sealing key or published ones.
    fn home_collection(&self, service: &str) -> Result<Option<Collection<'a>>, CallError> {
        let service = service.strip_suffix(KEY_SUFFIX).unwrap_or(service);
        let (open, locked) = self.link.collections()?;
        match self.home_among(&open, service)? {
            Some(home) => Ok(Some(home)),
            None => self.home_among(&self.open_wallets(locked)?.usable, service),
        }
    }

    fn home_among(&self, open: &[OwnedObjectPath], service: &str) -> Result<Option<Collection<'a>>, CallError> {
        for name in [format!("{service}{KEY_SUFFIX}"), service.to_owned()] {
            for collection in open {
                if !self.link.search_in(collection, &HashMap::from([("service", name.as_str())]))?.is_empty() {
                    return Ok(Some(self.link.service.get_collection_by_path(collection.clone())?));
                }
            }
        }
        Ok(None)
    }
}

/// The items with these attributes, wherever they are, of a store whose items have this service name. None is found only
/// where that is certain: a locked collection may not tell what it has.
fn find<'a>(
    session: &Session<'a>,
    service: &str,
    attributes: &HashMap<&str, &str>,
) -> Result<Vec<SecretItem<'a>>, CallError> {
    let (open, locked) = session.link.collections()?;
    // A locked collection may have a copy; the one that is open is what can be used now.
    let found = session.search(&open, attributes)?;
    if !found.is_empty() {
        return Ok(found);
    }
    let opened = session.open_wallets(locked)?;
    let found = session.search(&opened.usable, attributes)?;
    if !found.is_empty() {
        return Ok(found);
    }
    match session.open_default() {
        Ok(_) | Err(CallError::Service(Error::NoResult))
            if session.link.is_in_locked(&opened.unusable, attributes)? =>
        {
            Err(opened.refusal.map_or_else(|| Error::Locked.into(), CallError::from))
        }
        // No default collection at all lacks the item.
        Ok(_) | Err(CallError::Service(Error::NoResult)) => Ok(found),
        Err(CallError::Service(Error::Locked) | CallError::Refused(_))
            if session.home_collection(service)?.is_some() =>
        {
            Ok(found)
        }
        Err(e) => Err(e),
    }
}

fn find_items<'a>(session: &Session<'a>, item: &KeyringItem) -> Result<Vec<SecretItem<'a>>, CallError> {
    find(session, &item.service, &attribute_map(item))
}

fn holds(item: &SecretItem<'_>, text: &str) -> Result<bool, Error> {
    let secret = Zeroizing::new(item.get_secret()?);
    Ok(String::from_utf8_lossy(&secret).contains(text))
}

/// Where a new item of `service` goes: the default collection, or if that is locked or gone, the one with our other items.
/// Not where it could not be read back.
fn collection_for_new<'a>(session: &Session<'a>, service: &str) -> Result<Collection<'a>, CallError> {
    let collection = match session.open_default() {
        Err(unusable @ (CallError::Service(Error::Locked | Error::NoResult) | CallError::Refused(_))) => {
            session.home_collection(service)?.ok_or(unusable)
        }
        opened => opened,
    }?;
    match session.link.asks_for_each_item(&collection.collection_path)? {
        true => Err(Error::Locked.into()),
        false => Ok(collection),
    }
}

fn attribute_map(item: &KeyringItem) -> HashMap<&str, &str> {
    HashMap::from([("service", item.service.as_str()), ("username", item.user.as_str())])
}

/// The `generation` member of a value of ours; `None` sorts before all.
fn generation_in(text: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(text).ok()?.get("generation")?.as_u64()
}
