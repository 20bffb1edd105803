//! A credential from the store of another tool: its account, where it was found, and whether it is newer than ours.
//! (pure)

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::{Moment, Timestamp};
use crate::credential::expiry::{ExpiryClaims, LifetimeBounds};
use crate::credential::freshness::Validity;
use crate::credential::jwt::unverified_claims;
use crate::credential::secret::AccessToken;
use crate::credential::server_text::printable;
use crate::credential::token_response::TokenResponse;

/// The account of a credential, as far as the tool's store or the ID token says. No secret: it is kept in the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountIdentity {
    /// `sub`, or the tool's id of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The account or workspace, where a user can have several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// The result of comparing two accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountMatch {
    Same,
    Different,
    /// They have nothing in common that could be compared.
    Unknown,
}

impl AccountIdentity {
    /// The account that an ID token or an access token names, with the workspace or tenant, where a person can have
    /// several.
    pub fn from_jwt(jwt: &AccessToken) -> Self {
        let claims = unverified_claims(jwt.expose()).unwrap_or_default();
        let openai = claims.get("https://api.openai.com/auth").and_then(|auth| auth.get("chatgpt_account_id"));
        let account =
            openai.into_iter().chain(["account_id", "org_id", "tid"].iter().filter_map(|name| claims.get(*name)));
        let account = account.filter_map(Value::as_str).find(|text| !text.is_empty()).map(printable);
        Self { account, ..Self::from_id_token(jwt) }
    }

    /// The account that an ID token names.
    pub fn from_id_token(jwt: &AccessToken) -> Self {
        let claims = unverified_claims(jwt.expose()).unwrap_or_default();
        let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|t| !t.is_empty()).map(printable);
        Self { subject: text("sub"), account: None, email: text("email") }
    }

    /// The account with what `other` knows in addition.
    #[must_use]
    pub fn merged_with(self, other: Self) -> Self {
        Self {
            subject: self.subject.or(other.subject),
            account: self.account.or(other.account),
            email: self.email.or(other.email),
        }
    }

    /// A different subject or account means a different account; without either, the address decides.
    pub fn compare(&self, other: &Self) -> AccountMatch {
        let of = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) if a.eq_ignore_ascii_case(b) => AccountMatch::Same,
            (Some(_), Some(_)) => AccountMatch::Different,
            _ => AccountMatch::Unknown,
        };
        let (subject, account) = (of(&self.subject, &other.subject), of(&self.account, &other.account));
        let email = of(&self.email, &other.email);
        match (subject, account) {
            (AccountMatch::Different, _) | (_, AccountMatch::Different) => AccountMatch::Different,
            (AccountMatch::Same, _) => AccountMatch::Same,
            // Colleagues can share an account, but not an address.
            (AccountMatch::Unknown, AccountMatch::Same) if email == AccountMatch::Different => AccountMatch::Different,
            (AccountMatch::Unknown, AccountMatch::Same) => AccountMatch::Same,
            (AccountMatch::Unknown, AccountMatch::Unknown) => email,
        }
    }

    /// The most telling name for a person.
    pub fn display_name(&self) -> Option<&str> {
        self.email.as_deref().or(self.account.as_deref()).or(self.subject.as_deref())
    }
}

/// Where a credential was imported from. No secret: it is kept in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportSource {
    /// The tool, by its name in `import --from`.
    pub tool: String,
    /// The file that was read; `None`: the credential came through a pipe and cannot be read again.
    #[serde(default)]
    pub location: Option<String>,
    /// Which account of several in that file.
    #[serde(default)]
    pub account: Option<String>,
    #[serde(default)]
    pub identity: AccountIdentity,
}

impl ImportSource {
    /// The command that imports from there again.
    pub fn import_command(&self, profile: &str) -> String {
        let account = self.account.as_ref().map_or(String::new(), |id| format!(" --account {id}"));
        format!("keepalive import {profile} --from {}{account}", self.tool)
    }
}

