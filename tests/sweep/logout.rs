//! SIGKILL at every system call of a logout, on both stores; and every call on a file fails once.
//!
//! At each point the profile is signed in, in doubt because its token had been sent, or forgotten; the next logout completes
//! it, and so does a login, which counts on from there. On the keyring it is the only profile, so the sealing key goes with it.

use std::path::Path;

use serde_json::Value;

use super::Extent;
use super::fixture::{StoreType, SweepFixture, SweepReport, TracedCommand};
use super::support::sandbox::PROGRAM;
use super::support::token_family::RotationMode;
use super::tracer::{self, CallFilter, Injection, TraceOrder, TraceResult};

pub fn run(extent: Extent) -> bool {
    let mut is_good = true;
    for store in [StoreType::File, StoreType::KeyringState] {
        for then in [NextCommand::Logout, NextCommand::Login] {
            let calls = if extent.is_full() { CallFilter::All } else { CallFilter::Effects };
            // A key is born at each point on the keyring, which takes a second; some points will do for a quick look.
            let stride = if !extent.is_full() && store == StoreType::KeyringState { 9 } else { 1 };
            let blow = LogoutSweep { store, next_command: then, action: Injection::Kill, calls };
            is_good &= blow.sweep(extent.workers(), stride).print(&format!("kill, then {then:?}, {store:?} store"));
        }
    }
    for (name, number) in [("EIO", libc::EIO), ("ENOSPC", libc::ENOSPC)] {
        let action = Injection::Fail(number);
        let blow =
            LogoutSweep { store: StoreType::File, next_command: NextCommand::Logout, action, calls: CallFilter::Files };
        is_good &= blow.sweep(extent.workers(), 1).print(&format!("{name} once, then Logout, File store"));
    }
    is_good
}

/// What the person does after the blow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextCommand {
    Logout,
    Login,
}

/// What happens to each logout, and after it.
struct LogoutSweep {
    store: StoreType,
    next_command: NextCommand,
    action: Injection,
    calls: CallFilter,
}

impl LogoutSweep {
    fn sweep(&self, workers: u64, stride: u64) -> SweepReport {
        SweepReport::of_workers(workers, stride, |first, step| self.worker(first, step))
    }

    fn worker(&self, first: u64, step: u64) -> SweepReport {
        let mut stage = SweepFixture::new(self.store, RotationMode::Strict, "");
        let provider = stage.server.provider_with_revocation([]);
        match self.store {
            StoreType::File => stage.sandbox.file_store(&provider),
            StoreType::KeyringState => stage.sandbox.config(&provider),
        }
        stage.sandbox.keepalive(&["logout", "p0"]).exits(0);
        let mut tally = SweepReport::default();
        for at in (first..).step_by(step as usize) {
            let profile = stage.sign_in(TracedCommand::Refresh);
            let sent_before = stage.server.revoked().len();
            let order = TraceOrder { at, action: self.action.clone(), calls: self.calls };
            let struck = run_traced(&stage, &profile, &order);
            let Some(call) = struck.acted.clone() else {
                assert_eq!(struck.status, 0, "{struck:#?}");
                break;
            };
            let is_sent = stage.server.revoked().len() > sent_before;
            match self.check_point(&stage, &profile, is_sent, &struck) {
                Ok(state) => tally.add(state),
                Err(fault) => tally.fault(format!("{at} ({call}): {fault}")),
            }
            // The keyring of the next point is to be empty again.
            let _gone = stage.sandbox.keepalive(&["logout", &profile]);
        }
        tally
    }

    fn check_point(
        &self,
        stage: &SweepFixture,
        profile: &str,
        is_sent: bool,
        struck: &TraceResult,
    ) -> Result<String, String> {
        let state = profile_state(stage, profile, is_sent)?;
        match (self.action == Injection::Kill, struck.status) {
            (true, _) => {}
            (false, 0) if state == "no_credential" => {}
            (false, 69 | 75) => {}
            (false, _) => return Err(format!("exit {}, but {state}: {}", struck.status, struck.stderr)),
        }
        match self.next_command {
            NextCommand::Logout => log_out(stage, profile)?,
            NextCommand::Login => log_in(stage, profile)?,
        }
        Ok(if self.action == Injection::Kill { state } else { format!("exit {}, {state}", struck.status) })
    }
}

fn run_traced(stage: &SweepFixture, profile: &str, order: &TraceOrder) -> TraceResult {
    let tracer = stage.sandbox.command(&std::env::current_exe().unwrap());
    tracer::trace(tracer, order, Path::new(PROGRAM), &["logout", profile], &stage.sandbox.path(""))
}

/// What the status says, and whether that is the truth.
fn profile_state(stage: &SweepFixture, profile: &str, is_sent: bool) -> Result<String, String> {
    let status = stage.sandbox.keepalive(&["--json", "status", "-p", profile]).profile();
    let state = status["state"].as_str().unwrap_or_default().to_owned();
    match (state.as_str(), is_sent) {
        ("fresh" | "due", false) | ("in_doubt" | "no_credential", true) => Ok(state),
        // The mark was made, and the run died before the server had read the request.
        ("in_doubt", false) => Ok("in_doubt, and it had not been sent".into()),
        _ => Err(format!("{status}, and the token was {}sent", if is_sent { "" } else { "not " })),
    }
}

fn log_out(stage: &SweepFixture, profile: &str) -> Result<(), String> {
    let run = stage.sandbox.keepalive(&["--json", "logout", profile]);
    let told: Value = serde_json::from_str(&run.stdout).map_err(|e| format!("{e}: {run:?}"))?;
    if !matches!((run.status, told["refresh_token"].as_str()), (0, Some("revoked")) | (77, None)) {
        return Err(format!("the next logout: {run:?}"));
    }
    let dir = stage.sandbox.path(&format!("state/keepalive/profiles/{profile}"));
    for secret in ["sealed", "received", ".received.new", ".sealed.new"] {
        if dir.join(secret).exists() {
            return Err(format!("{secret} is still there after {run:?}"));
        }
    }
    let again = stage.sandbox.keepalive(&["logout", profile]);
    if again.status != 77 {
        return Err(format!("there is still something to sign out: {again:?}"));
    }
    let status = stage.sandbox.keepalive(&["--json", "status", "-p", profile]).profile();
    if status["state"] == "no_credential" { Ok(()) } else { Err(status.to_string()) }
}

fn log_in(stage: &SweepFixture, profile: &str) -> Result<(), String> {
    let import = ["import", profile, "--provider", "acme", "--replace"];
    let run = stage.sandbox.keepalive_with_input(&import, &stage.server.mint().to_string());
    if run.status != 0 || !run.stderr.contains("imported as generation 2") {
        return Err(format!("the next login: {run:?}"));
    }
    let (status, result) = stage.refresh(profile);
    if status == 0 { Ok(()) } else { Err(format!("the refresh after it: {result}")) }
}
