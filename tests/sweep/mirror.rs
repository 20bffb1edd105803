//! SIGKILL, and cuts of power, at every system call by which a refresh writes what other programs read.
//!
//! At each point the file is the old or the new one, with what is not ours in it, and the directory has values of one
//! generation; neither has a refresh token. The next refresh brings both up to date and leaves no other file there.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::Extent;
use super::fixture::{StoreType, SweepFixture, SweepReport, TracedCommand};
use super::power::LoopDisk;
use super::support::sandbox::{Sandbox, just_granted};
use super::support::token_family::RotationMode;
use super::tracer::{CallFilter, Injection, TraceOrder};

const PROFILE: &str = "p1";

pub fn run(extent: Extent) -> bool {
    let calls = if extent.is_full() { CallFilter::All } else { CallFilter::Effects };
    let kills = SweepReport::of_workers(extent.workers(), 1, |first, step| {
        let stage = MirrorFixture::new(|_| {});
        stage.sweep(first, step, &|at| TraceOrder { at, action: Injection::Kill, calls }, &|| {})
    });
    let is_good = kills.print("kill, mirrors");
    let disk = LoopDisk::new("ext4", "-F", "noauto_da_alloc,commit=60", 64);
    let stage = MirrorFixture::new(|sandbox| disk.mount(&sandbox.path("state")));
    let cut = |at| TraceOrder { at, action: Injection::Cut(disk.live(), disk.crashed()), calls: CallFilter::Effects };
    let cuts = stage.sweep(1, if extent.is_full() { 1 } else { 3 }, &cut, &|| {
        disk.unmount();
        std::fs::rename(disk.crashed(), disk.live()).unwrap();
        disk.mount(&stage.stage.sandbox.path("state"));
    });
    cuts.print("power cut on ext4, mirrors") && is_good
}

/// A profile that is mirrored beside its state: on the same disk, if that is cut off.
struct MirrorFixture {
    stage: SweepFixture,
}

