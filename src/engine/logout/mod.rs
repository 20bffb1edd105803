//! A logout revokes the credential at its provider if possible, and then forgets it here.
//!
//! It is no flight, but it takes the locks of one, so that nothing is revoked that a refresh is about to replace.
//! Wherever a run is cut off, the profile is still signed in, in doubt if its token had been sent, or forgotten; the
//! next logout completes it.

mod messages;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use url::Url;

use crate::clock::Clock;
use crate::credential::Generation;
use crate::credential::secret::AccessToken;
use crate::engine::flight::cannot_lock;
pub use crate::engine::logout::messages::nothing_to_sign_out;
use crate::engine::logout::messages::{
    check_binding, completed_result, failure_of, partial_outcome, unsent_outcome, with_forget_hint,
};
use crate::guard::Permit;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::{Profile, ProfileName};
use crate::provider::classify::retry_after;
use crate::provider::request_encoding::AuthServerRequest;
use crate::provider::revocation::{self, RevocationResult, RevocationServer};
use crate::provider::{BeforeSend, BeforeSendError, ExchangeResult, PreparedProvider};
use crate::store::journal::{Journal, Revocation};
use crate::store::{
    LoadedCredential, LockedProfile, PROFILE_LOCK_WAIT, PrefetchedKey, ProfileView, Store, StoreError, TokenLock,
};
use crate::sys::lockfile::{LockFile, LockWait};

/// What happened to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFate {
    Revoked,
    /// The provider had already ended it.
    AlreadyInvalid,
    /// The provider was not told, so any copy of the token can still be used.
    NotRevoked,
}

impl TokenFate {
    /// The word of the JSON and of the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::AlreadyInvalid => "dead",
            Self::NotRevoked => "left",
        }
    }
}

/// The result of a logout. The credential is forgotten here.
#[derive(Debug)]
pub struct LogoutResult {
    pub generation: Generation,
    pub refresh: TokenFate,
    /// `None`: there was no live one.
    pub access: Option<TokenFate>,
    /// Why the refresh token was not revoked.
    pub reason: Option<Failure>,
    pub warnings: Vec<String>,
    /// The credential had been forgotten before, and the remains of an interrupted logout are gone now.
    pub completes_earlier_logout: bool,
}

/// How a token can be revoked.
#[derive(Debug)]
pub enum RevocationRoute {
    Endpoint {
        prepared: PreparedProvider,
        url: Url,
    },
    /// The provider has no revocation.
    Unsupported(Failure),
    /// It cannot be done now: the configuration is wrong, or the endpoint cannot be discovered.
    Blocked(Outcome),
}

/// Progress, for messages to the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogoutProgress {
    /// A refresh is under way and is waited for. Nothing was done yet.
    WaitingForLock,
    /// From now on an interruption leaves something to be completed.
    Locked,
}

/// The parts that a logout needs.
pub struct LogoutRequest<'a> {
    pub store: &'a Store,
    pub server: &'a dyn RevocationServer,
    pub clock: Arc<dyn Clock>,
    pub name: &'a ProfileName,
    /// Forget the credential whatever stands in the way of its revocation.
    pub must_forget: bool,
    /// Set when the run is told to stop: nothing is sent any more.
    pub stop: Arc<AtomicBool>,
}

/// Finds out how a profile's tokens are revoked. It may run commands and use the network, so it comes before any lock.
pub fn find_revocation_route(server: &dyn RevocationServer, profile: &Profile) -> RevocationRoute {
    let provider = &profile.provider;
    let url = match server.revocation_endpoint(provider) {
        Ok(Some(url)) => url,
        Ok(None) => {
            let message = format!("{} has no revocation endpoint", provider.name);
            return RevocationRoute::Unsupported(Failure::new(ErrorKind::NoRevocationEndpoint, message));
        }
        Err(error) => return RevocationRoute::Blocked(error.into()),
    };
    match server.prepare(provider, profile.name.as_str()) {
        Ok(prepared) => RevocationRoute::Endpoint { prepared, url },
        Err(error) => RevocationRoute::Blocked(error.into()),
    }
}

