//! Provides an access token for a caller: the stored one if it lives long enough, else a refreshed one, else any that
//! is still valid.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{Moment, Timestamp};
use crate::credential::freshness;
use crate::credential::freshness::{Demand, Validity};
use crate::credential::{Generation, Snapshot};
use crate::engine::status;
use crate::engine::{Engine, TrustJournal};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind, ProfileState};
use crate::profile::Profile;
use crate::store::ProfileView;
use crate::store::journal::Journal;
use crate::store::journal::block::Cause;
use crate::store::keyring::KeyringService;

/// An access token for a caller.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenOutput {
    pub access_token: String,
    pub token_type: String,
    pub expires_at: Option<Timestamp>,
    /// The server did not tell `expires_at`, or the token was imported and its age or its end is not known.
    #[serde(default)]
    pub assumed: bool,
    pub scope: Option<String>,
    pub generation: Generation,
    /// The newest ID token of the account, if there is one. It may have expired long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_token: Option<String>,
}

impl std::fmt::Debug for TokenOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(generation {})", self.generation)
    }
}

/// The response to a request for a token.
#[derive(Debug)]
pub struct TokenResult {
    pub token: Option<TokenOutput>,
    pub outcome: Outcome,
    /// How long the token lives.
    pub validity: Option<Validity>,
    /// Warnings for a caller that got a token.
    pub warnings: Vec<String>,
}

impl Engine {
    /// A token valid for `min_valid`, waiting for a refresh for at most `limit`.
    pub fn access_token(
        &self,
        profile: &Arc<Profile>,
        min_valid: Duration,
        limit: Duration,
        on_long_wait: &dyn Fn(),
    ) -> TokenResult {
        self.access_token_seen(profile, min_valid, None, limit, on_long_wait)
    }

    /// As [`Engine::access_token`], by what the caller has seen of the profile just now.
    pub fn access_token_seen(
        &self,
        profile: &Arc<Profile>,
        min_valid: Duration,
        view: Option<ProfileView>,
        limit: Duration,
        on_long_wait: &dyn Fn(),
    ) -> TokenResult {
        let demand = Demand::ValidFor(min_valid);
        let (outcome, view) = self.refresh_until_met(profile, demand, TrustJournal::Yes, view, limit, on_long_wait);
        let (is_journal_trusted, is_copied) = (outcome.kind == OutcomeKind::Fresh, is_copied(view.as_ref()));
        let obtained = self.token_from_store(profile, min_valid, outcome, view);
        if !(is_journal_trusted && (is_copied || obtained.outcome.is_persistent)) {
            return obtained;
        }
        // What the journal believes in cannot be opened, or is older than the keyring item. A flight mends it, or notes
        // that it cannot.
        let (outcome, _) = self.refresh_until_met(profile, demand, TrustJournal::No, None, limit, on_long_wait);
        self.token_from_store(profile, min_valid, outcome, None)
    }

    /// The async form of [`Engine::access_token`].
    pub async fn access_token_async(
        &self,
        profile: &Arc<Profile>,
        min_valid: Duration,
        limit: Duration,
    ) -> TokenResult {
        let meet = async |trust| {
            let meet = self.refresh_until_met_async(profile, Demand::ValidFor(min_valid), trust);
            tokio::time::timeout(limit, meet).await.unwrap_or_else(|_| (self.still_running(profile), None))
        };
        let (outcome, view) = meet(TrustJournal::Yes).await;
        let (is_journal_trusted, is_copied) = (outcome.kind == OutcomeKind::Fresh, is_copied(view.as_ref()));
        let obtained = self.token_from_store(profile, min_valid, outcome, view);
        if !(is_journal_trusted && (is_copied || obtained.outcome.is_persistent)) {
            return obtained;
        }
        let (outcome, _) = meet(TrustJournal::No).await;
        self.token_from_store(profile, min_valid, outcome, None)
    }

    /// The token that can be given out now, if any: after [`Engine::drain`], what a flight brought for a caller whose
    /// time was up.
    pub fn access_token_now(&self, profile: &Profile, min_valid: Duration) -> Option<TokenResult> {
        let obtained = self.token_from_store(profile, min_valid, Outcome::new(OutcomeKind::Fresh), None);
        obtained.token.is_some().then_some(obtained)
    }

