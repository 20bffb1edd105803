//! Reads the stores that are JSON: Codex, Claude Code, Grok, Gemini, and what oidc-agent prints. (pure)

use serde_json::{Map, Value};

use crate::credential::external::AccountIdentity;
use crate::credential::server_text::printable;
use crate::credential::time_value;
use crate::credential::time_value::{TimeKind, TimeValue};
use crate::import_sources::parse::{CLAUDE, CODEX, GEMINI, GROK, OIDC_AGENT, has_refresh_token};
use crate::import_sources::{ToolAccount, ToolStoreError};

/// The object that a file holds.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, ToolStoreError> {
    serde_json::from_slice(bytes).map_err(|e| {
        ToolStoreError::new(format!("it is not a JSON object: {e}"), "the tool may be writing it: try again")
    })
}

/// `auth.json` of Codex, or the keyring item that has the same content.
pub(super) fn codex(bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    let file = object(bytes)?;
    let Some(Value::Object(tokens)) = file.get("tokens") else {
        if file.get("tokens").is_some_and(|tokens| !tokens.is_null()) || has_refresh_token(&file) {
            return Err(ToolStoreError::unknown_form());
        }
        let mode = file.get("auth_mode").and_then(Value::as_str).unwrap_or("");
        let has_key = file.get("OPENAI_API_KEY").is_some_and(Value::is_string);
        return Err(match (mode, has_key) {
            ("" | "apikey", true) => ToolStoreError::signed_out(
                "Codex is signed in with an API key, which needs no refresh",
                "codex login, with ChatGPT",
            ),
            ("", false) => ToolStoreError::signed_out("Codex is not signed in", "codex login"),
            (mode, _) => ToolStoreError::signed_out(
                format!("Codex is signed in by {mode:?}, which has no refresh token"),
                "codex login, with ChatGPT",
            ),
        });
    };
    // In this mode Codex never refreshes. Without the member it would count as signed out.
    let is_never_refreshed = file.get("auth_mode").and_then(Value::as_str) == Some("chatgptAuthTokens");
    if is_never_refreshed || (tokens.contains_key("refresh_token") && CODEX.is_fed(tokens)) {
        return Ok(vec![ToolAccount::single(Err(ToolStoreError::fed()))]);
    }
    let content = CODEX.parse(tokens).map(|mut foreign| {
        let written = file.get("last_refresh").map(|value| time_value::read(value, TimeKind::Instant));
        if let Some(TimeValue::Instant(at)) = written {
            foreign.written_at = Some(at);
        }
        foreign
    });
    Ok(vec![ToolAccount::single(content)])
}

/// `.credentials.json` of Claude Code. Other members are the logins of MCP servers.
pub(super) fn claude(bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    match object(bytes)?.get("claudeAiOauth") {
        // Claude Code does not refresh what has no refresh token.
        Some(Value::Object(tokens)) if CLAUDE.is_fed(tokens) => {
            Ok(vec![ToolAccount::single(Err(ToolStoreError::fed()))])
        }
        Some(Value::Object(tokens)) => Ok(vec![ToolAccount::single(CLAUDE.parse(tokens))]),
        Some(Value::String(_) | Value::Array(_) | Value::Number(_) | Value::Bool(_)) => {
            Err(ToolStoreError::unknown_form())
        }
        Some(Value::Null) | None => {
            Err(ToolStoreError::signed_out("Claude Code is not signed in with a subscription", "claude, then /login"))
        }
    }
}

/// `.claude.json` of Claude Code: the account and the organization that it is signed in to.
pub(super) fn claude_account(bytes: &[u8]) -> Option<AccountIdentity> {
    let file = object(bytes).ok()?;
    let account = file.get("oauthAccount")?.as_object()?;
    let text = |name: &str| account.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).map(printable);
    let identity = AccountIdentity {
        subject: text("accountUuid"),
        account: text("organizationUuid"),
        email: text("emailAddress"),
    };
    identity.subject.is_some().then_some(identity)
}

/// `auth.json` of Grok: a map of sign-ins by issuer and client.
pub(super) fn grok(bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    let signed_in = object(bytes)?;
    let content = |members: &Map<String, Value>| match members.get("auth_mode").and_then(Value::as_str) {
        // Grok keeps it for reference only: it belongs to the external command.
        Some("external") => Err(ToolStoreError::new(
            "its token comes from an external sign-in command",
            "get the token from that command instead",
        )),
        _ => GROK.parse(members),
    };
    let account =
        |id: &str, members: &_| ToolAccount { id: id.to_owned(), provider: None, credential: content(members) };
    let entries = ToolAccount::of_map(&signed_in, |_| None, account);
    if entries.is_empty() {
        Err(ToolStoreError::signed_out("Grok is not signed in", "grok login"))
    } else {
        Ok(entries)
    }
}

/// `oauth_creds.json` of the Gemini CLI.
pub(super) fn gemini(bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    Ok(vec![ToolAccount::single(GEMINI.parse_or_fed(&object(bytes)?))])
}

/// What `oidc-gen --print` shows of an account.
pub(super) fn oidc_agent(bytes: &[u8]) -> Result<Vec<ToolAccount>, ToolStoreError> {
    let account = object(bytes)?;
    let id = account.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(vec![ToolAccount { id, provider: None, credential: OIDC_AGENT.parse(&account) }])
}
