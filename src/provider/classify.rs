//! Decides what a response of the token endpoint means: may the server have used the refresh token up? (pure)

use std::time::Duration;

use crate::clock::Timestamp;
use crate::credential::error_response::ErrorResponse;
use crate::profile::{ClientAuth, Provider};
use crate::provider::refusal_codes::Words;
use crate::provider::response_body::{ForeignBody, is_untaken_503};

/// The class of a response that granted nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseClass {
    /// The server says that the refresh token is invalid. Only a login helps.
    TokenRejected,
    /// The server wants a person. Only a login helps.
    LoginRequired,
    /// Refused for now; the token was not looked at.
    Throttled,
    /// The server names a condition that may pass, such as a policy or a network.
    Conditional,
    /// The provider refuses the client or the request; the token was not looked at.
    ClientRejected,
    /// The body is of something else than the token endpoint.
    NotFromServer,
    /// The server refused without a known reason. The token is presumed unspent.
    Unclassified,
    /// The server may have used the token up.
    Ambiguous,
}

/// What is known of a response that granted nothing.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    pub status: u16,
    pub content_type: Option<&'a str>,
    /// Unpacked.
    pub body: &'a [u8],
    /// The error in the body, if one could be read.
    pub error: Option<&'a ErrorResponse>,
    /// A request of this client to this endpoint, equal but for its token, was granted before.
    pub was_granted_before: bool,
}

/// What a response means, and what of it a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub class: ResponseClass,
    /// The server names a condition that may pass, whatever its code says.
    pub is_conditional: bool,
    /// The error is one of the client, and is taken for the token's because the same request was granted before.
    pub is_by_history: bool,
    /// The body is none that a token endpoint writes.
    pub foreign_body: Option<ForeignBody>,
}

/// Classifies a response of `provider` by its status, its words, its body and what is known from before.
pub fn classify(refusal: &Refusal<'_>, provider: &Provider) -> Verdict {
    let foreign_body = match refusal.error {
        Some(_) => None,
        None => ForeignBody::of(refusal.content_type, refusal.body),
    };
    let words = refusal.error.map(Words::new);
    let class = match refusal.status {
        429 => ResponseClass::Throttled,
        503 if provider.policy.trust_503 => ResponseClass::Throttled,
        503 if refusal.error.is_none() && is_untaken_503(refusal.body) => ResponseClass::Throttled,
        // Seen at a real server: 500 after the rotation was committed. Rule 23: never needs_login from these.
        408 | 500..=599 => ResponseClass::Ambiguous,
        300..=399 => ResponseClass::ClientRejected,
        200..=299 | 400..=499 => match &words {
            Some(words) => class_of_words(words, refusal.was_granted_before, provider),
            None if refusal.status < 300 => ResponseClass::Ambiguous,
            None if foreign_body.as_ref().is_some_and(ForeignBody::is_from_elsewhere) => ResponseClass::NotFromServer,
            None => ResponseClass::Unclassified,
        },
        _ => ResponseClass::Ambiguous,
    };
    let is_of_token = class == ResponseClass::TokenRejected;
    Verdict {
        is_conditional: words.as_ref().is_some_and(Words::names_condition),
        is_by_history: is_of_token && words.as_ref().is_some_and(|words| !says_dead(words, provider)),
        class,
        foreign_body,
    }
}

/// The class of an error under a status that leaves it to the words. The surest come first: codes before sentences, and
/// what is said of the token before what is said of the client.
fn class_of_words(words: &Words<'_>, was_granted_before: bool, provider: &Provider) -> ResponseClass {
    let is_public = provider.client_auth == ClientAuth::None;
    let is_the_clients = words.has_client_code(&provider.client_codes);
    if words.is_throttled() {
        ResponseClass::Throttled
    } else if words.is_clients_invalid_grant(&provider.dead_codes) {
        ResponseClass::ClientRejected
    } else if words.has_dead_code(&provider.dead_codes) {
        ResponseClass::TokenRejected
    } else if words.asks_for_person() {
        ResponseClass::LoginRequired
    } else if words.is_server_error() {
        ResponseClass::Ambiguous
    } else if words.names_dead_token() {
        ResponseClass::TokenRejected
    } else if words.says_person() {
        ResponseClass::LoginRequired
    } else if words.says_throttled() {
        ResponseClass::Throttled
    } else if is_the_clients && was_granted_before && words.may_be_of_token(is_public) && !words.names_client() {
        ResponseClass::TokenRejected
    } else if is_the_clients {
        ResponseClass::ClientRejected
    } else if words.names_condition() {
        ResponseClass::Conditional
    } else if was_granted_before && words.refusal_may_be_of_token(is_public) && !words.names_client() {
        ResponseClass::TokenRejected
    } else if words.refuses_client() {
        ResponseClass::ClientRejected
    } else {
        ResponseClass::Unclassified
    }
}

