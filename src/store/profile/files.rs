//! A profile's files as they were at one look. They are read twice in a refresh: before the lock, which decides whether to
//! wait for it, and under it, which decides whether to send.

use std::io;
use std::path::{Path, PathBuf};

use crate::credential::{Credential, Generation, Snapshot};
use crate::outcome::Publication;
use crate::profile::ProfileName;
use crate::store::disk::envelope;
use crate::store::disk::envelope::{SealedHeader, UnsealError};
use crate::store::disk::layout::ProfileFolder;
use crate::store::disk::sealed_content::SealedContent;
use crate::store::journal::Journal;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::profile::integrity;
use crate::store::{Store, StoreError};
use crate::sys::durable;

/// The bytes of a sealed file and its header. It is opened when somebody has the key.
#[derive(Debug)]
pub(in crate::store) struct SealedFile {
    bytes: Vec<u8>,
    header: Result<SealedHeader, UnsealError>,
}

impl SealedFile {
    pub(in crate::store) fn new(bytes: Vec<u8>) -> Self {
        Self { header: envelope::header(&bytes), bytes }
    }

    pub(in crate::store) fn header(&self) -> Result<&SealedHeader, &UnsealError> {
        self.header.as_ref()
    }

    /// The generation that its header claims; `None` if that cannot be read.
    pub(in crate::store) fn generation(&self) -> Option<Generation> {
        self.header.as_ref().ok().map(|header| header.generation)
    }

    pub(in crate::store) fn open(
        &self,
        profile: &ProfileName,
        key: &SealingKey,
    ) -> Result<(SealedHeader, SealedContent), UnsealError> {
        envelope::open(&self.bytes, profile, key)
    }
}

/// A sealed file, if it is there and can be read. That it cannot be is an error for those who need it.
#[derive(Debug)]
pub(in crate::store) struct SealedSlot {
    path: PathBuf,
    file: io::Result<Option<SealedFile>>,
}

