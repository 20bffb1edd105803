//! `keepalive status`: shows the status of each profile. It reads no secret and makes no request.

use clap::Args;
use serde_json::{Value, json};

use super::GlobalArgs;
use super::output::{BAD, CommandStatus, DIM, GOOD, Output, WARN, table};
use crate::cli::setup;
use crate::cli::setup::Setup;
use crate::clock::Timestamp;
use crate::engine::status;
use crate::engine::status::ProfileStatus;
use crate::outcome::{ErrorKind, Failure, OutcomeKind, ProfileState, Publication};
use crate::profile::ProfileName;
use crate::store::journal::Journal;

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

/// One profile as it is shown.
pub(super) struct StatusRow {
    pub name: ProfileName,
    provider: Option<String>,
    pub journal: Option<Journal>,
    pub status: ProfileStatus,
    is_followed: bool,
}

impl StatusRow {
    pub fn new(setup: &Setup, name: ProfileName) -> Self {
        let journal = setup.store.peek(&name);
        let binding = journal.as_ref().ok().and_then(|journal| journal.as_ref()?.binding.as_ref());
        let bound = binding.map(|b| b.provider.clone());
        let profile = setup.config.profile(&name, bound.as_deref()).map_err(|e| e.to_failure());
        let status = status::status_of(&setup.store, &journal, profile.as_ref(), &setup.clock.now());
        Self {
            name,
            provider: profile.as_ref().ok().map(|profile| profile.provider.name.clone()).or(bound),
            journal: journal.ok().flatten(),
            status,
            is_followed: profile.is_ok_and(|profile| profile.follow),
        }
    }

    /// The journal, unless there is no credential that it is about.
    fn credential(&self) -> Option<&Journal> {
        self.journal.as_ref().filter(|journal| journal.has_credential())
    }

    fn publication(&self) -> Publication {
        self.credential().map_or(Publication::None, |journal| journal.publication)
    }

    pub fn exit_status(&self) -> CommandStatus {
        CommandStatus::from_status(&self.status, self.publication())
    }
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
    let rows: Vec<StatusRow> = names.into_iter().map(|name| StatusRow::new(&setup, name)).collect();
    if out.is_json {
        let profiles: Vec<_> = rows.iter().map(|row| to_json(row, setup.store.kind())).collect();
        out.json(&json!({ "profiles": profiles }));
    } else if rows.is_empty() {
        out.info(
            "no profiles yet; create one: keepalive login PROFILE --provider NAME, or keepalive import PROFILE \
                 --provider NAME",
        );
        let no_key = setup.store.keys().missing_file().and_then(|e| e.outcome().error);
        if let Some(Failure { message, hint, .. }) = no_key {
            out.warn(&format!("{message}; {}", hint.unwrap_or_default()));
        }
    } else {
        print_table(&rows, setup.clock.now().wall, out);
    }
    rows.iter().map(StatusRow::exit_status).max().unwrap_or(CommandStatus::Ok)
}

fn to_json(row: &StatusRow, store: &str) -> Value {
    let journal = row.credential();
    json!({
        "profile": row.name,
        "provider": row.provider,
        "state": row.status.state,
        "generation": journal.map(|r| r.generation),
        "expires_at": journal.and_then(|r| r.validity.as_ref()).map(|v| v.expires_at()),
        "refresh_at": row.status.refresh_at,
        "refreshed_at": journal.and_then(|r| r.refreshed_at),
        "last_attempt": last_attempt_json(row),
        "login_by": journal.and_then(|r| r.login_by),
        "store": store,
        "publication": row.publication(),
        "source": source_json(journal, row.is_followed),
        "error": row.status.error,
    })
}

/// The last attempt. A run that could not write how it ended has left its intent.
fn last_attempt_json(row: &StatusRow) -> Option<Value> {
    let journal = row.journal.as_ref()?;
    let ended = journal.last_attempt.as_ref();
    let unsettled = journal.open_intent().map(|intent| intent.last_sent.wall);
    match unsettled.filter(|sent| ended.is_none_or(|ended| ended.at < *sent)) {
        Some(sent) => Some(json!({"at": sent, "outcome": OutcomeKind::InDoubt, "error": row.status.error})),
        None => ended.map(|a| json!({"at": a.at, "outcome": a.outcome, "error": a.error})),
    }
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
        let journal = row.credential();
        let expires = journal.and_then(|r| r.validity.as_ref()).map(|v| v.expires_at());
        cells.push(vec![
            row.name.to_string(),
            row.provider.clone().unwrap_or_else(|| "-".into()),
            state_word(row.status.state, row.publication()),
            expires.map_or("-".into(), |at| relative_time(at, now)),
            row.status.refresh_at.map_or("-".into(), |at| planned_time(at, now)),
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
            print_hint(error, out);
        }
        // In the other states the error above is this one.
        if let Some(failure) = row.status.last_failure.as_ref().filter(|f| row.status.error.as_ref() != Some(f)) {
            let next =
                row.status.refresh_at.map_or(String::new(), |at| format!(", next try {}", planned_time(at, now)));
            let state = state_word(row.status.state, row.publication());
            out.line(&format!("{}: {state}, but the last refresh failed: {}{next}", row.name, failure.message));
            print_hint(failure, out);
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

fn print_hint(failure: &Failure, out: &Output) {
    if let Some(hint) = &failure.hint {
        out.line(&format!("  {DIM}hint: {hint}{DIM:#}"));
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
        ProfileState::StoreUnavailable => (BAD, "store unavailable"),
        ProfileState::NoCredential => (BAD, "no credential"),
    };
    format!("{style}{word}{style:#}")
}

/// The time of a planned refresh. One that could be made at once is planned for the moment of the look, which has passed.
fn planned_time(at: Timestamp, now: Timestamp) -> String {
    if at.since(now).as_secs() == 0 { "now".into() } else { relative_time(at, now) }
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
