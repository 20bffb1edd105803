use keepalive::credential::secret::RefreshToken;
use keepalive::guard::{Held, NeverSent, Predecessor};

fn unspend<'l>(predecessor: Predecessor<'l>, token: RefreshToken) -> Held<'l> {
    predecessor.unspent(token, NeverSent(())) //~ E0423
}

fn main() {}
