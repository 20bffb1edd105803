//! What the other entries of a followed tool say, where the entry that is followed is gone or holds a consumed token: a tool
//! renames its entries, and moves them to another file. (pure)

use crate::credential::external::{AccountMatch, ExternalCredential, ImportSource};
use crate::credential::secret::{Fingerprint, RefreshToken};
use crate::engine::refresh::followed_stores::OtherEntry;
use crate::outcome::{ErrorKind, Failure};

/// What is known of our token, by the other entries.
#[derive(Debug)]
pub enum Holder {
    /// This entry holds it.
    Ours(OtherEntry),
    /// The newest that has another token of the same account at the same provider.
    SameAccount(Box<ExternalCredential>),
    /// This entry may be ours, refreshed since: its account cannot be told.
    Unknown(OtherEntry),
    /// All are other accounts, or consumed here: the tool is signed out of ours.
    None,
}

/// Our token, and what is known of its account.
pub struct OurToken<'a> {
    pub origin: &'a ImportSource,
    pub client_id: &'a str,
    pub fingerprint: Option<Fingerprint>,
}

impl OurToken<'_> {
    /// Looks at every entry. `fingerprint` is that of a token, and `is_consumed` whether it was consumed here.
    pub fn holder(
        &self,
        mut entries: Vec<OtherEntry>,
        fingerprint: impl Fn(&RefreshToken) -> Fingerprint,
        is_consumed: impl Fn(&Fingerprint) -> bool,
    ) -> Holder {
        let of = |entry: &OtherEntry| entry.credential.as_ref()?.response.refresh.as_ref().map(&fingerprint);
        let is_ours = |entry: &OtherEntry| of(entry).is_some_and(|f| Some(f) == self.fingerprint);
        if let Some(ours) = entries.iter().position(is_ours) {
            return Holder::Ours(entries.swap_remove(ours));
        }
        entries.retain(|entry| !of(entry).is_some_and(|f| is_consumed(&f)));
        let (mut same, mut unknown) = (None, None);
        for entry in entries {
            match self.likeness(&entry) {
                AccountMatch::Same => same = newer(same, entry.credential),
                AccountMatch::Unknown => unknown = unknown.or(Some(entry)),
                AccountMatch::Different => {}
            }
        }
        same.map(Holder::SameAccount).or(unknown.map(Holder::Unknown)).unwrap_or(Holder::None)
    }

    /// Whether an entry may be the one that we follow. Its client and its provider do not change by a refresh.
    fn likeness(&self, entry: &OtherEntry) -> AccountMatch {
        let providers = self.origin.provider.as_ref().zip(entry.provider.as_ref());
        if providers.is_some_and(|(ours, theirs)| ours != theirs) {
            return AccountMatch::Different;
        }
        let Some(external) = &entry.credential else { return AccountMatch::Unknown };
        if external.client_id.as_ref().is_some_and(|client| client != self.client_id) {
            return AccountMatch::Different;
        }
        match self.origin.identity.compare(&external.identity) {
            // One address can have an account at each provider. The name of the entry tells the provider as well.
            AccountMatch::Same if providers.is_none() && !self.has_name(entry) => AccountMatch::Unknown,
            likeness => likeness,
        }
    }

    /// Whether an entry has the name of the one that we follow, or had it before another one got it too.
    fn has_name(&self, entry: &OtherEntry) -> bool {
        let own = |id: &str| id.split('#').next().unwrap_or_default().to_owned();
        self.origin.account.as_deref().is_some_and(|ours| own(ours) == own(&entry.id))
    }
}

/// Of two tokens of one account that which ends later, or else was written later.
fn newer(a: Option<Box<ExternalCredential>>, b: Option<Box<ExternalCredential>>) -> Option<Box<ExternalCredential>> {
    a.into_iter().chain(b).max_by_key(|one| (one.response.expiry.access_expiry(), one.written_at))
}

/// Why a flight sends nothing where an entry may be ours. `why`: what is wrong with the entry that is followed.
pub fn unknown_holder(origin: &ImportSource, why: &str, entry: &OtherEntry, profile: &str) -> Failure {
    let message = format!(
        "{}: {why}; but there is {}, which may hold the same token, so {} may not be signed out",
        origin.tool, entry, origin.tool
    );
    let hint = format!(
        "import what it holds now: {} --replace; or, to go on alone, remove follow = true from [profile.{profile}]",
        ImportSource { account: None, ..origin.clone() }.import_command(profile)
    );
    Failure::new(ErrorKind::Source, message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::credential::expiry::ExpiryClaims;
    use crate::credential::external::AccountIdentity;
    use crate::credential::token_response::TokenResponse;

    fn identity(account: &str) -> AccountIdentity {
        AccountIdentity { account: Some(account.into()), ..AccountIdentity::default() }
    }

    fn entry(id: &str, provider: Option<&str>, account: &str, end: i64) -> OtherEntry {
        let response = TokenResponse {
            expiry: ExpiryClaims::ending_at(Some(Timestamp::from_secs(end))),
            ..TokenResponse::default()
        };
        let external = ExternalCredential { identity: identity(account), response, ..ExternalCredential::default() };
        OtherEntry {
            place: "auth.json".into(),
            id: id.into(),
            provider: provider.map(str::to_owned),
            credential: Some(Box::new(external)),
        }
    }

    fn holder(provider: Option<&str>, entries: Vec<OtherEntry>) -> Holder {
        let origin = ImportSource {
            account: Some("x#ada".into()),
            identity: identity("ada"),
            provider: provider.map(str::to_owned),
            ..ImportSource::default()
        };
        let ours = OurToken { origin: &origin, client_id: "public", fingerprint: None };
        ours.holder(entries, |_| unreachable!("there are no tokens"), |_| false)
    }

    /// Rule 39. What was lost: the newest token of the account, behind an older one.
    #[test]
    fn newest_entry_of_our_account_counts() {
        for ends in [[10, 30, 20], [30, 20, 10], [10, 20, 30]] {
            let mut entries: Vec<_> = ends.map(|end| entry("a", Some("openai"), "ada", end)).into();
            entries.push(entry("a", Some("openai"), "bob", 90));
            let Holder::SameAccount(found) = holder(Some("openai"), entries) else { panic!() };
            assert_eq!(found.response.expiry.access_expiry(), Some(Timestamp::from_secs(30)), "{ends:?}");
        }
        assert!(matches!(holder(Some("openai"), vec![entry("a", Some("openai"), "bob", 90)]), Holder::None));
    }

    /// Rule 39.
    #[test]
    fn entry_is_of_our_provider_if_it_says_so_or_has_our_name() {
        for (id, is_same) in [("x", true), ("x#1", true), ("x#ada", true), ("y", false), ("", false)] {
            let found = holder(None, vec![entry(id, None, "ada", 90)]);
            assert_eq!(matches!(found, Holder::SameAccount(_)), is_same, "{id}: {found:?}");
        }
        assert!(matches!(holder(Some("xai"), vec![entry("x", Some("openai"), "ada", 90)]), Holder::None));
    }
}
