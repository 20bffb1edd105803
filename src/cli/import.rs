//! `keepalive import`: takes over a credential from a token response.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use zeroize::Zeroizing;

use super::Global;
use super::compose::Setup;
use super::output::{Output, Status};
use crate::clock::Timestamp;
use crate::credential::freshness::Validity;
use crate::credential::response::{self, Granted, Reply};
use crate::credential::{Binding, Credential};
use crate::engine::handover::{self, Handover};
use crate::outcome::{Failure, Outcome, OutcomeKind};
use crate::profile::{Profile, ProfileName};
use crate::provider::TokenEndpoint;

/// Take over a credential from a token response
///
/// Reads the JSON of a token response (RFC 6749 §5.1) from FILE or standard input. A refresh token is enough. From then
/// on keepalive must be its only user: a refresh by anybody else revokes it at most providers.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The profile to import into
    #[arg(value_name = "PROFILE", value_parser = super::profile_name)]
    profile: ProfileName,
    /// The provider that issued it; needed if the profile is not configured
    #[arg(long, value_name = "P")]
    provider: Option<String>,
    /// Replace a credential that is newer, or not known to be older
    #[arg(long)]
    replace: bool,
    /// The token response; standard input if not given
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// No token response is longer.
const LONGEST: u64 = 1024 * 1024;

pub fn run(args: &ImportArgs, global: &Global, out: &Output) -> Status {
    match import(args, global, out) {
        Ok(outcome) => {
            for warning in &outcome.warnings {
                out.warn(warning);
            }
            if out.is_json {
                out.json(&super::output::outcome_json(&args.profile, "", &outcome));
            }
            Status::of_outcome(&outcome)
        }
        Err(outcome) => {
            if let Some(error) = &outcome.error {
                out.error(error);
            }
            match outcome.error.as_ref().map(|e| e.kind.as_ref()) {
                Some("input" | "conflict" | "consumed") => Status::Failed,
                _ => Status::of_outcome(&outcome),
            }
        }
    }
}

fn import(args: &ImportArgs, global: &Global, out: &Output) -> Result<Outcome, Outcome> {
    let config_error = |f| Outcome::new(OutcomeKind::ConfigError).because(f);
    let setup = Setup::new(global).map_err(config_error)?;
    let profile = match &args.provider {
        Some(provider) => setup.config.profile(&args.profile, Some(provider)).map_err(|e| e.failure()),
        None => setup.profile(&args.profile),
    }
    .map_err(config_error)?;
    let granted = read(args)?;
    let (engine, endpoint) = setup.engine(false).map_err(config_error)?;
    let prepared =
        endpoint.prepare(&std::sync::Arc::clone(&profile.provider), profile.name.as_str()).map_err(|e| match e {
            crate::provider::PrepareError::Config(f) => config_error(f),
            crate::provider::PrepareError::Unreachable(f) => Outcome::new(OutcomeKind::Deferred).because(f),
        })?;
    let now = setup.clock.now();
    let credential = credential(granted, &profile, prepared.binding(), &now)?;
    let expires_at = credential.grant.validity.as_ref().map(Validity::expires_at);
    let young = |waited: Duration| {
        out.say(&format!("waiting until the keyring has made it durable ({} s) …", waited.as_secs()));
    };
    let handed = handover::take(engine.store(), &args.profile, credential, args.replace, &now, &young)?;
    let mut outcome = Outcome::new(OutcomeKind::Refreshed);
    outcome.generation = handed.generation();
    outcome.expires_at = expires_at;
    outcome.publication = handed.publication();
    match &handed {
        Handover::Unchanged { .. } => out.say(&format!("{}: this credential is already here", args.profile)),
        Handover::Taken { warnings, .. } => {
            let until = expires_at.map_or("no access token yet".into(), |at: Timestamp| format!("fresh until {at}"));
            out.say(&format!("{}: imported as generation {}, {until}", args.profile, outcome.generation));
            outcome.warnings.clone_from(warnings);
        }
    }
    Ok(outcome)
}

fn bad_input(message: String, hint: &str) -> Outcome {
    Outcome::new(OutcomeKind::ConfigError).because(Failure::new("input", message).hint(hint))
}

fn read(args: &ImportArgs) -> Result<Granted, Outcome> {
    let place = args.file.as_ref().map_or("standard input".into(), |f| f.display().to_string());
    let mut bytes = Zeroizing::new(Vec::new());
    let read = match &args.file {
        Some(path) => std::fs::File::open(path).and_then(|f| f.take(LONGEST).read_to_end(&mut bytes)),
        None => std::io::stdin().lock().take(LONGEST).read_to_end(&mut bytes),
    };
    read.map_err(|e| bad_input(format!("cannot read {place}: {e}"), "name a file, or pipe the token response in"))?;
    match response::read(200, &bytes, true) {
        Reply::Granted(granted) => Ok(*granted),
        Reply::Denied(d) => Err(bad_input(
            format!("{place} holds an error response: {}", d.code),
            "import the answer of a successful sign-in",
        )),
        Reply::Unreadable => {
            Err(bad_input(format!("{place} holds no token response"), "expected JSON with at least \"refresh_token\""))
        }
    }
}

fn credential(
    granted: Granted,
    profile: &Profile,
    binding: Binding,
    now: &crate::clock::Moment,
) -> Result<Credential, Outcome> {
    let told = granted.expiry.lifetime_of_import(now);
    handover::credential(granted, binding, now, told, profile.provider.default_lifetime).ok_or_else(|| {
        bad_input(
            "the token response holds no refresh_token".into(),
            "sign in with offline access (scope offline_access)",
        )
    })
}
