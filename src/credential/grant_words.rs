//! Finds in a sentence whether it says that the grant itself was withdrawn, or the session ended, without naming a token:
//! "user has revoked access", "You have been logged out". (pure)

/// What a person gives a client, and may take back.
const GRANTS: [&str; 10] = [
    "consent",
    "consents",
    "authorization",
    "authorisation",
    "access",
    "permission",
    "permissions",
    "login",
    "signin",
    "logon",
];
/// Words behind these that make them something else: `access token`, `authorization header`, `login page`.
const OTHER_THINGS: [&str; 19] = [
    "token", "tokens", "code", "codes", "header", "server", "endpoint", "key", "request", "grant", "type", "policy",
    "scheme", "url", "uri", "level", "page", "hours", "hint",
];
/// A sentence with one of these may speak of the client, and is left alone.
const OF_CLIENT: [&str; 8] = ["client", "clients", "key", "keys", "secret", "certificate", "api", "developer"];
/// Of one who may only have done so, or has not.
const DOUBTS: [&str; 9] = ["not", "t", "never", "if", "when", "may", "might", "unless", "cannot"];
const WITHDRAWN: [&str; 5] = ["revoked", "withdrawn", "withdrew", "rescinded", "retracted"];
/// Said of all of them but of access, whose end may be that of the access token.
const OVER: [&str; 7] = ["expired", "ended", "terminated", "canceled", "cancelled", "invalidated", "lapsed"];
const BETWEEN: [&str; 22] = [
    "has",
    "have",
    "had",
    "been",
    "was",
    "were",
    "is",
    "are",
    "now",
    "already",
    "to",
    "for",
    "of",
    "the",
    "this",
    "your",
    "their",
    "its",
    "app",
    "application",
    "account",
    "data",
];
const PEOPLE: [&str; 7] = ["user", "owner", "customer", "member", "subscriber", "person", "holder"];

/// Whether a sentence says so.
pub(super) fn name_ended_grant(words: &[&str]) -> bool {
    let has = |known: &[&str]| words.iter().any(|word| known.contains(word));
    !has(&OF_CLIENT) && !has(&DOUBTS) && (is_withdrawn(words) || is_revoked_by_person(words) || is_signed_out(words))
}

/// `revoked access`, `consent has been withdrawn`, `access to this application was revoked`.
fn is_withdrawn(words: &[&str]) -> bool {
    words.iter().enumerate().filter(|(_, word)| GRANTS.contains(word)).any(|(at, noun)| {
        if words.get(at + 1).is_some_and(|next| OTHER_THINGS.contains(next)) {
            return false;
        }
        let is_end = |word: &&str| WITHDRAWN.contains(word) || (*noun != "access" && OVER.contains(word));
        let after = words[at + 1..].iter().find(|word| !BETWEEN.contains(word));
        let before = words[..at].iter().rev().find(|word| !["the", "your", "their", "its", "all"].contains(word));
        after.is_some_and(is_end) || before.is_some_and(|word| WITHDRAWN.contains(word))
    })
}

/// `revoked by the user`.
fn is_revoked_by_person(words: &[&str]) -> bool {
    let by = words.windows(2).position(|pair| WITHDRAWN.contains(&pair[0]) && pair[1] == "by");
    by.is_some_and(|at| words[at + 2..].iter().take(3).any(|word| PEOPLE.contains(word)))
}

/// `You have been logged out`, `user signed out`, `you are no longer signed in`.
fn is_signed_out(words: &[&str]) -> bool {
    let are_said = |at: usize| {
        let before = at.checked_sub(1).map_or("", |before| words[before]);
        ["", "been", "was", "were", "is", "are", "got", "have", "has", "you", "user", "session", "account"]
            .contains(&before)
    };
    words.windows(2).enumerate().any(|(at, pair)| match *pair {
        ["logged" | "signed", "out" | "off"] => are_said(at),
        ["logged" | "signed", "in"] => at >= 2 && words[at - 2..at] == ["no", "longer"],
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::token_words::{name_dead_token, sentences};

    /// Rule 22.
    #[test]
    fn words_that_end_the_grant_or_the_session_are_known() {
        for said in [
            "user has revoked access",
            "The user revoked their consent.",
            "Consent has been revoked",
            "Consent withdrawn",
            "Authorization has expired.",
            "Access has been revoked",
            "Access to this application was revoked",
            "The permission was revoked by the resource owner",
            "Revoked by user",
            "You have been logged out",
            "User was signed out of all devices",
            "You are no longer signed in",
            "USER_LOGGED_OUT",
            "Your login has expired",
            "refreshtoken This token is no longer valid.",
        ] {
            assert!(name_dead_token(said), "{said}");
        }
    }

    #[test]
    fn words_that_only_sound_so_end_no_grant() {
        for said in [
            "",
            "Access denied",
            "Access token expired",
            "The authorization header is invalid",
            "invalid authorization code",
            "authorization code expired",
            "Client access has been revoked",
            "The API key was revoked by the user",
            "The user has not revoked access",
            "You may have been logged out",
            "You will be logged out",
            "you are not logged in",
            "consent is required",
            "access is limited to business hours",
            "Login failed",
            "refreshToken must be a valid token",
        ] {
            let is_named = sentences(said)
                .iter()
                .any(|words| name_ended_grant(&words.iter().map(String::as_str).collect::<Vec<_>>()));
            assert!(!is_named, "{said}");
            assert!(!name_dead_token(said), "{said}");
        }
    }
}
