//! Reads OpenClaw's auth profiles: which of them hold an OAuth credential, and which only look like it. (pure)

use serde_json::{Map, Value};

use crate::credential::external::ExternalCredential;
use crate::import_sources::json::object;
use crate::import_sources::parse::{OPENCLAW, has_refresh_token};
use crate::import_sources::{ToolAccount, ToolStoreError, agents, our_provider};

/// The text that OpenClaw puts in place of the tokens while it refreshes them, and leaves there if that fails.
const REFRESH_MARKER: &str = "openclaw-oauth-refresh-fence:";

/// The rows of both databases, or the older file: a row holds the profiles of one store as JSON, and there is one row a
/// line.
pub(super) fn read(rows: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    // Without a row no one is signed in.
    let (mut entries, mut is_understood) = (Vec::new(), rows.is_empty());
    // The older file is one object, of several lines.
    let rows = match object(rows) {
        // The first versions had a map by provider.
        Ok(file) if !file.contains_key("profiles") && has_refresh_token(&file) => return agents::by_provider(rows),
        Ok(file) => vec![file],
        Err(_) => rows.split(|b| *b == b'\n').filter(|row| !row.is_empty()).map(object).collect::<Result<_, _>>()?,
    };
    for row in rows {
        if let Some(Value::Object(profiles)) = row.get("profiles") {
            is_understood = true;
            entries.extend(ToolAccount::of_map(profiles, |_| None, account));
        }
    }
    let (what, hint) = ("it has no auth profile", "openclaw models auth login");
    match (entries.is_empty(), is_understood) {
        (true, true) => Err(ToolStoreError::signed_out(what, hint)),
        (true, false) => Err(ToolStoreError::new(what, hint)),
        (false, _) => Ok(entries),
    }
}

fn account(id: &str, profile: &Map<String, Value>) -> ToolAccount {
    let text = |name: &str| profile.get(name).and_then(Value::as_str).unwrap_or_default();
    let provider = text("provider");
    let ours = our_provider(provider);
    ToolAccount {
        id: id.to_owned(),
        provider: (!ours.is_empty()).then(|| ours.to_owned()),
        credential: match text("type") {
            "oauth" => oauth_credential(id, profile),
            _ if has_refresh_token(profile) => Err(ToolStoreError::unknown_form()),
            kind => Err(ToolStoreError::signed_out(
                format!("it is of type {kind:?}, which has no refresh token"),
                "name one of type \"oauth\" with --account",
            )),
        },
    }
}

/// The OAuth credential of a profile. A placeholder is no token: the provider would refuse it, and sending it would
/// disturb OpenClaw's own refresh.
fn oauth_credential(id: &str, profile: &Map<String, Value>) -> Result<ExternalCredential, ToolStoreError> {
    let is_in =
        |name: &str, marker: &str| profile.get(name).and_then(Value::as_str).is_some_and(|t| t.contains(marker));
    let is_fenced = ["access", "refresh"].iter().any(|name| is_in(name, REFRESH_MARKER));
    let has_failed = ["access", "refresh"].iter().any(|name| is_in(name, ":failed:"));
    match (is_fenced, has_failed) {
        (true, true) => Err(ToolStoreError::signed_out(
            "a refresh by OpenClaw failed and lost its token",
            format!("sign in again: openclaw models auth login --profile-id {id}, or keepalive login"),
        )),
        (true, false) => Err(ToolStoreError::new("OpenClaw is refreshing it right now", "try again in a minute")),
        (false, _) if !has_refresh_token(profile) && profile.get("oauthRef").is_some_and(|file| !file.is_null()) => {
            Err(ToolStoreError::new(
                "its tokens are in another file, which only OpenClaw can read",
                "sign in separately: keepalive login",
            ))
        }
        (false, _) => OPENCLAW.parse_or_fed(profile),
    }
}
