//! How a person signs in: the authorization code with PKCE by a loopback redirect or by pasting, or the device flow.
//! The resulting credential is stored by [`crate::engine::new_credential`].

pub mod authorization_request;
pub mod device_flow;
pub mod login_events;
pub mod loopback;
pub mod redirect_uri;
pub mod token_client;

use serde_json::Value;

use crate::clock::Moment;
use crate::credential::error_response::ErrorResponse;
use crate::credential::jwt::unverified_claims;
use crate::credential::server_text::printable;
use crate::credential::token_response;
use crate::credential::token_response::{ParsedResponse, TokenResponse};
use crate::credential::{Binding, Credential};
use crate::engine::new_credential;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::{ClientAuth, Provider};
use crate::provider::{PreparedProvider, RawResponse, classify};

/// Why a sign-in brought no credential. The store is unchanged.
#[derive(Debug)]
pub enum SignInError {
    /// The provider refuses the client. The hint names the keys of its section.
    Client(Failure),
    /// The configuration must change.
    Config(Failure),
    /// The network or the server cannot be had now.
    Unreachable(Failure),
    /// The server or the person said no, or the answer cannot be trusted.
    Refused(Failure),
    /// It took too long, or the person gave up.
    Abandoned(Failure),
}

/// How the token endpoint responded to a code.
#[derive(Debug)]
pub enum GrantResponse {
    Granted(Box<TokenResponse>),
    Denied(ErrorResponse),
}

/// Reads the token endpoint's response to a code or to a poll.
pub fn parse_grant_response(answer: &RawResponse) -> Result<GrantResponse, SignInError> {
    match token_response::parse_response(answer.status, &answer.body, answer.is_complete, &answer.sent) {
        ParsedResponse::Granted(granted) => Ok(GrantResponse::Granted(granted)),
        ParsedResponse::Denied(denied) => Ok(GrantResponse::Denied(denied)),
        ParsedResponse::Unreadable => {
            if let Some(host) = answer.redirect_host() {
                let message =
                    format!("the server returned {}, a redirect to {host}, which is not followed", answer.status);
                let hint = "a token goes only to the endpoint that is configured: check issuer or token_endpoint";
                return Err(SignInError::Config(Failure::new(ErrorKind::Server, message).with_hint(hint)));
            }
            let message = format!("the server returned {} without a token", answer.status);
            Err(SignInError::Unreachable(Failure::new(ErrorKind::Server, message).with_hint("try again later")))
        }
    }
}

/// The error for a denial that no flow expects.
pub fn denied_error(denied: &ErrorResponse, prepared: &PreparedProvider) -> SignInError {
    let provider = &prepared.provider;
    let reason = denied.description.as_ref().map_or(String::new(), |d| format!(": {d}"));
    let message = format!("{} returned {}", provider.name, denied.shown());
    let failure = Failure::new(ErrorKind::of_provider(&denied.code), message);
    let section = format!("[provider.{}]", provider.name);
    let client = match provider.client_auth {
        ClientAuth::PrivateKeyJwt => "client_id, client_auth, client_key, client_key_id and assertion_audience",
        ClientAuth::None
        | ClientAuth::ClientSecretBasic
        | ClientAuth::ClientSecretBasicRaw
        | ClientAuth::ClientSecretPost => "client_id, client_auth and client_secret",
    };
    let is_of_client = provider.client_codes.iter().any(|code| code.eq_ignore_ascii_case(&denied.code));
    let client_hint = || format!("check {client} in {section}{}", prepared.encoding_hint());
    match denied.code.to_ascii_lowercase().as_str() {
        code if is_of_client => {
            let message = format!("{} rejects the client: {code}{reason}", provider.name);
            let failure = Failure::new(ErrorKind::of_provider(code), message);
            SignInError::Client(failure.with_hint(client_hint()))
        }
        "invalid_client" | "unauthorized_client" | "unsupported_grant_type" | "unsupported_response_type" => {
            SignInError::Client(failure.with_hint(client_hint()))
        }
        "invalid_scope" => SignInError::Config(failure.with_hint(format!("check scopes in {section}"))),
        // Some servers refuse a request without scopes like this, and do not say why.
        "access_denied" if provider.scopes.is_empty() => SignInError::Refused(failure.with_hint(format!(
            "no scopes were requested; if you did not refuse it yourself, add --scope, or scopes = [\"openid\", \
             \"offline_access\"] in {section}"
        ))),
        "access_denied" => SignInError::Refused(failure.with_hint(format!(
            "if you did not refuse it yourself, check scopes in {section}; requested: {}",
            provider.scopes.join(" ")
        ))),
        "server_error" | "temporarily_unavailable" => SignInError::Unreachable(failure.with_hint("try again later")),
        _ if classify::refuses_client(denied) => SignInError::Client(failure.with_hint(client_hint())),
        _ => SignInError::Refused(failure.with_hint("sign in again")),
    }
}

