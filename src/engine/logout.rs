//! A logout: the credential is revoked at its provider where that can be done, and then forgotten here.
//!
//! It is no flight, but under the locks of one: nothing is revoked that a refresh is about to replace. At whatever point a
//! run is cut off, the profile is still signed in, in doubt if its token had been sent, or forgotten; the next logout
//! completes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::clock::Clock;
use crate::credential::secret::AccessToken;
use crate::credential::{Binding, Generation};
use crate::guard::Permit;
use crate::outcome::{Failure, Outcome, OutcomeKind};
use crate::profile::{Profile, ProfileName};
use crate::provider::classify::retry_after;
use crate::provider::revocation::{self, RevocationServer, Revoking, Unsent, Verdict};
use crate::provider::wire::Ask;
use crate::provider::{Gate, GateError, PrepareError, Prepared};
use crate::store::content::Reading;
use crate::store::record::{Record, Revocation};
use crate::store::{Loaded, Store, StoreError, Vault};
use crate::sys::lockfile::LockFile;
use url::Url;

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Revoked,
    /// The provider had ended it before.
    Dead,
    /// Nobody has told the provider: whoever has a copy can use it.
    Left,
}

/// What a logout did. The credential is forgotten here.
#[derive(Debug)]
pub struct Departure {
    pub generation: Generation,
    pub refresh: Fate,
    /// `None`: none was alive.
    pub access: Option<Fate>,
    /// Why the refresh token was left.
    pub reason: Option<Failure>,
    pub warnings: Vec<String>,
    /// It had been forgotten before, and what an interrupted logout left behind is gone now.
    pub is_completion: bool,
}

/// How a token can be revoked.
#[derive(Debug)]
pub enum Route {
    Open {
        prepared: Prepared,
        url: Url,
    },
    /// Nobody can revoke at this provider.
    None(Failure),
    /// Not as things are: the configuration is wrong, or the provider cannot be asked where.
    Blocked(Outcome),
}

/// What a person is told meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A refresh is under way, and waited for. Nothing was done yet.
    Waiting,
    /// From now on an interruption leaves something to be completed.
    Admitted,
}

/// What a logout works with.
pub struct Leaving<'a> {
    pub store: &'a Store,
    pub server: &'a dyn RevocationServer,
    pub clock: Arc<dyn Clock>,
    pub name: &'a ProfileName,
    /// Forget the credential whatever stands in the way of its revocation.
    pub is_forgetting: bool,
    /// Set when the run is told to end: nothing is sent any more.
    pub stop: Arc<AtomicBool>,
}

/// Finds out how a profile's tokens are revoked; may run commands and ask the network, so it comes before any lock.
pub fn route(server: &dyn RevocationServer, profile: &Profile) -> Route {
    let blocked = |error| match error {
        PrepareError::Config(f) => Route::Blocked(Outcome::new(OutcomeKind::ConfigError).because(f)),
        PrepareError::Unreachable(f) => Route::Blocked(Outcome::new(OutcomeKind::Deferred).because(f)),
    };
    let provider = &profile.provider;
    let url = match server.revocation_site(provider) {
        Ok(Some(url)) => url,
        Ok(None) => {
            return Route::None(Failure::new(
                "no_revocation_endpoint",
                format!("{} has no revocation endpoint", provider.name),
            ));
        }
        Err(error) => return blocked(error),
    };
    match server.prepare(provider, profile.name.as_str()) {
        Ok(prepared) => Route::Open { prepared, url },
        Err(error) => blocked(error),
    }
}

