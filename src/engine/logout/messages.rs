//! The messages of a logout: what failed, what is left to do, and what the person can choose. (pure)

use url::Url;

use crate::credential::Binding;
use crate::engine::logout::{LogoutResult, TokenFate};
use crate::engine::refresh::errors::withheld;
use crate::engine::status::other_server;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::ProfileName;
use crate::provider::{NotSentReason, PreparedProvider};
use crate::store::StoreError;
use crate::store::journal::Journal;

/// A token is revoked only at the server and by the client that it was issued by and to.
pub(in crate::engine) fn check_binding(
    binding: &Binding,
    prepared: &PreparedProvider,
    url: &Url,
) -> Result<(), Failure> {
    let provider = &binding.provider;
    if let Some(failure) = other_server(binding, &prepared.binding()) {
        return Err(failure.with_hint(format!("restore [provider.{provider}]")));
    }
    let origin = url.origin().ascii_serialization();
    if origin == binding.origin {
        return Ok(());
    }
    let message =
        format!("the revocation endpoint is at {origin}, but the credential was issued at {}", binding.origin);
    Err(Failure::new(ErrorKind::OtherServer, message)
        .with_hint(format!("check revocation_endpoint in [provider.{provider}]")))
}

pub(in crate::engine) fn unsent_outcome(why: NotSentReason, url: &Url) -> Outcome {
    match why {
        NotSentReason::Network(reason) | NotSentReason::EarlyResponse(reason) => {
            let message = format!("cannot reach {}: {reason}", url.origin().ascii_serialization());
            Outcome::new(OutcomeKind::Deferred).with_error(Failure::new(ErrorKind::Network, message))
        }
        NotSentReason::BeforeSend(why) => withheld(why),
    }
}

pub(in crate::engine) fn failure_of(outcome: Outcome) -> Failure {
    outcome.error.unwrap_or_else(|| Failure::new(ErrorKind::Unknown, "unknown reason"))
}

/// Adds to an outcome that nothing was forgotten, and what the person can choose.
pub(in crate::engine) fn with_forget_hint(name: &ProfileName, mut outcome: Outcome) -> Outcome {
    let Some(failure) = &mut outcome.error else { return outcome };
    let first = match (&failure.hint, outcome.kind) {
        (Some(hint), _) => format!("{hint}; "),
        (None, OutcomeKind::Deferred) => "try again; ".to_owned(),
        (None, _) => String::new(),
    };
    let choice = format!("or delete it here anyway: keepalive logout {name} --forget");
    failure.message = format!("{name} is still signed in: {}", failure.message);
    failure.hint =
        Some(format!("{first}{}", if first.is_empty() { choice.trim_start_matches("or ") } else { &choice }));
    outcome
}

/// An error while forgetting: what happened to the tokens before it, what is left, and what completes it.
pub(in crate::engine) fn partial_outcome(
    journal: &Journal,
    token_fates: Option<(TokenFate, Option<TokenFate>)>,
    error: &StoreError,
) -> Outcome {
    let mut outcome = error.outcome();
    let Some(failure) = &mut outcome.error else { return outcome };
    outcome.kind = OutcomeKind::StoreUnavailable;
    let name = &journal.profile;
    let ended = token_fates.map_or(String::new(), |(refresh, access)| format!("{}; ", fates_text(refresh, access)));
    let (left, last) = match journal.is_tombstone {
        true => ("the profile is deleted, but some of its data could not be removed", "removes the rest"),
        false => ("the profile could not be deleted here", "deletes it"),
    };
    failure.message = format!("{name}: {ended}{left}: {}", failure.message);
    let before = failure.hint.as_ref().map_or(String::new(), |hint| format!("{hint}; then "));
    failure.hint = Some(format!("{before}keepalive logout {name} {last}"));
    outcome
}

fn fates_text(refresh: TokenFate, access: Option<TokenFate>) -> &'static str {
    match (refresh, access) {
        (TokenFate::Revoked, Some(TokenFate::Revoked)) => "the refresh token and the access token are revoked",
        (TokenFate::Revoked, Some(TokenFate::NotRevoked)) => {
            "the refresh token is revoked, and the access token is not"
        }
        (TokenFate::Revoked, _) => "the refresh token is revoked",
        (TokenFate::AlreadyInvalid, Some(TokenFate::Revoked)) => {
            "the refresh token was already invalid, and the access token is revoked"
        }
        (TokenFate::AlreadyInvalid, _) => "the refresh token was already invalid",
        (TokenFate::NotRevoked, Some(TokenFate::Revoked)) => "only the access token is revoked",
        (TokenFate::NotRevoked, _) => "nothing is known to be revoked",
    }
}

pub(in crate::engine) fn completed_result(journal: &Journal, warnings: Vec<String>) -> LogoutResult {
    let is_revoked = journal.revocation.as_ref().is_some_and(|r| r.is_confirmed);
    let (refresh, reason) = match is_revoked {
        true => (TokenFate::Revoked, None),
        false => (
            TokenFate::NotRevoked,
            Some(Failure::new(ErrorKind::Interrupted, "the interrupted logout had not revoked it")),
        ),
    };
    LogoutResult {
        generation: journal.generation,
        refresh,
        access: None,
        reason,
        warnings,
        completes_earlier_logout: true,
    }
}

/// The outcome if there is no credential.
pub fn nothing_to_sign_out(name: &ProfileName) -> Outcome {
    let failure = Failure::new(ErrorKind::NoCredential, format!("there is no credential for profile {name}"))
        .with_hint("there is nothing to sign out; keepalive status lists the profiles");
    Outcome::new(OutcomeKind::NeedsLogin).with_error(failure)
}
