//! Twenty profiles with tokens of a second, for hours of ordinary life in minutes, while the daemon, callers and the
//! keyring are killed at random. A family may die only of a kill between the server's commit and our seal; then it must be
//! told, and signing in again must mend it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Extent;
use super::race::Random;
use super::support::auth_server::{AuthServer, LoggedRefresh};
use super::support::sandbox::{Process, Sandbox};
use super::support::session_bus::{KeyringState, SessionBus};
use super::support::token_family::RotationMode;

/// A kill this long before or after a commit may have come between it and the seal: the window takes milliseconds, but
/// the machine is busy.
const WINDOW: Duration = Duration::from_millis(300);

pub fn run(extent: Extent) -> bool {
    let (profiles, rotations, most) =
        if extent.is_full() { (20, 500, Duration::from_secs(3600)) } else { (4, 12, Duration::from_secs(90)) };
    let mut soak = Soak::start(profiles);
    let end = Instant::now() + most;
    while soak.fewest_rotations() < rotations && Instant::now() < end {
        soak.do_random_event();
        soak.read_events();
    }
    soak.conclude(rotations)
}

struct Soak {
    // Dropped first: the daemon and the bus end before their directory goes.
    daemon: Option<Process>,
    callers: Vec<(Instant, Process)>,
    bus: SessionBus,
    sandbox: Sandbox,
    server: AuthServer,
    random: Random,
    /// Which profile a family belongs to.
    families: Vec<usize>,
    rotations: Vec<usize>,
    seen: usize,
    last_commit: BTreeMap<usize, Instant>,
    kills: Vec<Instant>,
    keyring_kills: u32,
    deaths: u32,
    allowed_again: usize,
    served: u32,
    faults: Vec<String>,
}

impl Soak {
    fn start(profiles: usize) -> Self {
        let server = AuthServer::start(RotationMode::Strict);
        server.set_access_life(Duration::from_secs(1));
        let mut sandbox = Sandbox::new();
        // A provider for each: the daemon is considerate to a provider, and starts one refresh a second there.
        let provider = |i| {
            let section = server.provider("settle = \"200ms\"\ntimeout = \"2s\"\n").replace("acme", &format!("a{i}"));
            format!("{section}[profile.p{i}]\nprovider = \"a{i}\"\n")
        };
        sandbox.config(&(0..profiles).map(provider).collect::<String>());
        let bus = SessionBus::start(&mut sandbox, KeyringState::Unlocked);
        let mut soak = Self {
            daemon: None,
            callers: Vec::new(),
            bus,
            sandbox,
            server,
            random: Random(0x5eed),
            families: Vec::new(),
            rotations: vec![0; profiles],
            seen: 0,
            last_commit: BTreeMap::new(),
            kills: Vec::new(),
            keyring_kills: 0,
            deaths: 0,
            allowed_again: 0,
            served: 0,
            faults: Vec::new(),
        };
        for profile in 0..profiles {
            soak.sign_in(profile);
        }
        soak.daemon = Some(soak.sandbox.daemon());
        soak
    }

    fn sign_in(&mut self, profile: usize) {
        self.families.push(profile);
        let answer = self.server.mint();
        let import = ["import", &format!("p{profile}"), "--replace"];
        // A keyring that was killed a moment ago is back in a moment.
        super::support::eventually("the import succeeds", || {
            let run = self.sandbox.keepalive_with_input(&import, &answer.to_string());
            (run.status == 0).then_some(())
        });
    }

    fn fewest_rotations(&self) -> usize {
        self.rotations.iter().copied().min().unwrap_or(0)
    }