impl Leaving<'_> {
    /// Signs out. `Err`: nothing was forgotten, and why.
    pub fn leave(&self, route: Route, tell: &dyn Fn(Event)) -> Result<Departure, Outcome> {
        let mut departed = self.leave_locked(route, tell)?;
        tracing::info!(profile = %self.name, refresh = ?departed.refresh, access = ?departed.access, "forgotten");
        // Not under the profile's lock: the key's own lock comes first.
        match self.store.retire_key() {
            Ok(_) => Ok(departed),
            Err(e) => {
                departed.warnings.push(format!("the sealing key is still in the keyring: {e}"));
                Ok(departed)
            }
        }
    }

    fn leave_locked(&self, route: Route, tell: &dyn Fn(Event)) -> Result<Departure, Outcome> {
        let path = self.store.lock_file(self.name)?;
        let unlockable = |e| {
            let failure = Failure::new("lock", format!("cannot lock {}: {e}", path.display()));
            Outcome::new(OutcomeKind::StoreUnavailable).because(failure)
        };
        let lock = match LockFile::try_acquire(&path).map_err(unlockable)? {
            Some(lock) => lock,
            None => {
                tell(Event::Waiting);
                LockFile::acquire(&path).map_err(unlockable)?
            }
        };
        tell(Event::Admitted);
        let mut vault = self.store.vault(Permit::for_writer(self.name, &lock))?;
        vault.check_keyring().map_err(StoreError::from)?;
        if vault.record.is_tombstone {
            return self.complete(&vault);
        }
        let mut warnings = Vec::new();
        let parting = match self.load(&mut vault) {
            Ok(Some(loaded)) => self.part(&mut vault, loaded, route)?,
            Ok(None) => return Err(no_credential(self.name)),
            Err(outcome) if self.is_forgetting => Parting::unread(outcome),
            Err(outcome) => return Err(with_choice(self.name, outcome)),
        };
        let Parting { refresh, access, reason, revocation } = parting;
        warnings.extend(vault.forget(revocation).map_err(|e| half_way(&vault.record, &e))?);
        Ok(Departure { generation: vault.record.generation, refresh, access, reason, warnings, is_completion: false })
    }

    /// A logout that was cut off behind its tombstone.
    fn complete(&self, vault: &Vault<'_, '_>) -> Result<Departure, Outcome> {
        if !self.store.has_remains(self.name)? {
            // The key may have stayed behind.
            return match self.store.has_orphaned_key()? {
                true => Ok(completed(&vault.record, Vec::new())),
                false => Err(no_credential(self.name)),
            };
        }
        let warnings = vault.finish_departure().map_err(|e| half_way(&vault.record, &e))?;
        Ok(completed(&vault.record, warnings))
    }

    /// The newest credential there is; an answer that a dead run left sealed counts.
    fn load<'l>(&self, vault: &mut Vault<'_, 'l>) -> Result<Option<Loaded<'l>>, Outcome> {
        let key = self.store.key_for(self.name)?;
        if let Some(pending) = vault.pending_answer(&key)?
            && matches!(pending.answer.read(pending.generation), Reading::Granted { .. })
        {
            vault.promote_answer()?;
        }
        Ok(vault.load(&key, false)?)
    }

    /// Revokes what can be revoked. `Err`: it should be tried again, and nothing is to be forgotten.
    fn part(&self, vault: &mut Vault<'_, '_>, loaded: Loaded<'_>, route: Route) -> Result<Parting, Outcome> {
        let _token_lock = self.store.lock_token(&loaded.fingerprint)?;
        let now = self.clock.now();
        let credential = loaded.held.credential();
        let alive = credential.validity().is_some_and(|v| !v.left(&now).is_zero());
        let access = credential.grant.access.clone().filter(|_| alive);
        let is_dead =
            vault.record.is_rejected() && vault.record.rejected.as_ref().is_some_and(|r| r.failure.kind != "in_doubt");
        let untold = |reason| Parting::left(is_dead, access.is_some(), reason);
        if vault.is_consumed(&loaded.fingerprint)? {
            let spent = "an older copy was restored, and its refresh token is spent";
            return Ok(untold(Failure::new("stale_credential", spent)));
        }
        let (prepared, url) = match route {
            Route::Open { prepared, url } => (prepared, url),
            Route::None(reason) => return Ok(untold(reason)),
            Route::Blocked(outcome) => return self.give_up(outcome, untold),
        };
        if let Err(failure) = belongs(&credential.binding, &prepared, &url) {
            return self.give_up(Outcome::new(OutcomeKind::ConfigError).because(failure), untold);
        }
        let fingerprint = loaded.fingerprint.clone();
        match self.send(vault, loaded, &prepared, &url) {
            Sent::Settled(Fate::Left, why) => {
                let access = access.map(|a| self.revoke_access(&prepared, &url, &a));
                Ok(Parting { access, ..Parting::left(is_dead, false, why) })
            }
            Sent::Settled(fate, _) => {
                let access = access.map(|a| self.revoke_access(&prepared, &url, &a));
                let revocation = Some(Revocation { fingerprint, at: now.wall, is_confirmed: true });
                Ok(Parting { refresh: fate, access, reason: None, revocation })
            }
            Sent::Failed(outcome) if is_dead => Ok(untold(reason_of(outcome))),
            Sent::Failed(outcome) => self.give_up(outcome, untold),
        }
    }

    /// What stands in the way: the end of this logout, unless the person wants to forget all the same.
    fn give_up(&self, outcome: Outcome, untold: impl Fn(Failure) -> Parting) -> Result<Parting, Outcome> {
        if self.is_forgetting {
            return Ok(untold(reason_of(outcome)));
        }
        Err(with_choice(self.name, outcome))
    }

    /// Sends the refresh token to be revoked. What may have been sent is in the journal before, and stays there until it
    /// is known what became of it.
    fn send(&self, vault: &mut Vault<'_, '_>, loaded: Loaded<'_>, prepared: &Prepared, url: &Url) -> Sent {
        let mark =
            Revocation { fingerprint: loaded.fingerprint.clone(), at: self.clock.now().wall, is_confirmed: false };
        let was = vault.record.revocation.clone();
        let gate = self.gate(vault, &loaded, mark.clone());
        let provider = &prepared.provider;
        let (verdict, why, retry) = match self.server.revoke(prepared, url, loaded.held, gate) {
            Revoking::Unsent { may_have_mark, why } => {
                // The journal in memory has no such mark: writing it erases the one on disk.
                if may_have_mark && let Err(e) = vault.save() {
                    return Sent::Failed(e.outcome());
                }
                return Sent::Failed(unsent(why, url));
            }
            Revoking::Lost(why) => (Verdict::Unknown, why, None),
            Revoking::Answered(answer) => {
                let (verdict, denied) = revocation::judge(&answer, &provider.policy);
                let code = denied.map_or(String::new(), |d| format!(" {}", d.code));
                let wait = answer.retry_after.as_deref().and_then(|h| retry_after(h, self.clock.now().wall));
                (verdict, format!("{} answered {}{code}", provider.name, answer.status), wait)
            }
        };
        vault.record.revocation = if verdict == Verdict::Unknown { Some(mark) } else { was };
        let failed = |kind, failure: Failure| {
            let outcome = Outcome::new(kind).because(failure);
            Sent::Failed(match retry {
                Some(wait) => outcome.retry_at(self.clock.now().wall.plus(wait)),
                None => outcome,
            })
        };
        let failure = match verdict {
            Verdict::Revoked => return Sent::Settled(Fate::Revoked, Failure::new("revoked", why)),
            Verdict::Dead => return Sent::Settled(Fate::Dead, Failure::new("revoked", why)),
            Verdict::Refused => return Sent::Settled(Fate::Left, Failure::new("revocation_refused", why)),
            Verdict::Client => failed(OutcomeKind::ConfigError, Failure::new("client_refused", why)),
            Verdict::Later => failed(OutcomeKind::Deferred, Failure::new("throttled", why)),
            Verdict::Unknown => {
                let text = format!("the refresh token may be revoked, or not: {why}");
                failed(OutcomeKind::Deferred, Failure::new("revocation_in_doubt", text))
            }
        };
        match vault.save() {
            Ok(()) => failure,
            Err(e) => Sent::Failed(e.outcome()),
        }
    }

    fn gate(&self, vault: &Vault<'_, '_>, loaded: &Loaded<'_>, mark: Revocation) -> Gate {
        let write = vault.revocation_writer(mark);
        let stop = Arc::clone(&self.stop);
        let is_intact = loaded.held.permit().is_intact();
        Box::new(move || {
            if stop.load(Ordering::SeqCst) {
                return Err(GateError::Refused("keepalive was told to stop"));
            }
            if !is_intact {
                return Err(GateError::Refused("the lock file was replaced by another program"));
            }
            write().map_err(|e| GateError::Journal(e.to_string()))
        })
    }

    fn revoke_access(&self, prepared: &Prepared, url: &Url, access: &AccessToken) -> Fate {
        let answer = self.server.ask(prepared, url, Ask::Revoke { access });
        match answer.map(|answer| revocation::judge(&answer, &prepared.provider.policy).0) {
            Ok(Verdict::Revoked) => Fate::Revoked,
            Ok(Verdict::Dead) => Fate::Dead,
            Ok(Verdict::Refused | Verdict::Client | Verdict::Later | Verdict::Unknown) | Err(_) => Fate::Left,
        }
    }
}

