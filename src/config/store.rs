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

/// The settings, unless they have mistakes, which are noted.
pub(super) fn read(section: &Section<'_>) -> Option<StoreSettings> {
    let before = section.document.mistake_count();
    section.reject_unknown(&[keys::STORE]);
    let kind =
        section.read("kind", |e| e.choice(&[("keyring", StoreKindKeyword::Keyring), ("file", StoreKindKeyword::File)]));
    let service = section.read("service", |e| e.parse(|text| values::external_name(text, "")));
    let key = section.read("key", key_source);
    let path = |text: &str| values::path(text, section.document.path, section.document.home);
    let path = section.read("path", |e| e.parse(path));
    let allow_network_filesystem = section.read("allow_network_filesystem", Entry::flag).unwrap_or(false);
    if !section.document.is_clean_since(before) {
        return None;
    }
    let kind = store_kind(section, kind.unwrap_or(StoreKindKeyword::Keyring), service, key);
    Some(StoreSettings { kind: section.document.noted(kind)?, path, allow_network_filesystem })
}

fn store_kind(
    section: &Section<'_>,
    kind: StoreKindKeyword,
    service: Option<String>,
    key: Option<KeySource>,
) -> Result<StoreKind, ConfigError> {
    match (kind, service, key) {
        (StoreKindKeyword::Keyring, service, None) => {
            Ok(StoreKind::Keyring { service: service.unwrap_or_else(|| DEFAULT_SERVICE.into()) })
        }
        (StoreKindKeyword::File, None, Some(key)) => Ok(StoreKind::File { key }),
        (StoreKindKeyword::Keyring, _, Some(_)) => {
            let message = "key has no effect with kind = \"keyring\": the keyring keeps the key";
            Err(section.diagnostic("key", message, "write kind = \"file\", or remove key").into())
        }
        (StoreKindKeyword::File, Some(_), _) => {
            let message = "service has no effect without a keyring";
            Err(section.diagnostic("service", message, "write kind = \"keyring\", or remove service").into())
        }
        (StoreKindKeyword::File, None, None) => {
            let path = section.document.path.with_file_name("store.key");
            let path = path.display();
            let hint = format!(
                "create one with (umask 077; set -C; head -c 32 /dev/urandom > {path}) and write key = {{ file = \"{path}\" }}"
            );
            Err(section.diagnostic("kind", "kind = \"file\" needs a key to encrypt the files", hint).into())
        }
    }
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
