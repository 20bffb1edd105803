//! `keepalive handle create`: makes a handle and prints it, once.

use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCandidates;
use serde_json::json;

use super::{HandleFailure, called, of_store, to_json};
use crate::access::setup::Setup;
use crate::cli::completion;
use crate::cli::obtain::{TokenWish, obtain};
use crate::cli::output::{CommandStatus, Output};
use crate::credential::external::AccountIdentity;
use crate::credential::secret::AccessToken;
use crate::engine::logout::nothing_to_sign_out;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::ProfileName;
use crate::store::handles::{Handle, HandleGrant, HandleRecord, TokenGrant, USUAL_MIN_VALID};
use crate::store::journal::Journal;
use crate::store::keys::sealing_key::random_bytes;

/// Make a handle and print it: it cannot be shown again
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Profile whose access token it gives
    #[arg(value_name = "PROFILE", value_parser = crate::cli::profile_name, required_unless_present = "metrics", conflicts_with = "metrics", add = ArgValueCandidates::new(completion::profiles))]
    profile: Option<ProfileName>,
    /// Give the metrics, and no token
    #[arg(long, conflicts_with_all = ["min_valid", "floor", "id_token"])]
    metrics: bool,
    /// A name for `list` and `revoke`
    #[arg(long, value_name = "TEXT", value_parser = handle_name)]
    name: Option<String>,
    /// Refresh before a token is given that lives less than this [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::duration)]
    min_valid: Option<Duration>,
    /// Give no token that lives less than this, as if there were none: for programs that ask again at once
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::duration)]
    floor: Option<Duration>,
    /// Give the ID token, too
    #[arg(long)]
    id_token: bool,
    /// Let programs of other users of this machine use it, and those in containers
    #[arg(long)]
    any_user: bool,
    /// End it after this time
    #[arg(long, value_name = "DURATION", value_parser = some_time)]
    expires: Option<Duration>,
}

fn some_time(text: &str) -> Result<Duration, String> {
    match crate::cli::duration(text)? {
        Duration::ZERO => Err("it would have ended already".into()),
        time => Ok(time),
    }
}

fn handle_name(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.chars().count() <= 64 && !text.chars().any(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 64 characters, and no control characters".into()),
    }
}

pub(super) fn create(args: &CreateArgs, setup: &Setup, out: &Output) -> Result<CommandStatus, HandleFailure> {
    let grants = match &args.profile {
        Some(profile) => HandleGrant::Token(token_grant(args, profile, setup, out)?),
        None => HandleGrant::Metrics,
    };
    let handle = Handle::from_random(random_bytes());
    let now = setup.clock.now().wall.to_the_second();
    let record = HandleRecord {
        sha256: handle.hash(),
        name: args.name.clone(),
        grants,
        created_at: now,
        expires_at: args.expires.map(|after| now.plus(after)),
        last_used_at: None,
        any_user: args.any_user,
    };
    if let Some(rival) = setup.store.handles().add(record.clone()).map_err(of_store)? {
        return Err(already_called(&record, &rival));
    }
    if out.is_json {
        let mut made = to_json(&record);
        made["handle"] = json!(handle.expose());
        out.json(&made);
    } else {
        out.line(handle.expose());
    }
    out.info(&format!("made handle {}; it is shown only here", called(&record)));
    if setup.config.broker.listen.is_none() {
        out.warn("the daemon does not listen on TCP yet: write listen = \"127.0.0.1:PORT\" below [broker]");
    }
    Ok(CommandStatus::Ok)
}

fn already_called(record: &HandleRecord, rival: &HandleRecord) -> HandleFailure {
    let name = record.name.as_deref().unwrap_or_else(|| record.id());
    let failure = Failure::new(ErrorKind::Usage, format!("handle {} is called {name} already", called(rival)));
    (
        CommandStatus::Usage,
        failure.with_hint(format!("choose another name, or first: keepalive handle revoke {}", rival.id())),
    )
}

