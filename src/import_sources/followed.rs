//! The stores of followed tools. Before our own token is sent, each entry of the tool is looked at, wherever it may keep one:
//! a tool renames them, and moves them to another file, and a person moves the tool's directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::credential::external::{AccountFile, AccountIdentity, ExternalCredential, ImportSource};
use crate::engine::refresh::followed_stores::{FollowedStores, OtherEntry, StoreContent, ToolFacts};
use crate::import_sources::files;
use crate::import_sources::tool_stores::{
    PIZAUTH_DUMP, StoreBytes, ToolStores, default_path, lasting_provider, read, with_account,
};
use crate::import_sources::tools::Tool;
use crate::import_sources::{ToolStoreError, openclaw_database};
use crate::outcome::{ErrorKind, Failure};

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
        let (tool, place) = followed_place(origin, within)?;
        let name = place.display();
        let failed = |trouble: ToolStoreError| trouble.to_failure(tool.info().name, &name.to_string());
        let Some(store) = self.read_store(tool, &place, within, origin.is_in_keyring).map_err(failed)? else {
            files::check_gone(&place).map_err(failed)?;
            return Ok(StoreContent::SignedOut(format!("{name}: it does not exist")));
        };
        // A part of a file of lines reads like a file that has less in it.
        let is_part = matches!(tool, Tool::Rclone | Tool::GhHosts) && store.bytes.last() != Some(&b'\n');
        match self.pick_account(tool, &store, origin.account.as_deref()) {
            Ok(found) => Ok(StoreContent::Credential(Box::new(found.credential))),
            Err(trouble) if !trouble.is_signed_out || is_part => Err(failed(trouble)),
            Err(trouble) => Ok(StoreContent::SignedOut(format!("{name}: {}", trouble.message))),
        }
    }

    fn all_entries(&self, origin: &ImportSource, within: &str) -> Vec<OtherEntry> {
        // That the place cannot be read unattended is told by `read`.
        let Ok((tool, place)) = followed_place(origin, within) else { return Vec::new() };
        let used_now =
            default_path(tool, &self.dirs).filter(|other| *other != place && place != Path::new(PIZAUTH_DUMP));
        let roots: Vec<&PathBuf> = std::iter::once(&place).chain(&used_now).collect();
        let files: BTreeSet<PathBuf> = roots.iter().flat_map(|root| all_places(tool, root)).collect();
        let mut entries: Vec<OtherEntry> = Vec::new();
        for file in &files {
            // The directory of a file that was named may be any, so those within it are not read.
            let is_named = tool == Tool::CliProxy && !roots.contains(&file) && file.is_dir();
            let read =
                if is_named { files::read_directory(file, None, false) } else { self.read_bytes(tool, file, within) };
            entries.extend(entries_at(tool, file, read));
        }
        for root in roots.into_iter().filter(|_| tool == Tool::Codex) {
            let was_in_keyring = origin.is_in_keyring && *root == place;
            entries.extend(self.entries_in_keyring(root, was_in_keyring));
        }
        entries
            .extend(used_now.filter(|place| files::may_be_away(place)).map(|place| unreadable(tool, &place.display())));
        entries
    }
}

/// The tool and the place of an origin, if that can be read unattended.
fn followed_place(origin: &ImportSource, within: &str) -> Result<(Tool, PathBuf), Failure> {
    let unknown = || {
        Failure::new(ErrorKind::Follow, format!("the store of {} cannot be read unattended", origin.tool))
            .with_hint(format!("remove follow = true from [profile.{within}]"))
    };
    let tool = Tool::from_name(&origin.tool).ok_or_else(unknown)?;
    // A relative path, which earlier versions stored, is another one from each directory.
    let is_whole = |place: &&String| Path::new(place).is_absolute() || *place == PIZAUTH_DUMP;
    origin.location.as_ref().filter(is_whole).map(|place| (tool, place.into())).ok_or_else(unknown)
}

impl ToolStores {
    /// The entry that Codex has in the keyring instead of a file. `is_expected`: it was there before.
    fn entries_in_keyring(&self, file: &Path, is_expected: bool) -> Vec<OtherEntry> {
        let location = file.display().to_string();
        match self.codex_in_keyring(file, is_expected) {
            Ok(None) => Vec::new(),
            Ok(Some(bytes)) => {
                entries_of(Tool::Codex, &StoreBytes { bytes, location, can_be_reread: true, is_in_keyring: true })
            }
            Err(e) => vec![unreadable(Tool::Codex, &format!("the keyring item for {location} ({})", e.message))],
        }
    }
}

