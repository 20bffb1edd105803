//! Handles: revocable rights to read the access token of one profile. `handles.json` has their hashes and no secret.

mod record;
mod text;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

pub use self::record::{HandleGrant, HandleRecord, TokenGrant, USUAL_MIN_VALID};
pub use self::text::{HANDLE_MARK, Handle, HandleHash, HandleTextError};
use crate::clock::Moment;
use crate::store::disk::format::later_format;
use crate::store::disk::layout::Layout;
use crate::store::{STORE_LOCK_WAIT, StoreError};
use crate::sys::durable;
use crate::sys::file_watch::FileVersion;
use crate::sys::lockfile::LockFile;

const FORMAT: u32 = 1;

/// The handles of one store. All that is changed is changed under the lock of the store, and durable.
#[derive(Debug)]
pub struct HandleStore {
    layout: Layout,
    /// What was read last, and the file that it was read from.
    seen: Mutex<Option<(FileVersion, Arc<Vec<HandleRecord>>)>>,
}

#[derive(Serialize, Deserialize)]
struct HandleFile {
    format: u32,
    handles: Vec<HandleRecord>,
}

impl HandleStore {
    pub(super) fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), seen: Mutex::default() }
    }

    /// All handles, the oldest first. The file is opened only after a change: one look at it tells of any.
    pub fn list(&self) -> Result<Arc<Vec<HandleRecord>>, StoreError> {
        let version = FileVersion::of(&self.path());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(version), Some((known, handles))) = (version, seen.as_ref())
            && version == *known
        {
            return Ok(Arc::clone(handles));
        }
        let handles = Arc::new(self.read()?);
        // A file that was replaced meanwhile is read once more the next time.
        *seen = version.map(|version| (version, Arc::clone(&handles)));
        Ok(handles)
    }

    pub fn find(&self, hash: &HandleHash) -> Result<Option<HandleRecord>, StoreError> {
        Ok(self.list()?.iter().find(|record| record.sha256 == *hash).cloned())
    }

    /// Adds one. `Some`: the handle that is called by this name already, or by whose name this one would be; nothing was added.
    pub fn add(&self, record: HandleRecord) -> Result<Option<HandleRecord>, StoreError> {
        let dir = self.layout.dir();
        durable::create_dir(dir).map_err(|e| StoreError::io("create", dir, e))?;
        let _lock = self.lock()?;
        let mut handles = self.read()?;
        let name = record.name.as_deref();
        let is_rival = |other: &&HandleRecord| name.is_some_and(|n| other.is_called(n)) || other.is_called(record.id());
        if let Some(rival) = handles.iter().find(is_rival) {
            return Ok(Some(rival.clone()));
        }
        handles.push(record);
        self.write(handles).map(|()| None)
    }

    /// Revokes the handles that are meant, and returns them.
    pub fn revoke(&self, is_meant: impl Fn(&HandleRecord) -> bool) -> Result<Vec<HandleRecord>, StoreError> {
        // Without handles no lock is needed, and no directory made.
        if !self.list()?.iter().any(&is_meant) {
            return Ok(Vec::new());
        }
        let _lock = self.lock()?;
        let (revoked, kept): (Vec<_>, Vec<_>) = self.read()?.into_iter().partition(|record| is_meant(record));
        self.write(kept)?;
        Ok(revoked)
    }

    /// Notes that a handle is used, at most hourly. It is for people, so it waits for no lock.
    pub fn note_use(&self, used: &HandleRecord, now: &Moment) -> Result<(), StoreError> {
        if !used.is_use_news(now) {
            return Ok(());
        }
        let path = self.layout.store_lock();
        let Some(_lock) = LockFile::try_acquire(&path).map_err(|e| StoreError::io("lock", &path, e))? else {
            return Ok(());
        };
        let mut handles = self.read()?;
        // One that was revoked meanwhile does not come back.
        let noted = handles.iter_mut().find(|record| record.sha256 == used.sha256).filter(|r| r.is_use_news(now));
        match noted {
            Some(record) => record.last_used_at = Some(now.wall.to_the_second()),
            None => return Ok(()),
        }
        self.write(handles)
    }

    fn path(&self) -> PathBuf {
        self.layout.handles()
    }

    fn lock(&self) -> Result<LockFile, StoreError> {
        StoreError::lock(&self.layout.store_lock(), STORE_LOCK_WAIT)
    }

    fn read(&self) -> Result<Vec<HandleRecord>, StoreError> {
        let path = self.path();
        let Some(bytes) = durable::read(&path).map_err(|e| StoreError::io("read", &path, e))? else {
            return Ok(Vec::new());
        };
        let parsed = serde_json::from_slice::<HandleFile>(&bytes);
        if let Some(found) = later_format(&bytes, FORMAT) {
            return Err(StoreError::LaterVersion { path, found });
        }
        parsed.map(|file| file.handles).map_err(|e| StoreError::DamagedFile { path, why: e.to_string() })
    }

    fn write(&self, handles: Vec<HandleRecord>) -> Result<(), StoreError> {
        let path = self.path();
        let bytes = serde_json::to_vec_pretty(&HandleFile { format: FORMAT, handles }).map_err(std::io::Error::other);
        bytes.and_then(|bytes| durable::replace(&path, &bytes)).map_err(|e| StoreError::io("write", &path, e))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::credential::external::AccountIdentity;

    fn record(bits: u8, name: &str) -> HandleRecord {
        let hour = Duration::from_secs(3600);
        let grant = TokenGrant::new("p".parse().unwrap(), AccountIdentity::default(), hour, Duration::ZERO, false);
        HandleRecord {
            sha256: Handle::from_random([bits; 32]).hash(),
            name: Some(name.into()),
            grants: HandleGrant::Token(grant),
            created_at: Timestamp::from_secs(1_790_000_000),
            expires_at: None,
            last_used_at: None,
            any_user: false,
        }
    }

    #[test]
    fn revocation_by_another_process_is_seen_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(&dir.path().join("state"));
        let (daemon, command) = (HandleStore::new(&layout), HandleStore::new(&layout));
        assert!(command.revoke(|_| true).unwrap().is_empty() && !layout.dir().exists());
        command.add(record(1, "a")).unwrap();
        command.add(record(2, "b")).unwrap();
        let hash = Handle::from_random([2; 32]).hash();
        assert_eq!(daemon.find(&hash).unwrap().unwrap(), record(2, "b"));
        assert_eq!(command.revoke(|record| record.is_called("b")).unwrap().len(), 1);
        assert!(daemon.find(&hash).unwrap().is_none());
        let text = std::fs::read_to_string(layout.handles()).unwrap();
        assert!(!text.contains(HANDLE_MARK) && text.contains(record(1, "a").id()), "{text}");
        #[cfg(unix)]
        {
            let mode =
                std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(layout.handles()).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn use_of_a_handle_is_noted_hourly() {
        let dir = tempfile::tempdir().unwrap();
        let store = HandleStore::new(&Layout::new(dir.path()));
        let clock = ManualClock::new(Timestamp::from_secs(1_790_000_000));
        let noted = || store.list().unwrap()[0].last_used_at;
        store.add(record(1, "a")).unwrap();
        let first = clock.now().wall;
        for (wait, expected) in [(0, 0), (3599, 0), (1, 3600)] {
            clock.advance(Duration::from_secs(wait));
            let handles = store.list().unwrap();
            store.note_use(&handles[0], &clock.now()).unwrap();
            assert_eq!(noted(), Some(first.plus(Duration::from_secs(expected))), "{wait}");
        }
        let used = store.list().unwrap()[0].clone();
        store.revoke(|_| true).unwrap();
        clock.advance(Duration::from_secs(7200));
        store.note_use(&used, &clock.now()).unwrap();
        assert!(store.list().unwrap().is_empty(), "it does not come back");
    }

    #[test]
    fn damaged_file_is_an_error_and_not_an_unknown_handle() {
        let dir = tempfile::tempdir().unwrap();
        let store = HandleStore::new(&Layout::new(dir.path()));
        let hash = Handle::from_random([1; 32]).hash();
        std::fs::write(dir.path().join("handles.json"), "{").unwrap();
        assert!(matches!(store.find(&hash), Err(StoreError::DamagedFile { .. })));
        std::fs::write(dir.path().join("handles.json"), r#"{"format":2,"rights":[]}"#).unwrap();
        assert!(matches!(store.find(&hash), Err(StoreError::LaterVersion { .. })));
        assert!(store.add(record(1, "a")).is_err());
    }
}
