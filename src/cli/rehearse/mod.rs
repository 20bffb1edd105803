//! `keepalive rehearse`: tests the whole program against a strict authorization server of its own.

pub mod auth_server;
mod environment;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::GlobalArgs;
use super::output::{BAD, CommandStatus, GOOD, Output};
use crate::cli::rehearse::auth_server::{RehearsalServer, ServerCounts};
use crate::cli::rehearse::environment::{PROFILE, RehearsalEnvironment};
use crate::cli::setup;
use crate::outcome::{ErrorKind, Failure, Publication};
use crate::profile::ProfileName;
use crate::sys::machine;
use crate::sys::paths::Environment;
use crate::sys::process::{self, Termination};

/// Test this machine's store, locks and scheduler with a throw-away credential
///
/// Starts a strict authorization server on the loopback interface (short lifetimes, rotation, all tokens revoked on
/// reuse), the daemon, and groups of processes that all refresh at once. The result comes from the server's own log. Runs
/// in a temporary directory next to the real store and uses no real credential. Takes about 20 s.
#[derive(Debug, Args)]
pub struct RehearseArgs {
    /// Concurrent processes per round
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=200))]
    crowd: u16,
}

/// The lifetime of an access token: short, so that the daemon has work.
const ACCESS_LIFETIME: Duration = Duration::from_secs(5);
/// The delay of a response: long enough for concurrent requests to meet.
const RESPONSE_DELAY: Duration = Duration::from_millis(400);
const ROUNDS: u32 = 4;
/// The pause between two rounds: the daemon's margin is reached in some of these pauses.
const ROUND_INTERVAL: Duration = Duration::from_millis(1500);
/// At the end only the daemon works, for longer than a token lives.
const DAEMON_ONLY_TIME: Duration = Duration::from_secs(7);
/// The time limit of one process; the whole stays below a minute.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The result of the rehearsal.
#[derive(Debug, Default)]
struct RehearsalReport {
    callers: usize,
    served: usize,
    counts: ServerCounts,
    by_daemon_alone: u64,
    round_trip: Option<String>,
    /// The faults, and how often each occurred.
    faults: BTreeMap<String, u32>,
}

impl RehearsalReport {
    fn add(&mut self, fault: String) {
        *self.faults.entry(fault).or_insert(0) += 1;
    }

    /// The faults, each once.
    fn fault_lines(&self) -> Vec<String> {
        let told = |(fault, times): (&String, &u32)| match times {
            1 => fault.clone(),
            n => format!("{n} times: {fault}"),
        };
        self.faults.iter().map(told).collect()
    }
}

pub fn run(args: &RehearseArgs, global: &GlobalArgs, out: &Output) -> CommandStatus {
    let places = Environment::from_env(global.config.as_deref());
    let set = setup::load(&places).and_then(|config| {
        let server = RehearsalServer::start(ACCESS_LIFETIME, RESPONSE_DELAY)
            .map_err(|e| Failure::new(ErrorKind::Io, format!("cannot listen on 127.0.0.1: {e}")))?;
        RehearsalEnvironment::create(&config, &places, &server.token_endpoint()).map(|stage| (server, stage))
    });
    let (server, stage) = match set {
        Ok(set) => set,
        Err(failure) => {
            out.fail(&failure);
            return if failure.kind == ErrorKind::Config { CommandStatus::Config } else { CommandStatus::Failed };
        }
    };
    let mut findings = RehearsalReport::default();
    if let Err(fault) = run_rehearsal(&server, &stage, args, out, &mut findings) {
        findings.add(fault);
    }
    findings.counts = server.counts();
    print_verdict(&findings, &stage, out)
}