impl SealedSlot {
    pub(in crate::store) fn read(path: PathBuf) -> Self {
        let file = durable::read(&path).map(|bytes| bytes.map(SealedFile::new));
        Self { path, file }
    }

    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    pub(in crate::store) fn get(&self) -> Result<Option<&SealedFile>, StoreError> {
        match &self.file {
            Ok(file) => Ok(file.as_ref()),
            Err(e) => {
                let copy = e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error);
                Err(StoreError::io("read", &self.path, copy))
            }
        }
    }

    /// What its header says, if that can be read.
    pub(in crate::store) fn header(&self) -> Option<&SealedHeader> {
        self.file.as_ref().ok()?.as_ref()?.header().ok()
    }

    /// The generation in it; `None` if it is missing or damaged. Of what a later version sealed, neither the generation nor
    /// the token is known: that is an error.
    pub(in crate::store) fn generation(&self) -> Result<Option<Generation>, StoreError> {
        match self.get()?.map(SealedFile::header) {
            Some(Err(UnsealError::LaterVersion(found))) => {
                Err(StoreError::LaterVersion { path: self.path.clone(), found: *found })
            }
            Some(Ok(header)) => Ok(Some(header.generation)),
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// Notes what was just written.
    pub(in crate::store) fn set(&mut self, bytes: Vec<u8>) {
        self.file = Ok(Some(SealedFile::new(bytes)));
    }

    /// Notes that it was just removed.
    pub(in crate::store) fn clear(&mut self) {
        self.file = Ok(None);
    }

    /// Reads it again: a write failed, and may have happened all the same.
    pub(in crate::store) fn reread(&mut self) {
        *self = Self::read(std::mem::take(&mut self.path));
    }

    /// Takes what is in another file, which was just renamed to this one.
    pub(in crate::store) fn take_from(&mut self, other: &mut Self) {
        self.file = std::mem::replace(&mut other.file, Ok(None));
    }
}

/// The files of one profile, each read once. The journal comes first: the generation that it names was sealed before.
#[derive(Debug)]
pub(in crate::store) struct ProfileFiles {
    pub journal: Option<Journal>,
    pub sealed: SealedSlot,
    pub received: SealedSlot,
}

impl ProfileFiles {
    pub(in crate::store) fn read(folder: &ProfileFolder, name: &ProfileName) -> Result<Self, StoreError> {
        Ok(Self {
            journal: Journal::read(&folder.journal(), name)?,
            sealed: SealedSlot::read(folder.sealed()),
            received: SealedSlot::read(folder.received()),
        })
    }
}

/// What a look without the lock tells.
#[derive(Debug)]
pub struct ProfileView {
    /// The journal, with what the other files add to it. `None`: nothing was ever stored.
    pub journal: Option<Journal>,
    files: ProfileFiles,
}

impl ProfileView {
    /// The key that the credential is sealed under.
    pub fn key_id(&self) -> Option<&str> {
        self.files.sealed.header().map(|header| header.key_id.as_str())
    }
}

impl Store {
    /// What is known of a profile without lock, key or keyring.
    pub fn view(&self, name: &ProfileName) -> Result<ProfileView, StoreError> {
        let files = ProfileFiles::read(&self.layout.profile_folder(name), name)?;
        let sealed = files.sealed.generation()?;
        let mut journal = files.journal.clone();
        // A run that died between seal and journal left a generation that the journal does not know yet.
        let is_behind = sealed.is_some_and(|sealed| journal.as_ref().is_none_or(|r| r.generation < sealed));
        if let Some(sealed) = sealed.filter(|_| is_behind) {
            let journal = journal.get_or_insert_with(|| Journal::new(name.clone()));
            journal.reopen_for_newer_login(Some(sealed));
            journal.generation = sealed;
            // What the journal says of the generation before does not hold for this one; a flight brings it up to date.
            journal.validity = None;
            if self.keyring().is_some() {
                journal.publication = Publication::PublishPending;
            }
        }
        if let Some(journal) = &mut journal {
            let is_unsealed = sealed.is_none_or(|sealed| sealed < journal.generation);
            let unsealed = || is_unsealed.then(|| self.integrity_error(&files, journal)).flatten();
            journal.integrity_error = self
                .store_unusable_error(journal)
                .or_else(unsealed)
                .or_else(|| files.journal.is_none().then(|| integrity::journal_missing(name)));
        }
        // Of what the journal is behind with, it has no fingerprint.
        let is_overtaken = match &mut journal {
            Some(journal) if !is_behind => self.apply_ledger_entry_unlocked(journal)?,
            Some(_) | None => false,
        };
        if is_overtaken { self.view(name) } else { Ok(ProfileView { journal, files }) }
    }

    /// The journal of [`Store::view`].
    pub fn peek(&self, name: &ProfileName) -> Result<Option<Journal>, StoreError> {
        self.view(name).map(|view| view.journal)
    }

    /// The newest committed credential without its refresh token, read without a lock.
    pub fn snapshot(&self, name: &ProfileName) -> Result<Option<Snapshot>, StoreError> {
        let files = ProfileFiles::read(&self.layout.profile_folder(name), name)?;
        self.snapshot_of_files(name, &files)
    }

    /// The credential that was there at that look, as [`Store::snapshot`] gives it.
    pub fn snapshot_of(&self, name: &ProfileName, view: &ProfileView) -> Result<Option<Snapshot>, StoreError> {
        self.snapshot_of_files(name, &view.files)
    }

    fn snapshot_of_files(&self, name: &ProfileName, files: &ProfileFiles) -> Result<Option<Snapshot>, StoreError> {
        let is_forgotten = match &files.journal {
            Some(journal) if journal.is_tombstone => {
                files.sealed.generation()?.is_none_or(|sealed| sealed <= journal.generation)
            }
            Some(_) | None => false,
        };
        let Some(file) = files.sealed.get()?.filter(|_| !is_forgotten) else { return Ok(None) };
        let known = files.journal.as_ref().map_or(Generation::NONE, |journal| journal.generation);
        let key = self.key_for_header(name, files.sealed.header())?;
        let sealed = self.unseal_credential(file, name, &key)?;
        if sealed.generation >= known {
            return Ok(Some(sealed.snapshot()));
        }
        // An older copy was restored; or the newest response did not get its final name, and the next run gives it that.
        let token = files.journal.as_ref().and_then(|journal| journal.fingerprint.as_ref());
        let received = files.received.get()?.and_then(|file| self.unseal_credential(file, name, &key).ok());
        let is_newest = |c: &Credential| c.generation == known && token == Some(&key.fingerprint(&c.refresh));
        match received.filter(is_newest) {
            Some(credential) => Ok(Some(credential.snapshot())),
            None => Err(StoreError::StaleCredential { found: sealed.generation.get(), known: known.get() }),
        }
    }
}
