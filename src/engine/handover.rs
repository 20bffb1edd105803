//! Takes a credential that did not come from a refresh: an import or a login. The other way by which a generation
//! is made.

use std::path::Path;
use std::time::Duration;

use crate::clock::Moment;
use crate::credential::foreign::{Identity, Likeness, Origin};
use crate::credential::freshness::{Lifetime, Validity};
use crate::credential::response::Granted;
use crate::credential::secret::Fingerprint;
use crate::credential::{Binding, Credential, Generation, Grant};
use crate::guard::Permit;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind, Publication};
use crate::profile::ProfileName;
use crate::store::key::SealingKey;
use crate::store::keyring::KeyringError;
use crate::store::{Claim, Loaded, Store, StoreError, Vault};
use crate::sys::lockfile::LockFile;

/// What is to be stored, and where it was taken from if that was another tool's store.
#[derive(Debug)]
pub struct Arrival {
    pub credential: Credential,
    pub origin: Option<Origin>,
}

impl From<Credential> for Arrival {
    fn from(credential: Credential) -> Self {
        Self { credential, origin: None }
    }
}

/// What speaks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warrant {
    /// Nothing: it is a copy, which may be older than what is here.
    Copy,
    /// The person, whatever is here; it is a copy all the same.
    Insistence,
    /// Its provider, which has just granted it: it lives, whatever was said of its token before.
    Login,
}

/// What became of it.
#[derive(Debug)]
pub enum Handover {
    Taken {
        generation: Generation,
        publication: Publication,
        warnings: Vec<String>,
    },
    /// It was here already.
    Unchanged {
        generation: Generation,
        publication: Publication,
        warnings: Vec<String>,
    },
}

impl Handover {
    pub fn generation(&self) -> Generation {
        match self {
            Self::Taken { generation, .. } | Self::Unchanged { generation, .. } => *generation,
        }
    }

    pub fn publication(&self) -> Publication {
        match self {
            Self::Taken { publication, .. } | Self::Unchanged { publication, .. } => *publication,
        }
    }
}

/// The credential that an answer makes; `None` if it holds no refresh token. `told` is how long the access token lives
/// from `since` on, if that is known.
pub fn credential(
    granted: Granted,
    binding: Binding,
    since: &Moment,
    told: Option<Lifetime>,
    default_lifetime: Duration,
) -> Option<Credential> {
    let (lifetime, is_rest) = match told {
        Some(Lifetime::Whole(life)) => (life, false),
        Some(Lifetime::Rest(left)) => (left, true),
        None => (default_lifetime, false),
    };
    let validity = granted.access.is_some().then(|| Validity {
        obtained: since.clone(),
        lifetime_ms: u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX),
        assumed: told.is_none(),
        is_rest,
    });
    // Zero is Keycloak's way to say that an offline token does not end.
    let not_before = granted.earliest_refresh(since.wall, validity.as_ref().map(Validity::expires_at));
    let login_by = granted.refresh_expires_in.filter(|s| *s > 0).map(|s| since.wall.plus(Duration::from_secs(s)));
    Some(Credential {
        // `take` numbers it.
        generation: Generation::NONE,
        binding,
        refresh: granted.refresh?,
        grant: Grant {
            access: granted.access,
            validity,
            token_type: granted.token_type.unwrap_or_else(|| "Bearer".into()),
            scope: granted.scope,
            id_token: granted.id_token,
            login_by,
            not_before,
        },
    })
}

