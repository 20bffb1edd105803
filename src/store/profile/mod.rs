//! The files of one profile, opened under a permit: journal, sealed credential, received response, and the keyring
//! item.

pub(super) mod files;
pub(super) mod forget;
pub(super) mod integrity;
mod key_note;
mod marks;
pub(super) mod recovery;
mod room;
mod stamps;
pub(super) mod view;

use std::io;
use std::sync::Arc;

use crate::credential::secret::Fingerprint;
use crate::credential::{Credential, Generation};
use crate::events;
use crate::guard::{LockedCredential, Permit};
use crate::outcome::{ErrorKind, Publication};
use crate::store::disk::envelope::{self, SealedHeader};
use crate::store::disk::layout::ProfileFolder;
use crate::store::disk::sealed_content::{SealedContent, SealedResponse};
use crate::store::identity::StoreIdentity;
use crate::store::journal::block::Cause;
use crate::store::journal::{Intent, Journal};
use crate::store::keyring::KeyringError;
use crate::store::keyring::item::{ProfileItem, PublishedItem};
use crate::store::keys::Keys;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::profile::files::{ProfileFiles, SealedSlot, UnsealedCredential};
use crate::store::tokens::ledger::Ledger;
use crate::store::{Store, StoreError};
use crate::sys::durable::{self, StagedFile};
use crate::sys::file_watch::FileVersion;
use crate::sys::lockfile::LockFile;

/// One profile's files, the lock held.
pub struct LockedProfile<'s, 'l> {
    keys: &'s Keys,
    ledger: &'s Ledger,
    /// Where it is published, under `kind = "keyring"`.
    item: Option<ProfileItem<'s>>,
    permit: Permit<'l>,
    folder: ProfileFolder,
    identity: StoreIdentity,
    /// The journal as it stands on disk, or as it will after the next [`LockedProfile::save_journal`].
    pub journal: Journal,
    /// The sealed credential and the newest response, as they were read under the lock or written since.
    sealed: SealedSlot,
    received: SealedSlot,
    /// The files were copied here, or restored from a backup; settled by [`LockedProfile::accept_copy`].
    is_copied: bool,
    /// The lock of the path, if that came to lead to another file than the one that the permit is for.
    renewed_lock: Option<LockFile>,
}

impl std::fmt::Debug for LockedProfile<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LockedProfile({})", self.permit.profile())
    }
}

/// The newest credential, and how the keyring fared meanwhile.
#[derive(Debug)]
pub struct LoadedCredential<'l> {
    pub locked_credential: LockedCredential<'l>,
    pub fingerprint: Fingerprint,
    /// The keyring could not be read. Only given where the caller can go on without it.
    pub keyring_error: Option<KeyringError>,
    pub warnings: Vec<String>,
}

impl Store {
    /// Opens a profile's files: reads the journal under the lock, and checks that they belong to this store.
    pub fn open_profile<'s, 'l>(&'s self, permit: Permit<'l>) -> Result<LockedProfile<'s, 'l>, StoreError> {
        let identity = self.identity.usable_here()?;
        self.check_filesystem()?;
        let folder = self.layout.profile_folder(permit.profile());
        let files = ProfileFiles::read(&folder, permit.profile(), Some(&identity))?;
        self.lock_files(permit, identity, files)
    }

    fn lock_files<'s, 'l>(
        &'s self,
        permit: Permit<'l>,
        identity: StoreIdentity,
        files: ProfileFiles,
    ) -> Result<LockedProfile<'s, 'l>, StoreError> {
        events::step(permit.profile(), "reading the journal under the lock");
        let is_copied = files.is_copied() == Some(true);
        let ProfileFiles { journal, sealed, received } = files;
        let mut journal = journal.unwrap_or_else(|| Journal::new(permit.profile().clone()));
        match sealed.generation() {
            Ok(sealed) if journal.is_tombstone => journal.reopen_for_newer_login(sealed),
            // A file from a later version must not be replaced. Any other error is for the reader of that file.
            Err(e) if journal.is_tombstone || matches!(e, StoreError::LaterVersion { .. }) => return Err(e),
            Ok(_) | Err(_) => {}
        }
        journal.set_store(&identity);
        let item = self.keyring.as_ref().map(|k| ProfileItem::new(k, permit.profile(), &identity.uuid));
        let folder = self.layout.profile_folder(permit.profile());
        let (keys, ledger) = (&self.keys, &self.ledger);
        let renewed_lock = None;
        Ok(LockedProfile {
            keys,
            ledger,
            item,
            permit,
            folder,
            identity,
            journal,
            sealed,
            received,
            is_copied,
            renewed_lock,
        })
    }
}

