//! What the tests stand on: a sandbox, an authorization server that can misbehave, real keyrings and service managers.

pub mod api_client;
pub mod auth_server;
pub mod browser_user;
pub mod guarded_files;
pub mod model_api;
pub mod oidc_provider;
pub mod other_keyrings;
pub mod other_tool;
pub mod recorded_responses;
pub mod sandbox;
pub mod scripted_keyring;
pub mod session_bus;
pub mod simultaneous;
pub mod tls_terminator;
pub mod token_family;
pub mod tunnel_proxy;
pub mod user_manager;
pub mod vendor_hosts;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command};
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

/// A server or another program that a test stands on, killed when dropped. What it says is kept, and shown if it does not
/// come up or if the test fails.
pub struct Helper {
    program: &'static str,
    child: Child,
    said: File,
    is_told: bool,
}

impl Helper {
    /// Starts a program and keeps what it writes to stdout and stderr.
    #[track_caller]
    pub fn start(program: &'static str, command: &mut Command) -> Self {
        let said = tempfile::tempfile().unwrap();
        command.stdout(said.try_clone().unwrap());
        Self::with_log(program, command, said)
    }

    /// As `start`, for a program whose stdout goes elsewhere.
    #[track_caller]
    pub fn start_with_stdout(program: &'static str, command: &mut Command, stdout: File) -> Self {
        command.stdout(stdout);
        Self::with_log(program, command, tempfile::tempfile().unwrap())
    }

    #[track_caller]
    fn with_log(program: &'static str, command: &mut Command, said: File) -> Self {
        command.stderr(said.try_clone().unwrap());
        let started = command.spawn();
        let child = started.unwrap_or_else(|e| panic!("{program} is needed ({e}): contrib/test installs it"));
        Self { program, child, said, is_told: false }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until the program is ready; panics with its own words as soon as it ends, or if it does not get ready.
    #[track_caller]
    pub fn wait_until<T>(&mut self, what: &str, mut look: impl FnMut(&str) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            // Asked first: what it wrote before its end is all there then.
            let has_ended = self.has_ended();
            if let Some(found) = look(&self.said()) {
                return found;
            }
            if has_ended || Instant::now() >= end {
                self.is_told = true;
                panic!("waited in vain: {what}; {}", self.state());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All that it has written so far.
    pub fn said(&self) -> String {
        use std::os::unix::fs::FileExt;
        let mut said = vec![0; self.said.metadata().unwrap().len() as usize];
        // Not `read`: the program writes where this handle stands.
        self.said.read_exact_at(&mut said, 0).unwrap();
        String::from_utf8_lossy(&said).into_owned()
    }

    fn state(&mut self) -> String {
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!("ended with {status}"),
            Ok(None) => "is running".into(),
            Err(error) => error.to_string(),
        };
        format!("{} {state} and said:\n{}", self.program, self.said())
    }

    /// Shows what it said if the test is failing.
    pub fn tell(&mut self) {
        if std::thread::panicking() && !self.is_told {
            self.is_told = true;
            eprintln!("{}", self.state());
        }
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.tell();
        self.kill();
    }
}

/// Cargo as a shell calls it. `ring` is built anew when the variables change that the cargo around this test sets.
pub fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command.current_dir(root());
    command
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
