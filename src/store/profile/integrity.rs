//! What can be seen to be wrong with a profile's homes, so that none is called fresh that has no sealed copy; and the way
//! out for a person whose journal is damaged.

use crate::credential::{Credential, Generation};
use crate::guard::Permit;
use crate::outcome::{ErrorKind, Failure, ProfileState};
use crate::profile::ProfileName;
use crate::store::disk::envelope;
use crate::store::journal::Journal;
use crate::store::journal::block::{Block, Cause};
use crate::store::keyring::KeyringItem;
use crate::store::keyring::item;
use crate::store::keyring::item::PublishedItem;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::{LockedProfile, Store, StoreBackend, StoreError};
use crate::sys::durable;

impl Store {
    /// Looks whether a profile's homes agree, without changing any: what `doctor` reports.
    pub fn check_copies_agree(&self, name: &ProfileName) -> Result<Vec<String>, StoreError> {
        self.check_filesystem()?;
        let identity = self.identity()?;
        let key = self.key(name.as_str())?;
        let mut warnings = Vec::new();
        let path = self.layout.profile_folder(name).sealed();
        let sealed = match durable::read(&path).map_err(|e| StoreError::io("read", &path, e))? {
            Some(bytes) => self.unseal_credential(&bytes, name, &key)?.generation,
            None => Generation::NONE,
        };
        let Some((keyring, service)) = self.keyring() else {
            return Ok(warnings);
        };
        let item = KeyringItem { service: service.to_owned(), user: name.to_string() };
        let (published, duplicates) = item::read(keyring, &item, &identity.uuid, &key)?;
        if duplicates > 0 {
            warnings.push(format!("{duplicates} more keyring items have the same attributes"));
        }
        match published {
            PublishedItem::Missing => warnings.push("the keyring has no item; the next refresh writes it".into()),
            PublishedItem::OtherStore { uuid, .. } => {
                return Err(StoreError::OtherStore { profile: item.user, other: uuid });
            }
            PublishedItem::Unverified { .. } => warnings.push("the keyring item was written by another program".into()),
            PublishedItem::Ours(credential) if credential.generation != sealed => {
                warnings
                    .push(format!("the keyring has generation {}, the sealed file {sealed}", credential.generation));
            }
            PublishedItem::Ours(_) => {}
        }
        Ok(warnings)
    }

    /// Opens a profile's files for a person who forgets or replaces what is there: a journal that is damaged is kept aside,
    /// and a new one counts on from the newest generation that S, and K where there is a key to know it by, speak of.
    pub fn open_discarding_damage<'s, 'l>(
        &'s self,
        permit: Permit<'l>,
        key: Option<&SealingKey>,
    ) -> Result<LockedProfile<'s, 'l>, StoreError> {
        let path = self.layout.profile_folder(permit.profile()).journal();
        let read = || durable::read(&path).map_err(|e| StoreError::io("read", &path, e));
        let is_damaged = matches!(Journal::read(&path, permit.profile()), Err(StoreError::DamagedFile { .. }));
        let Some(bytes) = read()?.filter(|_| is_damaged) else {
            return self.open_profile_as(permit, self.identity_or_temporary()?);
        };
        self.check_filesystem()?;
        let identity = self.identity_or_temporary()?;
        let folder = self.layout.profile_folder(permit.profile());
        let aside = path.with_extension("json.damaged");
        durable::replace(&aside, &bytes).map_err(|e| StoreError::io("write", &aside, e))?;
        let mut journal = Journal::new(permit.profile().clone());
        journal.generation = self.sealed_generation(permit.profile())?.unwrap_or(Generation::NONE);
        let mut locked = LockedProfile { store: self, permit, folder, identity, journal }.set_store_identity();
        if let (Some(key), StoreBackend::Keyring { keyring, service }) = (key, &self.backend)
            && let (PublishedItem::Ours(published), _) =
                item::read(keyring.as_ref(), &locked.keyring_item(service), &locked.identity.uuid, key)?
        {
            locked.journal.generation = locked.journal.generation.max(published.generation);
        }
        Ok(locked)
    }

