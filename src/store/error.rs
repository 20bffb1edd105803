//! The errors of a store, and what to do about each.

use std::io;
use std::path::{Path, PathBuf};

use super::keyring::{KeyringError, KeyringProgram};
use crate::outcome::{ErrorKind, Failure, ManualSection, Outcome, OutcomeKind};
use crate::profile::ProfileName;
use crate::store::disk::envelope::UnsealError;
use crate::store::disk::layout::Layout;
use crate::store::keys::key_id::SealedUnder;
use crate::store::keys::sealing_key::KeyError;
use crate::store::tokens::ownership::TokenClaim;
use crate::sys::lockfile::{LockError, LockFile, LockHolder, LockWait};
use crate::sys::write_access::Obstacle;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// A refresh could not store its response; nothing was tried.
    #[error("{} {obstacle}", path.display())]
    Unwritable { path: PathBuf, obstacle: Obstacle },
    /// Another process has a lock that was waited for in vain; nothing was done.
    #[error("cannot lock {}: {holder} has it", path.display())]
    Locked { path: PathBuf, holder: LockHolder },
    /// Nothing was ever stored here.
    #[error("the store is empty")]
    Empty,
    #[error("{} is damaged: {why}", path.display())]
    DamagedFile { path: PathBuf, why: String },
    /// The folder of a profile was copied in from another store.
    #[error("{} belongs to another store", path.display())]
    ForeignJournal { path: PathBuf, profile: ProfileName },
    /// The file is not damaged, but a newer version wrote it, and this one must not replace it.
    #[error("{} was written by a later version of keepalive (format {found})", path.display())]
    LaterVersion { path: PathBuf, found: u64 },
    #[error("{} cannot be opened: {damage}", path.display())]
    CannotUnseal { path: PathBuf, damage: UnsealError },
    #[error("{} is sealed with key {id}, but {location} has a different key", path.display())]
    OtherKey { path: PathBuf, id: String, location: String },
    #[error("{}", .0)]
    Keyring(#[from] KeyringError),
    #[error("the keyring{} has no sealing key for this store ({store})", program_text(*program))]
    KeyMissing {
        store: String,
        program: Option<KeyringProgram>,
        /// What this store has published is there: it is the right keyring.
        is_ours: bool,
    },
    #[error("the sealing key in the keyring is damaged")]
    KeyDamaged,
    #[error("{error}")]
    KeyUnavailable { error: KeyError, sealed_under: SealedUnder },
    #[error("{} is on a network filesystem ({name})", dir.display())]
    NetworkFilesystem { dir: PathBuf, name: String },
    #[error("this store was made on another machine")]
    OtherMachine,
    /// Its files are not those that they were made as.
    #[error("{} is a copy of a state directory, and the original may be in use", dir.display())]
    Copied { dir: PathBuf },
    #[error(
        "the files of profile {profile} were restored from a backup, and its refresh token may have been used since"
    )]
    Restored { profile: String },
    /// A copy of this store has taken it over, as the keyring says.
    #[error("another state directory has taken over this store, which {} is a copy of", dir.display())]
    TakenOver { dir: PathBuf },
    #[error("the keyring item of profile {profile} belongs to another state directory (store {other})")]
    OtherStore { profile: String, other: String },
    #[error("the stored credential is generation {found}, but generation {known} had already been stored")]
    StaleCredential { found: u64, known: u64 },
    #[error("the sealed credential of profile {profile} is missing")]
    CredentialLost { profile: String },
    /// The identity of the store is lost, so its fingerprints cannot be compared any more.
    #[error("{} is missing, and no journal has its content", identity.display())]
    IdentityLost { identity: PathBuf, ledger: PathBuf },
    /// The ledger lacks a token that it had.
    #[error("{} is damaged or was restored from a backup: it lacks a consumed token that {} records", path.display(), journal.display())]
    LedgerDamaged { path: PathBuf, journal: PathBuf },
    /// Another profile of this store has the token of one that was brought here from elsewhere.
    #[error("{}", token_claimed_text(profile, claim))]
    TokenClaimed { profile: ProfileName, claim: TokenClaim },
}

