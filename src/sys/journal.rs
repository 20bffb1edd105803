//! Whether standard error goes to the journal of systemd, and the priorities that it knows.

use crate::sys::paths;

/// The priorities of sd-daemon(3), for the lines that the journal reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    Error = 3,
    Warning = 4,
    Info = 6,
    Debug = 7,
}

impl std::fmt::Display for Priority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{}>", *self as u8)
    }
}

/// Whether standard error is the stream that `JOURNAL_STREAM` names. The variable alone proves nothing: it is inherited by
/// processes whose standard error was redirected (systemd.exec(5)).
#[cfg(target_os = "linux")]
pub fn is_stderr_the_journal() -> bool {
    let Some(stream) = paths::journal_stream() else { return false };
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| format!("{}:{}", stat.st_dev, stat.st_ino) == stream)
}

#[cfg(not(target_os = "linux"))]
pub fn is_stderr_the_journal() -> bool {
    let _unknown = paths::journal_stream();
    false
}