impl MirrorFixture {
    fn new(prepare: impl FnOnce(&Sandbox)) -> Self {
        let stage = SweepFixture::prepared(StoreType::File, RotationMode::Strict, "", prepare);
        let fed = stage.sandbox.path("state/fed");
        std::fs::create_dir(&fed).unwrap();
        std::fs::write(fed.join("auth.json"), "{\"mine\": [1, 2], \"tokens\": {\"x\": \"y\"}}").unwrap();
        let mirror = |kind: &str, name: &str, rest: &str| {
            let path = fed.join(name);
            format!("[[profile.{PROFILE}.mirror]]\nkind = \"{kind}\"\npath = \"{}\"\n{rest}\n", path.display())
        };
        let json = mirror("json", "auth.json", r#"set = { "/tokens/access" = "access_token", "/n" = "generation" }"#);
        let dir = mirror("dir", "pod", r#"files = { token = "access_token", n = "generation" }"#);
        let profile = format!("[profile.{PROFILE}]\nprovider = \"acme\"\n{json}{dir}");
        stage.sandbox.file_store(&format!("{}{profile}", stage.server.provider("")));
        Self { stage }
    }

    /// From the first call on what other programs read. What comes before is swept elsewhere.
    fn sweep(&self, first: u64, step: u64, order: &dyn Fn(u64) -> TraceOrder, restart: &dyn Fn()) -> SweepReport {
        let mut report = SweepReport::default();
        let begin = self.first_mirror_call(order(0).calls);
        for at in (begin + first - 1..).step_by(step as usize) {
            let old = self.import();
            let before = self.stage.server.counts();
            let struck = self.stage.run_traced(TracedCommand::Refresh, PROFILE, &order(at));
            let Some(call) = struck.acted.clone() else {
                assert_eq!(struck.status, 0, "{struck:#?}");
                break;
            };
            restart();
            match self.check(&old).and_then(|found| {
                self.stage.examine(PROFILE, &before)?;
                self.check_repaired().map(|()| found)
            }) {
                Ok(found) => report.add(found),
                Err(fault) => report.fault(format!("{at} ({call}): {fault}")),
            }
        }
        report
    }

    /// A little earlier, as threads do not always take turns alike.
    fn first_mirror_call(&self, calls: CallFilter) -> u64 {
        self.import();
        let whole = self.stage.run_traced(TracedCommand::Refresh, PROFILE, &TraceOrder::count(calls));
        let is_of_mirror = |call: &str| call.contains("/fed/") || call.contains("/mirrors/");
        let first = whole.log.iter().position(|(_, call)| is_of_mirror(call)).expect("a mirror is written");
        u64::try_from(first).unwrap().saturating_sub(10).max(1)
    }

    /// Signs in anew, and gives the access token, which both mirrors have.
    fn import(&self) -> String {
        let answer = just_granted(&self.stage.server.mint()).to_string();
        self.stage.sandbox.keepalive_with_input(&["import", PROFILE, "--replace"], &answer).exits(0);
        let token = self.stage.access_token(PROFILE);
        assert_eq!((self.file().unwrap().0, self.dir().unwrap().0), (token.clone(), token.clone()));
        token
    }

    fn fed(&self, name: &str) -> PathBuf {
        self.stage.sandbox.path("state/fed").join(name)
    }

    /// The token and the generation that the file has.
    fn file(&self) -> Result<(String, u64), String> {
        let text = std::fs::read_to_string(self.fed("auth.json")).map_err(|e| format!("the file: {e}"))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
        if (&value["mine"], &value["tokens"]["x"]) != (&json!([1, 2]), &json!("y")) || text.contains("canary-rt") {
            return Err(format!("not what it was: {text}"));
        }
        let token = value["tokens"]["access"].as_str().ok_or_else(|| format!("no token: {text}"))?;
        Ok((token.to_owned(), value["n"].as_u64().unwrap_or_default()))
    }

    /// The token and the generation that the directory has.
    fn dir(&self) -> Result<(String, u64), String> {
        let read = |name: &str| {
            std::fs::read_to_string(self.fed("pod").join(name)).map_err(|e| format!("{name} of the directory: {e}"))
        };
        Ok((read("token")?, read("n")?.parse().map_err(|e| format!("{e}"))?))
    }

    /// What is there after the blow, in words.
    fn check(&self, old: &str) -> Result<String, String> {
        let now = self.stage.access_token(PROFILE);
        let (file, dir) = (self.file()?, self.dir()?);
        if file.0 == dir.0 && file.1 != dir.1 {
            return Err(format!("one token of two generations: {file:?}, {dir:?}"));
        }
        let word = |token: &str| match token {
            token if token == now && now == old => Ok("all is old"),
            token if token == now => Ok("new"),
            token if token == old => Ok("old"),
            token => Err(format!("neither old nor new: {token}")),
        };
        Ok(format!("file: {}, directory: {}", word(&file.0)?, word(&dir.0)?))
    }

    /// Both have the token of the refresh that was made since, and nothing else is left there.
    fn check_repaired(&self) -> Result<(), String> {
        let (now, file, dir) = (self.stage.access_token(PROFILE), self.file()?, self.dir()?);
        if (file.0.as_str(), dir.0.as_str()) != (&now, &now) {
            return Err(format!("{now} is not in the mirrors: {file:?}, {dir:?}"));
        }
        let names = |dir: PathBuf| -> BTreeSet<String> {
            let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
            entries.map(|name| name.to_string_lossy().into_owned()).collect()
        };
        let (all, pod) = (names(self.fed("")), names(self.fed("pod")));
        match (all.len(), pod.len()) {
            // `..data`, what it leads to, and a link for each file.
            (2, 4) => Ok(()),
            _ => Err(format!("more than the mirrors is there: {all:?}, {pod:?}")),
        }
    }
}
