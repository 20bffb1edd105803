//! What a caller asks for, and what it gets.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::error::TokenError;
use crate::access::obtain::FoundToken;
use crate::clock::Timestamp;
use crate::credential::Generation;
use crate::credential::secret::AccessToken;
use crate::outcome::{self, ErrorKind};
use crate::profile::ProfileName;

/// Which token is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Demand {
    /// One that is valid for at least this time from now. A time that no token of its provider lives for is cut to half of
    /// their lifetime.
    ValidFor(Duration),
    /// One after this generation, whose token an API has rejected: with status 401, not with 403. At most one refresh is
    /// made for it, however many callers say so; the next one on such a word not before a minute, and then ever more rarely
    /// up to an hour. Where that forbids a refresh, the token of the same generation is returned.
    Rejected(Generation),
}

/// An access token (RFC 6749, section 1.4), and what is known of it. `Debug` does not show the secret.
#[derive(Clone)]
#[non_exhaustive]
pub struct Token {
    /// The secret, for `Authorization: Bearer` (RFC 6750). Each copy is wiped from memory when it is dropped.
    pub access_token: AccessToken,
    /// Grows by one with every credential of the profile. It names this token in [`Demand::Rejected`] and
    /// [`Keeper::changed`](crate::Keeper::changed).
    pub generation: Generation,
    token_type: String,
    scope: Option<String>,
    expires_at: Option<Timestamp>,
    warnings: Vec<String>,
}

impl Token {
    pub(super) fn new(profile: &ProfileName, found: FoundToken) -> Result<Self, TokenError> {
        let FoundToken { token, warnings, .. } = found;
        let access_token = AccessToken::new(token.access_token).ok_or_else(|| {
            let message = format!("{profile}: the access token has a character that no header can carry");
            TokenError::Config(outcome::Failure::new(ErrorKind::AtUnusable, message).into())
        })?;
        Ok(Self {
            access_token,
            generation: token.generation,
            token_type: token.token_type,
            scope: token.scope,
            expires_at: token.expires_at,
            warnings,
        })
    }

    /// How it is used, `Bearer` with nearly every server (RFC 6749, section 7.1).
    pub fn token_type(&self) -> &str {
        &self.token_type
    }

    /// The scopes that were granted, separated by spaces (RFC 6749, section 3.3). `None` if the server did not say.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// When it expires, by the clock of this machine. The server said so, or it is the lifetime that is assumed for its
    /// provider. `None` if that is not known.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at.map(|at| SystemTime::UNIX_EPOCH + at.since_epoch())
    }

    /// What is amiss although there is a token, each for a person: that its refresh fails, that a login is needed before it
    /// expires, that it lives shorter than was asked for.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(generation {}, expires_at {:?})", self.generation, self.expires_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::access_token::TokenOutput;
    use crate::outcome::OutcomeKind;

    fn found(access_token: &str) -> FoundToken {
        let token = TokenOutput {
            access_token: access_token.into(),
            token_type: "Bearer".into(),
            expires_at: Some(Timestamp::from_secs(1_790_000_000)),
            assumed: false,
            scope: None,
            generation: Generation::new(7),
            id_token: None,
        };
        FoundToken { token, outcome: OutcomeKind::Fresh, warnings: Vec::new() }
    }

    #[test]
    fn token_shows_no_secret_and_says_when_it_ends() {
        let name: ProfileName = "work".parse().unwrap();
        let token = Token::new(&name, found("canary")).unwrap();
        assert!(!format!("{token:?}").contains("canary") && token.access_token.expose() == "canary");
        assert_eq!(token.expires_at(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)));
        assert!(token.warnings().is_empty());
    }

    #[test]
    fn token_that_no_header_carries_is_refused() {
        let refused = Token::new(&"work".parse().unwrap(), found("a\r\nb")).unwrap_err();
        assert!(matches!(refused, TokenError::Config(failure) if failure.kind() == "at_unusable"));
    }
}
