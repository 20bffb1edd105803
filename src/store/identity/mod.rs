//! The identity of a store directory: its UUID, which fingerprints depend on, and the machine it was made on.

pub mod identity_file;
pub mod profiles;
pub mod take_over;

use std::sync::PoisonError;

pub use self::identity_file::StoreIdentity;
use self::identity_file::TEMPORARY_FORMAT;
use super::{Store, StoreError};
use crate::store::disk::layout::Layout;
use crate::store::journal::Journal;
use crate::sys::file_watch::FileVersion;
use crate::sys::lockfile::LockFile;

impl StoreIdentity {
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
            // One journal from another machine is enough: the credentials may live there as well.
            if found.is_none() || kept.is_on_other_machine() {
                found = Some(kept);
            }
        }
        Ok(found)
    }

    /// The identity, durable on return. It is created for the first credential. The caller holds the store lock.
    ///
    /// It is not created where fingerprints exist: under another identity no consumed token would be recognised.
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

    /// The identity, if this is the machine that it was made on.
    pub(in crate::store) fn identity(&self) -> Result<StoreIdentity, StoreError> {
        let identity = self.identity_of_any_machine()?;
        if identity.is_on_other_machine() { Err(StoreError::OtherMachine) } else { Ok(identity) }
    }

    /// The identity, or a temporary one, for a person who deletes what is here. The temporary one has a unique name and
    /// is not kept.
    pub(in crate::store) fn identity_or_temporary(&self) -> Result<StoreIdentity, StoreError> {
        match self.identity() {
            Err(StoreError::IdentityLost { .. }) => {
                Ok(StoreIdentity { format: TEMPORARY_FORMAT, ..StoreIdentity::new() })
            }
            identity => identity,
        }
    }

    /// The error that the store's identity is lost, for a profile whose journal has a credential.
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
