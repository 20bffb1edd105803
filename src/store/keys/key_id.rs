//! Finds out under which key a store is sealed, from the headers of its files, which need no key to be read.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::profile::{KeySource, ProfileName};
use crate::store::StoreError;
use crate::store::disk::envelope::{self, SealedHeader, UnsealError};
use crate::store::identity::profiles;
use crate::store::journal::Journal;
use crate::store::keys::sealing_key::{self, KeyError, SealingKey};
use crate::store::keys::{KeyPlace, Keys};
use crate::sys::durable;

/// What the sealed files of a store tell of their key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedUnder {
    /// Nothing is sealed here: any key will do.
    Nothing,
    /// Something is, but no header can be read.
    Unreadable,
    /// One file at least is sealed under the key with this id.
    Key(String),
}

impl Keys {
    /// The key that files here are sealed with, for a caller without a key. It stops at the first header that it can
    /// read.
    fn sealed_under(&self) -> Result<SealedUnder, StoreError> {
        let mut sealed_under = SealedUnder::Nothing;
        for name in profiles::list_profiles(&self.layout)? {
            match self.sealed_file(&name) {
                Some((_, Some(header))) => return Ok(SealedUnder::Key(header.key_id)),
                Some((_, None)) => sealed_under = SealedUnder::Unreadable,
                None => {}
            }
        }
        Ok(sealed_under)
    }

    /// Refuses a key that is not the one that this store is sealed under, lest it come to lie under two.
    ///
    /// A profile (`within`; none if empty) that has a file of its own is judged by that one alone, when it is opened: to
    /// replace it is the way out of a lost key. Of the others the first whose header names this key is enough, and one
    /// that cannot be read has no say.
    pub fn check_id(&self, key: &SealingKey, within: &str) -> Result<(), StoreError> {
        let mut other: Option<(PathBuf, String)> = None;
        for folder in profiles::list_folders(&self.layout)? {
            let by_name = profiles::name_of_folder(&folder);
            let Some(name) = by_name.or_else(|| profiles::profile_in_folder(&folder).ok().flatten()) else { continue };
            let Some((path, Some(header))) = self.sealed_file(&name) else { continue };
            if header.key_id == key.id() || name.as_str() == within {
                return Ok(());
            }
            if other.as_ref().is_none_or(|(first, _)| path < *first) {
                other = Some((path, header.key_id));
            }
        }
        match other {
            Some((path, id)) => Err(self.unseal_error(path, UnsealError::OtherKey(id))),
            None => Ok(()),
        }
    }

    /// The profiles whose files this key does not open, each with why.
    pub fn profiles_sealed_by_other(&self, key: &SealingKey) -> Result<Vec<(ProfileName, StoreError)>, StoreError> {
        let judge = |name: ProfileName| {
            let (path, header) = self.sealed_file(&name)?;
            let id = header.map(|h| h.key_id).filter(|id| id != key.id())?;
            Some((name, self.unseal_error(path, UnsealError::OtherKey(id))))
        };
        Ok(profiles::list_profiles(&self.layout)?.into_iter().filter_map(judge).collect())
    }

    /// That the key file is not there, found out without reading it. `None` also where the key is elsewhere.
    pub fn missing_file(&self) -> Option<StoreError> {
        let KeyPlace::File { source: KeySource::File(path), .. } = &self.place else { return None };
        let is_missing = !self.has_cached() && matches!(path.try_exists(), Ok(false));
        is_missing.then(|| self.unavailable_error(KeyError::FileMissing(path.clone())))
    }

    /// A key that cannot be had, with what depends on it.
    pub(super) fn unavailable_error(&self, error: KeyError) -> StoreError {
        // What cannot be listed may well hold something.
        let sealed_under = self.sealed_under().unwrap_or(SealedUnder::Unreadable);
        StoreError::KeyUnavailable { error, sealed_under }
    }

    /// A sealed file that cannot be opened.
    pub(in crate::store) fn unseal_error(&self, path: PathBuf, damage: UnsealError) -> StoreError {
        match damage {
            UnsealError::OtherKey(id) => StoreError::OtherKey { path, id, location: self.location() },
            UnsealError::LaterVersion(found) => StoreError::LaterVersion { path, found },
            damage => StoreError::CannotUnseal { path, damage },
        }
    }

    /// Where the key is kept, in words.
    fn location(&self) -> String {
        match &self.place {
            KeyPlace::Keyring(_) => "the keyring".to_owned(),
            KeyPlace::File { source, .. } => sealing_key::source_text(source),
        }
    }

    /// A profile's sealed file, with its header if that can be read. The remains of a tombstone do not count.
    fn sealed_file(&self, name: &ProfileName) -> Option<(PathBuf, Option<SealedHeader>)> {
        let folder = self.layout.profile_folder(name);
        let path = [folder.sealed(), folder.received()].into_iter().find(|path| path.exists())?;
        if matches!(Journal::read(&folder.journal(), name), Ok(Some(journal)) if journal.is_tombstone) {
            return None;
        }
        let header = read_header(&path).and_then(|bytes| envelope::header(&bytes).ok());
        Some((path, header))
    }
}

/// The part of a file that can be its header: a response may take megabytes.
fn read_header(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = durable::open_foreign(path).ok()?;
    file.take(2 * envelope::MAX_HEADER_LEN).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
