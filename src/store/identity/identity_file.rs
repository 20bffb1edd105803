//! `store.json`: the UUID of a store, and the machine, the owner and the very file that it was made for, as a plain value.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::store::disk::format::later_format;
use crate::store::keys::sealing_key::random_bytes;
use crate::sys::durable::{self, StagedFile};
use crate::sys::file_place::FilePlace;
use crate::sys::machine;

/// Written when the first credential comes, and again only if the file is lost or lacks what a later version notes;
/// changed only by `doctor --take-over`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreIdentity {
    pub format: u32,
    pub uuid: String,
    /// A hash of the machine id; `None` where the machine has none.
    pub machine: Option<String>,
    /// Drawn anew when a copy is taken over. The keyring has it beside the sealing key, so that the directory that was
    /// left behind learns of it. `None`: written before there was such a thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The file that this was written to: in any other file it is a copy. `None`: as for `owner`, or in a journal, or
    /// where files cannot be told from their copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FilePlace>,
}

/// The version of the form. A store of a later version may make other fingerprints, by which this version would not
/// recognise a consumed token.
const FORMAT: u32 = 1;

/// The format of a temporary identity, for a run that cannot know the right one.
pub(super) const TEMPORARY_FORMAT: u32 = 0;

impl StoreIdentity {
    /// Whether it is the right one.
    pub fn is_permanent(&self) -> bool {
        self.format != TEMPORARY_FORMAT
    }

    /// With the place of the file that it was read from.
    pub fn read(path: &Path) -> Result<Option<(Self, Option<FilePlace>)>, StoreError> {
        let found = durable::read_open(path).map_err(|e| StoreError::io("read", path, e))?;
        let Some((bytes, file)) = found else { return Ok(None) };
        let place = FilePlace::of(&file).map_err(|e| StoreError::io("examine", path, e))?;
        if let Some(found) = later_format(&bytes, FORMAT) {
            return Err(StoreError::LaterVersion { path: path.to_owned(), found });
        }
        let damaged = |why: String| StoreError::DamagedFile { path: path.to_owned(), why };
        let identity: Self = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        match identity.format {
            FORMAT => Ok(Some((identity, place))),
            other => Err(damaged(format!("it has format {other}; this version of keepalive supports {FORMAT}"))),
        }
    }

    /// A new one, of this machine.
    pub fn new() -> Self {
        let owner = Some(new_uuid());
        Self { format: FORMAT, uuid: new_uuid(), machine: machine::machine_id(), owner, file: None }
    }

    /// This store under a new owner, on this machine.
    pub fn taken_over(&self) -> Self {
        Self { machine: machine::machine_id(), owner: Some(new_uuid()), ..self.clone() }
    }

    /// This store with an owner, if it has none yet.
    pub fn with_owner(self) -> Self {
        Self { owner: self.owner.or_else(|| Some(new_uuid())), ..self }
    }

    /// What a journal keeps of it.
    pub fn for_journal(&self) -> Self {
        Self { file: None, ..self.clone() }
    }

    /// Writes it into a new file, with the place of that file; durable on return. A run that dies leaves the old file or
    /// the new one, and each is right about itself.
    pub fn write(self, path: &Path) -> Result<Self, StoreError> {
        let write = || -> io::Result<Self> {
            let staged = StagedFile::create(path, 0)?;
            let identity = Self { file: FilePlace::of(staged.file())?, ..self };
            staged.commit(&serde_json::to_vec_pretty(&identity)?)?;
            Ok(identity)
        };
        write().map_err(|e| StoreError::io("write", path, e))
    }

    /// Whether this machine is another one than the store was made on: then the credentials may live twice. A machine
    /// without an id, as most containers, is another than one that has an id.
    pub fn is_on_other_machine(&self) -> bool {
        self.machine != machine::machine_id()
    }
}

/// A random UUID (RFC 9562, version 4).
fn new_uuid() -> String {
    uuid::Builder::from_random_bytes(random_bytes()).into_uuid().to_string()
}
