//! What follows from an answer, or from none: seal it, read it, and settle the journal accordingly.

use std::sync::Arc;
use std::time::Duration;

use super::backoff::{PROBE, UNCLASSIFIED};
use super::transaction::{Flightplan, back_off};
use crate::clock::Timestamp;
use crate::credential::response::Denied;
use crate::credential::secret::RefreshToken;
use crate::credential::{Credential, Generation};
use crate::guard::Predecessor;
use crate::outcome::{Failure, Outcome, OutcomeKind, Publication};
use crate::profile::{GraceSemantics, Rotation};
use crate::provider::classify::{self, Class};
use crate::provider::{GateError, RawAnswer, Unsent};
use crate::store::content::{Answer, Note, PlainGrant, Reading, Secret};
use crate::store::key::SealingKey;
use crate::store::record::{Attempt, Hold, Record, Rejection};
use crate::store::{PendingAnswer, Vault};
use crate::sys::durable::Staged;

/// How long an answer in hand is tried to be saved, before the run gives up with it.
const PERSIST_FOR: Duration = Duration::from_secs(15);
const PERSIST_EVERY: Duration = Duration::from_millis(250);
/// Answers in a row that say no without a reason, before the token counts as dead (once the access token is).
const MAX_UNCLASSIFIED: u32 = 5;

/// A spent token and what came back for it.
pub struct Conclusion<'l> {
    pub sent: RefreshToken,
    pub predecessor: Predecessor<'l>,
    pub answer: RawAnswer,
}

/// Steps 7 to 9 for an answer that arrived whole.
pub fn conclude(
    plan: &Flightplan,
    vault: &mut Vault<'_, '_>,
    key: &Arc<SealingKey>,
    space: Staged,
    conclusion: Conclusion<'_>,
) -> Outcome {
    let answer = match persist(plan, vault, key, space, conclusion) {
        Ok(answer) => answer,
        Err(outcome) => return outcome,
    };
    let generation = next_generation(&vault.record);
    settle(plan, vault, key, &answer, generation)
}

/// The same for an answer that did not arrive whole, or not at all. What came of it is sealed as evidence; if it holds
/// the tokens after all, it counts.
pub fn conclude_lost(
    plan: &Flightplan,
    vault: &mut Vault<'_, '_>,
    key: &Arc<SealingKey>,
    space: Staged,
    conclusion: Conclusion<'_>,
    why: &str,
) -> Outcome {
    if conclusion.answer.body.is_empty() {
        drop(space);
        return leave_in_doubt(plan, vault, why);
    }
    match persist(plan, vault, key, space, conclusion) {
        Err(outcome) => outcome,
        Ok(answer) => match answer.read(next_generation(&vault.record)) {
            Reading::Granted { .. } => settle(plan, vault, key, &answer, next_generation(&vault.record)),
            Reading::Denied(_) | Reading::Unreadable => leave_in_doubt(plan, vault, why),
        },
    }
}

/// An answer found sealed: the run that received it died before it could settle. Tokens in it become the newest
/// generation, from which the ordinary way goes on (`None`); a refusal is the outcome of this run too.
pub fn recovered(
    plan: &Flightplan,
    vault: &mut Vault<'_, '_>,
    key: &Arc<SealingKey>,
    pending: &PendingAnswer,
) -> Result<Option<Outcome>, Outcome> {
    let is_ours = vault.record.intent.as_ref().is_some_and(|i| Some(&i.attempt) == pending.attempt.as_ref());
    match pending.answer.read(pending.generation) {
        Reading::Granted { .. } => {
            settle(plan, vault, key, &pending.answer, pending.generation);
            Ok(None)
        }
        // It answers an attempt that the journal has settled since.
        Reading::Denied(_) | Reading::Unreadable if !is_ours => {
            vault.discard_answer()?;
            Ok(None)
        }
        Reading::Denied(_) if pending.answer.is_complete => {
            Ok(Some(settle(plan, vault, key, &pending.answer, pending.generation)))
        }
        Reading::Denied(_) | Reading::Unreadable => {
            Ok(Some(leave_in_doubt(plan, vault, "its answer could not be read")))
        }
    }
}

fn next_generation(record: &Record) -> Generation {
    record.intent.as_ref().map_or(record.generation, |i| i.generation).next()
}

