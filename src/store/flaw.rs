//! What can be seen to be wrong with a profile's homes, so that none is called fresh that has no sealed copy; and the way
//! out for a person whose journal is damaged.

use super::key::SealingKey;
use super::keyring::Item;
use super::published::{self, Published};
use super::record::{Record, Trouble};
use super::{Home, Store, StoreError, Vault, envelope};
use crate::credential::{Credential, Generation};
use crate::guard::Permit;
use crate::outcome::{ErrorKind, Failure, OutcomeKind, State};
use crate::profile::ProfileName;
use crate::sys::durable;

impl Store {
    /// Looks whether a profile's homes agree, without changing any: what `doctor` reports.
    pub fn examine(&self, name: &ProfileName) -> Result<Vec<String>, StoreError> {
        self.check_filesystem()?;
        let identity = self.identity()?;
        let key = self.key(name.as_str())?;
        let mut warnings = Vec::new();
        let path = self.layout.folder(name).sealed();
        let sealed = match durable::read(&path).map_err(|e| StoreError::io("read", &path, e))? {
            Some(bytes) => self.open_sealed(&bytes, name, &key)?.generation,
            None => Generation::NONE,
        };
        let Some((keyring, service)) = self.keyring() else {
            return Ok(warnings);
        };
        let item = Item { service: service.to_owned(), user: name.to_string() };
        let (published, duplicates) = published::read(keyring, &item, &identity.uuid, &key)?;
        if duplicates > 0 {
            warnings.push(format!("{duplicates} more keyring items have the same attributes"));
        }
        match published {
            Published::Missing => warnings.push("the keyring has no item; the next refresh writes it".into()),
            Published::OtherStore { uuid, .. } => {
                return Err(StoreError::OtherStore { profile: item.user, other: uuid });
            }
            Published::Unsigned { .. } => warnings.push("the keyring item was written by another program".into()),
            Published::Ours(credential) if credential.generation != sealed => {
                warnings
                    .push(format!("the keyring has generation {}, the sealed file {sealed}", credential.generation));
            }
            Published::Ours(_) => {}
        }
        Ok(warnings)
    }

    /// Opens a profile's files for a person who forgets or replaces what is there: a journal that is damaged is kept aside,
    /// and a new one counts on from the newest generation that S, and K where there is a key to know it by, speak of.
    pub fn vault_by_force<'s, 'l>(
        &'s self,
        permit: Permit<'l>,
        key: Option<&SealingKey>,
    ) -> Result<Vault<'s, 'l>, StoreError> {
        let path = self.layout.folder(permit.profile()).record();
        let read = || durable::read(&path).map_err(|e| StoreError::io("read", &path, e));
        let is_damaged = matches!(Record::read(&path, permit.profile()), Err(StoreError::DamagedRecord { .. }));
        let Some(bytes) = read()?.filter(|_| is_damaged) else {
            return self.vault_as(permit, self.identity_by_force()?);
        };
        self.check_filesystem()?;
        let identity = self.identity_by_force()?;
        let folder = self.layout.folder(permit.profile());
        let aside = path.with_extension("json.damaged");
        durable::replace(&aside, &bytes).map_err(|e| StoreError::io("write", &aside, e))?;
        let mut record = Record::new(permit.profile().clone());
        record.generation = self.sealed_generation(permit.profile())?.unwrap_or(Generation::NONE);
        let mut vault = Vault { store: self, permit, folder, identity, record }.sign();
        if let (Some(key), Home::Keyring { keyring, service }) = (key, &self.home)
            && let (Published::Ours(published), _) =
                published::read(keyring.as_ref(), &vault.item(service), &vault.identity.uuid, key)?
        {
            vault.record.generation = vault.record.generation.max(published.generation);
        }
        Ok(vault)
    }

    /// What `status` must say of a profile whose sealed copy is missing, damaged or older than its journal, and how the
    /// profile stands then. Where there is a keyring, it may have what makes the copy whole again: the next flight tells.
    pub(super) fn flaw(&self, name: &ProfileName, record: &Record) -> Option<(State, Failure)> {
        let error = self.defect(name, record)?;
        if let Home::Keyring { .. } = self.home {
            let hint = format!("restore it from the keyring, if it is there: keepalive refresh -p {name}");
            return Some((State::Due, Failure::new(ErrorKind::Unsealed, error.to_string()).hint(hint)));
        }
        let outcome = error.outcome();
        let state = match outcome.kind {
            OutcomeKind::NeedsLogin => State::NeedsLogin,
            _ => State::ConfigError,
        };
        outcome.error.map(|failure| (state, failure))
    }