/// What is done with the space for a response.
pub(super) const RESERVE: &str = "reserve";

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// Takes a lock, waiting for it as long as `wait` allows.
    pub fn lock(path: &Path, wait: LockWait<'_>) -> Result<LockFile, Self> {
        LockFile::acquire_within(path, wait).map_err(|e| Self::not_locked(path, e))
    }

    /// Why a lock was not taken.
    pub fn not_locked(path: &Path, error: LockError) -> Self {
        match error {
            LockError::Io(e) => Self::io("lock", path, e),
            LockError::Held(holder) => Self::Locked { path: path.to_owned(), holder },
        }
    }

    pub(super) fn identity_lost(layout: &Layout) -> Self {
        Self::IdentityLost { identity: layout.identity(), ledger: layout.ledger() }
    }

    pub(super) fn copied(layout: &Layout) -> Self {
        Self::Copied { dir: layout.dir().to_owned() }
    }

    /// The outcome of a run that met this error: nothing was sent.
    pub fn outcome(&self) -> Outcome {
        let kind = match self.kind().section() {
            ManualSection::SignIn => OutcomeKind::NeedsLogin,
            ManualSection::Configuration => OutcomeKind::ConfigError,
            ManualSection::TryAgain => OutcomeKind::Deferred,
            _ => OutcomeKind::StoreUnavailable,
        };
        let failure = Failure::new(self.kind(), self.to_string()).with_hint(self.hint());
        Outcome { is_persistent: self.is_persistent(), ..Outcome::new(kind).with_error(failure) }
    }

    /// The outcome of a run that asked for the sealing key and met this error.
    pub fn key_outcome(&self) -> Outcome {
        Outcome { is_without_key: self.is_noted_of_key(), ..self.outcome() }
    }

    /// Whether a run that asked for the key notes this error. A run that met another keyring, or none, leaves no note. That a
    /// key file is missing is seen without one, and what systemd gives to a unit alone is no fault of a shell that lacks it.
    fn is_noted_of_key(&self) -> bool {
        match self {
            Self::Keyring(error) => match error.cause() {
                KeyringError::NoBus | KeyringError::NoService | KeyringError::NoCollection => false,
                KeyringError::Locked
                | KeyringError::AsksPerson
                | KeyringError::TimedOut
                | KeyringError::Denied
                | KeyringError::Failed(_)
                | KeyringError::OfProgram { .. } => true,
            },
            Self::KeyMissing { is_ours, .. } => *is_ours,
            Self::KeyDamaged => true,
            Self::KeyUnavailable { error, .. } => match error {
                KeyError::FileUnreadable { .. }
                | KeyError::FileOpenToOthers { .. }
                | KeyError::Command(_)
                | KeyError::Malformed(_) => true,
                KeyError::FileMissing(_) | KeyError::NoCredentialsDirectory(_) | KeyError::CredentialMissing(_) => {
                    false
                }
            },
            _ => false,
        }
    }

    /// Whether the error stays until what is stored is repaired, so that `status` must show it for the profile. An
    /// error that may pass does not count, nor one that another run may not meet: a keyring or a disk that fails, a key
    /// that only this process lacks, or that another keyring than that of this process's session bus has. Those who asked for
    /// the key note that, see [`Self::key_outcome`]. An error of the whole store, or of the journal itself, is not recorded in
    /// a journal.
    fn is_persistent(&self) -> bool {
        match self {
            Self::CredentialLost { .. }
            | Self::StaleCredential { .. }
            | Self::CannotUnseal { .. }
            | Self::OtherKey { .. }
            | Self::OtherStore { .. }
            | Self::TakenOver { .. }
            | Self::Restored { .. }
            | Self::TokenClaimed { .. }
            | Self::LedgerDamaged { .. }
            | Self::KeyUnavailable { error: KeyError::Malformed(_) | KeyError::FileOpenToOthers { .. }, .. } => true,
            Self::Io { .. }
            | Self::Unwritable { .. }
            | Self::Locked { .. }
            | Self::Empty
            | Self::Keyring(_)
            | Self::KeyMissing { .. }
            | Self::KeyDamaged
            | Self::KeyUnavailable { .. }
            | Self::DamagedFile { .. }
            | Self::ForeignJournal { .. }
            | Self::LaterVersion { .. }
            | Self::IdentityLost { .. }
            | Self::NetworkFilesystem { .. }
            | Self::OtherMachine
            | Self::Copied { .. } => false,
        }
    }

    /// Whether the error is about the stored credential of the profile, and not about the store.
    pub fn is_about_stored_credential(&self) -> bool {
        matches!(
            self,
            Self::CredentialLost { .. }
                | Self::StaleCredential { .. }
                | Self::CannotUnseal { .. }
                | Self::OtherKey { .. }
                | Self::ForeignJournal { .. }
                | Self::Restored { .. }
        )
    }

    /// The kind; the outcome follows from it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } | Self::Unwritable { .. } => ErrorKind::Io,
            Self::Locked { .. } => ErrorKind::Busy,
            Self::Empty => ErrorKind::NoCredential,
            Self::DamagedFile { .. }
            | Self::CannotUnseal { .. }
            | Self::OtherKey { .. }
            | Self::ForeignJournal { .. } => ErrorKind::Damaged,
            Self::LaterVersion { .. } => ErrorKind::LaterVersion,
            Self::Keyring(error) => error.error_kind(),
            Self::KeyMissing { .. } => ErrorKind::KeyMissing,
            Self::KeyDamaged => ErrorKind::KeyDamaged,
            Self::KeyUnavailable { .. } => ErrorKind::Key,
            Self::NetworkFilesystem { .. } => ErrorKind::NetworkFilesystem,
            Self::OtherMachine => ErrorKind::Machine,
            Self::Copied { .. } | Self::TakenOver { .. } | Self::Restored { .. } => ErrorKind::Clone,
            Self::OtherStore { .. } => ErrorKind::DomainMismatch,
            Self::StaleCredential { .. } => ErrorKind::StaleCredential,
            Self::IdentityLost { .. } => ErrorKind::IdentityLost,
            Self::LedgerDamaged { .. } => ErrorKind::LedgerDamaged,
            Self::TokenClaimed { claim: TokenClaim::HeldBy(_) | TokenClaim::PublishedElsewhere(_), .. } => {
                ErrorKind::Conflict
            }
            Self::TokenClaimed { claim: TokenClaim::Unusable, .. } => ErrorKind::Consumed,
            Self::CredentialLost { .. } => ErrorKind::Lost,
        }
    }

    /// What to do about it.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::Io { action: RESERVE, path, .. } => {
                format!("check free space, quota and permissions in {}", parent_text(path))
            }
            Self::Io { path, .. } => format!("check free space and permissions in {}", parent_text(path)),
            Self::Unwritable { path, obstacle } => obstacle.hint(path),
            Self::Locked { holder, .. } => holder.hint(),
            Self::Empty => "keepalive login PROFILE, or keepalive import PROFILE".into(),
            Self::DamagedFile { path, .. } => damaged_file_hint(path),
            Self::ForeignJournal { profile, .. } => {
                format!("sign in again: keepalive login {profile}, or replace it: keepalive import {profile} --replace")
            }
            Self::LaterVersion { .. } => "use the version of keepalive that wrote it, or a newer one".into(),
            Self::CannotUnseal { .. } => format!("{RESTORE_HINT}, or sign in again"),
            Self::Keyring(error) => error.hint().to_owned(),
            Self::KeyMissing { .. } => key_missing_hint(),
            Self::OtherKey { id, location, .. } => format!("restore key {id} to {location}; {KEY_LOST_HINT}"),
            Self::KeyDamaged => format!("restore the keyring from a backup; {KEY_LOST_HINT}"),
            Self::KeyUnavailable { error, sealed_under } => key_unavailable_hint(error, sealed_under),
            Self::NetworkFilesystem { .. } => LOCAL_DIRECTORY_HINT.into(),
            Self::OtherMachine => {
                "if the other machine no longer refreshes these profiles: keepalive doctor --take-over".into()
            }
            Self::Copied { .. } | Self::TakenOver { .. } => {
                "use the other directory; if nothing refreshes there any more: keepalive doctor --take-over".into()
            }
            Self::Restored { profile } => format!(
                "sign in again: keepalive login {profile}; if it was not refreshed since the backup: keepalive doctor \
                 --take-over"
            ),
            // The profile is named, since nothing here may know it yet.
            Self::OtherStore { profile, .. } => {
                format!("if that state directory is no longer used: keepalive doctor --take-over -p {profile}")
            }
            Self::StaleCredential { .. } => {
                "an older copy was restored, whose refresh token has been consumed: sign in again".into()
            }
            Self::IdentityLost { ledger, .. } => identity_lost_hint(ledger),
            Self::LedgerDamaged { path, .. } => ledger_damaged_hint(path),
            Self::TokenClaimed { profile, claim: TokenClaim::HeldBy(other) } => {
                format!("use profile {other}, and delete this one: keepalive logout {profile} --forget")
            }
            Self::TokenClaimed { claim: TokenClaim::PublishedElsewhere(user), .. } => published_elsewhere_hint(user),
            Self::TokenClaimed { profile, claim: TokenClaim::Unusable } => {
                format!("sign in again: keepalive login {profile}")
            }
            Self::CredentialLost { .. } => "restore the store directory from a backup, or sign in again".into(),
        }
    }
}

