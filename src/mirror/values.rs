//! The values that a mirror can have, of a credential without its refresh token. (pure)

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;
use crate::credential::external::AccountIdentity;
use crate::credential::secret::AccessToken;
use crate::credential::{Generation, Snapshot};
use crate::profile::Profile;
use crate::profile::mirror::MirrorValue;

/// What is known of a credential for other programs.
#[derive(Debug)]
pub(super) struct Values {
    access: AccessToken,
    id_token: Option<AccessToken>,
    token_type: String,
    expires_at: Timestamp,
    obtained_at: Timestamp,
    now: Timestamp,
    account: Option<String>,
    scope: Option<String>,
    pub(super) generation: Generation,
    profile: String,
}

impl Values {
    /// `identity`: what the store that the credential came from says of its account. `None`: there is no access token.
    pub(super) fn of(
        snapshot: &Snapshot,
        identity: AccountIdentity,
        profile: &Profile,
        now: Timestamp,
    ) -> Option<Self> {
        let grant = &snapshot.grant;
        let (access, validity) = (grant.access.clone()?, grant.validity.as_ref()?);
        let told = |token: &AccessToken| AccountIdentity::from_jwt(token);
        let of_id = grant.id_token.as_ref().map(told).unwrap_or_default();
        let account = of_id.merged_with(told(&access)).merged_with(identity).account;
        let requested = || Some(profile.provider.scopes.join(" ")).filter(|scopes| !scopes.is_empty());
        Some(Self {
            id_token: grant.id_token.clone(),
            token_type: Some(grant.token_type.clone())
                .filter(|kind| !kind.is_empty())
                .unwrap_or_else(|| "Bearer".into()),
            expires_at: validity.expires_at(),
            obtained_at: validity.obtained.wall,
            now,
            account,
            scope: grant.scope.clone().or_else(requested),
            generation: snapshot.generation,
            profile: profile.name.to_string(),
            access,
        })
    }

    /// As a member of a JSON document; `None` if it is not known.
    pub(super) fn json(&self, value: MirrorValue) -> Option<Value> {
        Some(match value {
            MirrorValue::AccessToken => json!(self.access.expose()),
            MirrorValue::IdToken => json!(self.id_token.as_ref()?.expose()),
            MirrorValue::TokenType => json!(self.token_type),
            MirrorValue::ExpiresAt => json!(self.expires_at.to_string()),
            MirrorValue::ExpiresAtUnix => json!(self.expires_at.as_millis() / 1000),
            MirrorValue::ExpiresAtUnixMs => json!(self.expires_at.as_millis()),
            MirrorValue::ExpiresIn => json!(self.expires_in().as_secs()),
            MirrorValue::ObtainedAt => json!(self.obtained_at.to_string()),
            MirrorValue::Account => json!(self.account.as_ref()?),
            MirrorValue::Generation => json!(self.generation),
            MirrorValue::Profile => json!(self.profile),
            MirrorValue::Scope => json!(self.scope.as_ref()?),
            MirrorValue::Scopes => json!(self.scope.as_ref()?.split_whitespace().collect::<Vec<_>>()),
        })
    }

    /// As the content of a file; a list has its items separated by spaces.
    pub(super) fn text(&self, value: MirrorValue) -> Option<String> {
        Some(match value {
            MirrorValue::Scopes => self.scope.clone()?,
            other => match self.json(other)? {
                Value::String(text) => text,
                number => number.to_string(),
            },
        })
    }

    pub(super) fn access(&self) -> &str {
        self.access.expose()
    }

    pub(super) fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// What is left of the access token, rounded down.
    pub(super) fn expires_in(&self) -> Duration {
        self.expires_at.since(self.now)
    }
}

/// Tells a token or a content again without holding it.
pub(super) fn mark(content: &[u8]) -> String {
    let digest = Sha256::new().chain_update(b"keepalive mirror\0").chain_update(content).finalize();
    hex::encode(&digest[..16])
}

/// Whether a refresh token stands for a profile of keepalive, and is none of a provider.
pub(super) fn is_handle(token: &str) -> bool {
    token.trim_start().starts_with("kah_")
}

/// Values for the tests of what is made of them.
#[cfg(test)]
pub(super) mod samples {
    use super::*;

    pub(in crate::mirror) fn values() -> Values {
        Values {
            access: AccessToken::new("at").unwrap(),
            id_token: None,
            token_type: "Bearer".into(),
            expires_at: Timestamp::from_secs(2000),
            obtained_at: Timestamp::from_secs(1000),
            now: Timestamp::from_secs(1000),
            account: Some("acct-1".into()),
            scope: None,
            generation: Generation::FIRST,
            profile: "demo".into(),
        }
    }
}
