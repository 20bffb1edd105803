//! Finds and reads OpenClaw's stores: its databases, and the JSON files of earlier versions.

use std::io::Read;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::import_sources::ToolStoreError;
use crate::import_sources::files::{MAX_STORE_BYTES, from_file, list, unreadable_error};
use crate::sys::process::WaitPolicy;
use crate::sys::{durable, process};

/// The two tables that hold auth profiles, of the shared database and of an agent's own; each database has one of them.
const TABLES: [(&str, &str); 2] = [
    ("config_machine_state", "SELECT value_json FROM config_machine_state WHERE state_key = 'authProfiles.store'"),
    ("auth_profile_store", "SELECT store_json FROM auth_profile_store"),
];

/// Reads OpenClaw's rows with the `sqlite3` program: keepalive links no C library, and the newest rows may be in the
/// log beside the database, which only SQLite can read. No rows: a table that is known was read, and has
/// none.
pub(super) fn read(place: &Path, within: &str) -> Result<Option<Zeroizing<Vec<u8>>>, ToolStoreError> {
    match std::fs::metadata(place) {
        // SQLite reads it as a database without tables.
        Ok(about) if about.len() == 0 => {
            return Err(ToolStoreError::new("it is empty", "the tool may be writing it: try again"));
        }
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable_error(&e)),
    }
    if !is_database(place)? {
        return from_file(place);
    }
    let url = url::Url::from_file_path(place)
        .map_err(|()| ToolStoreError::new("cannot pass its path to sqlite3", "use an absolute path"))?;
    // Without a log or a journal no program is writing it, and reading it must not create files beside it.
    let has_log = || ["-wal", "-journal"].iter().any(|end| is_there(&beside(place, end)));
    let had_log = has_log();
    let mode = if had_log { "mode=ro" } else { "mode=ro&immutable=1" };
    let select = |query: &str| select_rows(&format!("{url}?{mode}"), query, within);
    let tables = select("SELECT name FROM sqlite_master WHERE type = 'table'")?;
    let tables = String::from_utf8_lossy(&tables).into_owned();
    let there: Vec<&str> =
        TABLES.iter().filter(|(table, _)| tables.lines().any(|name| name == *table)).map(|(_, query)| *query).collect();
    if there.is_empty() {
        return Err(ToolStoreError::new(
            "it has no table of auth profiles that keepalive knows",
            "use OpenClaw's database: ~/.openclaw/state/openclaw.sqlite, or openclaw-agent.sqlite of an agent",
        ));
    }
    let mut rows = Zeroizing::new(Vec::new());
    for query in there {
        rows.extend_from_slice(&select(query)?);
    }
    if has_log() && !had_log {
        return Err(ToolStoreError::new("it is being written", "try again"));
    }
    Ok(Some(rows))
}

/// Earlier versions wrote the profiles into a JSON file.
fn is_database(place: &Path) -> Result<bool, ToolStoreError> {
    let mut start = [0; SQLITE_START.len()];
    let file = durable::open_foreign(place).map_err(|e| unreadable_error(&e))?;
    file.take(SQLITE_START.len() as u64).read(&mut start).map_err(|e| unreadable_error(&e))?;
    // Of a database that is being made.
    Ok(start == *SQLITE_START || !start.trim_ascii_start().starts_with(b"{"))
}

/// How each SQLite database begins.
const SQLITE_START: &[u8; 16] = b"SQLite format 3\0";

fn select_rows(database: &str, query: &str, within: &str) -> Result<Zeroizing<Vec<u8>>, ToolStoreError> {
    let argv = ["sqlite3", "-readonly", "-batch", "-noheader", "-init", "/dev/null", "-cmd", ".timeout 2000"];
    let argv: Vec<_> = argv.into_iter().chain([database, query]).map(str::to_owned).collect();
    process::run_command(&argv, within, WaitPolicy::Silent { longest: MAX_STORE_BYTES }).map_err(|e| match e {
        process::CommandError::Start(..) => ToolStoreError::new(
            "it is an SQLite database, but the program sqlite3 is not installed",
            "apt-get install sqlite3",
        ),
        e => ToolStoreError::new(
            format!("it has no auth profiles that sqlite3 can read: {e}"),
            "OpenClaw may be writing it: try again; else use its database: ~/.openclaw/state/openclaw.sqlite, or openclaw-agent.sqlite of an agent",
        ),
    })
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// What cannot be looked at may be there.
fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

/// OpenClaw's stores below its directory, the likeliest first: the shared database, then each agent's database and older
/// file, and the file that the first versions had.
pub(super) fn places(dir: &Path) -> Vec<PathBuf> {
    let mut agents = list(&dir.join("agents"));
    agents.sort_by_key(|agent| (!agent.ends_with("main"), agent.clone()));
    let of_agents = ["openclaw-agent.sqlite", "auth-profiles.json"]
        .into_iter()
        .flat_map(|name| agents.iter().map(move |agent| agent.join("agent").join(name)));
    let oldest = dir.join("credentials/oauth.json");
    std::iter::once(dir.join("state/openclaw.sqlite")).chain(of_agents).chain([oldest]).collect()
}

/// The directory of OpenClaw that a store is in.
pub(super) fn dir_of(store: &Path) -> Option<&Path> {
    let is_state = store.parent().is_some_and(|dir| dir.ends_with("state") || dir.ends_with("credentials"));
    let is_agent = store.ancestors().nth(3).is_some_and(|dir| dir.ends_with("agents"));
    store.ancestors().nth(if is_state { 2 } else { 4 }).filter(|_| is_state || is_agent)
}
