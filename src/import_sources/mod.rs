//! Imports credentials from other tools: finds a tool's store, reads it, and picks an account. It never writes there.

mod agents;
mod claude;
mod config_files;
mod files;
mod followed;
mod json;
mod openclaw;
mod openclaw_database;
mod parse;
mod pizauth;
#[cfg(test)]
mod tests;
mod tool_stores;
pub mod tools;

use serde_json::{Map, Value};

use crate::credential::external::ExternalCredential;
use crate::credential::secret::RefreshToken;
pub use crate::import_sources::tool_stores::{FoundCredential, Selector, ToolStores, default_path};
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
        // A name that several entries have, and the mark that tells them apart.
        let is_part = self.id.rsplit_once('#').is_some_and(|(name, mark)| name == wanted || mark == wanted);
        self.id == wanted || is_part || names.map(String::as_str).any(|name| name.eq_ignore_ascii_case(wanted))
    }

    /// The sign-ins of a map, which is by their names: `read` makes one of each object. What is no object, and may be a
    /// sign-in in another form, has `provider` alone.
    fn of_map(
        map: &Map<String, Value>,
        provider: impl Fn(&str) -> Option<String>,
        read: impl Fn(&str, &Map<String, Value>) -> Self,
    ) -> Vec<Self> {
        let entries = map.iter().filter_map(|(id, value)| match value {
            Value::Object(members) => Some(read(id, members)),
            Value::String(_) | Value::Array(_) => Some(Self::of_unknown_form(id.clone(), provider(id))),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        });
        entries.collect()
    }

    fn of_unknown_form(id: String, provider: Option<String>) -> Self {
        Self { id, provider, credential: Err(ToolStoreError::unknown_form()) }
    }

    fn refresh_token(&self) -> Option<&RefreshToken> {
        self.credential.as_ref().ok()?.response.refresh.as_ref()
    }

    /// What tells this account from others of its name.
    fn mark(&self) -> Option<String> {
        let identity = &self.credential.as_ref().ok()?.identity;
        identity.email.as_ref().or(identity.account.as_ref()).or(identity.subject.as_ref()).cloned()
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
    /// The store was understood, and has no refresh token for that account; or several entries of its name.
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

    /// A sign-in that stands in a way that is not known here: it may hold a token.
    fn unknown_form() -> Self {
        Self::new("it has a sign-in in a form that is not known", "sign in separately: keepalive login")
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

/// Of the providers that a tool names an entry by, those that are known here. Any other name may be that of the entry alone.
fn is_known_provider(ours: &str) -> bool {
    ["microsoft", "nous"].contains(&ours) || PROVIDER_NAMES.iter().any(|(_, known)| *known == ours)
}

/// The entries with a name of their own each: copies of one sign-in are left out, and of several that have one name,
/// each is told apart by its account, or at last by its number.
fn with_unique_names(entries: Vec<ToolAccount>) -> Vec<ToolAccount> {
    let mut kept: Vec<ToolAccount> = Vec::new();
    for entry in entries {
        let mut namesakes = kept.iter_mut().filter(|known| known.id == entry.id);
        let has_none = |one: &ToolAccount| one.credential.as_ref().is_err_and(|e| e.is_signed_out);
        let is_copy = |known: &ToolAccount| known.refresh_token() == entry.refresh_token() && !has_none(known);
        match namesakes.find(|known| has_none(known) || has_none(&entry) || is_copy(known)) {
            Some(known) if has_none(known) => *known = entry,
            Some(_) => {}
            None => kept.push(entry),
        }
    }
    let names: Vec<String> = kept.iter().map(|entry| entry.id.clone()).collect();
    let of_name = |name: &str| names.iter().filter(|other| *other == name).count();
    let marks: Vec<Option<String>> = kept.iter().map(ToolAccount::mark).collect();
    for (i, entry) in kept.iter_mut().enumerate().filter(|(i, _)| of_name(&names[*i]) > 1) {
        let same_mark = |j: &usize| names[*j] == names[i] && marks[*j] == marks[i];
        let mark = marks[i].clone().filter(|_| (0..names.len()).filter(same_mark).count() == 1);
        let number = || names[..=i].iter().filter(|name| **name == names[i]).count().to_string();
        entry.id = format!("{}#{}", names[i], mark.unwrap_or_else(number));
    }
    kept
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
        (_, _) => Err(ToolStoreError::signed_out("it has several accounts", format!("name one with --account: {all}"))),
    }
}
