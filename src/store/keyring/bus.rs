//! The connection to the Secret Service: calls that the library would prompt for, and what an error means.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use secret_service::blocking::SecretService;
use secret_service::{EncryptionType, Error};
use zbus::blocking::connection::Builder;
use zbus::blocking::{Connection, Proxy};
use zbus::zvariant::{DynamicType, OwnedObjectPath, OwnedValue};

use super::kwallet::{self, RefusedWallets, WalletRefusal};
use super::{KeyringError, KeyringProgram};

/// Bound on each D-Bus call. Below `KEYRING_TIMEOUT`, so that a stopped service is noticed by the call itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

const SECRETS: &str = "org.freedesktop.secrets";
const SERVICE_PATH: &str = "/org/freedesktop/secrets";
const SERVICE: &str = "org.freedesktop.Secret.Service";
const COLLECTION: &str = "org.freedesktop.Secret.Collection";
const ITEM: &str = "org.freedesktop.Secret.Item";
const BUS: &str = "org.freedesktop.DBus";

/// How many items of a collection are asked whether they are locked.
const ITEMS_TO_ASK: usize = 8;

/// Why a call failed.
#[derive(Debug)]
pub(super) enum CallError {
    Service(Error),
    /// A wallet is open, and KWallet does not give us access to it.
    Refused(WalletRefusal),
}

impl<E: Into<Error>> From<E> for CallError {
    fn from(error: E) -> Self {
        Self::Service(error.into())
    }
}

impl From<WalletRefusal> for CallError {
    fn from(refusal: WalletRefusal) -> Self {
        Self::Refused(refusal)
    }
}