    /// The same of a profile whose store nobody knows any more, or which may not be used here, well as its sealed copy may be.
    pub(super) fn stray(&self, record: &Record) -> Option<(State, Failure)> {
        let is_seen = |error: &StoreError| !matches!(error, StoreError::Io { .. });
        let unusable = || self.check_filesystem().and_then(|()| self.identity().map(drop)).err().filter(is_seen);
        let error = record.has_credential().then(|| self.unidentified(record).or_else(unusable)).flatten()?;
        error.outcome().error.map(|failure| (State::ConfigError, failure))
    }

    fn defect(&self, name: &ProfileName, record: &Record) -> Option<StoreError> {
        if !record.has_credential() {
            return None;
        }
        let folder = self.layout.folder(name);
        let read = |path: std::path::PathBuf| durable::read(&path).map_err(|e| StoreError::io("read", &path, e));
        let header = |bytes: &[u8]| envelope::header(bytes).map(|header| header.generation);
        let is_newest = |generation: Generation| generation >= record.generation;
        let error = match read(folder.sealed()) {
            Err(error) => return Some(error),
            Ok(None) => StoreError::Lost { profile: name.to_string() },
            Ok(Some(bytes)) => match header(&bytes) {
                Err(damage) => StoreError::Damaged { path: folder.sealed(), damage },
                Ok(generation) if is_newest(generation) => return None,
                Ok(older) => StoreError::Stale { found: older.get(), known: record.generation.get() },
            },
        };
        // The newest answer did not get its final name yet; the next run gives it that.
        let received = read(folder.received()).ok().flatten().and_then(|bytes| header(&bytes).ok());
        (!received.is_some_and(is_newest)).then_some(error)
    }
}

/// A sealed copy that no journal is beside: the run that sealed it died, or the journal is lost, and with it what is known
/// of the token. A flight asks the ledger.
pub(super) fn without_journal(name: &ProfileName) -> (State, Failure) {
    let failure =
        Failure::new(ErrorKind::JournalMissing, "its record.json is missing; whether its token was sent is unknown")
            .hint(format!("to check: keepalive refresh -p {name}"));
    (State::InDoubt, failure)
}

impl Vault<'_, '_> {
    /// Notes in the journal what ends every run alike, if that is news, and nothing else: what a run that failed has in
    /// memory may be half of something. Where there is no journal, that is what is told.
    pub fn note_trouble(&mut self, trouble: Trouble) -> Result<(), StoreError> {
        let path = self.folder.record();
        let kept = Record::read(&path, self.permit.profile())?;
        if let Some(mut kept) = kept.filter(|kept| kept.trouble.as_ref() != Some(&trouble)) {
            kept.trouble = Some(trouble);
            kept.write(&path).map_err(|e| StoreError::io("write", &path, e))?;
        }
        Ok(())
    }

    /// The credential was opened: whatever kept others from it is over.
    pub(super) fn end_trouble(&mut self) -> Result<(), StoreError> {
        if self.record.trouble.take().is_some() { self.save() } else { Ok(()) }
    }

    /// Whether a published copy may take the place of a sealed one that is damaged: not if the sealed one was newer, by
    /// its header, or may have been: where that is damaged too, an attempt of which nobody knows the end may have brought it.
    pub(super) fn is_newest(&self, published: &Credential) -> Result<bool, StoreError> {
        let path = self.folder.sealed();
        let bytes = durable::read(&path).map_err(|e| StoreError::io("read", &path, e))?;
        let header = bytes.and_then(|bytes| envelope::header(&bytes).ok());
        Ok(match header.filter(|header| header.profile == *self.permit.profile()) {
            Some(header) => published.generation >= header.generation,
            None => self
                .record
                .open_intent()
                .is_none_or(|intent| intent.abandoned.is_some() || intent.generation < published.generation),
        })
    }
}
