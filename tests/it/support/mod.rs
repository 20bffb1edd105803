//! What the tests stand on: a sandbox, an authorization server that can misbehave, real keyrings and service managers.

pub mod auth_server;
pub mod browser_user;
pub mod oidc_provider;
pub mod other_tool;
pub mod recorded_responses;
pub mod sandbox;
pub mod session_bus;
pub mod simultaneous;
pub mod tls_terminator;
pub mod token_family;
pub mod tunnel_proxy;
pub mod user_manager;

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest that anything is waited for; a test that needs it is failing.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition that no event announces, looking often; panics with `what` if it does not come.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// As `eventually`, for work that comes in rounds: for every ten rounds the usual time once more.
pub fn eventually_within<T>(rounds: usize, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE * (2 + rounds as u32 / 10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a helper program says; shown when the test fails, so that a helper that dies is heard.
pub struct HelperLog {
    program: &'static str,
    file: std::fs::File,
}

impl HelperLog {
    pub fn new(program: &'static str) -> Self {
        Self { program, file: tempfile::tempfile().unwrap() }
    }

    /// A stream of the helper that is kept here.
    pub fn stream(&self) -> std::process::Stdio {
        self.file.try_clone().unwrap().into()
    }
}

impl Drop for HelperLog {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut said = Vec::new();
            let read = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.read_to_end(&mut said));
            eprintln!("{} said ({read:?}):\n{}", self.program, String::from_utf8_lossy(&said));
        }
    }
}

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// How many processes wait for a lock file.
pub fn lock_waiters(lock: &Path) -> usize {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{} ", std::fs::metadata(lock).unwrap().ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().filter(|line| line.contains("-> FLOCK") && line.contains(&inode)).count()
}
