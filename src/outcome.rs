//! The outcome of a refresh and the state of a profile, in the words that the user, the journal and the JSON share.

mod diagnostic;
mod error_kind;

use std::fmt;

pub use diagnostic::{Diagnostic, Excerpt, Position};
pub use error_kind::{ErrorKind, ManualSection};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::credential::Generation;

/// How one call for a refresh ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub kind: OutcomeKind,
    /// The newest generation known; `NONE` without a credential.
    pub generation: Generation,
    pub expires_at: Option<Timestamp>,
    /// When it will be tried again, if it was not done.
    pub retry_at: Option<Timestamp>,
    pub publication: Publication,
    pub error: Option<Failure>,
    /// Every run ends like this until what is stored is repaired, so the journal keeps it.
    pub is_persistent: bool,
    /// The sealing key could not be had. It may be the next time, but until then `status` shows it.
    pub is_without_key: bool,
    /// The flight was led by another caller or process.
    pub is_follower: bool,
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    /// A response brought tokens, and they are durable.
    Refreshed,
    /// There was nothing to do.
    Fresh,
    /// The refresh was put off; `retry_at` says until when.
    Deferred,
    /// A request was sent and its outcome is unknown.
    InDoubt,
    /// The refresh token is rejected or given up, or there is no credential.
    NeedsLogin,
    /// The configuration, the client's registration, or the identity of the store must be corrected first.
    ConfigError,
    /// The credential store is missing, locked, hanging or damaged; nothing was sent.
    StoreUnavailable,
}

/// The word of the JSON, for the log.
impl fmt::Display for OutcomeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The state of a profile, as `status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProfileState {
    Fresh,
    Due,
    Expired,
    Deferred,
    InDoubt,
    NeedsLogin,
    ConfigError,
    /// The store, or what is stored for the profile, is locked, hanging or damaged.
    StoreUnavailable,
    NoCredential,
}

impl ProfileState {
    /// Whether it does not pass by itself, or is to be known before it does.
    pub fn needs_person(self) -> bool {
        match self {
            Self::NeedsLogin | Self::ConfigError | Self::StoreUnavailable | Self::InDoubt => true,
            Self::Fresh | Self::Due | Self::Expired | Self::Deferred | Self::NoCredential => false,
        }
    }
}

/// How a profile stands of which every refresh ends with this outcome.
impl From<OutcomeKind> for ProfileState {
    fn from(outcome: OutcomeKind) -> Self {
        match outcome {
            OutcomeKind::Refreshed | OutcomeKind::Fresh => Self::Fresh,
            OutcomeKind::Deferred => Self::Deferred,
            OutcomeKind::InDoubt => Self::InDoubt,
            OutcomeKind::NeedsLogin => Self::NeedsLogin,
            OutcomeKind::ConfigError => Self::ConfigError,
            OutcomeKind::StoreUnavailable => Self::StoreUnavailable,
        }
    }
}

/// The word of the JSON, for the log.
impl fmt::Display for ProfileState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Whether the OS keyring has the newest generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Publication {
    Published,
    /// Safe in the sealed credential; the keyring gets it as soon as it can take it.
    PublishPending,
    /// There is no keyring to publish to, or nothing to publish.
    #[default]
    None,
}

/// What went wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: ErrorKind,
    pub message: String,
    pub hint: Option<String>,
    /// Of a configuration: every mistake in it, this one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty", skip_deserializing)]
    pub mistakes: Vec<Diagnostic>,
}

impl Failure {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, mistakes: Vec::new() }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The message and what to do, for a program that shows one line.
    pub fn in_one_line(&self) -> String {
        let more = match self.mistakes.len() {
            0 | 1 => String::new(),
            count => format!(" (the first of {count} mistakes)"),
        };
        let hint = self.hint.as_ref().map_or(String::new(), |hint| format!("; {hint}"));
        format!("{}{more}{hint}", self.message).replace(['\n', '\r'], " ")
    }

    /// With this profile, and this service of the keyring, in a hint that was written where they were not known. What must be
    /// done for each profile keeps its placeholder.
    #[must_use]
    pub fn with_names(mut self, profile: &str, service: Option<&str>) -> Self {
        let name_commands = |hint: String| {
            let named = ["login", "import"].into_iter().fold(hint, |hint, command| {
                hint.replace(&format!("keepalive {command} PROFILE"), &format!("keepalive {command} {profile}"))
            });
            named.replace("service SERVICE ", &format!("service {} ", service.unwrap_or("SERVICE")))
        };
        self.hint = self.hint.map(name_commands);
        self
    }
}

impl Outcome {
    pub fn new(kind: OutcomeKind) -> Self {
        Self {
            kind,
            generation: Generation::NONE,
            expires_at: None,
            retry_at: None,
            publication: Publication::None,
            error: None,
            is_persistent: false,
            is_without_key: false,
            is_follower: false,
            warnings: Vec::new(),
        }
    }

    #[must_use]
    pub fn with_error(mut self, failure: Failure) -> Self {
        self.error = Some(failure);
        self
    }

    /// As [`Failure::with_names`].
    #[must_use]
    pub fn with_names(mut self, profile: &str, service: Option<&str>) -> Self {
        self.error = self.error.map(|error| error.with_names(profile, service));
        self
    }

    #[must_use]
    pub fn with_retry_at(mut self, at: Timestamp) -> Self {
        self.retry_at = Some(at);
        self
    }

    #[must_use]
    pub fn as_follower(mut self) -> Self {
        self.is_follower = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_names_the_profile_and_the_keyring_that_are_known() {
        let named = |hint: &str| Failure::new(ErrorKind::Io, "x").with_hint(hint).with_names("work", Some("mine")).hint;
        for (hint, expected) in [
            ("keepalive login PROFILE, or keepalive import PROFILE", "keepalive login work, or keepalive import work"),
            ("secret-tool clear service SERVICE username other", "secret-tool clear service mine username other"),
            (
                "keepalive logout PROFILE --forget for each profile",
                "keepalive logout PROFILE --forget for each profile",
            ),
        ] {
            assert_eq!(named(hint).as_deref(), Some(expected));
        }
        assert_eq!(Failure::new(ErrorKind::Io, "x").with_names("work", None).hint, None);
    }
}
