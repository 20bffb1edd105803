//! A profile's files as they were at one look. They are read twice in a refresh: before the lock, which decides whether to
//! wait for it, and under it, which decides whether to send.

use std::io;
use std::path::{Path, PathBuf};

use crate::credential::Generation;
use crate::profile::ProfileName;
use crate::store::StoreError;
use crate::store::disk::envelope;
use crate::store::disk::envelope::{SealedHeader, UnsealError};
use crate::store::disk::layout::ProfileFolder;
use crate::store::disk::sealed_content::SealedContent;
use crate::store::identity::StoreIdentity;
use crate::store::journal::Journal;
use crate::store::keys::sealing_key::SealingKey;
use crate::sys::durable;

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
        Ok(Self {
            journal,
            sealed: SealedSlot::read(folder.sealed()),
            received: SealedSlot::read(folder.received()),
        })
    }
}
