//! Composes the parts: from environment and configuration to a store and an engine. Only this file names concrete parts.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config;
use crate::config::Config;
use crate::engine::after_flight::AfterFlight;
use crate::engine::{Engine, with_names};
use crate::hooks::Hooks;
use crate::hosts::HostPattern;
use crate::import_sources::ToolStores;
use crate::mirror::Mirrors;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::{Profile, ProfileName, SecretSource, StoreSettings};
use crate::provider::client_auth::{ClientCredentials, EMPTY_SECRET, SecretReader};
use crate::provider::http::{self, HttpEndpoint};
use crate::store::keyring;
use crate::store::keyring::KeyringItem;
use crate::store::{ProfileView, Store, StoreError};
use crate::sys::clock::SystemClock;
use crate::sys::paths::Environment;
use crate::sys::tool_process::CompanionProgram;
use crate::sys::{durable, paths, process};

/// The parts that work on credentials needs.
pub struct Setup {
    pub environment: Environment,
    pub config: Arc<Config>,
    pub store: Arc<Store>,
    pub clock: Arc<dyn Clock>,
    mirrors: OnceLock<Arc<Mirrors>>,
    hooks: OnceLock<Arc<Hooks>>,
}

impl Setup {
    /// Reads the configuration and opens the store, without using the keyring or the network yet.
    pub fn new(places: Environment) -> Result<Self, Failure> {
        let config = load(&places)?;
        Ok(Self::of_config(places, config))
    }

    /// As [`Setup::new`], but a named configuration file need not exist: the command is about to create it.
    pub fn for_new_config(places: Environment) -> Result<Self, Failure> {
        let config = load_named(&places, false)?;
        Ok(Self::of_config(places, config))
    }

    fn of_config(places: Environment, config: Config) -> Self {
        let store = Arc::new(open_store(&config.store, &places));
        Self::with_config(places, Arc::new(config), store, Arc::new(SystemClock))
    }

    /// A setup of the same places with the configuration of this moment, for a daemon.
    pub fn with_config(
        environment: Environment,
        config: Arc<Config>,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { environment, config, store, clock, mirrors: OnceLock::new(), hooks: OnceLock::new() }
    }

    /// Takes a changed configuration into use, and the store that it names. The same store stays open: it knows whether
    /// its key was made in this run.
    pub fn use_config(&mut self, config: Config) {
        if config.store != self.config.store {
            self.store = Arc::new(open_store(&config.store, &self.environment));
            (self.mirrors, self.hooks) = (OnceLock::new(), OnceLock::new());
        }
        self.config = Arc::new(config);
    }

    /// Reads the configuration again: another process may have added to it.
    pub fn reload_config(&mut self) -> Result<(), Failure> {
        let config = load_named(&self.environment, false)?;
        self.use_config(config);
        Ok(())
    }

    /// Makes the store ready for a credential of this profile, with all that can fail there, before any request.
    pub fn prepare_store(&self, name: &ProfileName) -> Result<(), Outcome> {
        let prepared = self.store.prepare_to_seal(name.as_str()).map(drop);
        let prepared =
            prepared.and_then(|()| self.store.check_admission(name).inspect_err(|_| self.discard_preparation()));
        prepared.map_err(|e| with_names(e.outcome(), &self.store, name))
    }

    /// What a refresh of the profile would lack at this moment, as far as that is told without a secret.
    pub fn missing_of_client(&self, profile: &Profile) -> Option<Failure> {
        let provider = &profile.provider;
        ClientCredentials::look_for(provider, look_for_secret).and_then(|()| http::check_ca_file(provider)).err()
    }

    /// Removes a key that was made for a first credential which did not come. If it stays, that does no harm.
    pub fn discard_preparation(&self) {
        let _left = self.store.keys().delete_unused();
    }

    /// An engine with its token endpoint. `is_resident`: it is for a daemon.
    pub fn engine(&self, is_resident: bool) -> Result<(Engine, Arc<HttpEndpoint>), Outcome> {
        let secrets = secret_reader(Arc::clone(&self.store));
        let metadata = self.store.layout().metadata();
        let endpoint = HttpEndpoint::new(secrets, Arc::clone(&self.clock), &metadata).map_err(|e| {
            Outcome::new(OutcomeKind::Deferred).with_error(
                Failure::new(ErrorKind::Runtime, format!("cannot start the network runtime: {e}"))
                    .with_hint("the limit of threads or open files is too low (ulimit -u, ulimit -n, pids.max)"),
            )
        })?;
        let endpoint = Arc::new(endpoint);
        let within = self.environment.active_profiles.clone();
        let engine = Engine::new(
            Arc::clone(&self.store),
            Arc::clone(&endpoint) as _,
            Arc::clone(&self.clock),
            is_resident,
            within,
        );
        let engine = engine.with_followed_stores(Arc::new(self.tool_stores()));
        let engine = engine.with_fed_programs(Arc::clone(self.mirrors()) as _);
        if is_resident {
            self.mirrors().limit_waits(None);
        }
        // A hook may be about what a mirror has written.
        let after: Vec<Arc<dyn AfterFlight>> = vec![Arc::clone(self.mirrors()) as _, Arc::clone(self.hooks()) as _];
        Ok((engine.with_after_flight(after), endpoint))
    }

