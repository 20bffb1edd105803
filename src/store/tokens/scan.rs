//! One look at all profiles of a store, for those who take a token from elsewhere (rules 3 and 4). It is taken under the
//! lock of the token: a profile that makes the token its own holds that lock until its journal says so.

use std::io;
use std::path::{Path, PathBuf};

use crate::credential::Generation;
use crate::credential::secret::Fingerprint;
use crate::profile::ProfileName;
use crate::store::identity::profiles;
use crate::store::journal::Journal;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::profile::files::SealedSlot;
use crate::store::tokens::journal_facts::JournalFacts;
use crate::store::tokens::scan_cache::{ScanCache, ScanCacheEntry};
use crate::store::{Store, StoreError};
use crate::sys::file_watch::FileVersion;

/// From so many profiles on, several threads read them.
const PROFILES_PER_THREAD: usize = 128;
const MAX_THREADS: usize = 4;

/// The profiles of a store, by name.
pub struct StoreScan {
    pub(in crate::store) profiles: Vec<ScannedProfile>,
}

/// What one look found of a profile.
pub(in crate::store) struct ScannedProfile {
    pub name: ProfileName,
    /// `None` also if it is damaged: that is for the profile's own runs to tell, and holds up no other.
    pub journal: Option<JournalFacts>,
    /// `None`: it is the file that the journal was written for, and is not read.
    sealed: Option<Box<SealedSlot>>,
}

impl ScannedProfile {
    /// The generation of the sealed file, if it may be another than the journal's.
    pub(in crate::store) fn other_generation(&self) -> Result<Option<Generation>, StoreError> {
        self.sealed.as_ref().map_or(Ok(None), |sealed| sealed.generation())
    }

    /// Whether the sealed credential has this token. One that cannot be opened has none that is known.
    pub(in crate::store) fn has_sealed_token(
        &self,
        store: &Store,
        token: &Fingerprint,
        key: &SealingKey,
    ) -> Result<bool, StoreError> {
        let read;
        let sealed = match &self.sealed {
            Some(sealed) => sealed.as_ref(),
            None => {
                read = SealedSlot::read(store.layout.profile_folder(&self.name).sealed());
                &read
            }
        };
        sealed.get()?;
        let unsealed = sealed.unseal(&self.name, key, store.keys()).ok().flatten();
        Ok(unsealed.is_some_and(|unsealed| key.fingerprint(&unsealed.credential.refresh) == *token))
    }
}

/// What one thread found: the profiles, and what the cache may keep of them.
type ScannedPart = (Vec<ScannedProfile>, Vec<ScanCacheEntry>);

impl Store {
    /// Looks at every profile once. That a folder cannot be looked into is an error: it may hold the token.
    pub fn scan(&self) -> Result<StoreScan, StoreError> {
        let cache = ScanCache::open(&self.layout);
        let (scan, entries) = self.scan_with(&cache)?;
        cache.update(&entries, |name| scan.profiles.binary_search_by(|profile| profile.name.cmp(name)).is_ok());
        Ok(scan)
    }

    /// As [`Store::scan`], but reads every journal and writes nothing.
    pub fn scan_without_cache(&self) -> Result<StoreScan, StoreError> {
        self.scan_with(&ScanCache::none()).map(|(scan, _)| scan)
    }

    fn scan_with(&self, cache: &ScanCache) -> Result<(StoreScan, Vec<ScanCacheEntry>), StoreError> {
        let folders = profiles::list_folders(&self.layout)?;
        let threads = (folders.len() / PROFILES_PER_THREAD).clamp(1, MAX_THREADS);
        let (mut profiles, entries) = if threads == 1 {
            self.scan_folders(&folders, cache)?
        } else {
            let part = folders.len().div_ceil(threads);
            std::thread::scope(|scope| {
                let parts: Vec<_> =
                    folders.chunks(part).map(|folders| scope.spawn(|| self.scan_folders(folders, cache))).collect();
                let scanned = parts.into_iter().map(|part| {
                    part.join().unwrap_or_else(|_| {
                        Err(StoreError::io("read", self.layout.dir(), io::Error::other("a thread failed")))
                    })
                });
                scanned.collect::<Result<Vec<ScannedPart>, _>>()
            })?
            .into_iter()
            .fold(ScannedPart::default(), |mut all, (profiles, entries)| {
                all.0.extend(profiles);
                all.1.extend(entries);
                all
            })
        };
        profiles.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok((StoreScan { profiles }, entries))
    }

    fn scan_folders(&self, folders: &[PathBuf], cache: &ScanCache) -> Result<ScannedPart, StoreError> {
        let (mut profiles, mut entries) = ScannedPart::default();
        for folder in folders {
            profiles.extend(self.scan_folder(folder, cache, &mut entries)?);
        }
        Ok((profiles, entries))
    }

    /// `None`: the folder is of no profile.
    fn scan_folder(
        &self,
        folder: &Path,
        cache: &ScanCache,
        entries: &mut Vec<ScanCacheEntry>,
    ) -> Result<Option<ScannedProfile>, StoreError> {
        let by_name = profiles::name_of_folder(folder);
        let is_cacheable = by_name.is_some() && cache.is_in_use();
        let Some(name) = by_name.map_or_else(|| profiles::profile_in_folder(folder), |n| Ok(Some(n)))? else {
            return Ok(None);
        };
        let files = self.layout.profile_folder(&name);
        let (journal_path, sealed_path) = (files.journal(), files.sealed());
        // Looked at before it is read: if it is replaced in between, this version never comes back.
        let version = is_cacheable.then(|| FileVersion::of(&journal_path)).flatten();
        if let Some(known) = version.and_then(|version| cache.find(folder, version))
            && Some(known.sealed) == FileVersion::of(&sealed_path)
        {
            return Ok(Some(ScannedProfile { name, journal: Some(known.facts), sealed: None }));
        }
        let (journal, is_damaged) = match Journal::read(&journal_path, &name) {
            Ok(journal) => (journal, false),
            Err(StoreError::DamagedFile { .. }) => (None, true),
            // A file among the folders is none of ours.
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => return Ok(None),
            Err(e) => return Err(e),
        };
        let sealed_version = FileVersion::of(&sealed_path);
        let is_current = journal.as_ref().is_some_and(|journal| journal.is_written_for(sealed_version));
        let sealed = (!is_current).then(|| Box::new(SealedSlot::read(sealed_path)));
        let is_missing = matches!(sealed.as_ref().map(|sealed| sealed.get()), Some(Ok(None)));
        let is_nothing = journal.is_none() && !is_damaged && is_missing;
        let journal = journal.map(JournalFacts::from);
        if let (Some(facts), Some(journal), Some(sealed)) = (&journal, version, sealed_version.filter(|_| is_current)) {
            entries.extend(ScanCacheEntry::new(folder, journal, sealed, facts));
        }
        Ok((!is_nothing).then_some(ScannedProfile { name, journal, sealed }))
    }
}
