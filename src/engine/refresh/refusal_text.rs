//! What a person is told of a response without tokens, and what to do about it. (pure)

use crate::credential::error_response::{ErrorResponse, UNKNOWN_ERROR};
use crate::outcome::{ErrorKind, Failure};
use crate::profile::{ClientAuth, Profile};
use crate::provider::classify::{ResponseClass, Verdict};

/// A response without tokens, and the verdict on it.
pub(super) struct RefusalText<'a> {
    pub profile: &'a Profile,
    pub status: u16,
    pub error: Option<&'a ErrorResponse>,
    pub verdict: &'a Verdict,
}

impl RefusalText<'_> {
    /// Status and words of the server: `returned 400 invalid_grant: gone`.
    pub(super) fn returned(&self) -> String {
        let status = self.status;
        match (self.error, &self.verdict.foreign_body) {
            (Some(error), _) => format!("returned {status} {}", error.shown()),
            (None, _) if is_redirect(status) => format!("returned {status}, a redirect, which is not followed"),
            (None, Some(body)) if body.is_from_elsewhere() => {
                format!("returned {status} and {}, which no token endpoint writes", body.name())
            }
            (None, Some(body)) if matches!(status, 200..=428 | 430..=499) => {
                format!("returned {status} and {}", body.name())
            }
            (None, _) => format!("returned {status}"),
        }
    }

    pub(super) fn said(&self) -> String {
        format!("{} {}", self.profile.provider.name, self.returned())
    }

    fn section(&self) -> String {
        format!("[provider.{}]", self.profile.provider.name)
    }

    /// The failure of a token that is dead, or that needs a person.
    pub(super) fn rejected(&self) -> Failure {
        let provider = &self.profile.provider.name;
        let what = match self.verdict.class {
            ResponseClass::LoginRequired => format!("{provider} wants a new sign-in"),
            _ => format!("{provider} no longer accepts this login"),
        };
        let failure = Failure::new(self.rejection_kind(), self.said());
        let name = &self.profile.name;
        let login = format!("{what}; sign in again: keepalive login {name}");
        let hint = if self.verdict.is_conditional {
            format!(
                "{provider} names a condition that may pass (a policy, a network, a device, hours); once that has changed: keepalive \
                 refresh --force -p {name}; otherwise sign in again: keepalive login {name}"
            )
        } else if self.verdict.is_by_history {
            format!(
                "{login}; the same request was accepted before, so the refresh token is taken to be the cause; if the client \
                 was changed at the provider, correct {} instead",
                self.section()
            )
        } else {
            login
        };
        failure.with_hint(hint)
    }

    /// The code if it says what the class says, else the one of RFC 6749.
    fn rejection_kind(&self) -> ErrorKind {
        let code = self.error.map_or(UNKNOWN_ERROR, |error| error.code.as_str());
        let is_code = code != UNKNOWN_ERROR && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        ErrorKind::of_provider(if is_code && !self.verdict.is_by_history { code } else { "invalid_grant" })
    }

    /// The failure of a client that is refused. `encoding_hint` is what its secret may need, or empty.
    pub(super) fn client_refused(&self, encoding_hint: &str) -> Failure {
        let provider = &self.profile.provider;
        let keys = match provider.client_auth {
            ClientAuth::PrivateKeyJwt => "client_id, client_auth, client_key and the endpoint",
            ClientAuth::None
            | ClientAuth::ClientSecretBasic
            | ClientAuth::ClientSecretBasicRaw
            | ClientAuth::ClientSecretPost => "client_id, client_auth, client_secret and the endpoint",
        };
        if is_redirect(self.status) {
            let hint = format!(
                "a token goes only to the endpoint that is configured: check issuer or token_endpoint in {}",
                self.section()
            );
            return Failure::new(ErrorKind::ClientRefused, self.said()).with_hint(hint);
        }
        let hint = format!(
            "check {keys} in {}{encoding_hint}; if they are right, the refresh token may be the cause: keepalive login {}",
            self.section(),
            self.profile.name
        );
        Failure::new(ErrorKind::ClientRefused, self.said()).with_hint(hint)
    }

    /// The failure of a request that was turned away.
    pub(super) fn put_off(&self) -> Failure {
        let kind = match self.verdict.class {
            ResponseClass::Throttled => ErrorKind::Throttled,
            _ => ErrorKind::Refused,
        };
        Failure::new(kind, self.said())
    }

    /// What is known of the refresh token after that. `is_doubtful`: an earlier request may have been processed.
    /// `is_before_body`: the server did not have the token.
    pub(super) fn stands(&self, is_doubtful: bool, is_before_body: bool) -> String {
        match &self.verdict.class {
            _ if is_doubtful => "the outcome of an earlier request is still in doubt".to_owned(),
            _ if is_before_body => "the refresh token is unaffected".to_owned(),
            ResponseClass::Throttled => "the refresh token is unaffected".to_owned(),
            ResponseClass::Conditional => {
                "the server names a condition that may pass (a policy, a network, a device, a time of day, a disabled \
                 account)"
                    .to_owned()
            }
            ResponseClass::NotFromServer => format!(
                "something other than the token endpoint responded, such as a CDN, a proxy or a captive portal; check the \
                 network, and the endpoint in {}",
                self.section()
            ),
            _ => self.unknown_reason(),
        }
    }

    /// A refusal in words that keepalive does not know: whether the token lives is not known.
    fn unknown_reason(&self) -> String {
        let Some(code) = self.error.and_then(specific_code) else {
            return "the server did not say why; the refresh token may be invalid".to_owned();
        };
        let (meaning, key) = match is_about_client(code) {
            true => ("the client is refused", "client_codes"),
            false => ("the refresh token is invalid", "dead_codes"),
        };
        format!(
            "keepalive does not know this refusal; if it means that {meaning}: {key} = [{code:?}] in {}",
            self.section()
        )
    }
}

