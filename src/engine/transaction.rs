//! One refresh, from the lock to the published token: the order of these steps is the product.
//!
//! It runs on a thread of its own, from top to bottom, with nothing to await: no caller can cancel it between two steps.
//! The step numbers are those of the protocol, §1.2.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::doubt::{self, Resolution, SendKind};
use super::flightplan::Flightplan;
use super::judge::{self, Conclusion};
use super::refusal;
use super::standing::{self, MAX_PROBES};
use crate::clock::Moment;
use crate::credential::Generation;
use crate::credential::freshness;
use crate::credential::secret::Fingerprint;
use crate::guard::{Held, Lease};
use crate::outcome::{Failure, Outcome, OutcomeKind, Publication};
use crate::provider::{Exchange, Gate, GateError, RawAnswer, Unsent};
use crate::store::key::{self, SealingKey};
use crate::store::knowledge::spent;
use crate::store::record::{Intent, Record, Trouble};
use crate::store::{Loaded, StoreError, Vault};
use crate::sys::lockfile::LockFile;

/// The pauses before the tries within one flight: a connection that failed before anything was sent costs nothing.
const QUICK_TRIES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(300), Duration::from_millis(900)];

/// Flies: recheck, recover, decide, send, seal, publish, commit.
pub fn run(plan: &Flightplan, lease: &Lease<Outcome>) -> Outcome {
    let mut vault = match plan.store.vault(lease.permit()) {
        Ok(vault) => vault,
        Err(e) => return e.outcome(),
    };
    let outcome = fly(plan, lease, &mut vault).unwrap_or_else(|ended| ended);
    if let Some(trouble) = Trouble::of(&outcome)
        && let Err(error) = vault.note_trouble(trouble)
    {
        tracing::warn!(profile = %plan.profile.name, %error, "the journal could not be told of this");
    }
    describe(outcome, &vault.record)
}

fn fly<'l>(plan: &Flightplan, lease: &'l Lease<Outcome>, vault: &mut Vault<'_, 'l>) -> Result<Outcome, Outcome> {
    // Step 1: the journal was re-read under the lock. What others did meanwhile may be the answer.
    if let Some(shared) = plan.shared(&vault.record) {
        return Ok(shared);
    }
    if vault.record.is_tombstone {
        return Err(refusal::no_credential(&plan.profile.name));
    }
    let key = plan.store.readied_key(&plan.profile.name, &plan.key)?;
    plan.mark_client(&key);
    // Recovery: an answer that arrived for a run which died before it could act on it.
    if let Some(pending) = vault.unsettled_answer(&key)? {
        let refusal = judge::recovered(plan, vault, &key, &pending)?;
        if let Some(ended) = refusal.or_else(|| plan.shared(&vault.record)) {
            return Ok(ended);
        }
    }
    let Some(mut loaded) = vault.load(&key, plan.is_resident)? else {
        return Err(refusal::no_credential(&plan.profile.name));
    };
    let mut warnings = std::mem::take(&mut loaded.warnings);
    publish_if_pending(vault, &loaded, &key, &mut warnings)?;
    if plan.is_fresh(&vault.record) {
        return Ok(with(Outcome::new(OutcomeKind::Fresh), warnings));
    }
    await_keyring(&vault.record, &loaded)?;
    let loaded = plan.follow(vault, &key, loaded, &mut warnings)?;
    let send = plan.admit(vault, &loaded)?;
    // Step 2: whatever could fail here, must fail now.
    let _token_lock = plan.lock_token(&loaded.fingerprint)?;
    if vault.is_consumed(&loaded.fingerprint)? {
        return Err(Outcome::new(OutcomeKind::ConfigError).because(spent(&plan.profile.name)));
    }
    plan.check_keyring(vault, &loaded)?;
    if !lease.is_wanted() {
        return Err(
            Outcome::new(OutcomeKind::Deferred).because(Failure::new("busy", "nobody waits for this refresh any more"))
        );
    }
    let outcome = transact(plan, vault, &key, loaded, send)?;
    Ok(with(plan.second_look(vault, &key, outcome), warnings))
}

