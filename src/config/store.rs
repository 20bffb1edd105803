//! `[store]`: where credentials are kept, and where the sealing key comes from.

use super::error::{ConfigError, ValueError};
use super::keys;
use super::section::{Entry, Section};
use super::values;
use crate::profile::{KeySource, StoreKind, StoreSettings};

/// The keyring namespace unless `service` names another.
const DEFAULT_SERVICE: &str = "keepalive";

#[derive(Clone, Copy)]
enum StoreKindKeyword {
    Keyring,
    File,
}

/// The settings without a `[store]` section: the OS keyring.
pub(super) fn default() -> StoreSettings {
    StoreSettings {
        kind: StoreKind::Keyring { service: DEFAULT_SERVICE.into() },
        path: None,
        allow_network_filesystem: false,
    }
}

/// The settings. Mistakes are noted, and the default then stands for what has them.
pub(super) fn read(section: &Section<'_>) -> StoreSettings {
    section.reject_unknown(&[keys::STORE]);
    let kind =
        section.read("kind", |e| e.choice(&[("keyring", StoreKindKeyword::Keyring), ("file", StoreKindKeyword::File)]));
    let service = section.read("service", |e| e.parse(|text| values::external_name(text, "")));
    let key = section.read("key", key_source);
    let path = |text: &str| values::path(text, section.document.path, section.document.home);
    let path = section.read("path", |e| e.parse(path));
    let allow_network_filesystem = section.read("allow_network_filesystem", Entry::flag).unwrap_or(false);
    let kind = store_kind(section, kind.unwrap_or(StoreKindKeyword::Keyring), service, key);
    StoreSettings { kind, path, allow_network_filesystem }
}

/// The kind, with the keys that only one of the two has.
fn store_kind(
    section: &Section<'_>,
    kind: StoreKindKeyword,
    service: Option<String>,
    key: Option<KeySource>,
) -> StoreKind {
    let follows = |about: &[&str]| section.has_mistake_about(about, keys::STORE);
    let note = |key, message, hint: &str| section.document.note(section.diagnostic(key, message, hint).into());
    match (kind, key) {
        (StoreKindKeyword::Keyring, Some(_)) if !follows(&["kind"]) => {
            let message = "key has no effect with kind = \"keyring\": the keyring keeps the key";
            note("key", message, "write kind = \"file\", or remove key");
        }
        (StoreKindKeyword::Keyring, _) => {}
        (StoreKindKeyword::File, key) => {
            if section.has("service") {
                let message = "service has no effect without a keyring";
                note("service", message, "write kind = \"keyring\", or remove service");
            }
            if let Some(key) = key {
                return StoreKind::File { key };
            }
            if !follows(&["key"]) {
                let path = section.document.path.with_file_name("store.key");
                let path = path.display();
                let hint = format!(
                    "create one with (umask 077; set -C; head -c 32 /dev/urandom > {path}) and write key = {{ file = \"{path}\" }}"
                );
                note("kind", "kind = \"file\" needs a key to encrypt the files", &hint);
            }
        }
    }
    StoreKind::Keyring { service: service.unwrap_or_else(|| DEFAULT_SERVICE.into()) }
}

fn key_source(entry: &Entry<'_>) -> Result<KeySource, ConfigError> {
    if entry.text().is_ok() {
        let problem = ValueError::new("cannot be written in the configuration itself");
        return Err(entry.value_error(problem.hint("put it in a separate file: key = { file = \"PATH\" }")));
    }
    let section = entry.section()?;
    let source = section.single_entry(keys::STORE_KEY)?;
    match source.key {
        "credential" => source.parse(|text| values::external_name(text, "/")).map(KeySource::Credential),
        "command" => source.command().map(KeySource::Command),
        _ => {
            let path = |text: &str| values::path(text, section.document.path, section.document.home);
            source.parse(path).map(KeySource::File)
        }
    }
}