fn token_grant(
    args: &CreateArgs,
    profile: &ProfileName,
    setup: &Setup,
    out: &Output,
) -> Result<TokenGrant, HandleFailure> {
    setup.profile(profile).map_err(CommandStatus::of_failed)?;
    let journal = setup.store.peek(profile).map_err(of_store)?.filter(Journal::has_credential);
    let Some(journal) = journal else {
        let outcome = nothing_to_sign_out(profile);
        let hint = format!("sign in first: keepalive login {profile}");
        let failure = outcome.error.unwrap_or_else(|| Failure::new(ErrorKind::NoCredential, "there is no credential"));
        return Err((CommandStatus::NeedsLogin, failure.with_hint(hint)));
    };
    let floor = args.floor.unwrap_or_default();
    let lifetime = journal.validity.as_ref().and_then(|validity| validity.full_lifetime());
    if let Some(doubt) = check_floor(profile, floor, lifetime).map_err(|failure| (CommandStatus::Usage, failure))? {
        out.warn(&doubt);
    }
    let account = account_of(profile, &journal, setup)?;
    Ok(TokenGrant::new(profile.clone(), account, args.min_valid.unwrap_or(USUAL_MIN_VALID), floor, args.id_token))
}

/// Whether there are tokens above the floor. What is doubtful is said. (pure)
fn check_floor(profile: &ProfileName, floor: Duration, lifetime: Option<Duration>) -> Result<Option<String>, Failure> {
    if floor.is_zero() {
        return Ok(None);
    }
    let shown = humantime::format_duration(floor);
    let Some(lifetime) = lifetime else {
        return Ok(Some(format!(
            "how long access tokens of {profile} live is not known yet: below the floor of {shown} none is given"
        )));
    };
    let life = humantime::format_duration(lifetime);
    if floor >= lifetime {
        let message = format!("access tokens of {profile} live {life}: none is ever above the floor of {shown}");
        return Err(Failure::new(ErrorKind::Usage, message).with_hint("choose a --floor of at most half of that"));
    }
    Ok((floor > lifetime / 2).then(|| {
        format!(
            "access tokens of {profile} live {life}; they are refreshed at half of that, so for a part of it none \
             lives longer than the floor of {shown}"
        )
    }))
}

/// The account of the credential. Where only the daemon can open it, the daemon is asked.
fn account_of(profile: &ProfileName, journal: &Journal, setup: &Setup) -> Result<AccountIdentity, HandleFailure> {
    let imported = journal.origin.as_ref().map(|origin| origin.identity.clone()).unwrap_or_default();
    if let Ok(Some(snapshot)) = setup.store.snapshot(profile) {
        let (id_token, access) = (snapshot.grant.id_token, snapshot.grant.access);
        return Ok(AccountIdentity::of_tokens(id_token.as_ref(), access.as_ref()).merged_with(imported));
    }
    let wish = TokenWish {
        profile: profile.clone(),
        min_valid: Duration::ZERO,
        timeout: Duration::from_secs(30),
        id_token: true,
        rejection: None,
    };
    let (token, flights) = obtain(setup, &wish, &|| {}).map_err(|none| (none.status, none.failure))?.into_parts();
    drop(flights);
    let id_token = token.id_token.and_then(AccessToken::new);
    let access = AccessToken::new(token.access_token);
    Ok(AccountIdentity::of_tokens(id_token.as_ref(), access.as_ref()).merged_with(imported))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_above_the_life_of_every_token_is_refused() {
        let (hour, profile) = (Duration::from_secs(3600), "p".parse().unwrap());
        let check = |floor, lifetime| check_floor(&profile, floor, lifetime);
        assert_eq!(check(Duration::ZERO, None), Ok(None));
        assert_eq!(check(hour / 2, Some(hour)), Ok(None));
        assert!(check(hour / 2 + Duration::from_secs(1), Some(hour)).unwrap().unwrap().contains("for a part of it"));
        assert!(check(hour, None).unwrap().unwrap().contains("is not known yet"));
        assert!(check(hour, Some(hour)).unwrap_err().message.ends_with("none is ever above the floor of 1h"));
    }
}
