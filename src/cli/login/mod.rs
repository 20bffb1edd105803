//! `keepalive login`: a person signs in, and the credential is stored.

mod methods;
mod qr;
mod scopes;
mod sections;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCandidates;
use serde_json::json;

use super::output::{CommandStatus, Output};
use super::refresher::Refresher;
use super::signals::StopSignals;
use super::{GlobalArgs, completion};
use crate::access::setup::Setup;
use crate::cli::login::sections::NewSections;
use crate::cli::store_choice::{self, NewFileStore};
use crate::cli::warnings::follow_new_credential;
use crate::clock::Moment;
use crate::config::addition;
use crate::credential::Credential;
use crate::engine::new_credential;
use crate::engine::new_credential::{NewCredentialResult, Provenance, StoringWaits};
use crate::engine::{status, with_names};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind, ProfileState};
use crate::profile::{Profile, ProfileName};
use crate::provider::http::HttpEndpoint;
use crate::provider::sign_in_server::SignInServer;
use crate::provider::{PrepareError, PreparedProvider, TokenEndpoint};
use crate::signin::login_events::LoginEvents;
use crate::signin::loopback::LoginEvent;
use crate::signin::token_client::{IssuedTokens, TokenClient};
use crate::signin::{self, SignInError};
use crate::sys::lockfile::LockHolder;

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
    /// Issuer of a provider that is not configured: its endpoints are discovered there, and a section is added to the
    /// configuration after one yes
    #[arg(long, value_name = "URL", requires = "client_id", value_parser = addition::parse_issuer)]
    issuer: Option<String>,
    /// Client that is registered at that provider
    #[arg(long, value_name = "ID", value_parser = addition::parse_client_id)]
    client_id: Option<String>,
    /// Scope to request, also by the next login; repeat it for several. By default openid and offline_access, where the
    /// server lists them
    #[arg(long = "scope", value_name = "S", value_parser = addition::parse_scope)]
    scopes: Vec<String>,
    /// Add the sections without asking
    #[arg(short, long)]
    yes: bool,
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

pub(super) fn run(args: &LoginArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
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
    let mut setup = new_setup(args, global)?;
    let sections = NewSections::plan(args, &setup).map_err(config_failure)?;
    if let Some(sections) = &sections {
        setup.use_config(sections.writable_preview(&args.scopes).map_err(config_failure)?);
    }
    let given = sections.as_ref().map(|new| new.provider.as_str()).or(args.provider.as_deref());
    let profile = profile(args, given, &setup)?;
    let sections = sections.or_else(|| NewSections::for_scopes(args, &profile, &setup, out));
    // A store that cannot keep the response is found before anything is asked of the server, or of the person.
    if out.can_ask() && store_choice::reason_for_file_store(&setup).is_some() {
        NewFileStore::plan(&setup.environment.config).map_err(config_failure)?;
    } else {
        setup.prepare_store(&profile.name).map_err(|outcome| {
            let (status, failure) = from_outcome(outcome);
            let told = |failure| match &sections {
                Some(new) => new.told_with_store(args, failure, out),
                None => failure,
            };
            (status, failure.map(told))
        })?;
    }
    let done = sign_in(args, &mut setup, sections, profile, out);
    if done.is_err() {
        setup.discard_preparation();
    }
    done
}

/// From a store that is ready, or is about to be chosen, to a stored credential.
fn sign_in(
    args: &LoginArgs,
    setup: &mut Setup,
    sections: Option<NewSections>,
    mut profile: Profile,
    out: &Output,
) -> Result<CommandStatus, LoginFailure> {
    let (mut engine, mut endpoint) = setup.engine(false).map_err(from_outcome)?;
    let mut prepared =
        endpoint.prepare(&Arc::clone(&profile.provider), profile.name.as_str()).map_err(prepare_failure)?;
    let sites = endpoint.sign_in_endpoints(&profile.provider).map_err(prepare_failure)?;
    let is_kept = sections.as_ref().is_some_and(NewSections::keeps_scopes);
    profile.provider = scopes::with_scopes(&profile, &args.scopes, &sites, is_kept, out);
    prepared.provider = Arc::clone(&profile.provider);
    let way =
        methods::choose_method(args, &profile.provider, &sites, &setup.environment.desktop).map_err(config_failure)?;
    warn_of_live_credential(setup, &profile, out);
    let addition = match sections {
        Some(sections) => sections.agree(args.yes, &profile.provider.scopes, setup, out)?,
        None => sections::agree_on_store(setup, out)?,
    };
    if addition.has_new_store {
        (engine, endpoint) = setup.engine(false).map_err(from_outcome)?;
        setup.prepare_store(&profile.name).map_err(from_outcome)?;
    }
    let show = |left: Duration| out.countdown(left);
    let wait = LoginEvents::new(setup.clock.as_ref(), &show);
    let stop = stop_on_signal(&endpoint, &wait);
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
    let done = signed
        .and_then(|signed| SignedIn::new(signed, &profile, &prepared))
        .map_err(|error| addition.sign_in_failure(error))
        .and_then(|new| store_credential(&engine, &profile, new, &stop, out))
        .inspect_err(|_| addition.say_what_stays(setup, out))
        .and_then(|done| addition.write(setup, out).map_err(config_failure).map(|()| done));
    if let Some(browser) = browser {
        let (is_signed_in, text) = browser_message(&done, &profile);
        browser.respond(is_signed_in, &text);
    }
    done.map(|done| report(&done, setup, &profile, out))
}