/// What became of a refresh token that was to be sent.
enum Sent {
    /// There is an answer, and no more to ask.
    Settled(Fate, Failure),
    Failed(Outcome),
}

/// What is known of the tokens when they are forgotten.
struct Parting {
    refresh: Fate,
    access: Option<Fate>,
    reason: Option<Failure>,
    revocation: Option<Revocation>,
}

impl Parting {
    /// The provider knows nothing of it; which does not matter to a token that it has ended itself.
    fn left(is_dead: bool, has_access: bool, reason: Failure) -> Self {
        let (refresh, reason) = if is_dead { (Fate::Dead, None) } else { (Fate::Left, Some(reason)) };
        Self { refresh, access: has_access.then_some(Fate::Left), reason, revocation: None }
    }

    /// What cannot be read can only be forgotten.
    fn unread(outcome: Outcome) -> Self {
        Self { refresh: Fate::Left, access: None, reason: Some(reason_of(outcome)), revocation: None }
    }
}

/// Never to another server: the token goes where it came from, in the name of the client that it was issued to.
fn belongs(binding: &Binding, prepared: &Prepared, url: &Url) -> Result<(), Failure> {
    let configured = prepared.binding();
    let provider = &binding.provider;
    if binding.origin != configured.origin || binding.client_id != configured.client_id {
        let message = format!(
            "the credential belongs to client {} at {}, but the configuration names client {} at {}",
            binding.client_id, binding.origin, configured.client_id, configured.origin
        );
        return Err(Failure::new("other_server", message).hint(format!("restore [provider.{provider}]")));
    }
    let origin = url.origin().ascii_serialization();
    if origin == binding.origin {
        return Ok(());
    }
    let message = format!("the revocation endpoint is at {origin}, but the credential belongs to {}", binding.origin);
    Err(Failure::new("other_server", message).hint(format!("check revocation_endpoint in [provider.{provider}]")))
}