/// The entries of what was read of one file of a tool, or of a directory that is a store. One that cannot be read may hold a
/// token.
fn entries_at(tool: Tool, place: &Path, read: Result<Option<Zeroizing<Vec<u8>>>, ToolStoreError>) -> Vec<OtherEntry> {
    let location = place.display().to_string();
    match read {
        _ if files::is_encrypted(place) => vec![unreadable(tool, &location)],
        Ok(None) => Vec::new(),
        Ok(Some(bytes)) => entries_of(tool, &StoreBytes { bytes, location, can_be_reread: true, is_in_keyring: false }),
        Err(_) => vec![unreadable(tool, &location)],
    }
}

/// What may hold a token, and cannot be read.
fn unreadable(tool: Tool, place: &dyn std::fmt::Display) -> OtherEntry {
    let provider = lasting_provider(tool, None);
    OtherEntry { place: place.to_string(), id: String::new(), provider, credential: None }
}

/// The entries of a store that hold a token, or may hold one.
fn entries_of(tool: Tool, store: &StoreBytes) -> Vec<OtherEntry> {
    let entries = match read(tool, &store.bytes) {
        Ok(entries) => entries,
        Err(trouble) if trouble.is_signed_out => Vec::new(),
        Err(_) => return vec![unreadable(tool, &store.location)],
    };
    let entries = entries.into_iter().filter(|entry| !entry.credential.as_ref().is_err_and(|e| e.is_signed_out));
    let named = entries.map(|entry| OtherEntry {
        place: store.location.clone(),
        id: entry.id,
        provider: lasting_provider(tool, entry.provider.as_deref().or_else(|| hermes_provider(tool, &store.location))),
        credential: entry.credential.ok().map(|found| Box::new(with_settled_account(with_account(tool, store, found)))),
    });
    named.collect()
}

/// A credential without an account that may not be its own.
fn with_settled_account(found: ExternalCredential) -> ExternalCredential {
    let is_settled = found.account_file == AccountFile::Settled;
    let identity = if is_settled { found.identity.clone() } else { AccountIdentity::default() };
    ExternalCredential { identity, ..found }
}

/// The files of Hermes that have one sign-in each, and its provider.
const HERMES_FILES: [(&str, &str); 3] =
    [("shared/nous_auth.json", "nous"), ("shared/codex_auth.json", "openai"), (".anthropic_oauth.json", "anthropic")];

fn hermes_provider(tool: Tool, place: &str) -> Option<&'static str> {
    let of_file = HERMES_FILES.iter().find(|(name, _)| Path::new(place).ends_with(name));
    of_file.filter(|_| tool == Tool::Hermes).map(|(_, provider)| *provider)
}