/// Step 7: seals the answer before anybody reads it. An answer in hand is never given up at the first error; where the
/// disk will not take it, the keyring may.
fn persist(
    plan: &Flightplan,
    vault: &mut Vault<'_, '_>,
    key: &Arc<SealingKey>,
    space: Staged,
    conclusion: Conclusion<'_>,
) -> Result<Answer, Outcome> {
    let generation = next_generation(&vault.record);
    let (attempt, answer) = sealed_form(plan, &vault.record, conclusion);
    let first = vault.seal_answer(space, &answer, generation, &attempt, key);
    let Err(mut error) = first else {
        return Ok(answer);
    };
    tracing::error!(profile = %plan.profile.name, %error, "an answer cannot be sealed; trying on");
    let mut is_published = false;
    for _ in 0..(PERSIST_FOR.as_millis() / PERSIST_EVERY.as_millis()) {
        if let (false, Reading::Granted { credential, .. }) = (is_published, answer.read(generation)) {
            is_published =
                vault.publish(&credential, key).is_ok() && vault.record.publication == Publication::Published;
        }
        std::thread::sleep(PERSIST_EVERY);
        let space = match vault.reserve_answer() {
            Ok(space) => space,
            Err(e) => {
                error = e;
                continue;
            }
        };
        match vault.seal_answer(space, &answer, generation, &attempt, key) {
            Ok(()) => return Ok(answer),
            Err(e) => error = e,
        }
    }
    let mut outcome = error.outcome();
    outcome.kind = OutcomeKind::InDoubt;
    if is_published {
        outcome.kind = OutcomeKind::Refreshed;
        outcome.warnings.push("the new token is in the keyring only; the next run will seal it".into());
    }
    Err(outcome)
}

fn sealed_form(plan: &Flightplan, record: &Record, conclusion: Conclusion<'_>) -> (String, Answer) {
    let Conclusion { sent, predecessor, answer } = conclusion;
    let intent = record.intent.as_ref();
    let now = plan.now();
    let sealed = Answer {
        status: answer.status,
        content_type: answer.content_type,
        content_encoding: answer.content_encoding,
        retry_after: answer.retry_after,
        body: Answer::encode_body(&answer.body),
        is_complete: answer.is_complete,
        sent_refresh_token: Secret(sent.expose().into()),
        sent: intent.map_or(now, |i| i.last_sent.clone()),
        sends: intent.map_or(1, |i| i.sends),
        binding: predecessor.binding,
        previous: PlainGrant::of(&predecessor.grant),
        default_lifetime_ms: u64::try_from(plan.profile.provider.default_lifetime.as_millis()).unwrap_or(u64::MAX),
    };
    (intent.map_or_else(String::new, |i| i.attempt.clone()), sealed)
}

/// Reads a sealed answer and settles the journal by it.
fn settle(
    plan: &Flightplan,
    vault: &mut Vault<'_, '_>,
    key: &Arc<SealingKey>,
    answer: &Answer,
    generation: Generation,
) -> Outcome {
    match answer.read(generation) {
        Reading::Granted { credential, is_rotated, notes } => {
            let warnings = notes.iter().map(|note| say(*note, plan)).collect();
            commit(plan, vault, key, &Granted { credential: *credential, is_rotated, notes }, warnings)
        }
        Reading::Denied(denied) => refuse(plan, vault, answer, Some(&denied)),
        Reading::Unreadable => refuse(plan, vault, answer, None),
    }
}

struct Granted {
    credential: Credential,
    is_rotated: bool,
    notes: Vec<Note>,
}

