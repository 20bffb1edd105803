//! `keepalive logout`: revokes a profile's credential at its provider if possible, and deletes it here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use clap_complete::ArgValueCandidates;
use serde_json::{Value, json};

use super::output::{CommandStatus, Output};
use super::signals::StopSignals;
use super::{GlobalArgs, completion};
use crate::cli::setup::Setup;
use crate::engine::logout::{self, LogoutProgress, LogoutRequest, LogoutResult, RevocationRoute, TokenFate};
use crate::engine::with_names;
use crate::mirror::Undone;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::ProfileName;
use crate::provider::http::HttpEndpoint;
use crate::store::StoreError;
use crate::store::journal::Journal;

/// Revoke a profile's credential at its provider, and delete it here
///
/// Revokes the refresh token (RFC 7009), and the access token if it is still valid, where the provider has a revocation
/// endpoint. Then deletes both from this machine. If revocation fails temporarily, or the provider rejects the client, the
/// credential is kept, unless you use --forget. A refresh in progress is completed first. Tokens are sent only to the
/// server that issued them. A tool that uses the same refresh token is signed out too. What mirrors have of the access token
/// is removed, and its handles are revoked.
///
/// A revoked token cannot be imported again. Logging out the last profile also deletes the sealing key from the keyring.
///
/// The exit status is 0 if the refresh token is revoked, or was already invalid; 1 if it is only deleted here, so that any
/// copy of it stays valid; 75 if the provider could not be reached, and 78 if it rejects the client, in both cases with the
/// credential kept; 69 if the keyring or the store cannot be used (the message says what remains); 77 if there was no
/// credential. --json shows the outcome (revoked, forgotten, or the reason), and for refresh_token and access_token one of
/// revoked, dead (already invalid) and left (not revoked).
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// Profile to sign out
    #[arg(value_name = "PROFILE", value_parser = super::profile_name, add = ArgValueCandidates::new(completion::profiles))]
    profile: ProfileName,
    /// Delete the credential here even if it cannot be revoked
    #[arg(long)]
    forget: bool,
}

pub(super) fn run(args: &LogoutArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    let (provider, left) = log_out(args, global, out);
    if out.is_json {
        out.json(&to_json(&args.profile, provider.as_deref(), &left));
    }
    match &left {
        Ok(departure) => report(&args.profile, provider.as_deref().unwrap_or("its provider"), departure, out),
        Err(outcome) => {
            if let Some(error) = &outcome.error {
                out.error(error);
            }
            CommandStatus::from_outcome(outcome)
        }
    }
}

/// Runs the logout. Also returns the provider's name, if it is known.
fn log_out(args: &LogoutArgs, global: &GlobalArgs, out: &Output) -> (Option<String>, Result<LogoutResult, Outcome>) {
    let config_error = |f: Failure| Outcome::new(OutcomeKind::ConfigError).with_error(f);
    let setup = match Setup::new(global) {
        Ok(setup) => setup,
        Err(failure) => return (None, Err(config_error(failure))),
    };
    let name = &args.profile;
    let journal = match setup.store.peek(name) {
        Ok(Some(journal)) => journal,
        Ok(None) => {
            let mut nothing = logout::nothing_to_sign_out(name);
            if let Some(error) = nothing.error.as_mut().filter(|_| !setup.config.knows(name)) {
                error.message = setup.unknown_profile(name).message;
            }
            // A logout that was cut off may have left some.
            revoke_handles(&setup, name, out).into_iter().for_each(|warning| out.warn(&warning));
            return (None, Err(nothing));
        }
        // A journal that cannot be read can still be forgotten.
        Err(StoreError::DamagedFile { .. }) if args.forget => Journal::new(name.clone()),
        Err(e) => return (None, Err(with_names(e.outcome(), &setup.store, name))),
    };
    let configured = || setup.profile(name).ok().map(|p| p.provider.name.clone());
    let provider = journal.binding.as_ref().map(|b| b.provider.clone()).or_else(configured);
    let endpoint = match setup.engine(false) {
        Ok((_, endpoint)) => endpoint,
        Err(outcome) => return (provider, Err(outcome)),
    };
    let route = match setup.profile(name) {
        // There is nothing to revoke.
        _ if journal.is_tombstone => RevocationRoute::Blocked(Outcome::new(OutcomeKind::NeedsLogin)),
        Ok(profile) => logout::find_revocation_route(endpoint.as_ref(), &profile),
        Err(outcome) => RevocationRoute::Blocked(outcome),
    };
    let leaving = LogoutRequest {
        store: &setup.store,
        server: endpoint.as_ref(),
        clock: Arc::clone(&setup.clock),
        name,
        must_forget: args.forget,
        stop: Arc::new(AtomicBool::new(false)),
    };
    let tell = |event| match event {
        LogoutProgress::WaitingForLock => out.info(&format!("{name}: waiting for a refresh in progress …")),
        LogoutProgress::Locked => stop_on_signal(&endpoint, &leaving.stop),
    };
    let left = leaving.run(route, &tell).map_err(|outcome| with_names(outcome, &setup.store, name));
    let left = left.map(|departure| LogoutResult {
        warnings: departure
            .warnings
            .into_iter()
            .chain(empty_mirrors(&setup, name))
            .chain(revoke_handles(&setup, name, out))
            .collect(),
        ..departure
    });
    (provider, left)
}

