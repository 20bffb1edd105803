//! A Secret Service on a session bus that does what a test says: which collections there are, which are locked, and what
//! they answer to `Unlock`. It notes each call by which a prompt could be shown.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use zbus::blocking::connection::Builder;
use zbus::blocking::{Connection, MessageIterator};
use zbus::message::{Message, Type};
use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue, Value};

use super::sandbox::Sandbox;

/// What a collection that calls itself locked does when it is asked to unlock. All but the last are wallets of KWallet that
/// are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnlock {
    /// Its prompt opens it, and shows nothing.
    Opens,
    /// Its prompt is a question, which is not answered.
    Asks,
    /// Its prompt is dismissed at once.
    Denies,
    /// It is really locked.
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
    /// The connection that made it.
    made_by: String,
}

#[derive(Default)]
struct FakeState {
    collections: Vec<FakeCollection>,
    default: Option<&'static str>,
    items: Vec<FakeItem>,
    created: usize,
    prompts: Vec<String>,
    dies_in_search: bool,
    /// As KeePassXC is by default: no client reads what another made without a question.
    confirms_access: bool,
    /// The collections that the last prompt is about.
    prompt_for: Vec<String>,
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

    /// From now on a person is asked before a client gets what another made.
    pub fn confirm_access(&self) {
        self.state().confirms_access = true;
    }

    /// Another program has an item in the first collection.
    pub fn add_foreign_item(&self) {
        let mut state = self.state();
        let path = format!("{}/foreign", collection_path(state.collections[0].name));
        let secret = (object("/").into(), Vec::new(), Vec::new(), String::new());
        state.items.push(FakeItem { path, attributes: HashMap::new(), secret, made_by: String::new() });
    }

    /// A collection goes, and the alias of the default one stays.
    pub fn remove_collection(&self, name: &str) {
        self.state().collections.retain(|c| c.name != name);
    }

    /// How many items were ever made.
    pub fn created(&self) -> usize {
        self.state().created
    }

    /// The calls by which a prompt is made, shown or dismissed.
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
                self.prompts.push(member.to_owned());
                self.prompt_for = objects.iter().map(ToString::to_string).collect();
                connection.reply(&header, &(Vec::<OwnedObjectPath>::new(), object(PROMPT)))
            }
            "Prompt" | "Dismiss" => {
                self.prompts.push(member.to_owned());
                let end = if member == "Dismiss" { Some(true) } else { self.end_of_prompt() };
                if let Some(was_dismissed) = end {
                    let interface = "org.freedesktop.Secret.Prompt";
                    let content = (was_dismissed, Value::from(""));
                    connection.emit_signal(header.sender().cloned(), path, interface, "Completed", &content).unwrap();
                }
                connection.reply(&header, &())
            }
            "isOpen" => {
                let name: String = body.deserialize().unwrap();
                let is_open = |c: &FakeCollection| c.name == name && c.locked != Some(OnUnlock::OffersPrompt);
                connection.reply(&header, &self.collections.iter().any(is_open))
            }
            "Get" => {
                let (_, property): (String, String) = body.deserialize().unwrap();
                let value = match property.as_str() {
                    "Locked" => Value::from(self.is_locked_for(path, header.sender()?.as_str())?),
                    "Items" => {
                        let items = self.items.iter().filter(|item| item.path.starts_with(path));
                        Value::from(items.map(|item| object(&item.path).into_owned()).collect::<Vec<_>>())
                    }
                    "Collections" => {
                        let paths = self.collections.iter().map(|c| collection_path(c.name));
                        Value::from(paths.map(|p| object(&p).into_owned()).collect::<Vec<_>>())
                    }
                    "Label" => Value::from(path.rsplit('/').next()?),
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
                let made_by = header.sender()?.to_string();
                self.items.push(FakeItem { path: new.clone(), attributes, secret, made_by });
                connection.reply(&header, &(object(&new), nothing))
            }
            "GetSecret" if self.is_locked_for(path, header.sender()?.as_str())? => {
                connection.reply_error(&header, "org.freedesktop.Secret.Error.IsLocked", &"")
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

    /// How the prompt that is shown ends: whether it is dismissed. `None`: it does not.
    fn end_of_prompt(&mut self) -> Option<bool> {
        let asked = self.prompt_for.clone();
        let is_asked = |c: &&mut FakeCollection| asked.contains(&collection_path(c.name));
        let mut end = Some(false);
        for collection in self.collections.iter_mut().filter(is_asked) {
            match collection.locked {
                None => {}
                Some(OnUnlock::Opens) => collection.locked = None,
                Some(OnUnlock::Denies) => end = Some(true),
                Some(OnUnlock::Asks | OnUnlock::OffersPrompt) => return None,
            }
        }
        end
    }

    /// Whether a collection or an item calls itself locked to a client. `None`: there is none such.
    fn is_locked_for(&self, path: &str, client: &str) -> Option<bool> {
        let is_there = |c: &FakeCollection| path.starts_with(&collection_path(c.name));
        self.collections.iter().any(is_there).then_some(())?;
        let item = self.items.iter().find(|item| item.path == path);
        let is_another = item.is_some_and(|item| item.made_by != client);
        Some(self.is_in_locked(path) || (self.confirms_access && is_another))
    }

    fn is_in_locked(&self, path: &str) -> bool {
        self.collections.iter().any(|c| c.locked.is_some() && path.starts_with(&collection_path(c.name)))
    }
}