/// Steps 7b to 9: the answer becomes S; the keyring gets it; the ledger and the journal say so. From the first of these
/// on the new token is safe whatever fails, so failures are told and not returned.
fn commit(
    plan: &Flightplan,
    vault: &mut Vault<'_, '_>,
    key: &Arc<SealingKey>,
    granted: &Granted,
    mut warnings: Vec<String>,
) -> Outcome {
    let now = plan.now();
    let credential = &granted.credential;
    let mut report = |what: &str, error: String| {
        tracing::error!(profile = %plan.profile.name, %error, "{what}");
        warnings.push(format!("{what}: {error}"));
    };
    if let Err(e) = vault.promote_answer() {
        report("the new token is sealed, but not under its final name", e.to_string());
    }
    let spent = vault.record.intent.as_ref().map(|i| i.fingerprint.clone());
    if let Err(e) = vault.publish(credential, key) {
        report("the keyring does not have the new token yet", e.to_string());
    }
    if let (true, Some(spent)) = (granted.is_rotated, &spent)
        && let Err(e) = vault.mark_consumed(spent)
    {
        report("the ledger could not be written", e.to_string());
    }
    let doubt = granted.notes.contains(&Note::OldTokenAfterGrace).then(|| vault.record.intent.take()).flatten();
    let hold = hold_after_grace(plan, &vault.record);
    let record = &mut vault.record;
    record.adopt(credential, key.fingerprint(&credential.refresh));
    record.intent = None;
    record.refreshed_at = Some(now.wall);
    record.failures = 0;
    record.unclassified = 0;
    record.hold = None;
    record.not_before = credential.grant.not_before.max(hold.map(|d| now.wall.plus(d)));
    let mut outcome = Outcome::new(OutcomeKind::Refreshed);
    if let Some(mut intent) = doubt.filter(|_| punishes_reuse(plan)) {
        // The old token came back after a second send: nobody knows whether it is the live one.
        intent.generation = credential.generation;
        intent.abandoned = Some(now);
        record.intent = Some(intent);
        outcome = Outcome::new(OutcomeKind::InDoubt);
    }
    note_attempt(plan, record, &outcome);
    if let Err(e) = vault.save() {
        report("the journal could not be written; the next run will bring it up to date", e.to_string());
    }
    outcome.warnings = warnings;
    tracing::info!(profile = %plan.profile.name, generation = %credential.generation, "refreshed");
    outcome
}

/// Rule 20: where a grace retry gave a successor, an abandoned first request may still be under way; the next generation
/// waits until it cannot be.
fn hold_after_grace(plan: &Flightplan, record: &Record) -> Option<Duration> {
    let policy = &plan.profile.provider.policy;
    let was_retried = record.intent.as_ref().is_some_and(|i| i.sends > 1);
    let holds = policy.rotation == Rotation::Grace
        && matches!(policy.grace_semantics, GraceSemantics::Same | GraceSemantics::Multi);
    (was_retried && holds).then_some(policy.settle)
}

fn punishes_reuse(plan: &Flightplan) -> bool {
    matches!(plan.profile.provider.policy.rotation, Rotation::Strict | Rotation::Grace)
}

/// An answer that granted nothing.
fn refuse(plan: &Flightplan, vault: &mut Vault<'_, '_>, answer: &Answer, denied: Option<&Denied>) -> Outcome {
    let policy = &plan.profile.provider.policy;
    let class = classify::classify(answer.status, denied, policy);
    if class == Class::Ambiguous {
        return leave_in_doubt(plan, vault, &format!("the server answered {}{}", answer.status, words(denied)));
    }
    let retry_after = answer.retry_after.as_deref().and_then(|h| classify::retry_after(h, plan.now().wall));
    let outcome = settle_refusal(plan, vault, class, answer.status, denied, retry_after);
    let saved = vault.save().and_then(|()| vault.discard_answer());
    match saved {
        Ok(()) => outcome,
        Err(e) => e.outcome(),
    }
}

/// A server that answered before it was given the token: the token is unspent whatever it said.
pub fn refused_early(plan: &Flightplan, vault: &mut Vault<'_, '_>, answer: &RawAnswer) -> Outcome {
    let denied = match crate::credential::response::read(answer.status, &answer.body) {
        crate::credential::response::Reply::Denied(denied) => Some(denied),
        crate::credential::response::Reply::Granted(_) | crate::credential::response::Reply::Unreadable => None,
    };
    let class = match classify::classify(answer.status, denied.as_ref(), &plan.profile.provider.policy) {
        // Nobody can judge a token unseen.
        Class::Dead | Class::Ambiguous => Class::Throttled,
        class @ (Class::Throttled | Class::Client | Class::Unclassified) => class,
    };
    let retry_after = answer.retry_after.as_deref().and_then(|h| classify::retry_after(h, plan.now().wall));
    let outcome = settle_refusal(plan, vault, class, answer.status, denied.as_ref(), retry_after);
    match vault.save() {
        Ok(()) => outcome,
        Err(e) => e.outcome(),
    }
}

