//! `keepalive token`: prints an access token that is valid for long enough.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use clap_complete::ArgValueCandidates;

use super::output::{CommandStatus, Output};
use super::{GlobalArgs, completion};
use crate::broker::{BrokerRequest, BrokerResponse, client};
use crate::cli::setup::Setup;
use crate::engine::access_token::TokenOutput;
use crate::events;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::ProfileName;

/// Print an access token, refreshing it if necessary
///
/// Asks the daemon if one is running, otherwise the store. If the refresh fails and the token is still valid, prints the
/// token with a warning.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Profile whose token to print
    #[arg(value_name = "PROFILE", value_parser = super::profile_name, add = ArgValueCandidates::new(completion::profiles))]
    profile: ProfileName,
    /// Refresh unless the token is valid for at least DUR
    #[arg(long, value_name = "DUR", value_parser = super::duration, default_value = "60s")]
    min_valid: Duration,
    /// Output format
    #[arg(long, value_enum, value_name = "F", default_value_t = Format::Raw)]
    format: Format,
    /// Wait at most DUR. A refresh by another process continues; one that this command sent is always finished first
    #[arg(long, value_name = "DUR", value_parser = super::duration, default_value = "60s")]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The token alone
    Raw,
    /// A JSON object with the token, its expiry, scope and generation
    Json,
    /// An HTTP Authorization header
    Header,
}

pub(super) fn run(args: &TokenArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    let setup = match Setup::new(global) {
        Ok(setup) => setup,
        Err(failure) => {
            out.fail(&failure);
            return CommandStatus::Config;
        }
    };
    let began = setup.clock.now();
    let theirs = match from_daemon(&setup, args) {
        // The daemon may run with another configuration, or may not have read ours yet.
        Some(reply) if reply.token.is_none() && reply.outcome == OutcomeKind::ConfigError => Some(reply),
        Some(reply) => {
            events::token_from_daemon(&args.profile);
            return print_daemon_response(args, out, reply);
        }
        None => None,
    };
    // A daemon that stopped responding has used up some of the time.
    let left = args.timeout.saturating_sub(setup.clock.now().time_since(&began));
    from_store(&setup, args, left, theirs, out)
}

fn print_daemon_response(args: &TokenArgs, out: &Output, reply: BrokerResponse) -> CommandStatus {
    let outcome = Outcome { error: reply.error.clone(), ..Outcome::new(reply.outcome) };
    print(args, out, reply, &outcome)
}

fn from_daemon(setup: &Setup, args: &TokenArgs) -> Option<BrokerResponse> {
    if setup.environment.active_profiles.iter().any(|name| name == args.profile.as_str()) {
        events::token_from_store("keepalive runs this command for the profile");
        return None;
    }
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX / 2);
    let request = BrokerRequest {
        profile: args.profile.clone(),
        min_valid_ms: millis(args.min_valid),
        timeout_ms: millis(args.timeout),
    };
    client::request_token(&setup.environment.socket, &setup.store.uuid()?, &request)
}

/// `theirs`: the daemon's error, if another configuration may be the cause. It counts if only a daemon has the key.
fn from_store(
    setup: &Setup,
    args: &TokenArgs,
    limit: Duration,
    theirs: Option<BrokerResponse>,
    out: &Output,
) -> CommandStatus {
    let refused = |failure: &Failure, status| {
        out.fail(failure);
        status
    };
    let view = setup.store.view(&args.profile);
    let profile = match setup.profile_of_view(&args.profile, &view) {
        Ok(profile) => Arc::new(profile),
        Err(outcome) => {
            let status = CommandStatus::from_outcome(&outcome);
            return refused(&outcome.error.unwrap_or_else(no_token), status);
        }
    };
    let (engine, endpoint) = match setup.engine(false) {
        Ok(parts) => parts,
        Err(outcome) => {
            let (status, failure) = CommandStatus::of_failed(outcome);
            return refused(&failure, status);
        }
    };
    super::signals::stop_on_signal(&endpoint, &engine, |_| {});
    let explain = || out.info(&format!("{}: waiting for a refresh in progress …", args.profile));
    let mut obtained = engine.access_token_seen(&profile, args.min_valid, view.ok(), limit, &explain);
    if obtained.token.is_none() {
        // This run must complete its own flight anyway, so it waits for the result.
        engine.drain();
        obtained = engine.access_token_now(&profile, args.min_valid).unwrap_or(obtained);
    }
    let outcome = obtained.outcome;
    let is_keyless = obtained.token.is_none() && outcome.error.as_ref().is_some_and(|e| e.kind == ErrorKind::Key);
    if let Some(theirs) = theirs.filter(|_| is_keyless) {
        return print_daemon_response(args, out, theirs);
    }
    let reply = BrokerResponse {
        outcome: outcome.kind,
        token: obtained.token,
        error: outcome.error.clone(),
        warnings: obtained.warnings,
    };
    let status = print(args, out, reply, &outcome);
    // The token is printed; a flight of this run must still be completed.
    engine.drain();
    setup.tell_mirror_news(out);
    status
}

fn print(args: &TokenArgs, out: &Output, reply: BrokerResponse, outcome: &Outcome) -> CommandStatus {
    let Some(token) = reply.token else {
        let failure = reply.error.unwrap_or_else(no_token);
        out.fail(&with_profile_name(&args.profile, failure));
        return match CommandStatus::from_outcome(outcome) {
            CommandStatus::Ok => CommandStatus::TryAgain,
            status => status,
        };
    };
    for warning in &reply.warnings {
        out.warn(&format!("{}: {warning}", args.profile));
    }
    if outcome.kind == OutcomeKind::NeedsLogin {
        out.warn(&format!("sign in again before it expires: keepalive login {}", args.profile));
    }
    print_token(args, out, &token);
    CommandStatus::Ok
}

/// The failure with the profile's name in front, if it lacks it.
fn with_profile_name(name: &ProfileName, failure: Failure) -> Failure {
    let is_named = failure.message.split_whitespace().any(|word| word.trim_end_matches(':') == name.as_str());
    if is_named { failure } else { Failure { message: format!("{name}: {}", failure.message), ..failure } }
}

fn no_token() -> Failure {
    Failure::new(ErrorKind::NoToken, "there is no valid access token")
}

fn print_token(args: &TokenArgs, out: &Output, token: &TokenOutput) {
    let format = if out.is_json { Format::Json } else { args.format };
    match format {
        Format::Raw => out.line(&token.access_token),
        Format::Json => out.json(token),
        Format::Header => out.line(&format!("Authorization: {} {}", token.token_type, token.access_token)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_profile_once() {
        let told = |name: &str, message: &str| {
            with_profile_name(&name.parse().unwrap(), Failure::new(ErrorKind::Io, message)).message
        };
        assert_eq!(told("w", "acme returned 429 slow"), "w: acme returned 429 slow");
        assert_eq!(told("w", "profile w: provider \"no\" is not known"), "profile w: provider \"no\" is not known");
        assert_eq!(told("w", "there is no credential for profile w"), "there is no credential for profile w");
    }
}
