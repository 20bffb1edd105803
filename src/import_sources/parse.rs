//! How a tool's store writes a credential: the names of its members and the units of its times. (pure)

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::credential::external::{AccountIdentity, ExternalCredential};
use crate::credential::jwt::unverified_claims;
use crate::credential::secret::{AccessToken, RefreshToken};
use crate::credential::server_text::printable;
use crate::credential::token_response::{ExpiryClaims, TokenResponse};
use crate::import_sources::ToolStoreError;

/// Names of members; an empty name means that the store has no such member.
pub struct CredentialFormat {
    pub access: &'static str,
    pub refresh: &'static str,
    pub id_token: &'static str,
    pub token_type: &'static str,
    /// A text, or a list of texts.
    pub scope: &'static str,
    /// When the access token ends. If the store does not say, the token's own JWT does.
    pub expires: (&'static str, TimeFormat),
    /// When the refresh token ends.
    pub login_by: (&'static str, TimeFormat),
    pub written_at: (&'static str, TimeFormat),
    pub subject: &'static str,
    pub account: &'static str,
    pub email: &'static str,
    pub client: &'static str,
    pub issuer: &'static str,
}

/// How an instant is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    Millis,
    Rfc3339,
}

const DEFAULT_FORMAT: CredentialFormat = CredentialFormat {
    access: "access_token",
    refresh: "refresh_token",
    id_token: "id_token",
    token_type: "token_type",
    scope: "scope",
    expires: ("", TimeFormat::Millis),
    login_by: ("", TimeFormat::Millis),
    written_at: ("", TimeFormat::Millis),
    subject: "",
    account: "",
    email: "",
    client: "",
    issuer: "",
};

/// `tokens` of Codex; the time of the last refresh stands beside it.
pub const CODEX: CredentialFormat = CredentialFormat { account: "account_id", ..DEFAULT_FORMAT };

/// `claudeAiOauth` of Claude Code. It does not name the account.
pub const CLAUDE: CredentialFormat = CredentialFormat {
    access: "accessToken",
    refresh: "refreshToken",
    scope: "scopes",
    expires: ("expiresAt", TimeFormat::Millis),
    login_by: ("refreshTokenExpiresAt", TimeFormat::Millis),
    ..DEFAULT_FORMAT
};

/// One entry of Grok's map.
pub const GROK: CredentialFormat = CredentialFormat {
    access: "key",
    expires: ("expires_at", TimeFormat::Rfc3339),
    subject: "user_id",
    // A user has several accounts: teams, and their own.
    account: "principal_id",
    email: "email",
    client: "oidc_client_id",
    issuer: "oidc_issuer",
    ..DEFAULT_FORMAT
};

/// The whole file of the Gemini CLI.
pub const GEMINI: CredentialFormat =
    CredentialFormat { expires: ("expiry_date", TimeFormat::Millis), ..DEFAULT_FORMAT };

/// A profile of type `oauth` in OpenClaw.
pub const OPENCLAW: CredentialFormat = CredentialFormat {
    access: "access",
    refresh: "refresh",
    id_token: "idToken",
    expires: ("expires", TimeFormat::Millis),
    account: "accountId",
    email: "email",
    client: "clientId",
    issuer: "issuer",
    ..DEFAULT_FORMAT
};

/// An account of oidc-agent, as `oidc-gen --print` shows it: no access token is kept.
pub const OIDC_AGENT: CredentialFormat =
    CredentialFormat { client: "client_id", issuer: "issuer_url", ..DEFAULT_FORMAT };

impl CredentialFormat {
    /// Reads an object in this format.
    pub fn parse(&self, object: &Map<String, Value>) -> Result<ExternalCredential, ToolStoreError> {
        let text = |name: &str| object.get(name).and_then(Value::as_str).filter(|t| !t.trim().is_empty());
        let Some(refresh) = text(self.refresh).and_then(RefreshToken::new) else {
            return Err(ToolStoreError::signed_out(
                "it has no refresh token",
                "sign in with that tool, or use keepalive login",
            ));
        };
        let told = |name: &str| text(name).map(printable);
        let access = text(self.access).and_then(AccessToken::new);
        let id_token = text(self.id_token).and_then(AccessToken::new);
        let of_token = id_token.as_ref().map(AccountIdentity::from_id_token).unwrap_or_default();
        let identity =
            AccountIdentity { subject: told(self.subject), account: told(self.account), email: told(self.email) };
        let expiry = ExpiryClaims {
            expires_at: parse_instant(object, self.expires),
            jwt_exp: access.as_ref().and_then(|jwt| seconds(unverified_claims(jwt.expose())?.get("exp")?)),
            ..ExpiryClaims::default()
        };
        Ok(ExternalCredential {
            identity: identity.merged_with(of_token),
            client_id: told(self.client).or_else(|| id_token.as_ref().and_then(authorized_party)),
            issuer: told(self.issuer),
            login_by: parse_instant(object, self.login_by),
            written_at: parse_instant(object, self.written_at),
            response: TokenResponse {
                refresh: Some(refresh),
                access,
                token_type: told(self.token_type),
                scope: scope(object.get(self.scope)),
                id_token,
                expiry,
                ..TokenResponse::default()
            },
        })
    }
}

/// An instant in the unit that this store uses, and in no other.
pub fn parse_instant(object: &Map<String, Value>, (name, unit): (&str, TimeFormat)) -> Option<Timestamp> {
    let value = object.get(name)?;
    match unit {
        TimeFormat::Millis => value.as_f64().filter(|ms| *ms > 0.0).map(|ms| Timestamp::from_millis(ms as i64)),
        TimeFormat::Rfc3339 => value.as_str().and_then(Timestamp::parse_rfc3339),
    }
}

fn seconds(value: &Value) -> Option<Timestamp> {
    value.as_i64().filter(|secs| *secs > 0).map(Timestamp::from_secs)
}

fn scope(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(printable(text)),
        Value::Array(items) => Some(printable(&items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// The client that an ID token was issued to, if it names exactly one.
fn authorized_party(jwt: &AccessToken) -> Option<String> {
    let claims = unverified_claims(jwt.expose())?;
    let audience = match claims.get("aud")? {
        Value::Array(several) => several.first().filter(|_| several.len() == 1)?.as_str(),
        one => one.as_str(),
    };
    claims.get("azp").and_then(Value::as_str).or(audience).map(printable)
}
