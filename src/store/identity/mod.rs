//! The identity of a store directory: its UUID, which fingerprints depend on, and the machine it was made on.

pub mod identity_file;
pub mod profiles;
pub mod take_over;

use std::sync::{Mutex, PoisonError};

pub use self::identity_file::StoreIdentity;
use self::identity_file::TEMPORARY_FORMAT;
use crate::store::disk::layout::Layout;
use crate::store::journal::Journal;
use crate::store::{STORE_LOCK_WAIT, StoreError};
use crate::sys::file_watch::FileVersion;

/// Who one store is. The file is read again only if it has changed.
pub(in crate::store) struct IdentityCache {
    layout: Layout,
    /// What `store.json` said, and which version of it.
    cached: Mutex<Option<(FileVersion, StoreIdentity)>>,
}

impl IdentityCache {
    pub fn new(layout: Layout) -> Self {
        Self { layout, cached: Mutex::new(None) }
    }

    /// The identity; if its file is gone, what the journals keep of it.
    pub fn find(&self) -> Result<Option<StoreIdentity>, StoreError> {
        let path = self.layout.identity();
        let version = FileVersion::of(&path);
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, identity)) = &*cached
            && version == Some(*known)
        {
            return Ok(Some(identity.clone()));
        }
        let identity = match StoreIdentity::read(&path)? {
            Some(identity) => Some(identity),
            None => from_journals(&self.layout)?,
        };
        let version = version.filter(|version| FileVersion::of(&path) == Some(*version));
        *cached = version.zip(identity.clone());
        Ok(identity)
    }

    /// The identity, durable on return. It is created for the first credential. The caller holds the store lock.
    ///
    /// It is not created where fingerprints exist: under another identity no consumed token would be recognised.
    pub fn find_or_create(&self) -> Result<StoreIdentity, StoreError> {
        let (path, found) = (self.layout.identity(), self.find()?);
        if let Some(identity) = &found
            && path.exists()
        {
            return Ok(identity.clone());
        }
        let identity = match found {
            Some(identity) => identity,
            None if profiles::has_known_tokens(&self.layout)? => return Err(StoreError::identity_lost(&self.layout)),
            None => StoreIdentity::new(),
        };
        identity.write(&path)?;
        Ok(identity)
    }

    /// The UUID, once there is one.
    pub fn uuid(&self) -> Option<String> {
        self.find().ok().flatten().map(|identity| identity.uuid)
    }

    /// Who this store is, whatever machine it is on.
    pub fn of_any_machine(&self) -> Result<StoreIdentity, StoreError> {
        match self.find()? {
            Some(identity) => Ok(identity),
            None if profiles::has_known_tokens(&self.layout)? => Err(StoreError::identity_lost(&self.layout)),
            None => Err(StoreError::Empty),
        }
    }

    /// The identity, if this is the machine that it was made on.
    pub fn of_this_machine(&self) -> Result<StoreIdentity, StoreError> {
        let identity = self.of_any_machine()?;
        if identity.is_on_other_machine() { Err(StoreError::OtherMachine) } else { Ok(identity) }
    }

    /// The identity, or a temporary one, for a person who deletes what is here. The temporary one has a unique name and
    /// is not kept.
    pub fn or_temporary(&self) -> Result<StoreIdentity, StoreError> {
        match self.of_this_machine() {
            Err(StoreError::IdentityLost { .. }) => {
                Ok(StoreIdentity { format: TEMPORARY_FORMAT, ..StoreIdentity::new() })
            }
            identity => identity,
        }
    }

    /// Writes the identity's file again if it is gone and the journals know what was in it. Takes the store lock, so no
    /// profile lock may be held.
    pub fn restore(&self) -> Result<(), StoreError> {
        if self.layout.identity().exists() || self.find()?.is_none() {
            return Ok(());
        }
        let _held = StoreError::lock(&self.layout.store_lock(), STORE_LOCK_WAIT)?;
        self.find_or_create().map(drop)
    }
}

/// What the journals keep of the identity. `None`: they keep none, or name several.
fn from_journals(layout: &Layout) -> Result<Option<StoreIdentity>, StoreError> {
    let mut found: Option<StoreIdentity> = None;
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
        // One journal from another machine is enough: the credentials may live there as well.
        if found.is_none() || kept.is_on_other_machine() {
            found = Some(kept);
        }
    }
    Ok(found)
}
