//! A world in one process for the real transaction: real store, guard, engine and HTTP, a keyring in memory, a clock that
//! is turned by hand, a server that does as it is told, and processes that can die at every place.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keepalive::clock::{Clock, ManualClock, Timestamp};
use keepalive::credential::Credential;
use keepalive::credential::expiry::LifetimeBounds;
use keepalive::credential::external::ImportSource;
use keepalive::credential::freshness::Demand;
use keepalive::credential::token_response;
use keepalive::credential::token_response::ParsedResponse;
use keepalive::engine::logout::{self, LogoutRequest, LogoutResult, RevocationRoute};
use keepalive::engine::new_credential::{NewCredential, NewCredentialResult, Provenance};
use keepalive::engine::refresh::followed_stores::FollowedStores;
use keepalive::engine::{Engine, new_credential};
use keepalive::outcome::{Outcome, OutcomeKind};
use keepalive::profile::{KeySource, Profile, ProfileName, Provider, StoreKind, StoreSettings};
use keepalive::provider::http::HttpEndpoint;
use keepalive::provider::{BeforeSendError, PreparedProvider, TokenEndpoint};
use keepalive::store::Store;
use keepalive::store::journal::Journal;
use keepalive::store::keyring::KeyringItem;
use keepalive::store::keyring::memory::MemoryKeyring;
use keepalive::sys::file_place::FilePlace;
use keepalive::sys::file_watch::FileVersion;

pub use super::hooks::HookPoint;
use super::hooks::{Hooks, WithHooks};
use super::support::auth_server::{AuthServer, Fault};
use super::support::token_family::RotationMode;

/// Of every client that is to have one.
pub const CLIENT_SECRET: &str = "4711";
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(600);

pub struct World {
    dir: tempfile::TempDir,
    pub keyring: MemoryKeyring,
    pub clock: Arc<ManualClock>,
    pub server: Arc<AuthServer>,
    profile: Arc<Profile>,
    hooks: Hooks,
    exchanges: Arc<AtomicUsize>,
    tool: Option<Arc<dyn FollowedStores>>,
    has_keyring: bool,
}

/// What a process that dies leaves behind.
pub struct CrashSnapshot {
    dir: tempfile::TempDir,
    items: BTreeMap<KeyringItem, String>,
}

impl CrashSnapshot {
    /// Brings one folder of the store into that of a world.
    pub fn copy_into(&self, folder: &str, world: &World) {
        std::fs::remove_dir_all(world.file(folder)).unwrap();
        std::fs::create_dir(world.file(folder)).unwrap();
        copy(&self.dir.path().join(folder), &world.file(folder));
    }

    /// What is in the keyring.
    pub fn items(self) -> BTreeMap<KeyringItem, String> {
        self.items
    }
}

/// Brings the files of a process that died to where the next one finds them. What tells a copy from the original is
/// carried over, since it stands for the original here.
fn copy(from: &Path, to: &Path) {
    copy_files(from, to);
    keep_origin(from, to);
}

/// The journals note which sealed file they were written for, and `store.json` which file it is.
fn keep_origin(from: &Path, to: &Path) {
    let mark = |dir: &Path| FileVersion::of(&dir.join("sealed")).map(|version| version.mark());
    if let Some(mut journal) = read_json(&to.join("record.json"))
        && mark(from).is_some_and(|mark| journal["sealed_mark"] == mark)
    {
        journal["sealed_mark"] = mark(to).into();
        std::fs::write(to.join("record.json"), serde_json::to_vec_pretty(&journal).unwrap()).unwrap();
    }
    if let Some(mut identity) = read_json(&to.join("store.json")) {
        let place = FilePlace::of(&std::fs::File::open(to.join("store.json")).unwrap()).unwrap();
        identity["file"] = serde_json::to_value(place).unwrap();
        std::fs::write(to.join("store.json"), identity.to_string()).unwrap();
    }
    for entry in std::fs::read_dir(from).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        keep_origin(&entry.path(), &to.join(entry.file_name()));
    }
}

