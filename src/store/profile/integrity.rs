//! Checks whether a profile's files fit together, so that none is called fresh without a sealed copy, and opens damaged
//! ones for a person who discards them.

use std::fs::File;
use std::sync::Arc;

use crate::credential::{Credential, Generation};
use crate::guard::Permit;
use crate::outcome::{ErrorKind, Failure, ProfileState};
use crate::profile::ProfileName;
use crate::store::disk::layout::ProfileFolder;
use crate::store::journal::Journal;
use crate::store::journal::block::{Block, Cause};
use crate::store::keyring::item::{ProfileItem, PublishedItem};
use crate::store::keys::sealing_key::SealingKey;
use crate::store::profile::files::{ProfileFiles, SealedSlot};
use crate::store::tokens::ledger::Ledger;
use crate::store::{LockedProfile, Store, StoreError};
use crate::sys::durable;
use crate::sys::file_place::FilePlace;
use crate::sys::file_watch::FileVersion;

impl Store {
    /// Looks whether a profile's homes agree, without changing any: what `doctor` reports.
    pub fn check_copies_agree(&self, name: &ProfileName) -> Result<Vec<String>, StoreError> {
        self.check_filesystem()?;
        let identity = self.identity.usable_here()?;
        let key = match self.keys.load(name.as_str()) {
            Err(StoreError::Empty) => return Err(self.other_owner(name, &identity.uuid)?.unwrap_or(StoreError::Empty)),
            key => key?,
        };
        let mut warnings = Vec::new();
        let sealed = SealedSlot::read(self.layout.profile_folder(name).sealed()).unseal(name, &key, &self.keys)?;
        let sealed = sealed.map_or(Generation::NONE, |unsealed| unsealed.credential.generation);
        let Some(keyring) = &self.keyring else {
            return Ok(warnings);
        };
        let (published, duplicates) = ProfileItem::new(keyring, name, &identity.uuid).read(&key)?;
        if duplicates > 0 {
            warnings.push(format!("{duplicates} more keyring items have the same attributes"));
        }
        match published {
            PublishedItem::Missing => warnings.push("the keyring has no item; the next refresh writes it".into()),
            PublishedItem::Empty => warnings.push("the keyring item is empty; the next refresh writes it".into()),
            PublishedItem::OtherStore { uuid, .. } => {
                return Err(StoreError::OtherStore { profile: name.to_string(), other: uuid });
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

    /// That the keyring item of a profile belongs to another state directory, which is known without a key.
    fn other_owner(&self, name: &ProfileName, uuid: &str) -> Result<Option<StoreError>, StoreError> {
        let Some(keyring) = &self.keyring else { return Ok(None) };
        let other = ProfileItem::new(keyring, name, uuid).other_owner()?;
        Ok(other.map(|other| StoreError::OtherStore { profile: name.to_string(), other }))
    }

    /// Opens a profile's files for a person who forgets or replaces what is there. A damaged journal is moved aside, and a
    /// new one counts on from the newest generation of the sealed credential and, if there is a key to check it with, of
    /// the keyring item. `key` gives that key, by the id in the header of the sealed credential.
    pub fn open_discarding_damage<'s, 'l>(
        &'s self,
        permit: Permit<'l>,
        key: impl FnOnce(Option<&str>) -> Option<Arc<SealingKey>>,
    ) -> Result<LockedProfile<'s, 'l>, StoreError> {
        let identity = self.identity.or_temporary()?;
        self.check_filesystem()?;
        let folder = self.layout.profile_folder(permit.profile());
        match ProfileFiles::read(&folder, permit.profile(), None) {
            Err(StoreError::DamagedFile { .. }) => {}
            files => return self.lock_files(permit, identity, files?),
        }
        let path = folder.journal();
        let damaged = durable::read(&path).map_err(|e| StoreError::io("read", &path, e))?.unwrap_or_default();
        let aside = path.with_extension("json.damaged");
        durable::replace(&aside, &damaged).map_err(|e| StoreError::io("write", &aside, e))?;
        let (sealed, received) = (SealedSlot::read(folder.sealed()), SealedSlot::read(folder.received()));
        let generation = sealed.generation()?.unwrap_or(Generation::NONE);
        let mut locked = self.lock_files(permit, identity, ProfileFiles { journal: None, sealed, received })?;
        locked.journal.generation = generation;
        if let Some(item) = &locked.item
            && let Some(key) = key(locked.sealed_key_id())
            && let (PublishedItem::Ours(published), _) = item.read(&key)?
        {
            locked.journal.generation = generation.max(published.generation);
        }
        Ok(locked)
    }

    /// What `status` must say of a profile whose sealed copy is missing, damaged or older than its journal, and how the
    /// profile stands then. Where there is a keyring, it may have what makes the copy whole again: the next flight tells.
    pub(super) fn integrity_error(&self, files: &ProfileFiles, journal: &Journal) -> Option<(ProfileState, Failure)> {
        let error = sealed_file_error(files, journal)?;
        let name = &journal.profile;
        if self.keyring.is_some() {
            let hint = format!("restore it from the keyring, if it is there: keepalive refresh -p {name}");
            return Some((ProfileState::Due, Failure::new(ErrorKind::Unsealed, error.to_string()).with_hint(hint)));
        }
        let outcome = error.outcome();
        outcome.error.map(|failure| (outcome.kind.into(), failure))
    }

    /// The error of files that were restored from a backup, where no keyring can tell how old they are.
    pub(super) fn restored_error(&self, files: &ProfileFiles) -> Option<(ProfileState, Failure)> {
        let journal = files.journal.as_ref().filter(|_| self.keyring.is_none() && files.is_copied() == Some(true))?;
        let outcome = restored_error(journal, &self.layout.profile_folder(&journal.profile), &self.ledger)?.outcome();
        outcome.error.map(|failure| (outcome.kind.into(), failure))
    }

    /// The error of a profile whose store has lost its identity, or may not be used here, even if its sealed copy is
    /// fine.
    pub(super) fn store_unusable_error(&self, journal: &Journal) -> Option<(ProfileState, Failure)> {
        if !journal.has_credential() {
            return None;
        }
        let usable = self.check_filesystem().and_then(|()| self.identity.usable_here());
        let error = usable.err().filter(|error| !matches!(error, StoreError::Io { .. }))?;
        let outcome = error.outcome();
        outcome.error.map(|failure| (outcome.kind.into(), failure))
    }
}

/// What is wrong with copied files that no keyring can be asked about. That the ledger knows their token as consumed says
/// more, and is told for itself.
fn restored_error(journal: &Journal, folder: &ProfileFolder, ledger: &Ledger) -> Option<StoreError> {
    let token = journal.fingerprint.as_ref();
    if token.is_some_and(|token| ledger.is_consumed(token).unwrap_or(false)) {
        return None;
    }
    let is_noted = || journal.block(Cause::Store).is_some_and(|block| block.failure.kind == ErrorKind::Clone);
    (is_noted() || is_journal_copied(journal, folder))
        .then(|| StoreError::Restored { profile: journal.profile.to_string() })
}

/// Whether the journal's file is a copy of the one that was written: a restored backup is, also where its content was copied
/// over that file. Where no birth is told, it counts as one. Where files cannot be told from their copies at all, its time
/// tells. It is read anew, because this run may have written it.
fn is_journal_copied(journal: &Journal, folder: &ProfileFolder) -> bool {
    let path = folder.journal();
    let noted = Journal::read(&path, &journal.profile).ok().flatten().and_then(|journal| journal.file);
    let place = File::open(&path).and_then(|file| FilePlace::of(&file)).ok().flatten();
    match (noted, place) {
        (Some(noted), Some(place)) => !noted.is_surely_same(&place),
        (None, _) | (_, None) => FileVersion::of(&path).is_some_and(|version| version.is_restored()),
    }
}

fn sealed_file_error(files: &ProfileFiles, journal: &Journal) -> Option<StoreError> {
    if !journal.has_credential() {
        return None;
    }
    let is_newest = |generation: Generation| generation >= journal.generation;
    let error = match files.sealed.get() {
        Err(error) => return Some(error),
        Ok(None) => StoreError::CredentialLost { profile: journal.profile.to_string() },
        Ok(Some(file)) => match file.header() {
            Err(damage) => StoreError::CannotUnseal { path: files.sealed.path().to_owned(), damage: damage.clone() },
            Ok(header) if is_newest(header.generation) => return None,
            Ok(older) => StoreError::StaleCredential { found: older.generation.get(), known: journal.generation.get() },
        },
    };
    // The newest response did not get its final name yet; the next run gives it that.
    let received = files.received.header().map(|header| header.generation);
    (!received.is_some_and(is_newest)).then_some(error)
}

/// A sealed copy that no journal is beside: the run that sealed it died, or the journal is lost, and with it what is known
/// of the token. A flight asks the ledger.
pub(super) fn journal_missing(name: &ProfileName) -> (ProfileState, Failure) {
    let failure =
        Failure::new(ErrorKind::JournalMissing, "its record.json is missing; whether its token was sent is unknown")
            .with_hint(format!("to check: keepalive refresh -p {name}"));
    (ProfileState::InDoubt, failure)
}

impl LockedProfile<'_, '_> {
    /// Notes in the journal what ends every run alike, or that this one had no key, if that is news, and nothing else: what a
    /// run that failed has in memory may be half of something. Where there is no journal, that is what is told.
    pub fn save_store_block(&mut self, block: Block) -> Result<(), StoreError> {
        // Written anew, the journal of restored files would look like one that was written here.
        if self.is_copied && block.is_about_key() {
            return Ok(());
        }
        self.update_kept_journal(|kept| {
            let is_news = block.is_news_after(kept.block(Cause::Store));
            if is_news {
                kept.set_block(block);
            }
            is_news
        })
    }

    /// The key was had again.
    pub(super) fn clear_key_block(&mut self) -> Result<(), StoreError> {
        self.update_kept_journal(Journal::clear_key_block)
    }

    /// Changes the journal as it is on disk; durable on return. `change` says whether it did.
    fn update_kept_journal(&mut self, change: impl FnOnce(&mut Journal) -> bool) -> Result<(), StoreError> {
        let path = self.folder.journal();
        let Some(mut kept) = Journal::read(&path, self.permit.profile())? else { return Ok(()) };
        match change(&mut kept) {
            true => kept.write(&path).map_err(|e| StoreError::io("write", &path, e)),
            false => Ok(()),
        }
    }

    /// The credential was opened: whatever kept others from it is over. Of copied files the journal is written for these
    /// from now on, if the keyring was asked whether they are the newest.
    pub(super) fn settle_opened(&mut self, is_keyring_read: bool) -> Result<(), StoreError> {
        let is_settled = is_keyring_read && std::mem::take(&mut self.is_copied);
        if self.journal.clear_blocks(&[Cause::Store]) || is_settled { self.save_journal() } else { Ok(()) }
    }

    /// Refuses a folder that was copied in from another store. Its token, which may be in use or in doubt there, counts as
    /// consumed from now on: a copy of it is not taken from elsewhere either.
    pub(super) fn refuse_foreign(&mut self, key: &SealingKey) -> Result<(), StoreError> {
        let refused = self.journal.check_store(&self.folder.journal(), &self.identity);
        if refused.is_err()
            && let Some(Ok(theirs)) = self.unseal_current(key)
        {
            self.mark_consumed(&key.fingerprint(&theirs.credential.refresh))?;
        }
        refused.and_then(|()| self.refuse_restored())
    }

    /// Refuses files that were restored from a backup where no keyring can tell how old they are: the token may have been
    /// used since. The journal alone is not enough to tell that they were: a person may restore a damaged `sealed` beside
    /// it.
    fn refuse_restored(&self) -> Result<(), StoreError> {
        match self.is_copied && self.item.is_none() {
            true => restored_error(&self.journal, &self.folder, self.ledger).map_or(Ok(()), Err),
            false => Ok(()),
        }
    }

    /// A person vouches that these files are the newest. What the keyring has of a newer generation is adopted. `false`:
    /// there was nothing to accept.
    pub(in crate::store) fn accept_copy(
        &mut self,
        key: &Arc<SealingKey>,
        is_new_owner: bool,
    ) -> Result<bool, StoreError> {
        if !(is_new_owner || self.is_copied) || !self.journal.has_credential() {
            return Ok(false);
        }
        self.promote_pending_grant(key)?;
        if self.item.is_none() {
            self.is_copied = false;
        }
        self.load(key, false)?;
        self.save_journal()?;
        Ok(true)
    }

    /// Whether a published copy may take the place of a sealed one that is damaged: not if the sealed one was newer, by
    /// its header, or may have been: where that is damaged too, an attempt with an unknown outcome may have brought it.
    pub(super) fn may_replace_sealed(&self, published: &Credential) -> bool {
        match self.sealed.header().filter(|header| header.profile == *self.permit.profile()) {
            Some(header) => published.generation >= header.generation,
            None => self
                .journal
                .open_intent()
                .is_none_or(|intent| intent.gave_up_at.is_some() || intent.generation < published.generation),
        }
    }
}
