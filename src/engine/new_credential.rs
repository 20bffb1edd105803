//! Stores a credential that did not come from a refresh but from an import or a login.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
pub use crate::credential::build::build_credential;
use crate::credential::external::{AccountIdentity, AccountMatch, ImportSource};
use crate::credential::freshness::Validity;
use crate::credential::secret::Fingerprint;
use crate::credential::{Binding, Credential, Generation};
use crate::guard::Permit;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind, Publication};
use crate::profile::ProfileName;
use crate::store::journal::block::Cause;
use crate::store::keyring::KeyringError;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::{LoadedCredential, LockedProfile, Store, StoreError, TokenClaim};
use crate::sys::lockfile::LockFile;

/// A credential to be stored, and its origin if that was another tool's store.
#[derive(Debug)]
pub struct NewCredential {
    pub credential: Credential,
    pub origin: Option<ImportSource>,
}

impl From<Credential> for NewCredential {
    fn from(credential: Credential) -> Self {
        Self { credential, origin: None }
    }
}

/// Where a new credential comes from, which decides what it may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// An import: a copy, which may be older than the stored credential.
    Import,
    /// An import with `--replace`: a copy that the person vouches for.
    ForcedImport,
    /// A login: the provider has just granted it, so its token is alive whatever was known of it before.
    Login,
}

/// The result of storing a credential.
#[derive(Debug)]
pub enum NewCredentialResult {
    Stored {
        generation: Generation,
        publication: Publication,
        warnings: Vec<String>,
    },
    /// This credential was already stored.
    Unchanged {
        generation: Generation,
        publication: Publication,
        warnings: Vec<String>,
    },
}

impl NewCredentialResult {
    pub fn generation(&self) -> Generation {
        match self {
            Self::Stored { generation, .. } | Self::Unchanged { generation, .. } => *generation,
        }
    }

    pub fn publication(&self) -> Publication {
        match self {
            Self::Stored { publication, .. } | Self::Unchanged { publication, .. } => *publication,
        }
    }
}

/// Stores `credential` as the newest generation of its profile: sealed and durable on return, and published if the
/// keyring takes it. An error of the kind `partly_stored` says that it is stored all the same.
///
/// Refuses a refresh token that another profile holds; unless it comes by a login, one known to be consumed or
/// rejected; and for a plain import, to replace a live credential by an older one. `on_key_check` is called before a
/// wait that a person would notice.
pub fn store_credential(
    store: &Store,
    name: &ProfileName,
    new_credential: impl Into<NewCredential>,
    provenance: Provenance,
    now: &Moment,
    on_key_check: &dyn Fn(Duration),
) -> Result<NewCredentialResult, Outcome> {
    let new = new_credential.into();
    let path = store.layout().profile_folder(name).lock();
    // A running flight is waited for here, so that the wait under the store lock below is short for other logins.
    if path.exists() {
        drop(acquire_lock(&path)?);
    }
    // The store lock for creating the key comes before any profile lock.
    let (key, store_lock) = store.key_with_store_lock(name.as_str())?;
    let lock = acquire_lock(&store.create_lock_file(name)?)?;
    let (mut locked, existing) = admit(store, Permit::from_lock(name, &lock), &key, provenance)?;
    let warnings = locked.remove_remains()?;
    let fingerprint = key.fingerprint(&new.credential.refresh);
    let _token_lock = store.lock_token(&fingerprint)?;
    if let Some(existing) = existing.as_ref()
        && is_kept(&locked, existing, &new.credential, &fingerprint, provenance)?
    {
        return keep_existing(&mut locked, existing, &key, new.origin);
    }
    check(store, &locked, existing, &new, &key, provenance, now)?;
    let stored = seal_numbered(&mut locked, new, &key, provenance)?;
    drop(store_lock);
    finish(store, &mut locked, stored, &key, warnings, on_key_check)
}

/// Opens the profile and loads what is there.
fn admit<'s, 'l>(
    store: &'s Store,
    permit: Permit<'l>,
    key: &Arc<SealingKey>,
    provenance: Provenance,
) -> Result<(LockedProfile<'s, 'l>, Option<LoadedCredential<'l>>), Outcome> {
    let is_replacing = provenance != Provenance::Import;
    let mut locked = if is_replacing {
        store.open_discarding_damage(permit, |_| Some(Arc::clone(key)))?
    } else {
        store.open_profile(permit)?
    };
    match locked.promote_pending_grant(key).and_then(|()| locked.load(key, false)) {
        Ok(existing) => Ok((locked, existing)),
        // What cannot be read any more is exactly what a person replaces.
        Err(e) if is_replacing && e.is_about_stored_credential() => Ok((locked, None)),
        Err(e) => Err(e.outcome()),
    }
}

