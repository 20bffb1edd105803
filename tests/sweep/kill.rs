//! SIGKILL at every system call of a refresh and of a daemon's flight, on both stores.
//!
//! Outside of the window between the request's first byte and the sync of the sealed answer nothing may be lost, and the
//! next run must succeed. Inside it, every point must be told as in doubt; a server with a grace gives the token back, and
//! at a strict one the last chance, just before expiry, settles it.

use std::time::{Duration, Instant};

use super::Extent;
use super::fixture::{PointResult, StoreType, SweepFixture, SweepReport, TracedCommand};
use super::support::token_family::RotationMode;
use super::tracer::{CallFilter, Injection, TraceOrder};

pub fn on_files(extent: Extent) -> bool {
    run(extent, StoreType::File)
}

pub fn on_keyring(extent: Extent) -> bool {
    run(extent, StoreType::KeyringState)
}

fn run(extent: Extent, store: StoreType) -> bool {
    let mut is_good = true;
    for victim in [TracedCommand::Refresh, TracedCommand::Daemon] {
        let calls = if extent.is_full() { CallFilter::All } else { CallFilter::Effects };
        let sweep = KillSweep { store, victim, calls };
        let (tally, window) = sweep.run(extent);
        is_good &= tally.print(&format!("kill, {victim:?}, {store:?} store"));
        println!("  window: {}", window.describe());
        if extent.is_full() {
            is_good &=
                sweep.rerun_window_points(&window).print(&format!("  in the window, {victim:?}, {store:?} store"));
        }
    }
    is_good
}

struct KillSweep {
    store: StoreType,
    victim: TracedCommand,
    calls: CallFilter,
}

/// The points in doubt.
struct DoubtWindow {
    points: Vec<(u64, String)>,
    ms: f64,
    calls: u64,
}

impl DoubtWindow {
    fn describe(&self) -> String {
        match (self.points.first(), self.points.last()) {
            (Some((_, first)), Some((_, last))) => {
                format!(
                    "{} points in doubt, {} calls from {first:?} to {last:?}; {:.1} ms (traced)",
                    self.points.len(),
                    self.calls,
                    self.ms
                )
            }
            _ => "no point in doubt".into(),
        }
    }
}

impl KillSweep {
    fn run(&self, extent: Extent) -> (SweepReport, DoubtWindow) {
        let mut stage = SweepFixture::new(self.store, RotationMode::Strict, "");
        let profile = stage.sign_in(self.victim);
        let whole = stage.run_traced(self.victim, &profile, &TraceOrder::count(self.calls));
        assert_eq!(whole.status, 0, "{whole:#?}");
        // Threads interleave, so a run may make more calls than the one that was counted.
        let last = whole.counted * 2;
        let mut tally = SweepReport::default();
        let mut points = Vec::new();
        let workers = extent.workers();
        // Of the keyring's many messages a third will do for a quick look.
        let stride = if !extent.is_full() && self.store == StoreType::KeyringState { 3 } else { 1 };
        let found: Vec<_> = std::thread::scope(|scope| {
            let run = |worker: u64| move || self.worker(worker + 1, workers * stride, last);
            let workers: Vec<_> = (0..workers).map(|worker| scope.spawn(run(worker))).collect();
            workers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        for (part, doubts) in found {
            tally.merge(part);
            points.extend(doubts);
        }
        points.sort();
        let (ms, calls) = span(&whole.log);
        (tally, DoubtWindow { points, ms, calls })
    }

    fn worker(&self, first: u64, step: u64, last: u64) -> (SweepReport, Vec<(u64, String)>) {
        let mut stage = SweepFixture::new(self.store, RotationMode::Strict, "");
        let (mut tally, mut doubts) = (SweepReport::default(), Vec::new());
        let mut at = first;
        while at <= last {
            let profile = stage.sign_in(self.victim);
            let before = stage.server.counts();
            let struck =
                stage.run_traced(self.victim, &profile, &TraceOrder { at, action: Injection::Kill, calls: self.calls });
            let call = struck.acted.clone();
            match (stage.examine(&profile, &before), call) {
                (Ok(aftermath), Some(call)) => {
                    if matches!(aftermath, PointResult::Doubt { .. }) {
                        doubts.push((at, call));
                    }
                    tally.add(format!("{aftermath:?}"));
                }
                // The run had ended before: this is the end of the sweep.
                (Ok(PointResult::Safe), None) => break,
                (Ok(other), None) => tally.fault(format!("{at}: unharmed, but {other:?}")),
                (Err(fault), call) => tally.fault(format!("{at} ({call:?}): {fault}")),
            }
            at += step;
        }
        (tally, doubts)
    }

    /// Strikes the points of the window again: where the server has a grace, and where the token soon ends.
    fn rerun_window_points(&self, window: &DoubtWindow) -> SweepReport {
        let mut tally = SweepReport::default();
        for (mode, name) in [(RotationMode::Grace(Duration::from_secs(60)), "grace"), (RotationMode::Strict, "strict")]
        {
            let provider = if name == "grace" {
                "rotation = \"grace\"\nreuse_grace = \"60s\"\ngrace_semantics = \"same\"\ntimeout = \"5s\"\n"
            } else {
                "settle = \"1s\"\ntimeout = \"1s\"\n"
            };
            let mut stage = SweepFixture::new(self.store, mode, provider);
            for (at, call) in &window.points {
                stage.server.set_access_life(Duration::from_secs(if name == "grace" { 600 } else { 4 }));
                let profile = stage.sign_in(self.victim);
                let order = TraceOrder { at: *at, action: Injection::Kill, calls: self.calls };
                stage.run_traced(self.victim, &profile, &order);
                match settle(&stage, &profile) {
                    Ok((0, how)) => tally.add(format!("{name}: alive again ({how})")),
                    Ok((77, _)) if name == "strict" => tally.add("strict: needs a login, and says so"),
                    other => tally.fault(format!("{name}, {at} ({call}): {other:?}")),
                }
            }
        }
        tally
    }
}

/// Runs refreshes until the doubt is settled.
fn settle(stage: &SweepFixture, profile: &str) -> Result<(i32, String), String> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, result) = stage.refresh(profile);
        if status != 75 {
            return Ok((status, result["outcome"].to_string()));
        }
        if Instant::now() > end {
            return Err(result.to_string());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// From the sync of the intent to that of the sealed answer, as a traced run shows it.
fn span(log: &[(f64, String)]) -> (f64, u64) {
    let is_intent = |call: &str| call.starts_with("rename ") && call.ends_with("record.json");
    let Some(sealed) = log.iter().position(|(_, c)| c.starts_with("rename ") && c.ends_with("/sealed")) else {
        return (0.0, 0);
    };
    let received = log[..sealed].iter().rposition(|(_, c)| c.starts_with("fsync") && c.contains("received"));
    let intent = log[..sealed].iter().rposition(|(_, c)| is_intent(c));
    match (intent, received) {
        (Some(from), Some(to)) if from < to => (log[to].0 - log[from].0, (to - from) as u64),
        _ => (0.0, 0),
    }
}
