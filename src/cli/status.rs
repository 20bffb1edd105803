//! `keepalive status`: shows the status of each profile. It reads no secret and makes no request.

use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCandidates;
use serde_json::{Value, json};

use super::layout::{relative_time, table, visible_width};
use super::listener_state::{self, TcpListener};
use super::output::{BAD, CommandStatus, GOOD, Output, WARN, excerpt_lines};
use super::refresher::Refresher;
use super::{GlobalArgs, completion};
use crate::access::setup::{Setup, without_provider};
use crate::cli::warnings::report_warnings;
use crate::clock::Timestamp;
use crate::credential::external::ImportSource;
use crate::engine::status;
use crate::engine::status::ProfileStatus;
use crate::hooks::HookReport;
use crate::mirror::{MirrorReport, MirrorState};
use crate::outcome::{ErrorKind, Failure, OutcomeKind, ProfileState, Publication};
use crate::profile::ProfileName;
use crate::store::journal::Journal;

/// Show the state of every profile
///
/// Reads no secrets, never unlocks the keyring, and makes no network request. If the last run could not open a credential,
/// that error is shown until a run succeeds. What would keep a refresh from being stored at this moment, as a disk that is
/// full, is shown too; so is each TCP listener of the daemon whose port is taken (members listener and metadata_servers of
/// --json). The exit status is that of the worst profile.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show only this profile; can be repeated
    #[arg(short, long = "profile", value_name = "PROFILE", value_parser = super::profile_name, add = ArgValueCandidates::new(completion::profiles))]
    profiles: Vec<ProfileName>,
}

/// One profile as it is shown.
pub(super) struct StatusRow {
    pub name: ProfileName,
    provider: Option<String>,
    /// It has no section, no credential, and not the name of a provider.
    is_unknown: bool,
    pub journal: Option<Journal>,
    pub status: ProfileStatus,
    is_followed: bool,
    rotates: bool,
    pub mirrors: Vec<MirrorReport>,
    pub hooks: Vec<HookReport>,
}

