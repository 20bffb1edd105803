//! Minimal journals for the unit tests of the store.

use crate::clock::{Clock, ManualClock, Moment, Timestamp};
use crate::credential::secret::{Fingerprint, RefreshToken};
use crate::credential::{Binding, Credential, Generation, Grant};
use crate::store::journal::{Intent, Journal};

pub(crate) fn fingerprint(digit: char) -> Fingerprint {
    Fingerprint::from_hex(digit.to_string().repeat(32))
}

pub(crate) fn now() -> Moment {
    ManualClock::new(Timestamp::from_secs(1_790_000_000)).now()
}

/// Of token `a`, sent once.
pub(crate) fn intent(generation: Generation) -> Intent {
    Intent::new("a", generation, fingerprint('a'), &now())
}

/// Of a profile at generation 2 whose token is `a`.
pub(crate) fn journal() -> Journal {
    let mut journal = Journal::new("p".parse().expect("a name"));
    journal.generation = Generation::new(2);
    journal.fingerprint = Some(fingerprint('a'));
    journal
}

pub(crate) fn credential(generation: u64, token: &str) -> Credential {
    Credential {
        generation: Generation::new(generation),
        binding: Binding { provider: "acme".into(), origin: "https://a".into(), client_id: "c".into() },
        refresh: RefreshToken::new(token).expect("not empty"),
        grant: Grant {
            access: None,
            validity: None,
            token_type: "Bearer".into(),
            scope: None,
            id_token: None,
            login_by: None,
            not_before: None,
        },
    }
}
