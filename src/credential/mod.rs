//! A credential and its parts: what is stored, what callers get, and what a token response says.

pub mod build;
pub mod content_coding;
pub mod error_response;
pub mod expiry;
pub mod external;
pub mod freshness;
mod grant_words;
pub mod jwt;
mod lenient_json;
mod member_names;
pub mod redaction;
pub mod refresh_token_candidates;
pub mod secret;
pub mod server_text;
pub mod time_value;
pub mod token_response;
pub mod token_words;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use freshness::Validity;
use secret::{AccessToken, RefreshToken};

/// A number that grows by one with every credential of a profile: by login, import, refresh or adoption. It is no secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(u64);

impl Generation {
    /// Before any credential.
    pub const NONE: Generation = Generation(0);
    /// That of a profile's first credential.
    pub const FIRST: Generation = Generation(1);

    /// A generation that was noted as a number.
    pub const fn new(g: u64) -> Self {
        Self(g)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// That of the credential after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The server and the client that a credential belongs to. A refresh token is never sent anywhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The provider's name in the configuration.
    pub provider: String,
    /// Scheme, host and port of the token endpoint.
    pub origin: String,
    pub client_id: String,
}

/// The newest credential of a profile. It is never printed; it is sealed on disk and published to the keyring.
#[derive(Debug)]
pub struct Credential {
    pub generation: Generation,
    pub binding: Binding,
    pub refresh: RefreshToken,
    pub grant: Grant,
}

/// What a token response granted, without the refresh token.
#[derive(Clone, Debug)]
pub struct Grant {
    /// `None` after an import of a refresh token alone, or when the server sent one that no header can carry.
    pub access: Option<AccessToken>,
    /// `None` exactly if `access` is `None`.
    pub validity: Option<Validity>,
    pub token_type: String,
    pub scope: Option<String>,
    pub id_token: Option<AccessToken>,
    /// When the refresh token itself ends, if the server said so: a login is needed by then.
    pub login_by: Option<Timestamp>,
    /// The server asked for no refresh before this time (`earliest_refresh_at`).
    pub not_before: Option<Timestamp>,
}

/// A credential as a caller may see it: no refresh token.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub generation: Generation,
    pub provider: String,
    pub grant: Grant,
}

impl Credential {
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { generation: self.generation, provider: self.binding.provider.clone(), grant: self.grant.clone() }
    }

    pub fn validity(&self) -> Option<&Validity> {
        self.grant.validity.as_ref()
    }
}

impl Snapshot {
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.grant.validity.as_ref().map(Validity::expires_at)
    }
}