    /// Something unkind, or just another caller.
    fn do_random_event(&mut self) {
        std::thread::sleep(Duration::from_millis(20 + self.random.below(200)));
        let profile = format!("p{}", self.random.below(self.rotations.len() as u64));
        match self.random.below(24) {
            0 => {
                if let Some(mut daemon) = self.daemon.take() {
                    self.kills.push(Instant::now());
                    daemon.kill();
                }
                self.daemon = Some(self.sandbox.daemon());
            }
            1 => {
                self.keyring_kills += 1;
                self.bus.kill_keyring();
                self.bus.start_keyring();
            }
            2..=5 => {
                let mut caller = self.sandbox.spawn(&["refresh", "-p", &profile, "--force"]);
                std::thread::sleep(Duration::from_millis(self.random.below(60)));
                self.kills.push(Instant::now());
                caller.kill();
            }
            6..=9 => self.call(&["refresh", "-p", &profile]),
            _ => self.call(&["token", &profile, "--min-valid", "100ms"]),
        }
    }

    fn call(&mut self, arguments: &[&str]) {
        let caller = self.sandbox.spawn(arguments);
        self.callers.push((Instant::now(), caller));
        if self.callers.len() > 6 {
            let (_, caller) = self.callers.remove(0);
            let run = caller.finish();
            self.served += 1;
            if !matches!(run.status, 0 | 69 | 75 | 77) {
                self.faults.push(format!("a caller ended with {}: {}", run.status, run.stderr));
            }
        }
    }

    /// Reads the server's log, and signs in again where `status` says that it is needed.
    fn read_events(&mut self) {
        for event in self.server.events_from(self.seen) {
            self.seen += 1;
            self.record_event(&event);
        }
        let status: Value = self.sandbox.keepalive(&["--json", "status"]).json();
        let states = status["profiles"].as_array().cloned().unwrap_or_default();
        for row in states.iter().filter(|row| row["state"] == "needs_login") {
            let profile: usize = row["profile"].as_str().unwrap()[1..].parse().unwrap();
            self.record_family_death(profile, row);
        }
    }

    fn record_event(&mut self, event: &LoggedRefresh) {
        if event.ok {
            self.rotations[self.families[event.family]] += 1;
            self.last_commit.insert(event.family, event.at);
        } else if event.is_replay {
            self.allowed_again += 1;
        }
    }

    /// Was there a kill between the last commit and what could have been its seal?
    fn record_family_death(&mut self, profile: usize, row: &Value) {
        self.deaths += 1;
        let family = self.families.iter().rposition(|p| *p == profile).unwrap();
        let commit = self.last_commit.get(&family).copied();
        let by_a_kill = commit
            .is_some_and(|commit| self.kills.iter().any(|kill| *kill + WINDOW >= commit && *kill <= commit + WINDOW));
        if !by_a_kill {
            self.faults.push(format!("p{profile} died, and nobody was killed then: {row}"));
        }
        self.sign_in(profile);
    }

    fn conclude(mut self, wanted: usize) -> bool {
        for (_, caller) in std::mem::take(&mut self.callers) {
            caller.finish();
        }
        if let Some(daemon) = self.daemon.take() {
            daemon.terminate();
            daemon.finish();
        }
        self.read_events();
        let counts = self.server.counts();
        println!(
            "soak: {} profiles, {} to {} rotations each, {} in all; {} processes killed, the keyring {} times",
            self.rotations.len(),
            self.fewest_rotations(),
            self.rotations.iter().max().unwrap_or(&0),
            counts.refresh_ok,
            self.kills.len(),
            self.keyring_kills
        );
        println!(
            "  {} callers served; {} families died, all told and signed in again; presented again: {}, each a last chance",
            self.served, self.deaths, counts.presented_again
        );
        if counts.presented_again > self.deaths as usize {
            self.faults.push(format!("{} presented again, {} deaths", counts.presented_again, self.deaths));
        }
        if self.fewest_rotations() < wanted {
            self.faults.push(format!("only {} rotations of the slowest", self.fewest_rotations()));
        }
        for fault in &self.faults {
            println!("  FAULT   {fault}");
        }
        self.faults.is_empty()
    }
}
