//! Reads the JSON stores that hold sign-ins of several providers: opencode, pi, Hermes, CLIProxyAPI and mcp-remote; and
//! that of LiteLLM. (pure)

use std::path::Path;

use serde_json::{Map, Value};

use crate::import_sources::json::object;
use crate::import_sources::parse::{
    CLAUDE, CODEX, MCP_REMOTE, OPENCLAW, SNAKE_CASE, has_refresh_token, has_refresh_token_within,
};
use crate::import_sources::{ToolAccount, ToolStoreError, our_provider};

/// `auth.json` of opencode and of pi: a map of sign-ins by provider.
pub(super) fn by_provider(bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    let provider = |id: &str| Some(our_provider(id).to_owned());
    let account = |id: &str, entry: &Map<String, Value>| {
        let credential = match entry.get("type").and_then(Value::as_str).unwrap_or_default() {
            // Its refresh token is a token of GitHub, from which Copilot's own are made, by no OAuth request.
            "oauth" if id.starts_with("github-copilot") => Err(ToolStoreError::signed_out(
                "a sign-in for GitHub Copilot has no refresh token of OAuth",
                "keepalive login, with a client of your own at GitHub",
            )),
            "oauth" => OPENCLAW.parse_or_fed(&unpacked(id, entry)),
            // The older file of pi has no type.
            "" if entry.contains_key(OPENCLAW.refresh) => OPENCLAW.parse_or_fed(entry),
            _ if has_refresh_token(entry) => Err(ToolStoreError::unknown_form()),
            kind => Err(ToolStoreError::signed_out(
                format!("it is of type {kind:?}, which has no refresh token"),
                "name one of type \"oauth\" with --account",
            )),
        };
        ToolAccount { id: id.to_owned(), provider: provider(id), credential }
    };
    some_or_signed_out(ToolAccount::of_map(&object(bytes)?, provider, account))
}

/// Plug-ins of opencode for Google's sign-in put the project behind the refresh token: `TOKEN|PROJECT`.
fn unpacked(id: &str, entry: &Map<String, Value>) -> Map<String, Value> {
    let mut entry = entry.clone();
    let packed = entry.get(OPENCLAW.refresh).and_then(Value::as_str).and_then(|packed| packed.split_once('|'));
    if let Some((token, _)) = packed.filter(|_| our_provider(id) == "google") {
        entry.insert(OPENCLAW.refresh.to_owned(), token.into());
    }
    entry
}

/// `auth.json` of Hermes: a state for each provider, its tokens in it or in `tokens`; and a pool of further sign-ins. Its
/// other files have one sign-in.
pub(super) fn hermes(bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    let file = object(bytes)?;
    let (states, pools) = (file.get("providers"), file.get("credential_pool"));
    if states.is_none() && pools.is_none() && has_refresh_token(&file) {
        let format = if file.contains_key(CLAUDE.refresh) { CLAUDE } else { SNAKE_CASE };
        return Ok(vec![ToolAccount::single(format.parse(&with_tokens(&file)))]);
    }
    let provider = |id: &str| Some(our_provider(id).to_owned());
    let mut entries = match states {
        Some(Value::Object(states)) => {
            ToolAccount::of_map(states, provider, |id, state| hermes_account(id, id.to_owned(), state))
        }
        states => unknown_unless_empty("providers", states, None).into_iter().collect(),
    };
    let pools = match pools {
        Some(Value::Object(pools)) => pools.iter().collect(),
        pools => {
            entries.extend(unknown_unless_empty("credential_pool", pools, None));
            Vec::new()
        }
    };
    for (id, pool) in pools {
        let Value::Array(pool) = pool else {
            entries.extend(unknown_unless_empty(id, Some(pool), provider(id)));
            continue;
        };
        if pool.iter().any(|entry| !entry.is_object()) {
            entries.push(ToolAccount::of_unknown_form(id.clone(), provider(id)));
        }
        let pool: Vec<_> = pool.iter().filter_map(Value::as_object).collect();
        for entry in &pool {
            let account = hermes_account(id, pool_name(id, entry, &pool), entry);
            // The pool repeats the sign-in of the state. What has no token is none.
            let is_known = entries
                .iter()
                .any(|known| known.credential.is_ok() && known.refresh_token() == account.refresh_token());
            if !is_known && !account.credential.as_ref().is_err_and(|e| e.is_signed_out && !is_dead(entry)) {
                entries.push(account);
            }
        }
    }
    some_or_signed_out(entries)
}

/// An entry for a value where something else is expected, unless that is nothing.
fn unknown_unless_empty(id: &str, value: Option<&Value>, provider: Option<String>) -> Option<ToolAccount> {
    let is_empty = value.is_none_or(Value::is_null);
    (!is_empty).then(|| ToolAccount::of_unknown_form(id.to_owned(), provider))
}

