//! Stores a credential that did not come from a refresh but from an import or a login.

mod checks;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
pub use crate::credential::build::build_credential;
use crate::credential::external::ImportSource;
use crate::credential::{Credential, Generation};
pub(in crate::engine) use crate::engine::new_credential::checks::check_unclaimed;
use crate::engine::new_credential::checks::{check, is_kept};
use crate::guard::Permit;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind, Publication};
use crate::profile::ProfileName;
use crate::store::journal::block::Cause;
use crate::store::keyring::KeyringError;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::{LoadedCredential, LockedProfile, Store};
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
    let (key, store_lock) = store.prepare_to_seal(name.as_str())?;
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
    if let Err(e) = store.keys().verify_persisted(on_key_check) {
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