impl std::fmt::Display for ImportSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.location.as_ref().or(self.account.as_ref()) {
            Some(place) => write!(f, "{} ({place})", self.tool),
            None => f.write_str(&self.tool),
        }
    }
}

/// The credential of one account in a tool's store.
#[derive(Debug, Default)]
pub struct ExternalCredential {
    pub identity: AccountIdentity,
    pub response: TokenResponse,
    /// The client that it was issued to, if the store says.
    pub client_id: Option<String>,
    /// The server that issued it, if the store says.
    pub issuer: Option<String>,
    /// When the tool last wrote it, if the store says.
    pub written_at: Option<Timestamp>,
}

impl ExternalCredential {
    /// What is left of its access token: where the store does not say when it was issued, it was when it was written.
    pub fn validity(&self, now: &Moment, bounds: LifetimeBounds) -> Validity {
        let claims = &self.response.expiry;
        let issued_at = claims.issued_at.or(self.written_at);
        ExpiryClaims { issued_at, ..claims.clone() }.validity_of_import(now, bounds)
    }

    /// Whether it was issued later than a credential of this validity: it ends later, or was written since.
    pub fn is_newer_than(&self, ours: Option<&Validity>) -> bool {
        let Some(ours) = ours else { return true };
        let ends = self.response.expiry.access_expiry();
        let ends_later = ends.is_some_and(|end| end > ours.expires_at());
        ends_later || self.written_at.is_some_and(|at| at > ours.obtained.wall)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn who(subject: &str, account: &str, email: &str) -> AccountIdentity {
        let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
        AccountIdentity { subject: text(subject), account: text(account), email: text(email) }
    }

    #[test]
    fn identities_are_compared_by_the_fields_both_have() {
        for (a, b, likeness) in [
            (who("1", "", ""), who("1", "", ""), AccountMatch::Same),
            (who("1", "", "a@x"), who("2", "", "a@x"), AccountMatch::Different),
            (who("1", "t", "old@x"), who("1", "t", "new@x"), AccountMatch::Same),
            (who("1", "t", ""), who("1", "u", ""), AccountMatch::Different),
            (who("", "t", "a@x"), who("9", "t", "b@x"), AccountMatch::Different),
            (who("", "t", "a@x"), who("9", "t", "A@x"), AccountMatch::Same),
            (who("", "", "a@x"), who("9", "t", "a@x"), AccountMatch::Same),
            (who("", "", "a@x"), who("", "", "b@x"), AccountMatch::Different),
            (who("1", "", ""), who("", "", "a@x"), AccountMatch::Unknown),
            (who("", "", ""), who("", "", ""), AccountMatch::Unknown),
        ] {
            assert_eq!((a.compare(&b), b.compare(&a)), (likeness, likeness), "{a:?} {b:?}");
        }
    }

    #[test]
    fn foreign_token_is_newer_if_it_ends_or_was_written_later() {
        let now = Moment { wall: Timestamp::from_secs(1_790_000_000), boot_id: "b".into(), uptime_ms: 0 };
        let ours = Validity {
            obtained: now.clone(),
            lifetime_ms: 100_000,
            assumed: false,
            is_remainder: false,
            expired_at: None,
        };
        let at = |secs: u64| Some(now.wall.plus(Duration::from_secs(secs)));
        let theirs = |end, written| ExternalCredential {
            response: TokenResponse { expiry: ExpiryClaims::ending_at(end), ..TokenResponse::default() },
            written_at: written,
            ..ExternalCredential::default()
        };
        assert!(theirs(at(101), None).is_newer_than(Some(&ours)));
        assert!(!theirs(at(100), None).is_newer_than(Some(&ours)));
        assert!(theirs(at(50), at(1)).is_newer_than(Some(&ours)));
        assert!(!theirs(None, None).is_newer_than(Some(&ours)));
        assert!(theirs(None, None).is_newer_than(None));
    }
}
