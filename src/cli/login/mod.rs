//! `keepalive login`: a person signs in, and the profile has a credential.

mod qr;
mod ways;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::Global;
use super::compose::Setup;
use super::output::{Output, Status};
use super::signals::StopSignals;
use crate::engine::handover::{self, NewCredentialResult, Provenance};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::{Profile, ProfileName};
use crate::provider::http::HttpEndpoint;
use crate::provider::signin::SignInServer;
use crate::provider::{PrepareError, Prepared, TokenEndpoint};
use crate::signin::code::{Counter, Signed};
use crate::signin::wait::{Event, Wait};
use crate::signin::{self, SignInError};

/// Sign in to a provider and store the credential
///
/// Opens the provider's sign-in page in your browser and waits for the redirect to this machine (authorization code with
/// PKCE). Without a browser, it shows a code to enter on another device if the provider supports that (RFC 8628);
/// otherwise it shows a link, and you paste back the result. The stored credential is replaced only after the login has
/// succeeded.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Profile to sign in
    #[arg(value_name = "PROFILE", value_parser = super::profile_name)]
    profile: ProfileName,
    /// Provider to sign in to; required unless the profile is configured or named after a provider
    #[arg(long, value_name = "P")]
    provider: Option<String>,
    /// Show a code to enter on another device
    #[arg(long, conflicts_with = "paste")]
    device: bool,
    /// Show a link; paste back the address (or the code) that it leads to
    #[arg(long)]
    paste: bool,
}

/// Why nothing came of it, and with which status to end.
type Ended = (Status, Option<Failure>);

/// What came of it.
struct Done {
    account: Option<String>,
    handed: NewCredentialResult,
    outcome: Outcome,
}

pub fn run(args: &LoginArgs, global: &Global, out: &Output) -> Status {
    match login(args, global, out) {
        Ok(status) => status,
        Err((status, failure)) => {
            if let Some(failure) = &failure {
                out.fail(failure);
            }
            status
        }
    }
}

fn login(args: &LoginArgs, global: &Global, out: &Output) -> Result<Status, Ended> {
    let setup = Setup::new(global).map_err(config)?;
    let profile = profile(args, &setup).map_err(config)?;
    let (engine, endpoint) = setup.engine(false).map_err(config)?;
    let prepared = endpoint.prepare(&Arc::clone(&profile.provider), profile.name.as_str()).map_err(unprepared)?;
    let sites = endpoint.sites(&profile.provider).map_err(unprepared)?;
    let way = ways::choose(args, &profile.provider, &sites, &setup.places.desktop).map_err(config)?;
    // A store that cannot keep the answer is found out before anybody signs in for nothing.
    setup.store.load_or_generate_key(profile.name.as_str()).map_err(|e| of_outcome(e.outcome()))?;
    let show = |left: Duration| out.countdown(left);
    let wait = Wait::new(setup.clock.as_ref(), &show);
    stop_on_signal(&endpoint, &wait);
    let counter =
        Counter { server: endpoint.as_ref(), prepared: &prepared, sites: &sites, clock: setup.clock.as_ref() };
    let desk = ways::Desk {
        out,
        desktop: &setup.places.desktop,
        runtime: endpoint.runtime().handle(),
        counter: &counter,
        wait: &wait,
    };
    let (signed, visitor) = desk.sign_in(&way);
    out.end_countdown();
    let done = signed.map_err(failed).and_then(|signed| store(&engine, &profile, &prepared, signed, out));
    if done.is_err() {
        // A key that was made ready for a first credential goes again; that it may stay is no harm.
        let _left = setup.store.delete_unused_key();
    }
    if let Some(visitor) = visitor {
        let (is_signed_in, text) = farewell(&done, &profile);
        visitor.answer(is_signed_in, &text);
    }
    done.map(|done| report(&done, &setup, &profile, out))
}

/// The profile; `--provider` must agree with a section that names another.
fn profile(args: &LoginArgs, setup: &Setup) -> Result<Profile, Failure> {
    let Some(given) = &args.provider else { return setup.profile(&args.profile) };
    let profile = setup.config.profile(&args.profile, Some(given)).map_err(|e| e.failure())?;
    if profile.provider.name == *given {
        return Ok(profile);
    }
    let name = &args.profile;
    let message = format!("profile {name} is configured for {}, not for {given}", profile.provider.name);
    Err(Failure::new(ErrorKind::Config, message).with_hint(format!("leave --provider out, or change [profile.{name}]")))
}

