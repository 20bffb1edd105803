//! Finds in a sentence whether it calls the refresh token invalid, as servers say beside a wrong code or none. (pure)
//!
//! A request to refresh carries one token. So `token`, with no word before it that names another kind, is that one.

use crate::credential::grant_words;

/// Words before `token` that make it another one.
const OTHER_TOKENS: [&str; 22] = [
    "access",
    "id",
    "identity",
    "client",
    "csrf",
    "xsrf",
    "bearer",
    "auth",
    "authentication",
    "authorization",
    "security",
    "api",
    "assertion",
    "jwt",
    "device",
    "registration",
    "subject",
    "actor",
    "software",
    "push",
    "request",
    "personal",
];

/// Words after `token`, `grant` or `session` that make it no token at all: `token endpoint`, `grant type`.
const OTHER_THINGS: [&str; 18] = [
    "type",
    "types",
    "endpoint",
    "endpoints",
    "request",
    "requests",
    "grant",
    "hint",
    "exchange",
    "auth",
    "authentication",
    "url",
    "uri",
    "server",
    "service",
    "policy",
    "flow",
    "method",
];

/// What a token that no server will take again is called.
const DEAD: [&str; 36] = [
    "invalid",
    "expired",
    "revoked",
    "unknown",
    "inactive",
    "malformed",
    "incorrect",
    "wrong",
    "bad",
    "stale",
    "reused",
    "used",
    "reuse",
    "rotated",
    "blacklisted",
    "blocklisted",
    "unrecognized",
    "unrecognised",
    "disabled",
    "deleted",
    "consumed",
    "rejected",
    "terminated",
    "invalidated",
    "redeemed",
    "ended",
    "canceled",
    "cancelled",
    "superseded",
    "replaced",
    "withdrawn",
    "deactivated",
    "old",
    "illegal",
    "unusable",
    "nonexistent",
];

/// What follows a negation: `not found`, `no longer valid`, `does not exist`.
const ALIVE: [&str; 18] = [
    "found",
    "valid",
    "exist",
    "exists",
    "recognized",
    "recognised",
    "active",
    "known",
    "verified",
    "decoded",
    "decrypted",
    "validated",
    "usable",
    "alive",
    "accepted",
    "correct",
    "refreshable",
    "located",
];

/// What a server could not do with a dead token.
const CHECKED: [&str; 13] = [
    "find",
    "decrypt",
    "decode",
    "validate",
    "verify",
    "recognize",
    "recognise",
    "parse",
    "locate",
    "retrieve",
    "validating",
    "verifying",
    "decoding",
];

const NEGATIONS: [&str; 8] = ["not", "t", "cannot", "unable", "failed", "error", "no", "never"];

/// Words that may stand between a token and what is said of it.
const FILLERS: [&str; 42] = [
    "is",
    "was",
    "has",
    "have",
    "had",
    "been",
    "are",
    "be",
    "being",
    "the",
    "a",
    "an",
    "you",
    "your",
    "this",
    "provided",
    "supplied",
    "given",
    "specified",
    "submitted",
    "sent",
    "presented",
    "passed",
    "received",
    "that",
    "which",
    "value",
    "string",
    "either",
    "or",
    "and",
    "already",
    "now",
    "parameter",
    "field",
    "it",
    "may",
    "might",
    "does",
    "did",
    "too",
    "missing",
];

/// Nouns that take an adjective for themselves: `token: invalid client`.
const OWNERS: [&str; 11] = [
    "client",
    "request",
    "scope",
    "scopes",
    "redirect",
    "credentials",
    "secret",
    "user",
    "audience",
    "resource",
    "grant",
];

/// Whether the text says that the refresh token, its grant or its session is invalid, expired, revoked or unknown.
pub fn name_dead_token(text: &str) -> bool {
    sentences(text).iter().any(|words| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut subjects = subjects(&words);
        subjects.any(|(from, to)| is_called_dead_before(&words[..from]) || is_called_dead_after(&words[to..]))
            || grant_words::name_ended_grant(&words)
    })
}

/// The sentences of a text, in small words: `refresh_token`, `RefreshToken` and `refresh token` are the same two.
pub fn sentences(text: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut word = String::new();
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let ends_word = !c.is_alphanumeric() || (c.is_uppercase() && before.is_lowercase());
        if ends_word && !word.is_empty() {
            all.last_mut().into_iter().for_each(|words| words.push(std::mem::take(&mut word)));
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
        let ends_sentence = ";!?\n".contains(c) || (c == '.' && rest.peek().is_none_or(|next| next.is_whitespace()));
        if ends_sentence && all.last().is_some_and(|words| !words.is_empty()) {
            all.push(Vec::new());
        }
        before = c;
    }
    all.last_mut().into_iter().for_each(|words| words.push(word.clone()));
    all
}

