//! Token revocation (RFC 7009): sends a refresh token to be revoked, and decides what the response means for it.

use url::Url;

use super::classify::{self, Refusal, ResponseClass};
use super::http::HttpEndpoint;
use super::{BeforeSend, ExchangeResult, PrepareError, PreparedProvider, RawResponse, TokenEndpoint};
use crate::credential::content_coding;
use crate::credential::error_response::ErrorResponse;
use crate::credential::token_response::ParsedResponse;
use crate::credential::token_response::parse_response;
use crate::guard::LockedCredential;
use crate::profile::Provider;
use crate::provider::request_encoding;
use crate::provider::sign_in_server::SignInServer;

/// The side of an authorization server that a logout uses.
pub trait RevocationServer: TokenEndpoint + SignInServer {
    /// The revocation endpoint, as configured or as discovered. `None`: the provider has none.
    fn revocation_endpoint(&self, provider: &Provider) -> Result<Option<Url>, PrepareError>;

    /// Sends a refresh token to be revoked, once; the token cannot be restored. `gate` runs after the connection stands
    /// and before the first byte of the body.
    fn revoke<'l>(
        &self,
        prepared: &PreparedProvider,
        url: &Url,
        held: LockedCredential<'l>,
        gate: BeforeSend,
    ) -> ExchangeResult<'l>;
}

/// What a response says about the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevocationResult {
    Revoked,
    /// The token was invalid before.
    AlreadyInvalid,
    /// This server does not revoke such a token; another request would not help.
    Unsupported,
    /// The provider refuses the client or the request, not the token.
    ClientRejected,
    /// The server cannot do it now.
    RetryLater,
    /// The token may have been revoked, or not.
    Unknown,
}

/// Classifies a response (RFC 7009 §2.2). Also returns the error code in it. (pure)
pub fn classify_revocation(answer: &RawResponse, provider: &Provider) -> (RevocationResult, Option<ErrorResponse>) {
    let body = content_coding::decode(answer.content_encoding.as_deref(), &answer.body);
    let body = body.map(|body| body.bytes).unwrap_or_default();
    let denied = match parse_response(answer.status, &body, answer.is_complete, &answer.sent) {
        ParsedResponse::Denied(denied) => Some(denied),
        ParsedResponse::Granted(_) | ParsedResponse::Unreadable => None,
    };
    let content_type = answer.content_type.as_deref();
    let refusal =
        Refusal { status: answer.status, content_type, body: &body, error: denied.as_ref(), was_granted_before: false };
    let is_page = content_type.is_some_and(|t| t.contains("html")) && !answer.body.is_empty();
    let code = denied.as_ref().map_or("", |d| d.code.as_str());
    let verdict = match (answer.status, code) {
        // A page can come from a proxy or a portal instead of the server.
        (200..=299, "") if is_page => RevocationResult::Unknown,
        (200..=299, "") => RevocationResult::Revoked,
        (503, _) => RevocationResult::RetryLater,
        (_, "unsupported_token_type") => RevocationResult::Unsupported,
        (200..=299 | 400, "invalid_token") => RevocationResult::AlreadyInvalid,
        (status, _) => match classify::classify(&refusal, provider).class {
            ResponseClass::TokenRejected => RevocationResult::AlreadyInvalid,
            ResponseClass::Throttled | ResponseClass::Conditional => RevocationResult::RetryLater,
            ResponseClass::ClientRejected => RevocationResult::ClientRejected,
            // There is no such endpoint: the address is wrong, or the endpoint has moved.
            ResponseClass::Unclassified | ResponseClass::NotFromServer if matches!(status, 404 | 405 | 410) => {
                RevocationResult::ClientRejected
            }
            ResponseClass::Unclassified | ResponseClass::NotFromServer | ResponseClass::LoginRequired => {
                RevocationResult::Unsupported
            }
            ResponseClass::Ambiguous => RevocationResult::Unknown,
        },
    };
    (verdict, denied)
}

impl RevocationServer for HttpEndpoint {
    fn revocation_endpoint(&self, provider: &Provider) -> Result<Option<Url>, PrepareError> {
        if provider.revocation_endpoint.is_some() {
            return Ok(provider.revocation_endpoint.clone());
        }
        let Some(issuer) = &provider.issuer else { return Ok(None) };
        let metadata = self.discover(provider, issuer)?;
        Ok(metadata.safe_endpoint(metadata.revocation_endpoint.as_ref()))
    }

    fn revoke<'l>(
        &self,
        prepared: &PreparedProvider,
        url: &Url,
        held: LockedCredential<'l>,
        gate: BeforeSend,
    ) -> ExchangeResult<'l> {
        self.send_refresh_token(prepared, url, held, gate, request_encoding::revocation_request)
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn verdict(status: u16, content_type: &str, body: &str) -> RevocationResult {
        let answer = RawResponse {
            status,
            content_type: Some(content_type.into()),
            body: Zeroizing::new(body.into()),
            is_complete: true,
            ..RawResponse::empty()
        };
        classify_revocation(&answer, &Provider::named("acme")).0
    }

    #[test]
    fn success_without_an_error_confirms_a_revocation() {
        for (status, kind, body) in [
            (200, "", ""),
            (200, "application/json", "{}"),
            (204, "", ""),
            (200, "text/plain", "OK"),
            (200, "text/html", ""),
            (200, "application/json", r#"{"ok":true,"revoked":true}"#),
        ] {
            assert_eq!(verdict(status, kind, body), RevocationResult::Revoked, "{status} {kind} {body}");
        }
        assert_eq!(verdict(200, "text/html", "<h1>Welcome to the hotel</h1>"), RevocationResult::Unknown);
    }

    #[test]
    fn revocation_refusal_differs_from_a_retryable_failure() {
        let code = |status, code: &str| verdict(status, "application/json", &format!(r#"{{"error":"{code}"}}"#));
        assert_eq!(code(400, "unsupported_token_type"), RevocationResult::Unsupported);
        assert_eq!(code(503, "unsupported_token_type"), RevocationResult::RetryLater);
        assert_eq!(code(400, "invalid_token"), RevocationResult::AlreadyInvalid);
        assert_eq!(code(400, "invalid_grant"), RevocationResult::AlreadyInvalid);
        assert_eq!(code(401, "invalid_client"), RevocationResult::ClientRejected);
        assert_eq!(code(200, "invalid_client"), RevocationResult::ClientRejected);
        assert_eq!(code(429, "slow_down"), RevocationResult::RetryLater);
        assert_eq!(code(500, "invalid_token"), RevocationResult::Unknown);
        for (status, meant) in [
            (302, RevocationResult::ClientRejected),
            (400, RevocationResult::Unsupported),
            (403, RevocationResult::Unsupported),
            (404, RevocationResult::ClientRejected),
            (405, RevocationResult::ClientRejected),
            (429, RevocationResult::RetryLater),
            (500, RevocationResult::Unknown),
            (502, RevocationResult::Unknown),
        ] {
            assert_eq!(verdict(status, "", ""), meant, "{status}");
        }
    }
}
