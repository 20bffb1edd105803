//! Token revocation (RFC 7009): a refresh token on its way to be ended, and what the server's answer to that means.

use url::Url;

use super::classify::{self, Class};
use super::fence::{Crossing, Fence};
use super::http::{HttpEndpoint, arrive, fenced};
use super::signin::SignInServer;
use super::{Gate, GateError, PrepareError, Prepared, RawAnswer, TokenEndpoint, wire};
use crate::credential::encoding;
use crate::credential::response::{self, Denied, Reply};
use crate::guard::LockedCredential;
use crate::profile::Provider;

/// The side of an authorization server that a person signs out at.
pub trait RevocationServer: TokenEndpoint + SignInServer {
    /// The revocation endpoint, as configured or as discovered. `None`: the provider has none.
    fn revocation_site(&self, provider: &Provider) -> Result<Option<Url>, PrepareError>;

    /// Sends a refresh token to be revoked, once; there is no way back to it. `gate` runs after the connection stands and
    /// before the first byte of the body.
    fn revoke(&self, prepared: &Prepared, url: &Url, held: LockedCredential<'_>, gate: Gate) -> Revoking;
}

/// How sending it ended.
#[derive(Debug)]
pub enum Revoking {
    /// The token certainly never left. `may_have_mark`: what the gate journals may be there, and must be erased.
    Unsent {
        may_have_mark: bool,
        why: Unsent,
    },
    Answered(RawAnswer),
    /// It was sent, and no whole answer came.
    Lost(String),
}

/// Why it was not sent.
#[derive(Debug)]
pub enum Unsent {
    Network(String),
    Gate(GateError),
}

/// What an answer says of the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Revoked,
    /// It was dead before.
    Dead,
    /// This server does not revoke such a token; asking again is no use.
    Refused,
    /// The provider refuses the client or the request, not the token.
    Client,
    /// Not now.
    Later,
    /// It may be revoked, or not.
    Unknown,
}

/// Judges an answer (RFC 7009 §2.2). Also gives the error code that it names. (pure)
pub fn judge(answer: &RawAnswer, provider: &Provider) -> (Verdict, Option<Denied>) {
    let body = encoding::decode(answer.content_encoding.as_deref(), &answer.body);
    let denied = match body.map(|body| response::read(answer.status, &body.bytes, answer.is_complete)) {
        Ok(Reply::Denied(denied)) => Some(denied),
        Ok(Reply::Granted(_) | Reply::Unreadable) | Err(encoding::TooLarge) => None,
    };
    let is_page = answer.content_type.as_deref().is_some_and(|t| t.contains("html")) && !answer.body.is_empty();
    let code = denied.as_ref().map_or("", |d| d.code.as_str());
    let verdict = match (answer.status, code) {
        // Somebody else than the server can answer with a page.
        (200..=299, "") if is_page => Verdict::Unknown,
        (200..=299, "") => Verdict::Revoked,
        (503, _) => Verdict::Later,
        (_, "unsupported_token_type") => Verdict::Refused,
        (200..=299 | 400, "invalid_token") => Verdict::Dead,
        (status, _) => match classify::classify(status, denied.as_ref(), provider) {
            Class::Dead => Verdict::Dead,
            Class::Throttled => Verdict::Later,
            Class::Client => Verdict::Client,
            // Nobody is there: the address is wrong, or the endpoint has moved.
            Class::Unclassified if matches!(status, 404 | 405 | 410) => Verdict::Client,
            Class::Unclassified => Verdict::Refused,
            Class::Ambiguous => Verdict::Unknown,
        },
    };
    (verdict, denied)
}

impl RevocationServer for HttpEndpoint {
    fn revocation_site(&self, provider: &Provider) -> Result<Option<Url>, PrepareError> {
        if provider.revocation_endpoint.is_some() {
            return Ok(provider.revocation_endpoint.clone());
        }
        let Some(issuer) = &provider.issuer else { return Ok(None) };
        let metadata = self.discover(provider, issuer)?;
        Ok(metadata.safe(metadata.revocation_endpoint.as_ref()))
    }

