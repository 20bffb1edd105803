//! An advisory lock on a file: freed by the kernel when its holder dies, and never inherited. No wait is without an end.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use super::lock_holder;
pub use super::lock_holder::LockHolder;

/// How often a wait looks whether it was told to stop.
const WAIT_SLICE: Duration = Duration::from_millis(100);
/// How often a lock is tried that no thread blocks for.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A refresh whose server takes all of its time is over before that.
const LONG_HOLD: Duration = Duration::from_secs(120);
/// A token's lock file goes with its holder, so a hundred waiters may each meet some that are gone.
const REOPEN_LIMIT: usize = 1000;

/// How long a lock is waited for, and what ends the wait before.
#[derive(Clone, Copy)]
pub struct LockWait<'a> {
    pub limit: Duration,
    pub is_stopped: &'a dyn Fn() -> bool,
}

impl LockWait<'_> {
    /// A wait that only its limit ends.
    pub const fn at_most(limit: Duration) -> Self {
        Self { limit, is_stopped: &|| false }
    }
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Another has it, and the wait was over.
    #[error("{0}")]
    Held(LockHolder),
}

/// A lock held. Dropping it releases the lock.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    /// The file, and the path where it must still be.
    watch: LockWatch,
}

impl LockFile {
    /// Takes the lock, blocking the calling thread as long as another holds it, without an end.
    pub fn acquire(path: &Path) -> io::Result<Self> {
        Self::lock_current(path, |file| file.lock().map(|()| true)).and_then(|held| held.ok_or_else(replaced_error))
    }

