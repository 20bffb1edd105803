//! Who holds a lock file, for a person to read. Nothing is decided by it.

use std::fmt;
use std::path::Path;

/// Who holds a lock, as far as it can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockHolder {
    pub pid: Option<u32>,
    /// It is stopped, as by Ctrl-Z or a debugger: it will not go on by itself.
    pub is_stopped: bool,
}

/// What a holder writes into its lock file: of one length, so that one write replaces the former holder.
pub(super) fn content() -> String {
    format!("{:<10}\n", std::process::id())
}

impl LockHolder {
    /// The holder of a lock file that could not be taken.
    ///
    /// The file says who took it last. The kernel says who has it now; where it does not, the process must at least live.
    pub fn of(path: &Path) -> Self {
        let noted = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        let pid = match lock_table(path) {
            Some(pids) if !pids.is_empty() => noted.filter(|pid| pids.contains(pid)).or(pids.first().copied()),
            Some(_) | None => noted.filter(|pid| is_alive(*pid)),
        };
        Self { pid, is_stopped: pid.is_some_and(is_stopped) }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self.pid {
            Some(pid) if self.is_stopped => {
                format!("it is stopped; let it go on: kill -CONT {pid}, or end it: kill -KILL {pid}")
            }
            Some(pid) => format!("retry when it is done; if it hangs: kill {pid}"),
            None => "retry when it is done".to_owned(),
        }
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, self.is_stopped) {
            (Some(pid), true) => write!(f, "pid {pid} (stopped)"),
            (Some(pid), false) => write!(f, "pid {pid}"),
            (None, _) => f.write_str("another process"),
        }
    }
}

/// The processes that hold a lock on this file, by proc(5). `None` where there is no such table.
fn lock_table(path: &Path) -> Option<Vec<u32>> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = std::fs::metadata(path).ok()?.ino();
        Some(holders_in(&std::fs::read_to_string("/proc/locks").ok()?, inode))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _none = path;
        None
    }
}

/// The holders of an inode's `flock`. The device is not compared: some file systems show another one here. (pure)
#[cfg(any(target_os = "linux", test))]
fn holders_in(table: &str, inode: u64) -> Vec<u32> {
    let of_line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = words.as_slice() else { return None };
        let is_it = file.rsplit(':').next().and_then(|n| n.parse().ok()) == Some(inode);
        // A holder that this process cannot see has no number here.
        pid.parse::<u32>().ok().filter(|pid| is_it && *pid > 0)
    };
    table.lines().filter_map(of_line).collect()
}

fn is_alive(pid: u32) -> bool {
    #[cfg(unix)]
    {
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
    }
    #[cfg(not(unix))]
    {
        pid > 0
    }
}

/// Only known on Linux; elsewhere no.
fn is_stopped(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the program, in parentheses, may hold anything.
    status.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|s| s == "T" || s == "t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holder_is_read_from_the_table_of_locks() {
        let table = "1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 12 fe:01:1234 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 13 fe:01:1234 0 EOF\n3: FLOCK  ADVISORY  WRITE 0 fe:01:99 0 EOF\n";
        assert_eq!(holders_in(table, 1234), [4711]);
        assert!(holders_in(table, 99).is_empty() && holders_in(table, 5).is_empty() && holders_in("", 1).is_empty());
    }

    #[test]
    fn stale_note_of_a_dead_holder_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, "4194305   \n").unwrap();
        assert_eq!(LockHolder::of(&path), LockHolder::default());
        assert_eq!(LockHolder::default().to_string(), "another process");
    }
}