    /// The stored token that can be given out, if its generation is newer than `seen`. Starts no refresh.
    pub fn access_token_after(&self, profile: &Profile, seen: Generation, min_valid: Duration) -> Option<TokenResult> {
        let journal = self.store().peek(&profile.name).ok().flatten();
        journal.filter(|journal| journal.generation > seen)?;
        let stored = self.access_token_now(profile, min_valid)?;
        Some(stored).filter(|found| found.token.as_ref().is_some_and(|token| token.generation > seen))
    }

    /// `view`: what the outcome was decided by, where no flight has changed it since.
    pub(super) fn token_from_store(
        &self,
        profile: &Profile,
        min_valid: Duration,
        outcome: Outcome,
        view: Option<ProfileView>,
    ) -> TokenResult {
        // A view can fail where a snapshot does not need what failed, as the ledger.
        let mut view = view.map_or_else(|| self.store().view(&profile.name), Ok).ok();
        let without_token = |outcome| TokenResult { token: None, outcome, validity: None, warnings: Vec::new() };
        let snapshot = match self.snapshot_noted(profile, view.as_mut(), &outcome) {
            Ok(snapshot) => snapshot,
            Err(ended) => return without_token(ended),
        };
        if let Some(failure) = self.other_account(profile, view.as_ref()) {
            return without_token(Outcome { kind: OutcomeKind::ConfigError, ..outcome }.with_error(failure));
        }
        let now = self.clock().now();
        let found = snapshot.and_then(|s| s.grant.validity.clone().map(|validity| (s, validity)));
        let usable = found.filter(|(_, validity)| is_usable(validity, &outcome, &now));
        let Some((snapshot, validity)) = usable else {
            return without_token(unusable_outcome(profile, outcome));
        };
        let left = validity.remaining(&now);
        let mut warnings = outcome.warnings.clone();
        let trouble = match &outcome.error {
            Some(error) => Some(format!("not refreshed: {}", told(outcome.kind, error))),
            None => self.refresh_trouble(profile, view.and_then(|view| view.journal).as_ref()),
        };
        warnings.extend(trouble);
        if validity.is_unproven() {
            warnings.push(
                "that the access token is still valid is assumed: it was imported, and its age or its end is not known"
                    .into(),
            );
        } else if left < min_valid {
            let is_reachable = freshness::is_reachable(min_valid, &validity);
            let reach = if is_reachable { "" } else { "; no token of this provider lasts that long" };
            let (left, wanted) = (left.as_secs(), min_valid.as_secs());
            warnings.push(format!("the token is valid for {left} s, less than the requested {wanted} s{reach}"));
        }
        let expires_at = snapshot.expires_at();
        let token = snapshot.grant.access.as_ref().map(|access| TokenOutput {
            access_token: access.expose().to_owned(),
            token_type: snapshot.grant.token_type.clone(),
            expires_at,
            assumed: validity.assumed,
            scope: snapshot.grant.scope.clone(),
            generation: snapshot.generation,
            id_token: snapshot.grant.id_token.as_ref().map(|jwt| jwt.expose().to_owned()),
        });
        TokenResult { token, outcome, validity: Some(validity), warnings }
    }
}

impl Engine {
    /// What is stored, opened; it is noted for `status` whether the key for that could be had. `outcome`: how the flight before
    /// ended, if there was one.
    fn snapshot_noted(
        &self,
        profile: &Profile,
        view: Option<&mut ProfileView>,
        outcome: &Outcome,
    ) -> Result<Option<Snapshot>, Outcome> {
        let opened = match &view {
            Some(view) => self.store().snapshot_of(&profile.name, view),
            None => self.store().snapshot(&profile.name),
        };
        match opened {
            Ok(snapshot) => {
                if snapshot.is_some() {
                    self.note_key(profile, view, None);
                }
                Ok(snapshot)
            }
            Err(_) if outcome.error.is_some() => Err(outcome.clone()),
            Err(e) => {
                let ended = super::with_names(e.key_outcome(), self.store(), &profile.name);
                self.note_key(profile, view, Some(&ended));
                Err(ended)
            }
        }
    }

