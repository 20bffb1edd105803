//! Finds in a text whether it refuses the client, or what the client proves itself with, as servers say it beside a wrong
//! code or none. (pure)

use crate::credential::token_words::sentences;

/// How clearly a text refuses the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClientRefusal {
    /// What `unauthorized_client` says: some servers say it of a token.
    Unauthorized,
    /// What `invalid_client` says: some servers say it of the token of a client without a secret.
    Invalid,
    /// Its identifier, its secret, or its state at the provider: nothing of that is the token's.
    Named,
}

/// What a client is called.
const CLIENTS: &[&str] = &["client", "clients", "clientid", "appid", "consumer"];
/// Names of a client that other things bear too: a platform says "application failed" of its own.
const APPS: &[&str] = &["app", "application", "apps", "applications", "integration", "org"];
/// What belongs to a client, in one word or behind its name.
const PARTS: &[&str] = &[
    "id",
    "ids",
    "identifier",
    "identity",
    "secret",
    "secrets",
    "secretkey",
    "key",
    "keys",
    "credential",
    "credentials",
    "assertion",
    "authentication",
    "auth",
    "certificate",
    "hash",
    "name",
    "clientsecret",
    "appsecret",
    "appkey",
    "apikey",
];
/// Parts that name a client by themselves.
const OWN_PARTS: &[&str] = &["secret", "clientsecret", "appsecret", "appkey", "apikey", "secretkey"];
const JOINTS: &[&str] = &["and", "or", "s", "oauth", "oauth2"];

/// Words behind `client` that make it something else: `client token`, `client error`, `client ip`.
const OTHER_THINGS: &[&str] = &[
    "token",
    "tokens",
    "refresh",
    "access",
    "session",
    "grant",
    "grants",
    "code",
    "ip",
    "address",
    "error",
    "errors",
    "request",
    "requests",
    "side",
    "version",
    "library",
    "type",
    "closed",
    "disconnected",
    "timeout",
    "time",
    "clock",
    "scope",
    "scopes",
];

/// What `invalid_client` says in one word.
const INVALID: &[&str] = &[
    "invalid",
    "bad",
    "wrong",
    "incorrect",
    "illegal",
    "malformed",
    "rejected",
    "refused",
    "failed",
    "fails",
    "failure",
    "unacceptable",
];
/// What `unauthorized_client` says in one word.
const UNAUTHORIZED: &[&str] = &["unauthorized", "unauthorised", "forbidden", "denied", "unapproved", "disallowed"];
/// A state that only a client can be in.
const STATES: &[&str] = &[
    "unknown",
    "disabled",
    "deleted",
    "removed",
    "inactive",
    "suspended",
    "deactivated",
    "blocked",
    "banned",
    "expired",
    "revoked",
    "locked",
    "archived",
    "terminated",
    "missing",
    "absent",
    "unregistered",
    "unrecognized",
    "unrecognised",
    "nonexistent",
    "mismatch",
    "mismatched",
    "mismatching",
    "unverified",
    "unconfirmed",
    "uninstalled",
    "unpublished",
    "required",
    "stale",
    "rotated",
    "undefined",
];
/// Said after a negation: what `unauthorized_client` says.
const ALLOWED: &[&str] =
    &["authorized", "authorised", "allowed", "permitted", "approved", "accepted", "entitled", "eligible"];
/// Said after a negation: what `invalid_client` says.
const VALID: &[&str] = &["valid", "correct", "right", "acceptable"];
/// Said after a negation: a state that only a client can be in.
const EXISTING: &[&str] = &[
    "found",
    "find",
    "exist",
    "exists",
    "recognized",
    "recognised",
    "known",
    "active",
    "registered",
    "enabled",
    "verified",
    "authenticated",
    "confirmed",
    "match",
    "matches",
    "matched",
    "matching",
    "trusted",
    "provided",
    "supplied",
    "specified",
    "given",
    "present",
    "installed",
    "configured",
    "located",
    "identified",
];
/// What could not be done with a client.
const CHECKED: &[&str] = &[
    "authenticate",
    "authenticating",
    "identify",
    "verify",
    "verifying",
    "validate",
    "validating",
    "find",
    "locate",
    "recognize",
    "recognise",
    "load",
    "retrieve",
];
const NEGATIONS: &[&str] = &["not", "t", "cannot", "unable", "failed", "error", "no", "never", "neither", "couldn"];
/// Words that may stand between a client and what is said of it, from the right to the left.
const FILLERS: &[&str] = &[
    "the",
    "a",
    "an",
    "this",
    "that",
    "your",
    "its",
    "provided",
    "supplied",
    "given",
    "specified",
    "requested",
    "value",
    "values",
    "parameter",
    "for",
    "of",
    "such",
    "oauth",
    "oauth2",
    "user",
    "pool",
];
/// Here a sentence turns to something else.
const TURNS: &[&str] = &[
    "token", "tokens", "refresh", "scope", "scopes", "grant", "grants", "redirect", "uri", "request", "code", "type",
    "ip", "address", "network", "because", "but", "when", "while", "user", "session", "by", "please", "if",
];
/// Behind `invalid` they are what is invalid.
const OTHER_OWNERS: &[&str] = &[
    "request", "requests", "token", "tokens", "grant", "scope", "scopes", "redirect", "code", "refresh", "user", "type",
];
/// A sentence with one of these says whose a token is.
const OWNERSHIP: &[&str] = &["issued", "belong", "belongs", "bound", "owner", "owned", "another"];
/// So many words may name which client it is, and say the rest.
const MAX_NAME: usize = 12;