fn run_rehearsal(
    server: &RehearsalServer,
    stage: &RehearsalEnvironment,
    args: &RehearseArgs,
    out: &Output,
    findings: &mut RehearsalReport,
) -> Result<(), String> {
    out.info(&format!("a strict authorization server is listening on {}", server.token_endpoint()));
    let kind = if stage.is_keyring { "keyring" } else { "sealed file" };
    let import = stage.spawn_with(&["import", PROFILE], &server.mint()).map_err(|e| format!("import: {e}"))?;
    let imported = wait_for_output(import).map_err(|e| format!("import: {e}"))?;
    if !imported.status.success() {
        return Err(format!("the import failed: {}", imported.stderr.trim().trim_start_matches("error: ")));
    }
    out.info(&format!("imported a credential into the {kind} store"));
    let daemon = start_daemon(stage)?;
    out.info(&format!("the daemon is running (pid {})", daemon.id()));
    for number in 1..=ROUNDS {
        run_round(server, stage, args.crowd, number, out, findings)?;
        #[expect(clippy::disallowed_methods, reason = "the rehearsal shows what the daemon does as time passes")]
        thread::sleep(ROUND_INTERVAL);
    }
    let before = server.counts().refreshes;
    out.info(&format!("waiting {} s: now only the daemon refreshes …", DAEMON_ONLY_TIME.as_secs()));
    #[expect(clippy::disallowed_methods, reason = "the rehearsal shows what the daemon does as time passes")]
    thread::sleep(DAEMON_ONLY_TIME);
    findings.by_daemon_alone = server.counts().refreshes - before;
    out.info(&format!("the daemon refreshed {} times on its own", findings.by_daemon_alone));
    stop_daemon(daemon)?;
    findings.round_trip = Some(round_trip(server, stage)?);
    Ok(())
}

struct FinishedProcess {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

/// Waits for a child process, for a bounded time; kills it after that.
fn wait_for_output(mut child: Child) -> io::Result<FinishedProcess> {
    let drain = |pipe: Option<Box<dyn Read + Send>>| {
        thread::Builder::new().spawn(move || {
            let mut text = String::new();
            // A broken pipe delivers nothing more.
            let _broken = pipe.map(|mut p| p.read_to_string(&mut text));
            text
        })
    };
    let stdout = drain(child.stdout.take().map(|p| Box::new(p) as _))?;
    let stderr = drain(child.stderr.take().map(|p| Box::new(p) as _))?;
    let status = wait(&mut child)?;
    Ok(FinishedProcess { status, stdout: stdout.join().unwrap_or_default(), stderr: stderr.join().unwrap_or_default() })
}

fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    for _ in 0..PROCESS_TIMEOUT.as_millis() / POLL_INTERVAL.as_millis() {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        #[expect(clippy::disallowed_methods, reason = "std has no wait for a child with an end")]
        thread::sleep(POLL_INTERVAL);
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("a process did not exit within {} s", PROCESS_TIMEOUT.as_secs()),
    ))
}

/// The daemon process, killed if the rehearsal ends early.
struct Daemon(Option<Child>);

