#![deny(let_underscore_drop)]

use keepalive::guard::{Guard, Lease};

fn drop_it(guard: &Guard<u32>, name: &keepalive::profile::ProfileName) {
    let (_flight, seat) = guard.enter(name);
    let _ = Lease::admit(seat.unwrap(), std::path::Path::new("lock"), || (), || Some(())); //~ let_underscore_drop
}

fn main() {}
