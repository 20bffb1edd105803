//! One refresh, from the lock to the published token. The order of these steps is what keepalive guarantees.
//!
//! It runs on a thread of its own, from top to bottom, with nothing to await, so no caller can cancel it between two
//! steps. The step numbers are those of [`crate::protocol`], "The steps of a refresh".

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::credential::Generation;
use crate::credential::freshness;
use crate::credential::freshness::Demand;
use crate::credential::secret::Fingerprint;
use crate::engine::explain;
use crate::engine::refresh::admission::{Denied, admit};
use crate::engine::refresh::commit::{settle_exchange, settle_recovered};
use crate::engine::refresh::context::{Facts, RefreshContext};
use crate::engine::refresh::errors;
use crate::engine::refresh::retry_policy::SendKind;
use crate::engine::refresh::seal_response::SentRefresh;
use crate::engine::status;
use crate::events;
use crate::guard::{Lease, LockedCredential};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind, Publication};
use crate::provider::{BeforeSend, BeforeSendError, ExchangeResult, NotSentReason, RawResponse};
use crate::store::journal::block::{Block, Cause};
use crate::store::journal::{Intent, Journal};
use crate::store::keys::sealing_key;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::tokens::reconcile::stale_credential;
use crate::store::{LoadedCredential, LockedProfile, PROFILE_LOCK_WAIT, StoreError, TokenLock};
use crate::sys::lockfile::LockWait;

/// The pauses before the tries of one flight. A failed connection costs nothing, because nothing was sent.
const QUICK_TRY_DELAYS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(300), Duration::from_millis(900)];

/// Runs the transaction: read again, recover, decide, send, seal, publish, commit.
pub fn run(ctx: &RefreshContext, lease: &Lease<Outcome>) -> Outcome {
    let mut locked = match ctx.store.open_profile(lease.permit()) {
        Ok(locked) => locked,
        Err(e) => return e.outcome(),
    };
    let outcome = refresh_under_lock(ctx, lease, &mut locked).unwrap_or_else(|ended| ended);
    if let Some(block) = Block::from_outcome(&outcome)
        && let Err(error) = locked.save_store_block(block)
    {
        tracing::warn!(event = "store.unavailable", profile = %ctx.profile.name, %error, "cannot record the error in the journal");
    }
    with_journal_fields(outcome, &locked.journal)
}

fn refresh_under_lock<'l>(
    ctx: &RefreshContext,
    lease: &'l Lease<Outcome>,
    locked: &mut LockedProfile<'_, 'l>,
) -> Result<Outcome, Outcome> {
    // Step 1: the journal was read again under the lock. The outcome of another process may be the answer.
    if let Some(shared) = ctx.outcome_of_earlier_flight(&locked.journal) {
        events::flight_shared(&ctx.profile.name, &shared);
        return Ok(shared);
    }
    if locked.journal.is_tombstone {
        return Err(errors::no_credential(&ctx.profile.name));
    }
    let key = ctx.store.keys().recheck_prefetched(&ctx.profile.name, &ctx.prefetched_key, locked.sealed_key_id())?;
    ctx.mark_client(&key);
    // Recovery: a response that arrived for a run that died before it could settle it.
    if let Some(pending) = locked.unsettled_response(&key)? {
        events::response_recovered(&ctx.profile.name, pending.generation);
        let refusal = settle_recovered(ctx, locked, &key, pending)?;
        if let Some(ended) = refusal.or_else(|| ctx.outcome_of_earlier_flight(&locked.journal)) {
            return Ok(ended);
        }
    }
    let Some(mut loaded) = locked.load(&key, ctx.is_daemon)? else {
        return Err(errors::no_credential(&ctx.profile.name));
    };
    let mut warnings = std::mem::take(&mut loaded.warnings);
    publish_if_pending(locked, &loaded, &key, &mut warnings)?;
    if ctx.is_demand_met(&locked.journal) {
        explain::fresh(&ctx.profile, ctx.demand, &locked.journal);
        return Ok(with_warnings(Outcome::new(OutcomeKind::Fresh), warnings));
    }
    check_keyring_for_open_intent(&locked.journal, &loaded)?;
    let loaded = ctx.follow_tool(locked, &key, loaded, &mut warnings)?;
    ctx.check_fed_programs(locked, &key, &loaded.fingerprint)?;
    let facts = ctx.facts();
    forget_mended_rejection(&facts, locked, &loaded)?;
    let admitted = admit(&facts, &locked.journal, &loaded.locked_credential.credential().binding);
    let admitted = admitted.map_err(|denied| match denied {
        Denied::Ended(outcome) => outcome,
        Denied::GiveUp => errors::give_up_token(&facts, locked.journal.clone()).apply(ctx, locked, &key),
    });
    let send = explain::admission(&ctx.profile, admitted)?;
    note_before_send(&facts, &mut locked.journal);
    // Step 2: whatever could fail here, must fail now.
    let _token_lock = ctx.lock_token(&loaded.fingerprint)?;
    check_ledger(locked, &loaded.fingerprint, send)?;
    ctx.check_keyring(locked, &loaded)?;
    if !lease.has_waiters() {
        return Err(Outcome::new(OutcomeKind::Deferred)
            .with_error(Failure::new(ErrorKind::Busy, "no caller is waiting for this refresh any more")));
    }
    let outcome = send_and_settle(ctx, locked, &key, loaded, send)?;
    Ok(with_warnings(ctx.recheck_followed_store(locked, &key, outcome), warnings))
}