/// The hint for a damaged file without secrets. What a profile's journal knows is nowhere else, so only a person may
/// discard it, by a new login; a file of the whole store is not to be discarded for one login.
fn damaged_file_hint(path: &Path) -> String {
    match path.file_name() {
        Some(name) if name == "store.json" => {
            format!("{RESTORE_HINT}, or remove it: it can be rebuilt from the journals")
        }
        Some(name) if name == "handles.json" => {
            format!("remove {}, and make the handles anew: keepalive handle create PROFILE", path.display())
        }
        Some(name) if name == "record.json" => format!("{RESTORE_HINT}, sign in again, or import with --replace"),
        _ => RESTORE_HINT.to_owned(),
    }
}

const RESTORE_HINT: &str = "restore the file from a backup made since the last refresh";

const LOCAL_DIRECTORY_HINT: &str =
    "set [store] path to a local directory, or allow_network_filesystem = true if no other machine uses it";

/// The hint for a lost identity: nothing may be left that only it could identify.
fn identity_lost_hint(ledger: &Path) -> String {
    let ledger = ledger.display();
    format!(
        "restore it from a backup; if it is lost for good: keepalive logout PROFILE --forget for each profile, remove \
         {ledger}, which is unreadable without it, then sign in again"
    )
}

/// The hint for a ledger that has lost entries: a login brings a token that cannot have been consumed.
fn ledger_damaged_hint(ledger: &Path) -> String {
    format!(
        "restore {} from a newer backup, or sign in again: keepalive login PROFILE; it is complete again once each \
         profile has been refreshed, and the directories of signed-out profiles are removed",
        ledger.display()
    )
}

