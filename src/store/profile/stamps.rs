//! Notes in the journal what hooks were told. No flight does it, so it is done under the lock of the profile for a moment.

use std::time::Duration;

use crate::guard::Permit;
use crate::store::journal::Journal;
use crate::store::journal::hook_stamps::HookStamps;
use crate::store::profile::files::ProfileFiles;
use crate::store::{Store, StoreError};
use crate::sys::lockfile::LockWait;

/// How long the lock is waited for. A flight that has it longer looks at the profile when it ends.
const STAMP_LOCK_WAIT: Duration = Duration::from_secs(5);

impl Store {
    /// Puts `stamps` in the place of those that were `seen`. `false`: another run was there first, or the files are not as
    /// they were written, and a flight must look at them. So of all runs at one time, one tells what there is to tell.
    pub fn replace_hook_stamps(&self, seen: &Journal, stamps: &HookStamps) -> Result<bool, StoreError> {
        let name = &seen.profile;
        let lock = StoreError::lock(&self.create_lock_file(name)?, LockWait::at_most(STAMP_LOCK_WAIT))?;
        self.write_hook_stamps(Permit::from_lock(name, &lock), seen, stamps)
    }

    fn write_hook_stamps(&self, permit: Permit<'_>, seen: &Journal, stamps: &HookStamps) -> Result<bool, StoreError> {
        let identity = self.identity.usable_here()?;
        self.check_filesystem()?;
        let folder = self.layout.profile_folder(permit.profile());
        let files = ProfileFiles::read(&folder, permit.profile(), Some(&identity))?;
        // A journal that is written is no copy any more, and nothing here may vouch for one.
        let (is_copied, is_restored) = (files.is_copied() == Some(true), self.restored_error(&files).is_some());
        let is_as_seen = |now: &Journal| {
            now.generation == seen.generation && now.sequence == seen.sequence && now.hooks == seen.hooks
        };
        let Some(journal) = files.journal.filter(|now| is_as_seen(now) && !is_copied && !is_restored) else {
            return Ok(false);
        };
        let path = folder.journal();
        let journal = Journal { hooks: stamps.clone(), ..journal };
        journal.write(&path).map_err(|e| StoreError::io("write", &path, e))?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{KeySource, StoreKind, StoreSettings};
    use crate::store::keyring::memory::MemoryKeyring;
    use crate::store::test_samples::now;

    #[test]
    fn of_several_runs_one_notes_what_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, [7; 32]).unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let settings = StoreSettings {
            kind: StoreKind::File { key: KeySource::File(key) },
            path: None,
            allow_network_filesystem: true,
        };
        let store = Store::new(&settings, &dir.path().join("state"), None, || Box::new(MemoryKeyring::default()));
        drop(store.prepare_to_seal("p").unwrap());
        let name = "p".parse().unwrap();
        store.create_lock_file(&name).unwrap();
        Journal { sequence: 4, ..Journal::new(name.clone()) }
            .write(&store.layout.profile_folder(&name).journal())
            .unwrap();
        let seen = store.peek(&name).unwrap().unwrap();
        let told = HookStamps { needs_login: Some(now()), ..HookStamps::default() };
        assert!(store.replace_hook_stamps(&seen, &told).unwrap());
        assert!(!store.replace_hook_stamps(&seen, &told).unwrap(), "another run was first");
        let newer = store.peek(&name).unwrap().unwrap();
        assert_eq!((newer.sequence, &newer.hooks), (4, &told));
        let behind = Journal { sequence: 3, ..newer.clone() };
        assert!(!store.replace_hook_stamps(&behind, &HookStamps::default()).unwrap(), "there was a flight");
        assert!(store.replace_hook_stamps(&newer, &HookStamps::default()).unwrap());
    }
}
