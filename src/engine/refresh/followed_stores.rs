//! The interface through which the engine reads the stores of other tools; it never writes them.

use crate::credential::external::{ExternalCredential, ImportSource};
use crate::outcome::{ErrorKind, Failure};
use crate::profile::ProfileName;

/// What a tool's store holds for one account.
#[derive(Debug)]
pub enum StoreContent {
    Credential(Box<ExternalCredential>),
    /// The store is gone, or was understood and has no refresh token for that account, or several entries of its name; the
    /// text says which.
    SignedOut(String),
}

/// An entry of one of a tool's stores. Entries without a refresh token are left out.
#[derive(Debug)]
pub struct OtherEntry {
    /// The store that it is in.
    pub place: String,
    /// Its name in `--account`; empty if that store holds only one.
    pub id: String,
    pub provider: Option<String>,
    /// `None`: it may hold a token, and cannot be read.
    pub credential: Option<Box<ExternalCredential>>,
}

impl OtherEntry {
    /// The origin of a credential as it would be now, had it been imported from this entry.
    pub fn origin(&self, before: &ImportSource) -> ImportSource {
        let account = (!self.id.is_empty()).then(|| self.id.clone());
        let is_in_keyring = self.credential.as_ref().is_some_and(|external| external.is_in_keyring);
        ImportSource { location: Some(self.place.clone()), account, is_in_keyring, ..before.clone() }
    }
}

impl std::fmt::Display for OtherEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.credential {
            Some(external) if external.is_in_keyring => write!(f, "the keyring item for {}", self.place),
            _ if self.id.is_empty() => f.write_str(&self.place),
            _ => write!(f, "{} in {}", self.id, self.place),
        }
    }
}

/// What a person must know of a tool that refreshes a credential by itself, or that does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolFacts {
    /// Whether the tool refreshes its tokens. One that does not would never bring a newer token.
    pub is_refreshing: bool,
    /// How to sign out of it on this machine only.
    pub sign_out: String,
}

/// The stores of other tools, as the engine needs them.
pub trait FollowedStores: Send + Sync {
    /// What the store at `origin` holds now for the same account. An error means that this is unknown. `caller_profile`:
    /// the profile that it is read for.
    fn read(&self, origin: &ImportSource, caller_profile: &str) -> Result<StoreContent, Failure>;

    /// Every entry that the tool has, wherever it may keep one, as far as it is known: in the store at `origin`, in that
    /// which the tool uses now, and in their further files.
    fn all_entries(&self, origin: &ImportSource, caller_profile: &str) -> Vec<OtherEntry>;

    /// What is known of the tool itself.
    fn about(&self, origin: &ImportSource) -> ToolFacts;
}

/// Why the tool of this origin cannot be followed at all: its store cannot be read again; or the server rotates, and what
/// the tool refreshes could not be adopted, because nothing says whose it is.
pub fn cannot_follow(name: &ProfileName, origin: &ImportSource, about: &ToolFacts, rotates: bool) -> Option<Failure> {
    let tool = &origin.tool;
    let remedy = format!(
        "to take it over, sign out of that tool on this machine: {}; and remove follow = true from [profile.{name}]",
        about.sign_out
    );
    let what = match origin.location {
        None => format!(
            "the credential of {tool} came from where it cannot be read again; follow needs the file that {tool} itself writes"
        ),
        Some(_) if rotates && origin.identity.display_name().is_none() => format!(
            "{origin} does not name its account, so at this provider, which rotates refresh tokens, keepalive could not adopt \
             what {tool} refreshes"
        ),
        Some(_) => return None,
    };
    let message = format!("profile {name} has follow = true, but {what}");
    Some(Failure::new(ErrorKind::Follow, message).with_hint(remedy))
}

/// The error of a profile that has no tool to follow.
pub fn nothing_to_follow(name: &ProfileName) -> Failure {
    Failure::new(
        ErrorKind::Follow,
        format!("profile {name} has follow = true, but was not imported from a tool's store that can be read again"),
    )
    .with_hint(format!("remove follow = true from [profile.{name}], or keepalive import {name} --from TOOL"))
}

/// The error of a profile whose tool holds the same token and never refreshes it, at a provider that rotates.
pub fn tool_never_refreshes(name: &ProfileName, origin: &ImportSource, about: &ToolFacts) -> Failure {
    Failure::new(
        ErrorKind::Follow,
        format!("profile {name} has follow = true, but {} does not refresh its tokens, so it would wait for ever", origin.tool),
    )
    .with_hint(format!(
        "sign out of that tool on this machine, and keepalive goes on alone: {}; then remove follow = true from [profile.{name}]",
        about.sign_out
    ))
}

/// Why a flight sends nothing while the tool holds the same token, at a provider that rotates, and what a person can do.
pub fn tool_refreshes_first(origin: &ImportSource, about: &ToolFacts) -> Failure {
    let tool = &origin.tool;
    Failure::new(
        ErrorKind::ToolFirst,
        format!(
            "{origin} has the same refresh token, which works once at this provider, so {tool} refreshes it and keepalive adopts the result"
        ),
    )
    .with_hint(format!(
        "run {tool} once when its token is about to end, and keepalive adopts the new one; or sign out of it on this machine, \
         and keepalive goes on alone: {}",
        about.sign_out
    ))
}

/// Why a flight sends nothing: the tool has `what`, and a person must choose.
pub fn conflict(name: &ProfileName, origin: Option<&ImportSource>, what: &str) -> Failure {
    let from = origin.map_or_else(String::new, ImportSource::to_string);
    let again = origin.map_or_else(String::new, |o| o.import_command(name.as_str()));
    Failure::new(ErrorKind::Conflict, format!("{from} has {what}"))
        .with_hint(format!("to use that one: {again} --replace; to keep this one: follow = false"))
}

/// Why the token that is stored is not handed out: the tool names another account for it than it did.
pub fn other_name(name: &ProfileName, origin: Option<&ImportSource>) -> Failure {
    conflict(name, origin, "the same token, but names another account for it than the one that was imported").with_hint(
        format!(
            "it is kept and not handed out; if that account is meant: {} --replace; to sign in: keepalive login {name}",
            origin.map_or_else(String::new, |o| o.import_command(name.as_str()))
        ),
    )
}

/// Why a flight waits: the tool has a newer token, and may be about to name its account.
pub fn account_pending(origin: &ImportSource) -> Failure {
    let message = format!("{origin} has a newer token, and the file that names its account was not written since");
    Failure::new(ErrorKind::Source, message).with_hint("it is read again in a minute")
}
