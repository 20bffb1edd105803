//! `keepalive login`: a person signs in, and the credential is stored.

mod methods;
mod qr;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCandidates;
use serde_json::json;

use super::keeper::Keeper;
use super::output::{CommandStatus, Output};
use super::signals::StopSignals;
use super::{GlobalArgs, completion};
use crate::cli::setup::Setup;
use crate::engine::new_credential;
use crate::engine::new_credential::{NewCredentialResult, Provenance};
use crate::engine::status;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::{Profile, ProfileName};
use crate::provider::http::HttpEndpoint;
use crate::provider::sign_in_server::SignInServer;
use crate::provider::{PrepareError, PreparedProvider, TokenEndpoint};
use crate::signin::login_events::LoginEvents;
use crate::signin::loopback::LoginEvent;
use crate::signin::token_client::{IssuedTokens, TokenClient};
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
    #[arg(value_name = "PROFILE", value_parser = super::profile_name, add = ArgValueCandidates::new(completion::profiles))]
    profile: ProfileName,
    /// Provider to sign in to; required unless the profile is configured or named after a provider
    #[arg(long, value_name = "P", add = ArgValueCandidates::new(completion::providers))]
    provider: Option<String>,
    /// Show a code to enter on another device
    #[arg(long, conflicts_with = "paste")]
    device: bool,
    /// Show a link; paste back the address (or the code) that it leads to
    #[arg(long)]
    paste: bool,
}

/// The exit status and the error of a failed login.
type LoginFailure = (CommandStatus, Option<Failure>);

/// The result of a login.
struct LoginResult {
    account: Option<String>,
    stored: NewCredentialResult,
    outcome: Outcome,
}

