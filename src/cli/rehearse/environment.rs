//! The rehearsal's temporary environment: directory, configuration, keyring namespace. It is removed at the end, or by
//! the next rehearsal.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::Config;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::{KeySource, StoreKind, StoreSettings};
use crate::store::keyring;
use crate::store::keyring::KeyringItem;
use crate::store::keys::sealing_key::random_bytes;
use crate::store::{Layout, Store};
use crate::sys::durable;
use crate::sys::lockfile::{LockFile, LockHolder, LockWait};
use crate::sys::paths;
use crate::sys::paths::{Environment, SessionBus};
use crate::sys::process;
use crate::sys::process::Termination;

use crate::cli::rehearse::auth_server::CLIENT_ID;
use crate::cli::signals;

/// The one profile of a rehearsal.
pub(super) const PROFILE: &str = "rehearsal";
const PREFIX: &str = "keepalive-rehearsal-";

/// A temporary environment, removed when dropped.
pub(super) struct RehearsalEnvironment {
    dir: PathBuf,
    name: String,
    bus: Option<SessionBus>,
    executable: PathBuf,
    pub is_keyring: bool,
    /// A stop signal has come.
    is_stopped: Arc<AtomicBool>,
    /// The lock is held while the rehearsal runs, so that the next one can recognise a killed one.
    _alive: LockFile,
}

impl RehearsalEnvironment {
    /// Creates it beside the real store, on the same filesystem, with the store of the configuration. `has_keyring`: the
    /// keyring can be reached; sealed files take its place if not.
    pub(super) fn create(
        config: &Config,
        places: &Environment,
        token_endpoint: &str,
        has_keyring: bool,
    ) -> Result<Self, Failure> {
        let beside = config.store.path.as_deref().unwrap_or(&places.state_dir);
        let parent = beside.parent().unwrap_or(beside).to_owned();
        let cannot = |what: &str, e: io::Error| {
            Failure::new(ErrorKind::Io, format!("cannot {what} below {}: {e}", parent.display()))
                .with_hint("the rehearsal runs on the filesystem of the real store; free some space there")
        };
        durable::create_dir(&parent).map_err(|e| cannot("create a directory", e))?;
        remove_leftovers(&parent, places.session_bus.as_ref());
        let name = format!("{PREFIX}{}", hex::encode(random_bytes::<8>()));
        let dir = parent.join(&name);
        durable::create_dir(&dir).map_err(|e| cannot("create a directory", e))?;
        let alive = LockFile::acquire_within(&dir.join("alive"), LockWait::at_most(Duration::ZERO))
            .map_err(|e| cannot("lock a file", io::Error::other(e)))?;
        let executable = std::env::current_exe().map_err(|e| cannot("find this program", e))?;
        let is_keyring = has_keyring && matches!(config.store.kind, StoreKind::Keyring { .. });
        let is_stopped = Arc::new(AtomicBool::new(false));
        let bus = places.session_bus.clone();
        let stage = Self { dir, name, bus, executable, is_keyring, is_stopped, _alive: alive };
        let flag = Arc::clone(&stage.is_stopped);
        // Without the handler a signal ends the process at once, and the next rehearsal cleans up.
        let _unhandled = signals::on_stop_signal(move || flag.store(true, Ordering::SeqCst));
        stage.write_config(config, token_endpoint).map_err(|e| cannot("write the configuration", e))?;
        Ok(stage)
    }

