//! The authorization code: from what the redirect or a person brought to tokens.

use super::authorization::{Attempt, BadRedirect};
use super::{Said, SignInError, denied, read};
use crate::clock::{Clock, Moment};
use crate::credential::response::Granted;
use crate::credential::secret::OneTime;
use crate::outcome::{ErrorKind, Failure};
use crate::provider::Prepared;
use crate::provider::signin::{SignInServer, Sites};
use crate::provider::wire::Ask;

/// The server that is signed in to, and all that is known of it.
pub struct Counter<'a> {
    pub server: &'a dyn SignInServer,
    pub prepared: &'a Prepared,
    pub sites: &'a Sites,
    pub clock: &'a dyn Clock,
}

/// Tokens, and when they were asked for.
#[derive(Debug)]
pub struct Signed {
    pub granted: Box<Granted>,
    pub asked: Moment,
}

impl Counter<'_> {
    /// Exchanges the code, once: a code that was presented is spent whatever comes back.
    pub fn redeem(&self, attempt: &Attempt, code: &OneTime) -> Result<Signed, SignInError> {
        let asked = self.clock.now();
        let ask = Ask::Code {
            code,
            verifier: &attempt.verifier,
            redirect_uri: attempt.redirect_uri.as_str(),
            state: &attempt.state,
        };
        let answer = self.server.ask(self.prepared, &self.prepared.token_endpoint, ask).map_err(|why| {
            let message = format!("cannot exchange the code at {}: {why}", self.prepared.token_endpoint);
            SignInError::Unreachable(
                Failure::new(ErrorKind::Network, message).with_hint("nothing was changed; sign in again"),
            )
        })?;
        match read(&answer)? {
            Said::Granted(granted) => Ok(Signed { granted, asked }),
            Said::Denied(d) => Err(denied(&d, &self.prepared.provider)),
        }
    }

    /// What to tell of a redirect that brought no code.
    pub fn explain(&self, bad: BadRedirect) -> SignInError {
        let refused = |kind: ErrorKind, message: String| {
            SignInError::Refused(Failure::new(kind, message).with_hint("nothing was changed; sign in again"))
        };
        match bad {
            BadRedirect::State => refused(ErrorKind::State, "the redirect belongs to another login".into()),
            BadRedirect::Issuer(iss) => {
                let expected = self.sites.issuer.as_deref().unwrap_or("the provider");
                refused(ErrorKind::Issuer, format!("the redirect comes from {iss}, not from {expected} (RFC 9207)"))
            }
            BadRedirect::Unreadable(why) => refused(ErrorKind::Redirect, format!("the redirect cannot be read: {why}")),
            BadRedirect::Denied(d) => denied(&d, &self.prepared.provider),
        }
    }
}
