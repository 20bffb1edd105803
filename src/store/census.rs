//! What a store directory holds something of: its profiles, by the files that lie in their folders.

use std::io;
use std::path::{Path, PathBuf};

use super::layout::{self, Layout};
use super::record::Record;
use super::{Store, StoreError, envelope};
use crate::profile::ProfileName;
use crate::sys::durable;

impl Store {
    /// Every profile that something is stored for, by name. A folder that cannot be looked into is for its own runs to tell.
    pub fn profiles(&self) -> Result<Vec<ProfileName>, StoreError> {
        let folders = folders(&self.layout)?;
        let mut names: Vec<ProfileName> =
            folders.iter().filter_map(|folder| profile_of(folder).ok().flatten()).collect();
        names.sort();
        Ok(names)
    }

    /// Whether anything is sealed here.
    pub(super) fn has_sealed_files(&self) -> Result<bool, StoreError> {
        for name in every_profile(&self.layout)? {
            let folder = self.layout.folder(&name);
            if is_there(&folder.sealed())? || is_there(&folder.received())? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The same for whoever must miss none: a folder that cannot be looked into is an error.
pub(super) fn every_profile(layout: &Layout) -> Result<Vec<ProfileName>, StoreError> {
    let mut names = Vec::new();
    for folder in folders(layout)? {
        names.extend(profile_of(&folder)?);
    }
    names.sort();
    Ok(names)
}

/// Whether there is something that the fingerprints of a store are needed for: a credential, or tokens that are known to
/// be spent. A journal that cannot be understood may be of one.
pub(super) fn is_in_use(layout: &Layout) -> Result<bool, StoreError> {
    if is_there(&layout.ledger())? {
        return Ok(true);
    }
    for name in every_profile(layout)? {
        let folder = layout.folder(&name);
        let is_live = match Record::read(&folder.record(), &name) {
            Ok(record) => record.is_none_or(|record| record.has_credential()),
            Err(StoreError::DamagedRecord { .. } | StoreError::LaterVersion { .. }) => true,
            Err(e) => return Err(e),
        };
        if is_live {
            return Ok(true);
        }
    }
    Ok(false)
}

fn folders(layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
    let dir = layout.profiles();
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::io("read", &dir, e)),
    };
    entries.map(|entry| Ok(entry.map_err(|e| StoreError::io("read", &dir, e))?.path())).collect()
}

fn is_there(path: &Path) -> Result<bool, StoreError> {
    match path.try_exists() {
        // A file among the folders is none of ours.
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Ok(false),
        found => found.map_err(|e| StoreError::io("examine", path, e)),
    }
}

/// The profile that a folder is of: by the folder's name, or, where a long name was cut, by its files.
fn profile_of(folder: &Path) -> Result<Option<ProfileName>, StoreError> {
    let (record, sealed) = (folder.join("record.json"), folder.join("sealed"));
    if !is_there(&record)? && !is_there(&sealed)? {
        return Ok(None);
    }
    if let Some(name) = folder.file_name().and_then(|n| n.to_str()).and_then(layout::profile_of) {
        return Ok(Some(name));
    }
    let read = |path: &Path| durable::read(path).map_err(|e| StoreError::io("read", path, e));
    let named = read(&record)?.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    if let Some(name) = named.as_ref().and_then(|v| v.get("profile")?.as_str()) {
        return Ok(name.parse().ok());
    }
    Ok(read(&sealed)?.and_then(|bytes| envelope::header(&bytes).ok()).map(|h| h.profile))
}