/// Whether what is here has the token already, and nothing is to be done about it.
fn is_kept(
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
fn check(
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
    check_not_consumed(locked, &fingerprint, provenance)?;
    if let Some(existing) = existing.filter(|_| provenance == Provenance::Import) {
        check_same_server(locked, &existing, &new.credential.binding)?;
        check_same_account(locked, &existing, new.origin.as_ref())?;
        check_expires_later(locked, &existing, &new.credential, now)?;
    }
    Ok(())
}

/// A credential that is sealed. `written` is an error if its name may not be durable.
struct SealedNew {
    credential: Credential,
    written: Result<(), Outcome>,
}

/// Numbers the credential and seals it.
fn seal_numbered(
    locked: &mut LockedProfile<'_, '_>,
    new: NewCredential,
    key: &SealingKey,
    provenance: Provenance,
) -> Result<SealedNew, Outcome> {
    let NewCredential { mut credential, origin } = new;
    let fingerprint = key.fingerprint(&credential.refresh);
    if provenance == Provenance::Login {
        locked.clear_marks(&fingerprint)?;
    }
    credential.generation = locked.newest_generation()?.next();
    locked.move_intent(&fingerprint, credential.generation)?;
    let written = seal_new(locked, &credential, key)?;
    locked.journal.origin = origin;
    Ok(SealedNew { credential, written })
}

/// Settles the journal, and makes sure of a key that was made in this run.
fn finish(
    store: &Store,
    locked: &mut LockedProfile<'_, '_>,
    stored: SealedNew,
    key: &SealingKey,
    mut warnings: Vec<String>,
    on_key_check: &dyn Fn(Duration),
) -> Result<NewCredentialResult, Outcome> {
    let SealedNew { credential, written } = stored;
    let settled = written.and_then(|()| settle_new_credential(locked, &credential, key));
    if let Err(e) = store.verify_key_persisted(on_key_check) {
        warnings.push(format!("the keyring may not have saved the sealing key: {e}"));
    }
    warnings.extend(settled.map_err(|why| partly_stored(locked, credential.generation, why))?);
    Ok(NewCredentialResult::Stored {
        generation: credential.generation,
        publication: locked.journal.publication,
        warnings,
    })
}

/// Seals it as the newest generation. `Err`: nothing was stored. `Ok(Err(…))`: the file has its final name, though that
/// may not be durable; the next run finds it there.
fn seal_new(
    locked: &mut LockedProfile<'_, '_>,
    new: &Credential,
    key: &SealingKey,
) -> Result<Result<(), Outcome>, Outcome> {
    match locked.seal_credential(new, key) {
        Err(e) if locked.newest_generation().is_ok_and(|newest| newest == new.generation) => Ok(Err(e.outcome())),
        sealed => Ok(Ok(sealed?)),
    }
}

/// An error after sealing: the next run sends the stored token, so it must not be used elsewhere. It stays an error,
/// because the origin is in no journal, and until the next run `status` does not know all of it.
fn partly_stored(locked: &LockedProfile<'_, '_>, generation: Generation, mut why: Outcome) -> Outcome {
    let name = &locked.journal.profile;
    let before = why.error.take();
    let reason = before.as_ref().map_or("the store failed", |e| e.message.as_str());
    let message = format!(
        "profile {name}: the credential is stored as generation {generation} and will be used, but some bookkeeping \
         failed: {reason}"
    );
    let first = before.as_ref().and_then(|e| e.hint.as_ref()).map_or(String::new(), |hint| format!("{hint}; then "));
    let last = match locked.journal.origin {
        Some(_) => "repeat the import to finish".to_owned(),
        None => format!("finish it: keepalive refresh -p {name}"),
    };
    let hint = format!("do not use it elsewhere; {first}{last}");
    why.generation = generation;
    why.with_error(Failure::new(ErrorKind::HalfTaken, message).with_hint(hint))
}

/// Keeps the stored credential, but records its origin, and publishes it if the keyring lacks it.
fn keep_existing(
    locked: &mut LockedProfile<'_, '_>,
    existing: &LoadedCredential<'_>,
    key: &SealingKey,
    origin: Option<ImportSource>,
) -> Result<NewCredentialResult, Outcome> {
    let credential = existing.locked_credential.credential();
    let is_pending = locked.journal.publication == Publication::PublishPending;
    let published = if is_pending { locked.publish(credential, key) } else { Ok(()) };
    let is_news = origin.is_some() && locked.journal.origin != origin;
    if is_news {
        locked.journal.origin = origin;
        locked.journal.clear_blocks(&Cause::FOLLOW);
    }
    if is_news || is_pending {
        locked.save_journal()?;
    }
    let warnings = published.err().map(publish_warning).into_iter().collect();
    Ok(NewCredentialResult::Unchanged {
        generation: credential.generation,
        publication: locked.journal.publication,
        warnings,
    })
}

fn publish_warning(error: KeyringError) -> String {
    format!("it is not in the keyring yet: {error}")
}

fn acquire_lock(path: &Path) -> Result<LockFile, Outcome> {
    LockFile::acquire(path).map_err(|e| {
        let failure = Failure::new(ErrorKind::Lock, format!("cannot lock {}: {e}", path.display()));
        Outcome::new(OutcomeKind::StoreUnavailable).with_error(failure)
    })
}

fn check_not_consumed(
    locked: &LockedProfile<'_, '_>,
    token: &Fingerprint,
    provenance: Provenance,
) -> Result<(), Outcome> {
    if provenance == Provenance::Login {
        return Ok(());
    }
    let is_rejected = locked.journal.rejected.as_ref().is_some_and(|r| r.fingerprint == *token);
    if is_rejected || locked.is_consumed_or_in_doubt(token)? {
        return Err(consumed_outcome(&locked.journal.profile));
    }
    Ok(())
}

fn consumed_outcome(name: &ProfileName) -> Outcome {
    let message = format!("profile {name}: this refresh token has been used or rejected before");
    let failure =
        Failure::new(ErrorKind::Consumed, message).with_hint("sign in again and import the new token response");
    Outcome::new(OutcomeKind::NeedsLogin).with_error(failure)
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
            let hint = format!("use profile {other}, or delete it there first: keepalive logout {other} --forget");
            let failure = Failure::new(ErrorKind::Conflict, message).with_hint(hint);
            Err(Outcome::new(OutcomeKind::ConfigError).with_error(failure))
        }
    }
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
    let failure =
        Failure::new(ErrorKind::Conflict, message).with_hint("import it into another profile, or use --replace");
    Err(Outcome::new(OutcomeKind::ConfigError).with_error(failure))
}

