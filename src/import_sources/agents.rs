//! Reads the JSON stores that hold sign-ins of several providers: opencode, pi, Hermes, CLIProxyAPI and mcp-remote; and
//! that of LiteLLM. (pure)

use serde_json::{Map, Value};

use crate::import_sources::json::object;
use crate::import_sources::parse::{CODEX, MCP_REMOTE, OPENCLAW, SNAKE_CASE};
use crate::import_sources::{ToolAccount, ToolStoreError, our_provider};

/// `auth.json` of opencode and of pi: a map of sign-ins by provider.
pub(super) fn by_provider(bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    let entries: Vec<_> = object(bytes)?
        .iter()
        .filter_map(|(id, entry)| Some((id, entry.as_object()?)))
        .map(|(id, entry)| {
            let credential = match entry.get("type").and_then(Value::as_str).unwrap_or_default() {
                // Its refresh token is a token of GitHub, from which Copilot's own are made, by no OAuth request.
                "oauth" if id.starts_with("github-copilot") => Err(ToolStoreError::signed_out(
                    "a sign-in for GitHub Copilot has no refresh token of OAuth",
                    "keepalive login, with a client of your own at GitHub",
                )),
                "oauth" => OPENCLAW.parse_or_fed(&unpacked(id, entry)),
                // The older file of pi has no type.
                "" if entry.contains_key(OPENCLAW.refresh) => OPENCLAW.parse_or_fed(entry),
                kind => Err(ToolStoreError::signed_out(
                    format!("it is of type {kind:?}, which has no refresh token"),
                    "name one of type \"oauth\" with --account",
                )),
            };
            ToolAccount { id: id.clone(), provider: Some(our_provider(id).to_owned()), credential }
        })
        .collect();
    some_or_signed_out(entries)
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

/// `auth.json` of Hermes: a state for each provider, its tokens in it or in `tokens`; and a pool of further sign-ins.
pub(super) fn hermes(bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    let file = object(bytes)?;
    let states = file.get("providers").and_then(Value::as_object).into_iter().flatten();
    let mut entries: Vec<ToolAccount> = states
        .filter_map(|(id, state)| Some((id, state.as_object()?)))
        .map(|(id, state)| hermes_account(id, id.clone(), state))
        .collect();
    let pools = file.get("credential_pool").and_then(Value::as_object).into_iter().flatten();
    for (provider, pool) in pools {
        let pool: Vec<_> = pool.as_array().into_iter().flatten().filter_map(Value::as_object).collect();
        for entry in &pool {
            let account = hermes_account(provider, pool_name(provider, entry, &pool), entry);
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
    let mut members = state.clone();
    if let Some(Value::Object(tokens)) = state.get("tokens") {
        members.extend(tokens.clone());
    }
    ToolAccount { id, provider: Some(our_provider(provider).to_owned()), credential: SNAKE_CASE.parse_or_fed(&members) }
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
        let id = name.trim_end_matches(".json").to_owned();
        match content {
            Value::Object(content) if content.get("type").is_some_and(Value::is_string) => {
                Some(cliproxy_account(id, content))
            }
            Value::Null => Some(torn_account(id)),
            _ => None,
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
    if files.contains_key("access_token") {
        return Ok(vec![ToolAccount::single(MCP_REMOTE.parse_or_fed(&files))]);
    }
    let entries = files.iter().filter_map(|(name, tokens)| {
        let hash = name.strip_suffix("_tokens.json")?;
        if tokens.is_null() {
            return Some(torn_account(hash.to_owned()));
        }
        let mut members = tokens.as_object()?.clone();
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
