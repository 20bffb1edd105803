//! Reconciles ledger and journal: a journal that is lost, damaged or too old is no reason to send a token again.

use crate::clock::Timestamp;
use crate::credential::secret::Fingerprint;
use crate::outcome::{ErrorKind, Failure, ProfileState};
use crate::profile::ProfileName;
use crate::store::journal::{Intent, Journal};
use crate::store::profile::files::SealedSlot;
use crate::store::tokens::ledger::LedgerEntry;
use crate::store::tokens::scan::StoreScan;
use crate::store::{LockedProfile, Store, StoreError};

/// Recovery 4: a backup or another program brought a spent token back.
pub fn stale_credential(name: &ProfileName) -> Failure {
    Failure::new(
        ErrorKind::StaleCredential,
        "the stored refresh token has been used or rejected before: an older copy was restored",
    )
    .with_hint(format!("sign in again: keepalive login {name}"))
}

impl Store {
    /// Adds to a journal (not saved) what the ledger alone knows of its token.
    pub(in crate::store) fn apply_ledger_entry(&self, journal: &mut Journal) -> Result<(), StoreError> {
        let current = journal.fingerprint.clone().filter(|_| journal.has_credential() && !journal.is_rejected());
        let Some(token) = current else { return Ok(()) };
        let is_whole = journal.integrity_error.as_ref().is_none_or(|(state, _)| *state == ProfileState::Due);
        match self.ledger_entry(&token)? {
            Some(LedgerEntry::Consumed) if is_whole => {
                journal.integrity_error = Some((ProfileState::ConfigError, stale_credential(&journal.profile)))
            }
            Some(LedgerEntry::InDoubt(at)) if journal.open_intent().is_none() => {
                journal.intent = Some(Intent::from_ledger(journal.generation, token, at));
            }
            Some(LedgerEntry::Consumed | LedgerEntry::InDoubt(_)) | None => {}
        }
        Ok(())
    }

    /// Applies the ledger entry without the lock. Returns whether a flight has ended between the two reads: then the
    /// token is consumed and not the newest.
    pub(in crate::store) fn apply_ledger_entry_unlocked(&self, journal: &mut Journal) -> Result<bool, StoreError> {
        let known = journal.integrity_error.clone();
        self.apply_ledger_entry(journal)?;
        if journal.integrity_error == known {
            return Ok(false);
        }
        let now = Journal::read(&self.layout.profile_folder(&journal.profile).journal(), &journal.profile)?;
        let is_other = now.is_none_or(|now| (now.generation, now.sequence) != (journal.generation, journal.sequence));
        let sealed = SealedSlot::read(self.layout.profile_folder(&journal.profile).sealed());
        Ok(is_other || sealed.generation()?.is_some_and(|sealed| sealed > journal.generation))
    }

    /// Whether the ledger still has what it took from each journal. To be asked before a token is taken from elsewhere:
    /// the ledger alone may know that it is consumed.
    pub fn check_ledger_complete(&self, scan: &StoreScan) -> Result<(), StoreError> {
        let ours = self.uuid();
        let named = scan.profiles.iter().filter_map(|profile| {
            let journal = profile.journal.as_ref()?;
            let is_of_this_store = journal.store_uuid == ours;
            journal.last_ledgered.as_ref().filter(|_| is_of_this_store).map(|token| (token, &profile.name))
        });
        // Read after the journals: what they name was in the ledger before.
        let path = self.layout.ledger();
        let pages = self.ledger.snapshot().map_err(|e| StoreError::io("read", &path, e))?;
        let tokens = pages.tokens();
        match named
            .into_iter()
            .find(|(token, _)| tokens.as_ref().is_some_and(|kept| !kept.contains(token.as_str().as_bytes())))
        {
            Some((_, name)) => {
                Err(StoreError::LedgerDamaged { path, journal: self.layout.profile_folder(name).journal() })
            }
            None => Ok(()),
        }
    }

    fn ledger_entry(&self, token: &Fingerprint) -> Result<Option<LedgerEntry>, StoreError> {
        self.ledger.entry(token).map_err(|e| StoreError::io("read", &self.layout.ledger(), e))
    }
}

