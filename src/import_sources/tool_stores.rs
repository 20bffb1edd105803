//! Finds and reads the stores of other tools on this machine: a file, the keyring, `sqlite3`, or the tool's own
//! command.

use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::credential::external::{AccountIdentity, ExternalCredential, ImportSource};
use crate::engine::refresh::followed_stores::{FollowedStores, StoreContent, ToolFacts};
use crate::import_sources::files;
use crate::import_sources::files::{MAX_STORE_BYTES, from_file, mcp_remote_dir, unreadable_error};
use crate::import_sources::tools::Tool;
use crate::import_sources::{
    ToolAccount, ToolStoreError, agents, config_files, json, openclaw, pizauth, select_account,
};
use crate::outcome::{ErrorKind, Failure};
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
struct StoreBytes {
    bytes: Zeroizing<Vec<u8>>,
    location: String,
    /// Whether the place can be read again.
    can_be_reread: bool,
}

impl ToolStores {
    /// Reads a tool's store and picks an account. The tool's own program may ask the person for a password.
    pub fn read_account(&self, tool: Tool, selector: &Selector) -> Result<FoundCredential, Failure> {
        let bytes = match &selector.file {
            Some(file) if file.as_os_str() == "-" => from_stdin(tool)?,
            Some(file) => self.read_at(tool, &absolute(file), "")?,
            None => match self.default_path(tool) {
                Some(place) => self.read_at(tool, &place, "")?,
                None => read_by_tool(tool, selector)?,
            },
        };
        let found = self.pick_account(tool, &bytes, selector.account.as_deref());
        found.map_err(|trouble| trouble.to_failure(tool.info().name, &bytes.location))
    }

    fn pick_account(
        &self,
        tool: Tool,
        bytes: &StoreBytes,
        account: Option<&str>,
    ) -> Result<FoundCredential, ToolStoreError> {
        let entries = read(tool, &bytes.bytes)?;
        let ToolAccount { id, provider, credential: content } = select_account(entries, account)?;
        let mut foreign = content.map_err(|trouble| match id.is_empty() {
            true => trouble,
            false => ToolStoreError { message: format!("{id}: {}", trouble.message), ..trouble },
        })?;
        if tool == Tool::Claude && bytes.can_be_reread {
            foreign.identity = claude_account(Path::new(&bytes.location)).merged_with(foreign.identity);
        }
        let origin = ImportSource {
            tool: tool.info().name.to_owned(),
            location: (bytes.can_be_reread && tool.info().is_readable_unattended).then(|| bytes.location.clone()),
            account: (!id.is_empty()).then_some(id),
            identity: foreign.identity.clone(),
        };
        Ok(FoundCredential { credential: foreign, origin, provider })
    }

    /// Where a tool keeps its store, if that is a file that can be read.
    fn default_path(&self, tool: Tool) -> Option<PathBuf> {
        let homes = &self.dirs;
        let below = |dir: &Option<PathBuf>, name: &str| dir.as_ref().map(|dir| dir.join(name));
        match tool {
            Tool::Codex => below(&homes.codex, "auth.json"),
            Tool::Claude => below(&homes.claude, ".credentials.json"),
            Tool::Grok => below(&homes.grok, "auth.json"),
            Tool::Gemini => below(&homes.gemini, "oauth_creds.json"),
            Tool::OpenClaw => below(&homes.openclaw, "state/openclaw.sqlite"),
            Tool::Pizauth => Some(PIZAUTH_DUMP.into()),
            Tool::OidcAgent => None,
            Tool::Opencode => below(&homes.opencode, "auth.json"),
            Tool::Pi => below(&homes.pi, "auth.json"),
            Tool::Hermes => below(&homes.hermes, "auth.json"),
            Tool::LiteLlm => homes.litellm.clone(),
            Tool::CliProxy => homes.cliproxy.clone(),
            Tool::McpRemote => homes.mcp_remote.as_deref().map(mcp_remote_dir),
            Tool::Rclone => homes.rclone.clone(),
            Tool::GhHosts => below(&homes.gh, "hosts.yml"),
        }
    }

    /// Whether the store that a credential came from has its access token alone, so that the tool refreshes nothing.
    pub fn is_fed(&self, origin: &ImportSource, within: &str) -> bool {
        let Some((tool, place)) = Tool::from_name(&origin.tool).zip(origin.location.as_ref()) else { return false };
        let bytes = self.read_bytes(tool, Path::new(place), within).ok().flatten();
        bytes.is_some_and(|bytes| {
            account_in(tool, &bytes, origin).is_err_and(|trouble| trouble == ToolStoreError::fed())
        })
    }