/// A login that adds to the configuration may create it.
fn new_setup(args: &LoginArgs, global: &GlobalArgs) -> Result<Setup, LoginFailure> {
    let setup = match args.issuer {
        Some(_) => Setup::for_new_config(global.places()),
        None => Setup::new(global.places()),
    };
    setup.map_err(config_failure)
}

/// Says that the sign-in ends a credential that still works.
fn warn_of_live_credential(setup: &Setup, profile: &Profile, out: &Output) {
    let journal = setup.store.peek(&profile.name);
    let status = status::status_of(&setup.store, &journal, Ok(profile), &setup.clock.now());
    if !matches!(status.state, ProfileState::Fresh | ProfileState::Due) {
        return;
    }
    let validity = journal.ok().flatten().and_then(|journal| journal.validity);
    let until =
        validity.map(|v| v.expires_at()).map_or(String::new(), |at| format!(" (valid until {})", at.to_the_second()));
    out.warn(&format!("{} has a live credential{until}; this sign-in replaces it", profile.name));
}

/// The profile; the provider that is given must agree with a section that names another.
fn profile(args: &LoginArgs, given: Option<&str>, setup: &Setup) -> Result<Profile, LoginFailure> {
    let Some(given) = given else { return setup.profile(&args.profile).map_err(from_outcome) };
    let profile = setup.config.profile(&args.profile, Some(given)).map_err(|e| config_failure(e.to_failure()))?;
    if profile.provider.name == given {
        return Ok(profile);
    }
    let name = &args.profile;
    let message = format!("profile {name} is configured for {}, not for {given}", profile.provider.name);
    let hint = format!("leave --provider out, or change [profile.{name}]");
    Err(config_failure(Failure::new(ErrorKind::Config, message).with_hint(hint)))
}

/// Ends the sign-in on a stop signal. Returns what is set then, for the waits after the sign-in.
fn stop_on_signal(endpoint: &HttpEndpoint, wait: &LoginEvents<'_>) -> Arc<AtomicBool> {
    let is_stopped = Arc::new(AtomicBool::new(false));
    let Ok(mut stop) = StopSignals::listen(endpoint) else {
        // Without the handler a signal ends the process at once, with nothing stored.
        return is_stopped;
    };
    let told = Arc::clone(&is_stopped);
    let events = wait.sender();
    endpoint.runtime().spawn(async move {
        stop.received().await;
        told.store(true, Ordering::SeqCst);
        // Once there is a credential to store, the receiver is gone, and the login is completed unless it waits for
        // another process.
        let _over = events.send(LoginEvent::Interrupted);
    });
    is_stopped
}

/// What a sign-in granted, not stored yet.
struct SignedIn {
    account: Option<String>,
    credential: Credential,
    requested_at: Moment,
}

impl SignedIn {
    fn new(signed: IssuedTokens, profile: &Profile, prepared: &PreparedProvider) -> Result<Self, SignInError> {
        let IssuedTokens { response, requested_at } = signed;
        let account = signin::account_name(&response);
        let credential = signin::credential(*response, &profile.provider, prepared.binding(), &requested_at)?;
        Ok(Self { account, credential, requested_at })
    }
}

fn store_credential(
    engine: &crate::engine::Engine,
    profile: &Profile,
    new: SignedIn,
    stop: &AtomicBool,
    out: &Output,
) -> Result<LoginResult, LoginFailure> {
    let SignedIn { account, credential, requested_at } = new;
    let mut outcome = Outcome::new(OutcomeKind::Refreshed);
    outcome.expires_at = credential.validity().map(crate::credential::freshness::Validity::expires_at);
    let young = |waited: Duration| {
        out.info(&format!("waiting for the keyring to save it ({} s) …", waited.as_secs()));
    };
    let on_lock = |holder: &LockHolder| {
        out.info(&format!(
            "waiting for {holder}, which uses the previous credential; the new one is stored after that …"
        ));
    };
    let is_stopped = || stop.load(Ordering::SeqCst);
    let waits =
        StoringWaits { on_key_check: &young, on_lock: &on_lock, is_stopped: &is_stopped, ..StoringWaits::SILENT };
    let handed = new_credential::store_credential(
        engine.store(),
        &profile.name,
        credential,
        Provenance::Login,
        &requested_at,
        &waits,
    );
    let handed = handed.map_err(|outcome| {
        let (status, failure) = from_outcome(with_names(outcome, engine.store(), &profile.name));
        (status, failure.map(|failure| with_lost_grant(failure, profile)))
    })?;
    outcome.generation = handed.generation;
    outcome.publication = handed.publication;
    Ok(LoginResult { account, stored: handed, outcome })
}

/// Says of a credential that was granted and could not be stored that it is gone.
fn with_lost_grant(failure: Failure, profile: &Profile) -> Failure {
    if failure.kind == ErrorKind::HalfTaken {
        return failure;
    }
    let first = failure.hint.as_ref().map_or(String::new(), |hint| format!("{hint}; then "));
    let hint = format!(
        "{first}sign in again: keepalive login {}; what this sign-in was granted is not stored and is lost, and what was \
         stored before is unchanged",
        profile.name
    );
    failure.with_hint(hint)
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
    let refresher = Refresher::of(setup);
    if let Some(at) = refresh_at.filter(|_| refresher != Refresher::Nobody) {
        line.push_str(&format!(", next refresh {}", at.to_the_second()));
    }
    out.info(&line);
    follow_new_credential(setup, &profile.name, out);
    refresher.warn_if_nobody("this", out);
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

fn from_outcome(outcome: Outcome) -> LoginFailure {
    (CommandStatus::from_outcome(&outcome), outcome.error)
}