/// The clearest refusal of the client in a text.
pub(super) fn client_refusal(text: &str) -> Option<ClientRefusal> {
    sentences(text).iter().filter_map(|words| of_sentence(&words.iter().map(String::as_str).collect::<Vec<_>>())).max()
}

/// Whether a text speaks of a token or a grant too.
pub(super) fn speaks_of_token(text: &str) -> bool {
    let is_token = |word: &String| ["token", "tokens", "refreshtoken", "grant", "session"].contains(&word.as_str());
    sentences(text).iter().flatten().any(is_token)
}

fn of_sentence(words: &[&str]) -> Option<ClientRefusal> {
    if words.iter().any(|word| OWNERSHIP.contains(word)) {
        return None;
    }
    let said = |subject: Subject| {
        let said = said_before(&words[..subject.from], &subject).max(said_after(&words[subject.to..], &subject))?;
        // Whatever is said of a secret is said of nothing else.
        Some(if subject.has_part { ClientRefusal::Named } else { said })
    };
    subjects(words).into_iter().filter_map(said).max()
}

/// Where a client is named.
struct Subject {
    from: usize,
    to: usize,
    /// Its identifier, its secret, or another thing that only a client has.
    has_part: bool,
    /// It is called an application.
    is_app: bool,
}

fn subjects(words: &[&str]) -> Vec<Subject> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let is_api_key = words[at] == "api" && words.get(at + 1) == Some(&"key");
        let is_app = APPS.contains(&words[at]);
        let mut has_part = OWN_PARTS.contains(&words[at]) || ["clientid", "appid"].contains(&words[at]) || is_api_key;
        if !is_app && !has_part && !CLIENTS.contains(&words[at]) {
            at += 1;
            continue;
        }
        let from = at;
        at += 1;
        loop {
            let is_named = |word: &str| CLIENTS.contains(&word) || APPS.contains(&word) || PARTS.contains(&word);
            match words.get(at) {
                Some(word) if PARTS.contains(word) => has_part = true,
                Some(word) if is_named(word) => {}
                Some(word) if JOINTS.contains(word) => {
                    let next = words[at..].iter().find(|word| !JOINTS.contains(word));
                    if !next.is_some_and(|next| is_named(next)) {
                        break;
                    }
                }
                _ => break,
            }
            at += 1;
        }
        if !words.get(at).is_some_and(|next| OTHER_THINGS.contains(next)) {
            found.push(Subject { from, to: at, has_part, is_app: is_app && !has_part });
        }
    }
    found
}

impl Subject {
    /// Servers that have a code of RFC 6749 in mind do not speak of an application.
    fn invalid(&self) -> ClientRefusal {
        if self.is_app { ClientRefusal::Named } else { ClientRefusal::Invalid }
    }

    /// What a word says of it, if it says that something is wrong.
    fn wrong(&self, word: &str) -> Option<ClientRefusal> {
        match word {
            "required" | "missing" | "absent" if !self.has_part => None,
            "failed" | "fails" | "failure" | "denied" | "unknown" if self.is_app && word != "unknown" => None,
            state if STATES.contains(&state) => Some(ClientRefusal::Named),
            invalid if INVALID.contains(&invalid) => Some(self.invalid()),
            barred if UNAUTHORIZED.contains(&barred) => Some(ClientRefusal::Unauthorized),
            _ => None,
        }
    }

    /// What a word says of it that follows a negation.
    fn lacking(&self, word: &str) -> Option<ClientRefusal> {
        match word {
            "provided" | "supplied" | "specified" | "given" | "present" if !self.has_part => None,
            existing if EXISTING.contains(&existing) => Some(ClientRefusal::Named),
            valid if VALID.contains(&valid) => Some(self.invalid()),
            allowed if ALLOWED.contains(&allowed) => Some(ClientRefusal::Unauthorized),
            _ => None,
        }
    }
}

/// `invalid client secret`, `unknown or disabled client`, `cannot authenticate the client`, `no such client`.
fn said_before(words: &[&str], subject: &Subject) -> Option<ClientRefusal> {
    let is_negated = |at: usize| words[at.saturating_sub(3)..at].iter().any(|word| NEGATIONS.contains(word));
    for (at, word) in words.iter().enumerate().rev() {
        if let Some(wrong) = subject.wrong(word) {
            return Some(wrong);
        }
        match *word {
            "no" if words.get(at + 1) == Some(&"such") => return Some(ClientRefusal::Named),
            checked if CHECKED.contains(&checked) => return is_negated(at).then_some(ClientRefusal::Named),
            valid if VALID.contains(&valid) => return is_negated(at).then_some(subject.invalid()),
            "and" | "or" => {}
            filler if FILLERS.contains(&filler) => {}
            _ => return None,
        }
    }
    None
}