impl<'l> LockedProfile<'_, 'l> {
    /// The id of the key of the sealed credential, if its header can be read.
    pub fn sealed_key_id(&self) -> Option<&str> {
        self.sealed.header().map(|header| header.key_id.as_str())
    }

    /// Writes the journal; durable on return.
    pub fn save_journal(&self) -> Result<(), StoreError> {
        let path = self.folder.journal();
        events::step(self.permit.profile(), "writing the journal");
        let is_of_sealed = self.sealed.header().is_some_and(|header| header.generation == self.journal.generation);
        let version = FileVersion::of(self.sealed.path()).filter(|_| is_of_sealed);
        let journal = Journal {
            sealed_mark: version.map(|version| version.mark()),
            store_identity: Some(self.identity.for_journal()).filter(StoreIdentity::is_permanent),
            ..self.journal.clone()
        };
        journal.write(&path).map_err(|e| StoreError::io("write", &path, e))
    }

    /// Reads the sealed credential and the keyring item, decides which is newest, and brings the other and the journal
    /// up to it.
    ///
    /// `is_keyring_optional`: whether a keyring that cannot be reached is reported in the result instead of as an
    /// error. `Ok(None)`: there is no credential.
    pub fn load(
        &mut self,
        key: &Arc<SealingKey>,
        is_keyring_optional: bool,
    ) -> Result<Option<LoadedCredential<'l>>, StoreError> {
        events::step(self.permit.profile(), "reading the sealed credential and the keyring item");
        self.refuse_foreign(key)?;
        let mut warnings = Vec::new();
        self.flush_ledger_backlog(&mut warnings)?;
        let sealed = if self.journal.is_tombstone { None } else { self.unseal_current(key) };
        let (published, keyring_error) = match self.read_keyring_item(key, &mut warnings) {
            Ok(published) => (published, None),
            Err(StoreError::Keyring(e)) if is_keyring_optional && self.can_load_without_keyring(sealed.as_ref()) => {
                (None, Some(e))
            }
            Err(e) => return Err(e),
        };
        let newest = match (sealed, published) {
            (Some(Ok(s)), Some(k)) if k.generation <= s.credential.generation => {
                self.mark_older_consumed(&k, &s.credential, key)?;
                if k.generation < s.credential.generation {
                    // An older item was restored; its reader has a consumed token, so the newest is published again.
                    self.set_publication_pending();
                }
                s
            }
            (Some(Ok(s)), None) => s,
            // It may be the newest, and readable the next time: nothing is put in its place.
            (Some(Err(unread @ StoreError::Io { .. })), _) => return Err(unread),
            (Some(Err(damage)), Some(k)) if !self.may_replace_sealed(&k) => return Err(damage),
            (sealed, Some(k)) if !self.journal.is_tombstone && k.generation >= self.journal.generation => {
                if let Some(Ok(s)) = &sealed {
                    self.mark_older_consumed(&s.credential, &k, key)?;
                }
                warnings.push(format!("adopted generation {} from the keyring", k.generation));
                self.seal_credential(&k, key)?;
                k.into()
            }
            (Some(Err(damage)), _) => return Err(damage),
            (None, _) if self.journal.has_credential() => {
                return Err(StoreError::CredentialLost { profile: self.permit.profile().to_string() });
            }
            (None, _) => return Ok(None),
            (Some(Ok(s)), Some(_)) => s,
        };
        let (found, known) = (newest.credential.generation, self.journal.generation);
        if found < known {
            return Err(StoreError::StaleCredential { found: found.get(), known: known.get() });
        }
        let fingerprint = key.fingerprint(&newest.credential.refresh);
        self.update_journal_to(&newest, &fingerprint)?;
        self.reconcile_with_ledger(&mut warnings)?;
        self.settle_opened(keyring_error.is_none())?;
        Ok(Some(LoadedCredential {
            locked_credential: self.permit.bind(newest.credential),
            fingerprint,
            keyring_error,
            warnings,
        }))
    }

    /// Whether the sealed credential is enough while the keyring cannot be read. It is not if only the keyring item can
    /// replace it, or if the item was last seen to be another store's.
    fn can_load_without_keyring(&self, sealed: Option<&Result<UnsealedCredential, StoreError>>) -> bool {
        let is_newest = |s: &UnsealedCredential| s.credential.generation >= self.journal.generation;
        let is_ours =
            self.journal.block(Cause::Store).is_none_or(|block| block.failure.kind != ErrorKind::DomainMismatch);
        let is_enough = match sealed {
            Some(sealed) => sealed.as_ref().is_ok_and(is_newest),
            None => !self.journal.has_credential(),
        };
        is_enough && is_ours
    }

    /// The keyring item, if it is ours.
    fn read_keyring_item(
        &mut self,
        key: &Arc<SealingKey>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Credential>, StoreError> {
        let Some(item) = &self.item else { return Ok(None) };
        let (published, duplicates) = item.read(key)?;
        let profile = self.permit.profile();
        if duplicates > 0 {
            warnings.push(format!("{duplicates} more keyring items name profile {profile}"));
        }
        if self.keys.restore_item(key, &self.identity)? {
            warnings.push("the sealing key was missing from the keyring and has been restored".into());
        }
        match published {
            PublishedItem::Ours(credential) => Ok(Some(*credential)),
            PublishedItem::OtherStore { uuid, .. } => {
                Err(StoreError::OtherStore { profile: profile.to_string(), other: uuid })
            }
            PublishedItem::Missing => {
                self.set_publication_pending();
                Ok(None)
            }
            PublishedItem::Empty => {
                warnings.push(format!("the keyring item of {profile} was empty"));
                self.set_publication_pending();
                Ok(None)
            }
            PublishedItem::Unverified { generation } => {
                let claim = generation.map_or(String::new(), |g| format!(" (it claims generation {g})"));
                warnings.push(format!(
                    "the keyring item of {profile} was written by another program{claim}; it is not used"
                ));
                self.set_publication_pending();
                Ok(None)
            }
        }
    }

    fn set_publication_pending(&mut self) {
        if self.item.is_some() {
            self.journal.publication = Publication::PublishPending;
        }
    }

    /// The older of two generations holds a token that is spent, if its successor has another.
    fn mark_older_consumed(&mut self, old: &Credential, new: &Credential, key: &SealingKey) -> Result<(), StoreError> {
        if old.generation < new.generation && old.refresh != new.refresh {
            self.mark_consumed(&key.fingerprint(&old.refresh))?;
        }
        Ok(())
    }

    /// The function that the send gate runs before it lets the request body go: it writes the intent; durable on
    /// return.
    pub fn intent_writer(&self, intent: Intent) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let mut journal = self.journal.clone();
        journal.intent = Some(intent);
        let path = self.folder.journal();
        move || {
            events::step(&journal.profile, "writing the intent");
            journal.write(&path)
        }
    }

    /// Seals a response that nothing has read yet; durable on return (rule 9).
    pub fn seal_response(
        &mut self,
        space: StagedFile,
        response: &SealedResponse,
        generation: Generation,
        attempt: &str,
        key: &SealingKey,
    ) -> Result<(), StoreError> {
        events::step(self.permit.profile(), "sealing the response");
        self.renew_lock()?;
        let header = self.header(generation, Some(attempt), key);
        let bytes = envelope::seal(&header, &SealedContent::Response(response), key)
            .map_err(|damage| self.keys.unseal_error(self.folder.received(), damage))?;
        self.received.write(bytes, |_, bytes| space.commit(bytes))
    }

    /// Takes the lock of the path where the permit's lock does not exclude other runs any more: its file, or a folder above
    /// it, was replaced during the flight. A response in hand is stored all the same, but beside no other run.
    fn renew_lock(&mut self) -> Result<(), StoreError> {
        let is_renewed = || self.renewed_lock.as_ref().is_some_and(|lock| lock.is_current().unwrap_or(false));
        if self.permit.is_lock_intact() || is_renewed() {
            return Ok(());
        }
        let path = self.folder.lock();
        let busy = || io::Error::new(io::ErrorKind::WouldBlock, "another run has it, and this one's was replaced");
        let lock = LockFile::try_acquire(&path).and_then(|lock| lock.ok_or_else(busy));
        self.renewed_lock = Some(lock.map_err(|e| StoreError::io("lock", &path, e))?);
        Ok(())
    }

    /// Makes the received response the sealed credential. The response is durable under its first name, from which
    /// recovery takes it as well; the new name is durable once [`LockedProfile::save_journal`] has synced the folder
    /// that both share.
    pub fn promote_response(&mut self) -> Result<(), StoreError> {
        events::step(self.permit.profile(), "making the response the sealed credential");
        self.sealed.take_from(&mut self.received)
    }

    /// Removes a settled response that brought no tokens.
    pub fn discard_response(&mut self) -> Result<(), StoreError> {
        events::step(self.permit.profile(), "removing the settled response");
        self.received.remove()
    }

    /// Seals a credential that came by login, import or adoption. Durable on return.
    pub fn seal_credential(&mut self, credential: &Credential, key: &SealingKey) -> Result<(), StoreError> {
        events::step(self.permit.profile(), "sealing the credential");
        let header = self.header(credential.generation, None, key);
        let bytes = envelope::seal(&header, &SealedContent::from_credential(credential), key)
            .map_err(|damage| self.keys.unseal_error(self.folder.sealed(), damage))?;
        self.sealed.write(bytes, durable::replace)
    }

    /// Whether a publication could succeed now. Always, where there is no keyring.
    pub fn check_keyring(&self) -> Result<(), KeyringError> {
        self.item.as_ref().map_or(Ok(()), ProfileItem::check)
    }

    /// Writes the keyring item and reads it back, and records in the journal (not saved yet) whether that worked.
    pub fn publish(&mut self, credential: &Credential, key: &SealingKey) -> Result<(), KeyringError> {
        let Some(item) = &self.item else {
            self.journal.publication = Publication::None;
            return Ok(());
        };
        events::step(self.permit.profile(), "writing the keyring item");
        self.journal.publication = Publication::PublishPending;
        // No store moves to a lower generation (rule 13), not even one that we do not trust.
        let newer = |g: u64| g > credential.generation.get();
        match item.read(key)?.0 {
            PublishedItem::Unverified { generation: Some(g) } if newer(g) => {
                return Err(KeyringError::Failed(format!(
                    "another program wrote a newer item (generation {g}) for this profile; remove it with secret-tool clear"
                )));
            }
            PublishedItem::Ours(k) if newer(k.generation.get()) => {
                let g = k.generation;
                return Err(KeyringError::Failed(format!(
                    "it has a newer credential (generation {g}) of this profile"
                )));
            }
            PublishedItem::Missing
            | PublishedItem::Empty
            | PublishedItem::Ours(_)
            | PublishedItem::OtherStore { .. }
            | PublishedItem::Unverified { .. } => {}
        }
        item.write(key, credential)?;
        self.journal.publication = Publication::Published;
        Ok(())
    }

    /// Publishes a credential that came by no response, unless another state directory has published this profile
    /// meanwhile and so owns it. A response that is here is published all the same, so that the other directory stops.
    pub fn publish_new_credential(&mut self, credential: &Credential, key: &SealingKey) -> Result<(), KeyringError> {
        let there = self.item.as_ref().map(|item| item.read(key));
        if let Some(Ok((PublishedItem::OtherStore { .. }, _))) = there {
            self.journal.publication = Publication::PublishPending;
            let why = "another state directory has written this profile to the keyring in the meantime: keepalive doctor \
                       --take-over";
            return Err(KeyringError::Failed(why.into()));
        }
        self.publish(credential, key)
    }

    fn header(&self, generation: Generation, attempt: Option<&str>, key: &SealingKey) -> SealedHeader {
        SealedHeader {
            profile: self.permit.profile().clone(),
            generation,
            attempt_id: attempt.map(str::to_owned),
            key_id: key.id().to_owned(),
        }
    }
}
