//! The choice of a store: the sealed file store is offered where no keyring can be reached, and made after one yes.

use std::path::{Path, PathBuf};

use super::output::Output;
use crate::access::setup::Setup;
use crate::config::addition::Addition;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::{KeySource, StoreKind};
use crate::store::StoreError;
use crate::store::keyring::KeyringError;
use crate::store::keys::sealing_key::{random_bytes, read_key};
use crate::sys::durable;

/// The sealed file store that a configuration is about to name.
pub(super) struct NewFileStore {
    key: PathBuf,
    has_key: bool,
}

impl NewFileStore {
    /// The key lies beside the configuration. One that is there is used; one that cannot be is an error.
    pub(super) fn plan(config: &Path) -> Result<Self, Failure> {
        let beside = config.with_file_name("store.key");
        let key = std::path::absolute(&beside).unwrap_or(beside);
        if key.to_str().is_none() {
            let message = format!("{} is not UTF-8, so a configuration cannot name it", key.display());
            return Err(Failure::new(ErrorKind::Config, message).with_hint("use --config with another place"));
        }
        let has_key = std::fs::symlink_metadata(&key).is_ok();
        if has_key {
            check_key(&key)?;
        }
        Ok(Self { key, has_key })
    }

    pub(super) fn key(&self) -> &Path {
        &self.key
    }

    /// What a yes does, in words.
    pub(super) fn text(&self) -> String {
        let key = self.key.display();
        if self.has_key { format!("the key file {key} is there and is used") } else { format!("creates the key {key}") }
    }

    /// Creates the key, unless it is there, and then adds the sections.
    pub(super) fn create(&self, addition: &Addition, lock: &Path, out: &Output) -> Result<(), Failure> {
        if !self.has_key {
            create_key(&self.key)?;
        }
        if let Err(e) = addition.write(lock) {
            if !self.has_key {
                let _unused = durable::remove(&self.key);
            }
            return Err(e.to_failure());
        }
        if !self.has_key {
            out.info(&format!("created the key {}", self.key.display()));
        }
        out.info(&format!("added [store] kind = \"file\" to {}", addition.path().display()));
        out.info("keep a copy of the key with your backups: without it, what is sealed cannot be opened");
        Ok(())
    }
}

/// Creates a key file; never over another.
pub(super) fn create_key(path: &Path) -> Result<(), Failure> {
    let dir = path.parent().unwrap_or(path);
    durable::create_dir(dir)
        .and_then(|()| durable::create_new(path, &random_bytes::<32>()))
        .map_err(|e| Failure::new(ErrorKind::Io, format!("cannot create the key {}: {e}", path.display())))
}

/// Whether a key file can be used.
pub(super) fn check_key(path: &Path) -> Result<(), Failure> {
    read_key(&KeySource::File(path.to_owned()), None, "").map(drop).map_err(|e| {
        let hint = match &e {
            crate::store::keys::sealing_key::KeyError::Malformed(_) => {
                "it is not a key of keepalive: move it away, or use --config with another place".to_owned()
            }
            other => other.hint(),
        };
        Failure::new(ErrorKind::Key, e.to_string()).with_hint(hint)
    })
}

/// The lock of those who add to the configuration.
pub(super) fn config_lock(setup: &Setup) -> PathBuf {
    setup.environment.state_dir.join("config.lock")
}

/// Whether a login here would use a keyring by default, and there is none. `Err`: the keyring is there and fails, which is
/// told by those who use it.
pub(super) fn missing_keyring(setup: &Setup) -> Option<KeyringError> {
    match setup.store.keyring()?.check() {
        Err(error @ (KeyringError::NoBus | KeyringError::NoService)) => Some(error),
        Err(_) | Ok(()) => None,
    }
}

/// Why the sealed file store may be offered: no store is chosen, nothing is stored yet, and there is no keyring.
pub(super) fn reason_for_file_store(setup: &Setup) -> Option<KeyringError> {
    let is_undecided = !setup.config.has_store_section && matches!(setup.config.store.kind, StoreKind::Keyring { .. });
    if !is_undecided || has_credentials(setup).unwrap_or(true) {
        return None;
    }
    missing_keyring(setup)
}

/// Whether something is stored here, sealed under the key of another kind of store.
pub(super) fn has_credentials(setup: &Setup) -> Result<bool, StoreError> {
    let is_stored = |name| setup.store.peek(name).map_or(true, |journal| journal.is_some_and(|j| !j.is_tombstone));
    Ok(setup.store.list_profiles()?.iter().any(is_stored))
}

/// Offers the sealed file store at a terminal if there is no keyring, and takes it into use after a yes. Without a terminal
/// nothing happens: the error of the keyring then names `keepalive init`.
pub(super) fn offer_file_store(setup: &mut Setup, out: &Output) -> Result<(), Failure> {
    if !out.can_ask() {
        return Ok(());
    }
    let Some(reason) = reason_for_file_store(setup) else { return Ok(()) };
    let store = NewFileStore::plan(&setup.environment.config)?;
    let mut addition = Addition::new(&setup.environment.config, setup.environment.home.as_deref());
    addition.add_file_store(store.key());
    let config = addition.preview().map_err(|e| e.to_failure())?;
    addition.check_writable().map_err(|e| e.to_failure())?;
    show_offer(&reason, &store, &addition, out);
    if out.ask("Use it?") != Some(true) {
        return Err(declined());
    }
    store.create(&addition, &config_lock(setup), out)?;
    setup.use_config(config);
    Ok(())
}

/// Shows what is offered where there is no keyring.
pub(super) fn show_offer(reason: &KeyringError, store: &NewFileStore, addition: &Addition, out: &Output) {
    out.prompt(&format!(
        "{reason}. Credentials can be kept in encrypted files instead. A yes {}, and adds to {}:\n",
        store.text(),
        addition.path().display(),
    ));
    out.prompt_lines(&indented(addition.text()));
}

/// Lines to be shown as they will be in a file.
pub(super) fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".into() } else { format!("    {line}\n") }).collect()
}

pub(super) fn declined() -> Failure {
    Failure::new(ErrorKind::Declined, "nothing was changed")
}
