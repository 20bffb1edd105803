//! Stores a credential that did not come from a refresh but from an import or a login.

mod checks;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Moment, Timestamp};
pub use crate::credential::build::build_credential;
use crate::credential::external::ImportSource;
use crate::credential::secret::Fingerprint;
use crate::credential::{Credential, Generation};
pub(in crate::engine) use crate::engine::new_credential::checks::check_unclaimed;
use crate::engine::new_credential::checks::{check, is_kept};
use crate::guard::Permit;
use crate::outcome::{ErrorKind, Failure, Outcome, Publication};
use crate::profile::ProfileName;
use crate::store::journal::Journal;
use crate::store::journal::block::Cause;
use crate::store::keyring::KeyringError;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::{LoadedCredential, LockedProfile, PROFILE_LOCK_WAIT, SealLocks, Store};
use crate::sys::lockfile::{LockHolder, LockWait};

/// How long a login waits for the locks of its profile and its token.
const LOGIN_LOCK_WAIT: Duration = Duration::from_secs(15 * 60);

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

impl Provenance {
    /// How long the locks are waited for. What a login was granted is nowhere else, so it gets the time that a person needs to
    /// deal with the process that holds the lock.
    fn lock_wait(self) -> Duration {
        match self {
            Self::Import | Self::ForcedImport => PROFILE_LOCK_WAIT,
            Self::Login => LOGIN_LOCK_WAIT,
        }
    }
}

/// The result of storing a credential.
#[derive(Debug)]
pub struct NewCredentialResult {
    /// Else this credential was already stored.
    pub is_new: bool,
    pub generation: Generation,
    pub publication: Publication,
    pub warnings: Vec<String>,
}

/// The waits that a person would notice while a credential is stored, and what comes before its first refresh.
#[derive(Clone, Copy)]
pub struct StoringWaits<'a> {
    /// Called before a new key is read back, with the time that takes.
    pub on_key_check: &'a dyn Fn(Duration),
    /// Called before another process's lock is waited for.
    pub on_lock: &'a dyn Fn(&LockHolder),
    /// Ends the wait for a lock; a credential that is being stored is stored.
    pub is_stopped: &'a dyn Fn() -> bool,
    /// Called once the credential is stored, before the lock of the profile is released: no refresh comes before it.
    pub before_release: &'a dyn Fn(),
}

impl StoringWaits<'_> {
    /// Waits that are not told.
    pub const SILENT: StoringWaits<'static> =
        StoringWaits { on_key_check: &|_| {}, on_lock: &|_| {}, is_stopped: &|| false, before_release: &|| {} };
}

