//! The identity of a store directory: its UUID, which fingerprints depend on, and the machine and the directory that it
//! was made for.

pub(super) mod identity_file;
pub(super) mod profiles;
pub(super) mod take_over;

use std::sync::{Mutex, PoisonError};

pub(super) use self::identity_file::StoreIdentity;
use self::identity_file::TEMPORARY_FORMAT;
use crate::store::disk::layout::Layout;
use crate::store::journal::Journal;
use crate::store::{STORE_LOCK_WAIT, StoreError};
use crate::sys::durable;
use crate::sys::file_place::FilePlace;
use crate::sys::file_watch::FileVersion;
use crate::sys::lockfile::LockFile;

/// Who one store is. The file is read again only if it has changed.
pub(in crate::store) struct IdentityCache {
    layout: Layout,
    /// What `store.json` said, and which version of it.
    cached: Mutex<Option<(FileVersion, FoundIdentity)>>,
}

/// An identity, and what its file tells of this directory.
#[derive(Clone)]
struct FoundIdentity {
    identity: StoreIdentity,
    origin: Origin,
}

/// Whether a directory is the one that its identity was made for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// As far as can be told.
    Original,
    /// The file is gone, or was written before it noted its place. Nothing speaks of a copy.
    Unnoted,
    /// The files were copied here.
    Copied,
}

impl FoundIdentity {
    /// Whether the store may be used in this directory and on this machine.
    fn is_at_home(&self) -> bool {
        self.origin != Origin::Copied && !self.identity.is_on_other_machine()
    }
}

