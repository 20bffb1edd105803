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
use crate::store::{Store, StoreError};
use crate::sys::file_watch::FileVersion;
use crate::sys::threads;

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

    /// Whether the sealed file can be read, if it may be another than the journal's.
    pub(in crate::store) fn check_sealed(&self) -> Result<(), StoreError> {
        self.other_generation()?;
        self.sealed.as_ref().map_or(Ok(()), |sealed| sealed.get().map(drop))
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

impl Store {
    /// Looks at every profile once. That a folder cannot be looked into is an error: it may hold the token.
    pub fn scan(&self) -> Result<StoreScan, StoreError> {
        let folders = profiles::list_folders(&self.layout)?;
        let thread_count = (folders.len() / PROFILES_PER_THREAD).clamp(1, MAX_THREADS);
        let mut profiles = if thread_count == 1 {
            self.scan_folders(&folders)?
        } else {
            let chunks = folders.chunks(folders.len().div_ceil(thread_count)).collect();
            let scanned = threads::map(thread_count, chunks, |folders| self.scan_folders(folders));
            scanned.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect()
        };
        profiles.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(StoreScan { profiles })
    }

    fn scan_folders(&self, folders: &[PathBuf]) -> Result<Vec<ScannedProfile>, StoreError> {
        folders.iter().filter_map(|folder| self.scan_folder(folder).transpose()).collect()
    }

    /// `None`: the folder is of no profile.
    fn scan_folder(&self, folder: &Path) -> Result<Option<ScannedProfile>, StoreError> {
        let by_name = profiles::name_of_folder(folder);
        let Some(name) = by_name.map_or_else(|| profiles::profile_in_folder(folder), |n| Ok(Some(n)))? else {
            return Ok(None);
        };
        let files = self.layout.profile_folder(&name);
        let (journal_path, sealed_path) = (files.journal(), files.sealed());
        let (journal, is_damaged) = match Journal::read(&journal_path, &name) {
            Ok(journal) => (journal, false),
            Err(StoreError::DamagedFile { .. }) => (None, true),
            // A file among the folders is none of ours.
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => return Ok(None),
            Err(e) => return Err(e),
        };
        let is_current = journal.as_ref().is_some_and(|journal| journal.is_written_for(FileVersion::of(&sealed_path)));
        let sealed = (!is_current).then(|| Box::new(SealedSlot::read(sealed_path)));
        let is_missing = matches!(sealed.as_ref().map(|sealed| sealed.get()), Some(Ok(None)));
        let is_nothing = journal.is_none() && !is_damaged && is_missing;
        Ok((!is_nothing).then(|| ScannedProfile { name, journal: journal.map(JournalFacts::from), sealed }))
    }
}