    /// What other programs are fed by.
    pub fn mirrors(&self) -> &Arc<Mirrors> {
        self.mirrors.get_or_init(|| {
            let dirs = self.environment.tool_dirs.clone();
            let mirrors = Mirrors::new(Arc::clone(&self.store), dirs, Arc::clone(&self.clock));
            // Without one it does itself what the companion would do, within the time that it has.
            Arc::new(mirrors.with_companion(self.companion()))
        })
    }

    /// How this program starts itself once more. `None`: this is another program, which embeds the library.
    fn companion(&self) -> Option<CompanionProgram> {
        let config = Some(&self.environment.config).filter(|_| self.environment.is_config_explicit).cloned();
        self.environment.own_program.clone().map(|program| CompanionProgram { program, config })
    }

    /// Lets no hook delay this process: one that it leaves behind runs them.
    pub fn leave_hooks_behind(&self) {
        if let Some(companion) = self.companion() {
            self.hooks().leave_to(companion);
        }
    }

    /// Who is told what happens to profiles.
    pub fn hooks(&self) -> &Arc<Hooks> {
        self.hooks.get_or_init(|| {
            let bus = self.environment.session_bus.as_ref().map(|bus| bus.address.clone());
            let within = self.environment.active_profiles.clone();
            Arc::new(Hooks::new(Arc::clone(&self.store), Arc::clone(&self.clock), bus, within))
        })
    }

    /// The stores of other tools on this machine.
    pub fn tool_stores(&self) -> ToolStores {
        ToolStores {
            dirs: self.environment.tool_dirs.clone(),
            keyring: keyring::open(self.environment.session_bus.clone()),
        }
    }

    /// A profile as configured, or with the provider that its credential names. `Err`: how a command ends that needs it.
    pub fn profile(&self, name: &ProfileName) -> Result<Profile, Outcome> {
        self.profile_of_view(name, &self.store.view(name))
    }

    /// As [`Setup::profile`], by what was seen of its files.
    pub fn profile_of_view(
        &self,
        name: &ProfileName,
        view: &Result<ProfileView, StoreError>,
    ) -> Result<Profile, Outcome> {
        let binding = view.as_ref().ok().and_then(|view| view.journal.as_ref()?.binding.as_ref());
        self.config.profile(name, binding.map(|b| b.provider.as_str())).map_err(|e| match view {
            Ok(view) if binding.is_none() && !self.config.knows(name) && view.key_id().is_some() => {
                Outcome::new(OutcomeKind::StoreUnavailable).with_error(without_provider(name))
            }
            Ok(_) if binding.is_none() && !self.config.knows(name) => {
                Outcome::new(OutcomeKind::NeedsLogin).with_error(self.unknown_profile(name))
            }
            Ok(_) => Outcome::new(OutcomeKind::ConfigError).with_error(e.to_failure()),
            // It may be the one to know the provider: that is no fault of the configuration.
            Err(unreadable) => with_names(unreadable.outcome(), &self.store, name),
        })
    }

    /// The error about a profile that has no section, no credential, and not the name of a provider.
    pub fn unknown_profile(&self, name: &ProfileName) -> Failure {
        let names = self.all_profiles().unwrap_or_default();
        let providers = self.config.providers.keys().map(String::as_str);
        let meant = match config::nearest(name.as_str(), names.iter().map(ProfileName::as_str)) {
            Some(profile) => format!("; did you mean \"{profile}\"?"),
            None => config::nearest_provider(name.as_str(), providers)
                .map_or(String::new(), |provider| format!("; did you mean the provider \"{provider}\"?")),
        };
        let hint =
            format!("to create it: keepalive login {name} --provider NAME (`keepalive providers` lists the names)");
        Failure::new(ErrorKind::NoCredential, format!("no profile \"{name}\"{meant}")).with_hint(hint)
    }

    /// All profiles: those of the configuration, and those that only have a credential.
    pub fn all_profiles(&self) -> Result<Vec<ProfileName>, StoreError> {
        let mut names: BTreeSet<_> = self.config.profile_names().cloned().collect();
        for name in self.store.list_profiles()? {
            // One journal that cannot be read must not hide the other profiles: its own runs tell of it.
            let is_gone = || self.store.peek(&name).is_ok_and(|journal| journal.is_some_and(|r| r.is_tombstone));
            if !names.contains(&name) && !is_gone() {
                names.insert(name);
            }
        }
        Ok(names.into_iter().collect())
    }
}