/// What is written with the intent.
fn note_before_send(facts: &Facts<'_>, journal: &mut Journal) {
    if facts.client_block(journal).is_none() {
        // The configuration has changed since.
        journal.clear_blocks(&[Cause::Client]);
    }
    if matches!(facts.demand, Demand::Rejected { .. }) {
        journal.note_suspicion(&facts.now);
    }
}

/// Rule 3: the ledger may know better. It tells a rejected token from one that was consumed since, if the journal is an
/// older copy.
fn check_ledger(locked: &LockedProfile<'_, '_>, token: &Fingerprint, send: SendKind) -> Result<(), Outcome> {
    let is_spent = match send {
        SendKind::Overruled => !locked.is_only_rejected(token)?,
        SendKind::First | SendKind::Retry | SendKind::Grace { .. } | SendKind::LastChance => {
            locked.is_consumed(token)?
        }
    };
    match is_spent {
        true => Err(Outcome::new(OutcomeKind::ConfigError).with_error(stale_credential(&locked.journal.profile))),
        false => Ok(()),
    }
}

/// Rule 22: a rejection ends when the client or the endpoint that it came from has been mended.
fn forget_mended_rejection(
    facts: &Facts<'_>,
    locked: &mut LockedProfile<'_, '_>,
    loaded: &LoadedCredential<'_>,
) -> Result<(), Outcome> {
    let belongs = &loaded.locked_credential.credential().binding;
    let is_elsewhere = status::other_server(belongs, &facts.prepared.binding()).is_some();
    if !is_elsewhere
        && locked.journal.is_rejection_of_another_client(facts.client_mark)
        && locked.is_only_rejected(&loaded.fingerprint)?
    {
        locked.clear_marks(&loaded.fingerprint)?;
    }
    Ok(())
}