/// Changes the journal (not saved yet) by the class of a refusal.
fn settle_refusal(
    plan: &Flightplan,
    vault: &mut Vault<'_, '_>,
    class: Class,
    status: u16,
    denied: Option<&Denied>,
    retry_after: Option<Duration>,
) -> Outcome {
    let now = plan.now();
    let name = &plan.profile.name;
    let said = format!("{} answered {status}{}", plan.profile.provider.name, words(denied));
    let was_doubtful = vault.record.intent.as_ref().is_some_and(|i| i.sends > 1);
    let is_alive = vault.record.validity.as_ref().is_some_and(|v| !v.left(&now).is_zero());
    let record = &mut vault.record;
    record.unclassified = if class == Class::Unclassified { record.unclassified + 1 } else { 0 };
    let is_dead = class == Class::Dead || (record.unclassified >= MAX_UNCLASSIFIED && !is_alive);
    let outcome = if is_dead {
        let code: &str = denied.map_or("invalid_grant", |d| &d.code);
        let failure = Failure { kind: code.to_owned().into(), message: said, hint: None }
            .hint(format!("sign in again: keepalive login {name}"));
        reject(record, now.wall, &failure);
        Outcome::new(OutcomeKind::NeedsLogin).because(failure)
    } else if class == Class::Client {
        let failure = Failure::new("client_refused", said).hint(format!(
            "check client_id, client_auth, secret and endpoint of [provider.{}]",
            plan.profile.provider.name
        ));
        let probes = record.hold.as_ref().map_or(0, |h| h.probes);
        let next_probe = now.wall.plus(PROBE);
        record.hold = Some(Hold { config: plan.prepared.fingerprint(), failure: failure.clone(), probes, next_probe });
        record.intent = None;
        Outcome::new(OutcomeKind::ConfigError).because(failure)
    } else {
        record.failures += 1;
        let wait = match class {
            Class::Unclassified => UNCLASSIFIED.max(retry_after.unwrap_or_default()),
            _ => back_off(plan, record, retry_after),
        };
        let at = now.wall.plus(wait);
        record.not_before = Some(at);
        let word = if class == Class::Unclassified { "refused" } else { "throttled" };
        // A refused second send proves nothing about the first one: that doubt stays.
        if !was_doubtful {
            record.intent = None;
        } else if let Some(intent) = &mut record.intent {
            intent.abandoned = Some(now);
        }
        Outcome::new(OutcomeKind::Deferred).retry_at(at).because(Failure::new(word, said))
    };
    note_attempt(plan, &mut vault.record, &outcome);
    outcome
}

/// Sent, and nobody knows what became of it. The intent stays and says so.
fn leave_in_doubt(plan: &Flightplan, vault: &mut Vault<'_, '_>, why: &str) -> Outcome {
    let now = plan.now();
    let failure = Failure::new("in_doubt", format!("the refresh token may be spent: {why}"));
    tracing::error!(profile = %plan.profile.name, why, "a refresh is in doubt");
    if let Some(intent) = &mut vault.record.intent {
        intent.abandoned = Some(now.clone());
    }
    if !punishes_reuse(plan) {
        vault.record.failures += 1;
        vault.record.not_before = Some(now.wall.plus(back_off(plan, &vault.record, None)));
    }
    vault.record.last_attempt =
        Some(Attempt { at: now.wall, outcome: OutcomeKind::InDoubt, retry_at: None, error: Some(failure) });
    let outcome = resolve_now(plan, vault);
    note_attempt(plan, &mut vault.record, &outcome);
    match vault.save() {
        Ok(()) => outcome,
        Err(e) => {
            let mut outcome = outcome;
            outcome.warnings.push(e.to_string());
            outcome
        }
    }
}

/// What the decision table says right after a doubt arose.
fn resolve_now(plan: &Flightplan, vault: &mut Vault<'_, '_>) -> Outcome {
    use super::doubt::{Resolution, resolve};
    let now = plan.now();
    let record = &vault.record;
    let Some(intent) = record.open_intent() else {
        return in_doubt(record, None);
    };
    match resolve(intent, &plan.profile.provider.policy, record.validity.as_ref(), &now) {
        Resolution::Send(_) => in_doubt(record, Some(record.not_before.unwrap_or(now.wall))),
        Resolution::Wait(at) => in_doubt(record, Some(at)),
        Resolution::GiveUpAtExpiry(_) => in_doubt(record, None),
        Resolution::Exhausted => give_up(plan, vault),
    }
}

