//! `keepalive status`: shows the status of each profile, from the journals alone.

use clap::Args;
use serde_json::{Value, json};

use super::GlobalArgs;
use super::output::{BAD, CommandStatus, DIM, GOOD, Output, WARN, table};
use crate::cli::setup;
use crate::cli::setup::Setup;
use crate::clock::Timestamp;
use crate::engine::status;
use crate::engine::status::{ProfileStatus, StatusPolicy};
use crate::outcome::{ErrorKind, Failure, ProfileState, Publication};
use crate::profile::{Policy, Profile, ProfileName};
use crate::store::journal::{Intent, Journal};

/// The time that connecting and sealing may add to a provider's time for its response.
const HANDLING_TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// Show the state of every profile
///
/// Reads no secrets, never unlocks the keyring, and makes no network request. If the last run could not open a credential,
/// that error is shown until a run succeeds. The exit status is that of the worst profile.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show only this profile; can be repeated
    #[arg(short, long = "profile", value_name = "PROFILE", value_parser = super::profile_name)]
    profiles: Vec<ProfileName>,
}

struct StatusRow {
    name: ProfileName,
    provider: Option<String>,
    journal: Option<Journal>,
    status: ProfileStatus,
    /// The store cannot be read, so the status is unknown; `standing.error` says why.
    is_unreadable: bool,
    is_followed: bool,
}

pub fn run(args: &StatusArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    let setup = match Setup::new(global) {
        Ok(setup) => setup,
        Err(failure) => {
            out.fail(&failure);
            return CommandStatus::Config;
        }
    };
    let names = match args.profiles.is_empty() {
        false => args.profiles.clone(),
        true => match setup.all_profiles() {
            Ok(names) => names,
            Err(e) => {
                out.fail(&e.outcome().error.unwrap_or_else(|| Failure::new(ErrorKind::Io, e.to_string())));
                return CommandStatus::StoreUnavailable;
            }
        },
    };
    setup::report_warnings(&setup.config, out);
    let no_key = setup.store.missing_key_file().and_then(|e| e.outcome().error);
    let rows: Vec<StatusRow> = names.into_iter().map(|name| status_row(&setup, name, no_key.as_ref())).collect();
    if out.is_json {
        let profiles: Vec<_> = rows.iter().map(|row| to_json(row, setup.store.kind())).collect();
        out.json(&json!({ "profiles": profiles }));
    } else if rows.is_empty() {
        out.info(
            "no profiles yet; create one: keepalive login PROFILE --provider NAME, or keepalive import PROFILE \
                 --provider NAME",
        );
        if let Some(Failure { message, hint, .. }) = &no_key {
            out.warn(&format!("{message}; {}", hint.as_deref().unwrap_or_default()));
        }
    } else {
        print_table(&rows, setup.clock.now().wall, out);
    }
    rows.iter().map(exit_status).max().unwrap_or(CommandStatus::Ok)
}

fn exit_status(row: &StatusRow) -> CommandStatus {
    match row.is_unreadable {
        true => CommandStatus::StoreUnavailable,
        false => CommandStatus::from_state(row.status.state, publication(row)),
    }
}

fn status_row(setup: &Setup, name: ProfileName, no_key: Option<&Failure>) -> StatusRow {
    let (journal, unreadable) = match setup.store.peek(&name) {
        Ok(journal) => (journal, None),
        Err(e) => (None, e.outcome().error),
    };
    let binding = journal.as_ref().and_then(|r| r.binding.as_ref());
    let profile = setup.config.profile(&name, binding.map(|b| b.provider.as_str())).map_err(|e| e.to_failure());
    let provider = match (&profile, binding) {
        (Ok(profile), _) => Some(profile.provider.name.clone()),
        (Err(_), Some(binding)) => Some(binding.provider.clone()),
        (Err(_), None) => None,
    };
    let is_followed = profile.as_ref().is_ok_and(|p| p.follow);
    let mut standing = profile_status(setup, journal.as_ref(), profile.as_ref().ok());
    let is_unreadable = unreadable.is_some();
    // Without its key the stored credential can neither be used nor refreshed.
    let no_key = no_key.filter(|_| journal.as_ref().is_some_and(Journal::has_credential));
    if let Some(error) = unreadable.or(profile.err()).or(no_key.cloned()) {
        standing = ProfileStatus { state: ProfileState::ConfigError, refresh_at: None, error: Some(error) };
    }
    StatusRow { name, provider, journal, status: standing, is_unreadable, is_followed }
}

