//! The content of a sealed file: an imported credential, or a token endpoint's response as it arrived.
//!
//! A response is sealed raw, with everything needed to read it, and read again at every load. So a fault in reading it
//! cannot lose its refresh token.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::clock::{Moment, Timestamp};
use crate::credential::content_coding;
use crate::credential::error_response::ErrorResponse;
use crate::credential::expiry::LifetimeBounds;
use crate::credential::freshness::Validity;
use crate::credential::redaction::SentSecrets;
use crate::credential::secret::{AccessToken, RefreshToken};
use crate::credential::token_response::parse_response;
use crate::credential::token_response::{ParsedResponse, TokenResponse};
use crate::credential::{Binding, Credential, Generation, Grant};

/// The content of a sealed file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SealedContent<R = SealedResponse> {
    Credential(Box<SealedCredential>),
    /// Borrowed, for sealing what is still needed.
    Response(R),
}

/// A credential member by member.
#[derive(Serialize, Deserialize)]
pub struct SealedCredential {
    pub binding: Binding,
    pub refresh_token: SecretText,
    pub grant: SealedGrant,
}

/// A grant member by member.
#[derive(Clone, Serialize, Deserialize)]
pub struct SealedGrant {
    pub access_token: Option<SecretText>,
    pub validity: Option<Validity>,
    pub token_type: String,
    pub scope: Option<String>,
    pub id_token: Option<SecretText>,
    pub login_by: Option<Timestamp>,
    pub not_before: Option<Timestamp>,
}

/// A secret on its way through the serialiser; wiped when dropped.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct SecretText(pub String);

/// A response of the token endpoint, not parsed, with the request that it belongs to.
#[derive(Serialize, Deserialize)]
pub struct SealedResponse {
    pub status: u16,
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub retry_after: Option<String>,
    /// Base64, since a body need not be text.
    pub body: SecretText,
    /// The body ended as its sender meant it to; otherwise the rest is lost.
    pub is_complete: bool,
    pub sent_refresh_token: SecretText,
    pub sent_at: Moment,
    /// How often that token had been sent, this time included.
    pub send_count: u32,
    pub binding: Binding,
    /// The grant before this one: a response that leaves a member out does not change it.
    pub previous_grant: SealedGrant,
    pub default_lifetime_ms: u64,
    /// The most that is believed of a lifetime; `None`: what is told counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime_ms: Option<u64>,
    /// How long its generation must rest, by the policy of its request (rule 20).
    pub cooldown_ms: u64,
    /// What else the request carried that no error may show: client secret, assertion, credentials in a header.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_secrets: Vec<SecretText>,
}

/// What a response says once it is parsed.
#[derive(Debug)]
pub enum ResponseContent {
    Granted {
        credential: Box<Credential>,
        /// The refresh token differs from the one sent.
        is_rotated: bool,
        warnings: Vec<GrantWarning>,
    },
    Denied(ErrorResponse),
    /// The body holds neither tokens nor an error, or was cut.
    Unreadable,
    /// The body, packed or unpacked, is larger than a response may be: it is kept as evidence and not read.
    TooLarge,
}

/// Something odd about a grant, for the user to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantWarning {
    /// There is no usable access token; the previous one is kept.
    NoUsableAccessToken,
    /// A token type other than Bearer.
    NotBearer,
    /// Another scope than before.
    ScopeChanged,
    /// No lifetime; the provider's default is assumed.
    LifetimeAssumed,
    /// The old refresh token came back after a second send, so it may be dead.
    OldTokenAfterRetry,
    /// The response has another refresh token that cannot be read, so the old one may be dead.
    RefreshTokenUnreadable,
}

impl SealedResponse {
    pub fn decode_body(&self) -> Vec<u8> {
        STANDARD.decode(self.body.0.as_bytes()).unwrap_or_default()
    }

    pub fn encode_body(bytes: &[u8]) -> SecretText {
        SecretText(STANDARD.encode(bytes))
    }

