//! Reconciles ledger and journal: a journal that is lost, damaged or too old is no reason to send a token again.

use crate::credential::secret::Fingerprint;
use crate::outcome::{ErrorKind, Failure, ProfileState};
use crate::profile::ProfileName;
use crate::store::disk::layout::Layout;
use crate::store::journal::{Intent, Journal};
use crate::store::profile::files::SealedSlot;
use crate::store::tokens::ledger::{Ledger, LedgerEntry};
use crate::store::tokens::scan::StoreScan;
use crate::store::{Store, StoreError};

/// Recovery 4: a backup or another program brought a spent token back.
pub fn stale_credential(name: &ProfileName) -> Failure {
    Failure::new(
        ErrorKind::StaleCredential,
        "the stored refresh token has been used or rejected before: an older copy was restored",
    )
    .with_hint(format!("sign in again: keepalive login {name}"))
}

impl Ledger {
    /// Adds to a journal (not saved) what the ledger alone knows of its token.
    pub(in crate::store) fn apply(&self, journal: &mut Journal) -> Result<(), StoreError> {
        let current = journal.fingerprint.clone().filter(|_| journal.has_credential() && !journal.is_rejected());
        let Some(token) = current else { return Ok(()) };
        let is_whole = journal.integrity_error.as_ref().is_none_or(|(state, _)| *state == ProfileState::Due);
        match self.entry(&token)? {
            Some(LedgerEntry::Consumed | LedgerEntry::Rejected) if is_whole => {
                journal.integrity_error = Some((ProfileState::ConfigError, stale_credential(&journal.profile)))
            }
            Some(LedgerEntry::InDoubt(at)) if journal.open_intent().is_none() => {
                journal.intent = Some(Intent::from_ledger(journal.generation, token, at));
            }
            Some(LedgerEntry::Consumed | LedgerEntry::Rejected | LedgerEntry::InDoubt(_)) | None => {}
        }
        Ok(())
    }

    /// Applies the ledger entry without the lock. Returns whether a flight has ended between the two reads: then the
    /// token is consumed and not the newest.
    pub(in crate::store) fn apply_unlocked(&self, journal: &mut Journal, layout: &Layout) -> Result<bool, StoreError> {
        let known = journal.integrity_error.clone();
        self.apply(journal)?;
        if journal.integrity_error == known {
            return Ok(false);
        }
        let folder = layout.profile_folder(&journal.profile);
        let now = Journal::read(&folder.journal(), &journal.profile)?;
        let is_other = now.is_none_or(|now| (now.generation, now.sequence) != (journal.generation, journal.sequence));
        Ok(is_other
            || SealedSlot::read(folder.sealed()).generation()?.is_some_and(|sealed| sealed > journal.generation))
    }
}

impl Store {
    /// Whether the ledger still has what it took from each journal. To be asked before a token is taken from elsewhere:
    /// the ledger alone may know that it is consumed.
    pub fn check_ledger_complete(&self, scan: &StoreScan) -> Result<(), StoreError> {
        let ours = self.uuid();
        let named = scan.profiles.iter().filter_map(|profile| {
            let journal = profile.journal.as_ref()?;
            let is_of_this_store = ours.as_ref().is_some_and(|ours| journal.is_of(ours));
            journal.last_ledgered.as_ref().filter(|_| is_of_this_store).map(|token| (token, &profile.name))
        });
        // Read after the journals: what they name was in the ledger before.
        let pages = self.ledger.snapshot()?;
        let tokens = pages.tokens();
        let is_lacking = |token: &Fingerprint| tokens.as_ref().is_some_and(|t| !t.contains(token.as_str().as_bytes()));
        match named.into_iter().find(|(token, _)| is_lacking(token)) {
            Some((_, name)) => {
                let journal = self.layout.profile_folder(name).journal();
                Err(StoreError::LedgerDamaged { path: self.layout.ledger(), journal })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Generation;
    use crate::profile::{KeySource, StoreKind, StoreSettings};
    use crate::store::test_samples;
    use crate::sys::durable;

    fn store(dir: &std::path::Path) -> Store {
        let kind = StoreKind::File { key: KeySource::File(dir.join("key")) };
        let settings = StoreSettings { kind, path: None, allow_network_filesystem: true };
        Store::new(&settings, dir, None, || unreachable!())
    }

    /// Rule 3.
    #[test]
    fn consumed_token_outranks_a_due_flaw_but_not_needs_login() {
        let dir = tempfile::tempdir().unwrap();
        let (store, before) = (store(dir.path()), test_samples::journal());
        store.ledger().add_consumed(&test_samples::fingerprint('a')).unwrap();
        let spent = Some((ProfileState::ConfigError, stale_credential(&before.profile)));
        let [damaged, behind] =
            [ProfileState::NeedsLogin, ProfileState::Due].map(|s| Some((s, Failure::new(ErrorKind::Damaged, "there"))));
        for (flaw, told) in [(None, spent.clone()), (behind, spent), (damaged.clone(), damaged)] {
            let mut journal = Journal { integrity_error: flaw, ..before.clone() };
            store.ledger().apply(&mut journal).unwrap();
            assert_eq!(journal.integrity_error, told);
        }
    }

    /// Rule 3.
    #[test]
    fn consumed_token_is_reported_unless_a_flight_replaced_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let name: ProfileName = "demo".parse().unwrap();
        let path = store.layout().profile_folder(&name).journal();
        durable::create_dir(store.layout().profile_folder(&name).dir()).unwrap();
        let token = Fingerprint::from_hex("a".repeat(32));
        let journal =
            Journal { generation: Generation::FIRST, fingerprint: Some(token.clone()), ..Journal::new(name.clone()) };
        journal.write(&path).unwrap();
        let look = || {
            let mut seen = journal.clone();
            (store.ledger().apply_unlocked(&mut seen, store.layout()).unwrap(), seen.integrity_error.is_some())
        };
        assert_eq!(look(), (false, false));
        store.ledger().add_consumed(&token).unwrap();
        assert_eq!(look(), (false, true));
        for newer in [
            Journal { sequence: 1, ..journal.clone() },
            Journal { generation: Generation::new(2), fingerprint: None, ..journal.clone() },
        ] {
            newer.write(&path).unwrap();
            assert_eq!(look(), (true, true));
        }
        assert_eq!(store.peek(&name).unwrap().unwrap().generation.get(), 2);
    }
}
