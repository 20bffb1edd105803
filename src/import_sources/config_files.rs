//! Reads the stores that are configuration files: that of rclone, and the hosts of the GitHub CLI. (pure)

use serde_json::{Map, Value};

use crate::credential::external::ExternalCredential;
use crate::import_sources::json::object;
use crate::import_sources::parse::SNAKE_CASE;
use crate::import_sources::{ToolAccount, ToolStoreError};

/// Types of remotes: their provider here, and the client of rclone's own, which its tokens belong to where the remote
/// names no other.
const REMOTES: [(&str, &str, &str); 4] = [
    ("drive", "google", "202264815644.apps.googleusercontent.com"),
    ("google photos", "google", ""),
    ("google cloud storage", "google", ""),
    ("onedrive", "microsoft", "b15665d9-eda6-4092-8539-0eec376afd59"),
];

/// `rclone.conf`: a section for each remote, with its token as JSON.
pub(super) fn rclone(bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    let text = String::from_utf8_lossy(bytes);
    if text.lines().any(|line| line.trim().starts_with("RCLONE_ENCRYPT_")) {
        let hint = "print it with rclone itself: rclone config show | keepalive import PROFILE --from rclone -";
        return Err(ToolStoreError::new("it is encrypted with a password", hint));
    }
    let entries: Vec<_> = sections(&text).into_iter().filter_map(|(name, keys)| remote(name, &keys)).collect();
    match entries.is_empty() {
        true => Err(ToolStoreError::signed_out("it has no remote with a token", "rclone config")),
        false => Ok(entries),
    }
}

fn sections(text: &str) -> Vec<(String, Map<String, Value>)> {
    let mut sections: Vec<(String, Map<String, Value>)> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.push((name.trim().to_owned(), Map::new()));
        } else if let (Some((_, keys)), Some((key, value))) = (sections.last_mut(), line.split_once('=')) {
            keys.insert(key.trim().to_owned(), value.trim().into());
        }
    }
    sections
}

/// A remote with a token; `None` if it has none, as those that need no sign-in.
fn remote(name: String, keys: &Map<String, Value>) -> Option<ToolAccount> {
    let text = |key: &str| keys.get(key).and_then(Value::as_str).filter(|value| !value.is_empty());
    let token = text("token")?;
    let known = REMOTES.iter().find(|(kind, ..)| Some(*kind) == text("type"));
    let client = text("client_id").or(known.map(|(.., client)| *client).filter(|client| !client.is_empty()));
    let credential = object(token.as_bytes()).and_then(|members| SNAKE_CASE.parse_or_fed(&members)).map(|found| {
        ExternalCredential {
            client_id: client.map(str::to_owned),
            issuer: text("token_url").map(str::to_owned),
            ..found
        }
    });
    Some(ToolAccount { id: name, provider: known.map(|(_, provider, _)| (*provider).to_owned()), credential })
}

/// `hosts.yml` of the GitHub CLI. Its tokens do not end, and have no refresh token; one that has is read all the same.
pub(super) fn gh_hosts(bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    let text = String::from_utf8_lossy(bytes);
    let mut hosts: Vec<(String, Map<String, Value>)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
        let Some((key, value)) = line.trim().split_once(':') else { continue };
        let value = value.trim().trim_matches(['"', '\'']);
        match (line.starts_with([' ', '\t']), hosts.last_mut()) {
            (false, _) => hosts.push((key.trim_matches(['"', '\'']).to_owned(), Map::new())),
            // The active account's members stand at the host itself; those of the others, further in, come first.
            (true, Some((_, members))) if !value.is_empty() => {
                members.insert(key.to_owned(), value.into());
            }
            (true, _) => {}
        }
    }
    let entries: Vec<_> = hosts.into_iter().map(|(host, members)| gh_account(host, members)).collect();
    match entries.is_empty() {
        true => Err(ToolStoreError::signed_out("the GitHub CLI is not signed in", "gh auth login")),
        false => Ok(entries),
    }
}

fn gh_account(host: String, mut members: Map<String, Value>) -> ToolAccount {
    if let Some(token) = members.remove("oauth_token") {
        members.insert("access_token".into(), token);
    }
    let credential = match members.contains_key("refresh_token") {
        true => SNAKE_CASE.parse(&members),
        false => Err(ToolStoreError::signed_out(
            "the GitHub CLI has a token that does not end and no refresh token, so there is nothing to keep alive",
            "use it as it is: gh auth token; for tokens that end, register a GitHub App: keepalive login --provider github",
        )),
    };
    ToolAccount { id: host, provider: Some("github".into()), credential }
}
