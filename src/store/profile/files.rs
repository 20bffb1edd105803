//! A profile's files as they were at one look. They are read twice in a refresh: before the lock, which decides whether to
//! wait for it, and under it, which decides whether to send.

use std::io;
use std::path::{Path, PathBuf};

use crate::credential::{Credential, Generation};
use crate::profile::ProfileName;
use crate::store::StoreError;
use crate::store::disk::envelope::{self, SealedHeader, UnsealError};
use crate::store::disk::layout::ProfileFolder;
use crate::store::disk::sealed_content::{ResponseContent, SealedContent};
use crate::store::identity::StoreIdentity;
use crate::store::journal::transitions::GrantEffects;
use crate::store::journal::{Intent, Journal};
use crate::store::keys::Keys;
use crate::store::keys::sealing_key::SealingKey;
use crate::sys::durable;
use crate::sys::file_watch::FileVersion;

/// The bytes of a sealed file and its header. It is opened once the key is at hand.
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
        Self { file: Self::read_file(&path), path }
    }

    fn read_file(path: &Path) -> io::Result<Option<SealedFile>> {
        durable::read(path).map(|bytes| bytes.map(SealedFile::new))
    }

    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    pub(in crate::store) fn get(&self) -> Result<Option<&SealedFile>, StoreError> {
        match &self.file {
            Ok(file) => Ok(file.as_ref()),
            Err(e) => {
                let copy = || io::Error::new(e.kind(), e.to_string());
                let copy = e.raw_os_error().map_or_else(copy, io::Error::from_raw_os_error);
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

    /// The credential in it, if the file is there.
    pub(in crate::store) fn unseal(
        &self,
        profile: &ProfileName,
        key: &SealingKey,
        keys: &Keys,
    ) -> Result<Option<UnsealedCredential>, StoreError> {
        let Some(file) = self.get()? else { return Ok(None) };
        let damaged = |damage| keys.unseal_error(self.path.clone(), damage);
        let (SealedHeader { generation, attempt_id: attempt, .. }, content) =
            file.open(profile, key).map_err(damaged)?;
        let unsealed = match content {
            SealedContent::Credential(plain) => plain.to_credential(generation).map(UnsealedCredential::from),
            SealedContent::Response(response) => match response.parse(generation) {
                ResponseContent::Granted { credential, warnings, .. } => {
                    let asked = response.to_intent(attempt.as_deref(), generation, key);
                    let response = asked.map(|asked| (asked, response.grant_effects(warnings)));
                    Some(UnsealedCredential { credential: *credential, attempt: response })
                }
                ResponseContent::Denied(_) | ResponseContent::Unreadable | ResponseContent::TooLarge => None,
            },
        };
        let nothing = || damaged(UnsealError::ContentUnreadable("it has no refresh token".into()));
        unsealed.map(Some).ok_or_else(nothing)
    }

    /// Writes it by the function given. A write that failed may have happened all the same, so the file is read again.
    pub(in crate::store) fn write(
        &mut self,
        bytes: Vec<u8>,
        write: impl FnOnce(&Path, &[u8]) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        match write(&self.path, &bytes) {
            Ok(()) => self.file = Ok(Some(SealedFile::new(bytes))),
            Err(e) => {
                self.file = Self::read_file(&self.path);
                return Err(StoreError::io("write", &self.path, e));
            }
        }
        Ok(())
    }

    pub(in crate::store) fn remove(&mut self) -> Result<(), StoreError> {
        let removed = durable::remove(&self.path).map_err(|e| StoreError::io("remove", &self.path, e));
        self.file = if removed.is_ok() { Ok(None) } else { Self::read_file(&self.path) };
        removed
    }

    /// Renames another file to this one. Not durable before the folder is synced.
    #[expect(clippy::disallowed_methods, reason = "synced with the journal, by LockedProfile::save_journal")]
    pub(in crate::store) fn take_from(&mut self, other: &mut Self) -> Result<(), StoreError> {
        match std::fs::rename(&other.path, &self.path) {
            Ok(()) => self.file = std::mem::replace(&mut other.file, Ok(None)),
            Err(e) => {
                self.file = Self::read_file(&self.path);
                other.file = Self::read_file(&other.path);
                return Err(StoreError::io("write", &self.path, e));
            }
        }
        Ok(())
    }
}

/// A sealed credential, and how it came.
pub(in crate::store) struct UnsealedCredential {
    pub credential: Credential,
    /// The attempt that it responds to, and the effects of the grant. `None`: it came by a login, an import or the
    /// keyring.
    pub attempt: Option<(Intent, GrantEffects)>,
}

impl From<Credential> for UnsealedCredential {
    fn from(credential: Credential) -> Self {
        Self { credential, attempt: None }
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
    /// See [`Journal::is_copied`].
    pub(in crate::store) fn is_copied(&self) -> Option<bool> {
        let sealed = self.sealed.header().map(|header| header.generation);
        self.journal.as_ref()?.is_copied(sealed, FileVersion::of(self.sealed.path()))
    }

    /// `store`: the store that the folder must be of.
    pub(in crate::store) fn read(
        folder: &ProfileFolder,
        name: &ProfileName,
        store: Option<&StoreIdentity>,
    ) -> Result<Self, StoreError> {
        let journal = Journal::read(&folder.journal(), name)?;
        if let (Some(journal), Some(store)) = (&journal, store) {
            journal.check_store(&folder.journal(), store)?;
        }
        Ok(Self { journal, sealed: SealedSlot::read(folder.sealed()), received: SealedSlot::read(folder.received()) })
    }
}
