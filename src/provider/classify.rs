//! Decides what a response of the token endpoint means: may the server have used the refresh token up? (pure)

use std::time::Duration;

use crate::clock::Timestamp;
use crate::credential::token_response::ErrorResponse;
use crate::profile::Provider;

/// The class of a response that granted nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseClass {
    /// The server says that the refresh token is invalid. Only a login helps.
    TokenRejected,
    /// Refused for now; the token was not looked at.
    Throttled,
    /// The provider refuses the client or the request; the token was not looked at.
    ClientRejected,
    /// The server refused without a known reason. The token is presumed unspent.
    Unclassified,
    /// The server may have used the token up.
    Ambiguous,
}

/// Error codes that say: this refresh token is dead. RFC 6749 has the first. The others were seen at more than one
/// server and are unambiguous. Codes of a single provider are its `dead_codes`.
const TOKEN_REJECTED_CODES: [&str; 7] = [
    "invalid_grant",
    "refresh_token_reused",
    "refresh_token_expired",
    "refresh_token_invalidated",
    "invalid_refresh_token",
    "bad_refresh_token",
    "token_revoked",
];

/// Codes that say: this client, or this request, is wrong (RFC 6749 §5.2). A provider's own are its `client_codes`.
const CLIENT_REJECTED_CODES: [&str; 7] = [
    "invalid_client",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_request",
    "incorrect_client_credentials",
    "invalid_target",
];

/// Codes that say: later.
const THROTTLED_CODES: [&str; 4] = ["temporarily_unavailable", "slow_down", "rate_limited", "ratelimited"];

/// Codes that say that something broke in the server: its own 500, under whatever HTTP status.
const SERVER_ERROR_CODES: [&str; 5] =
    ["server_error", "internal_error", "internal_server_error", "fatal_error", "request_timeout"];

/// Codes that say that something does not exist. Only the description tells whether that is the token or the address.
const NOT_FOUND_CODES: [&str; 2] = ["not_found_error", "not_found"];

/// Whether a "not found" is about the refresh token. One provider answered a plain 404 `not_found_error` to every
/// refresh when its endpoint had moved, and every token was alive.
fn is_token_not_found(denied: Option<&ErrorResponse>) -> bool {
    let words = denied.and_then(|d| d.description.as_deref()).unwrap_or_default();
    words.to_ascii_lowercase().contains("refresh token")
}

/// Classifies a response of `provider` by HTTP status and by the OAuth error in it, if one could be read.
pub fn classify(status: u16, denied: Option<&ErrorResponse>, provider: &Provider) -> ResponseClass {
    let code = denied.map_or(String::new(), |d| d.code.to_ascii_lowercase());
    let code = code.as_str();
    let is_among =
        |known: &[&str], own: &[String]| known.contains(&code) || own.iter().any(|own| own.eq_ignore_ascii_case(code));
    match status {
        429 => ResponseClass::Throttled,
        503 if provider.policy.trust_503 => ResponseClass::Throttled,
        // Seen at a real server: 500 after the rotation was committed. Rule 23: never needs_login from these.
        408 | 500..=599 => ResponseClass::Ambiguous,
        300..=399 => ResponseClass::ClientRejected,
        200..=299 if denied.is_none() => ResponseClass::Ambiguous,
        200..=299 | 400..=499 if is_among(&TOKEN_REJECTED_CODES, &provider.dead_codes) => ResponseClass::TokenRejected,
        200..=299 | 400..=499 if is_among(&CLIENT_REJECTED_CODES, &provider.client_codes) => {
            ResponseClass::ClientRejected
        }
        200..=299 | 400..=499 if THROTTLED_CODES.contains(&code) => ResponseClass::Throttled,
        200..=299 | 400..=499 if SERVER_ERROR_CODES.contains(&code) => ResponseClass::Ambiguous,
        404 | 410 if NOT_FOUND_CODES.contains(&code) && is_token_not_found(denied) => ResponseClass::TokenRejected,
        // An unknown error inside a 200, or any other 4xx.
        200..=299 | 400..=499 => ResponseClass::Unclassified,
        _ => ResponseClass::Ambiguous,
    }
}

