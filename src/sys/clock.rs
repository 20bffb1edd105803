//! The machine's own clocks.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock::{Clock, Moment, Timestamp};

/// Reads the wall clock and the boot clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        #[expect(clippy::disallowed_methods, reason = "the one place that asks")]
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment {
            wall: Timestamp::from_millis(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
            boot_id: boot_id().to_owned(),
            uptime_ms: uptime_ms(),
        }
    }
}

/// The name the kernel gave this boot. Empty where there is none: elapsed time is then never trusted, which only makes
/// keepalive more careful.
fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
    })
}

#[cfg(target_os = "linux")]
fn uptime_ms() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1000 + u64::try_from(t.tv_nsec).unwrap_or(0) / 1_000_000
}

#[cfg(not(target_os = "linux"))]
fn uptime_ms() -> u64 {
    0
}