/// Steps 3 to 9, with quick retries as long as nothing was sent.
fn send_and_settle<'l>(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, 'l>,
    key: &Arc<SealingKey>,
    loaded: LoadedCredential<'l>,
    kind: SendKind,
) -> Result<Outcome, Outcome> {
    let mut held = loaded.locked_credential;
    let mut last = NotSentReason::Network(String::new());
    for pause in QUICK_TRY_DELAYS {
        #[expect(
            clippy::disallowed_methods,
            reason = "a second at most in all, on a thread of its own; a stop ends the tries"
        )]
        std::thread::sleep(pause);
        let space = locked.check_names().and_then(|()| locked.reserve_response_space());
        let space = space.map_err(|e| ctx.store.with_room_hint(&ctx.profile.name, e.outcome()))?;
        let intent = ctx.new_intent(&locked.journal, &held, loaded.fingerprint.clone(), kind);
        let gate = ctx.gate(locked, key, &held, &intent, kind);
        let result = ctx.endpoint.exchange(&ctx.prepared, held, gate);
        explain::exchange(&ctx.profile, &result);
        match result {
            ExchangeResult::NotSent { held: back, may_have_intent, why, answer: response } => {
                // The journal in memory lacks this intent, so saving it erases the one on disk. If that fails as the
                // intent did, the error of the gate is reported.
                if may_have_intent
                    && let Err(e) = locked.save_journal()
                    && !matches!(why, NotSentReason::BeforeSend(_))
                {
                    return Err(e.outcome());
                }
                held = back;
                if let (NotSentReason::EarlyResponse(_), Some(response)) = (&why, &response) {
                    let settlement = errors::settle_early_response(&ctx.facts(), locked.journal.clone(), response);
                    return Ok(settlement.apply(ctx, locked, key));
                }
                let is_final = matches!(why, NotSentReason::BeforeSend(_)) || ctx.is_stopping();
                last = why;
                if is_final {
                    break;
                }
            }
            ExchangeResult::Responded { sent, predecessor: spent, answer: response } => {
                let sent = SentRefresh { intent, refresh_token: sent, spent, response };
                return Ok(settle_exchange(ctx, locked, key, space, sent, None));
            }
            ExchangeResult::ResponseLost { sent, predecessor: spent, partial, why } => {
                let response = partial.unwrap_or_else(RawResponse::empty);
                let sent = SentRefresh { intent, refresh_token: sent, spent, response };
                return Ok(settle_exchange(ctx, locked, key, space, sent, Some(&why)));
            }
        }
    }
    Err(match last {
        NotSentReason::BeforeSend(why) => ctx.store.with_room_hint(&ctx.profile.name, errors::withheld(why)),
        NotSentReason::Network(reason) | NotSentReason::EarlyResponse(reason) => {
            errors::settle_unreachable(&ctx.facts(), locked.journal.clone(), &reason).apply(ctx, locked, key)
        }
    })
}

/// An attempt whose end was not recorded may have put its response into the keyring alone, when no disk took it. While
/// the keyring is away, its token is not sent again.
fn check_keyring_for_open_intent(journal: &Journal, loaded: &LoadedCredential<'_>) -> Result<(), Outcome> {
    let is_open_ended = journal.open_intent().is_some_and(|intent| intent.gave_up_at.is_none());
    match &loaded.keyring_error {
        Some(error) if is_open_ended => Err(crate::store::StoreError::from(error.clone()).outcome()),
        Some(_) | None => Ok(()),
    }
}

/// Step 8 of an earlier run that could not write the keyring.
fn publish_if_pending(
    locked: &mut LockedProfile<'_, '_>,
    loaded: &LoadedCredential<'_>,
    key: &SealingKey,
    warnings: &mut Vec<String>,
) -> Result<(), Outcome> {
    if locked.journal.publication != Publication::PublishPending || loaded.keyring_error.is_some() {
        return Ok(());
    }
    if let Err(e) = locked.publish(loaded.locked_credential.credential(), key) {
        warnings.push(format!("the newest token is not in the keyring yet: {e}"));
    }
    locked.save_journal()?;
    Ok(())
}

impl RefreshContext {
    /// Whether the journal satisfies the demand.
    pub(in crate::engine) fn is_demand_met(&self, journal: &Journal) -> bool {
        status::meets_demand(journal, self.demand, &self.profile, &self.now())
    }

    /// Rule 26: the outcome of the flight that this one waited for, if it satisfies the demand.
    fn outcome_of_earlier_flight(&self, journal: &Journal) -> Option<Outcome> {
        if journal.generation > self.seen.generation && self.is_demand_met(journal) {
            return Some(Outcome::new(OutcomeKind::Refreshed).as_follower());
        }
        let attempt = journal.last_attempt.as_ref().filter(|_| journal.sequence > self.seen.sequence)?;
        if attempt.outcome == OutcomeKind::Refreshed {
            return None;
        }
        let (retry_at, error) = (attempt.retry_at, attempt.error.clone());
        Some(Outcome { retry_at, error, ..Outcome::new(attempt.outcome).as_follower() })
    }

    /// Rule 8: the keyring must be able to take the new token, unless a daemon has waited for it long enough.
    fn check_keyring(&self, locked: &LockedProfile<'_, '_>, loaded: &LoadedCredential<'_>) -> Result<(), Outcome> {
        let error = loaded.keyring_error.clone().or_else(|| locked.check_keyring().err());
        let Some(error) = error else { return Ok(()) };
        let validity = loaded.locked_credential.credential().validity();
        let is_urgent = validity.is_none_or(|v| v.remaining(&self.now()) <= v.margin(self.profile.margin) / 2);
        if self.is_daemon && is_urgent {
            return Ok(());
        }
        Err(crate::store::StoreError::from(error).outcome())
    }