impl LogoutRequest<'_> {
    /// Runs the logout. `Err`: nothing was forgotten; the error says why.
    pub fn run(&self, route: RevocationRoute, on_progress: &dyn Fn(LogoutProgress)) -> Result<LogoutResult, Outcome> {
        let mut result = self.run_locked(route, on_progress)?;
        let (refresh_token, access_token) = (result.refresh.as_str(), result.access.map(TokenFate::as_str));
        tracing::info!(event = "logout", profile = %self.name, refresh_token, access_token, "logged out");
        // Not under the profile's lock: the key's own lock comes first.
        if let Err(e) = self.store.keys().delete_unused() {
            result.warnings.push(format!("the sealing key is still in the keyring: {e}"));
        }
        Ok(result)
    }

    fn run_locked(
        &self,
        route: RevocationRoute,
        on_progress: &dyn Fn(LogoutProgress),
    ) -> Result<LogoutResult, Outcome> {
        // It may come from a command, which is not waited for under a lock.
        let seen = self.store.view(self.name).ok();
        let key = self.store.keys().prefetch(self.name, seen.as_ref().and_then(ProfileView::key_id));
        let path = self.store.create_lock_file(self.name)?;
        let is_stopped = || self.stop.load(Ordering::SeqCst);
        let wait = LockWait { limit: PROFILE_LOCK_WAIT, is_stopped: &is_stopped };
        let lock =
            match LockFile::try_acquire(&path).map_err(|e| cannot_lock(self.store, self.name, &path, e.into()))? {
                Some(lock) => lock,
                None => {
                    on_progress(LogoutProgress::WaitingForLock);
                    LockFile::acquire_within(&path, wait).map_err(|e| cannot_lock(self.store, self.name, &path, e))?
                }
            };
        on_progress(LogoutProgress::Locked);
        let permit = Permit::from_lock(self.name, &lock);
        let mut locked = match self.must_forget {
            true => self.store.open_discarding_damage(permit, |key_id| {
                self.store.keys().recheck_prefetched(self.name, &key, key_id).ok()
            })?,
            false => self.store.open_profile(permit)?,
        };
        locked.check_keyring().map_err(StoreError::from)?;
        if locked.journal.is_tombstone {
            return self.complete_earlier_logout(&mut locked);
        }
        let revocation_outcome = match self.load_credential(&mut locked, &key) {
            Ok(Some(loaded)) => self.revoke_or_keep(&mut locked, loaded, route)?,
            Ok(None) => return Err(nothing_to_sign_out(self.name)),
            Err(outcome) if self.must_forget => RevocationOutcome::unreadable(outcome),
            Err(outcome) => return Err(with_forget_hint(self.name, outcome)),
        };
        let RevocationOutcome { refresh, access, reason, revocation, _token_lock } = revocation_outcome;
        let warnings =
            locked.forget(revocation).map_err(|e| partial_outcome(&locked.journal, Some((refresh, access)), &e))?;
        Ok(LogoutResult {
            generation: locked.journal.generation,
            refresh,
            access,
            reason,
            warnings,
            completes_earlier_logout: false,
        })
    }

    /// Completes a logout that was cut off after its tombstone.
    fn complete_earlier_logout(&self, locked: &mut LockedProfile<'_, '_>) -> Result<LogoutResult, Outcome> {
        if !self.store.has_remains(self.name)? {
            // The key may have been left.
            return match self.store.keys().has_unused()? {
                true => Ok(completed_result(&locked.journal, Vec::new())),
                false => Err(nothing_to_sign_out(self.name)),
            };
        }
        let warnings = locked.remove_remains().map_err(|e| partial_outcome(&locked.journal, None, &e))?;
        Ok(completed_result(&locked.journal, warnings))
    }

    /// The newest credential, including a response that a killed run left sealed.
    fn load_credential<'l>(
        &self,
        locked: &mut LockedProfile<'_, 'l>,
        key: &PrefetchedKey,
    ) -> Result<Option<LoadedCredential<'l>>, Outcome> {
        let key = self.store.keys().recheck_prefetched(self.name, key, locked.sealed_key_id())?;
        locked.promote_pending_grant(&key)?;
        Ok(locked.load(&key, false)?)
    }

    /// Revokes what can be revoked, under the token's lock. `Err`: nothing may be forgotten.
    fn revoke_or_keep(
        &self,
        locked: &mut LockedProfile<'_, '_>,
        loaded: LoadedCredential<'_>,
        route: RevocationRoute,
    ) -> Result<RevocationOutcome, Outcome> {
        let is_stopped = || self.stop.load(Ordering::SeqCst);
        let wait = LockWait { limit: PROFILE_LOCK_WAIT, is_stopped: &is_stopped };
        let token_lock = self.store.lock_token(&loaded.fingerprint, wait)?;
        let now = self.clock.now();
        let is_alive = loaded.locked_credential.credential().validity().is_some_and(|v| !v.remaining(&now).is_zero());
        let access = loaded.locked_credential.credential().grant.access.clone().filter(|_| is_alive);
        let is_dead = is_rejected_by_provider(&locked.journal);
        let untold = |reason| RevocationOutcome::not_revoked(is_dead, access.is_some(), reason);
        // A rejection in the journal may only have been presumed.
        let revocation_outcome = if !locked.journal.is_rejected() && locked.is_consumed(&loaded.fingerprint)? {
            let spent = "an older copy was restored, whose refresh token has been consumed";
            untold(Failure::new(ErrorKind::StaleCredential, spent))
        } else {
            match route {
                RevocationRoute::Unsupported(reason) => untold(reason),
                // A dead token needs no revocation.
                RevocationRoute::Blocked(outcome) if is_dead => untold(failure_of(outcome)),
                RevocationRoute::Blocked(outcome) => self.skip_revocation_if_forgetting(outcome, untold)?,
                RevocationRoute::Endpoint { prepared, url } => {
                    match self.revoke(locked, loaded, access.as_ref(), &prepared, &url) {
                        Ok(revocation_outcome) => revocation_outcome,
                        Err(outcome) if is_dead => untold(failure_of(outcome)),
                        Err(outcome) => self.skip_revocation_if_forgetting(outcome, untold)?,
                    }
                }
            }
        };
        Ok(RevocationOutcome { _token_lock: Some(token_lock), ..revocation_outcome })
    }

    /// Sends the refresh token first and, if there was a response, then the access token.
    fn revoke(
        &self,
        locked: &mut LockedProfile<'_, '_>,
        loaded: LoadedCredential<'_>,
        access: Option<&AccessToken>,
        prepared: &PreparedProvider,
        url: &Url,
    ) -> Result<RevocationOutcome, Outcome> {
        check_binding(&loaded.locked_credential.credential().binding, prepared, url)
            .map_err(|failure| Outcome::new(OutcomeKind::ConfigError).with_error(failure))?;
        let is_dead = is_rejected_by_provider(&locked.journal);
        let fingerprint = loaded.fingerprint.clone();
        let (token_fate, why) = self.revoke_refresh_token(locked, loaded, prepared, url)?;
        let access = access.map(|access| self.revoke_access_token(prepared, url, access));
        Ok(match token_fate {
            TokenFate::NotRevoked => {
                RevocationOutcome { access, ..RevocationOutcome::not_revoked(is_dead, false, why) }
            }
            TokenFate::Revoked | TokenFate::AlreadyInvalid => {
                let at = self.clock.now().wall;
                let revocation = Some(Revocation { fingerprint, at, is_confirmed: true });
                RevocationOutcome { refresh: token_fate, access, reason: None, revocation, _token_lock: None }
            }
        })
    }

    /// The error of the revocation, which ends this logout unless the person wants to forget all the same.
    fn skip_revocation_if_forgetting(
        &self,
        outcome: Outcome,
        untold: impl Fn(Failure) -> RevocationOutcome,
    ) -> Result<RevocationOutcome, Outcome> {
        // After an interruption nothing more is done.
        if self.must_forget && !self.stop.load(Ordering::SeqCst) {
            return Ok(untold(failure_of(outcome)));
        }
        Err(with_forget_hint(self.name, outcome))
    }

    /// Sends the refresh token to be revoked. The journal has a note before it can be sent, and keeps it until the
    /// outcome is known. Returns what happened to the token, and the server's message.
    fn revoke_refresh_token(
        &self,
        locked: &mut LockedProfile<'_, '_>,
        loaded: LoadedCredential<'_>,
        prepared: &PreparedProvider,
        url: &Url,
    ) -> Result<(TokenFate, Failure), Outcome> {
        let mark =
            Revocation { fingerprint: loaded.fingerprint.clone(), at: self.clock.now().wall, is_confirmed: false };
        let was = locked.journal.revocation.clone();
        let gate = self.revocation_gate(locked, &loaded, mark.clone());
        let provider = &prepared.provider;
        let (verdict, why, retry) = match self.server.revoke(prepared, url, loaded.locked_credential, gate) {
            ExchangeResult::NotSent { may_have_intent: may_have_mark, why, .. } => {
                // The journal in memory lacks the note, so saving it erases the one on disk.
                if may_have_mark {
                    locked.save_journal()?;
                }
                return Err(unsent_outcome(why, url));
            }
            ExchangeResult::ResponseLost { why, .. } => (RevocationResult::Unknown, why, None),
            ExchangeResult::Responded { answer: response, .. } => {
                let (verdict, denied) = revocation::classify_revocation(&response, provider);
                let code = denied.map_or(String::new(), |d| format!(" {}", d.code));
                let wait = response.retry_after.as_deref().and_then(|h| retry_after(h, self.clock.now().wall));
                (verdict, format!("{} returned {}{code}", provider.name, response.status), wait)
            }
        };
        locked.journal.revocation = if verdict == RevocationResult::Unknown { Some(mark) } else { was };
        let (kind, failure) = match verdict {
            RevocationResult::Revoked => return Ok((TokenFate::Revoked, Failure::new(ErrorKind::Revoked, why))),
            RevocationResult::AlreadyInvalid => {
                return Ok((TokenFate::AlreadyInvalid, Failure::new(ErrorKind::Revoked, why)));
            }
            RevocationResult::Unsupported => {
                return Ok((TokenFate::NotRevoked, Failure::new(ErrorKind::RevocationRefused, why)));
            }
            RevocationResult::ClientRejected => {
                let keys = "client_id, client_auth, client_secret and revocation_endpoint";
                let hint = format!("check {keys} in [provider.{}]", provider.name);
                (OutcomeKind::ConfigError, Failure::new(ErrorKind::ClientRefused, why).with_hint(hint))
            }
            RevocationResult::RetryLater => (OutcomeKind::Deferred, Failure::new(ErrorKind::Throttled, why)),
            RevocationResult::Unknown => {
                let text = format!("the refresh token may or may not be revoked: {why}");
                (OutcomeKind::Deferred, Failure::new(ErrorKind::RevocationInDoubt, text))
            }
        };
        let retry_at = retry.map(|wait| self.clock.now().wall.plus(wait));
        let outcome = Outcome { retry_at, ..Outcome::new(kind).with_error(failure) };
        locked.save_journal()?;
        Err(outcome)
    }

    fn revocation_gate(
        &self,
        locked: &LockedProfile<'_, '_>,
        loaded: &LoadedCredential<'_>,
        mark: Revocation,
    ) -> BeforeSend {
        let write = locked.revocation_writer(mark);
        let stop = Arc::clone(&self.stop);
        let is_intact = loaded.locked_credential.permit().lock_checker();
        Box::new(move || {
            if stop.load(Ordering::SeqCst) {
                return Err(BeforeSendError::Refused("keepalive is stopping"));
            }
            if !is_intact() {
                return Err(BeforeSendError::Refused("the lock file was replaced by another program"));
            }
            write().map_err(|e| BeforeSendError::Journal(e.to_string()))
        })
    }

    fn revoke_access_token(&self, prepared: &PreparedProvider, url: &Url, access: &AccessToken) -> TokenFate {
        let response = self.server.request(prepared, url, AuthServerRequest::RevokeAccessToken { access });
        match response.map(|response| revocation::classify_revocation(&response, &prepared.provider).0) {
            Ok(RevocationResult::Revoked) => TokenFate::Revoked,
            Ok(RevocationResult::AlreadyInvalid) => TokenFate::AlreadyInvalid,
            Ok(
                RevocationResult::Unsupported
                | RevocationResult::ClientRejected
                | RevocationResult::RetryLater
                | RevocationResult::Unknown,
            )
            | Err(_) => TokenFate::NotRevoked,
        }
    }
}