    /// Parses the response as the credential of `generation`. It was sealed as it came, so it is unpacked here.
    pub fn parse(&self, generation: Generation) -> ResponseContent {
        let packed = Zeroizing::new(self.decode_body());
        let is_cut_at_the_cap = !self.is_complete && packed.len() >= content_coding::MAX_BODY_BYTES;
        let unpacked = content_coding::decode(self.content_encoding.as_deref(), &packed);
        let Some(body) = unpacked.ok().filter(|_| !is_cut_at_the_cap) else {
            return ResponseContent::TooLarge;
        };
        let sent = self.sent_secrets();
        let is_whole = self.is_complete && body.is_complete;
        let reply = match parse_response(self.status, &body.bytes, is_whole, &sent) {
            // The header may name a coding that the body does not have.
            ParsedResponse::Unreadable => parse_response(self.status, &packed, self.is_complete, &sent),
            reply => reply,
        };
        match reply {
            ParsedResponse::Granted(granted) => self.parse_grant(generation, *granted),
            ParsedResponse::Denied(denied) => ResponseContent::Denied(denied),
            ParsedResponse::Unreadable => ResponseContent::Unreadable,
        }
    }

    /// All that the request carried, and the tokens before it, for the run that received the response and for a later
    /// one that settles it.
    fn sent_secrets(&self) -> SentSecrets {
        let before = [&self.previous_grant.access_token, &self.previous_grant.id_token];
        let tokens = before.into_iter().flatten().chain([&self.sent_refresh_token]);
        tokens.chain(&self.further_secrets).map(|secret| secret.0.as_str()).collect()
    }

    fn parse_grant(&self, generation: Generation, g: TokenResponse) -> ResponseContent {
        let Some(sent) = RefreshToken::new(self.sent_refresh_token.0.clone()) else {
            return ResponseContent::Unreadable;
        };
        if !g.grants_more_than_echo(&sent, self.status) {
            return g.error.map_or(ResponseContent::Unreadable, ResponseContent::Denied);
        }
        let is_rotated = g.refresh.as_ref().is_some_and(|new| *new != sent);
        let is_usable = g.access.is_some() && !is_sender_constrained(g.token_type.as_deref());
        let mut warnings = Vec::new();
        let mut note = |is_so: bool, note: GrantWarning| is_so.then(|| warnings.push(note));
        note(!is_usable, GrantWarning::NoUsableAccessToken);
        note(g.token_type.as_deref().is_some_and(|t| !t.eq_ignore_ascii_case("bearer")), GrantWarning::NotBearer);
        note(
            g.scope.is_some() && self.previous_grant.scope.is_some() && g.scope != self.previous_grant.scope,
            GrantWarning::ScopeChanged,
        );
        // A third send comes when the access token of the second one has ended, and no grace lasts so long: a token
        // that is granted then is alive.
        note(self.send_count == 2 && g.refresh.is_some() && !is_rotated, GrantWarning::OldTokenAfterRetry);
        note(!is_rotated && g.candidates.contains_other_than(&sent), GrantWarning::RefreshTokenUnreadable);
        let bounds = LifetimeBounds {
            default: Duration::from_millis(self.default_lifetime_ms),
            max: self.max_lifetime_ms.map(Duration::from_millis),
        };
        let new = g.expiry.validity_of_response(&self.sent_at, bounds);
        note(is_usable && new.assumed, GrantWarning::LifetimeAssumed);
        // Rule 27: the previous access token may still be valid.
        let before = self.previous_grant.to_grant();
        let validity = if is_usable { Some(new) } else { before.validity };
        let not_before = g.earliest_refresh(self.sent_at.wall, validity.as_ref().map(Validity::expires_at));
        let (access, token_type) = match is_usable {
            true => (g.access, g.token_type.unwrap_or(before.token_type)),
            false => (before.access, before.token_type),
        };
        let login_by = g.refresh_end.map_or(self.previous_grant.login_by, |end| end.instant(self.sent_at.wall));
        let credential = Box::new(Credential {
            generation,
            binding: self.binding.clone(),
            refresh: g.refresh.unwrap_or(sent),
            grant: Grant {
                access,
                validity,
                token_type,
                scope: g.scope.or(before.scope),
                id_token: g.id_token.or(before.id_token),
                login_by,
                not_before,
            },
        });
        ResponseContent::Granted { credential, is_rotated, warnings }
    }
}

