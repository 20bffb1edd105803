//! Who a store directory is: its UUID, under which fingerprints are made, and the machine it lives on.

pub mod profiles;
pub mod rekey_fingerprints;
pub mod take_over;

use std::path::Path;
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::store::disk::layout::Layout;
use crate::store::journal::{Journal, later_format};
use crate::store::keys::sealing_key::random_bytes;
use crate::sys::file_watch::FileVersion;
use crate::sys::lockfile::LockFile;
use crate::sys::{durable, machine};

/// Written once, when the first credential comes; changed only by `doctor --take-over`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreIdentity {
    pub format: u32,
    pub uuid: String,
    /// A hash of the machine id; `None` where the machine has none.
    pub machine: Option<String>,
}

/// The version of the form. A store of a later one may make other fingerprints, by which this keepalive would know no spent
/// token again.
const FORMAT: u32 = 1;

/// The format of an identity that only a run has that cannot know the right one.
const TEMPORARY_FORMAT: u32 = 0;

impl StoreIdentity {
    /// Whether it is the right one.
    pub fn is_permanent(&self) -> bool {
        self.format != TEMPORARY_FORMAT
    }

    pub fn read(path: &Path) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = durable::read(path).map_err(|e| StoreError::io("read", path, e))? else {
            return Ok(None);
        };
        if let Some(found) = later_format(&bytes, FORMAT) {
            return Err(StoreError::LaterVersion { path: path.to_owned(), found });
        }
        let damaged = |why: String| StoreError::DamagedFile { path: path.to_owned(), why };
        let identity: Self = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        match identity.format {
            FORMAT => Ok(Some(identity)),
            other => Err(damaged(format!("it has format {other}; this version of keepalive supports {FORMAT}"))),
        }
    }

    /// The identity; if its file is gone, what the journals keep of it. `None`: they keep none, or name several.
    pub fn find(layout: &Layout) -> Result<Option<Self>, StoreError> {
        match Self::read(&layout.identity())? {
            Some(identity) => Ok(Some(identity)),
            None => Self::from_journals(layout),
        }
    }

    fn from_journals(layout: &Layout) -> Result<Option<Self>, StoreError> {
        let mut found: Option<Self> = None;
        for name in profiles::list_profiles_strictly(layout)? {
            let kept = match Journal::read(&layout.profile_folder(&name).journal(), &name) {
                Ok(journal) => journal.and_then(|journal| journal.store_identity),
                Err(StoreError::DamagedFile { .. }) => None,
                Err(e) => return Err(e),
            };
            let Some(kept) = kept else { continue };
            if found.as_ref().is_some_and(|found| found.uuid != kept.uuid) {
                return Ok(None);
            }
            // One that was made on another machine is enough: the credentials may live there as well.
            if found.is_none() || kept.is_on_other_machine() {
                found = Some(kept);
            }
        }
        Ok(found)
    }

    /// The identity, durable on return, and made if this is the first credential. The caller holds the store lock.
    ///
    /// None is made where fingerprints are: under another nobody would know the spent tokens again.
    pub fn read_or_create(layout: &Layout) -> Result<Self, StoreError> {
        let path = layout.identity();
        if let Some(identity) = Self::read(&path)? {
            return Ok(identity);
        }
        let identity = match Self::find(layout)? {
            Some(identity) => identity,
            None if profiles::has_known_tokens(layout)? => return Err(StoreError::identity_lost(layout)),
            None => Self::new(),
        };
        identity.write(&path)?;
        Ok(identity)
    }

    /// A new one, of this machine.
    pub fn new() -> Self {
        Self { format: FORMAT, uuid: new_uuid(), machine: machine::machine_id() }
    }

    pub fn write(&self, path: &Path) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| StoreError::io("write", path, e.into()))?;
        durable::replace(path, &bytes).map_err(|e| StoreError::io("write", path, e))
    }

    /// Whether this machine is another one than the store was made on: then the credentials may live twice.
    pub fn is_on_other_machine(&self) -> bool {
        match (&self.machine, machine::machine_id()) {
            (Some(made_on), Some(here)) => *made_on != here,
            _ => false,
        }
    }
}

impl Store {
    /// The identity, as [`StoreIdentity::find`] has it; its file is read again only if it has changed.
    pub(in crate::store) fn find_identity(&self) -> Result<Option<StoreIdentity>, StoreError> {
        let path = self.layout.identity();
        let version = FileVersion::of(&path);
        let mut cached = self.cached_identity.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, identity)) = &*cached
            && version == Some(*known)
        {
            return Ok(Some(identity.clone()));
        }
        let identity = StoreIdentity::find(&self.layout)?;
        let version = version.filter(|version| FileVersion::of(&path) == Some(*version));
        *cached = version.zip(identity.clone());
        Ok(identity)
    }

    /// The store's UUID, once it has one.
    pub fn uuid(&self) -> Option<String> {
        self.find_identity().ok().flatten().map(|identity| identity.uuid)
    }

    /// Who this store is, whatever machine it is on.
    pub(in crate::store) fn identity_of_any_machine(&self) -> Result<StoreIdentity, StoreError> {
        match self.find_identity()? {
            Some(identity) => Ok(identity),
            None if profiles::has_known_tokens(&self.layout)? => Err(StoreError::identity_lost(&self.layout)),
            None => Err(StoreError::Empty),
        }
    }

    /// The same, on the machine that it was made on.
    pub(in crate::store) fn identity(&self) -> Result<StoreIdentity, StoreError> {
        let identity = self.identity_of_any_machine()?;
        if identity.is_on_other_machine() { Err(StoreError::OtherMachine) } else { Ok(identity) }
    }

    /// The same for a person who forgets what is here: where nobody knows any more who this store is, a name that nothing
    /// else has, and that is not kept.
    pub(in crate::store) fn identity_or_temporary(&self) -> Result<StoreIdentity, StoreError> {
        match self.identity() {
            Err(StoreError::IdentityLost { .. }) => {
                Ok(StoreIdentity { format: TEMPORARY_FORMAT, ..StoreIdentity::new() })
            }
            identity => identity,
        }
    }

    /// That nobody knows who this store is, for whoever has a journal of a credential.
    pub(in crate::store) fn identity_lost_error(&self, journal: &Journal) -> Option<StoreError> {
        if journal.store_identity.is_some() || self.layout.identity().exists() {
            return None;
        }
        match self.find_identity() {
            Ok(Some(_)) => None,
            Ok(None) => Some(StoreError::identity_lost(&self.layout)),
            Err(e) => Some(e),
        }
    }

    /// Writes the identity's file again if it is gone and the journals know what was in it. Takes the store lock, so no
    /// profile lock may be held.
    pub(in crate::store) fn restore_identity(&self) -> Result<(), StoreError> {
        if self.layout.identity().exists() || self.find_identity()?.is_none() {
            return Ok(());
        }
        let path = self.layout.store_lock();
        let _held = LockFile::acquire(&path).map_err(|e| StoreError::io("lock", &path, e))?;
        StoreIdentity::read_or_create(&self.layout).map(drop)
    }
}

/// A random UUID (RFC 9562, version 4).
fn new_uuid() -> String {
    uuid::Builder::from_random_bytes(random_bytes()).into_uuid().to_string()
}
