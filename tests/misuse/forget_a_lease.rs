#![deny(unused_must_use)]

use keepalive::guard::{Lease, Seat};

fn forget_it(lease: fn(Seat<u32>) -> Lease<u32>, seat: Seat<u32>) {
    lease(seat); //~ unused_must_use
}

fn main() {}