/// Whether an access token of this type is worth nothing without a key that keepalive does not have (RFC 9449, the
/// drafts for MAC and PoP). All other odd names have been seen on tokens that are used as Bearer.
fn is_sender_constrained(token_type: Option<&str>) -> bool {
    token_type.is_some_and(|t| ["dpop", "mac", "pop"].iter().any(|bound| t.eq_ignore_ascii_case(bound)))
}

impl SecretText {
    fn to_access_token(&self) -> Option<AccessToken> {
        AccessToken::new(self.0.clone())
    }
}

impl SealedGrant {
    pub fn from_grant(grant: &Grant) -> Self {
        Self {
            access_token: grant.access.as_ref().map(|t| SecretText(t.expose().into())),
            validity: grant.validity.clone(),
            token_type: grant.token_type.clone(),
            scope: grant.scope.clone(),
            id_token: grant.id_token.as_ref().map(|t| SecretText(t.expose().into())),
            login_by: grant.login_by,
            not_before: grant.not_before,
        }
    }

    pub fn to_grant(&self) -> Grant {
        let access = self.access_token.as_ref().and_then(SecretText::to_access_token);
        Grant {
            validity: self.validity.clone().filter(|_| access.is_some()),
            access,
            token_type: self.token_type.clone(),
            scope: self.scope.clone(),
            id_token: self.id_token.as_ref().and_then(SecretText::to_access_token),
            login_by: self.login_by,
            not_before: self.not_before,
        }
    }
}

impl SealedContent {
    pub fn from_credential(credential: &Credential) -> Self {
        Self::Credential(Box::new(SealedCredential {
            binding: credential.binding.clone(),
            refresh_token: SecretText(credential.refresh.expose().into()),
            grant: SealedGrant::from_grant(&credential.grant),
        }))
    }
}

