//! A logout: the credential is revoked at its provider where that can be done, and then forgotten here.
//!
//! It is no flight, but under the locks of one: nothing is revoked that a refresh is about to replace. At whatever point a
//! run is cut off, the profile is still signed in, in doubt if its token had been sent, or forgotten; the next logout
//! completes it.

mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use url::Url;

use crate::clock::Clock;
use crate::credential::Generation;
use crate::credential::secret::AccessToken;
use crate::guard::Permit;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::{Profile, ProfileName};
use crate::provider::classify::retry_after;
use crate::provider::revocation::{self, RevocationServer, Revoking, Verdict};
use crate::provider::wire::Ask;
use crate::provider::{Gate, GateError, PrepareError, Prepared};
use crate::store::record::{Record, Revocation};
use crate::store::{Loaded, Readied, Store, StoreError, Vault};
use crate::sys::lockfile::LockFile;
pub use words::no_credential;
use words::{belongs, completed, half_way, reason_of, unsent, with_choice};

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Revoked,
    /// The provider had ended it before.
    Dead,
    /// Nobody has told the provider: whoever has a copy can use it.
    Left,
}

impl Fate {
    /// The word of the JSON and of the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Dead => "dead",
            Self::Left => "left",
        }
    }
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
                ErrorKind::NoRevocationEndpoint,
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
        let (refresh_token, access_token) = (departed.refresh.word(), departed.access.map(Fate::word));
        tracing::info!(profile = %self.name, refresh_token, access_token, "logged out");
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
        // It may come from a command, which is not waited for under a lock.
        let key = self.store.ready_key(self.name);
        let path = self.store.lock_file(self.name)?;
        let unlockable = |e| {
            let failure = Failure::new(ErrorKind::Lock, format!("cannot lock {}: {e}", path.display()));
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
        let permit = Permit::for_writer(self.name, &lock);
        let mut vault = match self.is_forgetting {
            true => self.store.vault_by_force(permit, self.store.readied_key(self.name, &key).ok().as_deref())?,
            false => self.store.vault(permit)?,
        };
        vault.check_keyring().map_err(StoreError::from)?;
        if vault.record.is_tombstone {
            return self.complete(&mut vault);
        }
        let parting = match self.load(&mut vault, &key) {
            Ok(Some(loaded)) => self.part(&mut vault, loaded, route)?,
            Ok(None) => return Err(no_credential(self.name)),
            Err(outcome) if self.is_forgetting => Parting::unread(outcome),
            Err(outcome) => return Err(with_choice(self.name, outcome)),
        };
        let Parting { refresh, access, reason, revocation, _token_lock } = parting;
        let warnings = vault.forget(revocation).map_err(|e| half_way(&vault.record, Some((refresh, access)), &e))?;
        Ok(Departure { generation: vault.record.generation, refresh, access, reason, warnings, is_completion: false })
    }

    /// A logout that was cut off behind its tombstone.
    fn complete(&self, vault: &mut Vault<'_, '_>) -> Result<Departure, Outcome> {
        if !self.store.has_remains(self.name)? {
            // The key may have stayed behind.
            return match self.store.has_orphaned_key()? {
                true => Ok(completed(&vault.record, Vec::new())),
                false => Err(no_credential(self.name)),
            };
        }
        let warnings = vault.finish_departure().map_err(|e| half_way(&vault.record, None, &e))?;
        Ok(completed(&vault.record, warnings))
    }

    /// The newest credential there is; an answer that a dead run left sealed counts.
    fn load<'l>(&self, vault: &mut Vault<'_, 'l>, key: &Readied) -> Result<Option<Loaded<'l>>, Outcome> {
        let key = self.store.readied_key(self.name, key)?;
        vault.take_up_answer(&key)?;
        Ok(vault.load(&key, false)?)
    }

    /// Revokes what can be revoked, under the token's lock. `Err`: nothing is to be forgotten.
    fn part(&self, vault: &mut Vault<'_, '_>, loaded: Loaded<'_>, route: Route) -> Result<Parting, Outcome> {
        let token_lock = self.store.lock_token(&loaded.fingerprint)?;
        let now = self.clock.now();
        let is_alive = loaded.held.credential().validity().is_some_and(|v| !v.left(&now).is_zero());
        let access = loaded.held.credential().grant.access.clone().filter(|_| is_alive);
        let is_dead = is_ended_by_the_provider(&vault.record);
        let untold = |reason| Parting::left(is_dead, access.is_some(), reason);
        // What the journal knows to be refused may have been presumed so.
        let parting = if !vault.record.is_rejected() && vault.is_consumed(&loaded.fingerprint)? {
            let spent = "an older copy was restored, whose refresh token has been consumed";
            untold(Failure::new(ErrorKind::StaleCredential, spent))
        } else {
            match route {
                Route::None(reason) => untold(reason),
                // A token that is dead anyway needs nobody.
                Route::Blocked(outcome) if is_dead => untold(reason_of(outcome)),
                Route::Blocked(outcome) => self.give_up(outcome, untold)?,
                Route::Open { prepared, url } => match self.revoke(vault, loaded, access.as_ref(), &prepared, &url) {
                    Ok(parting) => parting,
                    Err(outcome) if is_dead => untold(reason_of(outcome)),
                    Err(outcome) => self.give_up(outcome, untold)?,
                },
            }
        };
        Ok(Parting { _token_lock: Some(token_lock), ..parting })
    }

    /// Sends first the refresh token and then, if anybody answers, the access token.
    fn revoke(
        &self,
        vault: &mut Vault<'_, '_>,
        loaded: Loaded<'_>,
        access: Option<&AccessToken>,
        prepared: &Prepared,
        url: &Url,
    ) -> Result<Parting, Outcome> {
        belongs(&loaded.held.credential().binding, prepared, url)
            .map_err(|failure| Outcome::new(OutcomeKind::ConfigError).because(failure))?;
        let is_dead = is_ended_by_the_provider(&vault.record);
        let fingerprint = loaded.fingerprint.clone();
        let (fate, why) = self.send(vault, loaded, prepared, url)?;
        let access = access.map(|access| self.revoke_access(prepared, url, access));
        Ok(match fate {
            Fate::Left => Parting { access, ..Parting::left(is_dead, false, why) },
            Fate::Revoked | Fate::Dead => {
                let at = self.clock.now().wall;
                let revocation = Some(Revocation { fingerprint, at, is_confirmed: true });
                Parting { refresh: fate, access, reason: None, revocation, _token_lock: None }
            }
        })
    }

    /// What stands in the way: the end of this logout, unless the person wants to forget all the same.
    fn give_up(&self, outcome: Outcome, untold: impl Fn(Failure) -> Parting) -> Result<Parting, Outcome> {
        // Who interrupts wants nothing more to happen.
        if self.is_forgetting && !self.stop.load(Ordering::SeqCst) {
            return Ok(untold(reason_of(outcome)));
        }
        Err(with_choice(self.name, outcome))
    }

    /// Sends the refresh token to be revoked. What may have been sent is in the journal before, and stays there until it
    /// is known what became of it. Gives its fate, and the server's words.
    fn send(
        &self,
        vault: &mut Vault<'_, '_>,
        loaded: Loaded<'_>,
        prepared: &Prepared,
        url: &Url,
    ) -> Result<(Fate, Failure), Outcome> {
        let mark =
            Revocation { fingerprint: loaded.fingerprint.clone(), at: self.clock.now().wall, is_confirmed: false };
        let was = vault.record.revocation.clone();
        let gate = self.gate(vault, &loaded, mark.clone());
        let provider = &prepared.provider;
        let (verdict, why, retry) = match self.server.revoke(prepared, url, loaded.held, gate) {
            Revoking::Unsent { may_have_mark, why } => {
                // The journal in memory has no such mark: writing it erases the one on disk.
                if may_have_mark {
                    vault.save()?;
                }
                return Err(unsent(why, url));
            }
            Revoking::Lost(why) => (Verdict::Unknown, why, None),
            Revoking::Answered(answer) => {
                let (verdict, denied) = revocation::judge(&answer, provider);
                let code = denied.map_or(String::new(), |d| format!(" {}", d.code));
                let wait = answer.retry_after.as_deref().and_then(|h| retry_after(h, self.clock.now().wall));
                (verdict, format!("{} returned {}{code}", provider.name, answer.status), wait)
            }
        };
        vault.record.revocation = if verdict == Verdict::Unknown { Some(mark) } else { was };
        let failed = |kind, failure: Failure| {
            let outcome = Outcome::new(kind).because(failure);
            match retry {
                Some(wait) => outcome.retry_at(self.clock.now().wall.plus(wait)),
                None => outcome,
            }
        };
        let outcome = match verdict {
            Verdict::Revoked => return Ok((Fate::Revoked, Failure::new(ErrorKind::Revoked, why))),
            Verdict::Dead => return Ok((Fate::Dead, Failure::new(ErrorKind::Revoked, why))),
            Verdict::Refused => return Ok((Fate::Left, Failure::new(ErrorKind::RevocationRefused, why))),
            Verdict::Client => {
                let keys = "client_id, client_auth, client_secret and revocation_endpoint";
                let hint = format!("check {keys} in [provider.{}]", provider.name);
                failed(OutcomeKind::ConfigError, Failure::new(ErrorKind::ClientRefused, why).hint(hint))
            }
            Verdict::Later => failed(OutcomeKind::Deferred, Failure::new(ErrorKind::Throttled, why)),
            Verdict::Unknown => {
                let text = format!("the refresh token may or may not be revoked: {why}");
                failed(OutcomeKind::Deferred, Failure::new(ErrorKind::RevocationInDoubt, text))
            }
        };
        vault.save()?;
        Err(outcome)
    }

    fn gate(&self, vault: &Vault<'_, '_>, loaded: &Loaded<'_>, mark: Revocation) -> Gate {
        let write = vault.revocation_writer(mark);
        let stop = Arc::clone(&self.stop);
        let is_intact = loaded.held.permit().watch();
        Box::new(move || {
            if stop.load(Ordering::SeqCst) {
                return Err(GateError::Refused("keepalive is stopping"));
            }
            if !is_intact() {
                return Err(GateError::Refused("the lock file was replaced by another program"));
            }
            write().map_err(|e| GateError::Journal(e.to_string()))
        })
    }

    fn revoke_access(&self, prepared: &Prepared, url: &Url, access: &AccessToken) -> Fate {
        let answer = self.server.ask(prepared, url, Ask::Revoke { access });
        match answer.map(|answer| revocation::judge(&answer, &prepared.provider).0) {
            Ok(Verdict::Revoked) => Fate::Revoked,
            Ok(Verdict::Dead) => Fate::Dead,
            Ok(Verdict::Refused | Verdict::Client | Verdict::Later | Verdict::Unknown) | Err(_) => Fate::Left,
        }
    }
}

/// Whether the provider has said that the refresh token is dead. One that was given up may be alive.
fn is_ended_by_the_provider(record: &Record) -> bool {
    record.is_rejected() && record.rejected.as_ref().is_some_and(|r| !r.is_presumed())
}

/// What is known of the tokens when they are forgotten.
struct Parting {
    refresh: Fate,
    access: Option<Fate>,
    reason: Option<Failure>,
    revocation: Option<Revocation>,
    /// Until the ledger knows the token, no other profile may send it.
    _token_lock: Option<LockFile>,
}

impl Parting {
    /// The provider knows nothing of it; which does not matter to a token that it has ended itself.
    fn left(is_dead: bool, has_access: bool, reason: Failure) -> Self {
        let (refresh, reason) = if is_dead { (Fate::Dead, None) } else { (Fate::Left, Some(reason)) };
        Self { refresh, access: has_access.then_some(Fate::Left), reason, revocation: None, _token_lock: None }
    }

    /// What cannot be read can only be forgotten.
    fn unread(outcome: Outcome) -> Self {
        Self::left(false, false, reason_of(outcome))
    }
}
