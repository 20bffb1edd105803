//! Why there is no token, in the terms of a program: who must act, and whether to ask again.

use std::fmt;
use std::io;
use std::time::SystemTime;

use crate::access::obtain::MissingToken;
use crate::outcome::{self, ErrorKind, Outcome, OutcomeKind};

/// What went wrong, for a person and for a program. It holds no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure(outcome::Failure);

impl Failure {
    /// The kind, one of the words that keepalive(1) lists under ERRORS, or the error code of the provider, such as
    /// `invalid_grant` (RFC 6749, section 5.2).
    pub fn kind(&self) -> &str {
        self.0.kind.word()
    }

    /// What happened, in a sentence without a full stop.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do about it, if that is known. It may name a command.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl From<outcome::Failure> for Failure {
    fn from(failure: outcome::Failure) -> Self {
        Self(failure)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({}: {})", self.kind(), self.message())
    }
}

/// Message and hint, in one line.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.in_one_line())
    }
}

/// Why there is no valid access token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// A person must sign in: the refresh token was rejected or given up, or none is stored.
    #[error("{0}")]
    NeedsLogin(Failure),
    /// It may pass: the provider cannot be reached or asks to wait, or another process did not finish in time. Also, a request
    /// was sent and its response is not known.
    #[error("{failure}")]
    TryAgain {
        /// What happened.
        failure: Failure,
        /// When a refresh is tried next, if that is known. Asking before is allowed, and sends nothing.
        retry_at: Option<SystemTime>,
    },
    /// The configuration, the client's registration, or the identity of the store must be corrected.
    #[error("{0}")]
    Config(Failure),
    /// The store or its key cannot be used now: locked, full, damaged. Nothing was sent.
    #[error("{0}")]
    StoreUnavailable(Failure),
    /// There is no profile of this name.
    #[error("{0}")]
    UnknownProfile(Failure),
}

impl TokenError {
    /// Whether asking again later may help, though no person does anything. Wait at least some seconds, or until
    /// `retry_at`.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::TryAgain { .. } | Self::StoreUnavailable(_))
    }

    /// The exit status that `keepalive token` has for it, as in sysexits.h: 69 for the store, 75 for what may pass, 77 for a
    /// login, 78 for the configuration.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::StoreUnavailable(_) => 69,
            Self::TryAgain { .. } => 75,
            Self::NeedsLogin(_) | Self::UnknownProfile(_) => 77,
            Self::Config(_) => 78,
        }
    }

    /// What happened.
    pub fn failure(&self) -> &Failure {
        match self {
            Self::NeedsLogin(failure) | Self::Config(failure) | Self::StoreUnavailable(failure) => failure,
            Self::UnknownProfile(failure) | Self::TryAgain { failure, .. } => failure,
        }
    }

    pub(super) fn no_such_name(why: &impl fmt::Display) -> Self {
        Self::UnknownProfile(outcome::Failure::new(ErrorKind::UnknownProfile, why.to_string()).into())
    }

    pub(super) fn no_thread(why: &io::Error) -> Self {
        let failure = outcome::Failure::new(ErrorKind::Busy, format!("nothing was sent: cannot start a thread: {why}"));
        Self::TryAgain { failure: failure.into(), retry_at: None }
    }

    /// A panic of ours, which has told of itself.
    pub(super) fn broken() -> Self {
        let failure = outcome::Failure::new(ErrorKind::Broken, "internal error of keepalive; please report it");
        Self::TryAgain { failure: failure.into(), retry_at: None }
    }
}

impl From<MissingToken> for TokenError {
    fn from(missing: MissingToken) -> Self {
        let failure = Failure(missing.failure);
        match missing.outcome {
            _ if missing.is_unknown => Self::UnknownProfile(failure),
            OutcomeKind::NeedsLogin => Self::NeedsLogin(failure),
            OutcomeKind::ConfigError => Self::Config(failure),
            OutcomeKind::StoreUnavailable => Self::StoreUnavailable(failure),
            OutcomeKind::Refreshed | OutcomeKind::Fresh | OutcomeKind::Deferred | OutcomeKind::InDoubt => {
                let retry_at = missing.retry_at.map(|at| SystemTime::UNIX_EPOCH + at.since_epoch());
                Self::TryAgain { failure, retry_at }
            }
        }
    }
}

/// Why a [`Keeper`](crate::Keeper) cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration is invalid, or the file that was named does not exist.
    #[error("{0}")]
    Config(Failure),
    /// There is no thread or no open file to be had now.
    #[error("{0}")]
    TryAgain(Failure),
}

impl OpenError {
    /// The exit status that a command has for it, as in sysexits.h: 75 or 78.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::TryAgain(_) => 75,
            Self::Config(_) => 78,
        }
    }

    /// What happened.
    pub fn failure(&self) -> &Failure {
        match self {
            Self::Config(failure) | Self::TryAgain(failure) => failure,
        }
    }

    pub(super) fn of_config(failure: outcome::Failure) -> Self {
        Self::Config(failure.into())
    }

    /// Why there is no engine.
    pub(super) fn of_outcome(outcome: Outcome) -> Self {
        let unknown = || outcome::Failure::new(ErrorKind::Runtime, "the network runtime cannot be started");
        Self::TryAgain(outcome.error.unwrap_or_else(unknown).into())
    }

    pub(super) fn no_thread(why: &io::Error) -> Self {
        Self::TryAgain(outcome::Failure::new(ErrorKind::Runtime, format!("cannot start a thread: {why}")).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(kind: ErrorKind, outcome: OutcomeKind, is_unknown: bool) -> TokenError {
        MissingToken { failure: outcome::Failure::new(kind, "m"), outcome, retry_at: None, is_unknown }.into()
    }

    #[test]
    fn error_says_who_must_act_and_whether_to_ask_again() {
        for (kind, outcome, is_unknown, is_transient, exit_status) in [
            (ErrorKind::Network, OutcomeKind::Deferred, false, true, 75),
            (ErrorKind::InDoubt, OutcomeKind::InDoubt, false, true, 75),
            (ErrorKind::KeyringLocked, OutcomeKind::StoreUnavailable, false, true, 69),
            (ErrorKind::Consumed, OutcomeKind::NeedsLogin, false, false, 77),
            (ErrorKind::NoCredential, OutcomeKind::NeedsLogin, true, false, 77),
            (ErrorKind::Config, OutcomeKind::ConfigError, false, false, 78),
        ] {
            let error = missing(kind.clone(), outcome, is_unknown);
            assert_eq!((error.is_transient(), error.exit_status()), (is_transient, exit_status), "{error:?}");
            assert_eq!(error.failure().kind(), kind.word());
            assert_eq!(matches!(error, TokenError::UnknownProfile(_)), is_unknown);
        }
    }

    #[test]
    fn error_is_shown_in_one_line_with_its_hint() {
        let failure = outcome::Failure::new(ErrorKind::Network, "no route").with_hint("try later");
        let error = TokenError::TryAgain { failure: failure.into(), retry_at: None };
        assert_eq!(error.to_string(), "no route; try later");
        assert_eq!(format!("{error:?}"), "TryAgain { failure: Failure(network: no route), retry_at: None }");
    }
}