impl SealedCredential {
    pub fn to_credential(&self, generation: Generation) -> Option<Credential> {
        Some(Credential {
            generation,
            binding: self.binding.clone(),
            refresh: RefreshToken::new(self.refresh_token.0.clone())?,
            grant: self.grant.to_grant(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response_to(body: &str) -> SealedResponse {
        SealedResponse {
            status: 200,
            content_type: None,
            content_encoding: None,
            retry_after: None,
            body: SealedResponse::encode_body(body.as_bytes()),
            is_complete: true,
            sent_refresh_token: SecretText("old".into()),
            sent_at: Moment { wall: Timestamp::from_secs(1_790_000_000), boot_id: "b".into(), uptime_ms: 0 },
            send_count: 1,
            binding: Binding { provider: "acme".into(), origin: "https://a".into(), client_id: "c".into() },
            previous_grant: SealedGrant {
                access_token: None,
                validity: None,
                token_type: "Bearer".into(),
                scope: Some("a b".into()),
                id_token: Some(SecretText("id-1".into())),
                login_by: Some(Timestamp::from_secs(5)),
                not_before: None,
            },
            default_lifetime_ms: 3_600_000,
            max_lifetime_ms: None,
            cooldown_ms: 0,
            further_secrets: Vec::new(),
        }
    }

    fn granted(response: &SealedResponse) -> (Credential, bool, Vec<GrantWarning>) {
        match response.parse(Generation::new(4)) {
            ResponseContent::Granted { credential, is_rotated, warnings } => (*credential, is_rotated, warnings),
            other => panic!("{other:?}"),
        }
    }

    /// Rule 15.
    #[test]
    fn response_without_a_refresh_token_keeps_the_old_one() {
        let (c, is_rotated, warnings) = granted(&response_to(r#"{"access_token":"a","expires_in":60}"#));
        assert_eq!((c.refresh.expose(), is_rotated, warnings), ("old", false, vec![]));
        assert_eq!(c.grant.scope.as_deref(), Some("a b"));
        assert_eq!(c.grant.id_token.unwrap().expose(), "id-1");
        assert_eq!(c.grant.login_by, Some(Timestamp::from_secs(5)));
        assert_eq!(c.generation.get(), 4);
    }

    #[test]
    fn same_refresh_token_again_is_not_a_rotation() {
        let mut a = response_to(r#"{"access_token":"a","expires_in":60,"refresh_token":"old"}"#);
        assert!(!granted(&a).1);
        a.send_count = 2;
        assert_eq!(granted(&a).2, [GrantWarning::OldTokenAfterRetry]);
        a.send_count = 3;
        assert_eq!(granted(&a).2, [], "no grace lasts so long");
    }

    /// Rule 16.
    #[test]
    fn refresh_token_counts_even_if_nothing_else_is_usable() {
        let (c, is_rotated, warnings) =
            granted(&response_to(r#"{"access_token":7,"refresh_token":"new","token_type":"mac"}"#));
        assert_eq!((c.refresh.expose(), is_rotated), ("new", true));
        assert_eq!(warnings, [GrantWarning::NoUsableAccessToken, GrantWarning::NotBearer]);
        assert!(c.grant.access.is_none() && c.grant.validity.is_none());
    }

    /// Rule 27.
    #[test]
    fn key_bound_access_token_is_not_used_and_the_old_one_kept() {
        let before = Validity {
            obtained: response_to("").sent_at,
            lifetime_ms: 60_000,
            assumed: false,
            is_remainder: false,
            expired_at: None,
        };
        for (token_type, is_used) in [("DPoP", false), ("mac", false), ("pop", false), ("user", true), ("BEARER", true)]
        {
            let body =
                format!(r#"{{"access_token":"new","refresh_token":"r","expires_in":9,"token_type":"{token_type}"}}"#);
            let mut response = response_to(&body);
            response.previous_grant.access_token = Some(SecretText("before".into()));
            response.previous_grant.validity = Some(before.clone());
            let (c, _, warnings) = granted(&response);
            assert_eq!(warnings.contains(&GrantWarning::NoUsableAccessToken), !is_used, "{token_type}");
            let held = (c.grant.access.unwrap().expose().to_owned(), c.grant.validity.unwrap().lifetime_ms);
            let expected = if is_used { ("new", 9_000) } else { ("before", 60_000) };
            assert_eq!((held.0.as_str(), held.1), expected, "{token_type}");
            assert_eq!(c.refresh.expose(), "r");
            assert_eq!(c.grant.token_type, if is_used { token_type } else { "Bearer" });
        }
    }

    #[test]
    fn missing_lifetime_becomes_the_default_of_the_provider() {
        let (c, _, warnings) = granted(&response_to(r#"{"access_token":"a","refresh_token":"new","scope":"a"}"#));
        let validity = c.grant.validity.unwrap();
        assert!(validity.assumed && validity.lifetime() == Duration::from_secs(3600));
        assert_eq!(warnings, [GrantWarning::ScopeChanged, GrantWarning::LifetimeAssumed]);
    }

    #[test]
    fn refresh_token_expiry_is_recorded() {
        let life = |secs: &str| {
            granted(&response_to(&format!(r#"{{"refresh_token":"n","refresh_expires_in":{secs}}}"#))).0.grant.login_by
        };
        assert_eq!(life("100"), Some(Timestamp::from_secs(1_790_000_100)));
        assert_eq!(life("0"), None);
    }

    #[test]
    fn sealed_content_reads_back_unchanged() {
        let (c, ..) = granted(&response_to(r#"{"access_token":"a","expires_in":60,"refresh_token":"new"}"#));
        let text = serde_json::to_string(&SealedContent::from_credential(&c)).unwrap();
        let SealedContent::Credential(back) = serde_json::from_str::<SealedContent>(&text).unwrap() else { panic!() };
        let back = back.to_credential(c.generation).unwrap();
        assert_eq!(back.refresh, c.refresh);
        assert_eq!(back.grant.validity, c.grant.validity);
        assert_eq!(back.grant.access, c.grant.access);
    }
}