/// The error about a credential that was stored, and whose journal was not written or is gone: no file names its provider.
pub fn without_provider(name: &ProfileName) -> Failure {
    let message = format!("profile {name} has a credential, but its record.json, which names the provider, is missing");
    let hint = format!("add [profile.{name}] with its provider, or repeat the import or the login that stored it");
    Failure::new(ErrorKind::JournalMissing, message).with_hint(hint)
}

/// Reads the configuration from its place.
pub fn load(places: &Environment) -> Result<Config, Failure> {
    load_named(places, places.is_config_explicit)
}

/// The servers of the profiles in a configuration that has mistakes, as far as it can be read.
pub fn hosts_of_broken_config(places: &Environment) -> Vec<HostPattern> {
    match Config::load(&places.config, places.is_config_explicit, places.home.as_deref()) {
        Err(error) => error.hosts().to_vec(),
        Ok(_) => Vec::new(),
    }
}

/// As [`load`]; `is_named`: the file must exist. A broken configuration is told with the profiles that will lack a provider
/// once it is mended, which only the store knows.
fn load_named(places: &Environment, is_named: bool) -> Result<Config, Failure> {
    Config::load(&places.config, is_named, places.home.as_deref()).map_err(|error| {
        let store = error.incomplete().map(|incomplete| open_store(&incomplete.store, places));
        let Some(store) = store else { return error.to_failure() };
        // Files that cannot be read may name the provider.
        let has_credential = |name: &ProfileName| {
            let has_binding = |view: &ProfileView| view.journal.as_ref().is_some_and(|j| j.binding.is_some());
            store.view(name).map_or(true, |view| view.key_id().is_some() || has_binding(&view))
        };
        error.with_incomplete_profiles(has_credential).to_failure()
    })
}

/// Logs the settings that have another effect than they seem to.
pub fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!(event = "config.warning", hint = warning.hint.as_deref().unwrap_or_default(), "{warning}");
    }
}

fn open_store(settings: &StoreSettings, places: &Environment) -> Store {
    let bus = places.session_bus.clone();
    Store::new(settings, &places.state_dir, places.credentials_dir.as_deref(), || keyring::open(bus))
}

/// Reads client secrets and keys from where the user keeps them.
fn secret_reader(store: Arc<Store>) -> SecretReader {
    Box::new(move |source, within| match source {
        SecretSource::Env(name) => {
            paths::user_variable(name).map(Zeroizing::new).ok_or_else(|| format!("the variable {name} is not set"))
        }
        SecretSource::Empty => Ok(Zeroizing::default()),
        SecretSource::File(path) => secret_file(path),
        SecretSource::Command(argv) => {
            process::capture_output(argv, within).map_err(|e| e.to_string()).and_then(|bytes| secret_text(&bytes))
        }
        SecretSource::Keyring(name) => {
            let keyring = store.keyring().ok_or("this store has no keyring")?;
            let item = KeyringItem { service: format!("{}-client", keyring.service()), user: name.clone() };
            match keyring.read(&item) {
                Ok(Some(found)) => Ok(found.value),
                Ok(None) => {
                    let service = item.service;
                    let how = if cfg!(target_os = "linux") {
                        format!(": secret-tool store --label={name} service {service} username {name}")
                    } else {
                        String::new()
                    };
                    Err(format!("the keyring has no item service={service} username={name}{how}"))
                }
                Err(e) => Err(e.to_string()),
            }
        }
    })
}

/// Whether a secret is there, as far as that is told without reading it, running a command or asking the keyring. The daemon
/// may have other variables.
fn look_for_secret(source: &SecretSource) -> Result<(), String> {
    match source {
        SecretSource::File(path) => {
            let about = durable::open_foreign(path).and_then(|file| file.metadata());
            match about.map_err(|e| format!("{}: {e}", path.display()))?.len() {
                0 => Err(EMPTY_SECRET.into()),
                _ => Ok(()),
            }
        }
        SecretSource::Env(_) | SecretSource::Empty | SecretSource::Command(_) | SecretSource::Keyring(_) => Ok(()),
    }
}

fn secret_file(path: &Path) -> Result<Zeroizing<String>, String> {
    let bytes = durable::read_foreign(path).map_err(|e| format!("{}: {e}", path.display()))?;
    secret_text(&Zeroizing::new(bytes))
}

/// The secret as text. The newline that editors and `echo` add is not part of it.
fn secret_text(bytes: &[u8]) -> Result<Zeroizing<String>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() { Err(EMPTY_SECRET.into()) } else { Ok(Zeroizing::new(text.to_owned())) }
}
