//! Lists the profiles of a store directory, by the files in their folders.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::profile::ProfileName;
use crate::store::StoreError;
use crate::store::disk::envelope;
use crate::store::disk::layout::{self, Layout};
use crate::store::journal::Journal;
use crate::sys::durable;
use crate::sys::file_place::FilePlace;
use crate::sys::file_watch::FileVersion;

/// Every profile that something is stored for, by name. A folder that cannot be looked into is for its own runs to tell.
pub(in crate::store) fn list_profiles(layout: &Layout) -> Result<Vec<ProfileName>, StoreError> {
    sorted_names(layout, |folder| Ok(profile_in_folder(folder).ok().flatten()))
}

/// Lists the profiles for a caller that must miss none: a folder that cannot be read is an error.
pub(super) fn list_profiles_strictly(layout: &Layout) -> Result<Vec<ProfileName>, StoreError> {
    sorted_names(layout, profile_in_folder)
}

fn sorted_names(
    layout: &Layout,
    name_of: impl Fn(&Path) -> Result<Option<ProfileName>, StoreError>,
) -> Result<Vec<ProfileName>, StoreError> {
    let mut names = Vec::new();
    for folder in list_folders(layout)? {
        names.extend(name_of(&folder)?);
    }
    names.sort();
    Ok(names)
}

/// Whether anything is sealed here.
pub(in crate::store) fn has_sealed_files(layout: &Layout) -> Result<bool, StoreError> {
    for name in list_profiles_strictly(layout)? {
        let folder = layout.profile_folder(&name);
        if file_exists(&folder.sealed())? || file_exists(&folder.received())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether any profile has a credential, be it only by its journal: then the key may be needed.
pub(in crate::store) fn has_credentials(layout: &Layout) -> Result<bool, StoreError> {
    if has_sealed_files(layout)? {
        return Ok(true);
    }
    for name in list_profiles(layout)? {
        let journal = Journal::read(&layout.profile_folder(&name).journal(), &name)?;
        if journal.is_some_and(|journal| journal.has_credential()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether there is something that the fingerprints of a store are needed for: a credential, or tokens that are known to
/// be spent. A journal that cannot be understood may be of one.
pub(in crate::store) fn has_known_tokens(layout: &Layout) -> Result<bool, StoreError> {
    if file_exists(&layout.ledger())? {
        return Ok(true);
    }
    for name in list_profiles_strictly(layout)? {
        let folder = layout.profile_folder(&name);
        let is_live = match Journal::read(&folder.journal(), &name) {
            Ok(journal) => journal.is_none_or(|journal| journal.has_credential()),
            Err(StoreError::DamagedFile { .. } | StoreError::LaterVersion { .. }) => true,
            Err(e) => return Err(e),
        };
        if is_live {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether all files were copied here. The journals note the sealed files that they were written for, and the volume that
/// they are in themselves: then none of these is right. `None`: there is no such note.
pub(super) fn are_files_copied(layout: &Layout) -> Result<Option<bool>, StoreError> {
    let mut are_copied = None;
    for name in list_profiles_strictly(layout)? {
        let folder = layout.profile_folder(&name);
        // What cannot be read is for the profile's own runs to tell.
        let Ok(Some(journal)) = Journal::read(&folder.journal(), &name) else { continue };
        let sealed = durable::read(&folder.sealed()).ok().flatten().and_then(|bytes| envelope::header(&bytes).ok());
        if is_in_other_volume(&journal, &folder.journal()) {
            are_copied = Some(true);
            continue;
        }
        match journal.is_copied(sealed.map(|header| header.generation), FileVersion::of(&folder.sealed())) {
            Some(false) => return Ok(Some(false)),
            is_copied => are_copied = are_copied.or(is_copied),
        }
    }
    Ok(are_copied)
}

/// As the files of an image are in each of its containers.
fn is_in_other_volume(journal: &Journal, path: &Path) -> bool {
    let place = File::open(path).and_then(|file| FilePlace::of(&file)).ok().flatten();
    journal.file.as_ref().zip(place).is_some_and(|(noted, place)| !noted.is_in_volume_of(&place))
}

pub(in crate::store) fn list_folders(layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
    let dir = layout.profiles();
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::io("read", &dir, e)),
    };
    entries.map(|entry| Ok(entry.map_err(|e| StoreError::io("read", &dir, e))?.path())).collect()
}

fn file_exists(path: &Path) -> Result<bool, StoreError> {
    match path.try_exists() {
        // A file among the folders is none of ours.
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Ok(false),
        found => found.map_err(|e| StoreError::io("examine", path, e)),
    }
}

/// The profile whose folder has this name; `None` where a long name was cut.
pub(in crate::store) fn name_of_folder(folder: &Path) -> Option<ProfileName> {
    folder.file_name().and_then(|n| n.to_str()).and_then(layout::profile_name)
}

/// The profile that a folder is of: by the folder's name, or, where a long name was cut, by its files.
pub(in crate::store) fn profile_in_folder(folder: &Path) -> Result<Option<ProfileName>, StoreError> {
    let (journal, sealed) = (folder.join("record.json"), folder.join("sealed"));
    if !file_exists(&journal)? && !file_exists(&sealed)? {
        return Ok(None);
    }
    if let Some(name) = name_of_folder(folder) {
        return Ok(Some(name));
    }
    let read = |path: &Path| durable::read(path).map_err(|e| StoreError::io("read", path, e));
    let named = read(&journal)?.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    if let Some(name) = named.as_ref().and_then(|v| v.get("profile")?.as_str()) {
        return Ok(name.parse().ok());
    }
    Ok(read(&sealed)?.and_then(|bytes| envelope::header(&bytes).ok()).map(|h| h.profile))
}