/// The label of a pool's entry; where two have one label, with the id, which Hermes gives to each.
fn pool_name(provider: &str, entry: &Map<String, Value>, pool: &[&Map<String, Value>]) -> String {
    let of = |entry: &Map<String, Value>, name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
    let (label, id) = (of(entry, "label"), of(entry, "id").unwrap_or_default());
    match label {
        Some(label) if pool.iter().filter(|other| of(other, "label").as_ref() == Some(&label)).count() > 1 => {
            format!("{provider}/{label}#{id}")
        }
        Some(label) => format!("{provider}/{label}"),
        None => format!("{provider}/{id}"),
    }
}

/// Whether Hermes has given up a sign-in, because the provider refused its token.
fn is_dead(state: &Map<String, Value>) -> bool {
    state.get("last_status").and_then(Value::as_str) == Some("dead")
}

fn hermes_account(provider: &str, id: String, state: &Map<String, Value>) -> ToolAccount {
    if is_dead(state) {
        let trouble = ToolStoreError::signed_out(
            "Hermes marked it as dead: the provider refused it",
            "sign in with hermes again",
        );
        return ToolAccount { id, provider: Some(our_provider(provider).to_owned()), credential: Err(trouble) };
    }
    let credential = match state.get("tokens") {
        Some(Value::String(_) | Value::Array(_)) => Err(ToolStoreError::unknown_form()),
        _ => SNAKE_CASE.parse_or_fed(&with_tokens(state)),
    };
    ToolAccount { id, provider: Some(our_provider(provider).to_owned()), credential }
}

/// A state with the members of its `tokens`.
fn with_tokens(state: &Map<String, Value>) -> Map<String, Value> {
    let mut members = state.clone();
    if let Some(Value::Object(tokens)) = members.remove("tokens") {
        members.extend(tokens);
    }
    members
}

/// The file of LiteLLM's ChatGPT provider: the tokens alone.
pub(super) fn litellm(bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    Ok(vec![ToolAccount::single(CODEX.parse_or_fed(&object(bytes)?))])
}

/// A file of CLIProxyAPI, or the files of its directory by name: one sign-in each, with its provider in `type`.
pub(super) fn cliproxy(bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    let file = object(bytes)?;
    if file.get("type").is_some_and(Value::is_string) {
        return Ok(vec![cliproxy_account(String::new(), &file)]);
    }
    let entries = file.iter().filter_map(|(name, content)| {
        let id = Path::new(name).with_extension("").display().to_string();
        match content {
            Value::Object(content) if content.get("type").is_some_and(Value::is_string) => {
                Some(cliproxy_account(id, content))
            }
            Value::Null => Some(torn_account(id)),
            // The directory may have other files.
            content => has_refresh_token_within(content).then(|| ToolAccount::of_unknown_form(id, None)),
        }
    });
    some_or_signed_out(entries.collect())
}

/// A file that is no JSON.
fn torn_account(id: String) -> ToolAccount {
    let trouble = ToolStoreError::new("it is not JSON", "the tool may be writing it: try again");
    ToolAccount { id, provider: None, credential: Err(trouble) }
}

fn cliproxy_account(id: String, file: &Map<String, Value>) -> ToolAccount {
    let mut members = file.clone();
    // The Google library's own object; the email address stands beside it.
    if let Some(Value::Object(token)) = file.get("token") {
        members.extend(token.clone());
    }
    let provider = file.get("type").and_then(Value::as_str).map(|kind| our_provider(kind).to_owned());
    ToolAccount { id, provider, credential: SNAKE_CASE.parse_or_fed(&members) }
}

/// The files of mcp-remote's directory by name: `HASH_tokens.json` and, for its client, `HASH_client_info.json`. The hash
/// is that of the server's address, which is in no file.
pub(super) fn mcp_remote(bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    let files = object(bytes)?;
    if files.contains_key("access_token") || files.contains_key("refresh_token") {
        return Ok(vec![ToolAccount::single(MCP_REMOTE.parse_or_fed(&files))]);
    }
    let entries = files.iter().filter_map(|(name, tokens)| {
        let hash = name.strip_suffix("_tokens.json")?;
        if tokens.is_null() {
            return Some(torn_account(hash.to_owned()));
        }
        let Value::Object(members) = tokens else {
            return Some(ToolAccount::of_unknown_form(hash.to_owned(), None));
        };
        let mut members = members.clone();
        let client = files.get(&format!("{hash}_client_info.json")).and_then(|client| client.get("client_id"));
        if let Some(client) = client {
            members.insert("client_id".into(), client.clone());
        }
        Some(ToolAccount { id: hash.to_owned(), provider: None, credential: MCP_REMOTE.parse_or_fed(&members) })
    });
    some_or_signed_out(entries.collect())
}

fn some_or_signed_out(entries: Vec<ToolAccount>) -> Result<Vec<ToolAccount>, ToolStoreError> {
    match entries.is_empty() {
        true => Err(ToolStoreError::signed_out("it has no sign-in", "sign in with that tool, or use keepalive login")),
        false => Ok(entries),
    }
}
