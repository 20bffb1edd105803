//! `keepalive import`: takes over a credential from a token response, or from the store of another tool.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use zeroize::Zeroizing;

use super::compose::Setup;
use super::output::{Output, Status};
use super::{Global, adoption};
use crate::adopt::tools::Tool;
use crate::clock::Moment;
use crate::credential::freshness::Validity;
use crate::credential::response::{self, Granted, Reply};
use crate::credential::{Binding, Credential};
use crate::engine::Engine;
use crate::engine::handover::{self, Arrival, Handover};
use crate::outcome::{Failure, Outcome, OutcomeKind};
use crate::profile::{Profile, ProfileName};
use crate::provider::{PrepareError, Prepared, TokenEndpoint};

/// Take over a credential from a token response, or from another tool
///
/// Reads the JSON of a token response (RFC 6749 §5.1) from FILE or standard input. A refresh token is enough. With --from it
/// reads the store of that tool instead, and writes nothing there. From then on keepalive must be its only user: a refresh
/// by anybody else revokes it at most providers. So sign out of the tool on this machine, as it is told, and never by the
/// tool's own logout where that revokes the token. `keepalive doctor` warns as long as the tool holds a copy. A tool that
/// cannot be signed out can be followed: see follow in keepalive.toml(5).
///
/// oidc-agent is asked by its program, oidc-gen, which asks you for the password; OpenClaw's database is read by sqlite3;
/// pizauth prints its tokens by pizauth dump.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The profile to import into
    #[arg(value_name = "PROFILE", value_parser = super::profile_name)]
    pub(super) profile: ProfileName,
    /// The provider that issued it; needed if the profile is not configured
    #[arg(long, value_name = "P")]
    pub(super) provider: Option<String>,
    /// Read the store of this tool
    #[arg(long, value_name = "TOOL", value_parser = super::adoption::tool_names())]
    pub(super) from: Option<Tool>,
    /// Which account in that store, by its name there or by its address; needed if there are several
    #[arg(long, value_name = "ID", requires = "from")]
    pub(super) account: Option<String>,
    /// Replace a credential that is newer, or not known to be older, or of another account
    #[arg(long)]
    pub(super) replace: bool,
    /// The token response; standard input if not given. With --from: the tool's store, if it is not in its usual place; -
    /// is standard input
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
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
                Some("input" | "source" | "conflict" | "consumed") => Status::Failed,
                _ => Status::of_outcome(&outcome),
            }
        }
    }
}

fn import(args: &ImportArgs, global: &Global, out: &Output) -> Result<Outcome, Outcome> {
    let setup = Setup::new(global).map_err(config_error)?;
    match args.from {
        Some(tool) => adoption::import(tool, args, &setup, out),
        None => import_response(args, &setup, out),
    }
}

pub(super) fn config_error(failure: Failure) -> Outcome {
    Outcome::new(OutcomeKind::ConfigError).because(failure)
}

fn import_response(args: &ImportArgs, setup: &Setup, out: &Output) -> Result<Outcome, Outcome> {
    let profile = match &args.provider {
        Some(provider) => setup.config.profile(&args.profile, Some(provider)).map_err(|e| e.failure()),
        None => setup.profile(&args.profile),
    }
    .map_err(config_error)?;
    let granted = read(args)?;
    let (engine, prepared) = prepare(setup, &profile)?;
    let now = setup.clock.now();
    let credential = credential(granted, &profile, prepared.binding(), &now)?;
    hand_over(args, &engine, credential.into(), &now, out)
}

/// An engine, and the token endpoint that the profile's credential is for.
pub(super) fn prepare(setup: &Setup, profile: &Profile) -> Result<(Engine, Prepared), Outcome> {
    let (engine, endpoint) = setup.engine(false).map_err(config_error)?;
    let prepared = endpoint.prepare(&Arc::clone(&profile.provider), profile.name.as_str());
    let prepared = prepared.map_err(|e| match e {
        PrepareError::Config(f) => config_error(f),
        PrepareError::Unreachable(f) => Outcome::new(OutcomeKind::Deferred).because(f),
    })?;
    Ok((engine, prepared))
}

/// Stores it, and says so.
pub(super) fn hand_over(
    args: &ImportArgs,
    engine: &Engine,
    arrival: Arrival,
    now: &Moment,
    out: &Output,
) -> Result<Outcome, Outcome> {
    let expires_at = arrival.credential.grant.validity.as_ref().map(Validity::expires_at);
    let from = arrival.origin.as_ref().map(|origin| {
        let whose = origin.identity.name().map_or(String::new(), |name| format!(", {name}"));
        format!(" from {origin}{whose}")
    });
    let young = |waited: Duration| {
        out.say(&format!("waiting until the keyring has made it durable ({} s) …", waited.as_secs()));
    };
    let handed = handover::take(engine.store(), &args.profile, arrival, args.replace, now, &young)?;
    let mut outcome = Outcome::new(OutcomeKind::Refreshed);
    outcome.generation = handed.generation();
    outcome.expires_at = expires_at;
    outcome.publication = handed.publication();
    match &handed {
        Handover::Unchanged { .. } => out.say(&format!("{}: this credential is already here", args.profile)),
        Handover::Taken { warnings, .. } => {
            let until = match expires_at {
                None => "no access token yet".into(),
                Some(at) if at <= now.wall => format!("expired {at}"),
                Some(at) => format!("fresh until {at}"),
            };
            let from = from.unwrap_or_default();
            out.say(&format!("{}: imported as generation {}{from}, {until}", args.profile, outcome.generation));
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

fn credential(granted: Granted, profile: &Profile, binding: Binding, now: &Moment) -> Result<Credential, Outcome> {
    let told = granted.expiry.lifetime_of_import(now);
    handover::credential(granted, binding, now, told, profile.provider.default_lifetime).ok_or_else(|| {
        bad_input(
            "the token response holds no refresh_token".into(),
            "sign in with offline access (scope offline_access)",
        )
    })
}
