//! The wall clock is set in mid-flight and under a running daemon: forwards, backwards, by seconds and by years.

use std::time::{Duration, Instant};

use super::Extent;
use super::fixture::SweepReport;
use super::support::auth_server::{AuthServer, HoldPoint};
use super::support::sandbox::Sandbox;
use super::support::token_family::RotationMode;

/// Seconds by which the clock is set.
const STEPS: &[i64] = &[-86_400, -3_600, -5, 5, 3_600, 86_400, 315_360_000];

pub fn run(extent: Extent) -> bool {
    let mut tally = SweepReport::default();
    let seconds = Duration::from_secs(if extent.is_full() { 60 } else { 9 });
    let results: Vec<_> = std::thread::scope(|scope| {
        let run = |step: i64| move || (step, in_flight(step), under_daemon(step, seconds));
        let runs: Vec<_> = STEPS.iter().map(|step| scope.spawn(run(*step))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for (step, in_flight, under_daemon) in results {
        match in_flight {
            Ok(()) => tally.add("set in mid-flight: refreshed, once"),
            Err(fault) => tally.fault(format!("{step} s in mid-flight: {fault}")),
        }
        match under_daemon {
            Ok(()) => tally.add("set under a daemon: never without a token, at most one refresh more"),
            Err(fault) => tally.fault(format!("{step} s under a daemon: {fault}")),
        }
    }
    tally.print("clock steps")
}

/// A sandbox whose wall clock is in a file.
fn sandbox(server: &AuthServer) -> (Sandbox, FakeTimeFile) {
    let mut sandbox = Sandbox::new();
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    assert!(std::path::Path::new(library).exists(), "libfaketime is needed: contrib/test installs it");
    let clock = FakeTimeFile(sandbox.path("home/clock"));
    clock.set(0);
    for (name, value) in [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", &clock.0.display().to_string()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ] {
        sandbox.set_env(name, value);
    }
    let year = |sandbox: &Sandbox| {
        let findings = sandbox.keepalive(&["--json", "doctor"]).json()["findings"].clone();
        let clock = findings.as_array().unwrap().iter().find(|f| f["what"] == "clock").unwrap().clone();
        clock["message"].as_str().unwrap()[..4].parse::<u32>().unwrap()
    };
    let now = year(&sandbox);
    clock.set(315_360_000);
    assert_eq!(year(&sandbox), now + 10, "the clock is the program's");
    clock.set(0);
    // A margin that leaves a busy machine some time, since the tokens are so short.
    let profile = "[profile.demo]\nprovider = \"acme\"\nmargin = \"40%\"\n";
    sandbox.file_store(&format!("{}{profile}", server.provider("")));
    sandbox.import("demo", &server.mint()).exits(0);
    (sandbox, clock)
}

struct FakeTimeFile(std::path::PathBuf);

impl FakeTimeFile {
    fn set(&self, seconds: i64) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }
}

fn in_flight(step: i64) -> Result<(), String> {
    let server = AuthServer::start(RotationMode::Strict);
    let (sandbox, clock) = sandbox(&server);
    let gate = server.hold(HoldPoint::AfterCommit);
    let flight = sandbox.spawn(&["--json", "refresh", "-p", "demo", "--force"]);
    gate.wait_reached();
    clock.set(step);
    drop(gate);
    let run = flight.finish();
    let again = sandbox.keepalive(&["--json", "refresh", "-p", "demo"]);
    let counts = server.counts();
    let one_more = usize::from(step > 0);
    match (run.status, again.status, counts.presented_again) {
        (0, 0, 0) if counts.refresh_ok <= 1 + one_more => Ok(()),
        _ => Err(format!("{run:?} {again:?} {counts:?}")),
    }
}

fn under_daemon(step: i64, watched: Duration) -> Result<(), String> {
    let server = AuthServer::start(RotationMode::Strict);
    server.set_access_life(Duration::from_secs(3));
    // What is looked for is a token that has expired, and not one that a refresh has just replaced.
    server.keep_old_access_tokens();
    let (sandbox, clock) = sandbox(&server);
    let daemon = sandbox.daemon();
    let start = Instant::now();
    let mut misses = 0;
    let mut is_set = false;
    while start.elapsed() < watched {
        if !is_set && start.elapsed() > watched / 3 {
            clock.set(step);
            is_set = true;
        }
        let token = sandbox.keepalive(&["token", "demo", "--min-valid", "0s"]);
        misses += u32::from(token.status != 0 || !server.is_live(token.stdout.trim()));
        std::thread::sleep(Duration::from_millis(50));
    }
    let elapsed = start.elapsed().as_secs_f64();
    daemon.terminate();
    daemon.finish().exits(0);
    let counts = server.counts();
    // A token of 3 s is refreshed no sooner than at half of its life.
    let most = (elapsed / 1.5) as usize + 2;
    if misses > 0 || counts.presented_again > 0 || counts.refresh_requests > most {
        return Err(format!("{misses} times without a live token; {counts:?}, at most {most} expected"));
    }
    Ok(())
}