/// Whether an error refuses the client in words, whatever its code.
pub fn refuses_client(error: &ErrorResponse) -> bool {
    Words::new(error).refuses_client()
}

fn says_dead(words: &Words<'_>, provider: &Provider) -> bool {
    words.has_dead_code(&provider.dead_codes) || words.names_dead_token()
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
    use crate::credential::redaction::SentSecrets;
    use crate::credential::token_response::{ParsedResponse, parse};
    use crate::profile::Policy;

    fn error(code: &str) -> ErrorResponse {
        ErrorResponse::new(code, None, &SentSecrets::default())
    }

    fn verdict(status: u16, error: Option<&ErrorResponse>, provider: &Provider) -> Verdict {
        let refusal = Refusal { status, content_type: None, body: b"", error, was_granted_before: false };
        classify(&refusal, provider)
    }

    fn class(status: u16, code: &str) -> ResponseClass {
        let error = error(code);
        verdict(status, (!code.is_empty()).then_some(&error), &Provider::named("acme")).class
    }

    /// The verdict on a body as it comes.
    fn verdict_of_body(status: u16, body: &str, was_granted_before: bool) -> Verdict {
        let error = match parse(status, body.as_bytes(), true) {
            ParsedResponse::Denied(error) => Some(error),
            ParsedResponse::Unreadable => None,
            ParsedResponse::Granted(_) => panic!("granted: {body}"),
        };
        let body = body.as_bytes();
        let refusal = Refusal { status, content_type: None, body, error: error.as_ref(), was_granted_before };
        classify(&refusal, &Provider::named("acme"))
    }

    fn class_of_body(status: u16, body: &str) -> ResponseClass {
        verdict_of_body(status, body, false).class
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
            let denied = ErrorResponse::new("not_found_error", Some(words), &SentSecrets::default());
            verdict(status, Some(&denied), &Provider::named("acme")).class
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
        let class = |status, code: &str, provider| verdict(status, Some(&error(code)), provider).class;
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
        assert_eq!(verdict(503, None, &trusting).class, ResponseClass::Throttled);
        assert_eq!(verdict(502, None, &trusting).class, ResponseClass::Ambiguous);
    }

    /// Rule 22. Bodies as servers write them, and the thread that has them.
    #[test]
    fn dead_token_is_known_in_every_form_that_servers_write() {
        for (status, body, thread) in [
            (
                403,
                r#"{"error":"unauthorized_client","error_description":"refresh_token is invalid"}"#,
                "raycast/extensions#11836",
            ),
            (
                403,
                r#"{"error":"unauthorized_client","error_description":"Unknown or invalid refresh token."}"#,
                "ParabolInc/parabol#11849",
            ),
            (400, r#"{"status":400,"message":"Invalid refresh token"}"#, "Teekeks/pyTwitchAPI#37"),
            (
                400,
                r#"{"error":"Bad Request","status":400,"message":"Invalid refresh token"}"#,
                "Teekeks/pyTwitchAPI#37",
            ),
            (
                400,
                r#"{"status":"BAD_REFRESH_TOKEN","message":"missing or invalid refresh token"}"#,
                "airbytehq/airbyte#79592",
            ),
            (
                200,
                r#"{"status":"BAD_REFRESH_TOKEN","message":"missing or invalid refresh token"}"#,
                "PostHog/posthog#61627",
            ),
            (
                400,
                r#"{"errors":[{"errorType":"invalid_grant","message":"Refresh token invalid: …"}],"success":false}"#,
                "Fitbit",
            ),
            (
                400,
                r#"{"message":"Bad Request","errors":[{"resource":"RefreshToken","field":"refresh_token","code":"invalid"}]}"#,
                "Strava",
            ),
            (
                401,
                r#"{"error":{"message":"used","type":"invalid_request_error","code":"refresh_token_reused"}}"#,
                "openai/codex#10332",
            ),
            (401, r#"{"reason":"Invalid Token!","error":"invalid_request"}"#, "Zoom"),
            (
                401,
                r#"{"error":"invalid_request","error_description":"The refresh token is invalid.","hint":"Token has been revoked"}"#,
                "thephpleague/oauth2-server",
            ),
            (401, r#"{"error":"invalid_token","error_description":"Invalid refresh token (expired): …"}"#, "Spring"),
            (400, r#"{"error":{"code":400,"message":"TOKEN_EXPIRED","status":"INVALID_ARGUMENT"}}"#, "Firebase"),
            (200, r#"{"error":"invalid_code"}"#, "Weble/ZohoClient"),
            (200, r#"{"status":503,"error":"Invalid Params: invalid refresh_token"}"#, "Withings"),
            (200, r#"{"code":20026,"msg":"refresh token has been used"}"#, "Lark"),
            (200, r#"{"errcode":40030,"errmsg":"invalid refresh_token"}"#, "WeChat"),
            (
                200,
                r#"{"message":"error","data":{"error_code":10010,"description":"refresh_token is invalid"}}"#,
                "TikTok",
            ),
            (400, r#"{"__type":"NotAuthorizedException","message":"Refresh Token has been revoked"}"#, "Cognito"),
            (
                401,
                r#"{"fault":{"faultstring":"Invalid Refresh Token","detail":{"errorcode":"keymanagement.service.invalid_refresh_token"}}}"#,
                "Apigee",
            ),
            (400, r#"{"type":"https://acme.example/problems/invalid_grant","title":"Gone","status":400}"#, "RFC 9457"),
            (422, r#"{"errors":{"refresh_token":["is invalid"]}}"#, "Rails"),
            (400, r#"{"error":["invalid_grant"]}"#, ""),
            (400, r#"{"errorCode":"INVALID_GRANT","errorSummary":"gone"}"#, ""),
            (401, r#"{"code":"RefreshTokenExpired"}"#, ""),
            (403, "error=unauthorized_client&error_description=refresh_token+is+invalid", ""),
        ] {
            assert_eq!(class_of_body(status, body), ResponseClass::TokenRejected, "{body} ({thread})");
        }
    }

    /// Rule 22.
    #[test]
    fn refusal_that_wants_a_person_is_known() {
        for (body, thread) in [
            (
                r#"{"error":"interaction_required","error_description":"AADSTS50076: you must use multi-factor authentication"}"#,
                "Azure/azure-cli#6962",
            ),
            (r#"{"error":"login_required"}"#, "OpenID Connect Core §3.1.2.6"),
            (r#"{"error":"consent_required"}"#, "OpenID Connect Core §3.1.2.6"),
            (r#"{"error":"account_selection_required"}"#, "OpenID Connect Core §3.1.2.6"),
            (r#"{"error":"insufficient_user_authentication"}"#, "RFC 9470"),
            (r#"{"error":"mfa_required","error_description":"Multifactor authentication required"}"#, "Auth0"),
            (r#"{"error":"access_denied","error_subtype":"rapt_required"}"#, "Google"),
            (
                r#"{"error":"failed","error_description":"AADSTS65001: no consent","error_codes":[65001]}"#,
                "learn.microsoft.com",
            ),
            (r#"{"message":"Your session has ended, please log in again."}"#, ""),
        ] {
            let found = class_of_body(400, body);
            let is_dead = matches!(found, ResponseClass::LoginRequired | ResponseClass::TokenRejected);
            assert!(is_dead, "{found:?} {body} ({thread})");
        }
        assert_eq!(class_of_body(400, r#"{"error":"interaction_required"}"#), ResponseClass::LoginRequired);
        assert_eq!(class_of_body(500, r#"{"error":"interaction_required"}"#), ResponseClass::Ambiguous);
    }

    #[test]
    fn condition_that_may_pass_is_told_whatever_its_code() {
        for (body, class) in [
            // AzureAD/microsoft-authentication-library-for-python#314
            (
                r#"{"error":"invalid_grant","error_description":"AADSTS53003: blocked","error_codes":[53003],"suberror":"message_only"}"#,
                ResponseClass::TokenRejected,
            ),
            (r#"{"error":"invalid_grant","error_codes":[530032]}"#, ResponseClass::TokenRejected),
            (r#"{"error":"invalid_grant","suberror":"protection_policy_required"}"#, ResponseClass::TokenRejected),
            (
                r#"{"error":"access_denied","error_description":"Access is limited to business hours."}"#,
                ResponseClass::Conditional,
            ),
            (r#"{"error":"admin_policy_enforced"}"#, ResponseClass::Conditional),
            (r#"{"message":"Requests from this network are not allowed"}"#, ResponseClass::Conditional),
            (r#"{"error":"invalid_grant","error_description":"ip restricted"}"#, ResponseClass::TokenRejected),
            (r#"{"error":"invalid_grant","error_description":"login hours restricted"}"#, ResponseClass::TokenRejected),
            (r#"{"message":"Your IP has been blocked"}"#, ResponseClass::Conditional),
            (r#"{"error":"VPN required"}"#, ResponseClass::Conditional),
            (r#"{"detail":"Maintenance in progress"}"#, ResponseClass::Conditional),
            (
                r#"{"error":{"code":400,"message":"USER_DISABLED","status":"INVALID_ARGUMENT"}}"#,
                ResponseClass::Conditional,
            ),
        ] {
            let verdict = verdict_of_body(400, body, false);
            assert_eq!((verdict.class, verdict.is_conditional), (class, true), "{body}");
        }
        assert!(!verdict_of_body(400, r#"{"error":"invalid_grant"}"#, false).is_conditional);
    }

    /// Rule 24.
    #[test]
    fn client_error_after_a_grant_is_taken_for_the_tokens() {
        for (body, before, after) in [
            (r#"{"error":"invalid_request"}"#, ResponseClass::ClientRejected, ResponseClass::TokenRejected),
            (r#"{"error":"unauthorized_client"}"#, ResponseClass::ClientRejected, ResponseClass::TokenRejected),
            (r#"{"error":"invalid_client"}"#, ResponseClass::ClientRejected, ResponseClass::TokenRejected),
            (
                r#"{"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys are expired."}"#,
                ResponseClass::ClientRejected,
                ResponseClass::ClientRejected,
            ),
            (
                r#"{"error":"unauthorized_client","error_description":"unknown client"}"#,
                ResponseClass::ClientRejected,
                ResponseClass::ClientRejected,
            ),
            (r#"{"error":"unsupported_grant_type"}"#, ResponseClass::ClientRejected, ResponseClass::ClientRejected),
            (
                r#"{"error":"incorrect_client_credentials"}"#,
                ResponseClass::ClientRejected,
                ResponseClass::ClientRejected,
            ),
            (r#"{"message":"The client is invalid"}"#, ResponseClass::ClientRejected, ResponseClass::TokenRejected),
            (r#"{"error":"what"}"#, ResponseClass::Unclassified, ResponseClass::Unclassified),
        ] {
            assert_eq!(verdict_of_body(400, body, false).class, before, "{body}");
            let known = verdict_of_body(400, body, true);
            assert_eq!((&known.class, known.is_by_history), (&after, after == ResponseClass::TokenRejected), "{body}");
        }
        let secret = Provider { client_auth: ClientAuth::ClientSecretPost, ..Provider::named("acme") };
        let error = error("invalid_client");
        let refusal =
            Refusal { status: 401, content_type: None, body: b"", error: Some(&error), was_granted_before: true };
        assert_eq!(classify(&refusal, &secret).class, ResponseClass::ClientRejected, "its secret may have ended");
    }

    /// Rule 24.
    #[test]
    fn client_refused_in_words_is_a_client_problem() {
        for (status, body, by) in [
            (403, r#"{"status":403,"message":"invalid client secret"}"#, "Twitch"),
            (400, r#"{"status":"BAD_CLIENT_ID","message":"missing or unknown client id"}"#, "HubSpot"),
            (400, r#"{"status":"BAD_CLIENT_SECRET","message":"missing or invalid client secret"}"#, "HubSpot"),
            (200, r#"{"ok":false,"error":"bad_client_secret"}"#, "Slack"),
            (401, r#"{"error":"deleted_client","error_description":"The OAuth client was deleted."}"#, "Google"),
            (401, r#"{"error":"disabled_client"}"#, "Google"),
            (
                400,
                r#"{"message":"Bad Request","errors":[{"resource":"Application","field":"client_id","code":"invalid"}]}"#,
                "Strava",
            ),
            (
                401,
                r#"{"message":"Authorization Error","errors":[{"resource":"Application","field":"","code":"invalid"}]}"#,
                "Strava",
            ),
            (
                401,
                r#"{"fault":{"faultstring":"Invalid client identifier {0}","detail":{"errorcode":"oauth.v2.InvalidClientIdentifier"}}}"#,
                "Apigee",
            ),
            (
                400,
                r#"{"__type":"ResourceNotFoundException","message":"User pool client abc does not exist."}"#,
                "Cognito",
            ),
            (
                200,
                r#"{"error":"incorrect_client_credentials","error_description":"The client_id and/or client_secret passed are incorrect."}"#,
                "GitHub",
            ),
            (400, r#"{"error":{"code":"invalid_client_id","message":"no"}}"#, ""),
            (400, r#"{"errors":["Unknown client"]}"#, ""),
            (400, r#"{"client_id":["Invalid client."]}"#, ""),
            (401, "Client authentication failed", ""),
            (403, r#"{"detail":"The client is disabled"}"#, ""),
            (400, r#"{"error":"invalid_grant","error_description":"Invalid client secret"}"#, ""),
            (400, r#"{"error":"invalid_grant","error_description":"AADSTS7000215: bad","error_codes":[7000215]}"#, ""),
        ] {
            for before in [false, true] {
                let found = verdict_of_body(status, body, before).class;
                assert_eq!(found, ResponseClass::ClientRejected, "{body} ({by})");
            }
        }
    }

    /// Rule 22.
    #[test]
    fn words_beside_invalid_grant_leave_it_dead() {
        for words in [
            "refresh token was issued to another client",
            "Invalid client",
            "The client is not authorized",
            "Client ID mismatch for this token",
            "The provided authorization grant or refresh token is invalid, or was issued to another client",
            "Invalid client_id or refresh token",
        ] {
            let body = serde_json::json!({"error": "invalid_grant", "error_description": words}).to_string();
            assert_eq!(class_of_body(400, &body), ResponseClass::TokenRejected, "{words}");
        }
        for body in [
            r#"{"refresh_token":["This token is no longer valid."]}"#,
            r#"{"refresh_token":"is no longer valid"}"#,
            r#"{"non_field_errors":["Consent has been revoked."]}"#,
            r#"{"error":"access_denied","error_description":"user has revoked access"}"#,
            r#"{"message":"You have been logged out"}"#,
        ] {
            assert_eq!(class_of_body(400, body), ResponseClass::TokenRejected, "{body}");
        }
        for body in [
            r#"{"refresh_token":["This field is required."]}"#,
            r#"{"message":"refreshToken must be a valid token"}"#,
            r#"{"message":"You are not logged in"}"#,
            r#"{"error":{"code":400,"message":"USER_NOT_FOUND","status":"INVALID_ARGUMENT"}}"#,
        ] {
            assert_eq!(class_of_body(400, body), ResponseClass::Unclassified, "{body}");
        }
    }

    #[test]
    fn refusal_in_words_alone_is_throttled_or_unknown() {
        for (body, class) in [
            (
                r#"{"error":"Access Denied","error_description":"You have made too many requests continuously.","status":"failure"}"#,
                ResponseClass::Throttled,
            ),
            (
                r#"{"error":"invalid_grant","error_description":"AADSTS50196: a request loop"}"#,
                ResponseClass::Throttled,
            ),
            (r#"{"message":"Unauthorized","error":401}"#, ResponseClass::Unclassified),
            (r#"{"errorType":"what"}"#, ResponseClass::Unclassified),
        ] {
            assert_eq!(class_of_body(400, body), class, "{body}");
        }
    }

    /// Rule 23.
    #[test]
    fn page_or_gateway_text_says_nothing_of_the_token() {
        let page = "<!doctype html><html><title>Just a moment...</title></html>";
        for (status, class) in [
            (403, ResponseClass::NotFromServer),
            (404, ResponseClass::NotFromServer),
            (200, ResponseClass::Ambiguous),
            (502, ResponseClass::Ambiguous),
            (429, ResponseClass::Throttled),
        ] {
            let found = verdict_of_body(status, page, false);
            assert_eq!((found.class, found.foreign_body), (class, Some(ForeignBody::Html)), "{status}");
        }
        assert_eq!(class_of_body(503, "no healthy upstream"), ResponseClass::Throttled);
        assert_eq!(class_of_body(503, "upstream request timeout"), ResponseClass::Ambiguous);
        assert_eq!(class_of_body(502, "no healthy upstream"), ResponseClass::Ambiguous);
        assert_eq!(class_of_body(503, r#"{"error":"temporarily_unavailable"}"#), ResponseClass::Ambiguous);
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
