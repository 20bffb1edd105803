//! `keepalive handle`: makes, lists and revokes the handles by which programs ask the daemon's TCP listener.

mod create;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::GlobalArgs;
use super::layout::table;
use super::output::{CommandStatus, Output};
use crate::access::setup::Setup;
use crate::clock::Timestamp;
use crate::outcome::{ErrorKind, Failure};
use crate::store::StoreError;
use crate::store::handles::{HandleGrant, HandleRecord};
use create::CreateArgs;

/// Make, list and revoke handles, by which programs ask the daemon for access tokens over TCP
///
/// A handle is the right to read the access token of one profile; it is no refresh token, and no provider knows it. Programs
/// that refresh by themselves can use it in the place of their refresh token, with the daemon as token endpoint. It belongs to the account that the profile has:
/// after a login with another account it is refused. A logout revokes it.
///
/// Handles are for the TCP listener of the daemon (`listen` in `[broker]`, see keepalive.toml(5)). On the socket none is needed.
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub struct HandleArgs {
    #[command(subcommand)]
    action: HandleAction,
}

#[derive(Debug, Subcommand)]
enum HandleAction {
    Create(CreateArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// List the handles, without their secrets
#[derive(Debug, Args)]
struct ListArgs {}

/// Revoke handles, at once
#[derive(Debug, Args)]
struct RevokeArgs {
    /// The id or the name of a handle, as `list` shows it
    #[arg(value_name = "ID|NAME", required = true)]
    handles: Vec<String>,
}

/// How the command ended without what was asked for.
type HandleFailure = (CommandStatus, Failure);

pub(super) fn run(args: &HandleArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    let setup = match Setup::new(global.places()) {
        Ok(setup) => setup,
        Err(failure) => {
            out.fail(&failure);
            return CommandStatus::Config;
        }
    };
    let done = match &args.action {
        HandleAction::Create(args) => create::create(args, &setup, out),
        HandleAction::List(_) => list(&setup, out),
        HandleAction::Revoke(args) => revoke(args, &setup, out),
    };
    done.unwrap_or_else(|(status, failure)| {
        out.fail(&failure);
        status
    })
}

fn of_store(error: StoreError) -> HandleFailure {
    CommandStatus::of_failed(error.outcome())
}

fn list(setup: &Setup, out: &Output) -> Result<CommandStatus, HandleFailure> {
    let handles = setup.store.handles().list().map_err(of_store)?;
    if out.is_json {
        out.json(&json!({ "handles": handles.iter().map(to_json).collect::<Vec<_>>() }));
    } else if handles.is_empty() {
        out.info("no handles; make one: keepalive handle create PROFILE");
    } else {
        let now = setup.clock.now();
        let heads = ["ID", "NAME", "FOR", "CREATED", "LAST USED", "FLAGS"].map(str::to_owned).to_vec();
        let local = |at: Option<Timestamp>| at.map_or("never".into(), |at| at.local_short(now.wall));
        let row = |record: &HandleRecord| {
            vec![
                record.id().to_owned(),
                record.name.clone().unwrap_or_else(|| "-".into()),
                record.profile().map_or("metrics".into(), ToString::to_string),
                record.created_at.local_short(now.wall),
                local(record.last_used_at),
                flags(record, record.is_expired(&now)),
            ]
        };
        let rows: Vec<Vec<String>> = std::iter::once(heads).chain(handles.iter().map(row)).collect();
        out.data(&table(&rows));
    }
    Ok(CommandStatus::Ok)
}

/// The options that it was made with, as a person gave them.
fn flags(record: &HandleRecord, is_expired: bool) -> String {
    let mut flags = Vec::new();
    if let HandleGrant::Token(grant) = &record.grants {
        // One that is no longer than the floor says nothing more.
        if grant.min_valid() > grant.floor() {
            flags.push(format!("min-valid {}", humantime::format_duration(grant.min_valid())));
        }
        if !grant.floor().is_zero() {
            flags.push(format!("floor {}", humantime::format_duration(grant.floor())));
        }
        flags.extend(grant.id_token.then(|| "id-token".to_owned()));
    }
    flags.extend(record.any_user.then(|| "any-user".to_owned()));
    match (is_expired, record.expires_at) {
        (true, _) => flags.push("expired".into()),
        (false, Some(at)) => flags.push(format!("until {}", at.local())),
        (false, None) => {}
    }
    flags.join(", ")
}

fn to_json(record: &HandleRecord) -> Value {
    let grant = match &record.grants {
        HandleGrant::Metrics => None,
        HandleGrant::Token(grant) => Some(grant),
    };
    json!({
        "id": record.id(),
        "name": record.name,
        "profile": record.profile(),
        "metrics": grant.is_none(),
        "account": grant.and_then(|grant| grant.account.display_name()),
        "created_at": record.created_at,
        "last_used_at": record.last_used_at,
        "expires_at": record.expires_at,
        "min_valid_s": grant.map(|grant| grant.min_valid().as_secs()),
        "floor_s": grant.map(|grant| grant.floor().as_secs()),
        "id_token": grant.is_some_and(|grant| grant.id_token),
        "any_user": record.any_user,
    })
}

fn revoke(args: &RevokeArgs, setup: &Setup, out: &Output) -> Result<CommandStatus, HandleFailure> {
    let is_meant = |record: &HandleRecord| args.handles.iter().any(|word| record.is_called(word));
    let revoked = setup.store.handles().revoke(is_meant).map_err(of_store)?;
    if out.is_json {
        out.json(&json!({ "revoked": revoked.iter().map(to_json).collect::<Vec<_>>() }));
    }
    for record in &revoked {
        out.info(&format!("handle {} is revoked", called(record)));
    }
    let is_unknown = |word: &&String| !revoked.iter().any(|record| record.is_called(word));
    let unknown: Vec<&str> = args.handles.iter().filter(is_unknown).map(|word| shown(word)).collect();
    if unknown.is_empty() {
        return Ok(CommandStatus::Ok);
    }
    let failure = Failure::new(ErrorKind::Input, format!("there is no handle {}", unknown.join(", ")));
    Err((CommandStatus::Failed, failure.with_hint("keepalive handle list shows their ids and names")))
}

/// A word of the command line that may be a handle itself, given by mistake.
fn shown(word: &str) -> &str {
    if word.starts_with(crate::store::handles::HANDLE_MARK) {
        "of this id (a handle is revoked by its id, not by itself)"
    } else {
        word
    }
}

fn called(record: &HandleRecord) -> String {
    record.name.as_ref().map_or_else(|| record.id().to_owned(), |name| format!("{} ({name})", record.id()))
}