/// Stores `credential` as the newest generation of its profile: sealed and durable on return, and published if the
/// keyring takes it. An error of the kind `half_taken` says that it is stored all the same.
///
/// Refuses a refresh token that another profile holds; unless it comes by a login, one known to be consumed or rejected; and
/// as a mere copy, to put something older over a live credential. `announce` is called before a wait that a person would notice.
pub fn take(
    store: &Store,
    name: &ProfileName,
    arrival: impl Into<Arrival>,
    warrant: Warrant,
    now: &Moment,
    announce: &dyn Fn(Duration),
) -> Result<Handover, Outcome> {
    let Arrival { mut credential, origin } = arrival.into();
    let is_replacing = warrant != Warrant::Copy;
    let path = store.layout().folder(name).lock();
    // A flight is waited for here, lest it hold up the logins of other profiles below.
    if path.exists() {
        drop(locked(&path)?);
    }
    // The store lock of the key's birth comes before any profile lock.
    let (key, kept) = store.key_to_seal(name.as_str())?;
    let lock = locked(&store.lock_file(name)?)?;
    let permit = Permit::for_writer(name, &lock);
    let mut vault = if is_replacing { store.vault_by_force(permit, Some(&key))? } else { store.vault(permit)? };
    let there = match vault.take_up_answer(&key).and_then(|()| vault.load(&key, false)) {
        Ok(there) => there,
        // What cannot be read any more is exactly what a person replaces.
        Err(e) if is_replacing && e.is_of_what_is_stored() => None,
        Err(e) => return Err(e.outcome()),
    };
    let mut warnings = vault.finish_departure()?;
    let fingerprint = key.fingerprint(&credential.refresh);
    let _token_lock = store.lock_token(&fingerprint)?;
    // With --replace, a server that has moved, or a client of another name, gets the token that it is said to have.
    let is_moved = |there: &Loaded<'_>| is_replacing && !is_at(there, &credential.binding);
    let is_here = |there: &&Loaded<'_>| there.fingerprint == fingerprint && !is_moved(there);
    // A login brings an access token of its own, and clears the way for its refresh token.
    let is_wanted = warrant == Warrant::Login || vault.record.is_rejected() || vault.is_consumed(&fingerprint)?;
    if let Some(there) = there.as_ref().filter(is_here).filter(|_| !is_wanted) {
        return unchanged(&mut vault, there, &key, origin);
    }
    refuse_claimed(store, name, &key, &fingerprint, warrant)?;
    refuse_dead(&vault, &fingerprint, warrant)?;
    if let Some(there) = there.filter(|_| !is_replacing) {
        refuse_elsewhere(&vault, &there, &credential.binding)?;
        refuse_stranger(&vault, &there, origin.as_ref())?;
        refuse_older(&vault, &there, &credential, now)?;
    }
    if warrant == Warrant::Login {
        vault.revive(&fingerprint)?;
    }
    credential.generation = vault.newest_generation()?.next();
    vault.carry_doubt(&fingerprint, credential.generation)?;
    let written = seal(&vault, &credential, &key)?;
    drop(kept);
    vault.record.origin = origin;
    let settled = written.and_then(|()| settle(&mut vault, &credential, &key));
    if let Err(e) = store.confirm_young_key(announce) {
        warnings.push(format!("the keyring may not have saved the sealing key: {e}"));
    }
    warnings.extend(settled.map_err(|why| half_taken(&vault, credential.generation, why))?);
    Ok(Handover::Taken { generation: credential.generation, publication: vault.record.publication, warnings })
}

/// Seals it as the newest generation. `Err`: nothing was taken. `Ok(Err(…))`: it has its name, though that may not be
/// durable; what comes next finds it under it.
fn seal(vault: &Vault<'_, '_>, new: &Credential, key: &SealingKey) -> Result<Result<(), Outcome>, Outcome> {
    match vault.seal(new, key) {
        Err(e) if vault.newest_generation().is_ok_and(|newest| newest == new.generation) => Ok(Err(e.outcome())),
        sealed => Ok(Ok(sealed?)),
    }
}

/// An error behind the seal: the next run sends what was taken, so whoever brought it must not use it elsewhere. It stays an
/// error: where it came from is in no journal, and until the next run `status` does not speak of all of it.
fn half_taken(vault: &Vault<'_, '_>, generation: Generation, mut why: Outcome) -> Outcome {
    let name = &vault.record.profile;
    let before = why.error.take();
    let reason = before.as_ref().map_or("the store failed", |e| e.message.as_str());
    let message = format!(
        "profile {name}: the credential is stored as generation {generation} and will be used, but some bookkeeping \
         failed: {reason}"
    );
    let first = before.as_ref().and_then(|e| e.hint.as_ref()).map_or(String::new(), |hint| format!("{hint}; then "));
    let last = match vault.record.origin {
        Some(_) => "repeat the import to finish".to_owned(),
        None => format!("finish it: keepalive refresh -p {name}"),
    };
    let hint = format!("do not use it elsewhere; {first}{last}");
    why.generation = generation;
    why.because(Failure::new(ErrorKind::HalfTaken, message).hint(hint))
}