/// How a prompt ended.
enum PromptEnd {
    Completed,
    Dismissed,
    /// It has not, and may be on the screen.
    Unanswered,
}

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

    /// Whether a collection that calls itself locked can be used all the same, judged by what it says in the end. Only
    /// KWallet is asked, and only for a wallet that it says is open: its prompt is the only way to that, and shows
    /// nothing unless KWallet is set to ask a person. Another program is right about its locks, and shows a prompt to
    /// unlock; to dismiss one ends a gnome-keyring that has another on the screen.
    pub(super) fn open_wallet(
        &self,
        wallet: &OwnedObjectPath,
        settings: &[PathBuf],
        refused: &RefusedWallets,
    ) -> Result<bool, CallError> {
        let Some((owner, label)) = self.open_wallet_name(wallet)? else { return Ok(false) };
        refused.check(&owner, wallet)?;
        if kwallet::asks_a_person(settings, &label) {
            return Err(WalletRefusal::Asks.into());
        }
        let one = std::slice::from_ref(wallet);
        let reply = self.connection.call_method(Some(SECRETS), SERVICE_PATH, Some(SERVICE), "Unlock", &(one,))?;
        let (_, prompt): (Vec<OwnedObjectPath>, OwnedObjectPath) = reply.body().deserialize()?;
        let refusal = match self.run_prompt(prompt)? {
            PromptEnd::Completed => return Ok(!self.is_locked(wallet)?),
            PromptEnd::Dismissed => WalletRefusal::Denied,
            PromptEnd::Unanswered => WalletRefusal::Asks,
        };
        refused.add(owner, wallet.clone(), refusal);
        Err(refusal.into())
    }

    /// Deletes an item, whether or not its secret can be read.
    pub(super) fn delete(&self, item: &OwnedObjectPath) -> Result<(), CallError> {
        let reply = self.connection.call_method(Some(SECRETS), item, Some(ITEM), "Delete", &())?;
        match self.run_prompt(reply.body().deserialize()?)? {
            PromptEnd::Completed => Ok(()),
            PromptEnd::Dismissed | PromptEnd::Unanswered => Err(Error::Prompt.into()),
        }
    }

    /// Lets a prompt do its work, for programs that do nothing without; `/`: there is none.
    fn run_prompt(&self, prompt: OwnedObjectPath) -> Result<PromptEnd, CallError> {
        if prompt.as_str() == "/" {
            return Ok(PromptEnd::Completed);
        }
        let prompt = Proxy::new(&self.connection, SECRETS, prompt, "org.freedesktop.Secret.Prompt")?;
        let mut completed = prompt.receive_signal("Completed")?;
        prompt.call_method("Prompt", &("",))?;
        let (sender, ended) = mpsc::channel();
        // The thread ends with the connection.
        let wait = move || {
            let content = completed.next().map(|signal| signal.body().deserialize::<(bool, OwnedValue)>());
            let _gave_up = sender.send(content.map(|content| content.map_or(true, |(was_dismissed, _)| was_dismissed)));
        };
        thread::Builder::new()
            .name("keyring-prompt".into())
            .spawn(wait)
            .map_err(|e| zbus::Error::Failure(format!("cannot start a thread: {e}")))?;
        match ended.recv_timeout(CALL_TIMEOUT) {
            Ok(Some(false)) => Ok(PromptEnd::Completed),
            Ok(Some(true)) => Ok(PromptEnd::Dismissed),
            Ok(None) => Err(Error::PromptDisconnected.into()),
            Err(_) => Ok(PromptEnd::Unanswered),
        }
    }

    pub(super) fn is_locked(&self, collection: &OwnedObjectPath) -> Result<bool, Error> {
        self.property(collection.as_str(), COLLECTION, "Locked")
    }

    /// Whether KeePassXC asks a person before it gives away a secret of this open collection: each of its items that
    /// this connection did not make calls itself locked then. One with no items does not tell.
    pub(super) fn asks_for_each_item(&self, collection: &OwnedObjectPath) -> Result<bool, Error> {
        if self.program() != Some(KeyringProgram::KeePassXc) {
            return Ok(false);
        }
        let items: Vec<OwnedObjectPath> = self.property(collection.as_str(), COLLECTION, "Items")?;
        for item in items.iter().take(ITEMS_TO_ASK) {
            if self.property(item.as_str(), ITEM, "Locked")? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The collections that are open, and those that call themselves locked.
    pub(super) fn collections(&self) -> Result<(Vec<OwnedObjectPath>, Vec<OwnedObjectPath>), Error> {
        let all: Vec<OwnedObjectPath> = self.property(SERVICE_PATH, SERVICE, "Collections")?;
        let (mut open, mut locked) = (Vec::new(), Vec::new());
        for path in all {
            match self.is_locked(&path)? {
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

    /// The connection of KWallet and the name of the wallet, if that is KWallet's, and open as its own interface says.
    fn open_wallet_name(&self, wallet: &OwnedObjectPath) -> Result<Option<(String, String)>, Error> {
        let Owner::Named(owner) = name_owner(&self.connection, SECRETS) else { return Ok(None) };
        let is_it = |name: &str| matches!(name_owner(&self.connection, name), Owner::Named(found) if found == owner);
        let Some((name, path)) = kwallet::BUS_NAMES.iter().find(|(name, _)| is_it(name)) else { return Ok(None) };
        let label: String = self.property(wallet.as_str(), COLLECTION, "Label")?;
        let reply = self.connection.call_method(Some(*name), *path, Some("org.kde.KWallet"), "isOpen", &(&label,))?;
        Ok(reply.body().deserialize::<bool>()?.then_some((owner, label)))
    }

    /// The program that offers the service, if it is known.
    pub(super) fn program(&self) -> Option<KeyringProgram> {
        match name_owner(&self.connection, SECRETS) {
            Owner::Named(owner) => program_of(&self.connection, &owner),
            Owner::Nobody | Owner::BusGone | Owner::Unknown => None,
        }
    }

    /// What an error of this connection means.
    pub(super) fn explain(&self, error: CallError) -> KeyringError {
        match error {
            CallError::Service(error) => explain(&self.connection, error),
            CallError::Refused(WalletRefusal::Asks) => {
                KeyringError::AsksPerson.of_program(Some(KeyringProgram::KWallet))
            }
            CallError::Refused(WalletRefusal::Denied) => KeyringError::Denied.of_program(Some(KeyringProgram::KWallet)),
        }
    }

    /// Ends the connection, also for a thread that waits for a prompt.
    pub(super) fn close(self) {
        let _is_gone = self.connection.close();
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
pub(super) fn is_stale_connection(error: &CallError) -> bool {
    let CallError::Service(error) = error else { return false };
    let is_broken =
        matches!(error, Error::Zbus(zbus::Error::InputOutput(e)) if e.kind() != std::io::ErrorKind::TimedOut);
    let named = dbus_error_name(error).unwrap_or_default();
    let words =
        ["NoSession", "UnknownObject", "UnknownMethod", "NoReply", "Disconnected", "NameHasNoOwner", "ServiceUnknown"];
    is_broken || words.iter().any(|word| named.ends_with(word))
}

/// Whether the service does not know the object that was asked.
pub(super) fn is_unknown_object(error: &Error) -> bool {
    let named = dbus_error_name(error).unwrap_or_default();
    ["UnknownObject", "UnknownMethod", "NoSuchObject"].iter().any(|word| named.ends_with(word))
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
