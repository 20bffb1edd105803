//! What the ledger knows of a profile's refresh token and its journal does not, or the other way round: a journal that is
//! lost, damaged or older than what happened is no reason to send a token again.

use super::ledger::Mark;
use super::record::{Intent, Record};
use super::{Store, StoreError, Vault, census};
use crate::clock::Timestamp;
use crate::credential::secret::Fingerprint;
use crate::outcome::{ErrorKind, Failure, State};
use crate::profile::ProfileName;

/// Recovery 4: a backup or another program brought a spent token back.
pub fn spent(name: &ProfileName) -> Failure {
    Failure::new(
        ErrorKind::StaleCredential,
        "the stored refresh token has been used or rejected before: an older copy was restored",
    )
    .hint(format!("sign in again: keepalive login {name}"))
}

impl Store {
    /// Adds to a journal (not saved) what the ledger alone knows of its token.
    pub(super) fn recall(&self, record: &mut Record) -> Result<(), StoreError> {
        let current = record.fingerprint.clone().filter(|_| record.has_credential() && !record.is_rejected());
        let Some(token) = current else { return Ok(()) };
        let is_whole = record.flaw.as_ref().is_none_or(|(state, _)| *state == State::Due);
        match self.mark(&token)? {
            Some(Mark::Consumed) if is_whole => record.flaw = Some((State::ConfigError, spent(&record.profile))),
            Some(Mark::InDoubt(at)) if record.open_intent().is_none() => {
                record.intent = Some(Intent::recalled(record.generation, token, at));
            }
            Some(Mark::Consumed | Mark::InDoubt(_)) | None => {}
        }
        Ok(())
    }

    /// The same without the lock. Tells whether a flight has ended between one look and the other: then the token is spent,
    /// and is not the newest.
    pub(super) fn recall_unlocked(&self, record: &mut Record) -> Result<bool, StoreError> {
        let known = record.flaw.clone();
        self.recall(record)?;
        if record.flaw == known {
            return Ok(false);
        }
        let now = Record::read(&self.layout.folder(&record.profile).record(), &record.profile)?;
        let is_other = now.is_none_or(|now| (now.generation, now.sequence) != (record.generation, record.sequence));
        Ok(is_other || self.sealed_generation(&record.profile)?.is_some_and(|sealed| sealed > record.generation))
    }

    /// Whether the ledger still has what it took from each journal. To be asked by whoever takes a token from elsewhere: that
    /// one is spent the ledger alone may know.
    pub fn check_ledger(&self) -> Result<(), StoreError> {
        let ours = self.uuid();
        let mut named = Vec::new();
        for name in census::every_profile(&self.layout)? {
            let journal = self.layout.folder(&name).record();
            let record = match Record::read(&journal, &name) {
                Ok(record) => record,
                Err(StoreError::DamagedRecord { .. }) => None,
                Err(e) => return Err(e),
            };
            let of_this_store = record.filter(|r| r.store.as_ref().map(|store| &store.uuid) == ours.as_ref());
            named.extend(of_this_store.and_then(|record| record.ledgered).map(|token| (token, journal)));
        }
        // Read last: what a journal names was in the ledger before.
        let path = self.layout.ledger();
        let pages = self.ledger.pages().map_err(|e| StoreError::io("read", &path, e))?;
        match named.into_iter().find(|(token, _)| pages.have_lost(token)) {
            Some((_, journal)) => Err(StoreError::LedgerDamaged { path, journal }),
            None => Ok(()),
        }
    }

    fn mark(&self, token: &Fingerprint) -> Result<Option<Mark>, StoreError> {
        self.ledger.mark(token).map_err(|e| StoreError::io("read", &self.layout.ledger(), e))
    }
}

impl Vault<'_, '_> {
    /// Journal and ledger tell each other what they know of the tokens here. That the ledger cannot be written is a warning:
    /// the journal still knows.
    pub(super) fn compare_notes(&mut self, warnings: &mut Vec<String>) -> Result<(), StoreError> {
        let noted = self.record.open_intent().cloned();
        self.store.recall(&mut self.record)?;
        match noted {
            // A run may have died with it.
            Some(intent) if !intent.is_reusable => {
                let written = self.note_doubt(&intent.fingerprint, intent.last_sent.wall);
                warnings.extend(written.err().map(|e| e.to_string()));
                Ok(())
            }
            None if self.record.open_intent().is_some() => self.save(),
            Some(_) | None => Ok(()),
        }
    }

    /// Tries once more to write what the ledger could not take.
    pub(super) fn catch_up_ledger(&mut self, warnings: &mut Vec<String>) -> Result<(), StoreError> {
        let missing = std::mem::take(&mut self.record.unledgered);
        for token in &missing {
            warnings.extend(self.note_consumed(token).err().map(|e| e.to_string()));
        }
        if missing == self.record.unledgered { Ok(()) } else { self.save() }
    }

