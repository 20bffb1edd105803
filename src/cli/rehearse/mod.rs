//! `keepalive rehearse`: the whole job against a strict authorization server of its own, with a verdict.

pub mod authserver;
mod stage;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::Global;
use super::compose;
use super::output::{BAD, GOOD, Output, Status};
use crate::outcome::{Failure, Publication};
use crate::profile::ProfileName;
use crate::sys::machine;
use crate::sys::paths::Places;
use crate::sys::process::{self, Force};
use authserver::{RehearsalServer, Tally};
use stage::{PROFILE, Stage};

/// Prove this machine's store, lock and scheduler before a real token is trusted to them
///
/// Starts a strict authorization server on loopback (short tokens, rotation, the family revoked on a second use), the
/// daemon, and crowds of processes that all refresh at once. The verdict comes from the server's own log. Runs in a
/// throw-away directory beside the real store and touches no real credential; takes about 20 s.
#[derive(Debug, Args)]
pub struct RehearseArgs {
    /// Processes in each crowd
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=200))]
    crowd: u16,
}

/// Life of an access token: short, so that the daemon has work.
const ACCESS_LIFETIME: Duration = Duration::from_secs(5);
/// How long the server takes to answer: long enough for a crowd to meet.
const ANSWER_DELAY: Duration = Duration::from_millis(400);
const CROWDS: u32 = 4;
/// Between two crowds: the daemon's margin is reached in some of these gaps.
const GAP: Duration = Duration::from_millis(1500);
/// At the end, only the daemon works: longer than a token lives.
const QUIET: Duration = Duration::from_secs(7);
/// No single process takes longer; the whole stays below a minute.
const PATIENCE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

/// What was found out.
#[derive(Debug, Default)]
struct Findings {
    callers: usize,
    served: usize,
    tally: Tally,
    by_daemon_alone: u64,
    round_trip: Option<String>,
    /// What went wrong, and how often.
    faults: BTreeMap<String, u32>,
}

impl Findings {
    fn add(&mut self, fault: String) {
        *self.faults.entry(fault).or_insert(0) += 1;
    }

    /// Each fault once.
    fn told(&self) -> Vec<String> {
        let told = |(fault, times): (&String, &u32)| match times {
            1 => fault.clone(),
            n => format!("{n} times: {fault}"),
        };
        self.faults.iter().map(told).collect()
    }
}

pub fn run(args: &RehearseArgs, global: &Global, out: &Output) -> Status {
    let places = Places::find(global.config.as_deref());
    let set = compose::load(&places).and_then(|config| {
        let server = RehearsalServer::start(ACCESS_LIFETIME, ANSWER_DELAY)
            .map_err(|e| Failure::new("io", format!("cannot listen on 127.0.0.1: {e}")))?;
        Stage::set(&config, &places, &server.token_endpoint()).map(|stage| (server, stage))
    });
    let (server, stage) = match set {
        Ok(set) => set,
        Err(failure) => {
            out.fail(&failure);
            return if failure.kind == "config" { Status::Config } else { Status::Failed };
        }
    };
    let mut findings = Findings::default();
    if let Err(fault) = play(&server, &stage, args, out, &mut findings) {
        findings.add(fault);
    }
    findings.tally = server.tally();
    conclude(&findings, &stage, out)
}

fn play(
    server: &RehearsalServer,
    stage: &Stage,
    args: &RehearseArgs,
    out: &Output,
    findings: &mut Findings,
) -> Result<(), String> {
    out.say(&format!("a strict authorization server listens on {}", server.token_endpoint()));
    let kind = if stage.is_keyring { "keyring" } else { "sealed file" };
    let import = stage.spawn_with(&["import", PROFILE], &server.mint()).map_err(|e| format!("import: {e}"))?;
    let imported = finish(import).map_err(|e| format!("import: {e}"))?;
    if !imported.status.success() {
        return Err(format!("the import failed: {}", imported.stderr.trim()));
    }
    out.say(&format!("signed in once; the credential is in the {kind} store"));
    let daemon = start_daemon(stage)?;
    out.say(&format!("the daemon runs (pid {})", daemon.id()));
    for number in 1..=CROWDS {
        crowd(server, stage, args.crowd, number, out, findings)?;
        #[expect(clippy::disallowed_methods, reason = "what the daemon does as time passes is what is shown")]
        thread::sleep(GAP);
    }
    let before = server.tally().refreshes;
    out.say(&format!("quiet for {} s: the daemon alone must keep the credential alive …", QUIET.as_secs()));
    #[expect(clippy::disallowed_methods, reason = "what the daemon does as time passes is what is shown")]
    thread::sleep(QUIET);
    findings.by_daemon_alone = server.tally().refreshes - before;
    out.say(&format!("the daemon refreshed {} times by itself", findings.by_daemon_alone));
    stop_daemon(daemon)?;
    findings.round_trip = Some(round_trip(server, stage)?);
    Ok(())
}

struct Finished {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

/// Waits for a child, for a bounded time; kills it after that.
fn finish(mut child: Child) -> io::Result<Finished> {
    let drain = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut text = String::new();
            // A pipe that breaks has said all it will.
            let _broken = pipe.map(|mut p| p.read_to_string(&mut text));
            text
        })
    };
    let stdout = drain(child.stdout.take().map(|p| Box::new(p) as _));
    let stderr = drain(child.stderr.take().map(|p| Box::new(p) as _));
    let status = wait(&mut child)?;
    Ok(Finished { status, stdout: stdout.join().unwrap_or_default(), stderr: stderr.join().unwrap_or_default() })
}

fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    for _ in 0..PATIENCE.as_millis() / POLL.as_millis() {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        #[expect(clippy::disallowed_methods, reason = "std has no wait for a child with an end")]
        thread::sleep(POLL);
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("a process did not end within {} s", PATIENCE.as_secs())))
}

/// The daemon, killed if the rehearsal ends early.
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

fn start_daemon(stage: &Stage) -> Result<Daemon, String> {
    let mut command = stage.command(&["--quiet", "daemon"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut daemon = Daemon(Some(command.spawn().map_err(|e| format!("the daemon cannot be started: {e}"))?));
    for _ in 0..PATIENCE.as_millis() / POLL.as_millis() {
        if stage.socket().exists() {
            return Ok(daemon);
        }
        if let Some(Ok(Some(status))) = daemon.0.as_mut().map(Child::try_wait) {
            return Err(format!("the daemon ended at once with {status}"));
        }
        #[expect(clippy::disallowed_methods, reason = "no event tells that a process of another session listens")]
        thread::sleep(POLL);
    }
    Err("the daemon does not listen".into())
}

fn stop_daemon(mut daemon: Daemon) -> Result<(), String> {
    let Some(mut child) = daemon.0.take() else {
        return Ok(());
    };
    process::end(child.id(), Force::Ask).map_err(|e| format!("the daemon cannot be stopped: {e}"))?;
    let status = wait(&mut child).map_err(|e| format!("the daemon does not stop: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("the daemon ended with {status}")) }
}

/// One crowd: everybody at once, half of them refreshing by force, half asking for a token.
fn crowd(
    server: &RehearsalServer,
    stage: &Stage,
    size: u16,
    number: u32,
    out: &Output,
    findings: &mut Findings,
) -> Result<(), String> {
    let before = server.tally();
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
        let ended = finish(child).map_err(|e| e.to_string())?;
        let is_served = ended.status.success() && (!is_token || server.has_issued(ended.stdout.trim()));
        served += usize::from(is_served);
        if !is_served {
            findings.add(format!("a caller was not served ({}): {}", ended.status, first_line(&ended.stderr)));
        }
    }
    findings.callers += usize::from(size);
    findings.served += served;
    let after = server.tally();
    out.say(&format!(
        "crowd {number}: {served} of {size} served; refreshes: {}, presented again: {}",
        after.refreshes - before.refreshes,
        after.presented_again - before.presented_again
    ));
    Ok(())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("it said nothing")
}

/// What the daemon left must be readable by another process, from every home of it, and be the newest.
fn round_trip(server: &RehearsalServer, stage: &Stage) -> Result<String, String> {
    let name: ProfileName = PROFILE.parse().map_err(|e| format!("{e}"))?;
    let store = stage.store().map_err(|f| f.message)?;
    let snapshot = store.snapshot(&name).map_err(|e| e.to_string())?.ok_or("the store is empty")?;
    let access = snapshot.grant.access.ok_or("the store holds no access token")?;
    if !server.has_issued(access.expose()) {
        return Err("the store holds a token that the server did not issue".into());
    }
    let record = store.peek(&name).map_err(|e| e.to_string())?.ok_or("the journal is gone")?;
    let expected = if stage.is_keyring { Publication::Published } else { Publication::None };
    if record.publication != expected || record.generation != snapshot.generation {
        return Err(format!("the journal says {:?}, generation {}", record.publication, record.generation));
    }
    Ok(format!("generation {} read back from the {} store", snapshot.generation, store.kind()))
}

fn conclude(findings: &Findings, stage: &Stage, out: &Output) -> Status {
    let filesystem = machine::filesystem(&stage.state()).map_or_else(|e| e.to_string(), |f| f.name);
    let tally = &findings.tally;
    let checks = [
        (tally.refreshes > 0, format!("refreshes made: {}", tally.refreshes)),
        (
            findings.callers > 0 && findings.served == findings.callers,
            format!("{} of {} callers served", findings.served, findings.callers),
        ),
        (tally.presented_again == 0, format!("refresh tokens presented again: {}", tally.presented_again)),
        (tally.requests == tally.refreshes, format!("requests refused: {}", tally.requests - tally.refreshes)),
        (tally.is_family_alive, format!("family {}", if tally.is_family_alive { "alive" } else { "revoked" })),
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
            "faults": findings.told(),
        }));
    } else {
        for (held, what) in &checks {
            let (style, mark) = if *held { (GOOD, "held") } else { (BAD, "FAILED") };
            out.line(&format!("{style}{mark:>6}{style:#}  {what}"));
        }
        out.line(&format!("        lock: flock, filesystem: {filesystem}"));
    }
    for fault in findings.told() {
        out.error(&Failure::new("rehearsal", fault));
    }
    if is_good {
        out.say("the rehearsal held: this machine can be trusted with a real token");
        Status::Ok
    } else {
        out.say("the rehearsal failed: do not trust a real token to this machine yet");
        Status::Failed
    }
}
