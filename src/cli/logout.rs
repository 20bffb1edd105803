//! `keepalive logout`: a profile's credential is revoked at its provider where it can be, and forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use serde_json::{Value, json};

use super::Global;
use super::compose::Setup;
use super::output::{Output, Status};
use super::signals::StopSignals;
use crate::engine::logout::{self, Departure, Event, Fate, Leaving, Route};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::ProfileName;
use crate::provider::http::HttpEndpoint;
use crate::store::StoreError;
use crate::store::record::Record;

/// Revoke a profile's credential at its provider, and forget it
///
/// Revokes the refresh token (RFC 7009), and the access token if it is still alive, where the provider has a revocation
/// endpoint, and then removes both from this machine. What could not be revoked for a reason that may pass, or because the
/// provider refuses the client, is not forgotten either, unless you say --forget. A refresh that is under way is waited
/// for. Tokens go to no other server than the one that they came from. A tool that holds the same refresh token is signed
/// out with it.
///
/// A revoked token cannot be imported again. With the last profile its sealing key leaves the keyring too.
///
/// The exit status is 0 if the refresh token is revoked, or was dead before; 1 if it is only forgotten here, so that
/// whoever has a copy can go on using it; 75 if the provider could not be asked now, and 78 if it refuses the client, both
/// with the credential still there; 69 if the keyring or the store cannot be used, and the message says what remains; 77 if
/// there was no credential. --json tells the outcome (revoked, forgotten, or why neither) and what became of refresh_token
/// and access_token: revoked, dead, left.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// The profile to sign out
    #[arg(value_name = "PROFILE", value_parser = super::profile_name)]
    profile: ProfileName,
    /// Forget the credential here even if it cannot be revoked
    #[arg(long)]
    forget: bool,
}

pub fn run(args: &LogoutArgs, global: &Global, out: &Output) -> Status {
    let (provider, left) = leave(args, global, out);
    if out.is_json {
        out.json(&to_json(&args.profile, provider.as_deref(), &left));
    }
    match &left {
        Ok(departure) => report(&args.profile, provider.as_deref().unwrap_or("its provider"), departure, out),
        Err(outcome) => {
            if let Some(error) = &outcome.error {
                out.error(error);
            }
            Status::of_outcome(outcome)
        }
    }
}

/// Also gives the provider's name, as far as it is known.
fn leave(args: &LogoutArgs, global: &Global, out: &Output) -> (Option<String>, Result<Departure, Outcome>) {
    let config_error = |f: Failure| Outcome::new(OutcomeKind::ConfigError).because(f);
    let setup = match Setup::new(global) {
        Ok(setup) => setup,
        Err(failure) => return (None, Err(config_error(failure))),
    };
    let name = &args.profile;
    let record = match setup.store.peek(name) {
        Ok(Some(record)) => record,
        Ok(None) => return (None, Err(logout::no_credential(name))),
        // What cannot be read can be forgotten all the same.
        Err(StoreError::DamagedRecord { .. }) if args.forget => Record::new(name.clone()),
        Err(e) => return (None, Err(e.outcome())),
    };
    let configured = || setup.profile(name).ok().map(|p| p.provider.name.clone());
    let provider = record.binding.as_ref().map(|b| b.provider.clone()).or_else(configured);
    let endpoint = match setup.engine(false) {
        Ok((_, endpoint)) => endpoint,
        Err(failure) => return (provider, Err(config_error(failure))),
    };
    let route = match setup.profile(name) {
        // Nothing is left to be revoked.
        _ if record.is_tombstone => Route::Blocked(Outcome::new(OutcomeKind::NeedsLogin)),
        Ok(profile) => logout::route(endpoint.as_ref(), &profile),
        Err(failure) => Route::Blocked(config_error(failure)),
    };
    let leaving = Leaving {
        store: &setup.store,
        server: endpoint.as_ref(),
        clock: Arc::clone(&setup.clock),
        name,
        is_forgetting: args.forget,
        stop: Arc::new(AtomicBool::new(false)),
    };
    let tell = |event| match event {
        Event::Waiting => out.say(&format!("{name}: a refresh is under way; waiting until it is over …")),
        Event::Admitted => stop_on_signal(&endpoint, &leaving.stop),
    };
    (provider, leaving.leave(route, &tell))
}

/// On a signal to end, what has not been sent is not sent, and what has been is finished.
fn stop_on_signal(endpoint: &HttpEndpoint, stop: &Arc<AtomicBool>) {
    let told = Arc::clone(stop);
    if let Ok(mut signals) = StopSignals::listen(endpoint) {
        endpoint.runtime().spawn(async move {
            signals.told().await;
            told.store(true, Ordering::SeqCst);
        });
    }
}

fn report(name: &ProfileName, provider: &str, departure: &Departure, out: &Output) -> Status {
    for warning in &departure.warnings {
        out.warn(&format!("{name}: {warning}"));
    }
    if departure.is_completion {
        out.say(&format!("{name}: the logout that was interrupted is complete"));
    }
    let what = match (departure.refresh, departure.access) {
        (Fate::Revoked, Some(Fate::Revoked)) => format!("refresh token and access token revoked at {provider}"),
        (Fate::Revoked, _) => format!("refresh token revoked at {provider}"),
        (Fate::Dead, Some(Fate::Revoked)) => {
            format!("its refresh token was dead, its access token is revoked at {provider}")
        }
        (Fate::Dead, _) => "its refresh token was dead".to_owned(),
        (Fate::Left, Some(Fate::Revoked)) => format!("only its access token is revoked at {provider}"),
        (Fate::Left, _) => "nothing was revoked".to_owned(),
    };
    if departure.refresh != Fate::Left {
        out.say(&format!("{name}: signed out; {what}"));
    }
    if departure.access == Some(Fate::Left) {
        out.warn(&format!("{name}: the access token was not revoked, and may be accepted until it expires"));
    }
    let Some(reason) = &departure.reason else { return Status::Ok };
    out.say(&format!("{name}: forgotten on this machine; {what}"));
    let failure = Failure {
        message: format!("{name}: the refresh token is not revoked: {}", reason.message),
        hint: Some(format!("whoever has a copy can go on using it; sign keepalive out at {provider} too")),
        ..reason.clone()
    };
    out.error(&failure);
    Status::Failed
}

fn to_json(name: &ProfileName, provider: Option<&str>, left: &Result<Departure, Outcome>) -> Value {
    let (outcome, departure, error, retry_at) = match left {
        Ok(d) if d.refresh == Fate::Left => (json!("forgotten"), Some(d), &d.reason, None),
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
        "refresh_token": departure.map(|d| d.refresh.word()),
        "access_token": departure.and_then(|d| d.access).map(Fate::word),
        "generation": departure.map(|d| d.generation),
        "retry_at": retry_at,
        "error": error,
    })
}
