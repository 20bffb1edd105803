//! A Secret Service on a session bus that does what a test says: which collections there are, which are locked, and what
//! they answer to `Unlock`. It notes each call by which a prompt could be shown.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use zbus::blocking::connection::Builder;
use zbus::blocking::{Connection, MessageIterator};
use zbus::message::{Message, Type};
use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue, Value};

use super::sandbox::Sandbox;

/// What a locked collection does when it is asked to unlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnlock {
    Opens,
    OffersPrompt,
}

struct FakeCollection {
    name: &'static str,
    /// `None`: open.
    locked: Option<OnUnlock>,
}

/// Session, parameters, value and content type of a secret.
type Secret = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);

struct FakeItem {
    path: String,
    attributes: HashMap<String, String>,
    secret: Secret,
}

#[derive(Default)]
struct FakeState {
    collections: Vec<FakeCollection>,
    default: Option<&'static str>,
    items: Vec<FakeItem>,
    created: usize,
    prompts: Vec<String>,
    dies_in_search: bool,
}

/// The service. It ends with its bus.
pub struct ScriptedKeyring {
    state: Arc<Mutex<FakeState>>,
}

const ROOT: &str = "/org/freedesktop/secrets";
const PROMPT: &str = "/org/freedesktop/secrets/prompt/p0";

fn collection_path(name: &str) -> String {
    format!("{ROOT}/collection/{name}")
}

fn object(path: &str) -> ObjectPath<'_> {
    ObjectPath::try_from(path).unwrap()
}

impl ScriptedKeyring {
    /// Takes the name on the bus of the sandbox, with one collection that is open and the default.
    pub fn start(sandbox: &Sandbox) -> Self {
        Self::start_as(sandbox, "org.keepalive.test")
    }