    /// What `status` must say of a profile whose sealed copy is missing, damaged or older than its journal, and how the
    /// profile stands then. Where there is a keyring, it may have what makes the copy whole again: the next flight tells.
    pub(in crate::store) fn integrity_error(
        &self,
        name: &ProfileName,
        journal: &Journal,
    ) -> Option<(ProfileState, Failure)> {
        let error = self.sealed_file_error(name, journal)?;
        if let StoreBackend::Keyring { .. } = self.backend {
            let hint = format!("restore it from the keyring, if it is there: keepalive refresh -p {name}");
            return Some((ProfileState::Due, Failure::new(ErrorKind::Unsealed, error.to_string()).with_hint(hint)));
        }
        let outcome = error.outcome();
        outcome.error.map(|failure| (outcome.kind.into(), failure))
    }

    /// The same of a profile whose store nobody knows any more, or which may not be used here, well as its sealed copy may be.
    pub(in crate::store) fn store_unusable_error(&self, journal: &Journal) -> Option<(ProfileState, Failure)> {
        let is_seen = |error: &StoreError| !matches!(error, StoreError::Io { .. });
        let unusable = || self.check_filesystem().and_then(|()| self.identity().map(drop)).err().filter(is_seen);
        let error = journal.has_credential().then(|| self.identity_lost_error(journal).or_else(unusable)).flatten()?;
        let outcome = error.outcome();
        outcome.error.map(|failure| (outcome.kind.into(), failure))
    }

    fn sealed_file_error(&self, name: &ProfileName, journal: &Journal) -> Option<StoreError> {
        if !journal.has_credential() {
            return None;
        }
        let folder = self.layout.profile_folder(name);
        let read = |path: std::path::PathBuf| durable::read(&path).map_err(|e| StoreError::io("read", &path, e));
        let header = |bytes: &[u8]| envelope::header(bytes).map(|header| header.generation);
        let is_newest = |generation: Generation| generation >= journal.generation;
        let error = match read(folder.sealed()) {
            Err(error) => return Some(error),
            Ok(None) => StoreError::CredentialLost { profile: name.to_string() },
            Ok(Some(bytes)) => match header(&bytes) {
                Err(damage) => StoreError::CannotUnseal { path: folder.sealed(), damage },
                Ok(generation) if is_newest(generation) => return None,
                Ok(older) => StoreError::StaleCredential { found: older.get(), known: journal.generation.get() },
            },
        };
        // The newest answer did not get its final name yet; the next run gives it that.
        let received = read(folder.received()).ok().flatten().and_then(|bytes| header(&bytes).ok());
        (!received.is_some_and(is_newest)).then_some(error)
    }
}

/// A sealed copy that no journal is beside: the run that sealed it died, or the journal is lost, and with it what is known
/// of the token. A flight asks the ledger.
pub(in crate::store) fn journal_missing(name: &ProfileName) -> (ProfileState, Failure) {
    let failure =
        Failure::new(ErrorKind::JournalMissing, "its record.json is missing; whether its token was sent is unknown")
            .with_hint(format!("to check: keepalive refresh -p {name}"));
    (ProfileState::InDoubt, failure)
}

impl LockedProfile<'_, '_> {
    /// Notes in the journal what ends every run alike, if that is news, and nothing else: what a run that failed has in
    /// memory may be half of something. Where there is no journal, that is what is told.
    pub fn save_store_block(&mut self, block: Block) -> Result<(), StoreError> {
        let path = self.folder.journal();
        let kept = Journal::read(&path, self.permit.profile())?;
        if let Some(mut kept) = kept.filter(|kept| kept.block(Cause::Store) != Some(&block)) {
            kept.set_block(block);
            kept.write(&path).map_err(|e| StoreError::io("write", &path, e))?;
        }
        Ok(())
    }

    /// The credential was opened: whatever kept others from it is over.
    pub(in crate::store) fn clear_store_block(&mut self) -> Result<(), StoreError> {
        if self.journal.clear_blocks(&[Cause::Store]) { self.save_journal() } else { Ok(()) }
    }

    /// Whether a published copy may take the place of a sealed one that is damaged: not if the sealed one was newer, by
    /// its header, or may have been: where that is damaged too, an attempt of which nobody knows the end may have brought it.
    pub(in crate::store) fn may_replace_sealed(&self, published: &Credential) -> Result<bool, StoreError> {
        let path = self.folder.sealed();
        let bytes = durable::read(&path).map_err(|e| StoreError::io("read", &path, e))?;
        let header = bytes.and_then(|bytes| envelope::header(&bytes).ok());
        Ok(match header.filter(|header| header.profile == *self.permit.profile()) {
            Some(header) => published.generation >= header.generation,
            None => self
                .journal
                .open_intent()
                .is_none_or(|intent| intent.gave_up_at.is_some() || intent.generation < published.generation),
        })
    }
}
