//! The lock of the program that a file belongs to, so that it and keepalive do not write at once. It is held for a moment.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::outcome::{ErrorKind, Failure};
use crate::profile::consumers::ConsumerLock;
use crate::sys::lockfile::LockHolder;

const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// The locks that are held. Dropping them releases them.
#[derive(Debug, Default)]
pub(super) struct ConsumerLocks {
    _files: Vec<File>,
    directory: Option<PathBuf>,
}

impl Drop for ConsumerLocks {
    fn drop(&mut self) {
        if let Some(dir) = &self.directory {
            // The program takes one that is left for its own after a while.
            drop(fs::remove_dir(dir));
        }
    }
}

/// Takes the lock of the file's program, waiting for at most `limit`.
pub(super) fn acquire(lock: ConsumerLock, file: &Path, title: &str, limit: Duration) -> Result<ConsumerLocks, Failure> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    match lock {
        ConsumerLock::None => Ok(ConsumerLocks::default()),
        ConsumerLock::Files(names) => {
            let files = names.iter().map(|name| lock_file(&dir.join(name), title, limit)).collect::<Result<_, _>>()?;
            Ok(ConsumerLocks { _files: files, directory: None })
        }
        ConsumerLock::Directory { name, owner } => {
            let path = dir.join(name);
            let owner = (!owner.is_empty()).then(|| dir.join(owner));
            make_dir(&path, owner.as_deref(), title, limit)?;
            Ok(ConsumerLocks { _files: Vec::new(), directory: Some(path) })
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

/// A directory that another run made stays for as long as its holder lives: its age alone proves nothing.
fn make_dir(path: &Path, owner: Option<&Path>, title: &str, limit: Duration) -> Result<(), Failure> {
    let is_made = wait_for(limit, || match fs::DirBuilder::new().create(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        Err(_) => {
            if owner.and_then(pid_in).is_some_and(|pid| !is_alive(pid)) {
                drop(fs::remove_dir(path));
            }
            Ok(false)
        }
    });
    match is_made {
        Ok(true) => Ok(()),
        Ok(false) => Err(busy(path, title, "it")),
        Err(e) => Err(cannot_lock(path, &e)),
    }
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
        "it" => format!("keepalive tries again; if {title} does not run: rmdir {}", path.display()),
        holder => format!("keepalive tries again when {holder} is done"),
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
        let (file, lock) = (dir.path().join("file"), dir.path().join("lock"));
        let dead = std::process::Command::new("true").spawn().unwrap();
        let pid = dead.id();
        dead.wait_with_output().unwrap();
        for owner in [pid.to_string(), format!("{{\"pid\":{pid}}}")] {
            fs::create_dir(&lock).unwrap();
            fs::write(dir.path().join("lock.owner"), owner).unwrap();
            let held = acquire(DIRECTORY, &file, "Claude Code", LOOK_INTERVAL).unwrap();
            assert!(lock.is_dir());
            drop(held);
            assert!(!lock.exists());
        }
    }

    #[test]
    fn held_lock_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("auth.json");
        let files = ConsumerLock::Files(&["auth.lock", "auth.json.lock"]);
        let first = acquire(files, &file, "Codex", Duration::from_secs(30)).unwrap();
        std::thread::scope(|s| {
            let second = s.spawn(|| acquire(files, &file, "Codex", Duration::from_secs(30)).map(drop));
            drop(first);
            second.join().unwrap().unwrap();
        });
        fs::create_dir(dir.path().join("lock")).unwrap();
        fs::write(dir.path().join("lock.owner"), std::process::id().to_string()).unwrap();
        let busy = acquire(DIRECTORY, &file, "Claude Code", LOOK_INTERVAL).unwrap_err();
        assert_eq!(busy.kind, ErrorKind::Busy);
        assert!(dir.path().join("lock").is_dir(), "its holder lives");
    }
}
