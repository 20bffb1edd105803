//! Exchanges the authorization code from the redirect, or pasted by a person, for tokens.

use crate::clock::{Clock, Moment};
use crate::credential::secret::OneTimeSecret;
use crate::credential::token_response::TokenResponse;
use crate::outcome::{ErrorKind, Failure};
use crate::provider::PreparedProvider;
use crate::provider::request_encoding::AuthServerRequest;
use crate::provider::sign_in_server::{SignInEndpoints, SignInServer};
use crate::signin::authorization_request::{AuthorizationRequest, RedirectError};
use crate::signin::{GrantResponse, SignInError, denied_error, parse_grant_response};

/// The server of this sign-in, and what is known of it.
pub struct TokenClient<'a> {
    pub server: &'a dyn SignInServer,
    pub prepared: &'a PreparedProvider,
    pub endpoints: &'a SignInEndpoints,
    pub clock: &'a dyn Clock,
}

/// Tokens, and when they were requested.
#[derive(Debug)]
pub struct IssuedTokens {
    pub response: Box<TokenResponse>,
    pub requested_at: Moment,
}

impl TokenClient<'_> {
    /// Exchanges the code, once. A code that was presented is used up, whatever the response is.
    pub fn redeem_code(
        &self,
        attempt: &AuthorizationRequest,
        code: &OneTimeSecret,
    ) -> Result<IssuedTokens, SignInError> {
        let asked = self.clock.now();
        let ask = AuthServerRequest::AuthorizationCode {
            code,
            verifier: &attempt.verifier,
            redirect_uri: attempt.redirect_uri.as_str(),
            state: &attempt.state,
        };
        let answer = self.server.request(self.prepared, &self.prepared.token_endpoint, ask).map_err(|why| {
            let message = format!("cannot exchange the code at {}: {why}", self.prepared.token_endpoint);
            SignInError::Unreachable(Failure::new(ErrorKind::Network, message).with_hint("sign in again"))
        })?;
        match parse_grant_response(&answer)? {
            GrantResponse::Granted(granted) => Ok(IssuedTokens { response: granted, requested_at: asked }),
            GrantResponse::Denied(d) => Err(denied_error(&d, self.prepared)),
        }
    }

    /// The error for a redirect that brought no code.
    pub fn redirect_failure(&self, bad: RedirectError) -> SignInError {
        let refused = |kind: ErrorKind, message: String| {
            SignInError::Refused(Failure::new(kind, message).with_hint("sign in again"))
        };
        match bad {
            RedirectError::StateMismatch => refused(ErrorKind::State, "the redirect belongs to another login".into()),
            RedirectError::IssuerMismatch(iss) => {
                let expected = self.endpoints.issuer.as_deref().unwrap_or("the provider");
                refused(ErrorKind::Issuer, format!("the redirect comes from {iss}, not from {expected} (RFC 9207)"))
            }
            RedirectError::Unreadable(why) => {
                refused(ErrorKind::Redirect, format!("the redirect cannot be read: {why}"))
            }
            RedirectError::Denied(d) => denied_error(&d, self.prepared),
        }
    }
}
