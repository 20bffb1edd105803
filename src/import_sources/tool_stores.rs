//! Finds and reads the stores of other tools on this machine: a file, the keyring, `sqlite3`, or the tool's own
//! command.

use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::credential::external::{ExternalCredential, ImportSource};
use crate::import_sources::files;
use crate::import_sources::files::{MAX_STORE_BYTES, from_file, mcp_remote_dir, unreadable_error};
use crate::import_sources::tools::Tool;
use crate::import_sources::{
    ToolAccount, ToolStoreError, agents, claude, config_files, is_known_provider, json, openclaw, openclaw_database,
    pizauth, select_account, with_unique_names,
};
use crate::outcome::Failure;
use crate::store::keyring::{Keyring, KeyringError, KeyringItem};
use crate::sys::paths::ToolDirs;
use crate::sys::process;
use crate::sys::process::WaitPolicy;

/// The stores of this machine.
pub struct ToolStores {
    pub dirs: ToolDirs,
    /// The keyring, used only if a tool keeps its credential there.
    pub keyring: Box<dyn Keyring>,
}

/// The store to read, and the account in it.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// The file to read instead of the tool's usual one; `-` is standard input.
    pub file: Option<PathBuf>,
    pub account: Option<String>,
}

/// The credential that was found, and where.
#[derive(Debug)]
pub struct FoundCredential {
    pub credential: ExternalCredential,
    pub origin: ImportSource,
    /// The provider that it is for, if the store says.
    pub provider: Option<String>,
}

/// The bytes of a store, and the name of their place.
pub(super) struct StoreBytes {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) location: String,
    /// Whether the place can be read again.
    pub(super) can_be_reread: bool,
    /// They are not of the file at that place, but of the keyring item that stands for it.
    pub(super) is_in_keyring: bool,
}

impl ToolStores {
    /// Reads a tool's store and picks an account. The tool's own program may ask the person for a password.
    pub fn read_account(&self, tool: Tool, selector: &Selector) -> Result<FoundCredential, Failure> {
        let bytes = match &selector.file {
            Some(file) if file.as_os_str() == "-" => from_stdin(tool)?,
            Some(file) => self.read_at(tool, &absolute(file), "")?,
            None => match default_path(tool, &self.dirs) {
                Some(place) => self.read_at(tool, &place, "")?,
                None => read_by_tool(tool, selector)?,
            },
        };
        let found = self.pick_account(tool, &bytes, selector.account.as_deref());
        found.map_err(|trouble| trouble.to_failure(tool.info().name, &bytes.location))
    }

    pub(super) fn pick_account(
        &self,
        tool: Tool,
        bytes: &StoreBytes,
        account: Option<&str>,
    ) -> Result<FoundCredential, ToolStoreError> {
        let entries = read(tool, &bytes.bytes)?;
        let ToolAccount { id, provider, credential: content } = select_account(entries, account)?;
        let foreign = content.map_err(|trouble| match id.is_empty() {
            true => trouble,
            false => ToolStoreError { message: format!("{id}: {}", trouble.message), ..trouble },
        })?;
        let foreign = with_account(tool, bytes, foreign);
        let origin = ImportSource {
            tool: tool.info().name.to_owned(),
            location: (bytes.can_be_reread && tool.info().is_readable_unattended).then(|| bytes.location.clone()),
            account: (!id.is_empty()).then_some(id),
            identity: foreign.identity.clone(),
            provider: lasting_provider(tool, provider.as_deref()),
            is_in_keyring: bytes.is_in_keyring,
        };
        Ok(FoundCredential { credential: foreign, origin, provider })
    }

    /// Whether the store that a credential came from has its access token alone, so that the tool refreshes nothing.
    pub fn is_fed(&self, origin: &ImportSource, within: &str) -> bool {
        let Some((tool, place)) = Tool::from_name(&origin.tool).zip(origin.location.as_ref()) else { return false };
        let store = self.read_store(tool, Path::new(place), within, origin.is_in_keyring).ok().flatten();
        store.is_some_and(|store| {
            account_in(tool, &store.bytes, origin).is_err_and(|trouble| trouble == ToolStoreError::fed())
        })
    }

    /// Reads the store at a place. `within`: the profile that it is read for.
    fn read_at(&self, tool: Tool, place: &Path, within: &str) -> Result<StoreBytes, Failure> {
        let found = self.read_store(tool, place, within, false);
        let found = found.and_then(|found| found.ok_or_else(|| missing_store(tool, place)));
        found.map_err(|trouble| trouble.to_failure(tool.info().name, &place.display().to_string()))
    }