/// Takes the access token out of the files of other programs. Tells what still has it.
fn empty_mirrors(setup: &Setup, name: &ProfileName) -> Vec<String> {
    let Ok(profile) = setup.profile(name) else { return Vec::new() };
    let emptied = profile.mirrors.iter().map(|mirror| match setup.mirrors().undo(&profile, mirror) {
        Ok(Undone::InProgram) => Some(format!("{} keeps the last access token until that expires", mirror.form.name())),
        Ok(Undone::FileRemoved | Undone::MembersRemoved | Undone::Untouched) => None,
        Err(failure) => Some(format!("the last access token may still be in a mirror: {}", failure.message)),
    });
    emptied.flatten().collect()
}

/// Revokes the handles of the profile. Tells what stands in the way.
fn revoke_handles(setup: &Setup, name: &ProfileName, out: &Output) -> Option<String> {
    match setup.store.handles().revoke(|record| record.profile() == Some(name)) {
        Ok(revoked) => {
            let count = revoked.len();
            let handles = if count == 1 { "1 handle".to_owned() } else { format!("{count} handles") };
            if count > 0 {
                out.info(&format!("{name}: {handles} revoked"));
            }
            None
        }
        Err(error) => Some(format!("its handles are not revoked: {error}; keepalive handle revoke ID does it")),
    }
}

/// On a stop signal, nothing more is sent, and a request that was sent is completed.
fn stop_on_signal(endpoint: &HttpEndpoint, stop: &Arc<AtomicBool>) {
    let told = Arc::clone(stop);
    if let Ok(mut signals) = StopSignals::listen(endpoint) {
        endpoint.runtime().spawn(async move {
            signals.received().await;
            told.store(true, Ordering::SeqCst);
        });
    }
}

fn report(name: &ProfileName, provider: &str, departure: &LogoutResult, out: &Output) -> CommandStatus {
    for warning in &departure.warnings {
        out.warn(&format!("{name}: {warning}"));
    }
    if departure.completes_earlier_logout {
        out.info(&format!("{name}: the interrupted logout is now complete"));
    }
    let what = match (departure.refresh, departure.access) {
        (TokenFate::Revoked, Some(TokenFate::Revoked)) => {
            format!("refresh token and access token revoked at {provider}")
        }
        (TokenFate::Revoked, _) => format!("refresh token revoked at {provider}"),
        (TokenFate::AlreadyInvalid, Some(TokenFate::Revoked)) => {
            format!("refresh token was already invalid, access token revoked at {provider}")
        }
        (TokenFate::AlreadyInvalid, _) => "refresh token was already invalid".to_owned(),
        (TokenFate::NotRevoked, Some(TokenFate::Revoked)) => format!("only the access token was revoked at {provider}"),
        (TokenFate::NotRevoked, _) => "nothing was revoked".to_owned(),
    };
    if departure.refresh != TokenFate::NotRevoked {
        out.info(&format!("{name}: signed out; {what}"));
    }
    if departure.access == Some(TokenFate::NotRevoked) {
        out.warn(&format!("{name}: the access token was not revoked, and may stay valid until it expires"));
    }
    let Some(reason) = &departure.reason else { return CommandStatus::Ok };
    out.info(&format!("{name}: deleted from this machine; {what}"));
    let failure = Failure {
        message: format!("{name}: the refresh token was not revoked: {}", reason.message),
        hint: Some(format!("the token stays valid there; revoke it in your account at {provider}")),
        ..reason.clone()
    };
    out.error(&failure);
    CommandStatus::Failed
}

fn to_json(name: &ProfileName, provider: Option<&str>, left: &Result<LogoutResult, Outcome>) -> Value {
    let (outcome, departure, error, retry_at) = match left {
        Ok(d) if d.refresh == TokenFate::NotRevoked => (json!("forgotten"), Some(d), &d.reason, None),
        Ok(d) => (json!("revoked"), Some(d), &d.reason, None),
        Err(o) if o.error.as_ref().is_some_and(|e| e.kind == ErrorKind::NoCredential) => {
            (json!("no_credential"), None, &o.error, None)
        }
        Err(o) => (json!(o.kind), None, &o.error, o.retry_at),
    };
    json!({
        "profile": name,
        "provider": provider,
        "outcome": outcome,
        "refresh_token": departure.map(|d| d.refresh.as_str()),
        "access_token": departure.and_then(|d| d.access).map(TokenFate::as_str),
        "generation": departure.map(|d| d.generation),
        "retry_at": retry_at,
        "error": error,
    })
}
