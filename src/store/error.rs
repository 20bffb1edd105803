//! Why a store cannot serve, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::envelope::Damage;
use super::key::KeyError;
use super::keyring::KeyringError;
use crate::outcome::{Failure, Outcome, OutcomeKind};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// Nothing was ever stored here.
    #[error("the store is empty")]
    Empty,
    #[error("{} is damaged: {why}", path.display())]
    DamagedRecord { path: PathBuf, why: String },
    #[error("{} cannot be opened: {damage}", path.display())]
    Damaged { path: PathBuf, damage: Damage },
    #[error("{}", .0)]
    Keyring(#[from] KeyringError),
    #[error("the keyring has no sealing key for this store ({store})")]
    KeyMissing { store: String },
    #[error("the sealing key in the keyring is damaged")]
    KeyUnreadable,
    #[error("{0}")]
    Key(#[from] KeyError),
    #[error("{} lies on a network filesystem ({name})", dir.display())]
    NetworkFilesystem { dir: PathBuf, name: String },
    #[error("this store was made on another machine")]
    OtherMachine,
    #[error("the keyring's copy of profile {profile} belongs to another state directory (store {other})")]
    OtherStore { profile: String, other: String },
    #[error("the stored credential is generation {found}, but generation {known} was already committed")]
    Stale { found: u64, known: u64 },
    #[error("the sealed credential of profile {profile} is gone")]
    Lost { profile: String },
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// The outcome of a run that met this error: nothing was sent.
    pub fn outcome(&self) -> Outcome {
        let (kind, word, hint) = self.disposition();
        let mut failure = Failure::new(word, self.to_string());
        failure.hint = hint;
        Outcome::new(kind).because(failure)
    }

    fn disposition(&self) -> (OutcomeKind, &'static str, Option<String>) {
        use OutcomeKind::{ConfigError, NeedsLogin, StoreUnavailable};
        let say = |text: &str| Some(text.to_owned());
        match self {
            Self::Io { path, .. } => {
                (StoreUnavailable, "io", Some(format!("check space and permissions below {}", parent(path))))
            }
            Self::Empty => (NeedsLogin, "no_credential", say("keepalive login PROFILE, or keepalive import PROFILE")),
            Self::DamagedRecord { .. } | Self::Damaged { .. } => (
                StoreUnavailable,
                "damaged",
                say("restore the file from a backup made since the last refresh, or log in again"),
            ),
            Self::Keyring(e) => (StoreUnavailable, e.word(), Some(e.hint().to_owned())),
            Self::KeyMissing { .. } => (
                StoreUnavailable,
                "key_missing",
                say(
                    "unlock or restore the keyring that the key was made in; if it is lost for good, remove the store directory and log in again",
                ),
            ),
            Self::KeyUnreadable => (StoreUnavailable, "key_damaged", say("restore the keyring from a backup")),
            Self::Key(e) => (ConfigError, "key", Some(e.hint())),
            Self::NetworkFilesystem { .. } => (
                ConfigError,
                "network_filesystem",
                say(
                    "set [store] path to a local directory, or allow_network_filesystem = true if no other machine uses it",
                ),
            ),
            Self::OtherMachine => (
                ConfigError,
                "other_machine",
                say("if the other machine no longer refreshes these profiles: keepalive doctor --take-over"),
            ),
            Self::OtherStore { .. } => (
                ConfigError,
                "domain_mismatch",
                say("if the other state directory is out of use: keepalive doctor --take-over"),
            ),
            Self::Stale { .. } => (
                ConfigError,
                "stale_credential",
                say("an older copy was restored; its refresh token is spent: log in again"),
            ),
            Self::Lost { .. } => {
                (NeedsLogin, "lost", say("restore the store directory from a backup, or log in again"))
            }
        }
    }
}

impl From<StoreError> for Outcome {
    fn from(error: StoreError) -> Self {
        error.outcome()
    }
}

fn parent(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}
