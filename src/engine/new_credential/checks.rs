//! The reasons to refuse a new credential. Nothing here changes anything.

use super::{NewCredential, Provenance};
use crate::clock::Moment;
use crate::credential::external::{AccountIdentity, AccountMatch, ImportSource};
use crate::credential::freshness::Validity;
use crate::credential::secret::Fingerprint;
use crate::credential::{Binding, Credential};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::ProfileName;
use crate::store::journal::Journal;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::{LoadedCredential, LockedProfile, Store, StoreError, TokenClaim};

/// Whether what is here has the token already, and nothing is to be done about it.
pub(super) fn is_kept(
    locked: &LockedProfile<'_, '_>,
    existing: &LoadedCredential<'_>,
    new: &Credential,
    fingerprint: &Fingerprint,
    provenance: Provenance,
) -> Result<bool, Outcome> {
    // With --replace, a server that has moved, or a client of another name, gets the token that it is said to have.
    let is_moved = provenance != Provenance::Import && !is_same_server(existing, &new.binding);
    // A login brings an access token of its own, and clears the way for its refresh token.
    let is_wanted =
        provenance == Provenance::Login || locked.journal.is_rejected() || locked.is_consumed(fingerprint)?;
    Ok(existing.fingerprint == *fingerprint && !is_moved && !is_wanted)
}

/// All reasons not to take it. Changes nothing.
pub(super) fn check(
    store: &Store,
    locked: &LockedProfile<'_, '_>,
    existing: Option<LoadedCredential<'_>>,
    new: &NewCredential,
    key: &SealingKey,
    provenance: Provenance,
    now: &Moment,
) -> Result<(), Outcome> {
    let fingerprint = key.fingerprint(&new.credential.refresh);
    check_unclaimed_for(store, &locked.journal.profile, key, &fingerprint, provenance)?;
    check_not_consumed(locked, &fingerprint, provenance, now)?;
    if let Some(existing) = existing.filter(|_| provenance == Provenance::Import) {
        check_same_server(locked, &existing, &new.credential.binding)?;
        check_same_account(locked, &existing, new.origin.as_ref())?;
        check_expires_later(locked, &existing, &new.credential, now)?;
    }
    Ok(())
}

fn check_not_consumed(
    locked: &LockedProfile<'_, '_>,
    token: &Fingerprint,
    provenance: Provenance,
    now: &Moment,
) -> Result<(), Outcome> {
    if provenance == Provenance::Login {
        return Ok(());
    }
    let is_only_rejected = locked.is_only_rejected(token)?;
    if provenance == Provenance::ForcedImport && is_only_rejected {
        return check_not_forced_lately(&locked.journal, now);
    }
    let is_rejected = locked.journal.rejected.as_ref().is_some_and(|r| r.fingerprint == *token);
    if is_rejected || locked.is_consumed_or_in_doubt(token)? {
        let outcome = consumed_outcome(&locked.journal.profile);
        return Err(if is_only_rejected { with_replace_hint(outcome) } else { outcome });
    }
    Ok(())
}

/// Rule 22: a person may have a rejected token tried once more, but not every moment.
fn check_not_forced_lately(journal: &Journal, now: &Moment) -> Result<(), Outcome> {
    let Some(at) = journal.forced_until(now) else { return Ok(()) };
    let message =
        format!("profile {}: this refresh token was rejected, and was tried once more a moment ago", journal.profile);
    let hint = format!("the next time can be at {}; or sign in again", at.to_the_second());
    Err(Outcome::new(OutcomeKind::NeedsLogin).with_error(Failure::new(ErrorKind::Consumed, message).with_hint(hint)))
}

fn consumed_outcome(name: &ProfileName) -> Outcome {
    let message = format!("profile {name}: this refresh token has been used or rejected before");
    let failure =
        Failure::new(ErrorKind::Consumed, message).with_hint("sign in again and import the new token response");
    Outcome::new(OutcomeKind::NeedsLogin).with_error(failure)
}

/// A person may have a token that was only rejected sent once more (rule 22).
fn with_replace_hint(mut outcome: Outcome) -> Outcome {
    if let Some(hint) = outcome.error.as_mut().and_then(|error| error.hint.as_mut()) {
        hint.push_str("; if the server may accept it by now, have it sent once more: --replace");
    }
    outcome
}

