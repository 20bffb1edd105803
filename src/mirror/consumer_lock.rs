//! The lock of the program that a file belongs to, so that it and keepalive do not write at once. It is held for a moment.
//!
//! Some programs take a directory as their lock. Such a lock does not end with its holder, so each one that we make is noted:
//! the next run that has our own lock of that file knows by the note that its maker has ended, and removes it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::outcome::{ErrorKind, Failure};
use crate::profile::consumers::ConsumerLock;
use crate::sys::durable;
use crate::sys::lockfile::LockHolder;

const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// The locks that are held. Dropping them releases them.
#[derive(Debug, Default)]
pub(super) struct ConsumerLocks {
    _files: Vec<File>,
    directory: Option<LockDirectory>,
}

/// A directory that is a lock.
#[derive(Debug)]
struct LockDirectory {
    path: PathBuf,
    /// The file that names its holder, if the program has one.
    owner: Option<PathBuf>,
    /// Where those are noted that we made.
    note: PathBuf,
}

/// A directory that we made to be a lock, which tells it from one that the program makes in its place.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OwnDirectory {
    /// Its name before it became the lock.
    staged: PathBuf,
    device: u64,
    inode: u64,
    /// An inode number is used again; the time of its birth cannot be set.
    born_ns: Option<u128>,
}

impl Drop for ConsumerLocks {
    fn drop(&mut self) {
        if let Some(lock) = &self.directory
            && fs::remove_dir(&lock.path).is_ok()
        {
            drop(fs::remove_file(&lock.note));
        }
    }
}

/// Takes the lock of the file's program, waiting for at most `limit`. The caller has our own lock of that file, and `note` is
/// the note that goes with it.
pub(super) fn acquire(
    lock: ConsumerLock,
    file: &Path,
    title: &str,
    note: &Path,
    limit: Duration,
) -> Result<ConsumerLocks, Failure> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    match lock {
        ConsumerLock::None => Ok(ConsumerLocks::default()),
        ConsumerLock::Files(names) => {
            let files = names.iter().map(|name| lock_file(&dir.join(name), title, limit)).collect::<Result<_, _>>()?;
            Ok(ConsumerLocks { _files: files, directory: None })
        }
        ConsumerLock::Directory { name, owner } => {
            let owner = (!owner.is_empty()).then(|| dir.join(owner));
            let lock = LockDirectory { path: dir.join(name), owner, note: note.to_owned() };
            lock.make(title, limit)?;
            Ok(ConsumerLocks { _files: Vec::new(), directory: Some(lock) })
        }
    }
}

fn lock_file(path: &Path, title: &str, limit: Duration) -> Result<File, Failure> {
    // Not our own kind of lock file: the program may keep something in it.
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options.custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32);
    let file = options.open(path).map_err(|e| cannot_lock(path, &e))?;
    let is_taken = wait_for(limit, || match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(e),
    });
    match is_taken {
        Ok(true) => Ok(file),
        Ok(false) => Err(busy(path, title, &LockHolder::of(path).to_string())),
        Err(e) => Err(cannot_lock(path, &e)),
    }
}

impl LockDirectory {
    /// Makes it, or waits for the one that is there. That one stays for as long as its holder lives: its age alone proves
    /// nothing.
    fn make(&self, title: &str, limit: Duration) -> Result<(), Failure> {
        self.remove_own_remains();
        let staged = self.path.with_file_name(format!(".keepalive-lock-{}", std::process::id()));
        let failed = |e: &io::Error| cannot_lock(&self.path, e);
        self.stage(&staged).map_err(|e| failed(&e))?;
        let is_made = wait_for(limit, || match rename_to_new(&staged, &self.path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            Err(_) => {
                if self.owner.as_deref().and_then(pid_in).is_some_and(|pid| !is_alive(pid)) {
                    drop(fs::remove_dir(&self.path));
                }
                Ok(false)
            }
        });
        if !matches!(is_made, Ok(true)) {
            drop(fs::remove_dir(&staged));
            drop(fs::remove_file(&self.note));
        }
        match is_made {
            Ok(true) => Ok(()),
            Ok(false) => Err(busy(&self.path, title, "it")),
            Err(e) => Err(failed(&e)),
        }
    }

    /// Makes a directory under another name, and notes it: a kill at any moment leaves one that is known as ours.
    fn stage(&self, staged: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().create(staged) {
            // A killed run with our number left it.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        let about = fs::metadata(staged)?;
        let note = OwnDirectory { staged: staged.to_owned(), ..OwnDirectory::of(&about) };
        durable::replace_without_sync(&self.note, &serde_json::to_vec(&note)?)
    }

    /// Removes the lock of a run that was killed.
    fn remove_own_remains(&self) {
        let note = fs::read(&self.note).ok().and_then(|bytes| serde_json::from_slice::<OwnDirectory>(&bytes).ok());
        let Some(note) = note else { return };
        let there = fs::symlink_metadata(&self.path).ok().filter(fs::Metadata::is_dir);
        if there.is_some_and(|about| OwnDirectory::of(&about).is_same(&note)) {
            drop(fs::remove_dir(&self.path));
        }
        drop(fs::remove_dir(&note.staged));
        drop(fs::remove_file(&self.note));
    }
}

impl OwnDirectory {
    fn of(about: &fs::Metadata) -> Self {
        let born = about.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Self {
            staged: PathBuf::new(),
            device: about.dev(),
            inode: about.ino(),
            born_ns: born.map(|since| since.as_nanos()),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.device, self.inode, self.born_ns) == (other.device, other.inode, other.born_ns)
    }
}

/// Gives a directory a name that nothing has.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // The file system cannot do that, as NFS.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            renamed => return Ok(renamed?),
        }
    }
    fs::DirBuilder::new().create(to).and_then(|()| fs::remove_dir(from))
}