/// Steps 3 to 9, with the quick tries that are free as long as nothing was sent.
fn transact<'l>(
    plan: &Flightplan,
    vault: &mut Vault<'_, 'l>,
    key: &Arc<SealingKey>,
    loaded: Loaded<'l>,
    kind: SendKind,
) -> Result<Outcome, Outcome> {
    let mut held = loaded.held;
    let mut last = Unsent::Network(String::new());
    for pause in QUICK_TRIES {
        #[expect(
            clippy::disallowed_methods,
            reason = "a second at most in all, on a thread of its own; a stop ends the tries"
        )]
        std::thread::sleep(pause);
        let space = vault.reserve_answer()?;
        let intent = plan.intent(&vault.record, &held, loaded.fingerprint.clone(), kind);
        let gate = plan.gate(vault, key, &held, &intent, kind);
        match plan.endpoint.exchange(&plan.prepared, held, gate) {
            Exchange::Unsent { held: back, may_have_intent, why, answer } => {
                // The journal in memory has no such intent: writing it erases the one on disk. If that fails as the
                // intent did, the gate's word is the better one.
                if may_have_intent
                    && let Err(e) = vault.save()
                    && !matches!(why, Unsent::Gate(_))
                {
                    return Err(e.outcome());
                }
                held = back;
                if let (Unsent::Early(_), Some(answer)) = (&why, &answer) {
                    return Ok(refusal::refused_early(plan, vault, answer));
                }
                let is_final = matches!(why, Unsent::Gate(_)) || plan.is_stopping();
                last = why;
                if is_final {
                    break;
                }
            }
            Exchange::Answered { sent, predecessor, answer } => {
                vault.record.intent = Some(intent);
                return Ok(judge::conclude(plan, vault, key, space, Conclusion { sent, predecessor, answer }));
            }
            Exchange::Lost { sent, predecessor, partial, why } => {
                vault.record.intent = Some(intent);
                let answer = partial.unwrap_or_else(RawAnswer::nothing);
                let lost = Conclusion { sent, predecessor, answer };
                return Ok(judge::conclude_lost(plan, vault, key, space, lost, &why));
            }
        }
    }
    Err(refusal::unsent(plan, vault, last))
}

/// An attempt of which nobody noted the end may have put its answer into the keyring alone, where no disk took it. As long
/// as the keyring is away, the token that was sent is not sent again.
fn await_keyring(record: &Record, loaded: &Loaded<'_>) -> Result<(), Outcome> {
    let is_open_ended = record.open_intent().is_some_and(|intent| intent.abandoned.is_none());
    match &loaded.keyring_error {
        Some(error) if is_open_ended => Err(crate::store::StoreError::from(error.clone()).outcome()),
        Some(_) | None => Ok(()),
    }
}

/// Step 8, left over from an earlier run: the keyring could not be written then.
fn publish_if_pending(
    vault: &mut Vault<'_, '_>,
    loaded: &Loaded<'_>,
    key: &SealingKey,
    warnings: &mut Vec<String>,
) -> Result<(), Outcome> {
    if vault.record.publication != Publication::PublishPending || loaded.keyring_error.is_some() {
        return Ok(());
    }
    if let Err(e) = vault.publish(loaded.held.credential(), key) {
        warnings.push(format!("the keyring does not have the newest token yet: {e}"));
    }
    vault.save()?;
    Ok(())
}

impl Flightplan {
    /// Whether the demand is met by what the journal says.
    pub(super) fn is_fresh(&self, record: &Record) -> bool {
        standing::meets(record, self.demand, &self.profile, &self.now())
    }