/// Where the refresh token is named: the range of its words.
fn subjects<'a>(words: &'a [&'a str]) -> impl Iterator<Item = (usize, usize)> + 'a {
    words.iter().enumerate().filter_map(move |(at, word)| {
        let before = at.checked_sub(1).map_or("", |before| words[before]);
        let from = match *word {
            "refreshtoken" | "refreshtokens" => at,
            "token" | "tokens" if before == "refresh" => at - 1,
            "token" | "tokens" | "session" | "grant" if !OTHER_TOKENS.contains(&before) => at,
            // "the provided authorization grant or refresh token is invalid"
            "grant" if before == "authorization" => at - 1,
            _ => return None,
        };
        let is_other = words.get(at + 1).is_some_and(|next| OTHER_THINGS.contains(next));
        (!is_other).then_some((from, at + 1))
    })
}

/// `invalid or expired refresh token`, `not a valid token`, `invalid value for refresh_token`, `cannot find the token`.
fn is_called_dead_before(words: &[&str]) -> bool {
    let is_negated = |at: usize| words[at.saturating_sub(3)..at].iter().any(|word| NEGATIONS.contains(word));
    for (at, word) in words.iter().enumerate().rev() {
        match *word {
            dead if DEAD.contains(&dead) => return true,
            "valid" | "such" | "active" => return is_negated(at),
            checked if CHECKED.contains(&checked) => return is_negated(at),
            "for" | "of" | "params" | "param" | "access" | "oauth" | "oauth2" | "current" | "stored" => {}
            filler if FILLERS.contains(&filler) => {}
            _ => return false,
        }
    }
    false
}

/// `refresh token is invalid or expired`, `token has been revoked`, `refresh token could not be found`.
fn is_called_dead_after(words: &[&str]) -> bool {
    let mut is_negated = false;
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).copied().unwrap_or_default();
        match *word {
            "not" | "t" | "cannot" | "no" | "never" => is_negated = true,
            alive if ALIVE.contains(&alive) => return is_negated,
            dead if DEAD.contains(&dead) => return !is_negated && !OWNERS.contains(&next),
            "longer" | "could" | "can" | "couldn" | "doesn" | "isn" | "hasn" | "wasn" | "yet" | "any" | "more" => {}
            filler if FILLERS.contains(&filler) => {}
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 22. Each as it was said by a server, in the thread beside it.
    #[test]
    fn words_that_call_the_refresh_token_dead_are_known() {
        for (said, thread) in [
            ("refresh_token is invalid", "ParabolInc/parabol#11849"),
            ("Unknown or invalid refresh token.", "raycast/extensions#11836"),
            ("Invalid refresh token", "Teekeks/pyTwitchAPI#37"),
            ("missing or invalid refresh token", "airbytehq/airbyte#79592"),
            ("Refresh token not found or invalid", "claude-code issue 91708"),
            ("Your refresh token has already been used to generate a new access token.", "openai/codex#10332"),
            ("The refresh token passed is incorrect or expired.", "docs.github.com"),
            ("The provided authorization grant or refresh token is invalid, expired or revoked", "RFC 6749 §5.2"),
            ("Token has been expired or revoked.", "Google"),
            ("Refresh token expired", "Box"),
            ("expired access/refresh token", "Salesforce"),
            ("Invalid Token!", "Zoom"),
            ("Invalid refresh token (expired): …", "Spring"),
            ("The refresh token does not exist", ""),
            ("The refresh token is no longer valid.", ""),
            ("refresh token doesn't exist", ""),
            ("Refresh token could not be found", ""),
            ("no valid refresh token", ""),
            ("Cannot decrypt the refresh token", "thephpleague/oauth2-server"),
            ("Unable to find refresh token", ""),
            ("Error validating refresh token", ""),
            ("refresh_token invalid", "Strava"),
            ("RefreshTokenExpired", ""),
            ("TOKEN_EXPIRED", "Firebase"),
            ("Invalid Params: invalid refresh_token", "Withings"),
            ("Refresh token reuse detected", "Auth0"),
            ("refresh token … is invalid", "with the token taken out"),
            ("Session not active", "Keycloak"),
            ("Authorization failed. Refresh token revoked.", ""),
        ] {
            assert!(name_dead_token(said), "{said} ({thread})");
        }
    }

    #[test]
    fn words_about_anything_else_are_not_about_the_token() {
        for said in [
            "",
            "refresh token is required",
            "Missing refresh token",
            "No refresh token provided",
            "invalid client for this refresh token",
            "The client is not authorized to use the refresh token grant",
            "Unsupported grant type: refresh_token",
            "invalid grant type",
            "The access token is invalid",
            "Invalid client token",
            "invalid token endpoint",
            "The refresh token is not expired",
            "the refresh token is valid",
            "refresh token was issued to another client",
            "token: invalid client",
            "The request is missing a required parameter, includes an invalid parameter value, includes a parameter more \
             than once, or is otherwise malformed. Check the `refresh_token` parameter",
            "invalid client credentials. The refresh token was not read",
            "Not found",
            "refresh token endpoint was not found",
            "client authentication failed",
        ] {
            assert!(!name_dead_token(said), "{said}");
        }
    }
}
