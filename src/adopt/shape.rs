//! How a store writes a credential down: the names of its members and the units of its times, and how that is read. (pure)

use serde_json::{Map, Value};

use super::Trouble;
use crate::clock::Timestamp;
use crate::credential::claims::claims;
use crate::credential::foreign::{Foreign, Identity};
use crate::credential::response::{ExpiryClaims, Granted, printable};
use crate::credential::secret::{AccessToken, RefreshToken};

/// Names of members; an empty one: the store has no such thing.
pub struct Shape {
    pub access: &'static str,
    pub refresh: &'static str,
    pub id_token: &'static str,
    pub token_type: &'static str,
    /// A text, or a list of texts.
    pub scope: &'static str,
    /// When the access token ends. Where there is none, a JWT says so itself.
    pub expires: (&'static str, Unit),
    /// When the refresh token ends.
    pub login_by: (&'static str, Unit),
    pub written: (&'static str, Unit),
    pub subject: &'static str,
    pub account: &'static str,
    pub email: &'static str,
    pub client: &'static str,
    pub issuer: &'static str,
}

/// How an instant is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Millis,
    Rfc3339,
}

const NOTHING: Shape = Shape {
    access: "access_token",
    refresh: "refresh_token",
    id_token: "id_token",
    token_type: "token_type",
    scope: "scope",
    expires: ("", Unit::Millis),
    login_by: ("", Unit::Millis),
    written: ("", Unit::Millis),
    subject: "",
    account: "",
    email: "",
    client: "",
    issuer: "",
};

/// `tokens` of Codex; the time of the last refresh stands beside it.
pub const CODEX: Shape = Shape { account: "account_id", ..NOTHING };

/// `claudeAiOauth` of Claude Code. It does not say whose it is.
pub const CLAUDE: Shape = Shape {
    access: "accessToken",
    refresh: "refreshToken",
    scope: "scopes",
    expires: ("expiresAt", Unit::Millis),
    login_by: ("refreshTokenExpiresAt", Unit::Millis),
    ..NOTHING
};

/// One entry of Grok's map.
pub const GROK: Shape = Shape {
    access: "key",
    expires: ("expires_at", Unit::Rfc3339),
    subject: "user_id",
    // A user has several: teams, and their own.
    account: "principal_id",
    email: "email",
    client: "oidc_client_id",
    issuer: "oidc_issuer",
    ..NOTHING
};

/// The whole file of the Gemini CLI.
pub const GEMINI: Shape = Shape { expires: ("expiry_date", Unit::Millis), ..NOTHING };

/// A profile of type `oauth` in OpenClaw.
pub const OPENCLAW: Shape = Shape {
    access: "access",
    refresh: "refresh",
    id_token: "idToken",
    expires: ("expires", Unit::Millis),
    account: "accountId",
    email: "email",
    client: "clientId",
    issuer: "issuer",
    ..NOTHING
};

/// An account of oidc-agent, as `oidc-gen --print` shows it: no access token is kept.
pub const OIDC_AGENT: Shape = Shape { client: "client_id", issuer: "issuer_url", ..NOTHING };

impl Shape {
    /// Reads an object of this shape.
    pub fn read(&self, object: &Map<String, Value>) -> Result<Foreign, Trouble> {
        let text = |name: &str| object.get(name).and_then(Value::as_str).filter(|t| !t.trim().is_empty());
        let Some(refresh) = text(self.refresh).and_then(RefreshToken::new) else {
            return Err(Trouble::signed_out(
                "it has no refresh token",
                "sign in with that tool, or use keepalive login",
            ));
        };
        let told = |name: &str| text(name).map(printable);
        let access = text(self.access).and_then(AccessToken::new);
        let id_token = text(self.id_token).and_then(AccessToken::new);
        let of_token = id_token.as_ref().map(Identity::of_id_token).unwrap_or_default();
        let identity = Identity { subject: told(self.subject), account: told(self.account), email: told(self.email) };
        let expiry = ExpiryClaims {
            expires_at: instant(object, self.expires),
            jwt_exp: access.as_ref().and_then(|jwt| seconds(claims(jwt.expose())?.get("exp")?)),
            ..ExpiryClaims::default()
        };
        Ok(Foreign {
            identity: identity.or(of_token),
            client_id: told(self.client).or_else(|| id_token.as_ref().and_then(authorized_party)),
            issuer: told(self.issuer),
            login_by: instant(object, self.login_by),
            written: instant(object, self.written),
            granted: Granted {
                refresh: Some(refresh),
                access,
                token_type: told(self.token_type),
                scope: scope(object.get(self.scope)),
                id_token,
                expiry,
                ..Granted::default()
            },
        })
    }
}

/// An instant in the unit that this store uses, and in no other.
pub fn instant(object: &Map<String, Value>, (name, unit): (&str, Unit)) -> Option<Timestamp> {
    let value = object.get(name)?;
    match unit {
        Unit::Millis => value.as_f64().filter(|ms| *ms > 0.0).map(|ms| Timestamp::from_millis(ms as i64)),
        Unit::Rfc3339 => value.as_str().and_then(Timestamp::parse_rfc3339),
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
    let claims = claims(jwt.expose())?;
    let audience = match claims.get("aud")? {
        Value::Array(several) => several.first().filter(|_| several.len() == 1)?.as_str(),
        one => one.as_str(),
    };
    claims.get("azp").and_then(Value::as_str).or(audience).map(printable)
}
