//! What follows from an answer, or from none: seal it, read it, and settle the journal accordingly.

use std::sync::Arc;
use std::time::Duration;

use super::flightplan::Flightplan;
use super::refusal::{self, leave_in_doubt, note_attempt};
use crate::credential::secret::RefreshToken;
use crate::credential::{Credential, Generation};
use crate::guard::Predecessor;
use crate::outcome::{Outcome, OutcomeKind, Publication};
use crate::profile::{GraceSemantics, Rotation};
use crate::provider::RawAnswer;
use crate::store::aftermath::Aftermath;
use crate::store::content::{Answer, Note, PlainGrant, Reading, Secret};
use crate::store::key::SealingKey;
use crate::store::record::Record;
use crate::store::{PendingAnswer, StoreError, Vault};
use crate::sys::durable::Staged;

/// How often an answer in hand is tried to be saved, before the run gives up with it: for a quarter of a minute.
const PERSIST_TRIES: u32 = 60;
const PERSIST_EVERY: Duration = Duration::from_millis(250);

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
    settle(plan, vault, key, &answer, generation, false)
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
            Reading::Granted { .. } => settle(plan, vault, key, &answer, next_generation(&vault.record), false),
            Reading::Denied(_) | Reading::Unreadable | Reading::TooLarge => leave_in_doubt(plan, vault, why),
        },
    }
}

