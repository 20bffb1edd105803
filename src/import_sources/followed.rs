//! The stores of followed tools. Before a tool counts as signed out, each of its entries is looked at: a tool renames them,
//! and moves them to another file.

use std::path::{Path, PathBuf};

use crate::credential::external::ImportSource;
use crate::engine::refresh::followed_stores::{FollowedStores, OtherEntry, StoreContent, ToolFacts};
use crate::import_sources::files;
use crate::import_sources::tool_stores::{PIZAUTH_DUMP, StoreBytes, ToolStores, lasting_provider, read};
use crate::import_sources::tools::Tool;
use crate::import_sources::{ToolAccount, ToolStoreError, openclaw_database};
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
        let unknown = || {
            Failure::new(ErrorKind::Follow, format!("the store of {} cannot be read unattended", origin.tool))
                .with_hint(format!("remove follow = true from [profile.{within}]"))
        };
        let tool = Tool::from_name(&origin.tool).ok_or_else(unknown)?;
        // A relative path, which earlier versions stored, is another one from each directory.
        let is_whole = |place: &&String| Path::new(place).is_absolute() || *place == PIZAUTH_DUMP;
        let place = origin.location.as_ref().filter(is_whole).ok_or_else(unknown)?;
        let failed = |trouble: ToolStoreError| trouble.to_failure(tool.info().name, place);
        let (why, mut entries) = match self.read_bytes(tool, Path::new(place), within).map_err(failed)? {
            None => {
                files::check_gone(Path::new(place)).map_err(failed)?;
                ("it does not exist".to_owned(), Vec::new())
            }
            Some(bytes) => {
                // A part of a file of lines reads like a file that has less in it.
                let is_part = matches!(tool, Tool::Rclone | Tool::GhHosts) && bytes.last() != Some(&b'\n');
                let bytes = StoreBytes { bytes, location: place.clone(), can_be_reread: true };
                match self.pick_account(tool, &bytes, origin.account.as_deref()) {
                    Ok(found) => return Ok(StoreContent::Credential(Box::new(found.credential))),
                    Err(trouble) if !trouble.is_signed_out || is_part => return Err(failed(trouble)),
                    Err(trouble) => (trouble.message, other_entries(tool, read(tool, &bytes.bytes), place)),
                }
            }
        };
        for place in other_places(tool, Path::new(place)) {
            entries.extend(self.entries_at(tool, &place, within));
        }
        let why = format!("{place}: {why}");
        Ok(match entries.is_empty() {
            true => StoreContent::SignedOut(why),
            false => StoreContent::OtherEntries { why, entries },
        })
    }
}

impl ToolStores {
    /// The entries of another place of a tool. One that cannot be read may hold a token.
    fn entries_at(&self, tool: Tool, place: &Path, within: &str) -> Vec<OtherEntry> {
        let name = place.display().to_string();
        let unreadable = || {
            let provider = tool.info().provider.map(str::to_owned);
            vec![OtherEntry { place: name.clone(), id: String::new(), provider, credential: None }]
        };
        match self.read_bytes(tool, place, within) {
            _ if files::is_encrypted(place) => unreadable(),
            Ok(None) => Vec::new(),
            Ok(Some(bytes)) => other_entries(tool, read(tool, &bytes), &name),
            Err(_) => unreadable(),
        }
    }
}

/// The entries of a store that hold a token, or may hold one.
fn other_entries(tool: Tool, found: Result<Vec<ToolAccount>, ToolStoreError>, place: &str) -> Vec<OtherEntry> {
    let provider = |told: Option<String>| lasting_provider(tool, told.as_deref());
    let entries = match found {
        Ok(entries) => entries,
        Err(trouble) if trouble.is_signed_out => Vec::new(),
        Err(_) => {
            return vec![OtherEntry {
                place: place.to_owned(),
                id: String::new(),
                provider: provider(None),
                credential: None,
            }];
        }
    };
    let entries = entries.into_iter().filter(|entry| !entry.credential.as_ref().is_err_and(|e| e.is_signed_out));
    let named = entries.map(|entry| OtherEntry {
        place: place.to_owned(),
        id: entry.id,
        provider: provider(entry.provider),
        credential: entry.credential.ok().map(Box::new),
    });
    named.collect()
}

/// The other places where a tool may hold a sign-in that it held at `place`.
fn other_places(tool: Tool, place: &Path) -> Vec<PathBuf> {
    let Some(dir) = place.parent().filter(|_| place != Path::new(PIZAUTH_DUMP)) else { return Vec::new() };
    match tool {
        Tool::Codex | Tool::Gemini => files::encrypted_store(tool, place).into_iter().collect(),
        Tool::OpenClaw => {
            let places = openclaw_database::dir_of(place).map(openclaw_database::places).unwrap_or_default();
            places.into_iter().filter(|other| other != place).collect()
        }
        // Older versions had the other name.
        Tool::Pi => vec![dir.join(if place.ends_with("auth.json") { "oauth.json" } else { "auth.json" })],
        // One file of a directory of sign-ins: it may have got another name.
        Tool::CliProxy | Tool::McpRemote if !place.is_dir() && dir.is_dir() => vec![dir.to_owned()],
        _ => Vec::new(),
    }
}