    /// Rule 26: the outcome of the flight that this one waited for, if it answers the demand.
    fn shared(&self, record: &Record) -> Option<Outcome> {
        if record.generation.get() > self.seen.generation && self.is_fresh(record) {
            return Some(Outcome::new(OutcomeKind::Refreshed).as_follower());
        }
        let attempt = record.last_attempt.as_ref().filter(|_| record.sequence > self.seen.sequence)?;
        if attempt.outcome == OutcomeKind::Refreshed {
            return None;
        }
        let mut outcome = Outcome::new(attempt.outcome).as_follower();
        outcome.retry_at = attempt.retry_at;
        outcome.error = attempt.error.clone();
        Some(outcome)
    }

    /// Whether a request may be made for this credential now, and under which rule.
    fn admit(&self, vault: &mut Vault<'_, '_>, loaded: &Loaded<'_>) -> Result<SendKind, Outcome> {
        let now = self.now();
        if let Some(rejected) = vault.record.rejected.as_ref().filter(|_| vault.record.is_rejected()) {
            return Err(Outcome::new(OutcomeKind::NeedsLogin).because(rejected.failure.clone()));
        }
        self.check_binding(loaded)?;
        self.check_hold(&mut vault.record, &now)?;
        let kind = match vault.record.open_intent() {
            None => SendKind::First,
            Some(intent) => {
                match doubt::resolve(intent, &self.profile.provider.policy, vault.record.validity.as_ref(), &now) {
                    Resolution::Send(kind) => kind,
                    Resolution::Wait(at) => {
                        return Err(refusal::in_doubt(&vault.record, vault.record.waits_until(&now).max(Some(at))));
                    }
                    Resolution::GiveUpAtExpiry(_) => return Err(refusal::in_doubt(&vault.record, None)),
                    Resolution::Exhausted => return Err(refusal::give_up(self, vault)),
                }
            }
        };
        if let Some(at) = vault.record.waits_until(&now) {
            if matches!(kind, SendKind::Grace { .. } | SendKind::LastChance) {
                // A try was turned away, with a time before which none is welcome.
                return Err(refusal::in_doubt(&vault.record, Some(at)));
            }
            let (kind, error) = match &vault.record.unusable {
                Some(failure) => (OutcomeKind::ConfigError, Some(failure.clone())),
                None => (OutcomeKind::Deferred, vault.record.last_attempt.as_ref().and_then(|a| a.error.clone())),
            };
            let mut outcome = Outcome::new(kind).retry_at(at);
            outcome.error = error.or_else(|| Some(Failure::new("not_before", "no request is allowed before then")));
            return Err(outcome);
        }
        Ok(kind)
    }

    /// Never to another server: the credential knows where it belongs.
    fn check_binding(&self, loaded: &Loaded<'_>) -> Result<(), Outcome> {
        let belongs = &loaded.held.credential().binding;
        let configured = self.prepared.binding();
        if belongs.origin == configured.origin && belongs.client_id == configured.client_id {
            return Ok(());
        }
        let message = format!(
            "the credential belongs to client {} at {}, but the configuration names client {} at {}",
            belongs.client_id, belongs.origin, configured.client_id, configured.origin
        );
        let hint = format!("restore [provider.{}], or log in again, or import with --replace", belongs.provider);
        Err(Outcome::new(OutcomeKind::ConfigError).because(Failure::new("other_server", message).hint(hint)))
    }

    /// Rule 24: a client that the provider refused is tried again when the configuration changes, by `--force` once, and
    /// by itself three times at most.
    fn check_hold(&self, record: &mut Record, now: &Moment) -> Result<(), Outcome> {
        let Some(hold) = record.hold.as_ref().filter(|hold| self.is_held_by(hold)) else {
            record.hold = None;
            return Ok(());
        };
        let next_probe = hold.waits_until(now);
        if self.is_forced() || (hold.probes < MAX_PROBES && next_probe.is_none()) {
            return Ok(());
        }
        let outcome = Outcome::new(OutcomeKind::ConfigError).because(hold.failure.clone());
        Err(match next_probe.filter(|_| hold.probes < MAX_PROBES) {
            Some(at) => outcome.retry_at(at),
            None => outcome,
        })
    }

