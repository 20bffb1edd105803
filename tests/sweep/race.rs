//! Several at once while one of them suffers: the holder of the lock stands still, or processes are killed at random.

use std::time::{Duration, Instant};

use super::Extent;
use super::fixture::{PointResult, StoreType, SweepFixture, SweepReport, TracedCommand};
use super::support::sandbox::Process;
use super::support::token_family::RotationMode;
use super::tracer::{self, CallFilter, Injection, TraceOrder};

/// The holder of the lock is stopped for a while at each of its calls, while others come: one request, and all are served.
pub fn paused_holder(extent: Extent) -> bool {
    let mut stage = SweepFixture::new(StoreType::File, RotationMode::Strict, "");
    let mut tally = SweepReport::default();
    let step = if extent.is_full() { 1 } else { 7 };
    for at in (1..).step_by(step) {
        let profile = stage.sign_in(TracedCommand::Refresh);
        let before = stage.server.counts();
        let sign = stage.sandbox.path(tracer::PAUSE_MARKER);
        let _old = std::fs::remove_file(&sign);
        let order = TraceOrder { at, action: Injection::Pause(700), calls: CallFilter::Effects };
        let (struck, others) = std::thread::scope(|scope| {
            let holder = scope.spawn(|| stage.run_traced(TracedCommand::Refresh, &profile, &order));
            while !sign.exists() && !holder.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let others: Vec<Process> = (0..4)
                .map(|i| {
                    let call: &[&str] = match i {
                        0 | 1 => &["--json", "refresh", "-p", &profile, "--force"],
                        2 => &["--json", "refresh", "-p", &profile],
                        _ => &["token", &profile, "--min-valid", "0s"],
                    };
                    stage.sandbox.spawn(call)
                })
                .collect();
            let others: Vec<_> = others.into_iter().map(Process::finish).collect();
            (holder.join().unwrap(), others)
        });
        if struck.acted.is_none() {
            break;
        }
        let failed: Vec<_> = others.iter().filter(|run| run.status != 0).collect();
        match stage.examine(&profile, &before) {
            Ok(_) if struck.status == 0 && failed.is_empty() => tally.add("all served, nothing presented again"),
            Ok(_) => tally.fault(format!("{at} ({:?}): {} {failed:?}", struck.acted, struck.status)),
            Err(fault) => tally.fault(format!("{at} ({:?}): {fault}", struck.acted)),
        }
    }
    tally.print("paused lock holder")
}

/// Herds of which a third is killed at random moments.
pub fn herds_with_kills(extent: Extent) -> bool {
    let (rounds, seed) = if extent.is_full() { (300, 0x5eed) } else { (12, 0x5eed) };
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let mut stage = SweepFixture::new(StoreType::File, RotationMode::Strict, "");
    stage.server.set_response_delay(Duration::from_millis(60));
    let mut tally = SweepReport::default();
    for round in 0..rounds {
        let profile = stage.sign_in(TracedCommand::Refresh);
        let before = stage.server.counts();
        let call = ["--json", "refresh", "-p", &profile, "--force"];
        let mut herd: Vec<_> = (0..12).map(|_| stage.sandbox.spawn(&call)).collect();
        let start = Instant::now();
        let mut kills: Vec<_> = (0..4).map(|_| Duration::from_millis(random.below(160))).collect();
        kills.sort();
        for at in kills {
            std::thread::sleep(at.saturating_sub(start.elapsed()));
            let victim = random.below(herd.len() as u64) as usize;
            herd.swap_remove(victim).kill();
        }
        let statuses: Vec<i32> = herd.into_iter().map(|p| p.finish().status).collect();
        let is_odd = |status: &&i32| !matches!(status, 0 | 75);
        if let Some(odd) = statuses.iter().find(is_odd) {
            tally.fault(format!("round {round}: a survivor ended with {odd}"));
            continue;
        }
        match stage.examine(&profile, &before) {
            Ok(PointResult::Doubt { .. }) => tally.add("the leader died in the window: in doubt, and told"),
            Ok(_) if statuses.contains(&75) => tally.fault(format!("round {round}: in doubt for nothing")),
            Ok(_) => tally.add("alive, all survivors served"),
            Err(fault) => tally.fault(format!("round {round}: {fault}")),
        }
    }
    tally.print("herds with random kills")
}

/// xorshift64*: enough to scatter blows, and the same each time.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}