/// An answer found sealed: the run that received it died before it could settle. Tokens in it become the newest
/// generation, or are it already, from which the ordinary way goes on (`None`); a refusal or a doubt is the outcome of this
/// run too.
pub fn recovered(
    plan: &Flightplan,
    vault: &mut Vault<'_, '_>,
    key: &Arc<SealingKey>,
    pending: &PendingAnswer,
) -> Result<Option<Outcome>, Outcome> {
    let is_ours = vault.record.intent.as_ref().is_some_and(|i| Some(&i.attempt) == pending.attempt.as_ref());
    let generation = vault.record.generation;
    match pending.answer.read(pending.generation) {
        Reading::Granted { .. } => {
            // An older journal was restored, perhaps.
            let asked = || pending.answer.asked(pending.attempt.as_deref(), generation, key);
            vault.record.intent = vault.record.intent.take().or_else(asked);
            let settled = settle(plan, vault, key, &pending.answer, pending.generation, pending.is_promoted);
            Ok((settled.kind != OutcomeKind::Refreshed).then_some(settled))
        }
        // Nothing that grants no tokens is given that name: it is damaged, which its loading tells.
        Reading::Denied(_) | Reading::Unreadable | Reading::TooLarge if pending.is_promoted => Ok(None),
        // It answers an attempt that the journal has settled since.
        Reading::Denied(_) | Reading::Unreadable | Reading::TooLarge if !is_ours => {
            vault.discard_answer()?;
            Ok(None)
        }
        // Judged as it would have been by the run that received it.
        Reading::Denied(_) | Reading::Unreadable | Reading::TooLarge if pending.answer.is_complete => {
            Ok(Some(settle(plan, vault, key, &pending.answer, pending.generation, false)))
        }
        Reading::Denied(_) | Reading::Unreadable | Reading::TooLarge => {
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
    for _ in 0..PERSIST_TRIES {
        if let (false, Reading::Granted { credential, .. }) = (is_published, answer.read(generation)) {
            is_published =
                vault.publish(&credential, key).is_ok() && vault.record.publication == Publication::Published;
        }
        #[expect(clippy::disallowed_methods, reason = "no event says that the disk takes writes again")]
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
        rest_ms: Some(u64::try_from(rest_after_grace(plan, record).as_millis()).unwrap_or(u64::MAX)),
    };
    (intent.map_or_else(String::new, |i| i.attempt.clone()), sealed)
}

/// Reads a sealed answer and settles the journal by it. `is_promoted`: it has its final name.
fn settle(
    plan: &Flightplan,
    vault: &mut Vault<'_, '_>,
    key: &Arc<SealingKey>,
    answer: &Answer,
    generation: Generation,
    is_promoted: bool,
) -> Outcome {
    match answer.read(generation) {
        Reading::Granted { credential, is_rotated, notes } => {
            let warnings = notes.iter().map(|note| say(*note, plan)).collect();
            let after = answer.aftermath(notes);
            commit(plan, vault, key, &Granted { credential: *credential, is_rotated, is_promoted, after }, warnings)
        }
        Reading::Denied(denied) => refusal::refuse(plan, vault, answer, Some(&denied)),
        Reading::Unreadable => refusal::refuse(plan, vault, answer, None),
        Reading::TooLarge => leave_in_doubt(plan, vault, "its answer unpacks to more than an answer may hold"),
    }
}

struct Granted {
    credential: Credential,
    is_rotated: bool,
    is_promoted: bool,
    after: Aftermath,
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
    if !granted.is_promoted
        && let Err(e) = vault.promote_answer()
    {
        report("the new token is sealed, but not under its final name", e.to_string());
    }
    if let Err(e) = vault.publish(credential, key) {
        report("the keyring does not have the new token yet", e.to_string());
    }
    if let Err(e) = note_fate(plan, vault, granted) {
        report("the ledger could not be written", e.to_string());
    }
    if let Some(intent) = &mut vault.record.intent {
        intent.is_reusable = !plan.punishes_reuse();
    }
    let record = &mut vault.record;
    let fingerprint = key.fingerprint(&credential.refresh);
    record.settle_grant(credential, fingerprint, &granted.after, &now, |record| plan.back_off(record, None));
    let doubtful = granted.after.doubt().filter(|_| record.intent.is_some());
    let mut outcome = match (doubtful, record.unusable.clone()) {
        (Some(note), _) => refusal::tell_doubt(plan, vault, &say(note, plan)),
        (None, Some(failure)) => {
            let outcome = Outcome::new(OutcomeKind::ConfigError).because(failure);
            Outcome { retry_at: record.not_before, ..outcome }
        }
        (None, None) => Outcome::new(OutcomeKind::Refreshed),
    };
    note_attempt(plan, &mut vault.record, &outcome);
    if let Err(e) = vault.save() {
        report("the journal could not be written; the next run will bring it up to date", e.to_string());
    }
    outcome.warnings = warnings;
    tracing::info!(profile = %plan.profile.name, generation = %credential.generation, "refreshed");
    outcome
}

/// What was sent is consumed, or was not used up, or nobody knows.
fn note_fate(plan: &Flightplan, vault: &mut Vault<'_, '_>, granted: &Granted) -> Result<(), StoreError> {
    let Some(sent) = vault.record.intent.as_ref().map(|i| i.fingerprint.clone()) else { return Ok(()) };
    match (granted.is_rotated, granted.after.doubt()) {
        (true, _) => vault.note_consumed(&sent),
        (false, Some(_)) if plan.punishes_reuse() => vault.note_doubt(&sent, plan.now().wall),
        (false, Some(_)) => Ok(()),
        (false, None) => vault.note_unspent(&sent),
    }
}

/// Rule 20: where a grace retry gave a successor, an abandoned first request may still be under way; the next generation
/// waits until it cannot be.
fn rest_after_grace(plan: &Flightplan, record: &Record) -> Duration {
    let policy = &plan.profile.provider.policy;
    let was_retried = record.intent.as_ref().is_some_and(|i| i.sends > 1);
    let rests = policy.rotation == Rotation::Grace
        && matches!(policy.grace_semantics, GraceSemantics::Same | GraceSemantics::Multi);
    if was_retried && rests { policy.settle } else { Duration::ZERO }
}

fn say(note: Note, plan: &Flightplan) -> String {
    match note {
        Note::AccessUnusable => "no usable access token in the answer: the one before is all there is".into(),
        Note::TokenType => "the token type is not Bearer".into(),
        Note::ScopeChanged => "the scope has changed".into(),
        Note::LifetimeAssumed => {
            format!("the server told no lifetime; {} s are assumed", plan.profile.provider.default_lifetime.as_secs())
        }
        Note::RefreshUnreadable => {
            "the server gave a refresh token that cannot be read: the old one may be spent".into()
        }
        Note::OldTokenAfterGrace => "the server gave the old refresh token back after a second send".into(),
    }
}
