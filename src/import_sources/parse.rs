//! How a tool's store writes a credential: the names of its members. Times are read whatever they are called. (pure)

use serde_json::{Map, Value};

use crate::credential::expiry::{ExpiryClaims, RefreshTokenEnd};
use crate::credential::external::{AccountIdentity, ExternalCredential};
use crate::credential::jwt::unverified_claims;
use crate::credential::secret::{AccessToken, RefreshToken};
use crate::credential::server_text::printable;
use crate::credential::token_response::TokenResponse;
use crate::import_sources::ToolStoreError;

/// Names of members; an empty name means that the store has no such member.
pub(super) struct CredentialFormat {
    pub access: &'static str,
    pub refresh: &'static str,
    pub id_token: &'static str,
    pub token_type: &'static str,
    /// A text, or a list of texts.
    pub scope: &'static str,
    pub subject: &'static str,
    pub account: &'static str,
    pub email: &'static str,
    pub client: &'static str,
    pub issuer: &'static str,
}

const DEFAULT_FORMAT: CredentialFormat = CredentialFormat {
    access: "access_token",
    refresh: "refresh_token",
    id_token: "id_token",
    token_type: "token_type",
    scope: "scope",
    subject: "",
    account: "",
    email: "",
    client: "",
    issuer: "",
};

/// `tokens` of Codex; the time of the last refresh stands beside it.
pub(super) const CODEX: CredentialFormat = CredentialFormat { account: "account_id", ..DEFAULT_FORMAT };

/// `claudeAiOauth` of Claude Code. It does not name the account.
pub(super) const CLAUDE: CredentialFormat =
    CredentialFormat { access: "accessToken", refresh: "refreshToken", scope: "scopes", ..DEFAULT_FORMAT };

/// One entry of Grok's map.
pub(super) const GROK: CredentialFormat = CredentialFormat {
    access: "key",
    subject: "user_id",
    // A user has several accounts: teams, and their own.
    account: "principal_id",
    email: "email",
    client: "oidc_client_id",
    issuer: "oidc_issuer",
    ..DEFAULT_FORMAT
};

/// The whole file of the Gemini CLI.
pub(super) const GEMINI: CredentialFormat = DEFAULT_FORMAT;

/// A profile of type `oauth` in OpenClaw.
pub(super) const OPENCLAW: CredentialFormat = CredentialFormat {
    access: "access",
    refresh: "refresh",
    id_token: "idToken",
    account: "accountId",
    email: "email",
    client: "clientId",
    issuer: "issuer",
    ..DEFAULT_FORMAT
};

/// The names of RFC 6749, with those of the client and the account beside them.
pub(super) const SNAKE_CASE: CredentialFormat =
    CredentialFormat { account: "account_id", email: "email", client: "client_id", ..DEFAULT_FORMAT };

/// A file of mcp-remote.
pub(super) const MCP_REMOTE: CredentialFormat = CredentialFormat { issuer: "issuer", ..SNAKE_CASE };

/// An account of oidc-agent, as `oidc-gen --print` shows it: no access token is kept.
pub(super) const OIDC_AGENT: CredentialFormat =
    CredentialFormat { client: "client_id", issuer: "issuer_url", ..DEFAULT_FORMAT };

/// How the handles begin that stand for a profile in the store of a tool.
const HANDLE_PREFIX: &str = "kah_";

fn is_handle(token: &str) -> bool {
    token.trim_start().starts_with(HANDLE_PREFIX)
}

/// Whether a refresh token is somewhere in an object, in a member or deeper. A handle of ours is none.
pub(super) fn has_refresh_token(members: &Map<String, Value>) -> bool {
    members.iter().any(|(name, value)| match value {
        Value::Null => false,
        Value::String(text) => is_refresh_name(name) && !text.trim().is_empty() && !is_handle(text),
        value => is_refresh_name(name) || has_refresh_token_within(value),
    })
}

/// As [`has_refresh_token`], of a value of any form.
pub(super) fn has_refresh_token_within(value: &Value) -> bool {
    match value {
        Value::Object(members) => has_refresh_token(members),
        Value::Array(items) => items.iter().any(has_refresh_token_within),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn is_refresh_name(name: &str) -> bool {
    let letters = name.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_ascii_lowercase();
    matches!(letters.as_str(), "refresh" | "refreshtoken")
}

impl CredentialFormat {
    /// Whether an object has an access token alone, as a tool's store that another program feeds.
    pub(super) fn is_fed(&self, object: &Map<String, Value>) -> bool {
        let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().trim();
        !text(self.access).is_empty() && !has_refresh_token(object)
    }

    /// As `parse`, of a store that has an access token alone only where another program feeds it.
    pub(super) fn parse_or_fed(&self, object: &Map<String, Value>) -> Result<ExternalCredential, ToolStoreError> {
        if self.is_fed(object) && object.get("auth_type").and_then(Value::as_str) != Some("api_key") {
            return Err(ToolStoreError::fed());
        }
        self.parse(object)
    }

    /// Reads an object in this format.
    pub(super) fn parse(&self, object: &Map<String, Value>) -> Result<ExternalCredential, ToolStoreError> {
        let text = |name: &str| object.get(name).and_then(Value::as_str).filter(|t| !t.trim().is_empty());
        if text(self.refresh).is_some_and(is_handle) {
            return Err(ToolStoreError::fed());
        }
        let Some(refresh) = text(self.refresh).and_then(RefreshToken::new) else {
            if object.get(self.refresh).is_some_and(|told| !told.is_null() && !told.as_str().is_some_and(str::is_empty))
            {
                return Err(ToolStoreError::new("its refresh token cannot be read", "look at its refresh token"));
            }
            if has_refresh_token(object) {
                return Err(ToolStoreError::unknown_form());
            }
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
        Ok(ExternalCredential {
            identity: identity.merged_with(of_token),
            client_id: told(self.client).or_else(|| id_token.as_ref().and_then(authorized_party)),
            issuer: told(self.issuer),
            response: TokenResponse {
                refresh: Some(refresh),
                expiry: ExpiryClaims::of_members(object, text(self.access)),
                refresh_end: RefreshTokenEnd::of_members(object),
                access,
                token_type: told(self.token_type),
                scope: scope(object.get(self.scope)),
                id_token,
                ..TokenResponse::default()
            },
            ..ExternalCredential::default()
        })
    }
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