pub(super) fn profile_status(setup: &Setup, journal: Option<&Journal>, profile: Option<&Profile>) -> ProfileStatus {
    let default = Policy::default();
    let margin = profile.map_or(crate::credential::freshness::Margin::DEFAULT, |p| p.margin);
    let validity = journal.and_then(|r| r.validity.as_ref());
    let early = profile.map_or(std::time::Duration::ZERO, |p| status::jitter(p.name.as_str(), margin, validity));
    let is_followed = profile.is_some_and(|p| p.follow);
    let status_policy = StatusPolicy {
        policy: profile.map_or(&default, |p| &p.provider.policy),
        margin,
        jitter: early,
        is_following: is_followed,
    };
    let now = setup.clock.now();
    // If the lock is held for longer than a response may take, or for another reason, no response is awaited.
    let at_most = status_policy.policy.timeout + status_policy.policy.connect_timeout + HANDLING_TIME;
    let is_first = |i: &Intent| i.send_count == 1 && i.gave_up_at.is_none() && now.time_since(&i.last_sent) <= at_most;
    let is_awaited = |r: &Journal| match (r.open_intent(), r.open_revocation()) {
        (Some(intent), _) => is_first(intent),
        (None, Some(sent)) => now.wall.since(sent.at) <= at_most,
        (None, None) => false,
    };
    let in_flight = journal.is_some_and(|r| is_awaited(r) && setup.store.is_locked(&r.profile));
    let standing = match journal {
        // Another run waits for the response right now, so there is no doubt yet.
        Some(journal) if in_flight => {
            let mut settled = journal.clone();
            settled.intent = None;
            settled.revocation = None;
            status::profile_status(Some(&settled), status_policy, &now)
        }
        _ => status::profile_status(journal, status_policy, &now),
    };
    let is_out_already = matches!(standing.state, ProfileState::NeedsLogin | ProfileState::NoCredential);
    match journal.zip(profile).and_then(|(journal, profile)| binding_mismatch(journal, profile)) {
        Some(failure) if !is_out_already => {
            ProfileStatus { state: ProfileState::ConfigError, refresh_at: None, error: Some(failure) }
        }
        Some(_) | None => standing,
    }
}

/// The error if the configuration names another server or client than the credential's, so that no refresh will be
/// sent. A discovered server is known only to a refresh.
fn binding_mismatch(journal: &Journal, profile: &Profile) -> Option<Failure> {
    let (belongs, provider) = (journal.binding.as_ref()?, &profile.provider);
    let named = provider.token_endpoint.as_ref().map(|url| url.origin().ascii_serialization());
    let origin = named.as_ref().unwrap_or(&belongs.origin);
    if *origin == belongs.origin && provider.client_id == belongs.client_id {
        return None;
    }
    let message = format!(
        "the credential was issued to client {} at {}, but the configuration has client {} at {origin}",
        belongs.client_id, belongs.origin, provider.client_id
    );
    let hint = format!("restore [provider.{}], sign in again, or import with --replace", belongs.provider);
    Some(Failure::new(ErrorKind::OtherServer, message).with_hint(hint))
}

fn publication(row: &StatusRow) -> Publication {
    row.journal.as_ref().filter(|r| r.has_credential()).map_or(Publication::None, |r| r.publication)
}