    /// The store at a place, or the keyring item that a tool keeps instead of that file. `None`: there is neither.
    /// `was_in_keyring`: it was found in the keyring before.
    pub(super) fn read_store(
        &self,
        tool: Tool,
        place: &Path,
        within: &str,
        was_in_keyring: bool,
    ) -> Result<Option<StoreBytes>, ToolStoreError> {
        // A stream of this process, whatever it is connected to.
        let can_be_reread = !["/dev", "/proc"].iter().any(|dir| place.starts_with(dir));
        let location = place.display().to_string();
        let (bytes, is_in_keyring) = match self.read_bytes(tool, place, within)? {
            None if tool == Tool::Codex => {
                let without_file = |e: ToolStoreError| ToolStoreError {
                    message: format!("it does not exist, and {}", e.message),
                    ..e
                };
                (self.codex_in_keyring(place, was_in_keyring).map_err(without_file)?, true)
            }
            bytes => (bytes, false),
        };
        Ok(bytes.map(|bytes| StoreBytes { bytes, location, can_be_reread, is_in_keyring }))
    }

    /// `None`: there is no file at that place.
    pub(super) fn read_bytes(
        &self,
        tool: Tool,
        place: &Path,
        within: &str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, ToolStoreError> {
        match tool {
            Tool::OpenClaw => openclaw_database::read(place, within),
            Tool::Pizauth if place == Path::new(PIZAUTH_DUMP) => pizauth_dump(within),
            Tool::CliProxy if place.is_dir() => files::read_directory(place, None, true),
            Tool::McpRemote if place.is_dir() => files::read_directory(place, None, false),
            Tool::McpRemote => files::read_mcp_remote_file(place),
            _ => from_file(place),
        }
    }

    /// With `cli_auth_credentials_store = "keyring"` Codex keeps the content of `auth.json` in a keyring item, whose
    /// name depends on its home directory. `is_expected`: it was there before.
    pub(super) fn codex_in_keyring(
        &self,
        file: &Path,
        is_expected: bool,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, ToolStoreError> {
        let Some(home) = file.parent() else { return Ok(None) };
        let home = home.canonicalize().unwrap_or_else(|_| home.to_owned());
        let digest = Sha256::digest(home.as_os_str().as_encoded_bytes());
        let item = KeyringItem { service: "Codex Auth".into(), user: format!("cli|{}", hex::encode(&digest[..8])) };
        match self.keyring.read(&item) {
            Ok(found) => Ok(found.map(|found| Zeroizing::new(found.value.as_bytes().to_vec()))),
            Err(e) => match e.cause() {
                // Without a keyring there is no item either, unless Codex may use one: another session may have it.
                KeyringError::NoBus | KeyringError::NoService | KeyringError::NoCollection
                    if !is_expected && !files::uses_keyring(&home) =>
                {
                    Ok(None)
                }
                _ => Err(ToolStoreError::new(format!("the keyring cannot be read: {e}"), e.hint())),
            },
        }
    }
}

/// A credential of a store with what is known of it from elsewhere.
pub(super) fn with_account(tool: Tool, store: &StoreBytes, found: ExternalCredential) -> ExternalCredential {
    let found = ExternalCredential { is_in_keyring: store.is_in_keyring, ..found };
    if tool != Tool::Claude || !store.can_be_reread {
        return found;
    }
    let (account, account_file) = claude::account(Path::new(&store.location));
    ExternalCredential { identity: account.merged_with(found.identity), account_file, ..found }
}

/// Where a tool keeps its store, by the same variables as the tool itself, if that is a file or a directory that can be read.
pub fn default_path(tool: Tool, dirs: &ToolDirs) -> Option<PathBuf> {
    let below = |dir: &Option<PathBuf>, name: &str| dir.as_ref().map(|dir| dir.join(name));
    match tool {
        Tool::Codex => below(&dirs.codex, "auth.json"),
        Tool::Claude => below(&dirs.claude, ".credentials.json"),
        Tool::Grok => below(&dirs.grok, "auth.json"),
        Tool::Gemini => below(&dirs.gemini, "oauth_creds.json"),
        Tool::OpenClaw => dirs.openclaw.as_deref().and_then(first_there),
        Tool::Pizauth => Some(PIZAUTH_DUMP.into()),
        Tool::OidcAgent => None,
        Tool::Opencode => below(&dirs.opencode, "auth.json"),
        Tool::Pi => below(&dirs.pi, "auth.json"),
        Tool::Hermes => below(&dirs.hermes, "auth.json"),
        Tool::LiteLlm => dirs.litellm.clone(),
        Tool::CliProxy => dirs.cliproxy.clone(),
        Tool::McpRemote => dirs.mcp_remote.as_deref().map(mcp_remote_dir),
        Tool::Rclone => dirs.rclone.clone(),
        Tool::GhHosts => below(&dirs.gh, "hosts.yml"),
    }
}

fn account_in(tool: Tool, bytes: &[u8], origin: &ImportSource) -> Result<ExternalCredential, ToolStoreError> {
    select_account(read(tool, bytes)?, origin.account.as_deref())?.credential
}

/// The provider of an entry, if that tells it from other entries. Some tools name an entry by its provider, and a person may
/// give it another name.
pub(super) fn lasting_provider(tool: Tool, told: Option<&str>) -> Option<String> {
    let is_name = matches!(tool, Tool::Opencode | Tool::Pi | Tool::Hermes);
    told.filter(|told| !is_name || is_known_provider(told)).or(tool.info().provider).map(str::to_owned)
}

pub(super) fn read(tool: Tool, bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    let entries = match tool {
        Tool::Codex => json::codex(bytes),
        Tool::Claude => json::claude(bytes),
        Tool::Grok => json::grok(bytes),
        Tool::Gemini => json::gemini(bytes),
        Tool::OidcAgent => json::oidc_agent(bytes),
        Tool::OpenClaw => openclaw::read(bytes),
        Tool::Pizauth => pizauth::read(bytes),
        Tool::Opencode | Tool::Pi => agents::by_provider(bytes),
        Tool::Hermes => agents::hermes(bytes),
        Tool::LiteLlm => agents::litellm(bytes),
        Tool::CliProxy => agents::cliproxy(bytes),
        Tool::McpRemote => agents::mcp_remote(bytes),
        Tool::Rclone => config_files::rclone(bytes),
        Tool::GhHosts => config_files::gh_hosts(bytes),
    };
    entries.map(with_unique_names)
}

/// Of OpenClaw's stores the first that is there, or where it would be.
fn first_there(dir: &Path) -> Option<PathBuf> {
    let places = openclaw_database::places(dir);
    places.iter().find(|place| place.exists()).or(places.first()).cloned()
}

fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

fn missing_store(tool: Tool, place: &Path) -> ToolStoreError {
    let name = tool.info().name;
    if let Some(encrypted) = files::encrypted_store(tool, place) {
        let message = format!(
            "it does not exist; {name} keeps its sign-in in {}, which only {name} can read",
            encrypted.display()
        );
        let hint = match tool {
            Tool::Codex => {
                "set secret_auth_storage = false below [features] in Codex's config.toml and sign in there again; or sign in \
                 separately: keepalive login"
            }
            _ => "sign in separately: keepalive login",
        };
        return ToolStoreError::new(message, hint);
    }
    let hint = match tool {
        Tool::Claude if cfg!(target_os = "macos") => {
            "on macOS: security find-generic-password -s \"Claude Code-credentials\" -w | keepalive import PROFILE --from claude -"
                .to_owned()
        }
        _ => format!("sign in with {name}, or give the path of its store: keepalive import PROFILE --from {name} FILE"),
    };
    ToolStoreError::new("it does not exist", hint)
}

fn from_stdin(tool: Tool) -> Result<StoreBytes, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    let place = "standard input".to_owned();
    match std::io::stdin().lock().take(MAX_STORE_BYTES).read_to_end(&mut bytes) {
        Ok(_) => Ok(StoreBytes { bytes, location: place, can_be_reread: false, is_in_keyring: false }),
        Err(e) => Err(unreadable_error(&e).to_failure(tool.info().name, &place)),
    }
}

/// pizauth keeps its tokens in memory, and this command of it prints them.
pub(super) const PIZAUTH_DUMP: &str = "pizauth dump";

fn pizauth_dump(within: &str) -> Result<Option<Zeroizing<Vec<u8>>>, ToolStoreError> {
    let argv: Vec<String> = PIZAUTH_DUMP.split(' ').map(str::to_owned).collect();
    let dumped = process::run_command(&argv, within, WaitPolicy::Silent { longest: MAX_STORE_BYTES });
    dumped.map(Some).map_err(|e| ToolStoreError::new(e.to_string(), "start pizauth, or sign in again: keepalive login"))
}

/// Reads tools that show their tokens only through their own program, which may ask the person for a password.
fn read_by_tool(tool: Tool, selector: &Selector) -> Result<StoreBytes, Failure> {
    let name = tool.info().name;
    let argv = match (tool, &selector.account) {
        (Tool::OidcAgent, Some(account)) if !account.starts_with('-') => {
            vec!["oidc-gen".to_owned(), "--print".to_owned(), account.clone()]
        }
        (Tool::OidcAgent, _) => {
            let trouble =
                ToolStoreError::new("no account is given", "name it with --account; oidc-gen --accounts lists them");
            return Err(trouble.to_failure(name, "oidc-gen"));
        }
        (_, _) => {
            let trouble = ToolStoreError::new(
                "the home directory is unknown",
                format!("give the path of its store: --from {name} FILE"),
            );
            return Err(trouble.to_failure(name, "its store"));
        }
    };
    let place = argv.join(" ");
    match process::run_command(&argv, "", WaitPolicy::Interactive { longest: MAX_STORE_BYTES }) {
        Ok(bytes) if bytes.trim_ascii().is_empty() => {
            let hint = format!("try it yourself: {place}");
            Err(ToolStoreError::new("it printed nothing", hint).to_failure(name, &place))
        }
        Ok(bytes) => Ok(StoreBytes { bytes, location: place, can_be_reread: false, is_in_keyring: false }),
        Err(e) => {
            let hint = format!("or sign in separately from {name}: keepalive login");
            Err(ToolStoreError::new(e.to_string(), hint).to_failure(name, &place))
        }
    }
}
