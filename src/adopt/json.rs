//! The stores that are JSON: Codex, Claude Code, Grok, Gemini, and what oidc-agent prints. (pure)

use serde_json::{Map, Value};

use super::shape::{self, CLAUDE, CODEX, GEMINI, GROK, OIDC_AGENT, Unit};
use super::{Entry, Trouble};

/// The object that a file holds.
pub fn object(bytes: &[u8]) -> Result<Map<String, Value>, Trouble> {
    serde_json::from_slice(bytes)
        .map_err(|e| Trouble::new(format!("it is not a JSON object: {e}"), "the tool may be writing it: try again"))
}

/// `auth.json` of Codex, or the keyring item that has the same content.
pub fn codex(bytes: &[u8]) -> Result<Vec<Entry>, Trouble> {
    let file = object(bytes)?;
    let Some(Value::Object(tokens)) = file.get("tokens") else {
        let mode = file.get("auth_mode").and_then(Value::as_str).unwrap_or("");
        let has_key = file.get("OPENAI_API_KEY").is_some_and(Value::is_string);
        return Err(match (mode, has_key) {
            ("" | "apikey", true) => Trouble::signed_out(
                "Codex is signed in with an API key, which needs no refresh",
                "codex login, with ChatGPT",
            ),
            ("", false) => Trouble::signed_out("Codex is not signed in", "codex login"),
            (mode, _) => Trouble::signed_out(
                format!("Codex is signed in by {mode:?}, which has no refresh token"),
                "codex login, with ChatGPT",
            ),
        });
    };
    let written = shape::instant(&file, ("last_refresh", Unit::Rfc3339));
    let content = CODEX.read(tokens).map(|mut foreign| {
        foreign.written = written;
        foreign
    });
    Ok(vec![Entry::only(content)])
}

/// `.credentials.json` of Claude Code. Its siblings are the logins of MCP servers.
pub fn claude(bytes: &[u8]) -> Result<Vec<Entry>, Trouble> {
    match object(bytes)?.get("claudeAiOauth") {
        Some(Value::Object(tokens)) => Ok(vec![Entry::only(CLAUDE.read(tokens))]),
        Some(_) | None => {
            Err(Trouble::signed_out("Claude Code is not signed in with a subscription", "claude, then /login"))
        }
    }
}

/// `auth.json` of Grok: a map of sign-ins by issuer and client.
pub fn grok(bytes: &[u8]) -> Result<Vec<Entry>, Trouble> {
    let signed_in = object(bytes)?;
    let entries = signed_in.iter().filter_map(|(id, value)| Some((id, value.as_object()?)));
    let content = |members: &Map<String, Value>| match members.get("auth_mode").and_then(Value::as_str) {
        // Grok keeps it for reference only; it is for whatever the external command signs in at.
        Some("external") => Err(Trouble::new(
            "its token comes from an external sign-in command",
            "get the token from that command instead",
        )),
        _ => GROK.read(members),
    };
    let entries: Vec<_> =
        entries.map(|(id, members)| Entry { id: id.clone(), provider: None, content: content(members) }).collect();
    if entries.is_empty() { Err(Trouble::signed_out("Grok is not signed in", "grok login")) } else { Ok(entries) }
}

/// `oauth_creds.json` of the Gemini CLI.
pub fn gemini(bytes: &[u8]) -> Result<Vec<Entry>, Trouble> {
    Ok(vec![Entry::only(GEMINI.read(&object(bytes)?))])
}

/// What `oidc-gen --print` shows of an account.
pub fn oidc_agent(bytes: &[u8]) -> Result<Vec<Entry>, Trouble> {
    let account = object(bytes)?;
    let id = account.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(vec![Entry { id, provider: None, content: OIDC_AGENT.read(&account) }])
}