    /// Rule 8: the keyring must be able to take the new token, unless a daemon has waited for it long enough.
    fn check_keyring(&self, vault: &Vault<'_, '_>, loaded: &Loaded<'_>) -> Result<(), Outcome> {
        let error = match &loaded.keyring_error {
            Some(e) => e.clone(),
            None => match vault.check_keyring() {
                Ok(()) => return Ok(()),
                Err(e) => e,
            },
        };
        let validity = loaded.held.credential().validity();
        let is_urgent = validity.is_none_or(|v| v.left(&self.now()) <= v.margin(self.profile.margin) / 2);
        if self.is_resident && is_urgent {
            return Ok(());
        }
        Err(crate::store::StoreError::from(error).outcome())
    }

    /// Whoever holds a token of the same number may be any process, and stopped: nobody waits for it in a lane.
    fn lock_token(&self, token: &Fingerprint) -> Result<LockFile, StoreError> {
        match self.store.try_lock_token(token)? {
            Some(lock) => Ok(lock),
            None => self.lane.aside(|| self.store.lock_token(token)),
        }
    }

    /// The intent that the fence will journal.
    fn intent(&self, record: &Record, held: &Held<'_>, fingerprint: Fingerprint, kind: SendKind) -> Intent {
        let now = self.now();
        let before = record.open_intent();
        Intent {
            attempt: hex::encode(key::random::<8>()),
            generation: held.credential().generation,
            fingerprint,
            sends: before.map_or(0, |i| i.sends) + 1,
            first_sent: before.map_or_else(|| now.clone(), |i| i.first_sent.clone()),
            last_sent: now,
            abandoned: None,
            abandoned_before: before.and_then(|i| i.abandoned.clone()),
            is_last_chance_spent: kind == SendKind::LastChance || before.is_some_and(|i| i.is_last_chance_spent),
            is_reusable: !self.punishes_reuse(),
        }
    }

    /// Step 4, run by the fence: is the attempt still allowed at this instant? Then the intent, fsynced.
    fn gate(
        &self,
        vault: &Vault<'_, '_>,
        key: &Arc<SealingKey>,
        held: &Held<'_>,
        intent: &Intent,
        kind: SendKind,
    ) -> Gate {
        let write = vault.intent_writer(intent.clone());
        let check_followed = self.watch(&vault.record, key, intent.fingerprint.clone());
        let (stop, clock) = (Arc::clone(&self.stop), Arc::clone(&self.clock));
        let first_sent = intent.first_sent.clone();
        let is_intact = held.permit().watch();
        Box::new(move || {
            if stop.load(Ordering::SeqCst) {
                return Err(GateError::Refused("keepalive was told to stop"));
            }
            if !is_intact() {
                return Err(GateError::Refused("the lock file was replaced by another program"));
            }
            // It may take its time, so it comes before the clock is asked.
            check_followed()?;
            let is_over = || match kind {
                SendKind::Grace { within } => {
                    clock.now().elapsed_since(&first_sent).is_none_or(|elapsed| elapsed >= within)
                }
                SendKind::First | SendKind::Retry | SendKind::LastChance => false,
            };
            if is_over() {
                return Err(GateError::Refused("the server's grace is over"));
            }
            write().map_err(|e| GateError::Journal(e.to_string()))?;
            // The disk may have taken its time.
            if is_over() { Err(GateError::Overtaken("the server's grace is over")) } else { Ok(()) }
        })
    }
}

fn with(mut outcome: Outcome, warnings: Vec<String>) -> Outcome {
    outcome.warnings.splice(0..0, warnings);
    outcome
}

/// Adds what the journal knows.
pub fn describe(mut outcome: Outcome, record: &Record) -> Outcome {
    if record.has_credential() {
        outcome.generation = record.generation.max(Generation::FIRST);
        outcome.expires_at = record.validity.as_ref().map(freshness::Validity::expires_at);
    }
    outcome.publication = record.publication;
    outcome
}
