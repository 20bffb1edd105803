//! What a status tells that no attempt has told. (pure)

use crate::clock::Moment;
use crate::outcome::{ErrorKind, Failure};
use crate::store::journal::Journal;

/// A rejection, with the word that the configuration has come to name another server or client since: what a person mends
/// first.
pub(super) fn with_other_server(rejection: Failure, other: &Failure) -> Failure {
    let message = format!("{}; and {}", rejection.message, other.message);
    Failure { message, hint: other.hint.clone(), ..rejection }
}

/// A logout was cut off, or got no response.
pub(super) fn revocation_in_doubt(journal: &Journal) -> Failure {
    let name = &journal.profile;
    Failure::new(
        ErrorKind::RevocationInDoubt,
        "a logout asked the provider to revoke this credential, but no response was recorded",
    )
    .with_hint(format!(
        "finish it: keepalive logout {name}; or see whether it is still valid: keepalive refresh -p {name} --force"
    ))
}

/// What a person should know while the access token lives on, and the refresh token has come to an end that no refresh
/// moves (rule 35). The next refresh is tried all the same: the server may have been wrong about it.
pub(super) fn login_ended(journal: &Journal, now: &Moment) -> Option<Failure> {
    let end = journal.login_by.filter(|end| *end <= now.wall)?;
    let until = journal.validity.as_ref()?.expires_at().to_the_second();
    let message = format!(
        "the refresh token itself ended at {}, as the server had told; the access token lives until {until}",
        end.to_the_second()
    );
    let hint = format!("sign in before then: keepalive login {}", journal.profile);
    Some(Failure::new(ErrorKind::LoginEnded, message).with_hint(hint))
}
