//! One server, one store, a fresh credential for every point, and the question that follows every blow: is the newest
//! credential still there, was anything presented twice, and was the truth told?

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::support::auth_server::{AuthServer, Counts};
use super::support::eventually;
use super::support::sandbox::{PROGRAM, Run, Sandbox, just_granted};
use super::support::session_bus::{KeyringState, SessionBus};
use super::support::token_family::RotationMode;
use super::tracer::{self, TraceOrder, TraceResult};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreType {
    File,
    KeyringState,
}

/// What is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TracedCommand {
    /// `keepalive refresh --force`
    Refresh,
    /// The flight with which a daemon begins when a profile is due.
    Daemon,
}

pub struct SweepFixture {
    pub server: AuthServer,
    pub sandbox: Sandbox,
    bus: Option<SessionBus>,
    profiles: u32,
}

impl SweepFixture {
    pub fn new(store: StoreType, mode: RotationMode, provider: &str) -> Self {
        Self::prepared(store, mode, provider, |_| {})
    }

    /// As `new`, in a sandbox that is prepared before anything is written there.
    pub fn prepared(store: StoreType, mode: RotationMode, provider: &str, prepare: impl FnOnce(&Sandbox)) -> Self {
        let server = AuthServer::start(mode);
        let mut sandbox = Sandbox::new();
        prepare(&sandbox);
        // Else the system's certificates are read from two hundred files, and have no part in this.
        sandbox.set_env("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt");
        let provider = server.provider(provider);
        let bus = match store {
            StoreType::File => {
                sandbox.file_store(&provider);
                None
            }
            StoreType::KeyringState => {
                sandbox.config(&provider);
                Some(SessionBus::start(&mut sandbox, KeyringState::Unlocked))
            }
        };
        let stage = Self { server, sandbox, bus, profiles: 0 };
        // The sealing key is born here, and not at every point.
        stage.import("p0", &stage.server.mint());
        stage
    }

    fn import(&self, profile: &str, answer: &Value) {
        let run = || {
            self.sandbox
                .keepalive_with_input(&["import", profile, "--provider", "acme"], &just_granted(answer).to_string())
        };
        // A keyring on a machine that is busy with other sweeps may be slow; nothing is swept yet.
        let is_done = |run: &Run| run.status != 69 || !run.stderr.contains("did not respond within");
        eventually("the keyring takes it", || Some(run()).filter(is_done)).exits(0);
    }

    /// A new profile, signed in. `Daemon`: its access token is at its end.
    pub fn sign_in(&mut self, victim: TracedCommand) -> String {
        // What became of the one before is no business of the next daemon.
        let before = format!("p{}", self.profiles);
        let _none = std::fs::remove_dir_all(self.sandbox.path(&format!("state/keepalive/profiles/{before}")));
        // An import looks at all that the keyring has.
        if let Some(bus) = &self.bus {
            bus.secret_tool(&["clear", "service", "keepalive", "username", &before], "");
        }
        self.profiles += 1;
        let profile = format!("p{}", self.profiles);
        let mut answer = self.server.mint();
        if victim == TracedCommand::Daemon {
            answer["expires_in"] = 1.into();
        }
        self.import(&profile, &answer);
        profile
    }

    /// Runs the victim under the tracer until it ends; a daemon is told to end when it has refreshed.
    pub fn run_traced(&self, victim: TracedCommand, profile: &str, order: &TraceOrder) -> TraceResult {
        let tracer = self.sandbox.command(&std::env::current_exe().unwrap());
        let program = Path::new(PROGRAM);
        match victim {
            TracedCommand::Refresh => {
                let call = ["--json", "refresh", "-p", profile, "--force"];
                tracer::trace(tracer, order, program, &call, &self.sandbox.path(""))
            }
            TracedCommand::Daemon => {
                // The shell ends the daemon when it has done its work; the tracer sees only the daemon.
                let script = self.sandbox.path("home/watch");
                std::fs::write(&script, WATCH).unwrap();
                let mut shell = self.sandbox.command(Path::new("/bin/sh"));
                shell.arg(script).arg(self.daemon_lock()).arg(std::env::current_exe().unwrap());
                tracer::trace(shell, order, program, &["-v", "daemon"], &self.sandbox.path(""))
            }
        }
    }