impl Daemon {
    fn id(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

fn start_daemon(stage: &RehearsalEnvironment) -> Result<Daemon, String> {
    let mut command = stage.command(&["--quiet", "daemon"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut daemon = Daemon(Some(command.spawn().map_err(|e| format!("cannot start the daemon: {e}"))?));
    for _ in 0..PROCESS_TIMEOUT.as_millis() / POLL_INTERVAL.as_millis() {
        if stage.socket().exists() {
            return Ok(daemon);
        }
        if let Some(Ok(Some(status))) = daemon.0.as_mut().map(Child::try_wait) {
            return Err(format!("the daemon exited at once with {status}"));
        }
        #[expect(clippy::disallowed_methods, reason = "no event tells that a process of another session listens")]
        thread::sleep(POLL_INTERVAL);
    }
    Err("the daemon does not listen on its socket".into())
}

fn stop_daemon(mut daemon: Daemon) -> Result<(), String> {
    let Some(mut child) = daemon.0.take() else {
        return Ok(());
    };
    process::terminate(child.id(), Termination::Graceful).map_err(|e| format!("cannot stop the daemon: {e}"))?;
    let status = wait(&mut child).map_err(|e| format!("the daemon does not stop: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("the daemon exited with {status}")) }
}

/// One round: all processes at once, half of them refreshing by force, half asking for a token.
fn run_round(
    server: &RehearsalServer,
    stage: &RehearsalEnvironment,
    size: u16,
    number: u32,
    out: &Output,
    findings: &mut RehearsalReport,
) -> Result<(), String> {
    let before = server.counts();
    let mut callers = Vec::new();
    for i in 0..size {
        let arguments: &[&str] = if i % 2 == 0 {
            &["--json", "refresh", "-p", PROFILE, "--force"]
        } else {
            &["token", PROFILE, "--min-valid", "2s"]
        };
        callers
            .push((i % 2 == 1, stage.command(arguments).spawn().map_err(|e| format!("cannot start a process: {e}"))?));
    }
    let mut served = 0;
    for (is_token, child) in callers {
        let ended = wait_for_output(child).map_err(|e| e.to_string())?;
        let is_served = ended.status.success() && (!is_token || server.has_issued(ended.stdout.trim()));
        served += usize::from(is_served);
        if !is_served {
            findings.add(format!("a caller was not served ({}): {}", ended.status, first_line(&ended.stderr)));
        }
    }
    findings.callers += usize::from(size);
    findings.served += served;
    let after = server.counts();
    out.info(&format!(
        "round {number}: {served} of {size} callers served; refreshes: {}, refresh tokens reused: {}",
        after.refreshes - before.refreshes,
        after.presented_again - before.presented_again
    ));
    Ok(())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("no output")
}

/// Another process must read what the daemon stored, from the store and from the keyring, and it must be the newest.
fn round_trip(server: &RehearsalServer, stage: &RehearsalEnvironment) -> Result<String, String> {
    let name: ProfileName = PROFILE.parse().map_err(|e| format!("{e}"))?;
    let store = stage.store().map_err(|f| f.message)?;
    let snapshot = store.snapshot(&name).map_err(|e| e.to_string())?.ok_or("the store is empty")?;
    let access = snapshot.grant.access.ok_or("the store has no access token")?;
    if !server.has_issued(access.expose()) {
        return Err("the store has a token that the server did not issue".into());
    }
    let journal = store.peek(&name).map_err(|e| e.to_string())?.ok_or("record.json is missing")?;
    let expected = if stage.is_keyring { Publication::Published } else { Publication::None };
    if journal.publication != expected || journal.generation != snapshot.generation {
        return Err(format!("record.json has {:?}, generation {}", journal.publication, journal.generation));
    }
    Ok(format!("generation {} read back from the {} store", snapshot.generation, store.kind()))
}

fn print_verdict(findings: &RehearsalReport, stage: &RehearsalEnvironment, out: &Output) -> CommandStatus {
    let filesystem = machine::filesystem(&stage.state()).map_or_else(|e| e.to_string(), |f| f.name);
    let tally = &findings.counts;
    let checks = [
        (tally.refreshes > 0, format!("refreshes made: {}", tally.refreshes)),
        (
            findings.callers > 0 && findings.served == findings.callers,
            format!("{} of {} callers served", findings.served, findings.callers),
        ),
        (tally.presented_again == 0, format!("refresh tokens reused: {}", tally.presented_again)),
        (tally.requests == tally.refreshes, format!("requests rejected: {}", tally.requests - tally.refreshes)),
        (
            tally.is_family_alive,
            format!("the login is {}", if tally.is_family_alive { "still valid" } else { "revoked" }),
        ),
        (findings.by_daemon_alone > 0, format!("refreshes by the daemon alone: {}", findings.by_daemon_alone)),
        (
            findings.round_trip.is_some(),
            findings.round_trip.clone().unwrap_or_else(|| "store round trip failed".into()),
        ),
    ];
    let is_good = findings.faults.is_empty() && checks.iter().all(|(held, _)| *held);
    if out.is_json {
        out.json(&json!({
            "verdict": if is_good { "held" } else { "failed" },
            "refreshes": tally.refreshes,
            "callers": findings.callers,
            "served": findings.served,
            "presented_again": tally.presented_again,
            "family_alive": tally.is_family_alive,
            "by_daemon_alone": findings.by_daemon_alone,
            "round_trip": findings.round_trip,
            "store": if stage.is_keyring { "keyring" } else { "file" },
            "lock": "flock",
            "filesystem": filesystem,
            "faults": findings.fault_lines(),
        }));
    } else {
        for (held, what) in &checks {
            let (style, mark) = if *held { (GOOD, "ok") } else { (BAD, "failed") };
            out.line(&format!("{style}{mark:>6}{style:#}  {what}"));
        }
        out.line(&format!("        lock: flock, filesystem: {filesystem}"));
    }
    for fault in findings.fault_lines() {
        out.error(&Failure::new(ErrorKind::Rehearsal, fault));
    }
    if is_good {
        out.info("the rehearsal passed: this machine can be trusted with a real token");
        CommandStatus::Ok
    } else {
        out.info("the rehearsal failed: do not use a real token on this machine yet");
        CommandStatus::Failed
    }
}