/// What is here stays as it is, but for where it came from; and the keyring gets it, if it lacks it.
fn unchanged(
    vault: &mut Vault<'_, '_>,
    there: &Loaded<'_>,
    key: &SealingKey,
    origin: Option<Origin>,
) -> Result<Handover, Outcome> {
    let credential = there.held.credential();
    let is_pending = vault.record.publication == Publication::PublishPending;
    let published = if is_pending { vault.publish(credential, key) } else { Ok(()) };
    let is_news = origin.is_some() && vault.record.origin != origin;
    if is_news {
        vault.record.origin = origin;
        vault.record.standstill = None;
    }
    if is_news || is_pending {
        vault.save()?;
    }
    let warnings = published.err().map(not_published).into_iter().collect();
    Ok(Handover::Unchanged { generation: credential.generation, publication: vault.record.publication, warnings })
}

fn not_published(error: KeyringError) -> String {
    format!("it is not in the keyring yet: {error}")
}

fn locked(path: &Path) -> Result<LockFile, Outcome> {
    LockFile::acquire(path).map_err(|e| {
        let failure = Failure::new(ErrorKind::Lock, format!("cannot lock {}: {e}", path.display()));
        Outcome::new(OutcomeKind::StoreUnavailable).because(failure)
    })
}

fn refuse_dead(vault: &Vault<'_, '_>, token: &Fingerprint, warrant: Warrant) -> Result<(), Outcome> {
    if warrant == Warrant::Login {
        return Ok(());
    }
    let is_rejected = vault.record.rejected.as_ref().is_some_and(|r| r.fingerprint == *token);
    if is_rejected || vault.is_given_up(token)? {
        return Err(dead(&vault.record.profile));
    }
    Ok(())
}

fn dead(name: &ProfileName) -> Outcome {
    let message = format!("profile {name}: this refresh token has been used or rejected before");
    let failure = Failure::new(ErrorKind::Consumed, message).hint("sign in again and import the new token response");
    Outcome::new(OutcomeKind::NeedsLogin).because(failure)
}

/// Rule 4: one token, one profile. Each knows only of itself that a token was sent and not answered, or is dead.
pub(super) fn refuse_held(
    store: &Store,
    name: &ProfileName,
    key: &SealingKey,
    token: &Fingerprint,
) -> Result<(), Outcome> {
    refuse_claimed(store, name, key, token, Warrant::Copy)
}

fn refuse_claimed(
    store: &Store,
    name: &ProfileName,
    key: &SealingKey,
    token: &Fingerprint,
    warrant: Warrant,
) -> Result<(), Outcome> {
    // What a login brings was granted just now.
    if warrant != Warrant::Login {
        store.check_ledger()?;
    }
    match store.claim(token, name, key)? {
        None => Ok(()),
        Some(Claim::Dead) if warrant == Warrant::Login => Ok(()),
        Some(Claim::Dead) => Err(dead(name)),
        Some(claim @ Claim::Elsewhere(_)) => Err(StoreError::Claimed { profile: name.clone(), claim }.outcome()),
        Some(Claim::Held(other)) => {
            let message =
                format!("profile {other} already has this refresh token, and two profiles must not share one");
            let hint = format!("use profile {other}, or delete it there first: keepalive logout {other} --forget");
            let failure = Failure::new(ErrorKind::Conflict, message).hint(hint);
            Err(Outcome::new(OutcomeKind::ConfigError).because(failure))
        }
    }
}

fn is_at(there: &Loaded<'_>, place: &Binding) -> bool {
    let old = &there.held.credential().binding;
    (&old.origin, &old.client_id) == (&place.origin, &place.client_id)
}

/// A credential of one server or client does not give way to that of another, however much longer that one lives.
fn refuse_elsewhere(vault: &Vault<'_, '_>, there: &Loaded<'_>, new: &Binding) -> Result<(), Outcome> {
    let old = &there.held.credential().binding;
    if vault.record.is_rejected() || is_at(there, new) {
        return Ok(());
    }
    let of = |b: &Binding| format!("client {} at {} (provider {})", b.client_id, b.origin, b.provider);
    let message =
        format!("profile {} has a credential for {}, but this one is for {}", vault.record.profile, of(old), of(new));
    let failure = Failure::new(ErrorKind::Conflict, message).hint("import it into another profile, or use --replace");
    Err(Outcome::new(OutcomeKind::ConfigError).because(failure))
}