/// Whether the provider has said that the refresh token is invalid. One that was given up may be alive.
fn is_rejected_by_provider(journal: &Journal) -> bool {
    journal.is_rejected() && journal.rejected.as_ref().is_some_and(|r| !r.is_presumed())
}

/// What is known of the tokens when they are forgotten.
struct RevocationOutcome {
    refresh: TokenFate,
    access: Option<TokenFate>,
    reason: Option<Failure>,
    revocation: Option<Revocation>,
    /// The lock is held until the ledger has the token, so that no other profile sends it.
    _token_lock: Option<TokenLock>,
}

impl RevocationOutcome {
    /// The provider was not told, which does not matter for a token that it has ended itself.
    fn not_revoked(is_dead: bool, has_access: bool, reason: Failure) -> Self {
        let (refresh, reason) =
            if is_dead { (TokenFate::AlreadyInvalid, None) } else { (TokenFate::NotRevoked, Some(reason)) };
        Self {
            refresh,
            access: has_access.then_some(TokenFate::NotRevoked),
            reason,
            revocation: None,
            _token_lock: None,
        }
    }

    /// A credential that cannot be read can only be forgotten.
    fn unreadable(outcome: Outcome) -> Self {
        Self::not_revoked(false, false, failure_of(outcome))
    }
}