/// The process that a file names: a number, or JSON with a member `pid`.
fn pid_in(file: &Path) -> Option<u32> {
    let text = fs::read_to_string(file).ok()?;
    let json = || serde_json::from_str::<serde_json::Value>(&text).ok()?.get("pid")?.as_u64();
    text.trim().parse().ok().or_else(|| json()?.try_into().ok())
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    // Another user's process is alive, too.
    pid.is_none_or(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// Tries until it works or the time is over.
fn wait_for(limit: Duration, mut is_done: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    let mut waited = Duration::ZERO;
    loop {
        if is_done()? {
            return Ok(true);
        }
        if waited >= limit {
            return Ok(false);
        }
        std::thread::park_timeout(LOOK_INTERVAL);
        waited += LOOK_INTERVAL;
    }
}

fn busy(path: &Path, title: &str, holder: &str) -> Failure {
    let message = format!("{title} has the lock of its file, {}", path.display());
    let hint = match holder {
        "it" => format!("run it again in a moment; if {title} does not run: rmdir {}", path.display()),
        holder => format!("run it again when {holder} is done"),
    };
    Failure::new(ErrorKind::Busy, message).with_hint(hint)
}

fn cannot_lock(path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot take the lock {}: {error}", path.display());
    Failure::new(ErrorKind::Mirror, message).with_hint("check the permissions of its directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: ConsumerLock = ConsumerLock::Directory { name: "lock", owner: "lock.owner" };

    #[test]
    fn lock_of_a_dead_process_is_broken() {
        let dir = tempfile::tempdir().unwrap();
        let (file, lock, note) = (dir.path().join("file"), dir.path().join("lock"), dir.path().join("note"));
        let dead = std::process::Command::new("true").spawn().unwrap();
        let pid = dead.id();
        dead.wait_with_output().unwrap();
        for owner in [pid.to_string(), format!("{{\"pid\":{pid}}}")] {
            fs::create_dir(&lock).unwrap();
            fs::write(dir.path().join("lock.owner"), owner).unwrap();
            let held = acquire(DIRECTORY, &file, "Claude Code", &note, LOOK_INTERVAL).unwrap();
            assert!(lock.is_dir());
            drop(held);
            assert!(!lock.exists());
        }
    }

    #[test]
    fn held_lock_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (file, note) = (dir.path().join("auth.json"), dir.path().join("note"));
        let files = ConsumerLock::Files(&["auth.lock", "auth.json.lock"]);
        let first = acquire(files, &file, "Codex", &note, Duration::from_secs(30)).unwrap();
        std::thread::scope(|s| {
            let second = s.spawn(|| acquire(files, &file, "Codex", &note, Duration::from_secs(30)).map(drop));
            drop(first);
            second.join().unwrap().unwrap();
        });
        fs::create_dir(dir.path().join("lock")).unwrap();
        fs::write(dir.path().join("lock.owner"), std::process::id().to_string()).unwrap();
        let busy = acquire(DIRECTORY, &file, "Claude Code", &note, LOOK_INTERVAL).unwrap_err();
        assert_eq!(busy.kind, ErrorKind::Busy);
        assert!(dir.path().join("lock").is_dir(), "its holder lives");
    }

    /// What was lost: a mirror for ever, because a killed run had left the program's lock.
    #[test]
    fn lock_of_a_killed_run_of_ours_is_broken() {
        for lock in [DIRECTORY, ConsumerLock::Directory { name: "lock", owner: "" }] {
            let dir = tempfile::tempdir().unwrap();
            let (file, path, note) = (dir.path().join("file"), dir.path().join("lock"), dir.path().join("note"));
            let again = || acquire(lock, &file, "pi", &note, LOOK_INTERVAL);
            std::mem::forget(again().unwrap());
            assert!(path.is_dir());
            drop(again().unwrap());
            // Killed before the directory had its name.
            let staged = LockDirectory { path: path.clone(), owner: None, note: note.clone() };
            staged.stage(&dir.path().join(".keepalive-lock-1")).unwrap();
            drop(again().unwrap());
            // One that the program made in its place is not ours.
            std::mem::forget(again().unwrap());
            fs::remove_dir(&path).unwrap();
            fs::create_dir(&path).unwrap();
            assert_eq!(again().unwrap_err().kind, ErrorKind::Busy);
            fs::remove_dir(&path).unwrap();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
        }
    }
}
