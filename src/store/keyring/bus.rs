//! The connection to the Secret Service: calls that the library would prompt for, and what an error means.

use std::collections::HashMap;
use std::time::Duration;

use secret_service::blocking::SecretService;
use secret_service::{EncryptionType, Error};
use zbus::blocking::connection::Builder;
use zbus::blocking::{Connection, Proxy};
use zbus::zvariant::{DynamicType, OwnedObjectPath, OwnedValue};

use super::{KeyringError, KeyringProgram};

/// Bound on each D-Bus call. Below `KEYRING_TIMEOUT`, so that a stopped service is noticed by the call itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

const SECRETS: &str = "org.freedesktop.secrets";
const SERVICE_PATH: &str = "/org/freedesktop/secrets";
const SERVICE: &str = "org.freedesktop.Secret.Service";
const COLLECTION: &str = "org.freedesktop.Secret.Collection";
const BUS: &str = "org.freedesktop.DBus";

/// KWallet's own names and paths on the bus.
const KWALLETS: &[(&str, &str)] =
    &[("org.kde.kwalletd5", "/modules/kwalletd5"), ("org.kde.kwalletd6", "/modules/kwalletd6")];

/// A connection with a session of the Secret Service.
pub(super) struct SecretServiceLink {
    connection: Connection,
    pub service: SecretService<'static>,
}

impl SecretServiceLink {
    pub(super) fn connect(address: &str) -> Result<Self, KeyringError> {
        let connection = Builder::address(address)
            .and_then(|builder| builder.method_timeout(CALL_TIMEOUT).build())
            .map_err(|e| if is_timeout(&e) { KeyringError::TimedOut } else { KeyringError::NoBus })?;
        match SecretService::connect_with_existing(EncryptionType::Dh, connection.clone()) {
            Ok(service) => Ok(Self { connection, service }),
            Err(e) => Err(explain(&connection, e)),
        }
    }

    /// Asks the service to unlock these objects, and returns those that it unlocked at once. A prompt that it offers is
    /// dismissed and never shown: a run must not wait for a person, who may not be there. The prompt of KWallet for a
    /// wallet that is open shows nothing, and is the only way to it.
    pub(super) fn unlock_without_prompt(&self, objects: &[OwnedObjectPath]) -> Result<Vec<OwnedObjectPath>, Error> {
        let reply = self.connection.call_method(Some(SECRETS), SERVICE_PATH, Some(SERVICE), "Unlock", &(objects,))?;
        let (unlocked, prompt): (Vec<OwnedObjectPath>, OwnedObjectPath) = reply.body().deserialize()?;
        if prompt.as_str() == "/" {
            return Ok(unlocked);
        }
        let prompt = Proxy::new(&self.connection, SECRETS, prompt, "org.freedesktop.Secret.Prompt")?;
        if !objects.is_empty() && objects.iter().all(|collection| self.is_open_wallet(collection)) {
            let mut completed = prompt.receive_signal("Completed")?;
            prompt.call_method("Prompt", &("",))?;
            let was_dismissed = completed.next().is_none_or(|signal| {
                let content: zbus::Result<(bool, OwnedValue)> = signal.body().deserialize();
                content.map_or(true, |(was_dismissed, _)| was_dismissed)
            });
            return Ok(if was_dismissed { unlocked } else { objects.to_vec() });
        }
        // What it responds says nothing more about the lock.
        drop(prompt.call_method("Dismiss", &()));
        Ok(unlocked)
    }

    /// The collections that are open, and those that call themselves locked.
    pub(super) fn collections(&self) -> Result<(Vec<OwnedObjectPath>, Vec<OwnedObjectPath>), Error> {
        let all: Vec<OwnedObjectPath> = self.property(SERVICE_PATH, SERVICE, "Collections")?;
        let (mut open, mut locked) = (Vec::new(), Vec::new());
        for path in all {
            match self.property(path.as_str(), COLLECTION, "Locked")? {
                true => locked.push(path),
                false => open.push(path),
            }
        }
        Ok((open, locked))
    }

    /// The items of a collection with these attributes.
    pub(super) fn search_in(
        &self,
        collection: &OwnedObjectPath,
        attributes: &HashMap<&str, &str>,
    ) -> Result<Vec<OwnedObjectPath>, Error> {
        let reply =
            self.connection.call_method(Some(SECRETS), collection, Some(COLLECTION), "SearchItems", &(attributes,))?;
        Ok(reply.body().deserialize()?)
    }

