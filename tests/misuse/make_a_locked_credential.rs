use keepalive::credential::Credential;
use keepalive::guard::{LockedCredential, Permit};

fn without_the_store<'l>(permit: Permit<'l>, credential: Credential) -> LockedCredential<'l> {
    permit.bind(credential) //~ E0624
}

fn main() {}
