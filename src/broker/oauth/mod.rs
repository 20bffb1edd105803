//! The OAuth endpoint on TCP: programs that refresh by themselves get the access token here, and show a handle where they
//! would show a refresh token.
//!
//! `400 invalid_grant` says that a person must act, `503 temporarily_unavailable` that asking again helps. Every client reads
//! these two rightly. `scope` is never returned, and an ID token only where the handle says so: some clients refuse the answer for them.

mod request;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use hyper::StatusCode;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::json;

use self::request::{OAuthParameters, ParameterError};
use super::caller::{Caller, HandleRefusal, noted};
use super::grants::{GrantedToken, Ungranted};
use super::responses::{self, ApiResponse};
use super::state::Broker;
use crate::credential::jwt::unverified_claims;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::ProfileName;
use crate::store::handles::{Handle, HandleGrant, HandleRecord};

pub(super) const TOKEN: &str = "/oauth/token";
pub(super) const REVOKE: &str = "/oauth/revoke";
pub(super) const METADATA: &str = "/.well-known/oauth-authorization-server";
pub(super) const AUTHORIZE: &str = "/oauth/authorize";
pub(super) const DEVICE: &str = "/oauth/device_authorization";
pub(super) const REGISTER: &str = "/oauth/register";

pub(super) const METRICS_ONLY: &str = "the handle is for the metrics, and gives no token";
const NO_SIGN_IN: &str = "sign in with keepalive login PROFILE, and make a handle with keepalive handle create PROFILE";