    /// The lock of the token may be held by a profile of another name, in any process, even a stopped one. So the place at
    /// the provider is given away meanwhile, and the wait has an end: nothing has been sent.
    fn lock_token(&self, token: &Fingerprint) -> Result<TokenLock, StoreError> {
        match self.store.try_lock_token(token)? {
            Some(lock) => Ok(lock),
            None => {
                events::lock_wait(&self.profile.name, "another process has the lock of the token");
                let is_stopped = || self.is_stopping();
                let wait = LockWait { limit: PROFILE_LOCK_WAIT, is_stopped: &is_stopped };
                self.concurrency_permit.released_while(|| self.store.lock_token(token, wait))
            }
        }
    }

    /// The intent that the gate will write.
    fn new_intent(
        &self,
        journal: &Journal,
        held: &LockedCredential<'_>,
        fingerprint: Fingerprint,
        kind: SendKind,
    ) -> Intent {
        let now = self.now();
        let before = journal.open_intent();
        Intent {
            attempt_id: hex::encode(sealing_key::random_bytes::<8>()),
            generation: held.credential().generation,
            fingerprint,
            send_count: before.map_or(0, |i| i.send_count) + 1,
            first_sent: before.map_or_else(|| now.clone(), |i| i.first_sent.clone()),
            last_sent: now,
            gave_up_at: None,
            previous_gave_up_at: before.and_then(|i| i.gave_up_at.clone()),
            is_last_chance_used: kind == SendKind::LastChance || before.is_some_and(|i| i.is_last_chance_used),
            client_mark: self.client_mark.get().cloned(),
            is_reusable: !self.facts().punishes_reuse(),
            is_forced: kind == SendKind::Overruled,
        }
    }

    /// Step 4, run by the send gate: is the attempt still allowed now? Then the intent is written and synced.
    fn gate(
        &self,
        locked: &LockedProfile<'_, '_>,
        key: &Arc<SealingKey>,
        held: &LockedCredential<'_>,
        intent: &Intent,
        kind: SendKind,
    ) -> BeforeSend {
        let write = locked.intent_writer(intent.clone());
        let check_followed = self.followed_store_check(&locked.journal, key, intent.fingerprint.clone());
        let check_fed = self.fed_programs_check(key, intent.fingerprint.clone());
        let (stop, clock) = (Arc::clone(&self.stop), Arc::clone(&self.clock));
        let first_sent = intent.first_sent.clone();
        let is_intact = held.permit().lock_checker();
        Box::new(move || {
            if stop.load(Ordering::SeqCst) {
                return Err(BeforeSendError::Refused("keepalive is stopping"));
            }
            if !is_intact() {
                return Err(BeforeSendError::Refused("the lock file was replaced by another program"));
            }
            // This may take time, so it comes before the clock is read.
            check_followed()?;
            check_fed()?;
            let is_over = || match kind {
                SendKind::Grace { within } => {
                    clock.now().elapsed_since(&first_sent).is_none_or(|elapsed| elapsed >= within)
                }
                SendKind::First | SendKind::Retry | SendKind::LastChance | SendKind::Overruled => false,
            };
            if is_over() {
                return Err(BeforeSendError::Refused("the server's grace period is over"));
            }
            write().map_err(|e| BeforeSendError::Journal(e.to_string()))?;
            // The disk may have taken time.
            if is_over() {
                Err(BeforeSendError::RefusedAfterIntent("the server's grace period is over"))
            } else {
                Ok(())
            }
        })
    }
}

fn with_warnings(mut outcome: Outcome, warnings: Vec<String>) -> Outcome {
    outcome.warnings.splice(0..0, warnings);
    outcome
}

/// Adds the fields that the journal has.
pub fn with_journal_fields(mut outcome: Outcome, journal: &Journal) -> Outcome {
    if journal.has_credential() {
        outcome.generation = journal.generation.max(Generation::FIRST);
        outcome.expires_at = journal.validity.as_ref().map(freshness::Validity::expires_at);
    }
    outcome.publication = journal.publication;
    outcome
}
