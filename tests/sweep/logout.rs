//! SIGKILL at every system call of a logout, on both stores; and every call on a file fails once.
//!
//! At each point the profile is signed in, in doubt because its token had been sent, or forgotten; the next logout completes
//! it, and so does a login, which counts on from there. On the keyring it is the only profile, so the sealing key goes with it.

use std::path::Path;

use serde_json::Value;

use super::Extent;
use super::stage::{Stage, Store, Tally, Victim};
use super::support::family::Mode;
use super::support::sandbox::PROGRAM;
use super::tracer::{self, Action, Calls, Order, Traced};

pub fn run(extent: Extent) -> bool {
    let mut is_good = true;
    for store in [Store::File, Store::Keyring] {
        for then in [Then::Logout, Then::Login] {
            let calls = if extent.is_full() { Calls::All } else { Calls::Effects };
            // A key is born at each point on the keyring, which takes a second; some points will do for a quick look.
            let stride = if !extent.is_full() && store == Store::Keyring { 9 } else { 1 };
            let blow = Blow { store, then, action: Action::Kill, calls };
            is_good &= blow.sweep(extent.workers(), stride).print(&format!("kill, then {then:?}, {store:?} store"));
        }
    }
    for (name, number) in [("EIO", libc::EIO), ("ENOSPC", libc::ENOSPC)] {
        let action = Action::Fail(number);
        let blow = Blow { store: Store::File, then: Then::Logout, action, calls: Calls::Files };
        is_good &= blow.sweep(extent.workers(), 1).print(&format!("{name} once, then Logout, File store"));
    }
    is_good
}

/// What the person does after the blow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Logout,
    Login,
}

/// What happens to each logout, and after it.
struct Blow {
    store: Store,
    then: Then,
    action: Action,
    calls: Calls,
}

impl Blow {
    fn sweep(&self, workers: u64, stride: u64) -> Tally {
        Tally::of_workers(workers, stride, |first, step| self.worker(first, step))
    }

    fn worker(&self, first: u64, step: u64) -> Tally {
        let mut stage = Stage::new(self.store, Mode::Strict, "");
        let provider = stage.server.provider_that_revokes([]);
        match self.store {
            Store::File => stage.sandbox.file_store(&provider),
            Store::Keyring => stage.sandbox.config(&provider),
        }
        stage.sandbox.keepalive(&["logout", "p0"]).exits(0);
        let mut tally = Tally::default();
        for at in (first..).step_by(step as usize) {
            let profile = stage.sign_in(Victim::Refresh);
            let sent_before = stage.server.revoked().len();
            let order = Order { at, action: self.action.clone(), calls: self.calls };
            let struck = strike(&stage, &profile, &order);
            let Some(call) = struck.acted.clone() else {
                assert_eq!(struck.status, 0, "{struck:#?}");
                break;
            };
            let is_sent = stage.server.revoked().len() > sent_before;
            match self.aftermath(&stage, &profile, is_sent, &struck) {
                Ok(state) => tally.add(state),
                Err(fault) => tally.fault(format!("{at} ({call}): {fault}")),
            }
            // The keyring of the next point is to be empty again.
            let _gone = stage.sandbox.keepalive(&["logout", &profile]);
        }
        tally
    }

    fn aftermath(&self, stage: &Stage, profile: &str, is_sent: bool, struck: &Traced) -> Result<String, String> {
        let state = look(stage, profile, is_sent)?;
        match (self.action == Action::Kill, struck.status) {
            (true, _) => {}
            (false, 0) if state == "no_credential" => {}
            (false, 69 | 75) => {}
            (false, _) => return Err(format!("exit {}, but {state}: {}", struck.status, struck.stderr)),
        }
        match self.then {
            Then::Logout => log_out(stage, profile)?,
            Then::Login => log_in(stage, profile)?,
        }
        Ok(if self.action == Action::Kill { state } else { format!("exit {}, {state}", struck.status) })
    }
}

fn strike(stage: &Stage, profile: &str, order: &Order) -> Traced {
    let tracer = stage.sandbox.command(&std::env::current_exe().unwrap());
    tracer::trace(tracer, order, Path::new(PROGRAM), &["logout", profile], &stage.sandbox.path(""))
}

/// What the status says, and whether that is the truth.
fn look(stage: &Stage, profile: &str, is_sent: bool) -> Result<String, String> {
    let status = stage.sandbox.keepalive(&["--json", "status", "-p", profile]).profile();
    let state = status["state"].as_str().unwrap_or_default().to_owned();
    match (state.as_str(), is_sent) {
        ("fresh", false) | ("in_doubt" | "no_credential", true) => Ok(state),
        // The mark was made, and the run died before the server had read the request.
        ("in_doubt", false) => Ok("in_doubt, and it had not been sent".into()),
        _ => Err(format!("{status}, and the token was {}sent", if is_sent { "" } else { "not " })),
    }
}

fn log_out(stage: &Stage, profile: &str) -> Result<(), String> {
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

fn log_in(stage: &Stage, profile: &str) -> Result<(), String> {
    let import = ["import", profile, "--provider", "acme", "--replace"];
    let run = stage.sandbox.keepalive_with_input(&import, &stage.server.mint().to_string());
    if run.status != 0 || !run.stderr.contains("imported as generation 2") {
        return Err(format!("the next login: {run:?}"));
    }
    let (status, result) = stage.refresh(profile);
    if status == 0 { Ok(()) } else { Err(format!("the refresh after it: {result}")) }
}
