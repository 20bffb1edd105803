//! SIGKILL at every system call of an import that replaces a live credential, on both stores; and every call on a file fails
//! once.
//!
//! At each point the one or the other is there, whole, and the import told which; it is refreshed next, the same import once
//! more takes what is not there yet, and what is spent by then it refuses.

use std::path::Path;

use serde_json::Value;

use super::Extent;
use super::fixture::{StoreType, SweepFixture, SweepReport, TracedCommand};
use super::support::sandbox::{PROGRAM, Run, just_granted};
use super::support::token_family::RotationMode;
use super::tracer::{self, CallFilter, Injection, TraceOrder, TraceResult};

pub fn run(extent: Extent) -> bool {
    let mut is_good = true;
    for store in [StoreType::File, StoreType::KeyringState] {
        let calls = if extent.is_full() { CallFilter::All } else { CallFilter::Effects };
        let stride = if !extent.is_full() && store == StoreType::KeyringState { 9 } else { 1 };
        let blow = ImportSweep { store, action: Injection::Kill, calls };
        is_good &= blow.sweep(extent.workers(), stride).print(&format!("kill, {store:?} store"));
    }
    let errors = [("EIO", libc::EIO), ("ENOSPC", libc::ENOSPC), ("EROFS", libc::EROFS), ("EINTR", libc::EINTR)];
    for (name, number) in &errors[..if extent.is_full() { errors.len() } else { 1 }] {
        let blow = ImportSweep { store: StoreType::File, action: Injection::Fail(*number), calls: CallFilter::Files };
        is_good &= blow.sweep(extent.workers(), 1).print(&format!("{name} once, File store"));
    }
    is_good
}

/// What happens to each import.
struct ImportSweep {
    store: StoreType,
    action: Injection,
    calls: CallFilter,
}

/// Which credential is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SurvivingCredential {
    Old,
    New,
}

impl ImportSweep {
    fn sweep(&self, workers: u64, stride: u64) -> SweepReport {
        SweepReport::of_workers(workers, stride, |first, step| self.worker(first, step))
    }

    fn worker(&self, first: u64, step: u64) -> SweepReport {
        let mut stage = SweepFixture::new(self.store, RotationMode::Strict, "");
        let mut tally = SweepReport::default();
        for at in (first..).step_by(step as usize) {
            let profile = stage.sign_in(TracedCommand::Refresh);
            let old = stage.access_token(&profile);
            let answer = just_granted(&stage.server.mint());
            let file = stage.sandbox.path("home/answer");
            std::fs::write(&file, answer.to_string()).unwrap();
            let call = import(&profile, file.to_str().unwrap());
            let order = TraceOrder { at, action: self.action.clone(), calls: self.calls };
            let tracer = stage.sandbox.command(&std::env::current_exe().unwrap());
            let struck = tracer::trace(tracer, &order, Path::new(PROGRAM), &call, &stage.sandbox.path(""));
            let Some(blow) = struck.acted.clone() else {
                assert_eq!(struck.status, 0, "{struck:#?}");
                break;
            };
            let there =
                self.surviving_credential(&stage, &profile, [&old, answer["access_token"].as_str().unwrap()], &struck);
            match there.and_then(|there| check_next_import(&stage, &profile, &call, there).map(|()| there)) {
                Ok(there) if self.action == Injection::Kill => tally.add(format!("{there:?}")),
                Ok(there) => tally.add(format!("exit {}, {there:?}", struck.status)),
                Err(fault) => tally.fault(format!("{at} ({blow}): {fault}")),
            }
            // An import looks at all that the keyring has.
            stage.sandbox.keepalive(&["logout", &profile, "--forget"]).says("deleted from this machine");
        }
        tally
    }

    /// What is there, and whether the import said so.
    fn surviving_credential(
        &self,
        stage: &SweepFixture,
        profile: &str,
        [old, new]: [&str; 2],
        struck: &TraceResult,
    ) -> Result<SurvivingCredential, String> {
        let status = stage.sandbox.keepalive(&["--json", "status", "-p", profile]).profile();
        if !matches!(status["state"].as_str(), Some("fresh" | "due")) {
            return Err(format!("the status: {status}"));
        }
        let token = stage.access_token(profile);
        let there = match token.as_str() {
            token if token == old => SurvivingCredential::Old,
            token if token == new => SurvivingCredential::New,
            _ => return Err("another token than the two".into()),
        };
        let told = match struck.status {
            _ if self.action == Injection::Kill => there,
            0 => SurvivingCredential::New,
            69 if struck.stderr.contains("is stored as generation 2") => SurvivingCredential::New,
            1 | 69 => SurvivingCredential::Old,
            _ => return Err(format!("exit {}: {}", struck.status, struck.stderr)),
        };
        if there == told {
            Ok(there)
        } else {
            Err(format!("{there:?} is there, and it said {told:?}: {}", struck.stderr))
        }
    }
}

fn import<'a>(profile: &'a str, file: &'a str) -> [&'a str; 6] {
    ["import", profile, file, "--provider", "acme", "--replace"]
}

fn check_next_import(
    stage: &SweepFixture,
    profile: &str,
    call: &[&str],
    there: SurvivingCredential,
) -> Result<(), String> {
    let refreshed = |what: &str| -> Result<Value, String> {
        let (status, result) = stage.refresh(profile);
        let is_live = status == 0 && stage.server.is_live(&stage.access_token(profile));
        if is_live && result["outcome"] == "refreshed" { Ok(result) } else { Err(format!("{what}: {result}")) }
    };
    let again = |is_wanted: fn(&Run) -> bool| -> Result<(), String> {
        let run = stage.sandbox.keepalive(call);
        if is_wanted(&run) { Ok(()) } else { Err(format!("the same import again: {run:?}")) }
    };
    if there == SurvivingCredential::Old {
        refreshed("the refresh of the old one")?;
        again(|run| run.status == 0)?;
    }
    refreshed("the refresh of the new one")?;
    again(|run| run.status == 1 && run.stderr.contains("been used or rejected before"))?;
    let counts = stage.server.counts();
    match (counts.presented_again, counts.families_revoked) {
        (0, 0) => Ok(()),
        _ => Err(format!("{counts:?}")),
    }
}