fn stop_on_signal(endpoint: &HttpEndpoint, wait: &Wait<'_>) {
    let Ok(mut stop) = StopSignals::listen(endpoint) else {
        // Then a signal ends the run as it does any program, with nothing stored.
        return;
    };
    let events = wait.sender();
    endpoint.runtime().spawn(async move {
        stop.told().await;
        // Nobody listens any more once there is something to store; that is then finished.
        let _over = events.send(Event::Interrupted);
    });
}

fn store(
    engine: &crate::engine::Engine,
    profile: &Profile,
    prepared: &Prepared,
    signed: Signed,
    out: &Output,
) -> Result<Done, Ended> {
    let account = signin::account(&signed.granted);
    let credential =
        signin::credential(*signed.granted, &profile.provider, prepared.binding(), &signed.asked).map_err(failed)?;
    let mut outcome = Outcome::new(OutcomeKind::Refreshed);
    outcome.expires_at = credential.validity().map(crate::credential::freshness::Validity::expires_at);
    let young = |waited: Duration| {
        out.say(&format!("waiting for the keyring to save it ({} s) …", waited.as_secs()));
    };
    if engine.store().is_locked(&profile.name) {
        out.say("waiting for a refresh in progress of the previous credential …");
    }
    let handed =
        handover::store_credential(engine.store(), &profile.name, credential, Provenance::Login, &signed.asked, &young);
    let handed = handed.map_err(of_outcome)?;
    outcome.generation = handed.generation();
    outcome.publication = handed.publication();
    Ok(Done { account, handed, outcome })
}

/// What the browser shows at the end.
fn farewell(done: &Result<Done, Ended>, profile: &Profile) -> (bool, String) {
    match done {
        Ok(_) => (true, format!("Profile {} is signed in. You can close this page.", profile.name)),
        Err((_, failure)) => {
            let why = failure.as_ref().map_or("something went wrong", |f| f.message.as_str());
            (false, format!("{why}. You can close this page; the terminal has the details."))
        }
    }
}

fn report(done: &Done, setup: &Setup, profile: &Profile, out: &Output) -> Status {
    let journal = setup.store.peek(&profile.name).ok().flatten();
    let refresh_at = super::status::judge(setup, journal.as_ref(), Some(profile)).refresh_at;
    let mut line = format!("{}: signed in", profile.name);
    if let Some(account) = &done.account {
        line.push_str(&format!(" as {account}"));
    }
    match done.outcome.expires_at {
        Some(at) => line.push_str(&format!(", valid until {}", at.to_the_second())),
        None => line.push_str(", no access token yet"),
    }
    if let Some(at) = refresh_at {
        line.push_str(&format!(", next refresh {}", at.to_the_second()));
    }
    out.say(&line);
    if let NewCredentialResult::Stored { warnings, .. } = &done.handed {
        for warning in warnings {
            out.warn(warning);
        }
    }
    if out.is_json {
        let mut document = super::output::outcome_json(&profile.name, Some(&profile.provider.name), &done.outcome);
        if let Some(members) = document.as_object_mut() {
            members.insert("account".into(), json!(done.account));
            members.insert("refresh_at".into(), json!(refresh_at));
        }
        out.json(&document);
    }
    Status::of_outcome(&done.outcome)
}

fn config(failure: Failure) -> Ended {
    (Status::Config, Some(failure))
}

fn unprepared(error: PrepareError) -> Ended {
    match error {
        PrepareError::Config(f) => (Status::Config, Some(f)),
        PrepareError::Unreachable(f) => (Status::TryAgain, Some(f)),
    }
}

fn failed(error: SignInError) -> Ended {
    match error {
        SignInError::Config(f) => (Status::Config, Some(f)),
        SignInError::Unreachable(f) => (Status::TryAgain, Some(f)),
        SignInError::Refused(f) | SignInError::Abandoned(f) => (Status::Failed, Some(f)),
    }
}

fn of_outcome(outcome: Outcome) -> Ended {
    (Status::of_outcome(&outcome), outcome.error)
}