/// Rule 4: one token belongs to one profile. Only that profile's journal knows that the token is in doubt or rejected.
pub(in crate::engine) fn check_unclaimed(
    store: &Store,
    name: &ProfileName,
    key: &SealingKey,
    token: &Fingerprint,
) -> Result<(), Outcome> {
    check_unclaimed_for(store, name, key, token, Provenance::Import)
}

fn check_unclaimed_for(
    store: &Store,
    name: &ProfileName,
    key: &SealingKey,
    token: &Fingerprint,
    provenance: Provenance,
) -> Result<(), Outcome> {
    let scan = store.scan()?;
    // What a login brings was granted just now.
    if provenance != Provenance::Login {
        store.check_ledger_complete(&scan)?;
    }
    match store.find_claim(&scan, token, name, key)? {
        None => Ok(()),
        Some(TokenClaim::Unusable) if provenance == Provenance::Login => Ok(()),
        Some(TokenClaim::Unusable) => Err(consumed_outcome(name)),
        Some(claim @ TokenClaim::PublishedElsewhere(_)) => {
            Err(StoreError::TokenClaimed { profile: name.clone(), claim }.outcome())
        }
        Some(TokenClaim::HeldBy(other)) => {
            let message =
                format!("profile {other} already has this refresh token, and two profiles must not share one");
            let hint = format!("use profile {other}; or sign in for a token of its own: keepalive login {name}");
            Err(conflict(message, &hint))
        }
    }
}

fn conflict(message: String, hint: &str) -> Outcome {
    let failure = Failure::new(ErrorKind::Conflict, message).with_hint(hint);
    Outcome::new(OutcomeKind::ConfigError).with_error(failure)
}

fn is_same_server(existing: &LoadedCredential<'_>, place: &Binding) -> bool {
    let old = &existing.locked_credential.credential().binding;
    (&old.origin, &old.client_id) == (&place.origin, &place.client_id)
}

/// A credential of one server or client is not replaced by that of another, however long that one lives.
fn check_same_server(
    locked: &LockedProfile<'_, '_>,
    existing: &LoadedCredential<'_>,
    new: &Binding,
) -> Result<(), Outcome> {
    let old = &existing.locked_credential.credential().binding;
    if locked.journal.is_rejected() || is_same_server(existing, new) {
        return Ok(());
    }
    let of = |b: &Binding| format!("client {} at {} (provider {})", b.client_id, b.origin, b.provider);
    let message =
        format!("profile {} has a credential for {}, but this one is for {}", locked.journal.profile, of(old), of(new));
    Err(conflict(message, "import it into another profile, or use --replace"))
}

/// A credential of one account is not replaced by that of another.
fn check_same_account(
    locked: &LockedProfile<'_, '_>,
    existing: &LoadedCredential<'_>,
    origin: Option<&ImportSource>,
) -> Result<(), Outcome> {
    let Some(new) = origin.map(|o| &o.identity) else { return Ok(()) };
    let told = existing.locked_credential.credential().grant.id_token.as_ref().map(AccountIdentity::from_id_token);
    let old = locked.journal.origin.as_ref().map(|o| o.identity.clone()).unwrap_or_default();
    let old = old.merged_with(told.unwrap_or_default());
    if old.compare(new) != AccountMatch::Different {
        return Ok(());
    }
    let (old, new) = old.distinct_names(new);
    let message =
        format!("profile {} has a credential of {old}, but this one belongs to {new}", locked.journal.profile);
    Err(conflict(message, "import it into another profile, or use --replace"))
}

/// A live credential is replaced only by one that provably expires later.
fn check_expires_later(
    locked: &LockedProfile<'_, '_>,
    existing: &LoadedCredential<'_>,
    new: &Credential,
    now: &Moment,
) -> Result<(), Outcome> {
    if locked.journal.is_rejected() || locked.journal.open_intent().is_some() {
        return Ok(());
    }
    let expiry = |c: &Credential| c.validity().map(Validity::expires_at);
    let old = existing.locked_credential.credential();
    let is_newer = match (expiry(new), expiry(old)) {
        (Some(new), Some(old)) => new > old,
        (Some(_), None) => true,
        (None, Some(old)) => old <= now.wall,
        (None, None) => false,
    };
    if is_newer {
        return Ok(());
    }
    let message = format!(
        "profile {} already has a credential (generation {}) that is not older than this one",
        locked.journal.profile, old.generation
    );
    Err(conflict(message, "to replace it, use --replace"))
}