impl IdentityCache {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, cached: Mutex::new(None) }
    }

    /// The identity; if its file is gone, what the journals keep of it.
    pub(super) fn find(&self) -> Result<Option<StoreIdentity>, StoreError> {
        Ok(self.look()?.map(|found| found.identity))
    }

    fn look(&self) -> Result<Option<FoundIdentity>, StoreError> {
        let path = self.layout.identity();
        let version = FileVersion::of(&path);
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, found)) = &*cached
            && version == Some(*known)
        {
            return Ok(Some(found.clone()));
        }
        let found = match StoreIdentity::read(&path)? {
            Some((identity, place)) => {
                let origin = self.origin(identity.file.as_ref(), place.as_ref())?;
                Some(FoundIdentity { identity, origin })
            }
            None => from_journals(&self.layout)?
                .map(|identity| Ok::<_, StoreError>(FoundIdentity { identity, origin: self.origin_by_journals()? }))
                .transpose()?,
        };
        let version = version.filter(|version| FileVersion::of(&path) == Some(*version));
        *cached = version.zip(found.clone());
        Ok(found)
    }

    /// `noted`: what the file says of its place; `place`: where it is. A person may have restored this file alone.
    fn origin(&self, noted: Option<&FilePlace>, place: Option<&FilePlace>) -> Result<Origin, StoreError> {
        let is_copied = match (noted, place) {
            (Some(noted), Some(place)) if noted.is_same(place) => return Ok(Origin::Original),
            (Some(_), Some(_)) => profiles::are_files_copied(&self.layout)?.unwrap_or(true),
            (Some(_), None) => true,
            (None, Some(_)) => profiles::are_files_copied(&self.layout)?.unwrap_or(false),
            (None, None) => return Ok(Origin::Original),
        };
        Ok(if is_copied { Origin::Copied } else { Origin::Unnoted })
    }

    /// Judged without the identity's file.
    fn origin_by_journals(&self) -> Result<Origin, StoreError> {
        let dir = self.layout.dir();
        let place = std::fs::File::open(dir).and_then(|dir| FilePlace::of(&dir));
        match place.map_err(|e| StoreError::io("examine", dir, e))? {
            Some(place) => self.origin(None, Some(&place)),
            None => Ok(Origin::Unnoted),
        }
    }

    /// The identity, durable on return. It is created for the first credential. The caller holds the store lock.
    ///
    /// It is not created where fingerprints exist: under another identity no consumed token would be recognised. Nor is
    /// it written again in a copy, which would make that the original.
    pub(super) fn find_or_create(&self) -> Result<StoreIdentity, StoreError> {
        let path = self.layout.identity();
        let identity = match self.look()? {
            Some(found) if path.exists() && !(found.origin == Origin::Unnoted && found.is_at_home()) => {
                return Ok(found.identity);
            }
            Some(found) if found.origin == Origin::Copied => return Err(StoreError::copied(&self.layout)),
            Some(found) => found.identity.with_owner(),
            None if profiles::has_known_tokens(&self.layout)? => return Err(StoreError::identity_lost(&self.layout)),
            None => StoreIdentity::new(),
        };
        identity.write(&path)
    }

    /// Removes the identity of a store in which nothing is. The caller holds the store lock.
    pub(super) fn discard(&self) -> Result<(), StoreError> {
        let path = self.layout.identity();
        durable::remove(&path).map_err(|e| StoreError::io("remove", &path, e))
    }

    /// The UUID, once there is one.
    pub(super) fn uuid(&self) -> Option<String> {
        self.find().ok().flatten().map(|identity| identity.uuid)
    }

    /// Who this store is, whatever machine it is on.
    pub(super) fn of_any_machine(&self) -> Result<StoreIdentity, StoreError> {
        match self.find()? {
            Some(identity) => Ok(identity),
            None if profiles::has_known_tokens(&self.layout)? => Err(StoreError::identity_lost(&self.layout)),
            None => Err(StoreError::Empty),
        }
    }

    /// The identity, if the store may be used here: on the machine, and in the directory, that it was made for.
    pub(super) fn usable_here(&self) -> Result<StoreIdentity, StoreError> {
        let identity = self.of_any_machine()?;
        if identity.is_on_other_machine() {
            return Err(StoreError::OtherMachine);
        }
        match self.look()? {
            Some(found) if found.origin == Origin::Copied => Err(StoreError::copied(&self.layout)),
            Some(_) | None => Ok(identity),
        }
    }

    /// Refuses a store that may not be used here. One that is not there yet may be made.
    pub(super) fn check_usable_here(&self) -> Result<(), StoreError> {
        match self.usable_here() {
            Err(e @ (StoreError::OtherMachine | StoreError::Copied { .. })) => Err(e),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Makes this directory and machine the owner, and says whether they were not. The caller holds the store lock.
    /// `is_owner`: whether the keyring names this owner, or none.
    pub(super) fn take_over(
        &self,
        is_owner: impl FnOnce(&StoreIdentity) -> Result<bool, StoreError>,
    ) -> Result<(StoreIdentity, bool), StoreError> {
        let Some(found) = self.look()? else { return Ok((self.find_or_create()?, false)) };
        if found.is_at_home() && is_owner(&found.identity)? {
            return Ok((self.find_or_create()?, false));
        }
        Ok((found.identity.taken_over().write(&self.layout.identity())?, true))
    }

    /// The identity, or a temporary one, for a person who deletes what is here. The temporary one has a unique name and
    /// is not kept.
    pub(super) fn or_temporary(&self) -> Result<StoreIdentity, StoreError> {
        match self.usable_here() {
            Err(StoreError::IdentityLost { .. }) => {
                Ok(StoreIdentity { format: TEMPORARY_FORMAT, ..StoreIdentity::new() })
            }
            identity => identity,
        }
    }

    /// Writes the identity's file again if it is gone and the journals know what was in it, or if it lacks what this
    /// version notes. Takes the store lock, so no profile lock may be held.
    pub(super) fn restore(&self) -> Result<(), StoreError> {
        let Some(found) = self.look()? else { return Ok(()) };
        let lock = self.layout.store_lock();
        let _held = match (self.layout.identity().exists(), found.origin) {
            (_, Origin::Copied) | (true, Origin::Original) => return Ok(()),
            (false, _) => StoreError::lock(&lock, STORE_LOCK_WAIT)?,
            // It is not urgent.
            (true, Origin::Unnoted) => match LockFile::try_acquire(&lock) {
                Ok(Some(held)) => held,
                Ok(None) | Err(_) => return Ok(()),
            },
        };
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
        let is_better = |found: &StoreIdentity| {
            kept.is_on_other_machine() || (found.owner.is_none() && !found.is_on_other_machine())
        };
        if found.as_ref().is_none_or(is_better) {
            found = Some(kept);
        }
    }
    Ok(found)
}