/// The account that signed in, by the ID token. Its signature is not checked: it came from the token endpoint itself
/// (OpenID Connect Core §3.1.3.7), and the name is only shown.
pub fn account_name(granted: &TokenResponse) -> Option<String> {
    let claims = unverified_claims(granted.id_token.as_ref()?.expose())?;
    let text = |name: &&str| claims.get(*name).and_then(Value::as_str).filter(|t| !t.is_empty());
    ["email", "preferred_username", "name", "sub"].iter().find_map(text).map(printable)
}

/// The credential that a response to a request made at `asked` grants.
pub fn credential(
    granted: TokenResponse,
    provider: &Provider,
    binding: Binding,
    asked: &Moment,
) -> Result<Credential, SignInError> {
    let validity = granted.expiry.validity_of_response(asked, provider.lifetime_bounds());
    new_credential::build_credential(granted, binding, validity).ok_or_else(|| {
        let failure = Failure::new(ErrorKind::NoRefreshToken, format!("{} issued no refresh token", provider.name));
        let hint = if provider.scopes.iter().any(|scope| scope == "offline_access") {
            "allow refresh tokens in the client's settings there; some servers need prompt=consent in the query of \
             authorization_endpoint"
                .into()
        } else {
            let requested = if provider.scopes.is_empty() { "none".into() } else { provider.scopes.join(" ") };
            format!(
                "allow refresh tokens in the client's settings there; requested scopes: {requested}; if one for refresh tokens is \
                 lacking, such as offline_access, add it with --scope, or to scopes in [provider.{}]",
                provider.name
            )
        };
        SignInError::Config(failure.with_hint(hint))
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::credential::secret::AccessToken;

    #[test]
    fn redirect_of_the_token_endpoint_is_named_by_its_host() {
        let told = |location: Option<&str>| {
            let location = location.map(str::to_owned);
            match parse_grant_response(&RawResponse {
                status: 307,
                location,
                is_complete: true,
                ..RawResponse::empty()
            }) {
                Err(SignInError::Config(failure)) => failure.message,
                other => panic!("{other:?}"),
            }
        };
        let expected = |host: &str| format!("the server returned 307, a redirect to {host}, which is not followed");
        assert_eq!(told(Some("https://elsewhere.example/token?code=x")), expected("elsewhere.example"));
        assert_eq!((told(Some("/token/")), told(None)), (expected("another path"), expected("another path")));
    }

    #[test]
    fn account_name_prefers_email_over_subject() {
        let name = |claims: &str| {
            let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
            account_name(&TokenResponse { id_token: AccessToken::new(token), ..TokenResponse::default() })
        };
        assert_eq!(name(r#"{"sub":"17","email":"ada@acme.example"}"#).as_deref(), Some("ada@acme.example"));
        assert_eq!(name(r#"{"sub":"17","email":""}"#).as_deref(), Some("17"));
        assert_eq!(name(r#"{"name":"a\u001b[2Jb"}"#).as_deref(), Some("a [2Jb"));
        assert_eq!(name("{}"), None);
        assert_eq!(account_name(&TokenResponse::default()), None);
    }
}
