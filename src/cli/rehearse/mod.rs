//! `keepalive rehearse`: tests the whole program against a strict authorization server of its own.

pub mod auth_server;
mod environment;
mod processes;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::GlobalArgs;
use super::output::{BAD, CommandStatus, GOOD, Output};
use crate::access::setup;
use crate::cli::rehearse::auth_server::{RehearsalServer, ServerCounts};
use crate::cli::rehearse::environment::{PROFILE, RehearsalEnvironment};
use crate::cli::rehearse::processes::{Callers, pause, start_daemon, stop_daemon, wait_for_output};
use crate::config::Config;
use crate::outcome::{ErrorKind, Failure, Publication};
use crate::profile::{ProfileName, StoreKind};
use crate::store::keyring;
use crate::store::keyring::KeyringError;
use crate::sys::machine;
use crate::sys::paths::Environment;

/// Test this machine's store, locks and scheduler with a throw-away credential
///
/// Starts a strict authorization server on the loopback interface (short lifetimes, rotation, all tokens revoked on
/// reuse), the daemon, and groups of processes that all refresh at once. The result comes from the server's own log. Runs
/// in a temporary directory next to the real store, with the kind of store that a login would use, and uses no real
/// credential. If a login would use a keyring that cannot be reached, encrypted files take its place, and the last lines
/// say so. Takes about 20 s.
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
    /// The keyring that a login would use cannot be reached.
    missing_keyring: Option<KeyringError>,
    /// How the import ended, if it failed.
    import_status: Option<i32>,
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
    let places = global.places();
    let prepared = setup::load(&places).map_err(|f| (CommandStatus::Config, f)).and_then(|config| {
        let missing_keyring = check_keyring(&config, &places)?;
        let io_failure = |f| (CommandStatus::Failed, f);
        let server = RehearsalServer::start(ACCESS_LIFETIME, RESPONSE_DELAY)
            .map_err(|e| io_failure(Failure::new(ErrorKind::Io, format!("cannot listen on 127.0.0.1: {e}"))))?;
        let endpoint = server.token_endpoint();
        let stage = RehearsalEnvironment::create(&config, &places, &endpoint, missing_keyring.is_none());
        Ok((server, stage.map_err(io_failure)?, missing_keyring))
    });
    let (server, stage, missing_keyring) = match prepared {
        Ok(prepared) => prepared,
        Err((status, failure)) => {
            out.fail(&failure);
            return status;
        }
    };
    if let Some(error) = &missing_keyring {
        out.warn(&format!("{MISSING_KEYRING}: {error}; rehearsing with a sealed file instead"));
    }
    let mut findings = RehearsalReport { missing_keyring, ..RehearsalReport::default() };
    if let Err(fault) = run_rehearsal(&server, &stage, args, out, &mut findings) {
        findings.add(fault);
    }
    if stage.is_stopped() {
        drop(stage);
        out.fail(&Failure::new(ErrorKind::Interrupted, "interrupted; nothing was left behind"));
        return CommandStatus::Failed;
    }
    findings.counts = server.counts();
    print_verdict(&findings, &stage, out)
}

const MISSING_KEYRING: &str = "the keyring that a login would use cannot be reached";

/// Asks the keyring, if a login would use one. `Some`: there is none. `Err`: there is one, and it cannot be used.
fn check_keyring(config: &Config, places: &Environment) -> Result<Option<KeyringError>, (CommandStatus, Failure)> {
    let StoreKind::Keyring { service } = &config.store.kind else { return Ok(None) };
    match keyring::open(places.session_bus.clone()).check(service) {
        Ok(()) => Ok(None),
        Err(error @ (KeyringError::NoBus | KeyringError::NoService)) => Ok(Some(error)),
        Err(error) => {
            let failure = Failure::new(error.error_kind(), error.to_string()).with_hint(error.hint());
            Err((CommandStatus::StoreUnavailable, failure))
        }
    }
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
    let imported = wait_for_output(stage, import).map_err(|e| format!("import: {e}"))?;
    if !imported.status.success() {
        findings.import_status = imported.status.code();
        return Err(format!("the import failed: {}", imported.stderr.trim().trim_start_matches("error: ")));
    }
    out.info(&format!("imported a credential into the {kind} store"));
    let daemon = start_daemon(stage)?;
    out.info(&format!("the daemon is running (pid {})", daemon.id()));
    for number in 1..=ROUNDS {
        run_round(server, stage, args.crowd, number, out, findings)?;
        pause(stage, ROUND_INTERVAL)?;
    }
    let before = server.counts().refreshes;
    out.info(&format!("waiting {} s: now only the daemon refreshes …", DAEMON_ONLY_TIME.as_secs()));
    pause(stage, DAEMON_ONLY_TIME)?;
    findings.by_daemon_alone = server.counts().refreshes - before;
    out.info(&format!("the daemon refreshed {} times on its own", findings.by_daemon_alone));
    stop_daemon(stage, daemon)?;
    findings.round_trip = Some(round_trip(server, stage)?);
    Ok(())
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
    let mut callers = Callers(Vec::new());
    for i in 0..size {
        let arguments: &[&str] = if i % 2 == 0 {
            &["--json", "refresh", "-p", PROFILE, "--force"]
        } else {
            &["token", PROFILE, "--min-valid", "2s"]
        };
        callers
            .0
            .push((i % 2 == 1, stage.command(arguments).spawn().map_err(|e| format!("cannot start a process: {e}"))?));
    }
    let mut served = 0;
    while let Some((is_token, child)) = callers.0.pop() {
        let ended = wait_for_output(stage, child).map_err(|e| e.to_string())?;
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

/// What must hold, and how it is told.
fn checks(findings: &RehearsalReport) -> [(bool, String); 7] {
    let tally = &findings.counts;
    [
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
    ]
}

fn print_verdict(findings: &RehearsalReport, stage: &RehearsalEnvironment, out: &Output) -> CommandStatus {
    let filesystem = machine::filesystem(&stage.state()).map_or_else(|e| e.to_string(), |f| f.name);
    let tally = &findings.counts;
    let checks = checks(findings);
    let is_good = findings.faults.is_empty() && checks.iter().all(|(held, _)| *held);
    let verdict = match (is_good, &findings.missing_keyring) {
        (false, _) => "failed",
        (true, Some(_)) => "other_store",
        (true, None) => "held",
    };
    if out.is_json {
        out.json(&json!({
            "verdict": verdict,
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
    conclude(findings, is_good, out)
}

/// The last words, and the exit status.
fn conclude(findings: &RehearsalReport, is_good: bool, out: &Output) -> CommandStatus {
    if !is_good {
        out.info("the rehearsal failed: do not use a real token on this machine yet");
    }
    match &findings.missing_keyring {
        // It is no error of the machine, and nothing else was asked for; but a login would fail here.
        Some(error) if is_good => {
            out.warn(&format!("{MISSING_KEYRING}; rehearsed with a sealed file instead ({error})"));
            out.info(&format!("the rehearsal passed with a sealed file; before you sign in: {}", error.hint()));
            CommandStatus::Ok
        }
        Some(_) => CommandStatus::StoreUnavailable,
        None if is_good => {
            out.info("the rehearsal passed: this machine can be trusted with a real token");
            CommandStatus::Ok
        }
        // A store that cannot be used is no fault of the machine.
        None => match findings.import_status {
            Some(69) => CommandStatus::StoreUnavailable,
            Some(78) => CommandStatus::Config,
            Some(_) | None => CommandStatus::Failed,
        },
    }
}