/// No server is obeyed longer than this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Reads `Retry-After` (RFC 9110 §10.2.3): seconds, or a date.
pub fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let text = header.trim();
    let wait = match text.parse::<u64>() {
        Ok(secs) => Duration::from_secs(secs),
        Err(_) => super::http_date(text)?.since(now),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Policy;

    fn class(status: u16, code: &str) -> ResponseClass {
        let denied = ErrorResponse { code: code.into(), description: None };
        classify(status, (!code.is_empty()).then_some(&denied), &Provider::named("acme"))
    }

    /// Rule 22.
    #[test]
    fn rejected_token_is_known_by_its_error_code() {
        for (status, code) in [
            (400, "invalid_grant"),
            (401, "refresh_token_reused"),
            (403, "invalid_grant"),
            (200, "bad_refresh_token"),
            (404, "invalid_grant"),
        ] {
            assert_eq!(class(status, code), ResponseClass::TokenRejected, "{status} {code}");
        }
    }

    /// Rule 23.
    #[test]
    fn server_trouble_or_throttling_never_rejects_the_token() {
        for status in [408, 500, 502, 503, 504, 599] {
            assert_eq!(class(status, "invalid_grant"), ResponseClass::Ambiguous, "{status}");
        }
        assert_eq!(class(429, "invalid_grant"), ResponseClass::Throttled);
        assert_eq!(class(200, ""), ResponseClass::Ambiguous);
        assert_eq!(class(999, ""), ResponseClass::Ambiguous);
        assert_eq!(class(101, ""), ResponseClass::Ambiguous);
    }

    /// Rule 23.
    #[test]
    fn server_error_code_is_ambiguous_under_any_status() {
        for (status, code) in [(200, "internal_error"), (400, "server_error"), (200, "Fatal_Error")] {
            assert_eq!(class(status, code), ResponseClass::Ambiguous, "{status} {code}");
        }
    }

    /// Rule 22.
    #[test]
    fn not_found_rejects_only_if_it_names_the_refresh_token() {
        let class = |status, words: &str| {
            let denied = ErrorResponse { code: "not_found_error".into(), description: Some(words.into()) };
            classify(status, Some(&denied), &Provider::named("acme"))
        };
        assert_eq!(class(404, "Refresh token not found or invalid"), ResponseClass::TokenRejected);
        assert_eq!(class(404, "Not found"), ResponseClass::Unclassified);
        assert_eq!(class(500, "Refresh token not found or invalid"), ResponseClass::Ambiguous);
    }

    /// Rule 24.
    #[test]
    fn client_error_code_or_redirect_is_a_client_problem() {
        for (status, code) in [(401, "invalid_client"), (400, "invalid_scope"), (200, "invalid_request"), (302, "")] {
            assert_eq!(class(status, code), ResponseClass::ClientRejected, "{status} {code}");
        }
    }

    #[test]
    fn refusal_without_a_known_code_is_unclassified() {
        for (status, code) in [(400, ""), (401, ""), (403, "forbidden"), (404, ""), (200, "unknown_error")] {
            assert_eq!(class(status, code), ResponseClass::Unclassified, "{status} {code}");
        }
    }

    /// Rules 22 and 24.
    #[test]
    fn provider_may_add_error_codes_of_its_own() {
        let own = |codes: &[&str]| codes.iter().map(|code| (*code).to_owned()).collect();
        let acme = Provider {
            dead_codes: own(&["account_inactive"]),
            client_codes: own(&["bad_client_secret"]),
            ..Provider::named("acme")
        };
        let class = |status, code: &str, provider| {
            classify(status, Some(&ErrorResponse { code: code.into(), description: None }), provider)
        };
        assert_eq!(class(200, "Account_Inactive", &acme), ResponseClass::TokenRejected);
        assert_eq!(class(400, "bad_client_secret", &acme), ResponseClass::ClientRejected);
        assert_eq!(class(400, "invalid_grant", &acme), ResponseClass::TokenRejected, "those of all servers stay");
        for status in [429, 500] {
            assert!(matches!(
                class(status, "account_inactive", &acme),
                ResponseClass::Throttled | ResponseClass::Ambiguous
            ));
        }
        assert_eq!(class(200, "account_inactive", &Provider::named("other")), ResponseClass::Unclassified);
    }

    #[test]
    fn temporary_refusal_or_trusted_503_is_throttled() {
        assert_eq!(class(400, "temporarily_unavailable"), ResponseClass::Throttled);
        assert_eq!(class(400, "slow_down"), ResponseClass::Throttled);
        let policy = Policy { trust_503: true, ..Policy::default() };
        let trusting = Provider { policy, ..Provider::named("acme") };
        assert_eq!(classify(503, None, &trusting), ResponseClass::Throttled);
        assert_eq!(classify(502, None, &trusting), ResponseClass::Ambiguous);
    }

    /// Rule 25.
    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let now = Timestamp::parse_rfc3339("2026-11-24T12:00:00Z").unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Tue, 24 Nov 2026 12:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Tuesday, 24-Nov-26 12:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Tue Nov 24 12:00:30 2026", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Tue, 24 Nov 2026 11:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999", now), Some(MAX_RETRY_AFTER));
        assert_eq!(retry_after("soon", now), None);
    }
}
