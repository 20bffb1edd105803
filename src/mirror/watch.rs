//! The daemon's look at all mirrors: at its start, when the configuration has changed, each hour, and sooner after a failure
//! that may pass.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::mirror::{MirrorReport, MirrorState, Mirrors, state};
use crate::profile::Profile;

/// How often all mirrors are looked at.
const INTERVAL: Duration = Duration::from_secs(3600);

/// Looks until the sender of `bell` is gone. `profiles`: those that have mirrors. Blocks the thread.
pub fn run(mirrors: &Mirrors, profiles: &dyn Fn() -> Vec<Arc<Profile>>, bell: &Receiver<()>) {
    let mut failures = 0;
    loop {
        let reports: Vec<MirrorReport> = profiles().iter().flat_map(|profile| mirrors.update(profile)).collect();
        // They are in the log.
        drop(mirrors.take_news());
        let is_failing = reports.iter().any(|report| report.state == MirrorState::Failed);
        failures = if is_failing { failures + 1 } else { 0 };
        match bell.recv_timeout(pause(failures)) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The time until the next look. (pure)
fn pause(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => INTERVAL,
        Some(_) => state::pause(failures),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_mirror_is_tried_again_soon_and_then_less_often() {
        assert_eq!([0, 1, 2, 3].map(|n| pause(n).as_secs()), [3600, 30, 60, 120]);
        assert_eq!([8, 40, u32::MAX].map(|n| pause(n).as_secs()), [3600; 3]);
    }
}
