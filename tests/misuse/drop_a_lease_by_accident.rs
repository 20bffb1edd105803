#![deny(let_underscore_drop)]

use keepalive::guard::{FlightGroup, Lease};
use keepalive::sys::lockfile::LockWait;

const WAIT: LockWait<'_> = LockWait::at_most(std::time::Duration::ZERO);

fn drop_it(guard: &FlightGroup<u32>, name: &keepalive::profile::ProfileName) {
    let (_flight, seat) = guard.join_or_lead(name);
    let _ = Lease::admit(seat.unwrap(), std::path::Path::new("lock"), WAIT, || (), || Some(())); //~ let_underscore_drop
}

fn main() {}
