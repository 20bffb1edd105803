//! `keepalive import --from`: imports the credential of another tool, and says who owns it from then on.

use crate::access::setup::Setup;
use crate::cli::import::args::ImportArgs;
use crate::cli::import::common::{
    ImportResult, check_provider_option, config_error, prepare, report_unreadable, store_credential,
};
use crate::cli::output::Output;
use crate::credential::external::{ExternalCredential, ImportSource};
use crate::engine::new_credential;
use crate::engine::new_credential::NewCredential;
use crate::engine::refresh::followed_stores::{FollowedStores, cannot_follow, tool_never_refreshes};
use crate::import_sources::tools::Tool;
use crate::import_sources::{FoundCredential, Selector};
use crate::outcome::{ErrorKind, Failure, Outcome};
use crate::profile::{Profile, Provider};

/// Runs `import --from`. `before_release`: done before any refresh of what is imported.
pub(super) fn import(
    tool: Tool,
    args: &ImportArgs,
    setup: &Setup,
    before_release: &dyn Fn(),
    out: &Output,
) -> Result<(String, ImportResult), Outcome> {
    let selector = Selector { file: args.file.clone(), account: args.account.clone() };
    let FoundCredential { credential: foreign, origin, provider } =
        setup.tool_stores().read_account(tool, &selector).map_err(config_error)?;
    let profile = profile(tool, args, setup, provider.as_deref()).map_err(config_error)?;
    check_client(&foreign, &origin, &profile.provider).map_err(config_error)?;
    if foreign.client_id.is_none() {
        check_usual_provider(tool, args, setup, &profile.provider).map_err(config_error)?;
    }
    check_follow(tool, setup, &origin, &profile).map_err(config_error)?;
    let (engine, prepared) = prepare(setup, &profile)?;
    let now = setup.clock.now();
    let unreadable = foreign.response.expiry.unreadable.clone();
    let validity = foreign.validity(&now, profile.provider.lifetime_bounds());
    let made = new_credential::build_credential(foreign.response, prepared.binding(), validity);
    let credential = made.ok_or_else(|| {
        config_error(
            Failure::new(ErrorKind::Source, format!("{origin} has no refresh token"))
                .with_hint("sign in with that tool"),
        )
    })?;
    let imported = NewCredential { credential, origin: Some(origin.clone()) };
    let result = store_credential(args, &engine, imported, &now, before_release, out)?;
    report_unreadable(&unreadable, out);
    if origin.identity.display_name().is_none() {
        out.info(&format!("{}: its store does not name the account", origin.tool));
        if profile.follow {
            out.warn(
                "tokens without an account cannot be followed: when the tool refreshes, the profile stops until you choose a token",
            );
        }
    }
    if !args.is_for_feed {
        report_ownership(tool, &origin, &profile, out);
    }
    Ok((profile.provider.name.clone(), result))
}

/// Refuses to follow a tool from which no newer token could be had.
fn check_follow(tool: Tool, setup: &Setup, origin: &ImportSource, profile: &Profile) -> Result<(), Failure> {
    let rotates = profile.provider.policy.rotates();
    let about = setup.tool_stores().about(origin);
    if profile.follow && rotates && !tool.info().is_refreshing {
        return Err(tool_never_refreshes(&profile.name, origin, &about));
    }
    match cannot_follow(&profile.name, origin, &about, rotates) {
        Some(failure) if profile.follow => Err(failure),
        Some(_) | None => Ok(()),
    }
}

/// The profile with the provider of its section, of `--provider`, of its stored credential, of the tool's store, or the
/// tool's usual one.
fn profile(tool: Tool, args: &ImportArgs, setup: &Setup, told: Option<&str>) -> Result<Profile, Failure> {
    let stored = setup.store.peek(&args.profile).ok().flatten().and_then(|r| r.binding).map(|b| b.provider);
    let about = tool.info();
    let provider = args.provider.as_deref().or(stored.as_deref()).or(told).or(about.provider);
    let profile = setup.config.profile(&args.profile, provider).map_err(|e| {
        let failure = e.to_failure();
        match tool {
            // Google registered this client for the Gemini CLI, and a refresh token works only with its client.
            Tool::Gemini => failure.with_hint(
                "set client_id and client_secret of the Gemini CLI in [provider.google]: its token works only with that client",
            ),
            _ if provider.is_none() && !setup.config.knows(&args.profile) => failure.with_hint(format!(
                "name the provider: keepalive import {} --from {} --provider NAME (`keepalive providers` lists the names)",
                args.profile, about.name
            )),
            _ => failure,
        }
    })?;
    check_provider_option(args, profile)
}

/// Checks client and server: a refresh token is for one client at one server. Another server would reject it, or learn
/// a secret of the first.
fn check_client(foreign: &ExternalCredential, origin: &ImportSource, provider: &Provider) -> Result<(), Failure> {
    if let Some(client) = foreign.client_id.as_ref().filter(|client| **client != provider.client_id) {
        let message = format!(
            "{origin} has a token for client {client}, but provider {} uses client {}",
            provider.name, provider.client_id
        );
        let hint =
            format!("add a section [provider.NAME] with client_id = {client:?}, and import with --provider NAME");
        return Err(Failure::new(ErrorKind::Source, message).with_hint(hint));
    }
    let same_place = |issuer: &str| {
        let theirs = url::Url::parse(issuer).ok().map(|url| url.origin());
        let ours = [provider.issuer.as_ref(), provider.token_endpoint.as_ref()];
        theirs.is_none_or(|theirs| ours.into_iter().flatten().any(|url| url.origin() == theirs))
    };
    // Without an issuer the endpoints may be anywhere, and only the person can know.
    if let Some(issuer) = foreign.issuer.as_ref().filter(|i| provider.issuer.is_some() && !same_place(i)) {
        let message = format!("{origin} has a token of {issuer}, but provider {} is another server", provider.name);
        return Err(Failure::new(ErrorKind::Source, message).with_hint("import with the --provider of that server"));
    }
    Ok(())
}

/// A store that names no client has tokens of its tool's own client. Unless the person says so, such a token goes to no
/// other provider.
fn check_usual_provider(tool: Tool, args: &ImportArgs, setup: &Setup, ours: &Provider) -> Result<(), Failure> {
    let about = tool.info();
    let Some(usual) = about.provider.filter(|usual| args.provider.is_none() && *usual != ours.name) else {
        return Ok(());
    };
    if setup.config.providers.get(usual).is_some_and(|provider| provider.client_id == ours.client_id) {
        return Ok(());
    }
    let message =
        format!("profile {} uses provider {}, but {} has a token for {usual}", args.profile, ours.name, about.name);
    let hint = format!("import it into another profile, or confirm the provider: --provider {}", ours.name);
    Err(Failure::new(ErrorKind::Conflict, message).with_hint(hint))
}

/// Tells the person that one of the two holders must go: two holders of one refresh token sign each other out.
fn report_ownership(tool: Tool, origin: &ImportSource, profile: &Profile, out: &Output) {
    let about = tool.info();
    if profile.follow {
        out.info(&match profile.provider.policy.rotates() {
            true => format!(
                "following {0}: {0} refreshes the token, and keepalive adopts the result; keepalive refreshes only while {0} \
                 is signed out",
                about.name
            ),
            false => format!(
                "following {}: keepalive adopts the tokens that it refreshes, and never writes to its store",
                about.name
            ),
        });
        return;
    }
    out.info(&format!(
        "{} still has the same refresh token; whichever of the two uses it next signs the other out. Sign out of that \
         tool on this machine: {}",
        about.name,
        about.sign_out_hint(origin)
    ));
}