    fn daemon_lock(&self) -> PathBuf {
        self.sandbox.path("state/keepalive/daemon.lock")
    }

    pub fn refresh(&self, profile: &str) -> (i32, Value) {
        let run = self.sandbox.keepalive(&["--json", "refresh", "-p", profile, "--force"]);
        assert!(!run.stdout.is_empty(), "{run:#?}");
        (run.status, run.result())
    }

    pub fn access_token(&self, profile: &str) -> String {
        let run = self.sandbox.keepalive(&["token", profile, "--min-valid", "0s"]);
        run.exits(0).stdout.trim().to_owned()
    }

    /// What a blow left, and what the next run makes of it.
    pub fn examine(&self, profile: &str, before: &Counts) -> Result<PointResult, String> {
        let struck = self.server.settled_counts();
        let committed = struck.refresh_ok - before.refresh_ok;
        let (status, result) = self.refresh(profile);
        let after = self.server.counts();
        let asked_again = after.refresh_requests - struck.refresh_requests;
        if after.presented_again != before.presented_again || after.families_revoked != before.families_revoked {
            return Err(format!("presented again: {result}"));
        }
        match (status, result["outcome"].as_str()) {
            (75, Some("in_doubt")) if asked_again == 0 => return Ok(PointResult::Doubt { committed: committed > 0 }),
            (0, Some("refreshed" | "fresh")) => {}
            _ => return Err(format!("exit {status}: {result}")),
        }
        if !self.server.is_live(&self.access_token(profile)) {
            return Err(format!("the token handed out is not the newest: {result}"));
        }
        let (status, result) = self.refresh(profile);
        if status != 0 || self.server.counts().presented_again != before.presented_again {
            return Err(format!("the refresh after that: exit {status}: {result}"));
        }
        Ok(match (committed, asked_again) {
            (0, _) => PointResult::Unspent,
            (_, 0) => PointResult::RolledForward,
            _ => PointResult::Safe,
        })
    }
}

/// Gives the exit status of the tracer, which is that of the daemon.
const WATCH: &str = r#"lock=$1; shift
"$@" 2>"$HOME/daemon.log" &
tracer=$!
while kill -0 $tracer 2>/dev/null; do
  if grep -qE 'refreshed|retry_at|needs attention' "$HOME/daemon.log"; then kill -TERM $(cat "$lock"); break; fi
  sleep 0.01
done
wait $tracer
"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PointResult {
    /// The server had processed nothing, and the next run refreshed.
    Unspent,
    /// The answer was sealed; the next run took it from the seal without a request.
    RolledForward,
    /// The new generation was in place already.
    Safe,
    /// In doubt, said so, and nothing sent.
    Doubt { committed: bool },
}

/// What a sweep found.
#[derive(Default)]
pub struct SweepReport {
    pub counts: BTreeMap<String, u32>,
    pub faults: Vec<String>,
    pub points: u32,
}

impl SweepReport {
    /// Shares out every `stride`-th point: each worker is told its first one, and how far it is to its next.
    pub fn of_workers(workers: u64, stride: u64, work: impl Fn(u64, u64) -> Self + Sync) -> Self {
        let mut tally = Self::default();
        let parts: Vec<_> = std::thread::scope(|scope| {
            let work = &work;
            let run = |worker: u64| move || work(worker * stride + 1, workers * stride);
            let workers: Vec<_> = (0..workers).map(|worker| scope.spawn(run(worker))).collect();
            workers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        parts.into_iter().for_each(|part| tally.merge(part));
        tally
    }

    pub fn add(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_insert(0) += 1;
        self.points += 1;
    }

    pub fn fault(&mut self, what: String) {
        self.points += 1;
        self.faults.push(what);
    }

    pub fn merge(&mut self, other: Self) {
        for (what, n) in other.counts {
            *self.counts.entry(what).or_insert(0) += n;
        }
        self.faults.extend(other.faults);
        self.points += other.points;
    }

    /// Prints the table, and tells whether there was no fault.
    pub fn print(&self, title: &str) -> bool {
        println!("{title}: {} points", self.points);
        for (what, n) in &self.counts {
            println!("  {n:>6}  {what}");
        }
        for fault in &self.faults {
            println!("  FAULT   {fault}");
        }
        self.faults.is_empty()
    }
}