    /// Whether a stop signal has come.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    fn write_config(&self, config: &Config, token_endpoint: &str) -> io::Result<()> {
        let store = match &config.store.kind {
            StoreKind::Keyring { .. } if self.is_keyring => format!("kind = \"keyring\"\nservice = {:?}", self.name),
            StoreKind::File { key } => format!("kind = \"file\"\nkey = {}", toml_key(key)),
            StoreKind::Keyring { .. } => {
                let key = self.dir.join("key");
                durable::replace(&key, &random_bytes::<32>())?;
                format!("kind = \"file\"\nkey = {}", toml_key(&KeySource::File(key)))
            }
        };
        let network = config.store.allow_network_filesystem;
        let text = format!(
            "margin = \"40%\"\n[hooks]\nnotify = \"off\"\n[store]\n{store}\nallow_network_filesystem = {network}\n\
             [provider.rehearsal]\ntoken_endpoint = {token_endpoint:?}\nclient_id = {CLIENT_ID:?}\n\
             [profile.{PROFILE}]\nprovider = \"rehearsal\"\n"
        );
        durable::replace(&self.config(), text.as_bytes())
    }

    fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join("socket")
    }

    /// Where the daemon writes its errors: nothing reads them while it runs, and a full pipe would stop it.
    pub(super) fn daemon_errors(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    /// This program as a process of its own, in this environment.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .args(arguments)
            .env(paths::CONFIG, self.config())
            .env(paths::STATE_DIR, self.state())
            .env(paths::SOCKET, self.socket())
            .env(paths::PARENT, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a command with `input` and returns its child process.
    pub(super) fn spawn_with(&self, arguments: &[&str], input: &str) -> io::Result<Child> {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        Ok(child)
    }

    /// Opens the store of this environment.
    pub(super) fn store(&self) -> Result<Store, Failure> {
        let config = Config::load(&self.config(), true, None).map_err(|e| e.to_failure())?;
        let bus = self.bus.clone();
        Ok(Store::new(&config.store, &self.state(), None, || keyring::open(bus)))
    }
}

impl Drop for RehearsalEnvironment {
    fn drop(&mut self) {
        remove_environment(&self.dir, &self.name, self.is_keyring.then_some(self.bus.as_ref()).flatten());
    }
}

fn toml_key(key: &KeySource) -> String {
    match key {
        KeySource::Credential(name) => format!("{{ credential = {name:?} }}"),
        KeySource::File(path) => format!("{{ file = {:?} }}", path.display().to_string()),
        KeySource::Command(argv) => format!("{{ command = {argv:?} }}"),
    }
}

/// Removes what killed rehearsals left: every environment whose lock is free.
fn remove_leftovers(parent: &Path, bus: Option<&SessionBus>) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && matches!(LockFile::try_acquire(&entry.path().join("alive")), Ok(Some(_))) {
            stop_leftover_daemon(&Layout::new(&entry.path().join("state")).daemon_lock());
            remove_environment(&entry.path(), &name, bus);
        }
    }
}

/// How long a daemon of a killed rehearsal gets to end by itself, and then to be gone.
const DAEMON_STOP_TIMEOUT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Ends the daemon that holds this lock, if there is one; its pid is in the lock file.
fn stop_leftover_daemon(lock: &Path) {
    for force in [Termination::Graceful, Termination::Kill] {
        let is_held = || LockFile::is_held(lock);
        let Some(pid) = is_held().then(|| LockHolder::of(lock).pid).flatten() else {
            return;
        };
        // A daemon that has ended meanwhile is no error.
        let _gone = process::terminate(pid, force);
        for _ in 0..DAEMON_STOP_TIMEOUT.as_millis() / POLL_INTERVAL.as_millis() {
            if !is_held() {
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "no event tells that another process freed its lock")]
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Removes an environment: first its keyring items, whose names are in its files, then its directory.
fn remove_environment(dir: &Path, name: &str, bus: Option<&SessionBus>) {
    if let Some(bus) = bus {
        let settings = StoreSettings {
            kind: StoreKind::Keyring { service: name.to_owned() },
            path: Some(dir.join("state")),
            allow_network_filesystem: true,
        };
        let store = Store::new(&settings, dir, None, || keyring::open(Some(bus.clone())));
        let key = store.uuid().map(|uuid| KeyringItem { service: format!("{name}-key"), user: uuid });
        let published = KeyringItem { service: name.to_owned(), user: PROFILE.to_owned() };
        for item in key.into_iter().chain([published]) {
            // Without the sealed files, items in a keyring that is away are useless.
            let _away = store.keyring().map(|keyring| keyring.delete(&item, ""));
        }
    }
    let _best_effort = std::fs::remove_dir_all(dir);
}