/// Codes that servers give to every bad request: one in `dead_codes` would end a living token.
const GENERAL_CODES: [&str; 30] = [
    "badrequest",
    "unauthorized",
    "unauthorised",
    "forbidden",
    "accessdenied",
    "permissiondenied",
    "unauthenticated",
    "invalidargument",
    "invalidparameter",
    "invalidparameters",
    "invalidrequesterror",
    "authenticationerror",
    "authenticationfailed",
    "authorizationerror",
    "permissionerror",
    "failedprecondition",
    "notfound",
    "notfounderror",
    "validationerror",
    "validationfailed",
    "notauthorizedexception",
    "accessdeniedexception",
    "badrequestexception",
    "unauthorizedexception",
    "oauthexception",
    "apierror",
    "error",
    "failed",
    "failure",
    "exception",
];

/// The first code that is said of this refusal alone.
fn specific_code(error: &ErrorResponse) -> Option<&str> {
    let is_code = |code: &str| {
        code.contains(|c: char| c.is_alphabetic())
            && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:/".contains(&b))
    };
    let is_general = |code: &str| {
        let letters: String = code.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        letters == "unknownerror" || GENERAL_CODES.contains(&letters.as_str())
    };
    let others = error.further.iter().map(String::as_str).filter(|code| code.contains('_'));
    std::iter::once(error.code.as_str()).chain(others).find(|code| is_code(code) && !is_general(code))
}

fn is_about_client(code: &str) -> bool {
    let code = code.to_ascii_lowercase();
    ["client", "secret", "app"].iter().any(|word| code.contains(word))
}

/// What to configure if a 503 of this provider is known to process nothing; empty for any other reason.
pub(super) fn trust_503_hint(profile: &Profile, why: &str) -> String {
    let is_503 = why.contains("returned 503") && !profile.provider.policy.trust_503;
    match is_503 {
        true => format!(
            "; if a 503 of this server means that nothing was processed: trust_503 = true in [provider.{}]",
            profile.provider.name
        ),
        false => String::new(),
    }
}

fn is_redirect(status: u16) -> bool {
    (300..400).contains(&status)
}