/// A credential of one account is not replaced by that of another.
fn check_same_account(
    locked: &LockedProfile<'_, '_>,
    existing: &LoadedCredential<'_>,
    origin: Option<&ImportSource>,
) -> Result<(), Outcome> {
    let Some(new) = origin.map(|o| &o.identity) else { return Ok(()) };
    let told = existing
        .locked_credential
        .credential()
        .grant
        .id_token
        .as_ref()
        .map(AccountIdentity::from_id_token)
        .unwrap_or_default();
    let old = locked.journal.origin.as_ref().map(|o| o.identity.clone()).unwrap_or_default().merged_with(told);
    if old.compare(new) != AccountMatch::Different {
        return Ok(());
    }
    let name = |identity: &AccountIdentity| identity.display_name().unwrap_or("another account").to_owned();
    let message = format!(
        "profile {} has a credential of {}, but this one belongs to {}",
        locked.journal.profile,
        name(&old),
        name(new)
    );
    let failure =
        Failure::new(ErrorKind::Conflict, message).with_hint("import it into another profile, or use --replace");
    Err(Outcome::new(OutcomeKind::ConfigError).with_error(failure))
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
    let failure = Failure::new(
        ErrorKind::Conflict,
        format!(
            "profile {} already has a credential (generation {}) that is not older than this one",
            locked.journal.profile, old.generation
        ),
    )
    .with_hint("to replace it, use --replace");
    Err(Outcome::new(OutcomeKind::ConfigError).with_error(failure))
}

/// Publishes, and brings the journal up to date. The credential is sealed, so failures here are warnings.
pub(in crate::engine) fn settle_new_credential(
    locked: &mut LockedProfile<'_, '_>,
    credential: &Credential,
    key: &SealingKey,
) -> Result<Vec<String>, Outcome> {
    let mut warnings = Vec::new();
    let fingerprint = key.fingerprint(&credential.refresh);
    // A ledger that cannot be written is an error: the journal still has the tokens, and the next run tries again.
    locked.record_forgotten_tokens(Some(&fingerprint))?;
    if let Err(e) = locked.publish_new_credential(credential, key) {
        warnings.push(publish_warning(e));
    }
    let publication = locked.journal.publication;
    let journal = &mut locked.journal;
    // A doubt about the same token stays.
    let revocation = journal.revocation.take_if(|r| !r.is_confirmed && r.fingerprint == fingerprint);
    journal.intent.take_if(|i| i.fingerprint != fingerprint);
    journal.set_credential(credential, fingerprint);
    journal.publication = publication;
    journal.sequence += 1;
    journal.revocation = revocation;
    journal.rejected = None;
    journal.blocks.clear();
    journal.consecutive_failures = 0;
    journal.consecutive_unclassified = 0;
    journal.set_not_before(credential.grant.not_before, credential.validity().map(|v| &v.obtained));
    journal.last_attempt = None;
    locked.save_journal()?;
    Ok(warnings)
}