    fn revoke(&self, prepared: &Prepared, url: &Url, held: LockedCredential<'_>, gate: Gate) -> Revoking {
        let client = match self.client(&prepared.provider, url) {
            Ok(client) => client,
            Err(f) => return Revoking::Unsent { may_have_mark: false, why: Unsent::Network(f.message) },
        };
        let Ok(proof) = prepared.prove(self.now()) else {
            let why = Unsent::Gate(GateError::Refused("cannot sign the client assertion"));
            return Revoking::Unsent { may_have_mark: false, why };
        };
        let (token, _spent) = held.spend();
        let wire = wire::revocation_request(&prepared.provider, &proof, &token);
        let fence = Fence::new(gate);
        let request = fenced(&client, url, &prepared.provider, &wire, &fence);
        let arrival = self.runtime().block_on(arrive(request, &fence, &prepared.provider));
        match (fence.settle(), arrival) {
            (Crossing::Sent, Ok(answer)) if answer.is_complete => Revoking::Answered(answer),
            (Crossing::Sent, Ok(_)) => Revoking::Lost("the response was cut off".into()),
            (Crossing::Sent, Err(why)) => Revoking::Lost(why),
            (Crossing::Withheld { may_have_intent, gate, .. }, arrival) => {
                let why = match (arrival, gate) {
                    (_, Some(error)) => Unsent::Gate(error),
                    (Ok(answer), None) => {
                        Unsent::Network(format!("the server returned {} before it got the request", answer.status))
                    }
                    (Err(why), None) => Unsent::Network(why),
                };
                Revoking::Unsent { may_have_mark: may_have_intent, why }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn verdict(status: u16, content_type: &str, body: &str) -> Verdict {
        let answer = RawAnswer {
            status,
            content_type: Some(content_type.into()),
            body: Zeroizing::new(body.into()),
            is_complete: true,
            ..RawAnswer::nothing()
        };
        judge(&answer, &Provider::named("acme")).0
    }

    #[test]
    fn an_answer_without_an_error_is_a_revocation_whatever_is_in_it() {
        for (status, kind, body) in [
            (200, "", ""),
            (200, "application/json", "{}"),
            (204, "", ""),
            (200, "text/plain", "OK"),
            (200, "text/html", ""),
            (200, "application/json", r#"{"ok":true,"revoked":true}"#),
        ] {
            assert_eq!(verdict(status, kind, body), Verdict::Revoked, "{status} {kind} {body}");
        }
        assert_eq!(verdict(200, "text/html", "<h1>Welcome to the hotel</h1>"), Verdict::Unknown);
    }

    #[test]
    fn what_is_refused_is_told_apart_from_what_may_work_later() {
        let code = |status, code: &str| verdict(status, "application/json", &format!(r#"{{"error":"{code}"}}"#));
        assert_eq!(code(400, "unsupported_token_type"), Verdict::Refused);
        assert_eq!(code(503, "unsupported_token_type"), Verdict::Later);
        assert_eq!(code(400, "invalid_token"), Verdict::Dead);
        assert_eq!(code(400, "invalid_grant"), Verdict::Dead);
        assert_eq!(code(401, "invalid_client"), Verdict::Client);
        assert_eq!(code(200, "invalid_client"), Verdict::Client);
        assert_eq!(code(429, "slow_down"), Verdict::Later);
        assert_eq!(code(500, "invalid_token"), Verdict::Unknown);
        for (status, meant) in [
            (302, Verdict::Client),
            (400, Verdict::Refused),
            (403, Verdict::Refused),
            (404, Verdict::Client),
            (405, Verdict::Client),
            (429, Verdict::Later),
            (500, Verdict::Unknown),
            (502, Verdict::Unknown),
        ] {
            assert_eq!(verdict(status, "", ""), meant, "{status}");
        }
    }
}
