#![deny(unused_must_use)]

use keepalive::guard::{Lease, LeaderSlot};

fn forget_it(lease: fn(LeaderSlot<u32>) -> Lease<u32>, seat: LeaderSlot<u32>) {
    lease(seat); //~ unused_must_use
}

fn main() {}