fn to_json(row: &StatusRow, store: &str) -> Value {
    let journal = row.journal.as_ref().filter(|r| r.has_credential());
    let attempt = row.journal.as_ref().and_then(|r| r.last_attempt.as_ref());
    json!({
        "profile": row.name,
        "provider": row.provider,
        "state": row.status.state,
        "generation": journal.map(|r| r.generation),
        "expires_at": journal.and_then(|r| r.validity.as_ref()).map(|v| v.expires_at()),
        "refresh_at": row.status.refresh_at,
        "refreshed_at": journal.and_then(|r| r.refreshed_at),
        "last_attempt": attempt.map(|a| json!({"at": a.at, "outcome": a.outcome, "error": a.error})),
        "login_by": journal.and_then(|r| r.login_by),
        "store": store,
        "publication": publication(row),
        "source": source_json(journal, row.is_followed),
        "error": row.status.error,
    })
}

/// The origin of a profile, for `status --json`.
fn source_json(journal: Option<&Journal>, is_followed: bool) -> Value {
    match journal.and_then(|r| r.origin.as_ref()) {
        None => Value::Null,
        Some(o) => json!({
            "tool": o.tool,
            "place": o.location,
            "account": o.account,
            "identity": o.identity.display_name(),
            "followed": is_followed,
        }),
    }
}

fn print_table(rows: &[StatusRow], now: Timestamp, out: &Output) {
    let header = ["PROFILE", "PROVIDER", "STATE", "EXPIRES", "NEXT REFRESH", "GENERATION"];
    let mut cells = vec![header.map(str::to_owned).to_vec()];
    for row in rows {
        let journal = row.journal.as_ref().filter(|r| r.has_credential());
        let expires = journal.and_then(|r| r.validity.as_ref()).map(|v| v.expires_at());
        cells.push(vec![
            row.name.to_string(),
            row.provider.clone().unwrap_or_else(|| "-".into()),
            match row.is_unreadable {
                true => format!("{BAD}store unavailable{BAD:#}"),
                false => state_word(row.status.state, publication(row)),
            },
            expires.map_or("-".into(), |at| relative_time(at, now)),
            row.status.refresh_at.map_or("-".into(), |at| relative_time(at, now)),
            journal.map_or("-".into(), |r| r.generation.to_string()),
        ]);
    }
    out.data(&table(&cells));
    for row in rows {
        if let Some(origin) = row.journal.as_ref().and_then(|r| r.origin.as_ref()).filter(|_| row.is_followed) {
            out.line(&format!("{}: follows {origin}", row.name));
        }
        if let Some(error) = &row.status.error {
            out.line(&format!("{}: {}", row.name, error.message));
            if let Some(hint) = &error.hint {
                out.line(&format!("  {DIM}hint: {hint}{DIM:#}"));
            }
        }
        if let Some(by) = row.journal.as_ref().and_then(|r| r.login_by).filter(|by| by.since(now).as_secs() < 7 * 86400)
        {
            out.line(&format!(
                "{}: the refresh token itself expires {}; sign in again before then",
                row.name,
                relative_time(by, now)
            ));
        }
    }
}

fn state_word(state: ProfileState, publication: Publication) -> String {
    let (style, word) = match state {
        ProfileState::Fresh if publication == Publication::PublishPending => (WARN, "fresh, keyring pending"),
        ProfileState::Fresh => (GOOD, "fresh"),
        ProfileState::Due => (WARN, "due"),
        ProfileState::Expired => (BAD, "expired"),
        ProfileState::Deferred => (WARN, "deferred"),
        ProfileState::InDoubt => (BAD, "in doubt"),
        ProfileState::NeedsLogin => (BAD, "needs login"),
        ProfileState::ConfigError => (BAD, "configuration error"),
        ProfileState::NoCredential => (BAD, "no credential"),
    };
    format!("{style}{word}{style:#}")
}

/// An instant for a person: how far away, and when.
fn relative_time(at: Timestamp, now: Timestamp) -> String {
    let distance = |d: std::time::Duration| match d.as_secs() {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    };
    let shown = at.to_the_second();
    if at >= now {
        format!("in {} ({shown})", distance(at.since(now)))
    } else {
        format!("{} ago ({shown})", distance(now.since(at)))
    }
}
