use keepalive::credential::secret::RefreshToken;
use keepalive::guard::{LockedCredential, NeverSent, SpentCredential};

fn unspend<'l>(predecessor: SpentCredential<'l>, token: RefreshToken) -> LockedCredential<'l> {
    predecessor.restore_unsent(token, NeverSent(())) //~ E0423
}

fn main() {}