    /// Whether the service says that one of the collections that are locked has such an item. KeePassXC is not asked: it
    /// would show a prompt.
    pub(super) fn is_in_locked(
        &self,
        locked: &[OwnedObjectPath],
        attributes: &HashMap<&str, &str>,
    ) -> Result<bool, Error> {
        if locked.is_empty() || self.program() == Some(KeyringProgram::KeePassXc) {
            return Ok(false);
        }
        Ok(!self.service.search_items(attributes.clone())?.locked.is_empty())
    }

    fn property<T>(&self, path: &str, interface: &str, name: &str) -> Result<T, Error>
    where
        T: TryFrom<OwnedValue>,
        T::Error: Into<zbus::zvariant::Error>,
    {
        let properties = Some("org.freedesktop.DBus.Properties");
        let reply = self.connection.call_method(Some(SECRETS), path, properties, "Get", &(interface, name))?;
        let value: OwnedValue = reply.body().deserialize()?;
        T::try_from(value).map_err(|e| Error::Zvariant(e.into()))
    }

    /// Whether the service is KWallet, which calls every wallet locked until a client has passed its prompt, and says over
    /// its own interface that this one is open.
    fn is_open_wallet(&self, collection: &OwnedObjectPath) -> bool {
        let Owner::Named(owner) = name_owner(&self.connection, SECRETS) else { return false };
        KWALLETS.iter().any(|(name, path)| {
            let is_it = matches!(name_owner(&self.connection, name), Owner::Named(wallet) if wallet == owner);
            is_it && self.wallet_is_open(name, path, collection).unwrap_or(false)
        })
    }

    fn wallet_is_open(&self, name: &str, path: &str, collection: &OwnedObjectPath) -> Result<bool, Error> {
        let label: String = self.property(collection.as_str(), COLLECTION, "Label")?;
        let reply = self.connection.call_method(Some(name), path, Some("org.kde.KWallet"), "isOpen", &(label,))?;
        Ok(reply.body().deserialize()?)
    }

    /// The program that offers the service, if it is known.
    pub(super) fn program(&self) -> Option<KeyringProgram> {
        match name_owner(&self.connection, SECRETS) {
            Owner::Named(owner) => program_of(&self.connection, &owner),
            Owner::Nobody | Owner::BusGone | Owner::Unknown => None,
        }
    }

    /// What an error of this connection means.
    pub(super) fn explain(&self, error: Error) -> KeyringError {
        explain(&self.connection, error)
    }
}

/// What an error means, with a look at who has the name on the bus: a service that died is not one that is slow.
fn explain(connection: &Connection, error: Error) -> KeyringError {
    let known = to_keyring_error(error);
    if matches!(known, KeyringError::NoService) {
        return known;
    }
    match name_owner(connection, SECRETS) {
        Owner::Named(owner) => known.of_program(program_of(connection, &owner)),
        Owner::Nobody => KeyringError::NoService,
        Owner::BusGone => KeyringError::NoBus,
        Owner::Unknown => known,
    }
}

/// Who has a name on the bus.
enum Owner {
    Named(String),
    Nobody,
    BusGone,
    Unknown,
}

fn name_owner(connection: &Connection, name: &str) -> Owner {
    match call_bus(connection, "GetNameOwner", &(name,)) {
        Ok(owner) => Owner::Named(owner),
        Err(zbus::Error::MethodError(name, ..)) if name.ends_with("NameHasNoOwner") => Owner::Nobody,
        Err(e @ zbus::Error::InputOutput(_)) if !is_timeout(&e) => Owner::BusGone,
        Err(_) => Owner::Unknown,
    }
}

fn call_bus<B>(connection: &Connection, method: &str, body: &B) -> zbus::Result<String>
where
    B: serde::Serialize + DynamicType,
{
    connection.call_method(Some(BUS), "/org/freedesktop/DBus", Some(BUS), method, body)?.body().deserialize()
}

/// The program behind a connection, by another name that the connection has.
fn program_of(connection: &Connection, owner: &str) -> Option<KeyringProgram> {
    let is_owned = |name: &str| matches!(name_owner(connection, name), Owner::Named(found) if found == owner);
    KeyringProgram::BUS_NAMES.iter().find(|(name, _)| is_owned(name)).map(|(_, program)| *program)
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
pub(super) fn is_stale_connection(error: &Error) -> bool {
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
        _ if is_named(&["ServiceUnknown", "NameHasNoOwner"]) => KeyringError::NoService,
        // The bus has a file that names a service, which does not start.
        _ if named.contains(".Spawn.") => KeyringError::NoService,
        _ if is_named(&["IsLocked"]) => KeyringError::Locked,
        _ if is_named(&["AccessDenied"]) => KeyringError::Denied,
        _ if is_named(&["NoReply", "TimedOut", "Timeout"]) => KeyringError::TimedOut,
        _ => KeyringError::Failed(error.to_string()),
    }
}
