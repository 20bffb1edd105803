use keepalive::credential::Credential;
use keepalive::guard::{Held, Permit};

fn without_the_store<'l>(permit: Permit<'l>, credential: Credential) -> Held<'l> {
    permit.hold(credential) //~ E0624
}

fn main() {}