impl StatusRow {
    pub(super) fn new(setup: &Setup, name: ProfileName) -> Self {
        let journal = setup.store.peek(&name);
        let binding = journal.as_ref().ok().and_then(|journal| journal.as_ref()?.binding.as_ref());
        let bound = binding.map(|b| b.provider.clone());
        let profile = setup.config.profile(&name, bound.as_deref()).map_err(|e| e.to_failure());
        let is_nameless = bound.is_none() && journal.is_ok() && !setup.config.knows(&name);
        // Without its journal a credential names no provider, but it is there.
        let is_damaged = journal.as_ref().is_ok_and(|j| j.as_ref().is_some_and(|j| j.integrity_error.is_some()));
        let is_unknown = is_nameless && !is_damaged;
        let newest =
            journal.as_ref().ok().and_then(|j| j.as_ref()).filter(|j| j.has_credential()).map(|j| j.generation);
        let mut status = match (is_nameless, is_damaged) {
            (true, true) => ProfileStatus::new(ProfileState::StoreUnavailable, None, Some(without_provider(&name))),
            (true, false) => ProfileStatus::new(ProfileState::NoCredential, None, Some(setup.unknown_profile(&name))),
            (false, _) => status::status_of(&setup.store, &journal, profile.as_ref(), &setup.clock.now())
                .with_store_checked(&setup.store, &name)
                .with_obstacle(
                    ProfileState::ConfigError,
                    profile.as_ref().ok().and_then(|p| setup.missing_of_client(p)),
                ),
        };
        let named = |failure: Failure| failure.with_names(name.as_str(), setup.store.keyring().map(|k| k.service()));
        status.error = status.error.map(named);
        status.last_failure = status.last_failure.map(named);
        status.obstacle = status.obstacle.map(named);
        Self {
            name,
            is_unknown,
            provider: profile.as_ref().ok().map(|profile| profile.provider.name.clone()).or(bound),
            journal: journal.ok().flatten(),
            status,
            mirrors: profile.as_ref().map_or_else(|_| Vec::new(), |profile| setup.mirrors().reports(profile, newest)),
            hooks: profile.as_ref().map_or_else(|_| Vec::new(), |profile| setup.hooks().reports(profile)),
            rotates: profile.as_ref().is_ok_and(|profile| profile.provider.policy.rotates()),
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

    pub(super) fn exit_status(&self) -> CommandStatus {
        let has_conflict = self.mirrors.iter().any(|mirror| mirror.state == MirrorState::Conflict);
        let mirrors = if has_conflict { CommandStatus::TryAgain } else { CommandStatus::Ok };
        CommandStatus::from_status(&self.status, self.publication()).max(mirrors)
    }
}

pub(super) fn run(args: &StatusArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    let setup = match Setup::new(global.places()) {
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
    report_warnings(&setup.config, out);
    for name in &names {
        if let Some((holder, age)) = setup.store.long_lock(name, setup.clock.now().wall) {
            let age = humantime::format_duration(age);
            out.warn(&format!("{name}: {holder} has had the lock of the profile for {age}; {}", holder.hint()));
        }
    }
    let rows: Vec<StatusRow> = names.into_iter().map(|name| StatusRow::new(&setup, name)).collect();
    if out.is_json {
        let profiles: Vec<_> = rows.iter().map(|row| to_json(row, setup.store.kind())).collect();
        let mut document = listener_state::to_json(&setup);
        document["profiles"] = json!(profiles);
        out.json(&document);
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
        let look = Look { now: setup.clock.now().wall, refresher: Refresher::of(&setup), is_exact: out.verbosity > 0 };
        print_table(&rows, &look, out);
        if rows.iter().any(|row| row.status.refresh_at.is_some() && row.credential().is_some()) {
            look.refresher.warn_if_nobody("this", out);
        }
    }
    if !out.is_json {
        TcpListener::all(&setup).iter().filter_map(TcpListener::error).for_each(|e| out.warn(&e.in_one_line()));
    }
    rows.iter().map(StatusRow::exit_status).max().unwrap_or(CommandStatus::Ok)
}

/// One profile, as the JSON has it.
pub(super) fn profile_json(setup: &Setup, name: ProfileName) -> Value {
    to_json(&StatusRow::new(setup, name), setup.store.kind())
}

fn to_json(row: &StatusRow, store: &str) -> Value {
    let journal = row.credential();
    json!({
        "profile": row.name,
        "provider": row.provider,
        "state": row.status.state,
        "generation": journal.map(|r| r.generation),
        "expires_at": journal.and_then(|r| r.validity.as_ref()).map(|v| v.expires_at()),
        "assumed": journal.and_then(|r| r.validity.as_ref()).is_some_and(|v| v.assumed),
        "refresh_at": row.status.refresh_at,
        "refreshed_at": journal.and_then(|r| r.refreshed_at),
        "last_attempt": last_attempt_json(row),
        "login_by": journal.and_then(|r| r.login_by),
        "store": store,
        "publication": row.publication(),
        "source": source_json(journal, row.is_followed),
        "mirrors": row.mirrors,
        "hooks": row.hooks,
        "error": row.status.error.as_ref().or(row.status.obstacle.as_ref()),
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

/// What the times of a table depend on.
struct Look {
    now: Timestamp,
    refresher: Refresher,
    /// Times are shown as instants, too, and providers and generations beside them.
    is_exact: bool,
}

/// A refresh that is late by this much is overdue.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where only a timer or cron refreshes.
const RUN_PATIENCE: Duration = Duration::from_secs(15 * 60);

impl Look {
    fn when(&self, at: Timestamp) -> String {
        relative_time(at, self.now, self.is_exact)
    }

    /// The time of a planned refresh, in one word if it is now.
    fn planned(&self, at: Timestamp) -> String {
        let patience = match self.refresher {
            Refresher::Runs { .. } => RUN_PATIENCE,
            Refresher::Daemon { .. } | Refresher::Nobody => PATIENCE,
        };
        let late = self.now.since(at);
        if late >= patience {
            let since = if self.is_exact { at.local() } else { at.local_short(self.now) };
            return format!("overdue since {since}");
        }
        if at.since(self.now).as_secs() == 0 { "now".into() } else { self.when(at) }
    }
}

fn print_table(rows: &[StatusRow], look: &Look, out: &Output) {
    let known: Vec<&StatusRow> = rows.iter().filter(|row| !row.is_unknown).collect();
    if !known.is_empty() {
        let cells: Vec<Vec<String>> = known.iter().map(|row| cells(row, look)).collect();
        out.data(&lay_out(&header(look), &cells, out.width()));
    }
    for row in rows {
        print_notes(row, look, out);
    }
}

fn header(look: &Look) -> Vec<String> {
    let header = ["PROFILE", "STATE", "EXPIRES", "NEXT REFRESH", "PROVIDER", "GENERATION"];
    header[..if look.is_exact { 6 } else { 4 }].iter().copied().map(str::to_owned).collect()
}

fn cells(row: &StatusRow, look: &Look) -> Vec<String> {
    let journal = row.credential();
    let expires = journal.and_then(|r| r.validity.as_ref()).map(|v| {
        let assumed = if v.assumed { "assumed " } else { "" };
        format!("{assumed}{}", look.when(v.expires_at()))
    });
    let mut cells = vec![
        row.name.to_string(),
        state_word(row.status.state, row.publication()),
        expires.unwrap_or_else(|| "-".into()),
        row.status.refresh_at.map_or("-".into(), |at| look.planned(at)),
    ];
    if look.is_exact {
        cells.push(row.provider.clone().unwrap_or_else(|| "-".into()));
        cells.push(journal.map_or("-".into(), |r| r.generation.to_string()));
    }
    cells
}

/// A table, or a block for each row where the terminal is too narrow for one.
fn lay_out(header: &[String], cells: &[Vec<String>], width: Option<usize>) -> String {
    let rows: Vec<Vec<String>> = std::iter::once(header.to_vec()).chain(cells.iter().cloned()).collect();
    let wide = table(&rows);
    if width.is_none_or(|width| wide.lines().all(|line| visible_width(line) <= width)) {
        return wide;
    }
    let mut blocks = String::new();
    for row in cells {
        let Some((name, rest)) = row.split_first() else { continue };
        blocks.push_str(&format!("{name}\n"));
        for (title, cell) in header.iter().skip(1).zip(rest).filter(|(_, cell)| *cell != "-") {
            blocks.push_str(&format!("  {:<12}  {cell}\n", title.to_lowercase()));
        }
    }
    blocks
}

fn print_notes(row: &StatusRow, look: &Look, out: &Output) {
    let name = &row.name;
    if let Some(origin) = row.journal.as_ref().and_then(|r| r.origin.as_ref()).filter(|_| row.is_followed) {
        out.paragraph(&format!("{name}: {}", follow_note(row, origin)), 2);
    }
    if let Some(error) = &row.status.error {
        let message = &error.message;
        out.paragraph(&if row.is_unknown { message.clone() } else { format!("{name}: {message}") }, 2);
        if let Some(excerpt) = error.mistakes.first().and_then(excerpt_lines) {
            excerpt.lines().for_each(|line| out.line(line));
        }
        print_hint(error, out);
    }
    // In the other states the error above is this one.
    if let Some(failure) = row.status.last_failure.as_ref().filter(|f| row.status.error.as_ref() != Some(f)) {
        let next = row.status.refresh_at.map_or(String::new(), |at| format!(", next try {}", look.planned(at)));
        let state = state_word(row.status.state, row.publication());
        out.paragraph(&format!("{name}: {state}, but the last refresh failed: {}{next}", failure.message), 2);
        print_hint(failure, out);
    }
    if let Some(failure) = row.status.obstacle.as_ref().filter(|f| row.status.error.as_ref() != Some(f)) {
        let state = state_word(row.status.state, row.publication());
        out.paragraph(&format!("{name}: {state}, but the next refresh would fail: {}", failure.message), 2);
        print_hint(failure, out);
    }
    print_mirrors(row, out);
    print_hooks(row, out);
    // The error above is this one.
    if row.status.error.as_ref().is_some_and(|error| error.kind == ErrorKind::LoginEnded) {
        return;
    }
    let soon = row.journal.as_ref().and_then(|r| r.login_by).filter(|by| by.since(look.now).as_secs() < 7 * 86400);
    if let Some(by) = soon {
        let when = look.when(by);
        let remedy = match row.journal.as_ref().is_some_and(|r| r.is_login_by_final) {
            _ if by <= look.now => "sign in again",
            true => "a refresh does not prolong it: sign in again before then",
            false => "a refresh before then prolongs it, unless the server sets a limit",
        };
        let verb = if by <= look.now { "expired" } else { "expires" };
        out.paragraph(&format!("{name}: the refresh token itself {verb} {when}; {remedy}"), 2);
    }
}

/// The mirrors with which something is wrong.
fn print_mirrors(row: &StatusRow, out: &Output) {
    for (mirror, failure) in row.mirrors.iter().filter_map(|mirror| Some((mirror, mirror.error.as_ref()?))) {
        let conflict = if mirror.state == MirrorState::Conflict { "conflict: " } else { "" };
        out.paragraph(&format!("{}: mirror: {conflict}{}", row.name, failure.message), 2);
        print_hint(failure, out);
    }
}

/// The hooks that failed when they ran last.
fn print_hooks(row: &StatusRow, out: &Output) {
    for failure in row.hooks.iter().filter_map(|hook| hook.error.as_ref()) {
        out.paragraph(&format!("{}: {}", row.name, failure.message), 2);
        print_hint(failure, out);
    }
}

/// What the followed tool does for the profile.
fn follow_note(row: &StatusRow, origin: &ImportSource) -> String {
    let journal = row.journal.as_ref();
    match (row.rotates, journal.is_some_and(|journal| journal.is_followed_alone)) {
        (_, true) => format!("{} is signed out: keepalive goes on alone", origin.tool),
        (true, false) => format!("follows {origin}, which refreshes first; keepalive adopts the result"),
        (false, false) => format!("follows {origin}"),
    }
}

fn print_hint(failure: &Failure, out: &Output) {
    if let Some(hint) = &failure.hint {
        out.hint_line(2, hint);
    }
}

fn state_word(state: ProfileState, publication: Publication) -> String {
    let (style, word) = match state {
        ProfileState::Fresh if publication == Publication::PublishPending => (WARN, "fresh, keyring pending"),
        ProfileState::Fresh => (GOOD, "fresh"),
        ProfileState::Due => (WARN, "due"),
        ProfileState::Expired => (BAD, "expired"),
        ProfileState::Deferred => (WARN, "deferred"),
        ProfileState::InDoubt => (WARN, "in doubt"),
        ProfileState::NeedsLogin => (BAD, "needs login"),
        ProfileState::ConfigError => (BAD, "configuration error"),
        ProfileState::StoreUnavailable => (BAD, "store unavailable"),
        ProfileState::NoCredential => (BAD, "no credential"),
    };
    format!("{style}{word}{style:#}")
}