/// The answer to whoever asks while a doubt is open.
pub fn in_doubt(record: &Record, retry_at: Option<Timestamp>) -> Outcome {
    let known = record.last_attempt.as_ref().and_then(|a| a.error.clone()).filter(|f| f.kind == "in_doubt");
    let failure = known.unwrap_or_else(|| {
        Failure::new("in_doubt", "the refresh token may be spent: the run that sent it died before its answer was safe")
    });
    let next = match retry_at {
        Some(at) => format!("one more try is made at {at}; to be safe"),
        None => "no further try is allowed at this server".into(),
    };
    let mut outcome = Outcome::new(OutcomeKind::InDoubt)
        .because(failure.hint(format!("{next}, sign in again: keepalive login {}", record.profile)));
    outcome.retry_at = retry_at;
    outcome
}

/// The last send has been made: the token counts as dead.
pub fn give_up(plan: &Flightplan, vault: &mut Vault<'_, '_>) -> Outcome {
    let now = plan.now();
    let failure = Failure::new("in_doubt", "the refresh token is most likely spent: no answer came to its last send")
        .hint(format!("sign in again: keepalive login {}", plan.profile.name));
    reject(&mut vault.record, now.wall, &failure);
    let outcome = Outcome::new(OutcomeKind::NeedsLogin).because(failure);
    note_attempt(plan, &mut vault.record, &outcome);
    if let Err(e) = vault.save() {
        tracing::error!(profile = %plan.profile.name, error = %e, "the journal could not be written");
    }
    outcome
}

/// Rule 22: keyed to the token, so a login clears it and nothing else can.
fn reject(record: &mut Record, at: Timestamp, failure: &Failure) {
    if let Some(fingerprint) = record.fingerprint.clone() {
        record.rejected = Some(Rejection { fingerprint, at, failure: failure.clone() });
    }
    record.intent = None;
}

/// Nothing was sent.
pub fn unsent(plan: &Flightplan, vault: &mut Vault<'_, '_>, why: Unsent) -> Outcome {
    match why {
        Unsent::Gate(GateError::Journal(error)) => Outcome::new(OutcomeKind::StoreUnavailable).because(
            Failure::new("io", format!("cannot write the journal: {error}"))
                .hint("check space and permissions of the state directory"),
        ),
        Unsent::Gate(GateError::Refused(reason)) => Outcome::new(OutcomeKind::Deferred)
            .because(Failure::new("interrupted", format!("nothing was sent: {reason}"))),
        Unsent::Network(reason) | Unsent::Early(reason) => {
            let record = &mut vault.record;
            record.failures += 1;
            let at = plan.now().wall.plus(back_off(plan, record, None));
            record.not_before = Some(at);
            let failure = Failure::new(
                "network",
                format!("cannot reach {}: {reason}", plan.prepared.token_endpoint.origin().ascii_serialization()),
            )
            .hint("nothing was sent; it will be tried again");
            let outcome = Outcome::new(OutcomeKind::Deferred).retry_at(at).because(failure);
            note_attempt(plan, record, &outcome);
            match vault.save() {
                Ok(()) => outcome,
                Err(e) => e.outcome(),
            }
        }
    }
}

/// Notes the outcome for followers and for `status`.
fn note_attempt(plan: &Flightplan, record: &mut Record, outcome: &Outcome) {
    record.sequence += 1;
    record.last_attempt = Some(Attempt {
        at: plan.now().wall,
        outcome: outcome.kind,
        retry_at: outcome.retry_at,
        error: outcome.error.clone(),
    });
}

fn words(denied: Option<&Denied>) -> String {
    match denied {
        None => String::new(),
        Some(Denied { code, description: None }) => format!(" {code}"),
        Some(Denied { code, description: Some(text) }) => format!(" {code}: {text}"),
    }
}

fn say(note: Note, plan: &Flightplan) -> String {
    match note {
        Note::AccessUnusable => "the answer held no usable access token".into(),
        Note::TokenType => "the token type is not Bearer".into(),
        Note::ScopeChanged => "the scope has changed".into(),
        Note::LifetimeAssumed => {
            format!("the server told no lifetime; {} s are assumed", plan.profile.provider.default_lifetime.as_secs())
        }
        Note::OldTokenAfterGrace => "the server gave the old refresh token back after a second send".into(),
    }
}