/// A refusal in the form that the path has. `must_close`: the connection ends with it.
pub(super) fn refusal_for(path: &str, status: StatusCode, failure: Failure, must_close: bool) -> ApiResponse {
    let mut response = match path.starts_with("/oauth/") {
        true => {
            let error = if status == StatusCode::FORBIDDEN { "access_denied" } else { "invalid_request" };
            failed(status, error, &failure.in_one_line())
        }
        false => responses::refusal(status, failure),
    };
    if must_close {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A failure of RFC 6749, section 5.2.
fn failed(status: StatusCode, error: &str, description: &str) -> ApiResponse {
    responses::json(status, &json!({ "error": error, "error_description": describable(description) }))
}

/// The characters that a description may have: printable ASCII without quotes and backslashes. (pure)
fn describable(text: &str) -> String {
    let fitting = |c: char| match c {
        '"' | '\\' | '\u{2018}' | '\u{2019}' | '\u{201c}' | '\u{201d}' => '\'',
        '\u{2026}' => '.',
        ' '..='~' => c,
        _ => '?',
    };
    text.chars().map(fitting).collect()
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<OAuthParameters, ApiResponse> {
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    OAuthParameters::parse(content_type, body).map_err(|error| {
        let status = match error {
            ParameterError::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ParameterError::Malformed | ParameterError::Twice | ParameterError::Nested => StatusCode::BAD_REQUEST,
        };
        failed(status, "invalid_request", error.text())
    })
}

/// `POST /oauth/token`. Who the client says that it is does not matter: the handle is the credential.
pub(super) async fn token(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResponse {
    let invalid = |text: &str| failed(StatusCode::BAD_REQUEST, "invalid_request", text);
    let parameters = match read(&headers, &body) {
        Ok(parameters) => parameters,
        Err(refused) => return refused,
    };
    match parameters.get("grant_type") {
        Some("refresh_token") => {}
        Some(_) => {
            let text = "only the grant refresh_token is supported";
            return failed(StatusCode::BAD_REQUEST, "unsupported_grant_type", text);
        }
        None => return invalid("grant_type is missing"),
    }
    let Some(presented) = parameters.get("refresh_token") else { return invalid("refresh_token is missing") };
    let handle = match admit(&broker, caller, presented).await {
        Ok(handle) => handle,
        Err(refused) => return refused,
    };
    let HandleGrant::Token(grant) = &handle.grants else {
        return noted(failed(StatusCode::BAD_REQUEST, "invalid_grant", METRICS_ONLY), &handle);
    };
    let is_rejected = parameters.get("refresh_reason") == Some("unauthorized_recovery");
    let response = match broker.granted_token(&handle, grant, is_rejected).await {
        Ok(granted) => granted_response(granted, presented, grant.id_token),
        Err(Ungranted::Nothing(outcome)) => {
            let (status, error, text) = verdict(&grant.profile, &outcome);
            let mut response = failed(status, error, &text);
            responses::set_retry_of(&mut response, &outcome, broker.engine.clock().now().wall);
            response
        }
        Err(Ungranted::Revoked) => {
            failed(StatusCode::BAD_REQUEST, "invalid_grant", &HandleRefusal::Unknown.failure().in_one_line())
        }
        Err(Ungranted::OtherAccount) => {
            failed(StatusCode::BAD_REQUEST, "invalid_grant", &other_account(&grant.profile))
        }
    };
    noted(response, &handle)
}

async fn admit(broker: &Broker, caller: Caller, presented: &str) -> Result<HandleRecord, ApiResponse> {
    let is_our_user = matches!(caller, Caller::Tcp { is_our_user: true, .. });
    broker.admit(is_our_user, presented).await.map_err(|refused| {
        let (status, error) = match &refused {
            HandleRefusal::Unreadable(_) => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
            HandleRefusal::OtherUser => (StatusCode::FORBIDDEN, "access_denied"),
            HandleRefusal::Missing
            | HandleRefusal::Malformed(_)
            | HandleRefusal::Unknown
            | HandleRefusal::Expired(_) => (StatusCode::BAD_REQUEST, "invalid_grant"),
        };
        let mut response = failed(status, error, &refused.failure().in_one_line());
        if let HandleRefusal::Unreadable(outcome) = &refused {
            responses::set_retry_of(&mut response, outcome, broker.engine.clock().now().wall);
        }
        response
    })
}

/// The handle is the refresh token, and it stays the same.
fn granted_response(granted: GrantedToken, handle: &str, has_id_token: bool) -> ApiResponse {
    let GrantedToken { token, left } = granted;
    let token_type = if token.token_type.eq_ignore_ascii_case("bearer") { "Bearer" } else { &token.token_type };
    let mut body = json!({
        "access_token": token.access_token,
        "token_type": token_type,
        "expires_in": left.as_secs(),
        "refresh_token": handle,
    });
    if let Some(id_token) = token.id_token.filter(|token| has_id_token && is_jwt(token)) {
        body["id_token"] = id_token.into();
    }
    responses::json(StatusCode::OK, &body)
}

/// A client may refuse the whole answer for an ID token that is none.
fn is_jwt(token: &str) -> bool {
    let parts: Vec<&str> = token.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| !part.is_empty()) && unverified_claims(token).is_some()
}

/// How it is told that there is no token: what only a person can end is `invalid_grant`. A configuration that is wrong is not:
/// clients throw the handle away for that, and need it again once it is mended.
pub(super) fn verdict(profile: &ProfileName, outcome: &Outcome) -> (StatusCode, &'static str, String) {
    let told = outcome.error.as_ref().map(Failure::in_one_line);
    match outcome.kind {
        OutcomeKind::NeedsLogin => {
            (StatusCode::BAD_REQUEST, "invalid_grant", format!("{profile} needs a login: keepalive login {profile}"))
        }
        OutcomeKind::Fresh
        | OutcomeKind::Refreshed
        | OutcomeKind::Deferred
        | OutcomeKind::InDoubt
        | OutcomeKind::ConfigError
        | OutcomeKind::StoreUnavailable => {
            let text = told.unwrap_or_else(|| "there is no valid access token".into());
            (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", format!("{profile}: {text}"))
        }
    }
}

pub(super) fn other_account(profile: &ProfileName) -> String {
    format!("{profile} is now another account: make a new handle with keepalive handle create {profile}")
}

/// `POST /oauth/revoke` (RFC 7009): the handle itself is revoked, and nothing goes to the provider.
pub(super) async fn revoke(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResponse {
    let done = responses::empty(StatusCode::OK);
    let parameters = match read(&headers, &body) {
        Ok(parameters) => parameters,
        Err(refused) if refused.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE => return refused,
        Err(_) => return done,
    };
    let Some(Ok(handle)) = parameters.get("token").map(Handle::parse) else { return done };
    let record = match admit(&broker, caller, handle.expose()).await {
        Ok(record) => record,
        Err(refused) if refused.status() == StatusCode::BAD_REQUEST => return done,
        Err(refused) => return refused,
    };
    let hash = record.sha256.clone();
    let revoked = broker.on_thread(move |b| b.engine.store().handles().revoke(|known| known.sha256 == hash)).await;
    match revoked {
        Ok(Ok(_)) => noted(done, &record),
        Ok(Err(_)) | Err(_) => {
            let text = "the handle cannot be revoked at the moment";
            noted(failed(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", text), &record)
        }
    }
}

/// `GET /.well-known/oauth-authorization-server` (RFC 8414). There is no document of OpenID Connect: no ID tokens are issued.
pub(super) async fn metadata(Extension(caller): Extension<Caller>) -> ApiResponse {
    let Caller::Tcp { listen, .. } = caller else { return responses::empty(StatusCode::NOT_FOUND) };
    let issuer = format!("http://{listen}");
    responses::json(
        StatusCode::OK,
        &json!({
            "issuer": issuer,
            "token_endpoint": format!("{issuer}{TOKEN}"),
            "revocation_endpoint": format!("{issuer}{REVOKE}"),
            "response_types_supported": [],
            "grant_types_supported": ["refresh_token"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
            "revocation_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        }),
    )
}

/// A sign-in is for a person, at the command line.
pub(super) async fn no_authorization() -> ApiResponse {
    failed(StatusCode::BAD_REQUEST, "unsupported_response_type", NO_SIGN_IN)
}

/// As [`no_authorization`], for devices and for new clients.
pub(super) async fn no_client() -> ApiResponse {
    failed(StatusCode::BAD_REQUEST, "unauthorized_client", NO_SIGN_IN)
}

/// As [`refusal_for`], for a method that the path does not have.
pub(super) fn wrong_method(path: &str, method: &str) -> ApiResponse {
    let instead = if [TOKEN, REVOKE].contains(&path) { "use POST" } else { "use GET" };
    let failure = Failure::new(ErrorKind::Usage, format!("{method} is not possible here")).with_hint(instead);
    refusal_for(path, StatusCode::METHOD_NOT_ALLOWED, failure, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn description_has_only_what_a_description_may_have() {
        assert_eq!(describable("no profile \"x\"; a\\b\n\u{e4}\u{2026}"), "no profile 'x'; a'b??.");
    }

    #[test]
    fn verdict_says_whether_a_person_must_act() {
        let profile = "xai".parse().unwrap();
        let told = |kind| {
            let outcome = Outcome::new(kind).with_error(Failure::new(ErrorKind::Config, "why"));
            let (status, error, text) = verdict(&profile, &outcome);
            (status.as_u16(), error, text)
        };
        let dead = (400, "invalid_grant", "xai needs a login: keepalive login xai".to_owned());
        assert_eq!(told(OutcomeKind::NeedsLogin), dead);
        for kind in [
            OutcomeKind::Deferred,
            OutcomeKind::InDoubt,
            OutcomeKind::ConfigError,
            OutcomeKind::StoreUnavailable,
            OutcomeKind::Fresh,
        ] {
            assert_eq!(told(kind), (503, "temporarily_unavailable", "xai: why".to_owned()), "{kind}");
        }
    }

    #[test]
    fn id_token_has_three_parts_with_claims() {
        assert!(is_jwt("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1In0.c2ln"));
        for none in ["", "a.b.c", "eyJh.eyJzdWIiOiJ1In0.c.d.e", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1In0."] {
            assert!(!is_jwt(none), "{none}");
        }
    }
}