    /// Reads the store at a place. `within`: the profile that it is read for.
    fn read_at(&self, tool: Tool, place: &Path, within: &str) -> Result<StoreBytes, Failure> {
        let name = place.display().to_string();
        match self.read_bytes(tool, place, within) {
            Ok(Some(bytes)) => Ok(StoreBytes { bytes, location: name, can_be_reread: true }),
            Ok(None) => Err(missing_store(tool).to_failure(tool.info().name, &name)),
            Err(trouble) => Err(trouble.to_failure(tool.info().name, &name)),
        }
    }

    /// `None`: there is no store at that place.
    fn read_bytes(&self, tool: Tool, place: &Path, within: &str) -> Result<Option<Zeroizing<Vec<u8>>>, ToolStoreError> {
        match tool {
            Tool::OpenClaw => openclaw_rows(place, within),
            Tool::Pizauth if place == Path::new(PIZAUTH_DUMP) => pizauth_dump(within),
            Tool::Codex => match from_file(place) {
                Ok(None) => self.codex_in_keyring(place),
                read => read,
            },
            Tool::CliProxy | Tool::McpRemote if place.is_dir() => files::read_directory(place, None),
            Tool::McpRemote => files::read_mcp_remote_file(place),
            _ => from_file(place),
        }
    }

    /// With `cli_auth_credentials_store = "keyring"` Codex keeps the content of `auth.json` in a keyring item, whose
    /// name depends on its home directory.
    fn codex_in_keyring(&self, file: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, ToolStoreError> {
        let Some(Ok(home)) = file.parent().map(Path::canonicalize) else { return Ok(None) };
        let digest = Sha256::digest(home.as_os_str().as_encoded_bytes());
        let item = KeyringItem { service: "Codex Auth".into(), user: format!("cli|{}", hex::encode(&digest[..8])) };
        match self.keyring.read(&item) {
            Ok(found) => Ok(found.map(|found| Zeroizing::new(found.value.as_bytes().to_vec()))),
            Err(e) => match e.cause() {
                // Without a keyring there is no item either, unless Codex is told to use one: another session may have it.
                KeyringError::NoBus | KeyringError::NoService | KeyringError::NoCollection
                    if !files::uses_keyring(&home) =>
                {
                    Ok(None)
                }
                _ => {
                    let message = format!("it does not exist, and the keyring cannot be read: {e}");
                    Err(ToolStoreError::new(message, e.hint()))
                }
            },
        }
    }
}

impl FollowedStores for ToolStores {
    fn about(&self, origin: &ImportSource) -> ToolFacts {
        match Tool::from_name(&origin.tool) {
            Some(tool) => {
                ToolFacts { is_refreshing: tool.info().is_refreshing, sign_out: tool.info().sign_out_hint(origin) }
            }
            None => ToolFacts { is_refreshing: false, sign_out: format!("sign out of {}", origin.tool) },
        }
    }

    fn read(&self, origin: &ImportSource, within: &str) -> Result<StoreContent, Failure> {
        let unknown = || {
            Failure::new(ErrorKind::Follow, format!("the store of {} cannot be read unattended", origin.tool))
                .with_hint(format!("remove follow = true from [profile.{within}]"))
        };
        let tool = Tool::from_name(&origin.tool).ok_or_else(unknown)?;
        let place = origin.location.as_ref().ok_or_else(unknown)?;
        let failed = |trouble: &ToolStoreError| Err(trouble.to_failure(tool.info().name, place));
        let gone = || StoreContent::SignedOut(format!("{place}: it does not exist"));
        let read = match self.read_bytes(tool, Path::new(place), within) {
            Ok(None) => {
                return files::check_gone(Path::new(place)).map(|()| gone()).or_else(|trouble| failed(&trouble));
            }
            Ok(Some(bytes)) => {
                // A part of a file of lines reads like a file that has less in it.
                let is_part = matches!(tool, Tool::Rclone | Tool::GhHosts) && bytes.last() != Some(&b'\n');
                let bytes = StoreBytes { bytes, location: place.clone(), can_be_reread: true };
                let found = self.pick_account(tool, &bytes, origin.account.as_deref());
                found.map_err(|trouble| ToolStoreError { is_signed_out: trouble.is_signed_out && !is_part, ..trouble })
            }
            Err(trouble) => Err(trouble),
        };
        match read {
            Ok(found) => Ok(StoreContent::Credential(Box::new(found.credential))),
            Err(trouble) if trouble.is_signed_out => {
                Ok(StoreContent::SignedOut(format!("{place}: {}", trouble.message)))
            }
            Err(trouble) => failed(&trouble),
        }
    }
}

fn account_in(tool: Tool, bytes: &[u8], origin: &ImportSource) -> Result<ExternalCredential, ToolStoreError> {
    select_account(read(tool, bytes)?, origin.account.as_deref())?.credential
}

fn read(tool: Tool, bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    match tool {
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
    }
}

/// The account that Claude Code is signed in to: it is in `.claude.json`, in the same directory if that was configured,
/// else beside it. Where both exist and differ, nothing is known.
fn claude_account(store: &Path) -> AccountIdentity {
    let Some(dir) = store.parent() else { return AccountIdentity::default() };
    let beside = dir.parent().filter(|_| dir.ends_with(".claude"));
    let read = |dir: &Path| json::claude_account(&from_file(&dir.join(".claude.json")).ok()??);
    match (read(dir), beside.and_then(read)) {
        (Some(within), Some(beside)) if within != beside => AccountIdentity::default(),
        (within, beside) => within.or(beside).unwrap_or_default(),
    }
}

fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

fn missing_store(tool: Tool) -> ToolStoreError {
    let name = tool.info().name;
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
        Ok(_) => Ok(StoreBytes { bytes, location: place, can_be_reread: false }),
        Err(e) => Err(unreadable_error(&e).to_failure(tool.info().name, &place)),
    }
}

