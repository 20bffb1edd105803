//! Under which key a store is sealed: told by the headers of its files, which anybody may read.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::envelope::{self, Damage, Header};
use super::key::{self, KeyError, SealingKey};
use super::record::Record;
use super::{Home, Store, StoreError};
use crate::profile::{KeySource, ProfileName};

/// What the sealed files of a store tell of their key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Custody {
    /// Nothing is sealed here: any key will do.
    Free,
    /// Something is, but no header can be read.
    Unreadable,
    /// One file at least is sealed under the key with this id.
    Under(String),
}

impl Store {
    /// What is sealed here, for whoever has no key. Looks no further than the first header that it can read.
    pub(super) fn custody(&self) -> Result<Custody, StoreError> {
        let mut custody = Custody::Free;
        for name in self.profiles()? {
            match self.seal_of(&name) {
                Some((_, Some(header))) => return Ok(Custody::Under(header.key_id)),
                Some((_, None)) => custody = Custody::Unreadable,
                None => {}
            }
        }
        Ok(custody)
    }

    /// Refuses a key that is not the one that this store is sealed under, lest it come to lie under two.
    ///
    /// A profile (`within`; none if empty) that has a file of its own is judged by that one alone, when it is opened: to
    /// replace it is the way out of a lost key. Of the others the first whose header names this key is enough, and one
    /// that cannot be read has no say.
    pub fn check_custody(&self, key: &SealingKey, within: &str) -> Result<(), StoreError> {
        let mut other = None;
        for name in self.profiles()? {
            let Some((path, Some(header))) = self.seal_of(&name) else { continue };
            if header.key_id == key.id() || name.as_str() == within {
                return Ok(());
            }
            other.get_or_insert((path, header.key_id));
        }
        match other {
            Some((path, id)) => Err(self.unopened(path, Damage::OtherKey(id))),
            None => Ok(()),
        }
    }

    /// The profiles whose files this key does not open, each with why.
    pub fn strangers_to(&self, key: &SealingKey) -> Result<Vec<(ProfileName, StoreError)>, StoreError> {
        let judge = |name: ProfileName| {
            let (path, header) = self.seal_of(&name)?;
            let id = header.map(|h| h.key_id).filter(|id| id != key.id())?;
            Some((name, self.unopened(path, Damage::OtherKey(id))))
        };
        Ok(self.profiles()?.into_iter().filter_map(judge).collect())
    }

    /// That the key file is not there, found out without reading it. `None` also where the key is elsewhere.
    pub fn missing_key_file(&self) -> Option<StoreError> {
        match &self.home {
            Home::File { source: KeySource::File(path), .. } if matches!(path.try_exists(), Ok(false)) => {
                Some(self.keyless(KeyError::NoFile(path.clone())))
            }
            Home::File { .. } | Home::Keyring { .. } => None,
        }
    }

    /// A key that cannot be had, with what depends on it.
    pub(super) fn keyless(&self, error: KeyError) -> StoreError {
        // What cannot be listed may well hold something.
        let custody = self.custody().unwrap_or(Custody::Unreadable);
        StoreError::Key { error, custody }
    }

    /// A sealed file that cannot be opened.
    pub(super) fn unopened(&self, path: PathBuf, damage: Damage) -> StoreError {
        match damage {
            Damage::OtherKey(id) => StoreError::OtherKey { path, id, place: self.key_place() },
            Damage::Later(found) => StoreError::LaterVersion { path, found },
            damage => StoreError::Damaged { path, damage },
        }
    }

    /// Where the key is kept, in words.
    fn key_place(&self) -> String {
        match &self.home {
            Home::Keyring { .. } => "the keyring".to_owned(),
            Home::File { source, .. } => key::place(source),
        }
    }

    /// A profile's sealed file, with its header if that can be read. A tombstone's remains count for nothing.
    fn seal_of(&self, name: &ProfileName) -> Option<(PathBuf, Option<Header>)> {
        let folder = self.layout.folder(name);
        let path = [folder.sealed(), folder.received()].into_iter().find(|path| path.exists())?;
        if matches!(Record::read(&folder.record(), name), Ok(Some(record)) if record.is_tombstone) {
            return None;
        }
        let header = head(&path).and_then(|bytes| envelope::header(&bytes).ok());
        Some((path, header))
    }
}

/// As much of a file as can be its header: an answer may take megabytes.
fn head(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(2 * envelope::LONGEST_HEADER).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