    /// As `start`, under one more name, by which a program is known.
    pub fn start_as(sandbox: &Sandbox, name: &str) -> Self {
        let address = sandbox.environment().into_iter().find(|(name, _)| name == "DBUS_SESSION_BUS_ADDRESS");
        let connection = Builder::address(address.expect("a bus runs").1.as_str())
            .and_then(|builder| builder.name(name)?.name("org.freedesktop.secrets"))
            .and_then(Builder::build)
            .unwrap();
        let state = Arc::new(Mutex::new(FakeState {
            collections: vec![FakeCollection { name: "login", locked: None }],
            default: Some("login"),
            ..FakeState::default()
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || serve(&connection, &shared));
        Self { state }
    }

    fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap()
    }

    pub fn lock(&self, name: &str, then: OnUnlock) {
        self.state().collections.iter_mut().find(|c| c.name == name).expect("a collection").locked = Some(then);
    }

    pub fn is_locked(&self, name: &str) -> bool {
        self.state().collections.iter().any(|c| c.name == name && c.locked.is_some())
    }

    /// A further collection becomes the default one; `None`: there is no default from now on.
    pub fn set_default(&self, collection: Option<(&'static str, Option<OnUnlock>)>) {
        let mut state = self.state();
        state.default = collection.map(|(name, _)| name);
        state.collections.extend(collection.map(|(name, locked)| FakeCollection { name, locked }));
    }

    /// The service dies while it is asked for items.
    pub fn die_in_search(&self) {
        self.state().dies_in_search = true;
    }

    /// The members of the prompt interface that were called.
    pub fn prompts(&self) -> Vec<String> {
        self.state().prompts.clone()
    }

    /// The collections of the items of a service.
    pub fn collections_of(&self, service: &str) -> Vec<String> {
        let state = self.state();
        let ours = state.items.iter().filter(|item| item.attributes.get("service").is_some_and(|s| s == service));
        ours.map(|item| item.path.rsplit('/').nth(1).unwrap().to_owned()).collect()
    }
}

fn serve(connection: &Connection, state: &Mutex<FakeState>) {
    for message in MessageIterator::from(connection) {
        let Ok(message) = message else { return };
        if message.message_type() != Type::MethodCall {
            continue;
        }
        let mut state = state.lock().unwrap();
        let header = message.header();
        let (path, member) = (header.path().unwrap().to_string(), header.member().unwrap().to_string());
        if member == "SearchItems" && state.dies_in_search {
            connection.clone().close().unwrap();
            return;
        }
        if state.answer(connection, &message, &path, &member).is_none() {
            connection.reply_error(&header, "org.freedesktop.DBus.Error.UnknownMethod", &member).unwrap();
        }
    }
}

impl FakeState {
    fn answer(&mut self, connection: &Connection, message: &Message, path: &str, member: &str) -> Option<()> {
        let header = message.header();
        let body = message.body();
        let nothing = object("/");
        let sent = match member {
            // The public key 1 makes the shared secret 1, so each session has the same key and secrets stay as they came.
            "OpenSession" => {
                connection.reply(&header, &(Value::from(vec![1_u8]), object("/org/freedesktop/secrets/session/1")))
            }
            "ReadAlias" => match self.default {
                Some(name) => connection.reply(&header, &object(&collection_path(name))),
                None => connection.reply(&header, &nothing),
            },
            "SearchItems" => {
                let wanted: HashMap<String, String> = body.deserialize().unwrap();
                // As KeePassXC does, which prompts for each locked database before it searches.
                if path == ROOT && self.collections.iter().any(|c| c.locked == Some(OnUnlock::OffersPrompt)) {
                    self.prompts.push("SearchItems".to_owned());
                }
                let is_wanted = |item: &&FakeItem| {
                    item.path.starts_with(path) && wanted.iter().all(|(k, v)| item.attributes.get(k) == Some(v))
                };
                let (locked, open): (Vec<_>, Vec<_>) = self
                    .items
                    .iter()
                    .filter(is_wanted)
                    .map(|item| item.path.as_str())
                    .partition(|p| self.is_in_locked(p));
                let paths = |found: Vec<&str>| found.into_iter().map(|p| object(p).into_owned()).collect::<Vec<_>>();
                match path {
                    ROOT => connection.reply(&header, &(paths(open), paths(locked))),
                    _ => connection.reply(&header, &paths(open.into_iter().chain(locked).collect())),
                }
            }
            "Unlock" => {
                let objects: Vec<OwnedObjectPath> = body.deserialize().unwrap();
                let mut opened = Vec::new();
                for wanted in &objects {
                    let collection = self.collections.iter_mut().find(|c| wanted.starts_with(&collection_path(c.name)));
                    let collection = collection.expect("a collection");
                    if collection.locked != Some(OnUnlock::OffersPrompt) {
                        collection.locked = None;
                        opened.push(wanted.clone());
                    }
                }
                let prompt = if opened.len() == objects.len() { "/" } else { PROMPT };
                connection.reply(&header, &(opened, object(prompt)))
            }
            "Prompt" | "Dismiss" => {
                self.prompts.push(member.to_owned());
                connection.reply(&header, &())
            }
            "Get" => {
                let (_, property): (String, String) = body.deserialize().unwrap();
                let value = match property.as_str() {
                    "Locked" => Value::from(self.is_in_locked(path)),
                    "Collections" => {
                        let paths = self.collections.iter().map(|c| collection_path(c.name));
                        Value::from(paths.map(|p| object(&p).into_owned()).collect::<Vec<_>>())
                    }
                    "Label" => Value::from("a label"),
                    "Attributes" => Value::from(self.items.iter().find(|item| item.path == path)?.attributes.clone()),
                    _ => return None,
                };
                connection.reply(&header, &value)
            }
            "CreateItem" => {
                let (properties, secret, _): (HashMap<String, OwnedValue>, Secret, bool) = body.deserialize().unwrap();
                let attributes = properties.get("org.freedesktop.Secret.Item.Attributes").unwrap().try_clone().unwrap();
                self.created += 1;
                let new = format!("{path}/{}", self.created);
                let attributes = HashMap::<String, String>::try_from(attributes).unwrap();
                self.items.push(FakeItem { path: new.clone(), attributes, secret });
                connection.reply(&header, &(object(&new), nothing))
            }
            "GetSecret" => {
                let secret = &self.items.iter().find(|item| item.path == path)?.secret;
                connection.reply(&header, &(secret,))
            }
            "SetSecret" => {
                let (secret,): (Secret,) = body.deserialize().unwrap();
                self.items.iter_mut().find(|item| item.path == path)?.secret = secret;
                connection.reply(&header, &())
            }
            "Delete" => {
                self.items.retain(|item| item.path != path);
                connection.reply(&header, &nothing)
            }
            _ => return None,
        };
        sent.unwrap();
        Some(())
    }

    fn is_in_locked(&self, path: &str) -> bool {
        self.collections.iter().any(|c| c.locked.is_some() && path.starts_with(&collection_path(c.name)))
    }
}
