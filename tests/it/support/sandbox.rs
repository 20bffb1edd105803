//! A world of its own for each test: home, XDG directories, clean environment, and the built program in it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use keepalive::clock::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;
use super::auth_server::AuthServer;

pub struct Sandbox {
    dir: TempDir,
    /// Added to the clean environment.
    env: Vec<(String, String)>,
}

/// A finished run.
#[derive(Debug)]
pub struct Run {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Asserts the exit status, showing everything if it is another.
    #[track_caller]
    pub fn exits(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }

    /// The one result of `refresh --json`.
    #[track_caller]
    pub fn result(&self) -> Value {
        self.json()["results"][0].clone()
    }

    /// The one profile of `status --json`.
    #[track_caller]
    pub fn profile(&self) -> Value {
        self.json()["profiles"][0].clone()
    }

    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(self.stderr.contains(words) || self.stdout.contains(words), "no {words:?} in {self:#?}");
        self
    }
}

impl Sandbox {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("keepalive-test-").tempdir().unwrap();
        for sub in ["home", "config/keepalive", "state", "run", "data", "cache"] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(dir.path().join("run"), private).unwrap();
        Self { dir, env: Vec::new() }
    }

    /// A sandbox with the sealed file store and a profile `demo` at a server, signed in.
    pub fn signed_in(server: &AuthServer) -> Self {
        Self::signed_in_with(server, "")
    }

    /// As `signed_in`, with more keys for the provider.
    pub fn signed_in_with(server: &AuthServer, provider: &str) -> Self {
        let sandbox = Self::new();
        sandbox.file_store(&format!("{}[profile.demo]\nprovider = \"acme\"\n", server.provider(provider)));
        sandbox.import("demo", &server.mint()).exits(0);
        sandbox
    }

    pub fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.push((name.into(), value.into()));
    }

    /// Writes the configuration.
    pub fn config(&self, text: &str) {
        let path = self.path("config/keepalive/config.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    /// Writes a configuration with the sealed file store, and its key.
    pub fn file_store(&self, rest: &str) {
        let key = self.path("home/key");
        if !key.exists() {
            std::fs::write(&key, keepalive::store::keys::sealing_key::random_bytes::<32>()).unwrap();
            std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
        self.config(&format!("[store]\nkind = \"file\"\nkey = {{ file = \"{}\" }}\n{rest}", key.display()));
    }

    /// Makes the access token of a profile older, as if it had been had that long ago.
    pub fn age_token(&self, profile: &str, by: std::time::Duration) {
        let record = self.path(&format!("state/keepalive/profiles/{profile}/record.json"));
        let mut journal: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
        let obtained = &mut journal["validity"]["obtained"];
        obtained["wall"] = (chrono::Utc::now() - by).to_rfc3339().into();
        obtained["uptime_ms"] = (obtained["uptime_ms"].as_u64().unwrap() - by.as_millis() as u64).into();
        // In place, or it would be taken for a copy.
        std::fs::write(&record, journal.to_string()).unwrap();
    }

    /// The lock file of a profile.
    pub fn lock_file(&self, profile: &str) -> PathBuf {
        self.path(&format!("state/keepalive/profiles/{profile}/lock"))
    }

    /// The environment of everything that runs here.
    pub fn environment(&self) -> Vec<(String, String)> {
        let at = |sub: &str| self.path(sub).display().to_string();
        let mut env = vec![
            ("PATH".to_owned(), std::env::var("PATH").unwrap()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("TZ".to_owned(), "UTC".to_owned()),
            ("HOME".to_owned(), at("home")),
            ("XDG_CONFIG_HOME".to_owned(), at("config")),
            ("XDG_STATE_HOME".to_owned(), at("state")),
            ("XDG_DATA_HOME".to_owned(), at("data")),
            ("XDG_CACHE_HOME".to_owned(), at("cache")),
            ("XDG_RUNTIME_DIR".to_owned(), at("run")),
        ];
        env.extend(self.env.iter().cloned());
        env
    }

    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment()).current_dir(self.path("home"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn keepalive(&self, arguments: &[&str]) -> Run {
        finish(self.keepalive_command(arguments).spawn().unwrap())
    }

    pub fn keepalive_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(Path::new(PROGRAM));
        command.args(arguments);
        command
    }

    pub fn keepalive_with_input(&self, arguments: &[&str], input: &str) -> Run {
        let mut child = self.keepalive_command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // A program that ends without reading is that test's business.
        let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
        finish(child)
    }

    /// Imports a response that has just been granted, unless it says when it was.
    pub fn import(&self, profile: &str, answer: &Value) -> Run {
        self.import_as_is(profile, &just_granted(answer))
    }

    pub fn import_as_is(&self, profile: &str, answer: &Value) -> Run {
        self.keepalive_with_input(&["import", profile], &answer.to_string())
    }

    pub fn refresh(&self, more: &[&str]) -> Run {
        self.keepalive(&[&["--json", "refresh", "-p", "demo"], more].concat())
    }

    pub fn status(&self) -> Value {
        self.keepalive(&["--json", "status", "-p", "demo"]).profile()
    }

    pub fn spawn(&self, arguments: &[&str]) -> Process {
        Process::new(self.keepalive_command(arguments).spawn().unwrap())
    }

    /// Starts the daemon and waits until it says that it is up.
    pub fn daemon(&self) -> Process {
        let daemon = self.spawn(&["-v", "daemon"]);
        daemon.wait_for_line("daemon is up");
        daemon
    }
}

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_keepalive");

fn finish(child: Child) -> Run {
    let out = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    finished_run(out.status, text(&out.stdout), text(&out.stderr))
}

/// No thread of the program may have panicked, whatever its exit status says.
#[track_caller]
fn finished_run(status: std::process::ExitStatus, stdout: String, stderr: String) -> Run {
    assert!(!stderr.contains("panicked at") && !stderr.contains("internal error"), "{stderr}");
    Run { status: status_number(status), stdout, stderr }
}

/// The exit status; -N for a signal.
fn status_number(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
}

/// A running program, killed when dropped.
pub struct Process {
    child: Child,
    lines: Arc<(Mutex<Vec<String>>, Condvar)>,
    stdout: Option<std::thread::JoinHandle<String>>,
    stderr: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    pub fn new(mut child: Child) -> Self {
        let lines = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let shared = Arc::clone(&lines);
        let pipe = BufReader::new(child.stderr.take().unwrap());
        let stderr = std::thread::spawn(move || {
            for line in pipe.lines().map_while(Result::ok) {
                shared.0.lock().unwrap().push(line);
                shared.1.notify_all();
            }
        });
        let mut out = child.stdout.take().unwrap();
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).unwrap_or(0);
            text
        });
        Self { child, lines, stdout: Some(stdout), stderr: Some(stderr) }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line on stderr that contains `words`.
    #[track_caller]
    pub fn wait_for_line(&self, words: &str) {
        self.wait_for_lines(words, 1);
    }

    /// Waits for `n` such lines.
    #[track_caller]
    pub fn wait_for_lines(&self, words: &str, n: usize) {
        let is_missing = |lines: &mut Vec<String>| lines.iter().filter(|l| l.contains(words)).count() < n;
        let lines = self.lines.0.lock().unwrap();
        let (lines, timeout) =
            self.lines.1.wait_timeout_while(lines, PATIENCE, is_missing).unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "no {n} lines with {words:?} in {lines:#?}");
    }

    pub fn stderr_so_far(&self) -> String {
        self.lines.0.lock().unwrap().join("\n")
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Stops all of it; returns when it stands still.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
        super::eventually("it stands still", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with('T').then_some(())
        });
    }

    /// Ctrl-C; returns the exit status that follows. A test run in a shell's background has it ignored, and so has what it
    /// starts: SIGTERM takes its place there, and `otherwise` is returned.
    pub fn interrupt(&self, otherwise: i32) -> i32 {
        let interrupt = rustix::process::Signal::INT;
        let is_ignored = keepalive::sys::process::ignores_signal(interrupt.as_raw());
        self.signal(if is_ignored { rustix::process::Signal::TERM } else { interrupt });
        if is_ignored { otherwise } else { 130 }
    }

    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end.
    pub fn finish(self) -> Run {
        self.finish_within(|what, look| super::eventually(what, look))
    }

    /// As `finish`, for a program that is slow to start.
    pub fn finish_slowly(self) -> Run {
        self.finish_within(|what, look| super::eventually_within(30, what, look))
    }

    fn finish_within(
        mut self,
        wait: impl Fn(&str, &mut dyn FnMut() -> Option<std::process::ExitStatus>) -> std::process::ExitStatus,
    ) -> Run {
        let what = format!("process {} ends; it said {:?}", self.id(), self.stderr_so_far());
        let status = wait(&what, &mut || self.child.try_wait().unwrap());
        let stdout = self.stdout.take().unwrap().join().unwrap();
        self.stderr.take().unwrap().join().unwrap();
        finished_run(status, stdout, self.stderr_so_far())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// The response with the time at which it was granted: now, unless it says so itself.
pub fn just_granted(answer: &Value) -> Value {
    let mut answer = answer.clone();
    if answer.get("expires_in").is_some_and(Value::is_u64) && answer.get("obtained_at").is_none() {
        answer["obtained_at"] = Timestamp::from(chrono::Utc::now()).as_millis().into();
    }
    answer
}