impl LockedProfile<'_, '_> {
    /// Journal and ledger tell each other what they know of the tokens here. That the ledger cannot be written is a warning:
    /// the journal still knows.
    pub(in crate::store) fn reconcile_with_ledger(&mut self, warnings: &mut Vec<String>) -> Result<(), StoreError> {
        let set_at = self.journal.open_intent().cloned();
        self.store.apply_ledger_entry(&mut self.journal)?;
        match set_at {
            // A run may have died with it.
            Some(intent) if !intent.is_reusable => {
                let written = self.mark_in_doubt(&intent.fingerprint, intent.last_sent.wall);
                warnings.extend(written.err().map(|e| e.to_string()));
                Ok(())
            }
            None if self.journal.open_intent().is_some() => self.save_journal(),
            Some(_) | None => Ok(()),
        }
    }

    /// Tries once more to write what the ledger could not take.
    pub(in crate::store) fn flush_ledger_backlog(&mut self, warnings: &mut Vec<String>) -> Result<(), StoreError> {
        let missing = std::mem::take(&mut self.journal.ledger_backlog);
        for token in &missing {
            warnings.extend(self.mark_consumed_or_queue(token).err().map(|e| e.to_string()));
        }
        if missing == self.journal.ledger_backlog { Ok(()) } else { self.save_journal() }
    }

    /// Notes in the ledger that a token must not be sent again. If that fails, the journal (not saved yet) keeps it for the
    /// next run.
    pub fn mark_consumed_or_queue(&mut self, token: &Fingerprint) -> Result<(), StoreError> {
        let written = self.mark_consumed(token);
        if written.is_err() && !self.journal.ledger_backlog.contains(token) {
            self.journal.ledger_backlog.push(token.clone());
        }
        written
    }

    /// Records in the ledger that a token was sent with unknown outcome, at a server that punishes reuse.
    pub fn mark_in_doubt(&self, token: &Fingerprint, at: Timestamp) -> Result<(), StoreError> {
        self.ledger_write_result(self.store.ledger.add_in_doubt(token, at))
    }

    /// A doubt is over, and the token was not used up.
    pub fn clear_in_doubt(&self, token: &Fingerprint) -> Result<(), StoreError> {
        match self.store.ledger_entry(token)? {
            Some(LedgerEntry::InDoubt(_)) => self.ledger_write_result(self.store.ledger.clear_in_doubt(token)),
            Some(LedgerEntry::Consumed) | None => Ok(()),
        }
    }

    /// Whatever was doubted or said of a token is taken back: its provider has just granted it, so it lives. Durable on
    /// return.
    pub fn clear_marks(&mut self, token: &Fingerprint) -> Result<(), StoreError> {
        if self.journal.clear_marks(token) {
            self.save_journal()?;
        }
        match self.store.ledger_entry(token)? {
            Some(_) => self.ledger_write_result(self.store.ledger.clear(token)),
            None => Ok(()),
        }
    }

    /// Whether a token that comes from elsewhere must not be taken: it is consumed or rejected, or in a doubt that this
    /// journal cannot take over.
    pub fn is_consumed_or_in_doubt(&self, token: &Fingerprint) -> Result<bool, StoreError> {
        let is_open_here = self.journal.intent.as_ref().is_some_and(|intent| intent.fingerprint == *token);
        Ok(match self.store.ledger_entry(token)? {
            Some(LedgerEntry::Consumed) => true,
            Some(LedgerEntry::InDoubt(_)) => !is_open_here,
            None => self.journal.ledger_backlog.contains(token),
        })
    }

    fn ledger_write_result(&self, result: std::io::Result<()>) -> Result<(), StoreError> {
        result.map_err(|e| StoreError::io("write", &self.store.layout.ledger(), e))
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
            store.apply_ledger_entry(&mut journal).unwrap();
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
            (store.apply_ledger_entry_unlocked(&mut seen).unwrap(), seen.integrity_error.is_some())
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
