//! Fuzzing without a fuzzer: real inputs, damaged at random from seeds, so that every case can be had again.
//!
//! The usual test runs a sample. `KEEPALIVE_FUZZ_CASES=10000000 cargo test --release --test it fuzz::responses` runs the
//! long form; a failure names the seed of its case, and `KEEPALIVE_FUZZ_SEED=<seed>` runs that case alone.

mod configuration;
mod random_damage;
mod responses;
mod store_files;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use random_damage::Rng;
use rustix::time::{ClockId, clock_gettime};

/// Processor time that one case may take, in a build without optimisation.
const LONGEST: Duration = Duration::from_secs(2);
/// Failures that are told before the run is given up.
const ENOUGH: usize = 5;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn processor_time() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Runs `case` for as many seeds as are asked for, or `usually`, on two threads; panics with the seeds that failed.
fn run(name: &str, usually: u64, case: impl Fn(&mut Rng) + Sync) {
    if let Some(seed) = variable("KEEPALIVE_FUZZ_SEED") {
        return case(&mut Rng::new(seed));
    }
    let cases = variable("KEEPALIVE_FUZZ_CASES").unwrap_or(usually);
    let (next, is_enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let (failures, slowest) = (Mutex::new(Vec::new()), Mutex::new((Duration::ZERO, 0)));
    let work = || {
        let mut worst = (Duration::ZERO, 0);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= cases || is_enough.load(Ordering::Relaxed) {
                break;
            }
            let before = processor_time();
            if catch_unwind(AssertUnwindSafe(|| case(&mut Rng::new(seed)))).is_err() {
                let mut failures = failures.lock().unwrap();
                failures.push(seed);
                is_enough.store(failures.len() >= ENOUGH, Ordering::Relaxed);
            }
            worst = worst.max((processor_time() - before, seed));
        }
        let mut slowest = slowest.lock().unwrap();
        *slowest = (*slowest).max(worst);
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let (failures, (slowest, seed)) = (failures.into_inner().unwrap(), slowest.into_inner().unwrap());
    eprintln!("fuzz {name}: {cases} cases, {} failures, the slowest took {slowest:?} (seed {seed})", failures.len());
    assert!(failures.is_empty(), "{name}: try again with KEEPALIVE_FUZZ_SEED set to one of {failures:?}");
    assert!(slowest < LONGEST, "{name}: seed {seed} took {slowest:?}");
}