    /// Notes for `status` that the key could not be had (`ended`), or that it could. The caller is told the same either way.
    fn note_key(&self, profile: &Profile, view: Option<&mut ProfileView>, ended: Option<&Outcome>) {
        let Some(view) = view else { return };
        if let Err(error) = self.store().note_key(view, ended) {
            tracing::warn!(event = "store.unavailable", profile = %profile.name, %error, "cannot note in the journal whether the sealing key is there");
        }
        if let Some(journal) = view.journal.as_mut().filter(|_| ended.is_none()) {
            journal.clear_key_block();
        }
    }

    /// Why no token of this profile is handed out: the newest belongs to another account than the one before.
    fn other_account(&self, profile: &Profile, view: Option<&ProfileView>) -> Option<Failure> {
        let peeked;
        let journal = match view {
            Some(view) => view.journal.as_ref(),
            None => {
                peeked = self.store().peek(&profile.name).ok().flatten();
                peeked.as_ref()
            }
        };
        journal?.block(Cause::OtherAccount).map(|block| block.failure.clone())
    }

    /// What a caller must know of the next refresh, although the token is still valid, and what to do.
    fn refresh_trouble(&self, profile: &Profile, journal: Option<&Journal>) -> Option<String> {
        let journal = Ok(Some(journal?.clone()));
        let status = status::status_of(self.store(), &journal, Ok(profile), &self.clock().now());
        let error = status.error.filter(|_| !status.is_in_flight)?;
        let service = self.store().keyring().map(KeyringService::service);
        let error = error.with_names(profile.name.as_str(), service).in_one_line();
        match status.state {
            ProfileState::NeedsLogin | ProfileState::ConfigError | ProfileState::StoreUnavailable => {
                Some(format!("refresh is failing: {error}"))
            }
            ProfileState::InDoubt => Some(format!("refresh is in doubt: {error}")),
            // The retry or the next run settles it.
            ProfileState::Fresh
            | ProfileState::Due
            | ProfileState::Expired
            | ProfileState::Deferred
            | ProfileState::NoCredential => None,
        }
    }
}

/// An error, with what to do about it if that is for a person to do.
fn told(outcome: OutcomeKind, error: &Failure) -> String {
    match outcome {
        OutcomeKind::NeedsLogin | OutcomeKind::ConfigError => error.in_one_line(),
        OutcomeKind::Fresh
        | OutcomeKind::Refreshed
        | OutcomeKind::Deferred
        | OutcomeKind::InDoubt
        | OutcomeKind::StoreUnavailable => error.message.clone(),
    }
}

/// Whether the journal may be an older one that was restored.
fn is_copied(view: Option<&ProfileView>) -> bool {
    view.is_some_and(ProfileView::is_copied)
}

/// Whether a token may be handed out. One that may live, though nothing shows it, is handed out only if the refresh that
/// would have replaced it failed for a reason that passes.
fn is_usable(validity: &Validity, refreshed: &Outcome, now: &Moment) -> bool {
    let may_pass = match refreshed.kind {
        OutcomeKind::Deferred | OutcomeKind::InDoubt | OutcomeKind::StoreUnavailable => true,
        OutcomeKind::Fresh | OutcomeKind::Refreshed | OutcomeKind::NeedsLogin | OutcomeKind::ConfigError => false,
    };
    !validity.remaining(now).is_zero() && (may_pass || !validity.is_unproven())
}

/// The outcome of a refresh that succeeded but left no usable token.
fn unusable_outcome(profile: &Profile, outcome: Outcome) -> Outcome {
    if outcome.error.is_some() {
        return outcome;
    }
    let failure = Failure::new(ErrorKind::Expired, format!("the access token of {} has expired", profile.name))
        .with_hint(format!("keepalive refresh -p {}", profile.name));
    Outcome { kind: OutcomeKind::Deferred, ..outcome }.with_error(failure)
}