fn read_json(path: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&target).unwrap();
            std::fs::set_permissions(&target, entry.metadata().unwrap().permissions()).unwrap();
            copy_files(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

fn crash_snapshot(dir: &Path, items: BTreeMap<KeyringItem, String>) -> CrashSnapshot {
    let copied = tempfile::tempdir().unwrap();
    copy(dir, copied.path());
    CrashSnapshot { dir: copied, items }
}

impl World {
    /// A profile signed in at a new server. The sealing key is in `template`: its birth takes a second.
    pub fn new(template: Option<&CrashSnapshot>, mode: RotationMode, provider: &str) -> Self {
        Self::built(template, mode, provider, true)
    }

    /// A world whose store is sealed files alone.
    pub fn without_keyring() -> Self {
        Self::without_keyring_at(RotationMode::Strict, "")
    }

    pub fn without_keyring_at(mode: RotationMode, provider: &str) -> Self {
        Self::built(None, mode, provider, false)
    }

    fn built(template: Option<&CrashSnapshot>, mode: RotationMode, provider: &str, has_keyring: bool) -> Self {
        let server = Arc::new(AuthServer::start(mode));
        server.set_access_life(ACCESS_LIFETIME);
        let text = format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(provider));
        let config = keepalive::config::Config::parse(&text, Path::new("config.toml"), None).unwrap();
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let name: ProfileName = "demo".parse().unwrap();
        let world = Self {
            dir: tempfile::tempdir().unwrap(),
            keyring: MemoryKeyring::default(),
            clock: Arc::new(ManualClock::new(Timestamp::from_secs(1_790_000_000))),
            server,
            profile: Arc::new(config.profile(&name, None).unwrap()),
            hooks: Hooks::default(),
            exchanges: Arc::default(),
            tool: None,
            has_keyring,
        };
        if !has_keyring {
            std::fs::write(world.file("key"), [7; 32]).unwrap();
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(world.file("key"), private).unwrap();
        }
        if let Some(template) = template {
            copy(template.dir.path(), world.dir.path());
            world.keyring.restore(template.items.clone());
        }
        if has_keyring {
            // The key's birth by another process: only the one that makes it waits a second for it to be durable.
            world.store_and_endpoint().0.prepare_to_seal("").unwrap();
        }
        world.sign_in();
        world
    }

    /// A store in which a key was born, and nothing else is of interest.
    pub fn template() -> CrashSnapshot {
        let world = Self::new(None, RotationMode::Strict, "");
        std::fs::remove_dir_all(world.dir.path().join("profiles")).unwrap();
        let mut items = world.keyring.snapshot();
        items.retain(|item, _| item.service.ends_with("-key"));
        crash_snapshot(world.dir.path(), items)
    }

    pub fn sign_in(&self) {
        self.import(self.credential(&self.server.mint()), true).unwrap();
    }

    /// The profile follows a tool, from whose store it takes `answer` over.
    pub fn follow(&mut self, tool: Arc<dyn FollowedStores>, answer: &serde_json::Value, origin: ImportSource) {
        Arc::make_mut(&mut self.profile).follow = true;
        self.tool = Some(tool);
        let credential = self.credential(answer);
        self.import(NewCredential { credential, origin: Some(origin) }, true).unwrap();
    }

    /// What an import of `answer` would hand over now.
    pub fn credential(&self, answer: &serde_json::Value) -> Credential {
        let prepared = self.prepared();
        let ParsedResponse::Granted(granted) = token_response::parse(200, answer.to_string().as_bytes(), true) else {
            panic!()
        };
        let now = self.clock.now();
        let mut granted = *granted;
        // It has just been granted.
        granted.expiry.issued_at = granted.expiry.issued_at.or(Some(now.wall));
        let bounds = LifetimeBounds { default: ACCESS_LIFETIME, max: None };
        let validity = granted.expiry.validity_of_import(&now, bounds);
        new_credential::build_credential(granted, prepared.binding(), validity).unwrap()
    }

    /// The provider as a refresh would have it.
    pub fn prepared(&self) -> PreparedProvider {
        self.store_and_endpoint().1.prepare(&self.profile.provider, "demo").unwrap()
    }

    /// `keepalive import`, with or without `--replace`, by a new process.
    pub fn import(
        &self,
        arrival: impl Into<NewCredential>,
        is_replacing: bool,
    ) -> Result<NewCredentialResult, Outcome> {
        self.import_into(&self.profile.name, arrival, is_replacing)
    }

    /// Imports into another profile.
    pub fn import_into(
        &self,
        name: &ProfileName,
        arrival: impl Into<NewCredential>,
        is_replacing: bool,
    ) -> Result<NewCredentialResult, Outcome> {
        let (store, _) = self.store_and_endpoint();
        let warrant = if is_replacing { Provenance::ForcedImport } else { Provenance::Import };
        new_credential::store_credential(
            &store,
            name,
            arrival,
            warrant,
            &self.clock.now(),
            &new_credential::StoringWaits::SILENT,
        )
    }

    /// `keepalive login`, by a new process.
    pub fn log_in(&self, answer: &serde_json::Value) -> Result<NewCredentialResult, Outcome> {
        self.log_in_as(&self.profile.name, answer)
    }

    pub fn log_in_as(&self, name: &ProfileName, answer: &serde_json::Value) -> Result<NewCredentialResult, Outcome> {
        let (store, _) = self.store_and_endpoint();
        new_credential::store_credential(
            &store,
            name,
            self.credential(answer),
            Provenance::Login,
            &self.clock.now(),
            &new_credential::StoringWaits::SILENT,
        )
    }

    fn store_and_endpoint(&self) -> (Arc<Store>, Arc<WithHooks<HttpEndpoint>>) {
        let kind = match self.has_keyring {
            true => StoreKind::Keyring { service: "keepalive".into() },
            false => StoreKind::File { key: KeySource::File(self.file("key")) },
        };
        let settings = StoreSettings { kind, path: None, allow_network_filesystem: true };
        let (hooks, exchanges) = (self.hooks.clone(), Arc::clone(&self.exchanges));
        let keyring = WithHooks { inner: self.keyring.clone(), hooks, exchanges: Arc::default() };
        let store = Store::new(&settings, self.dir.path(), None, || Box::new(keyring));
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let http =
            HttpEndpoint::new(Box::new(|_, _| Ok(CLIENT_SECRET.to_owned().into())), clock, self.dir.path()).unwrap();
        (Arc::new(store), Arc::new(WithHooks { inner: http, hooks: self.hooks.clone(), exchanges }))
    }

    /// A process that has just started: it shares nothing with the others but what is on disk and in the keyring.
    pub fn process(&self) -> Engine {
        self.process_called_for(&[])
    }

    /// A process that was started by a command that refreshes these profiles.
    pub fn process_called_for(&self, profiles: &[&str]) -> Engine {
        self.engine(false, profiles)
    }

    /// A daemon that has just started.
    pub fn daemon(&self) -> Engine {
        self.engine(true, &[])
    }

    /// A process with a clock of its own.
    pub fn process_by(&self, clock: Arc<dyn Clock>) -> Engine {
        let (store, endpoint) = self.store_and_endpoint();
        Engine::new(store, endpoint, clock, false, Vec::new())
    }

    fn engine(&self, is_resident: bool, within: &[&str]) -> Engine {
        let (store, endpoint) = self.store_and_endpoint();
        let within = within.iter().map(|&name| name.to_owned()).collect();
        let engine = Engine::new(store, endpoint, Arc::clone(&self.clock) as _, is_resident, within);
        match &self.tool {
            Some(tool) => engine.with_followed_stores(Arc::clone(tool)),
            None => engine,
        }
    }

    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    pub fn name(&self) -> &ProfileName {
        &self.profile.name
    }

    /// `keepalive refresh --force`, by a new process.
    pub fn refresh(&self) -> Outcome {
        self.refresh_by(&self.process())
    }

    pub fn refresh_by(&self, engine: &Engine) -> Outcome {
        match engine.force_demand(&self.profile.name) {
            Ok(demand) => engine.refresh(&self.profile, demand, Duration::from_secs(30), &|| {}),
            Err(e) => e.outcome(),
        }
    }

    /// `keepalive refresh`, by a new process: nothing is due, but what was left undone is done.
    pub fn refresh_if_due(&self) -> Outcome {
        self.refresh_if_due_by(&self.process())
    }

    pub fn refresh_if_due_by(&self, engine: &Engine) -> Outcome {
        let demand = Demand::Margin { lookahead: Duration::ZERO };
        engine.refresh(&self.profile, demand, Duration::from_secs(30), &|| {})
    }

    pub fn journal(&self) -> Journal {
        self.store_and_endpoint().0.peek(&self.profile.name).unwrap().unwrap()
    }

    /// The generation in the keyring, if any.
    pub fn published(&self) -> Option<u64> {
        let items = self.keyring.snapshot();
        let (_, text) = items.iter().find(|(item, _)| item.service == "keepalive")?;
        serde_json::from_str::<serde_json::Value>(text).unwrap()["generation"].as_u64()
    }

    /// Takes something out of the keyring: what is published, or the sealing key.
    pub fn remove_from_keyring(&self, service: &str) {
        let mut items = self.keyring.snapshot();
        items.retain(|item, _| item.service != service);
        self.keyring.restore(items);
    }

    /// The provider has a revocation endpoint, at which this goes wrong in turn.
    pub fn enable_revocation(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.server.revocation_script(faults);
        let url = format!("{}/revoke", self.server.url()).parse().unwrap();
        self.provider_mut().revocation_endpoint = Some(url);
    }

    /// The configuration, to be changed.
    pub fn provider_mut(&mut self) -> &mut Provider {
        Arc::make_mut(&mut Arc::make_mut(&mut self.profile).provider)
    }

    /// `keepalive logout`, with or without `--forget`, by a new process; told to end before it sends anything, or not.
    pub fn log_out(&self, is_forgetting: bool, is_stopped: bool) -> Result<LogoutResult, Outcome> {
        let route = logout::find_revocation_route(&self.store_and_endpoint().1.inner, &self.profile);
        self.log_out_by(route, is_forgetting, is_stopped)
    }

    pub fn log_out_by(
        &self,
        route: RevocationRoute,
        is_forgetting: bool,
        is_stopped: bool,
    ) -> Result<LogoutResult, Outcome> {
        let (store, endpoint) = self.store_and_endpoint();
        let leaving = LogoutRequest {
            store: &store,
            server: endpoint.as_ref(),
            clock: Arc::clone(&self.clock) as _,
            name: &self.profile.name,
            must_forget: is_forgetting,
            stop: Arc::new(is_stopped.into()),
        };
        leaving.run(route, &|_| {})
    }

    /// A file of the store.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// The ledger can be read and not be written, until it is mended.
    pub fn break_ledger(&self) {
        let lock = self.file("ledger.lock");
        drop(std::fs::remove_file(&lock));
        std::fs::create_dir(lock).unwrap();
    }

    pub fn repair_ledger(&self) {
        std::fs::remove_dir(self.file("ledger.lock")).unwrap();
    }

    pub fn requests(&self) -> usize {
        self.server.counts().refresh_requests
    }

    /// How often the server was turned to, whether it could be reached or not.
    pub fn exchanges(&self) -> usize {
        self.exchanges.load(Ordering::SeqCst)
    }

    pub fn hook(&self, place: HookPoint, hook: impl FnOnce() -> Result<(), BeforeSendError> + Send + 'static) {
        self.hooks.set(place, Box::new(hook));
    }

    pub fn snapshot(&self) -> CrashSnapshot {
        crash_snapshot(self.dir.path(), self.keyring.snapshot())
    }

    /// The server answers the next requests with these statuses, before it is given the token.
    pub fn answer_early(&self, statuses: impl IntoIterator<Item = u16>) {
        self.hooks.answer_early(statuses);
    }

    /// Runs a refresh and keeps what a process that died at `place` would leave. After the intent nothing is sent: the
    /// flight that goes on here is not the one that is looked at.
    pub fn crash_at(&self, place: HookPoint) -> CrashSnapshot {
        self.crash_during(place, || drop(self.refresh()))
    }

    /// The snapshot of a run that passes there, whatever run it is.
    pub fn crash_during(&self, place: HookPoint, run: impl FnOnce()) -> CrashSnapshot {
        let kept = Arc::new(Mutex::new(None));
        let (dir, keyring, slot) = (self.dir.path().to_owned(), self.keyring.clone(), Arc::clone(&kept));
        self.hook(place, move || {
            *slot.lock().unwrap() = Some(crash_snapshot(&dir, keyring.snapshot()));
            match place {
                HookPoint::AfterIntent | HookPoint::BeforeExchange => {
                    Err(BeforeSendError::Refused("this process is dead"))
                }
                _ => Ok(()),
            }
        });
        run();
        kept.lock().unwrap().take().expect("the flight came by")
    }

    /// The world as it goes on from there; `keyring`: what a power cut left of it, if there was one.
    pub fn restart_from(&self, snapshot: CrashSnapshot, keyring: Option<BTreeMap<KeyringItem, String>>) -> Self {
        let memory = MemoryKeyring::default();
        memory.restore(keyring.unwrap_or(snapshot.items));
        Self {
            dir: snapshot.dir,
            keyring: memory,
            clock: Arc::clone(&self.clock),
            server: Arc::clone(&self.server),
            profile: Arc::clone(&self.profile),
            hooks: Hooks::default(),
            exchanges: Arc::default(),
            tool: self.tool.clone(),
            has_keyring: self.has_keyring,
        }
    }

    /// A copy of the state directory, as a person makes it, beside the original and with the same keyring.
    pub fn copied(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy_files(self.dir.path(), dir.path());
        Self { keyring: self.keyring.clone(), ..self.restart_from(CrashSnapshot { dir, items: BTreeMap::new() }, None) }
    }

    /// Another state directory on the same keyring.
    pub fn with_other_state_dir(&self) -> Self {
        let snapshot = CrashSnapshot { dir: tempfile::tempdir().unwrap(), items: self.keyring.snapshot() };
        self.restart_from(snapshot, None)
    }

    /// A world on this very keyring: each sees what the other does in it.
    pub fn with_shared_keyring(&self) -> Self {
        Self { keyring: self.keyring.clone(), ..self.with_other_state_dir() }
    }

    /// `keepalive logout --forget` of any profile, by a new process; nothing is revoked.
    pub fn forget(&self, name: &ProfileName) {
        let (store, endpoint) = self.store_and_endpoint();
        let route = RevocationRoute::Blocked(Outcome::new(OutcomeKind::ConfigError));
        let clock = Arc::clone(&self.clock) as _;
        let stop = Arc::default();
        let leaving = LogoutRequest { store: &store, server: endpoint.as_ref(), clock, name, must_forget: true, stop };
        leaving.run(route, &|_| {}).unwrap();
    }

    /// Returns once another thread of this process waits for a lock file.
    pub fn wait_for_lock_waiter(&self) {
        let pid = std::process::id().to_string();
        super::support::eventually("somebody waits at the lock", || {
            let locks = std::fs::read_to_string("/proc/locks").unwrap();
            let waits = |line: &str| line.contains("-> FLOCK") && line.split_whitespace().any(|word| word == pid);
            locks.lines().any(waits).then_some(())
        });
    }
}

/// The error of something that must not succeed has this kind and this word.
#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(result: Result<T, Outcome>, kind: OutcomeKind, word: &str) {
    let outcome = result.expect_err("it succeeded");
    let found = outcome.error.as_ref().map(|e| e.kind.word());
    assert_eq!((outcome.kind, found), (kind, Some(word)), "{outcome:?}");
}