/// The hint for a lost key: what is sealed with it must go before another key takes its place.
const KEY_LOST_HINT: &str =
    "if it is lost for good: keepalive logout PROFILE --forget for each profile, then sign in again";

/// The hint for a key that the keyring does not have: each program and each session bus has items of its own.
fn key_missing_hint() -> String {
    format!(
        "unlock or restore the keyring that has the key, or run where that is the keyring of the session; \
         {KEY_LOST_HINT}, with [store] kind = \"file\" if no keyring shall be needed"
    )
}

fn program_text(program: Option<KeyringProgram>) -> String {
    program.map_or_else(String::new, |program| format!(" ({program})"))
}

/// The hint for a key that cannot be read: a new key helps only if nothing is sealed with the old one.
fn key_unavailable_hint(error: &KeyError, sealed_under: &SealedUnder) -> String {
    let key = match sealed_under {
        SealedUnder::Nothing => return error.hint(),
        SealedUnder::Key(id) => format!("key {id}"),
        SealedUnder::Unreadable => "the key".to_owned(),
    };
    match error.repair_hint() {
        Some(repair) => repair,
        None => format!("restore {key}: a new key cannot decrypt this store; {KEY_LOST_HINT}"),
    }
}

impl From<StoreError> for Outcome {
    fn from(error: StoreError) -> Self {
        error.outcome()
    }
}

/// The hint if another state directory has published a token in our keyring.
fn published_elsewhere_hint(user: &str) -> String {
    format!(
        "use that one; if its directory is no longer used, take over profile {user} (keepalive doctor --take-over -p \
         {user}), or remove its keyring item: secret-tool clear service SERVICE username {user}"
    )
}

/// The text that says who holds the token.
fn token_claimed_text(profile: &ProfileName, claim: &TokenClaim) -> String {
    match claim {
        TokenClaim::HeldBy(other) => {
            format!(
                "profile {other} has the same refresh token as profile {profile}, and two profiles must not share one"
            )
        }
        TokenClaim::PublishedElsewhere(user) => {
            format!(
                "profile {user} of another state directory has the same refresh token as profile {profile}, and two \
                 profiles must not share one"
            )
        }
        TokenClaim::Unusable => format!("the refresh token of profile {profile} has been used or rejected before"),
    }
}

fn parent_text(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}