/// The credential of one account does not give way to that of another.
fn refuse_stranger(vault: &Vault<'_, '_>, there: &Loaded<'_>, origin: Option<&Origin>) -> Result<(), Outcome> {
    let Some(new) = origin.map(|o| &o.identity) else { return Ok(()) };
    let told = there.held.credential().grant.id_token.as_ref().map(Identity::of_id_token).unwrap_or_default();
    let old = vault.record.origin.as_ref().map(|o| o.identity.clone()).unwrap_or_default().or(told);
    if old.likeness(new) != Likeness::Other {
        return Ok(());
    }
    let name = |identity: &Identity| identity.name().unwrap_or("another account").to_owned();
    let message = format!(
        "profile {} has a credential of {}, but this one belongs to {}",
        vault.record.profile,
        name(&old),
        name(new)
    );
    let failure = Failure::new(ErrorKind::Conflict, message).hint("import it into another profile, or use --replace");
    Err(Outcome::new(OutcomeKind::ConfigError).because(failure))
}

/// A live credential gives way only to one that provably expires later.
fn refuse_older(vault: &Vault<'_, '_>, there: &Loaded<'_>, new: &Credential, now: &Moment) -> Result<(), Outcome> {
    if vault.record.is_rejected() || vault.record.open_intent().is_some() {
        return Ok(());
    }
    let expiry = |c: &Credential| c.validity().map(Validity::expires_at);
    let old = there.held.credential();
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
            vault.record.profile, old.generation
        ),
    )
    .hint("to replace it, use --replace");
    Err(Outcome::new(OutcomeKind::ConfigError).because(failure))
}

/// Publishes, and brings the journal up to date. The credential is sealed, so failures here are warnings.
pub(super) fn settle(
    vault: &mut Vault<'_, '_>,
    credential: &Credential,
    key: &SealingKey,
) -> Result<Vec<String>, Outcome> {
    let mut warnings = Vec::new();
    let fingerprint = key.fingerprint(&credential.refresh);
    // A ledger that cannot be written is an error: the journal still knows, and the next run does this again.
    vault.write_off(Some(&fingerprint))?;
    if let Err(e) = vault.publish_arrival(credential, key) {
        warnings.push(not_published(e));
    }
    let publication = vault.record.publication;
    let record = &mut vault.record;
    // Of the same token, a doubt stays.
    let revocation = record.revocation.take_if(|r| !r.is_confirmed && r.fingerprint == fingerprint);
    record.intent.take_if(|i| i.fingerprint != fingerprint);
    record.adopt(credential, fingerprint);
    record.publication = publication;
    record.sequence += 1;
    record.revocation = revocation;
    record.rejected = None;
    record.hold = None;
    record.standstill = None;
    record.failures = 0;
    record.unclassified = 0;
    record.unusable = None;
    record.pause_until(credential.grant.not_before, credential.validity().map(|v| &v.obtained));
    record.last_attempt = None;
    vault.save()?;
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::credential::secret::{AccessToken, RefreshToken};

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn made_of(granted: Granted, told: Option<Lifetime>) -> (Moment, Credential) {
        let now = ManualClock::new(Timestamp::from_secs(1_790_000_000)).now();
        let granted = Granted { refresh: RefreshToken::new("r"), ..granted };
        let binding = Binding { provider: "acme".into(), origin: "https://a".into(), client_id: "c".into() };
        let made = credential(granted, binding, &now, told, S(3600)).unwrap();
        (now, made)
    }

    #[test]
    fn a_refresh_token_with_an_end_is_known_by_it_and_one_without_has_none() {
        let end = |secs| {
            let (now, made) = made_of(Granted { refresh_expires_in: secs, ..Granted::default() }, None);
            made.grant.login_by.map(|at| at.since(now.wall))
        };
        assert_eq!([None, Some(0), Some(1), Some(90)].map(end), [None, None, Some(S(1)), Some(S(90))]);
    }

    #[test]
    fn an_access_token_lives_as_long_as_told_and_otherwise_as_the_provider_is_known_for() {
        let life = |access: Option<AccessToken>, told| {
            let (_, made) = made_of(Granted { access, ..Granted::default() }, told);
            made.grant.validity.map(|v| (v.lifetime(), v.assumed, v.is_rest))
        };
        let access = || AccessToken::new("a");
        let (whole, rest) = (Some(Lifetime::Whole(S(60))), Some(Lifetime::Rest(S(60))));
        assert_eq!(life(access(), whole), Some((S(60), false, false)));
        assert_eq!(life(access(), rest), Some((S(60), false, true)));
        assert_eq!(life(access(), None), Some((S(3600), true, false)));
        assert_eq!(life(None, whole), None);
    }
}