/// `client abc does not exist`, `client secret has expired`, `client is not authorized`, `client_id is required`.
fn said_after(words: &[&str], subject: &Subject) -> Option<ClientRefusal> {
    let mut is_negated = false;
    for (at, word) in words.iter().enumerate().take(MAX_NAME) {
        let next = words.get(at + 1).copied().unwrap_or_default();
        if let Some(lack) = subject.lacking(word).filter(|_| is_negated) {
            return Some(lack);
        }
        if let Some(wrong) = subject.wrong(word) {
            return (!is_negated && !OTHER_OWNERS.contains(&next)).then_some(wrong);
        }
        match *word {
            "not" | "t" | "cannot" | "no" | "never" => is_negated = true,
            turn if TURNS.contains(&turn) => return None,
            good if VALID.contains(&good) || ALLOWED.contains(&good) => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 24. As servers say it.
    #[test]
    fn words_that_refuse_the_client_are_known() {
        for (said, by) in [
            ("invalid client secret", "Twitch"),
            ("missing client id", "Twitch"),
            ("BAD_CLIENT_ID", "HubSpot"),
            ("missing or unknown client id", "HubSpot"),
            ("bad_client_secret", "Slack"),
            ("deleted_client", "Google"),
            ("The OAuth client was deleted.", "Google"),
            ("The OAuth client was not found.", "Google"),
            ("disabled_client", "Google"),
            ("client_id invalid", "Strava"),
            ("Application invalid", "Strava"),
            ("keymanagement.service.InvalidClientIdentifier", "Apigee"),
            ("Invalid client identifier {0}", "Apigee"),
            ("User pool client abc does not exist.", "Cognito"),
            ("Unable to verify secret hash for client 1example23456789", "Cognito"),
            ("The client_id and/or client_secret passed are incorrect.", "GitHub"),
            ("Invalid client_id or client_secret", "Zoom"),
            ("client identifier invalid", "Salesforce"),
            ("Invalid value for 'client_id' parameter.", "Okta"),
            ("invalid appid", "WeChat"),
            ("invalid appsecret, rid: 6", "WeChat"),
            ("app secret invalid", "Lark"),
            ("Client key or secret is incorrect.", "TikTok"),
            ("Unknown Application", "Discord"),
            ("Error validating client secret.", "Facebook"),
            ("No such application: 'ca_1'", "Stripe"),
            ("Invalid API key", "Supabase"),
            ("Client authentication failed due to unknown client, no client authentication included", "Doorkeeper"),
            ("The client credentials are invalid", "Box"),
            ("Unknown client", ""),
            ("Client authentication failed", ""),
            ("The client is disabled", ""),
            ("application not found", ""),
            ("The application has been suspended.", ""),
            ("Client with id 'a-b-c' is not registered", ""),
            ("client 3fa85f64-5717-4562-b3fc-2c963f66afa6 could not be found", ""),
            ("The client secret has expired", ""),
            ("client_secret is required", ""),
            ("Failed to authenticate the client", ""),
            ("The client's secret does not match", ""),
            ("ClientDisabled", ""),
            ("client is not active", ""),
            ("secret mismatch", ""),
        ] {
            assert_eq!(client_refusal(said), Some(ClientRefusal::Named), "{said} ({by})");
        }
    }

    #[test]
    fn words_of_a_client_code_mean_no_more_than_the_code() {
        for (said, refusal) in [
            ("invalid client", ClientRefusal::Invalid),
            ("The client is invalid.", ClientRefusal::Invalid),
            ("InvalidClientException", ClientRefusal::Invalid),
            ("not a valid client", ClientRefusal::Invalid),
            ("Unauthorized client", ClientRefusal::Unauthorized),
            ("The client is not authorized to use this grant type", ClientRefusal::Unauthorized),
            ("This app is not allowed to refresh", ClientRefusal::Unauthorized),
        ] {
            assert_eq!(client_refusal(said), Some(refusal), "{said}");
        }
    }

    #[test]
    fn words_about_anything_else_do_not_refuse_the_client() {
        for said in [
            "",
            "Not found",
            "refresh token was issued to another client",
            "The refresh token does not belong to this client",
            "client error",
            "Bad client request",
            "The client sent an invalid request",
            "the client closed the connection",
            "Invalid client token",
            "client ip is blocked",
            "Application error",
            "Application failed to respond",
            "Your application is fine",
            "The client is valid",
            "invalid_grant",
            "Invalid credentials",
            "The user is disabled",
            "unsupported client version",
            "The client must be patient",
            "client session expired",
        ] {
            assert_eq!(client_refusal(said), None, "{said}");
        }
    }
}
