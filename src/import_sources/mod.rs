//! Imports credentials from other tools: finds a tool's store, reads it, and picks an account. It never writes there.

mod agents;
mod config_files;
mod files;
mod json;
mod openclaw;
mod parse;
mod pizauth;
#[cfg(test)]
mod tests;
mod tool_stores;
pub mod tools;

use crate::credential::external::ExternalCredential;
pub use crate::import_sources::tool_stores::{FoundCredential, Selector, ToolStores};
use crate::outcome::{ErrorKind, Failure};

/// One account in a store, usable or not.
#[derive(Debug)]
struct ToolAccount {
    /// Its name in `--account`; empty if the store holds only one.
    id: String,
    /// The provider that it is for, if the store says.
    provider: Option<String>,
    credential: Result<ExternalCredential, ToolStoreError>,
}

impl ToolAccount {
    fn single(content: Result<ExternalCredential, ToolStoreError>) -> Self {
        Self { id: String::new(), provider: None, credential: content }
    }

    /// Whether `wanted` names this account.
    fn matches(&self, wanted: &str) -> bool {
        let identity = self.credential.as_ref().map(|f| &f.identity).ok();
        let names = identity.map(|i| [&i.email, &i.account, &i.subject]).into_iter().flatten().flatten();
        self.id == wanted || names.map(String::as_str).any(|name| name.eq_ignore_ascii_case(wanted))
    }

    /// One line for a person who must choose.
    fn describe(&self) -> String {
        match &self.credential {
            Err(trouble) => format!("{} ({})", self.id, trouble.message),
            Ok(foreign) => match foreign.identity.display_name().filter(|name| !self.id.contains(name)) {
                Some(name) => format!("{} ({name})", self.id),
                None => self.id.clone(),
            },
        }
    }
}

/// An error about a store, or about one account in it. The caller adds the name of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ToolStoreError {
    message: String,
    hint: String,
    /// The store was understood, and has no refresh token for that account.
    is_signed_out: bool,
}

impl ToolStoreError {
    fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: what.into(), hint: hint.into(), is_signed_out: false }
    }

    fn signed_out(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { is_signed_out: true, ..Self::new(what, hint) }
    }

    /// A store with an access token alone.
    fn fed() -> Self {
        Self::signed_out(
            "it has an access token and no refresh token: keepalive or another program feeds it",
            "the credential is where that access token comes from; this tool needs nothing",
        )
    }

    fn to_failure(&self, tool: &str, place: &str) -> Failure {
        Failure::new(ErrorKind::Source, format!("{tool}: {place}: {}", self.message)).with_hint(&self.hint)
    }
}

/// Tools' names of providers, and ours.
const PROVIDER_NAMES: [(&str, &str); 13] = [
    ("openai-codex", "openai"),
    ("codex", "openai"),
    ("chatgpt", "openai"),
    ("google-gemini-cli", "google"),
    ("gemini", "google"),
    ("gemini-cli", "google"),
    ("minimax-portal", "minimax"),
    ("minimax-oauth", "minimax"),
    ("github-copilot", "github"),
    ("claude-cli", "anthropic"),
    ("claude", "anthropic"),
    ("grok", "xai"),
    ("xai-oauth", "xai"),
];

/// Our name of a tool's provider.
fn our_provider(theirs: &str) -> &str {
    PROVIDER_NAMES.iter().find(|(name, _)| *name == theirs).map_or(theirs, |(_, ours)| ours)
}

/// The account that is meant. If several fit, the person must name one.
fn select_account(mut entries: Vec<ToolAccount>, wanted: Option<&str>) -> Result<ToolAccount, ToolStoreError> {
    let all = entries.iter().map(ToolAccount::describe).collect::<Vec<_>>().join(", ");
    let matching: Vec<usize> = match wanted {
        // The exact name takes precedence over what two accounts may share.
        Some(wanted) => match entries.iter().position(|e| e.id == wanted) {
            Some(exact) => vec![exact],
            None => (0..entries.len()).filter(|i| entries[*i].matches(wanted)).collect(),
        },
        None if entries.len() == 1 => vec![0],
        None => (0..entries.len()).filter(|i| entries[*i].credential.is_ok()).collect(),
    };
    match (matching.as_slice(), wanted) {
        ([one], _) => Ok(entries.swap_remove(*one)),
        ([], Some(wanted)) => {
            Err(ToolStoreError::signed_out(format!("there is no account {wanted:?}"), format!("it has {all}")))
        }
        ([], None) => Err(ToolStoreError::new("none of its accounts can be used", format!("it has {all}"))),
        (_, _) => Err(ToolStoreError::new("it has several accounts", format!("name one with --account: {all}"))),
    }
}
