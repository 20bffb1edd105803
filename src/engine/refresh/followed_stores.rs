//! The interface through which the engine reads the stores of other tools; it never writes them.

use crate::credential::external::{ExternalCredential, ImportSource};
use crate::outcome::{ErrorKind, Failure};
use crate::profile::ProfileName;

/// What a tool's store holds for one account.
#[derive(Debug)]
pub enum StoreContent {
    Credential(Box<ExternalCredential>),
    /// The store is gone, or was understood and has no refresh token for that account; the text says which.
    SignedOut(String),
    /// As signed out, for the reason given; but the tool has other entries, under other names or in other places.
    OtherEntries {
        why: String,
        entries: Vec<OtherEntry>,
    },
}

/// An entry of a tool's store that is not the one that is followed. Entries without a refresh token are left out.
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
        ImportSource { location: Some(self.place.clone()), account, is_in_keyring: false, ..before.clone() }
    }
}

impl std::fmt::Display for OtherEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.id.is_empty() { f.write_str(&self.place) } else { write!(f, "{} in {}", self.id, self.place) }
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
