//! `keepalive import` of a token response (RFC 6749 §5.1), from a file or standard input.

use std::io::Read;

use zeroize::Zeroizing;

use crate::access::setup::Setup;
use crate::cli::import::args::ImportArgs;
use crate::cli::import::common::{
    ImportResult, check_provider_option, config_error, prepare, report_unreadable, store_credential,
};
use crate::cli::output::Output;
use crate::clock::Moment;
use crate::credential::token_response;
use crate::credential::token_response::{ParsedResponse, TokenResponse};
use crate::credential::{Binding, Credential};
use crate::engine::new_credential;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::Profile;

/// The size limit of a token response.
const MAX_RESPONSE_BYTES: u64 = 1024 * 1024;

pub(super) fn import(args: &ImportArgs, setup: &Setup, out: &Output) -> Result<(String, ImportResult), Outcome> {
    let profile = match &args.provider {
        Some(provider) => setup.config.profile(&args.profile, Some(provider)).map_err(|e| config_error(e.to_failure())),
        None => setup.profile(&args.profile).map_err(|e| how_to_import(args, e)),
    }
    .and_then(|profile| check_provider_option(args, profile).map_err(config_error))?;
    let granted = read(args, out)?;
    let unreadable = granted.expiry.unreadable.clone();
    let (engine, prepared) = prepare(setup, &profile)?;
    let now = setup.clock.now();
    let credential = credential(granted, &profile, prepared.binding(), &now)?;
    let result = store_credential(args, &engine, credential.into(), &now, &|| {}, out)?;
    report_unreadable(&unreadable, out);
    Ok((profile.provider.name.clone(), result))
}

/// An import creates a profile, once it is known whose it is.
fn how_to_import(args: &ImportArgs, mut outcome: Outcome) -> Outcome {
    if let Some(error) = outcome.error.as_mut().filter(|error| error.kind == ErrorKind::NoCredential) {
        error.hint = Some(format!("to create it: keepalive import {} --provider NAME", args.profile));
    }
    outcome
}

fn bad_input(message: String, hint: &str) -> Outcome {
    Outcome::new(OutcomeKind::ConfigError).with_error(Failure::new(ErrorKind::Input, message).with_hint(hint))
}

fn read(args: &ImportArgs, out: &Output) -> Result<TokenResponse, Outcome> {
    let place = args.file.as_ref().map_or("standard input".into(), |f| f.display().to_string());
    if args.file.is_none() && out.can_ask() {
        out.prompt("paste the token response, and press Ctrl-D on a line of its own:");
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let read = match &args.file {
        Some(path) => std::fs::File::open(path).and_then(|f| f.take(MAX_RESPONSE_BYTES).read_to_end(&mut bytes)),
        None => std::io::stdin().lock().take(MAX_RESPONSE_BYTES).read_to_end(&mut bytes),
    };
    read.map_err(|e| bad_input(format!("cannot read {place}: {e}"), "name a file, or pipe the token response in"))?;
    match token_response::parse(200, &bytes, true) {
        ParsedResponse::Granted(granted) => Ok(*granted),
        ParsedResponse::Denied(d) => Err(bad_input(
            format!("{place} contains an error response: {}", d.code),
            "import the token response of a successful login",
        )),
        ParsedResponse::Unreadable => {
            Err(bad_input(format!("{place} is not a token response"), "expected JSON with at least \"refresh_token\""))
        }
    }
}

fn credential(
    granted: TokenResponse,
    profile: &Profile,
    binding: Binding,
    now: &Moment,
) -> Result<Credential, Outcome> {
    let validity = granted.expiry.validity_of_import(now, profile.provider.lifetime_bounds());
    new_credential::build_credential(granted, binding, validity).ok_or_else(|| {
        bad_input(
            "the token response has no refresh_token".into(),
            "request offline access at sign-in (scope offline_access)",
        )
    })
}
