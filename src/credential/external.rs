//! A credential from the store of another tool: its account, where it was found, and whether it is newer than ours.
//! (pure)

use std::path::Path;

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

    /// The account that the tokens of one credential name, the ID token before the access token.
    pub fn of_tokens(id_token: Option<&AccessToken>, access: Option<&AccessToken>) -> Self {
        let told = |token: Option<&AccessToken>| token.map(Self::from_jwt).unwrap_or_default();
        told(id_token).merged_with(told(access))
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

    /// The names of two accounts that differ: where the names are alike, with the workspace or the id that is not.
    pub fn distinct_names(&self, other: &Self) -> (String, String) {
        let name = |identity: &Self| identity.display_name().unwrap_or("another account").to_owned();
        let differ = |of: fn(&Self) -> &Option<String>| {
            let (ours, theirs) = (of(self).as_ref()?, of(other).as_ref()?);
            (!ours.eq_ignore_ascii_case(theirs)).then_some((ours, theirs))
        };
        let (ours, theirs) = (name(self), name(other));
        if !ours.eq_ignore_ascii_case(&theirs) {
            return (ours, theirs);
        }
        let account = differ(|i| &i.account).map(|pair| ("account", pair));
        match account.or_else(|| differ(|i| &i.subject).map(|pair| ("user", pair))) {
            Some((what, (a, b))) => (format!("{ours} ({what} {a})"), format!("{theirs} ({what} {b})")),
            None => (ours, theirs),
        }
    }

    /// The most telling name for a person.
    pub fn display_name(&self) -> Option<&str> {
        self.email.as_deref().or(self.account.as_deref()).or(self.subject.as_deref())
    }
}

/// Where a credential was imported from. No secret: it is kept in the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The provider that the store or the tool names, by our name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// It was not in the file, but in the tool's keyring item for that directory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_in_keyring: bool,
}

impl ImportSource {
    /// The command that imports from there again. The file is always named: the tool's usual place is another one for a
    /// caller with other variables in its environment.
    pub fn import_command(&self, profile: &str) -> String {
        let account = self.account.as_ref().map_or(String::new(), |id| format!(" --account {}", shell_quoted(id)));
        let file = self.location.as_ref().filter(|place| Path::new(place).is_absolute());
        let file = file.map_or(String::new(), |file| format!(" {}", shell_quoted(file)));
        format!("keepalive import {profile} --from {}{account}{file}", self.tool)
    }
}

impl std::fmt::Display for ImportSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.location.as_ref().or(self.account.as_ref()) {
            Some(place) if self.is_in_keyring => {
                let dir = Path::new(place).parent().unwrap_or(Path::new(place));
                write!(f, "{} (its keyring item for {})", self.tool, dir.display())
            }
            Some(place) => write!(f, "{} ({place})", self.tool),
            None => f.write_str(&self.tool),
        }
    }
}

/// An argument of a command, as a shell must be given it.
pub fn shell_quoted(text: &str) -> String {
    let is_plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+:@,".contains(c));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Where a tool names the account in another file than the tokens: which of the two was written a moment ago, so that the
/// other one may be about to be. A sign-in writes both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccountFile {
    /// Neither, or it is one file.
    #[default]
    Settled,
    /// The tokens may be another account's.
    TokensNewer,
    /// The account may be that of other tokens.
    AccountNewer,
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
    /// It was not in the tool's file, but in its keyring item.
    pub is_in_keyring: bool,
    pub account_file: AccountFile,
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
    fn accounts_of_one_address_are_named_by_what_differs() {
        let names = |a: AccountIdentity, b: AccountIdentity| {
            let (a, b) = a.distinct_names(&b);
            format!("{a}, {b}")
        };
        assert_eq!(names(who("1", "t", "a@x"), who("1", "u", "a@x")), "a@x (account t), a@x (account u)");
        assert_eq!(names(who("1", "", "a@x"), who("2", "", "A@x")), "a@x (user 1), A@x (user 2)");
        assert_eq!(names(who("1", "t", "a@x"), who("2", "t", "b@x")), "a@x, b@x");
        assert_eq!(names(who("1", "t", ""), who("1", "u", "")), "t, u");
    }

    #[test]
    fn import_command_can_be_pasted() {
        let origin = ImportSource {
            tool: "codex".into(),
            location: Some("/home/a b/auth.json".into()),
            account: Some("it's".into()),
            ..ImportSource::default()
        };
        let command = "keepalive import p --from codex --account 'it'\\''s' '/home/a b/auth.json'";
        assert_eq!(origin.import_command("p"), command);
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