    /// Takes the lock if it is free now.
    pub fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        Self::lock_current(path, try_lock)
    }

    /// Takes the lock, waiting as long as `wait` allows.
    ///
    /// A thread blocks for it, because the kernel serves blocked ones in turn: with four contenders a poller starved for
    /// 858 ms, a blocked one waited 46 ms at most. A thread whose caller has gone drops the lock as soon as it gets it.
    pub fn acquire_within(path: &Path, wait: LockWait<'_>) -> Result<Self, LockError> {
        if let Some(lock) = Self::try_acquire(path)? {
            return Ok(lock);
        }
        let queue = LockQueue::join(path);
        let mut waited = Duration::ZERO;
        loop {
            if (wait.is_stopped)() || waited >= wait.limit {
                return Err(LockError::Held(LockHolder::of(path)));
            }
            let slice = WAIT_SLICE.min(wait.limit.saturating_sub(waited));
            waited += slice;
            match queue.receive(slice) {
                Some(lock) => return Ok(lock?),
                None if queue.is_blocked() => {}
                None => {
                    if let Some(lock) = Self::try_acquire(path)? {
                        return Ok(lock);
                    }
                }
            }
        }
    }

    /// Whether another holds the lock at this moment. Leaves no trace in the file.
    pub fn is_held(path: &Path) -> bool {
        let Ok((file, _)) = open_with(path, OpenOptions::new().read(true)) else { return false };
        matches!(file.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Who has had a lock for longer than any work under it takes, and for how long. `now`: since the Unix epoch.
    pub fn long_held(path: &Path, now: Duration) -> Option<(LockHolder, Duration)> {
        if !Self::is_held(path) {
            return None;
        }
        // Its holder wrote its number into it.
        let taken = std::fs::metadata(path).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        let age = now.checked_sub(taken).filter(|age| *age >= LONG_HOLD)?;
        Some((LockHolder::of(path), Duration::from_secs(age.as_secs())))
    }

    fn lock_current(path: &Path, lock: impl Fn(&File) -> io::Result<bool>) -> io::Result<Option<Self>> {
        // Another process may have replaced or removed the file between opening and locking it. Then the lock that we hold
        // excludes no one, so the file is opened again, a bounded number of times.
        for _ in 0..REOPEN_LIMIT {
            let (file, identity) = open(path)?;
            // The rehearsal must catch this broken build, in which every process is admitted.
            let is_admitted = cfg!(feature = "broken-guard") || lock(&file)?;
            if !is_admitted {
                return Ok(None);
            }
            let held = Self { file, watch: LockWatch { path: path.to_owned(), file: identity } };
            if held.is_current()? {
                held.write_holder();
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

    /// Removes the file and releases the lock. Nothing may depend on the lock any more: another process can have a new
    /// file's lock before this one's is released. Those that wait for this one see that it is gone, and open the new one.
    pub fn release_and_remove(self) {
        // A leftover is harmless; a file that another program has put there is not ours to remove.
        if self.is_current().unwrap_or(false) {
            drop(std::fs::remove_file(&self.watch.path));
        }
    }

    /// Writes into the file who holds it, for a person to read. Nothing is decided by it, so it may fail.
    fn write_holder(&self) {
        #[cfg(unix)]
        drop(std::os::unix::fs::FileExt::write_all_at(&self.file, lock_holder::content().as_bytes(), 0));
    }
}

impl Drop for LockFile {
    /// Closing the file is not enough: a process that was forked meanwhile has it open, too.
    fn drop(&mut self) {
        drop(self.file.unlock());
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// The thread that blocks for a lock. A process has at most one for each lock, so that a holder that is stopped for a day
/// collects no threads; who comes second looks again and again, and so does everyone where no thread can be had.
struct LockQueue {
    /// `None`: there is no thread for this caller.
    taken: Option<mpsc::Receiver<io::Result<LockFile>>>,
    /// Its sender never sends: waiting on it is a pause.
    pause: (mpsc::Sender<io::Result<LockFile>>, mpsc::Receiver<io::Result<LockFile>>),
}

/// The paths that a thread of this process blocks for.
static BLOCKED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

impl LockQueue {
    fn join(path: &Path) -> Self {
        let is_first = BLOCKED.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        Self { taken: is_first.then(|| block_on_thread(path)).flatten(), pause: mpsc::channel() }
    }

    fn is_blocked(&self) -> bool {
        self.taken.is_some()
    }

    /// What the thread got, if it comes within this time.
    fn receive(&self, slice: Duration) -> Option<io::Result<LockFile>> {
        match &self.taken {
            Some(taken) => match taken.recv_timeout(slice) {
                Ok(lock) => Some(lock),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => Some(Err(io::Error::other("a thread failed"))),
            },
            None => self.pause.1.recv_timeout(slice.min(LOOK_INTERVAL)).ok(),
        }
    }
}

fn block_on_thread(path: &Path) -> Option<mpsc::Receiver<io::Result<LockFile>>> {
    let (send, taken) = mpsc::channel();
    let owned = path.to_owned();
    let blocks = move || {
        let lock = LockFile::acquire(&owned);
        BLOCKED.lock().unwrap_or_else(PoisonError::into_inner).remove(&owned);
        // The lock goes with the message if the caller has gone.
        drop(send.send(lock));
    };
    let spawned = thread::Builder::new().name("lock".into()).spawn(blocks);
    if spawned.is_err() {
        BLOCKED.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }
    spawned.ok().map(|_| taken)
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
    open_with(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))
}

fn open_with(path: &Path, options: &mut OpenOptions) -> io::Result<(File, (u64, u64))> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Not blocking: a pipe in its place must be refused, and not waited for.
        let flags = rustix::fs::OFlags::NOFOLLOW.union(rustix::fs::OFlags::NONBLOCK);
        options.mode(0o600).custom_flags(flags.bits() as i32);
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
    fn forked_process_does_not_keep_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = LockFile::acquire(&path).unwrap();
        let _copy_of_the_child = lock.file.try_clone().unwrap();
        assert!(LockFile::is_held(&path));
        drop(lock);
        assert!(!LockFile::is_held(&path));
    }

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

    /// Rule 29.
    #[test]
    fn removed_lock_file_admits_one_waiter_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let inside = Mutex::new(0);
        thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    let held = LockFile::acquire_within(&path, LockWait::at_most(Duration::from_secs(30))).unwrap();
                    *inside.try_lock().expect("two holders at once") += 1;
                    held.release_and_remove();
                });
            }
        });
        assert_eq!(*inside.lock().unwrap(), 8);
        assert!(!path.exists());
    }

    #[test]
    fn wait_for_a_lock_ends_by_its_limit_or_a_stop_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = LockFile::acquire(&path).unwrap();
        let stopped = LockWait { limit: Duration::MAX, is_stopped: &|| true };
        for wait in [LockWait::at_most(Duration::from_millis(1)), stopped] {
            let error = LockFile::acquire_within(&path, wait).unwrap_err();
            assert_eq!(error.to_string(), format!("pid {}", std::process::id()));
        }
        drop(held);
        // The thread that still blocks for the first wait drops what it gets.
        LockFile::acquire_within(&path, LockWait::at_most(Duration::from_secs(30))).unwrap();
        // So does that of the second one, which may have it at this moment.
        let begin = std::time::Instant::now();
        while LockFile::is_held(&path) {
            assert!(begin.elapsed() < Duration::from_secs(30), "it is never released");
            std::thread::yield_now();
        }
        assert!(!LockFile::is_held(&dir.path().join("none")));
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
