//! The scopes of a sign-in: as given, as configured, or those that keep a login alive where the server lists them.

use std::sync::Arc;

use crate::cli::output::Output;
use crate::profile::{Profile, Provider};
use crate::provider::sign_in_server::SignInEndpoints;

/// What a login needs at an OpenID provider to get a refresh token (OpenID Connect Core §11).
const DEFAULT_SCOPES: [&str; 2] = ["openid", "offline_access"];

/// The provider with the scopes to request. `is_kept`: a section with those that are given is about to be written.
pub(super) fn with_scopes(
    profile: &Profile,
    given: &[String],
    sites: &SignInEndpoints,
    is_kept: bool,
    out: &Output,
) -> Arc<Provider> {
    let provider = &profile.provider;
    let listed = sites.supported_scopes.as_deref();
    if !given.is_empty() {
        if !is_kept && provider.scopes != given {
            let section = &profile.name;
            out.info(&format!("these scopes are for this login only; to keep them, set scopes in [profile.{section}]"));
        }
        warn_of_missing(given, listed, out);
        return with(provider, given.to_vec());
    }
    let Some(listed) = listed.filter(|_| provider.scopes.is_empty()) else { return Arc::clone(provider) };
    let (chosen, missing): (Vec<&str>, Vec<&str>) =
        DEFAULT_SCOPES.into_iter().partition(|scope| listed.iter().any(|one| one == scope));
    if !chosen.is_empty() {
        out.info(&format!("requesting the scopes {}, which the server lists", chosen.join(" ")));
    }
    if !missing.is_empty() {
        let none = if chosen.is_empty() { "no scopes are requested: " } else { "" };
        out.warn(&format!(
            "{none}the server does not list {}; if it refuses or issues no refresh token, name its scopes with --scope",
            missing.join(" and ")
        ));
    }
    with(provider, chosen.into_iter().map(str::to_owned).collect())
}

fn warn_of_missing(given: &[String], listed: Option<&[String]>, out: &Output) {
    let Some(listed) = listed.filter(|listed| !listed.is_empty()) else { return };
    let unknown: Vec<_> = given.iter().filter(|scope| !listed.contains(scope)).map(String::as_str).collect();
    if !unknown.is_empty() {
        out.warn(&format!("the server does not list {}", unknown.join(" and ")));
    }
    let offline = "offline_access".to_owned();
    if listed.contains(&offline) && !given.contains(&offline) {
        out.warn("without the scope offline_access, this server may issue no refresh token");
    }
}

fn with(provider: &Arc<Provider>, scopes: Vec<String>) -> Arc<Provider> {
    Arc::new(Provider { scopes, ..Provider::clone(provider) })
}
