//! The common part of both kinds of import: an engine, its store, and the output at the end.

use std::sync::Arc;
use std::time::Duration;

use crate::access::setup::Setup;
use crate::cli::import::args::ImportArgs;
use crate::cli::output::Output;
use crate::clock::Moment;
use crate::credential::freshness::Validity;
use crate::engine::Engine;
use crate::engine::new_credential;
use crate::engine::new_credential::{NewCredential, Provenance, StoringWaits};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::Profile;
use crate::provider::{PreparedProvider, TokenEndpoint};
use crate::sys::lockfile::LockHolder;

pub(super) fn config_error(failure: Failure) -> Outcome {
    Outcome::new(OutcomeKind::ConfigError).with_error(failure)
}

/// The profile, unless its section names another provider than `--provider`: a token goes only to the named server.
pub(super) fn check_provider_option(args: &ImportArgs, profile: Profile) -> Result<Profile, Failure> {
    match &args.provider {
        Some(given) if *given != profile.provider.name => {
            let message =
                format!("profile {} is configured for {}, not for {given}", args.profile, profile.provider.name);
            let hint = format!("leave --provider out, or change [profile.{}]", args.profile);
            Err(Failure::new(ErrorKind::Config, message).with_hint(hint))
        }
        Some(_) | None => Ok(profile),
    }
}

/// An engine, and the token endpoint of the profile. A store that cannot keep the credential is found before the server is
/// asked for its metadata.
pub(super) fn prepare(setup: &Setup, profile: &Profile) -> Result<(Engine, PreparedProvider), Outcome> {
    setup.prepare_store(&profile.name)?;
    let (engine, endpoint) = setup.engine(false)?;
    let prepared = endpoint.prepare(&Arc::clone(&profile.provider), profile.name.as_str())?;
    Ok((engine, prepared))
}

/// What an import ended with.
pub(super) struct ImportResult {
    pub(super) outcome: Outcome,
    /// Of the access token that is stored now, if there is one.
    pub(super) validity: Option<Validity>,
}

/// The members of the imported response that are there and cannot be read, for a person.
pub(super) fn report_unreadable(names: &[&str], out: &Output) {
    for name in names {
        out.warn(&format!("its member {name:?} is no time that can be read, with its time zone, and is ignored"));
    }
}

/// Stores the credential and reports it. `before_release`: done before any refresh of it.
pub(super) fn store_credential(
    args: &ImportArgs,
    engine: &Engine,
    imported: NewCredential,
    now: &Moment,
    before_release: &dyn Fn(),
    out: &Output,
) -> Result<ImportResult, Outcome> {
    let mut validity = imported.credential.grant.validity.clone();
    let ended = imported.credential.grant.login_by.filter(|end| *end <= now.wall);
    let from = imported.origin.as_ref().map(|origin| {
        let whose = origin.identity.display_name().map_or(String::new(), |name| format!(", {name}"));
        format!(" from {origin}{whose}")
    });
    let young = |waited: Duration| {
        out.info(&format!("waiting for the keyring to save it ({} s) …", waited.as_secs()));
    };
    let provenance = if args.replace { Provenance::ForcedImport } else { Provenance::Import };
    let on_lock = |holder: &LockHolder| out.info(&format!("waiting for {holder} …"));
    let waits = StoringWaits { on_key_check: &young, on_lock: &on_lock, before_release, ..StoringWaits::SILENT };
    let handed = new_credential::store_credential(engine.store(), &args.profile, imported, provenance, now, &waits)?;
    let mut outcome = Outcome::new(OutcomeKind::Refreshed);
    outcome.generation = handed.generation;
    outcome.publication = handed.publication;
    outcome.warnings = handed.warnings;
    let (name, generation) = (&args.profile, handed.generation);
    if handed.is_new {
        let until = describe_validity(validity.as_ref(), now);
        out.info(&format!("{name}: imported as generation {generation}{}, {until}", from.unwrap_or_default()));
        if let Some(end) = ended {
            let end = end.to_the_second();
            out.warn(&format!(
                "its refresh token ended {end}: sign in again, keepalive login {name}, or with that tool"
            ));
        }
    } else {
        outcome.kind = OutcomeKind::Fresh;
        // The age in this response does not apply to the credential that is already here.
        let journal = engine.store().peek(name).ok().flatten();
        validity = journal.and_then(|r| r.validity);
        out.info(&format!("{name}: this credential is already stored as generation {generation}; nothing to do"));
    }
    outcome.expires_at = validity.as_ref().map(Validity::expires_at);
    Ok(ImportResult { outcome, validity })
}

fn describe_validity(validity: Option<&Validity>, now: &Moment) -> String {
    match validity.map(|v| (v.expires_at().to_the_second(), v)) {
        None => "no access token yet".into(),
        Some((at, v)) if v.remaining(now).is_zero() => format!("expired {at}"),
        Some((at, v)) if v.is_unproven() => {
            format!(
                "assumed valid until {at}; its real end is not known, so the access token is refreshed before it is used"
            )
        }
        Some((at, _)) => format!("valid until {at}"),
    }
}
