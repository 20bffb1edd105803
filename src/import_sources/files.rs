//! Reads the files of stores; a store can be a directory with a JSON file for each sign-in.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::import_sources::ToolStoreError;
use crate::import_sources::tools::Tool;
use crate::sys::{durable, secret_file};

/// The size limit: no store of one person's sign-ins is larger.
pub(super) const MAX_STORE_BYTES: u64 = 8 * 1024 * 1024;

/// The content of a file; `None`: there is none.
pub(super) fn from_file(place: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, ToolStoreError> {
    let file = match durable::open_foreign(place) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable_error(&e)),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_STORE_BYTES).read_to_end(&mut bytes).map_err(|e| unreadable_error(&e))?;
    Ok(Some(bytes))
}

/// Checks that a store that is not there was removed. It is unknown where it would be on a filesystem that is not there now:
/// where a link leads nowhere, or the directory that is left is another user's, as that of mount points is.
pub(super) fn check_gone(place: &Path) -> Result<(), ToolStoreError> {
    let left = place.ancestors().find(|path| std::fs::symlink_metadata(path).is_ok());
    match left {
        Some(dir) if dir != place && dir.is_dir() && secret_file::is_owned(dir) => Ok(()),
        Some(_) | None => {
            Err(ToolStoreError::new("it cannot be found", "it may be on a filesystem that is not mounted"))
        }
    }
}

/// Whether a store may be on a filesystem that is not there now.
pub(super) fn may_be_away(place: &Path) -> bool {
    !place.exists() && check_gone(place).is_err()
}

/// Whether Codex may keep its sign-in in the keyring: it is told so, or what it is told cannot be read. Told nothing, it
/// writes the file.
pub(super) fn uses_keyring(home: &Path) -> bool {
    let files = [home.join("config.toml"), "/etc/codex/config.toml".into(), "/etc/codex/managed_config.toml".into()];
    let read = |text: &[u8]| toml::from_str::<toml::Table>(std::str::from_utf8(text).ok()?).ok();
    files.iter().any(|file| match from_file(file) {
        Ok(text) => text.is_some_and(|text| read(&text).is_none_or(|settings| names_keyring(&settings))),
        Err(_) => true,
    })
}

/// Whether a table, or one within it, names another store than the file.
fn names_keyring(settings: &toml::Table) -> bool {
    settings.iter().any(|(key, value)| match value {
        toml::Value::Table(within) => names_keyring(within),
        value => key == "cli_auth_credentials_store" && value.as_str() != Some("file"),
    })
}

pub(super) fn unreadable_error(error: &std::io::Error) -> ToolStoreError {
    ToolStoreError::new(format!("it cannot be read: {error}"), "make it readable for the user that runs keepalive")
}

/// The JSON files of a directory as one object by their names: all, or those whose name begins so; those of the directories
/// in it too if it is read `deep`. A file that is no JSON is null: a tool may be writing it.
pub(super) fn read_directory(
    dir: &Path,
    prefix: Option<&str>,
    deep: bool,
) -> Result<Option<Zeroizing<Vec<u8>>>, ToolStoreError> {
    let (mut files, mut size, mut dirs) = (Map::new(), 0, vec![dir.to_owned()]);
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(&next).map_err(|e| unreadable_error(&e))?.flatten() {
            let path = entry.path();
            if deep && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(path);
                continue;
            }
            let Some(name) = path.strip_prefix(dir).ok().and_then(Path::to_str) else { continue };
            let is_json =
                path.extension().is_some_and(|end| end == "json" || (deep && end.eq_ignore_ascii_case("json")));
            if !is_json || !name.starts_with(prefix.unwrap_or("")) {
                continue;
            }
            let Some(bytes) = from_file(&path)? else { continue };
            size += bytes.len() as u64;
            if size > MAX_STORE_BYTES {
                return Err(ToolStoreError::new("it is too large", "give the path of one file in it"));
            }
            files.insert(name.to_owned(), serde_json::from_slice::<Value>(&bytes).unwrap_or_default());
        }
    }
    Ok(Some(Zeroizing::new(Value::Object(files).to_string().into_bytes())))
}

/// What is in a directory; the directory itself if that cannot be told.
pub(super) fn list(dir: &Path) -> Vec<PathBuf> {
    match std::fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(_) => vec![dir.to_owned()],
    }
}

/// `HASH_tokens.json` of mcp-remote, with the file of its client beside it.
pub(super) fn read_mcp_remote_file(file: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, ToolStoreError> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match (name.strip_suffix("tokens.json"), file.parent()) {
        (Some(prefix), Some(dir)) if file.is_file() => read_directory(dir, Some(prefix), false),
        _ => from_file(file),
    }
}

/// The directory of mcp-remote's files: it is named for the form of the store, and was named for the version before.
pub(super) fn mcp_remote_dir(base: &Path) -> PathBuf {
    let newest = || {
        let dirs = std::fs::read_dir(base).ok()?.flatten().map(|entry| entry.path());
        let dirs = dirs.filter(|dir| dir.file_name().is_some_and(|n| n.to_string_lossy().starts_with("mcp-remote-")));
        dirs.max_by_key(|dir| std::fs::metadata(dir).and_then(|about| about.modified()).ok())
    };
    let current = base.join("mcp-remote-v1");
    if current.is_dir() { current } else { newest().unwrap_or(current) }
}

/// Stores that only their tool can read.
pub(super) fn is_encrypted(place: &Path) -> bool {
    ENCRYPTED.iter().any(|(_, name)| place.ends_with(name))
}

/// Beside the plain store of a tool, the encrypted one that it may move its sign-in to.
const ENCRYPTED: [(Tool, &str); 2] =
    [(Tool::Codex, "secrets/codex_auth.age"), (Tool::Gemini, "gemini-credentials.json")];

/// The encrypted store of a tool beside the plain one, if there is one.
pub(super) fn encrypted_store(tool: Tool, place: &Path) -> Option<PathBuf> {
    let dir = place.parent()?;
    let name = ENCRYPTED.iter().find(|(of, _)| *of == tool)?.1;
    // One that cannot be looked at may be there.
    let is_absent =
        |path: &Path| std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
    Some(dir.join(name)).filter(|path| !is_absent(path))
}
