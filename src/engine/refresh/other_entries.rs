//! What the other entries of a followed tool say, where the entry that is followed is gone: a tool renames its entries,
//! and moves them to another file. (pure)

use crate::credential::external::{AccountMatch, ExternalCredential, ImportSource};
use crate::credential::secret::{Fingerprint, RefreshToken};
use crate::engine::refresh::followed_stores::OtherEntry;
use crate::outcome::{ErrorKind, Failure};

/// What is known of our token, by the other entries.
#[derive(Debug)]
pub enum Holder {
    /// This entry holds it.
    Ours(OtherEntry),
    /// One has another token of the same account at the same provider.
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
                AccountMatch::Same => same = same.or(entry.credential),
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
            // One address can have an account at each provider.
            AccountMatch::Same if providers.is_none() => AccountMatch::Unknown,
            likeness => likeness,
        }
    }
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