fn unsent(why: Unsent, url: &Url) -> Outcome {
    match why {
        Unsent::Network(reason) => {
            let message = format!("cannot reach {}: {reason}", url.origin().ascii_serialization());
            Outcome::new(OutcomeKind::Deferred).because(Failure::new("network", message))
        }
        Unsent::Gate(GateError::Refused(reason)) => Outcome::new(OutcomeKind::Deferred)
            .because(Failure::new("interrupted", format!("nothing was sent: {reason}"))),
        Unsent::Gate(GateError::Journal(error)) => Outcome::new(OutcomeKind::StoreUnavailable)
            .because(Failure::new("io", format!("cannot write the journal: {error}"))),
    }
}

fn reason_of(outcome: Outcome) -> Failure {
    outcome.error.unwrap_or_else(|| Failure::new("unknown", "it is not known why"))
}

/// Nothing was forgotten: says so, and what the person can choose.
fn with_choice(name: &ProfileName, mut outcome: Outcome) -> Outcome {
    let Some(failure) = &mut outcome.error else { return outcome };
    let first = match (&failure.hint, outcome.kind) {
        (Some(hint), _) => format!("{hint}; "),
        (None, OutcomeKind::Deferred) => "try again; ".to_owned(),
        (None, _) => String::new(),
    };
    let choice = format!("or forget it here all the same: keepalive logout {name} --forget");
    failure.message = format!("{name} is still signed in: {}", failure.message);
    failure.hint =
        Some(format!("{first}{}", if first.is_empty() { choice.trim_start_matches("or ") } else { &choice }));
    outcome
}

/// An error in the course of forgetting.
fn half_way(record: &Record, error: &StoreError) -> Outcome {
    let mut outcome = error.outcome();
    if let (true, Some(failure)) = (record.is_tombstone, &mut outcome.error) {
        outcome.kind = OutcomeKind::StoreUnavailable;
        let name = &record.profile;
        failure.message = format!("{name} is forgotten, but not all of it could be removed: {}", failure.message);
        let before = failure.hint.as_ref().map_or(String::new(), |hint| format!("{hint}; then "));
        failure.hint = Some(format!("{before}keepalive logout {name} removes the rest"));
    }
    outcome
}

fn completed(record: &Record, warnings: Vec<String>) -> Departure {
    let is_revoked = record.revocation.as_ref().is_some_and(|r| r.is_confirmed);
    let (refresh, reason) = match is_revoked {
        true => (Fate::Revoked, None),
        false => (Fate::Left, Some(Failure::new("interrupted", "the logout that was interrupted had not revoked it"))),
    };
    Departure { generation: record.generation, refresh, access: None, reason, warnings, is_completion: true }
}

/// There is nothing to sign out.
pub fn no_credential(name: &ProfileName) -> Outcome {
    let failure = Failure::new("no_credential", format!("there is no credential for profile {name}"));
    Outcome::new(OutcomeKind::NeedsLogin).because(failure)
}