/// The two tables that hold auth profiles, of the shared database and of an agent's own; each database has one of them.
const TABLES: [(&str, &str); 2] = [
    ("config_machine_state", "SELECT value_json FROM config_machine_state WHERE state_key = 'authProfiles.store'"),
    ("auth_profile_store", "SELECT store_json FROM auth_profile_store"),
];

/// Reads OpenClaw's rows with the `sqlite3` program: keepalive links no C library, and the newest rows may be in the
/// log beside the database, which only SQLite can read. No rows: a table that is known was read, and has
/// none.
fn openclaw_rows(place: &Path, within: &str) -> Result<Option<Zeroizing<Vec<u8>>>, ToolStoreError> {
    match std::fs::metadata(place) {
        // SQLite reads it as a database without tables.
        Ok(about) if about.len() == 0 => {
            return Err(ToolStoreError::new("it is empty", "the tool may be writing it: try again"));
        }
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable_error(&e)),
    }
    let url = url::Url::from_file_path(place)
        .map_err(|()| ToolStoreError::new("cannot pass its path to sqlite3", "use an absolute path"))?;
    // Without a log no program has the database open, and reading it must not create files beside it.
    let has_log = place.with_file_name(format!("{}-wal", file_name(place))).exists();
    let mode = if has_log { "mode=ro" } else { "mode=ro&immutable=1" };
    let select = |query: &str| select_rows(&format!("{url}?{mode}"), query, within);
    let tables = select("SELECT name FROM sqlite_master WHERE type = 'table'")?;
    let tables = String::from_utf8_lossy(&tables).into_owned();
    let there: Vec<&str> =
        TABLES.iter().filter(|(table, _)| tables.lines().any(|name| name == *table)).map(|(_, query)| *query).collect();
    if there.is_empty() {
        return Err(ToolStoreError::new(
            "it has no table of auth profiles that keepalive knows",
            "use OpenClaw's database: ~/.openclaw/state/openclaw.sqlite, or openclaw-agent.sqlite of an agent",
        ));
    }
    let mut rows = Zeroizing::new(Vec::new());
    for query in there {
        rows.extend_from_slice(&select(query)?);
    }
    Ok(Some(rows))
}

fn select_rows(database: &str, query: &str, within: &str) -> Result<Zeroizing<Vec<u8>>, ToolStoreError> {
    let argv = ["sqlite3", "-readonly", "-batch", "-noheader", "-init", "/dev/null", "-cmd", ".timeout 2000"];
    let argv: Vec<_> = argv.into_iter().chain([database, query]).map(str::to_owned).collect();
    process::run_command(&argv, within, WaitPolicy::Silent { longest: MAX_STORE_BYTES }).map_err(|e| match e {
        process::CommandError::Start(..) => ToolStoreError::new(
            "it is an SQLite database, but the program sqlite3 is not installed",
            "apt-get install sqlite3",
        ),
        e => ToolStoreError::new(
            format!("it has no auth profiles that sqlite3 can read: {e}"),
            "use OpenClaw's database: ~/.openclaw/state/openclaw.sqlite, or openclaw-agent.sqlite of an agent",
        ),
    })
}

/// pizauth keeps its tokens in memory, and this command of it prints them.
const PIZAUTH_DUMP: &str = "pizauth dump";

fn pizauth_dump(within: &str) -> Result<Option<Zeroizing<Vec<u8>>>, ToolStoreError> {
    let argv: Vec<String> = PIZAUTH_DUMP.split(' ').map(str::to_owned).collect();
    let dumped = process::run_command(&argv, within, WaitPolicy::Silent { longest: MAX_STORE_BYTES });
    dumped.map(Some).map_err(|e| ToolStoreError::new(e.to_string(), "start pizauth, or sign in again: keepalive login"))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
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
        Ok(bytes) => Ok(StoreBytes { bytes, location: place, can_be_reread: false }),
        Err(e) => {
            let hint = format!("or sign in separately from {name}: keepalive login");
            Err(ToolStoreError::new(e.to_string(), hint).to_failure(name, &place))
        }
    }
}