    /// Notes in the ledger that a token must not be sent again. If that fails, the journal (not saved yet) keeps it for the
    /// next run.
    pub fn note_consumed(&mut self, token: &Fingerprint) -> Result<(), StoreError> {
        let written = self.mark_consumed(token);
        if written.is_err() && !self.record.unledgered.contains(token) {
            self.record.unledgered.push(token.clone());
        }
        written
    }

    /// Notes in the ledger that a token was sent and nobody knows what became of it, at a server that punishes reuse.
    pub fn note_doubt(&self, token: &Fingerprint, at: Timestamp) -> Result<(), StoreError> {
        self.written(self.store.ledger.doubt(token, at))
    }

    /// A doubt is over, and the token was not used up.
    pub fn note_unspent(&self, token: &Fingerprint) -> Result<(), StoreError> {
        match self.store.mark(token)? {
            Some(Mark::InDoubt(_)) => self.written(self.store.ledger.settle(token)),
            Some(Mark::Consumed) | None => Ok(()),
        }
    }

    /// Whatever was doubted or said of a token is taken back: its provider has just granted it, so it lives. Durable on
    /// return.
    pub fn revive(&mut self, token: &Fingerprint) -> Result<(), StoreError> {
        if self.record.revive(token) {
            self.save()?;
        }
        match self.store.mark(token)? {
            Some(_) => self.written(self.store.ledger.clear(token)),
            None => Ok(()),
        }
    }

    /// Whether a token must not be taken from somebody who has had it for a while: it is dead, or in a doubt that this
    /// journal cannot take over.
    pub fn is_given_up(&self, token: &Fingerprint) -> Result<bool, StoreError> {
        let is_open_here = self.record.intent.as_ref().is_some_and(|intent| intent.fingerprint == *token);
        Ok(match self.store.mark(token)? {
            Some(Mark::Consumed) => true,
            Some(Mark::InDoubt(_)) => !is_open_here,
            None => self.record.unledgered.contains(token),
        })
    }

    fn written(&self, result: std::io::Result<()>) -> Result<(), StoreError> {
        result.map_err(|e| StoreError::io("write", &self.store.layout.ledger(), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::Generation;
    use crate::profile::{KeySource, StoreKind, StoreSettings};
    use crate::store::samples;
    use crate::sys::durable;

    fn store(dir: &std::path::Path) -> Store {
        let kind = StoreKind::File { key: KeySource::File(dir.join("key")) };
        let settings = StoreSettings { kind, path: None, allow_network_filesystem: true };
        Store::new(&settings, dir, None, || unreachable!())
    }

    #[test]
    fn r03_a_spent_token_is_told_before_what_may_pass_and_behind_what_is_worse() {
        let dir = tempfile::tempdir().unwrap();
        let (store, before) = (store(dir.path()), samples::record());
        store.ledger().add(&samples::print('a')).unwrap();
        let spent = Some((State::ConfigError, spent(&before.profile)));
        let [damaged, behind] =
            [State::NeedsLogin, State::Due].map(|s| Some((s, Failure::new(ErrorKind::Damaged, "there"))));
        for (flaw, told) in [(None, spent.clone()), (behind, spent), (damaged.clone(), damaged)] {
            let mut record = Record { flaw, ..before.clone() };
            store.recall(&mut record).unwrap();
            assert_eq!(record.flaw, told);
        }
    }

    #[test]
    fn r03_a_spent_token_is_told_unless_a_flight_has_replaced_it_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let name: ProfileName = "demo".parse().unwrap();
        let path = store.layout().folder(&name).record();
        durable::create_dir(store.layout().folder(&name).dir()).unwrap();
        let token = Fingerprint::from_hex("a".repeat(32));
        let record =
            Record { generation: Generation::FIRST, fingerprint: Some(token.clone()), ..Record::new(name.clone()) };
        record.write(&path).unwrap();
        let look = || {
            let mut seen = record.clone();
            (store.recall_unlocked(&mut seen).unwrap(), seen.flaw.is_some())
        };
        assert_eq!(look(), (false, false));
        store.ledger().add(&token).unwrap();
        assert_eq!(look(), (false, true));
        for newer in [
            Record { sequence: 1, ..record.clone() },
            Record { generation: Generation::new(2), fingerprint: None, ..record.clone() },
        ] {
            newer.write(&path).unwrap();
            assert_eq!(look(), (true, true));
        }
        assert_eq!(store.peek(&name).unwrap().unwrap().generation.get(), 2);
    }
}