/// The files and directories where a tool may hold a sign-in that it held at `place`, that one among them.
fn all_places(tool: Tool, place: &Path) -> Vec<PathBuf> {
    let further = match (tool, place.parent()) {
        (Tool::Codex | Tool::Gemini, Some(dir)) => {
            let encrypted = files::encrypted_store(tool, place);
            let sessions = if tool == Tool::Codex { files::list(&dir.join("account-sessions")) } else { Vec::new() };
            encrypted.into_iter().chain(sessions).collect()
        }
        (Tool::OpenClaw, _) => openclaw_database::dir_of(place).map(openclaw_database::places).unwrap_or_default(),
        // Older versions had the other name.
        (Tool::Pi, Some(dir)) => ["auth.json", "oauth.json"].map(|name| dir.join(name)).into(),
        (Tool::Hermes, Some(dir)) if place.ends_with("auth.json") => {
            // The directory of a profile is within that of the first one.
            let root =
                dir.parent().filter(|profiles| profiles.ends_with("profiles")).and_then(Path::parent).unwrap_or(dir);
            let profiles = files::list(&root.join("profiles")).into_iter().map(|profile| profile.join("auth.json"));
            let own = HERMES_FILES.iter().map(|(name, _)| *name).chain(["auth.json"]).map(|name| root.join(name));
            own.chain(profiles).collect()
        }
        // One file of a directory of sign-ins: it may have got another name.
        (Tool::CliProxy | Tool::McpRemote, Some(dir)) if !place.is_dir() && dir.is_dir() => vec![dir.to_owned()],
        _ => Vec::new(),
    };
    let others = further.into_iter().filter(|other| other != place);
    std::iter::once(place.to_owned()).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::store::keyring::memory::MemoryKeyring;
    use crate::store::keyring::{Keyring, KeyringError, KeyringItem};
    use crate::sys::paths::ToolDirs;

    /// The stores of a home directory, as its tools have them.
    struct Home {
        dir: tempfile::TempDir,
        keyring: MemoryKeyring,
        dirs: ToolDirs,
    }

    impl Home {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let below = |name: &str| Some(dir.path().join(name));
            let dirs = ToolDirs {
                codex: below("codex"),
                hermes: below("hermes"),
                cliproxy: below("proxy"),
                opencode: below("opencode"),
                openclaw: below("claw"),
                mcp_remote: below("mcp"),
                ..ToolDirs::default()
            };
            Self { dirs, dir, keyring: MemoryKeyring::default() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, name: &str, content: impl ToString) {
            std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
            #[expect(clippy::disallowed_methods, reason = "a file of another program")]
            std::fs::write(self.path(name), content.to_string()).unwrap();
        }

        fn stores(&self) -> ToolStores {
            ToolStores { dirs: self.dirs.clone(), keyring: Box::new(self.keyring.clone()) }
        }

        fn origin(&self, tool: &str, place: &str) -> ImportSource {
            let location = Some(self.path(place).display().to_string());
            ImportSource { tool: tool.into(), location, ..ImportSource::default() }
        }

        /// What is known of every entry: its refresh token, or that it cannot be read.
        fn entries(&self, origin: &ImportSource) -> Vec<String> {
            let token = |entry: OtherEntry| match entry.credential {
                Some(external) => external.response.refresh.unwrap().expose().to_owned(),
                None => "unknown".to_owned(),
            };
            self.stores().all_entries(origin, "p").into_iter().map(token).collect()
        }
    }

    fn tokens() -> Value {
        json!({"access_token": "a", "refresh_token": "r1", "account_id": "ada"})
    }

    /// Rule 39. What was lost: the family of a tool whose sign-in was in a file of it that was not looked at.
    #[test]
    fn sign_in_is_found_in_every_place_of_its_tool() {
        let typed = json!({"type": "oauth", "access": "a", "refresh": "r1", "provider": "openai-codex"});
        let codex = json!({"tokens": tokens()});
        let state = json!({"providers": {"openai-codex": tokens()}});
        let proxy = json!({"type": "codex", "access_token": "a", "refresh_token": "r1"});
        let camel = json!({"accessToken": "a", "refreshToken": "r1", "expiresAt": 1});
        for (tool, origin, place, content, found) in [
            ("hermes", "hermes/auth.json", "hermes/shared/nous_auth.json", &tokens(), "r1"),
            ("hermes", "hermes/auth.json", "hermes/shared/codex_auth.json", &json!({"tokens": tokens()}), "r1"),
            ("hermes", "hermes/auth.json", "hermes/.anthropic_oauth.json", &camel, "r1"),
            ("hermes", "hermes/auth.json", "hermes/profiles/two/auth.json", &state, "r1"),
            ("hermes", "hermes/profiles/two/auth.json", "hermes/auth.json", &state, "r1"),
            ("cliproxy", "proxy", "proxy/team/c.json", &proxy, "r1"),
            ("cliproxy", "proxy", "proxy/c.JSON", &proxy, "r1"),
            ("cliproxy", "proxy/a.json", "proxy/team/c.json", &proxy, "r1"),
            ("openclaw", "claw/state/openclaw.sqlite", "claw/credentials/oauth.json", &json!({"xai": typed}), "r1"),
            ("codex", "codex/auth.json", "codex/account-sessions/ada.json", &codex, "r1"),
            ("codex", "codex/auth.json", "codex/secrets/codex_auth.age", &json!("age"), "unknown"),
            // The tool's directory was moved, and its environment names the new one; or a copy was imported.
            ("codex", "old/auth.json", "codex/auth.json", &codex, "r1"),
            ("codex", "old/auth.json", "codex/secrets/codex_auth.age", &json!("age"), "unknown"),
            ("opencode", "copy.json", "opencode/auth.json", &json!({"openai": typed}), "r1"),
            ("hermes", "copy.json", "hermes/shared/nous_auth.json", &tokens(), "r1"),
            ("cliproxy", "copy.json", "proxy/team/c.json", &proxy, "r1"),
            ("mcp-remote", "mcp/mcp-remote-v1", "mcp/mcp-remote-v2/x_tokens.json", &tokens(), "r1"),
        ] {
            let home = Home::new();
            assert_eq!(home.entries(&home.origin(tool, origin)), [""; 0], "{tool}: nothing is there");
            home.write(place, content);
            assert_eq!(home.entries(&home.origin(tool, origin)), [found], "{tool}: {place}");
        }
    }

    fn codex_item(home: &Home) -> KeyringItem {
        let digest = Sha256::digest(home.path("codex").canonicalize().unwrap().as_os_str().as_encoded_bytes());
        KeyringItem { service: "Codex Auth".into(), user: format!("cli|{}", hex::encode(&digest[..8])) }
    }

    /// Rule 39. What was lost: the family of Codex, whose item in the keyring was hidden by its file.
    #[test]
    fn keyring_item_of_codex_is_seen_beside_its_file() {
        let home = Home::new();
        let origin = home.origin("codex", "codex/auth.json");
        for file in [json!({"auth_mode": "apikey", "OPENAI_API_KEY": "k", "tokens": null}), json!({})] {
            home.write("codex/auth.json", &file);
            home.keyring.write(&codex_item(&home), &json!({"tokens": tokens()}).to_string()).unwrap();
            assert!(matches!(home.stores().read(&origin, "p"), Ok(StoreContent::SignedOut(_))), "{file}");
            let entries = home.stores().all_entries(&origin, "p");
            assert!(entries[0].origin(&origin).is_in_keyring && entries[0].to_string().starts_with("the keyring item"));
            assert_eq!(home.entries(&origin), ["r1"]);
        }
        // Without its file it is the store itself.
        std::fs::remove_file(home.path("codex/auth.json")).unwrap();
        let Ok(StoreContent::Credential(found)) = home.stores().read(&origin, "p") else { panic!() };
        assert!(found.is_in_keyring);
    }

    /// Rule 39. What was lost: the family of Codex, whose keyring was that of another session.
    #[test]
    fn keyring_out_of_reach_is_unknown_unless_a_file_is_used() {
        let home = Home::new();
        home.keyring.set_fault(Some(KeyringError::NoBus));
        let origin = home.origin("codex", "codex/auth.json");
        let in_keyring = ImportSource { is_in_keyring: true, ..origin.clone() };
        for (settings, is_known) in [
            ("", true),
            ("# cli_auth_credentials_store = \"keyring\"", true),
            ("cli_auth_credentials_store = \"file\"", true),
            ("'cli_auth_credentials_store' = \"file\" # not \"keyring\"", true),
            ("cli_auth_credentials_store = \"keyring\" # not in a file", false),
            ("\"cli_auth_credentials_store\" = \"keyring\"", false),
            ("cli_auth_credentials_store = \"auto\"", false),
            ("cli_auth_credentials_store = \"later-form\"", false),
            ("[profiles.work]\ncli_auth_credentials_store = \"keyring\"", false),
            ("cli_auth_credentials_store = \"file", false),
        ] {
            home.write("codex/config.toml", settings);
            let unknown = if is_known { vec![] } else { vec!["unknown".to_owned()] };
            std::fs::remove_file(home.path("codex/auth.json")).ok();
            assert_eq!(home.stores().read(&origin, "p").is_ok(), is_known, "{settings}");
            home.write("codex/auth.json", "{}");
            assert_eq!(home.entries(&origin), unknown, "{settings}");
            assert_eq!(home.entries(&in_keyring), ["unknown"], "it was imported from there: {settings}");
        }
        std::fs::remove_file(home.path("codex/auth.json")).unwrap();
        assert!(home.stores().read(&in_keyring, "p").is_err());
    }
}