pub fn run(args: &LoginArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
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

fn login(args: &LoginArgs, global: &GlobalArgs, out: &Output) -> Result<CommandStatus, LoginFailure> {
    let setup = Setup::new(global).map_err(config_failure)?;
    let profile = profile(args, &setup)?;
    let (engine, endpoint) = setup.engine(false).map_err(config_failure)?;
    let prepared = endpoint.prepare(&Arc::clone(&profile.provider), profile.name.as_str()).map_err(prepare_failure)?;
    let sites = endpoint.sign_in_endpoints(&profile.provider).map_err(prepare_failure)?;
    let way =
        methods::choose_method(args, &profile.provider, &sites, &setup.environment.desktop).map_err(config_failure)?;
    // A store that cannot keep the response is found before the person signs in for nothing.
    setup.store.prepare_to_seal(profile.name.as_str()).map_err(|e| from_outcome(e.outcome()))?;
    let show = |left: Duration| out.countdown(left);
    let wait = LoginEvents::new(setup.clock.as_ref(), &show);
    stop_on_signal(&endpoint, &wait);
    let counter =
        TokenClient { server: endpoint.as_ref(), prepared: &prepared, endpoints: &sites, clock: setup.clock.as_ref() };
    let desk = methods::LoginFlow {
        out,
        desktop: &setup.environment.desktop,
        runtime: endpoint.runtime().handle(),
        client: &counter,
        events: &wait,
    };
    let (signed, browser) = desk.sign_in(&way);
    out.end_countdown();
    let done =
        signed.map_err(sign_in_failure).and_then(|signed| store_credential(&engine, &profile, &prepared, signed, out));
    if done.is_err() {
        // A key that was created for a first credential is removed again; if it stays, that does no harm.
        let _left = setup.store.keys().delete_unused();
    }
    if let Some(browser) = browser {
        let (is_signed_in, text) = browser_message(&done, &profile);
        browser.respond(is_signed_in, &text);
    }
    done.map(|done| report(&done, &setup, &profile, out))
}

/// The profile; `--provider` must agree with a section that names another.
fn profile(args: &LoginArgs, setup: &Setup) -> Result<Profile, LoginFailure> {
    let Some(given) = &args.provider else { return setup.profile(&args.profile).map_err(from_outcome) };
    let profile = setup.config.profile(&args.profile, Some(given)).map_err(|e| config_failure(e.to_failure()))?;
    if profile.provider.name == *given {
        return Ok(profile);
    }
    let name = &args.profile;
    let message = format!("profile {name} is configured for {}, not for {given}", profile.provider.name);
    let hint = format!("leave --provider out, or change [profile.{name}]");
    Err(config_failure(Failure::new(ErrorKind::Config, message).with_hint(hint)))
}

fn stop_on_signal(endpoint: &HttpEndpoint, wait: &LoginEvents<'_>) {
    let Ok(mut stop) = StopSignals::listen(endpoint) else {
        // Without the handler a signal ends the process at once, with nothing stored.
        return;
    };
    let events = wait.sender();
    endpoint.runtime().spawn(async move {
        stop.received().await;
        // Once there is a credential to store, the receiver is gone, and the login is completed.
        let _over = events.send(LoginEvent::Interrupted);
    });
}

fn store_credential(
    engine: &crate::engine::Engine,
    profile: &Profile,
    prepared: &PreparedProvider,
    signed: IssuedTokens,
    out: &Output,
) -> Result<LoginResult, LoginFailure> {
    let account = signin::account_name(&signed.response);
    let credential = signin::credential(*signed.response, &profile.provider, prepared.binding(), &signed.requested_at)
        .map_err(sign_in_failure)?;
    let mut outcome = Outcome::new(OutcomeKind::Refreshed);
    outcome.expires_at = credential.validity().map(crate::credential::freshness::Validity::expires_at);
    let young = |waited: Duration| {
        out.info(&format!("waiting for the keyring to save it ({} s) …", waited.as_secs()));
    };
    if engine.store().is_locked(&profile.name) {
        out.info("waiting for a refresh in progress of the previous credential …");
    }
    let handed = new_credential::store_credential(
        engine.store(),
        &profile.name,
        credential,
        Provenance::Login,
        &signed.requested_at,
        &young,
    );
    let handed = handed.map_err(from_outcome)?;
    outcome.generation = handed.generation;
    outcome.publication = handed.publication;
    Ok(LoginResult { account, stored: handed, outcome })
}

/// The page that the browser shows at the end.
fn browser_message(done: &Result<LoginResult, LoginFailure>, profile: &Profile) -> (bool, String) {
    match done {
        Ok(_) => (true, format!("Profile {} is signed in. You can close this page.", profile.name)),
        Err((_, failure)) => {
            let why = failure.as_ref().map_or("something went wrong", |f| f.message.as_str());
            (false, format!("{why}. You can close this page; the terminal has the details."))
        }
    }
}

fn report(done: &LoginResult, setup: &Setup, profile: &Profile, out: &Output) -> CommandStatus {
    let journal = setup.store.peek(&profile.name);
    let refresh_at = status::status_of(&setup.store, &journal, Ok(profile), &setup.clock.now()).refresh_at;
    let mut line = format!("{}: signed in", profile.name);
    if let Some(account) = &done.account {
        line.push_str(&format!(" as {account}"));
    }
    match done.outcome.expires_at {
        Some(at) => line.push_str(&format!(", valid until {}", at.to_the_second())),
        None => line.push_str(", no access token yet"),
    }
    let keeper = Keeper::of(setup);
    if let Some(at) = refresh_at.filter(|_| keeper != Keeper::Nobody) {
        line.push_str(&format!(", next refresh {}", at.to_the_second()));
    }
    out.info(&line);
    keeper.warn_if_nobody("this", out);
    for warning in done.stored.warnings.iter().filter(|_| done.stored.is_new) {
        out.warn(warning);
    }
    if out.is_json {
        let mut document = super::output::outcome_json(&profile.name, Some(&profile.provider.name), &done.outcome);
        if let Some(members) = document.as_object_mut() {
            members.insert("account".into(), json!(done.account));
            members.insert("refresh_at".into(), json!(refresh_at));
        }
        out.json(&document);
    }
    CommandStatus::from_outcome(&done.outcome)
}

fn config_failure(failure: Failure) -> LoginFailure {
    (CommandStatus::Config, Some(failure))
}

fn prepare_failure(error: PrepareError) -> LoginFailure {
    match error {
        PrepareError::Config(f) => (CommandStatus::Config, Some(f)),
        PrepareError::Unreachable(f) => (CommandStatus::TryAgain, Some(f)),
    }
}

fn sign_in_failure(error: SignInError) -> LoginFailure {
    match error {
        SignInError::Config(f) => (CommandStatus::Config, Some(f)),
        SignInError::Unreachable(f) => (CommandStatus::TryAgain, Some(f)),
        SignInError::Refused(f) | SignInError::Abandoned(f) => (CommandStatus::Failed, Some(f)),
    }
}

fn from_outcome(outcome: Outcome) -> LoginFailure {
    (CommandStatus::from_outcome(&outcome), outcome.error)
}