/// Stores `credential` as the newest generation of its profile: sealed and durable on return, and published if the
/// keyring takes it. An error of the kind `partly_stored` says that it is stored all the same.
///
/// Refuses a refresh token that another profile holds; unless it comes by a login, one known to be consumed, or, but for a
/// person who vouches for it, rejected; and for a plain import, to replace a live credential by an older one.
pub fn store_credential(
    store: &Store,
    name: &ProfileName,
    new_credential: impl Into<NewCredential>,
    provenance: Provenance,
    now: &Moment,
    waits: &StoringWaits<'_>,
) -> Result<NewCredentialResult, Outcome> {
    let new = new_credential.into();
    let wait = LockWait { limit: provenance.lock_wait(), is_stopped: waits.is_stopped };
    let locks = store.lock_to_seal(name, Some(&new.credential.refresh), wait, waits.on_lock)?;
    let SealLocks { key, store: store_lock, profile: lock, token: _token_lock } = locks;
    let mut store_lock = Some(store_lock);
    let take = || {
        let (mut locked, existing) = admit(store, Permit::from_lock(name, &lock), &key, provenance)?;
        let mut warnings = locked.remove_remains()?;
        let fingerprint = key.fingerprint(&new.credential.refresh);
        if let Some(existing) = existing.as_ref()
            && is_kept(&locked, existing, &new.credential, &fingerprint, provenance)?
        {
            return keep_existing(&mut locked, existing, &key, new.origin, provenance);
        }
        check(store, &locked, existing, &new, &key, provenance, now)?;
        let is_overruling = provenance == Provenance::ForcedImport && locked.is_only_rejected(&fingerprint)?;
        if is_overruling {
            locked.journal.forced_at = Some(now.clone());
        }
        let NewCredential { mut credential, origin } = new;
        let is_alive = is_overruling || provenance == Provenance::Login;
        let sealed = seal_numbered(&mut locked, &mut credential, &key, is_alive)?;
        store_lock = None;
        locked.journal.origin = origin;
        locked.journal.has_tool_diverged = false;
        let settled = sealed.and_then(|()| settle_new_credential(&mut locked, &credential, &key, None));
        if let Err(e) = store.keys().verify_persisted(waits.on_key_check) {
            warnings.push(format!("the keyring may not have saved the sealing key: {e}"));
        }
        let (generation, publication) = (credential.generation, locked.journal.publication);
        warnings.extend(settled.map_err(|why| partly_stored(&locked, provenance, generation, why))?);
        Ok(NewCredentialResult { is_new: true, generation, publication, warnings })
    };
    let taken = take();
    let is_half_taken = |e: &Outcome| e.error.as_ref().is_some_and(|e| e.kind == ErrorKind::HalfTaken);
    if taken.as_ref().map_or_else(is_half_taken, |_| true) {
        (waits.before_release)();
    }
    if let (Err(_), Some(held)) = (&taken, store_lock) {
        store.discard_preparation(held);
    }
    taken
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

/// Numbers the credential and seals it; if it counts as alive, whatever is known of its token is forgotten. `Err`: nothing
/// was stored. The inner error: the file has its final name, though that may not be durable; the next run finds it there.
fn seal_numbered(
    locked: &mut LockedProfile<'_, '_>,
    credential: &mut Credential,
    key: &SealingKey,
    is_alive: bool,
) -> Result<Result<(), Outcome>, Outcome> {
    let fingerprint = key.fingerprint(&credential.refresh);
    if is_alive {
        locked.clear_marks(&fingerprint)?;
    }
    credential.generation = locked.newest_generation()?.next();
    locked.move_intent(&fingerprint, credential.generation)?;
    match locked.seal_credential(credential, key) {
        Err(e) if locked.newest_generation().is_ok_and(|newest| newest == credential.generation) => {
            Ok(Err(e.outcome()))
        }
        sealed => Ok(Ok(sealed?)),
    }
}

/// An error after sealing: the next run sends the stored token, so it must not be used elsewhere. It stays an error,
/// because the origin is in no journal, and until the next run `status` does not know all of it.
fn partly_stored(
    locked: &LockedProfile<'_, '_>,
    provenance: Provenance,
    generation: Generation,
    mut why: Outcome,
) -> Outcome {
    let name = &locked.journal.profile;
    let before = why.error.take();
    let reason = before.as_ref().map_or("the store failed", |e| e.message.as_str());
    let message = format!(
        "profile {name}: the credential is stored as generation {generation} and will be used, but some bookkeeping \
         failed: {reason}"
    );
    let first = before.as_ref().and_then(|e| e.hint.as_ref()).map_or(String::new(), |hint| format!("{hint}; then "));
    let last = match provenance {
        Provenance::Import | Provenance::ForcedImport => "repeat the import to finish".to_owned(),
        Provenance::Login => format!("finish it: keepalive refresh -p {name}"),
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
    provenance: Provenance,
) -> Result<NewCredentialResult, Outcome> {
    let credential = existing.locked_credential.credential();
    let is_pending = locked.journal.publication == Publication::PublishPending;
    let published = if is_pending { locked.publish(credential, key) } else { Ok(()) };
    let is_news = origin.is_some() && locked.journal.origin != origin;
    if is_news {
        locked.journal.origin = origin;
        locked.journal.has_tool_diverged = false;
        locked.journal.clear_blocks(&Cause::FOLLOW);
    }
    // A person says that this is the account that is meant.
    let has_agreed = provenance == Provenance::ForcedImport && locked.journal.clear_blocks(&[Cause::OtherAccount]);
    if is_news || is_pending || has_agreed {
        locked.save_journal()?;
    }
    let (generation, publication) = (credential.generation, locked.journal.publication);
    let warnings = published.err().map(publish_warning).into_iter().collect();
    Ok(NewCredentialResult { is_new: false, generation, publication, warnings })
}

fn publish_warning(error: KeyringError) -> String {
    format!("it is not in the keyring yet: {error}")
}

/// Publishes, and brings the journal up to date. The credential is sealed, so failures here are warnings; but not that of
/// the ledger: the journal still has the tokens, and the next run tries again. `attempt`: how and when the flight ends
/// that brought the credential.
pub(in crate::engine) fn settle_new_credential(
    locked: &mut LockedProfile<'_, '_>,
    credential: &Credential,
    key: &SealingKey,
    attempt: Option<(&Outcome, Timestamp)>,
) -> Result<Vec<String>, Outcome> {
    let fingerprint = key.fingerprint(&credential.refresh);
    locked.record_forgotten_tokens(Some(&fingerprint))?;
    let published = locked.publish_new_credential(credential, key);
    locked.journal = with_new_credential(locked.journal.clone(), credential, fingerprint);
    if let Some((outcome, at)) = attempt {
        locked.journal.record_attempt(outcome, at);
    }
    locked.save_journal()?;
    Ok(published.err().map(publish_warning).into_iter().collect())
}

/// The journal of a profile that has got a credential by no refresh. A doubt about the same token stays. (pure)
fn with_new_credential(mut journal: Journal, credential: &Credential, fingerprint: Fingerprint) -> Journal {
    let revocation = journal.revocation.take_if(|r| !r.is_confirmed && r.fingerprint == fingerprint);
    journal.intent.take_if(|i| i.fingerprint != fingerprint);
    journal.set_credential(credential, fingerprint);
    journal.set_not_before(credential.grant.not_before, credential.validity().map(|v| &v.obtained));
    Journal {
        sequence: journal.sequence + 1,
        revocation,
        rejected: None,
        blocks: Vec::new(),
        consecutive_failures: 0,
        consecutive_unclassified: 0,
        last_attempt: None,
        ..journal
    }
}
