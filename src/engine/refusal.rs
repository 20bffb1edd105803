//! What an answer without tokens does to the journal, or no answer at all: refused, in doubt, given up, or not even sent.

use std::time::Duration;

use super::backoff::{PROBE, UNCLASSIFIED};
use super::doubt::{Resolution, resolve};
use super::flightplan::Flightplan;
use crate::clock::{Moment, Timestamp};
use crate::credential::encoding;
use crate::credential::response::{self, Denied, Reply};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::ProfileName;
use crate::provider::classify::{self, Class};
use crate::provider::{GateError, RawAnswer, Unsent};
use crate::store::content::Answer;
use crate::store::record::{Attempt, Hold, Record, Rejection};
use crate::store::{StoreError, Vault};

/// Answers in a row that say no without a reason, before the token counts as dead (once the access token is).
const MAX_UNCLASSIFIED: u32 = 5;

/// An answer that granted nothing.
pub fn refuse(plan: &Flightplan, vault: &mut Vault<'_, '_>, answer: &Answer, denied: Option<&Denied>) -> Outcome {
    let class = classify::classify(answer.status, denied, &plan.profile.provider);
    let retry_after = answer.retry_after.as_deref().and_then(|h| classify::retry_after(h, plan.now().wall));
    if class == Class::Ambiguous {
        let why = format!("the server returned {}{}", answer.status, words(denied));
        return leave_in_doubt_until(plan, vault, &why, retry_after);
    }
    let said = Said { status: answer.status, denied, retry_after, is_early: false };
    let sent = vault.record.intent.as_ref().map(|i| i.fingerprint.clone());
    let mut outcome = settle_refusal(plan, vault, class, &said);
    // It was turned away, and nothing was sent before it.
    if let Some(sent) = sent.filter(|_| vault.record.intent.is_none() && !vault.record.is_rejected())
        && let Err(e) = vault.note_unspent(&sent)
    {
        unwritten(&mut outcome, &e);
    }
    let saved = vault.save().and_then(|()| vault.discard_answer());
    match saved {
        Ok(()) => outcome,
        Err(e) => e.outcome(),
    }
}

/// A server that answered before it was given the token: the token is unspent whatever it said.
pub fn refused_early(plan: &Flightplan, vault: &mut Vault<'_, '_>, answer: &RawAnswer) -> Outcome {
    let body = encoding::decode(answer.content_encoding.as_deref(), &answer.body);
    let denied = match body.map(|body| response::read(answer.status, &body.bytes, answer.is_complete)) {
        Ok(Reply::Denied(denied)) => Some(denied),
        Ok(Reply::Granted(_) | Reply::Unreadable) | Err(encoding::TooLarge) => None,
    };
    let class = match classify::classify(answer.status, denied.as_ref(), &plan.profile.provider) {
        // Nobody can judge a token unseen.
        Class::Dead | Class::Ambiguous => Class::Throttled,
        class @ (Class::Throttled | Class::Client | Class::Unclassified) => class,
    };
    let retry_after = answer.retry_after.as_deref().and_then(|h| classify::retry_after(h, plan.now().wall));
    let said = Said { status: answer.status, denied: denied.as_ref(), retry_after, is_early: true };
    let outcome = settle_refusal(plan, vault, class, &said);
    match vault.save() {
        Ok(()) => outcome,
        Err(e) => e.outcome(),
    }
}

/// What a server said that grants nothing.
struct Said<'a> {
    status: u16,
    denied: Option<&'a Denied>,
    retry_after: Option<Duration>,
    /// Before it was given the token.
    is_early: bool,
}

/// Changes the journal (not saved yet) by the class of a refusal.
fn settle_refusal(plan: &Flightplan, vault: &mut Vault<'_, '_>, class: Class, said: &Said<'_>) -> Outcome {
    let Said { status, denied, retry_after, is_early } = *said;
    let now = plan.now();
    let name = &plan.profile.name;
    let said = format!("{} returned {status}{}", plan.profile.provider.name, words(denied));
    let is_unexplained = class == Class::Unclassified && !is_early;
    let is_spent = vault.record.intent.as_ref().is_some_and(|i| i.is_last_chance_spent);
    let is_alive = vault.record.validity.as_ref().is_some_and(|v| !v.left_at_most(&now).is_zero());
    let record = &mut vault.record;
    count_probe(plan, record, &now);
    if !is_early {
        // Who was not given the token says nothing of it.
        record.unclassified = if is_unexplained { record.unclassified + 1 } else { 0 };
    }
    let outcome = if is_unexplained && is_spent {
        // The last chance, and a no without a reason: some servers refuse a spent token in these very words.
        presume_spent(plan, vault)
    } else if is_unexplained && record.unclassified >= MAX_UNCLASSIFIED && !is_alive {
        presume_dead(plan, vault, &said)
    } else if class == Class::Dead {
        let code: &str = denied.map_or("invalid_grant", |d| &d.code);
        let failure =
            Failure::new(ErrorKind::of_provider(code), said).hint(format!("sign in again: keepalive login {name}"));
        reject(vault, now.wall, failure)
    } else if class == Class::Client {
        let failure = Failure::new(ErrorKind::ClientRefused, said).hint(format!(
            "check client_id, client_auth, client_secret and the endpoint in [provider.{}]",
            plan.profile.provider.name
        ));
        let probes = record.hold.as_ref().filter(|hold| plan.is_held_by(hold)).map_or(0, |hold| hold.probes);
        record.hold = Some(Hold {
            config: plan.client_mark().to_owned(),
            failure: failure.clone(),
            probes,
            next_probe: now.wall.plus(PROBE),
            noted: Some(now.clone()),
        });
        unsend(record, &now, is_early);
        Outcome::new(OutcomeKind::ConfigError).because(failure)
    } else {
        record.failures += 1;
        let wait = match class {
            Class::Unclassified => UNCLASSIFIED.max(retry_after.unwrap_or_default()),
            _ => plan.back_off(record, retry_after),
        };
        let at = now.wall.plus(wait);
        record.pause_until(Some(at), Some(&now));
        let kind = if class == Class::Unclassified { ErrorKind::Refused } else { ErrorKind::Throttled };
        unsend(record, &now, is_early);
        let stands = match record.intent {
            Some(_) => "the outcome of an earlier request is still in doubt",
            None => "the refresh token is unaffected",
        };
        let failure = Failure::new(kind, said).hint(format!("{stands}; no attempt before {}", at.to_the_second()));
        Outcome::new(OutcomeKind::Deferred).retry_at(at).because(failure)
    };
    note_attempt(plan, &mut vault.record, &outcome);
    outcome
}

/// Rule 24: of a refused client, a probe is one that the server answered or may have got. One that went nowhere says
/// nothing, and one that was turned away for another reason is not repeated sooner than the others.
fn count_probe(plan: &Flightplan, record: &mut Record, now: &Moment) {
    if let Some(hold) = record.hold.as_mut().filter(|hold| plan.is_held_by(hold) && !plan.is_forced()) {
        hold.probes += 1;
        hold.next_probe = now.wall.plus(PROBE);
        hold.noted = Some(now.clone());
    }
}

/// A request that was turned away did nothing to the token. What an earlier one did, it does not tell: that doubt is as it
/// was, its retry inside the grace and its last chance included.
fn unsend(record: &mut Record, now: &Moment, is_early: bool) {
    if is_early {
        // The journal in memory knows nothing of this request.
        return;
    }
    record.intent = record.intent.take().filter(|intent| intent.sends > 1);
    if let Some(intent) = &mut record.intent {
        intent.sends -= 1;
        // Nobody noted it: whoever sent that one is dead by now.
        intent.abandoned = Some(intent.abandoned_before.take().unwrap_or_else(|| now.clone()));
        intent.is_last_chance_spent = false;
    }
}

/// Sent, and nobody knows what became of it. The intent stays and says so.
pub fn leave_in_doubt(plan: &Flightplan, vault: &mut Vault<'_, '_>, why: &str) -> Outcome {
    leave_in_doubt_until(plan, vault, why, None)
}

/// The same; `retry_after`: the server has said how long it wants to be left alone, which binds the retry within its grace
/// and the last chance, too (rule 25).
fn leave_in_doubt_until(
    plan: &Flightplan,
    vault: &mut Vault<'_, '_>,
    why: &str,
    retry_after: Option<Duration>,
) -> Outcome {
    let now = plan.now();
    count_probe(plan, &mut vault.record, &now);
    tracing::error!(profile = %plan.profile.name, why, "the outcome of a refresh is in doubt");
    if let Some(intent) = &mut vault.record.intent {
        intent.abandoned = Some(now.clone());
    }
    let wait = if plan.punishes_reuse() {
        retry_after
    } else {
        vault.record.failures += 1;
        Some(plan.back_off(&vault.record, retry_after))
    };
    if let Some(wait) = wait {
        vault.record.pause_until(Some(now.wall.plus(wait)), Some(&now));
    }
    let mut outcome = tell_doubt(plan, vault, why);
    note_attempt(plan, &mut vault.record, &outcome);
    // A journal can be lost, or give way to an older one; what may be spent is known to the store.
    if let Some(intent) = vault.record.open_intent().filter(|_| plan.punishes_reuse())
        && let Err(e) = vault.note_doubt(&intent.fingerprint, now.wall)
    {
        unwritten(&mut outcome, &e);
    }
    if let Err(e) = vault.save() {
        outcome.warnings.push(e.to_string());
    }
    outcome
}

/// Tells that the ledger could not be written. The outcome is no other for it: the journal knows, and the next run writes.
fn unwritten(outcome: &mut Outcome, error: &StoreError) {
    tracing::error!(%error, "cannot write the ledger");
    outcome.warnings.push(format!("cannot write the ledger: {error}"));
}

/// The outcome of an attempt that leaves a doubt: why, and what the decision table says right after it arose.
pub fn tell_doubt(plan: &Flightplan, vault: &mut Vault<'_, '_>, why: &str) -> Outcome {
    let error = Some(Failure::new(ErrorKind::InDoubt, format!("the refresh token may have been consumed: {why}")));
    let at = plan.now().wall;
    vault.record.last_attempt = Some(Attempt { at, outcome: OutcomeKind::InDoubt, retry_at: None, error });
    resolve_now(plan, vault)
}

fn resolve_now(plan: &Flightplan, vault: &mut Vault<'_, '_>) -> Outcome {
    let now = plan.now();
    let record = &vault.record;
    let Some(intent) = record.open_intent() else {
        return in_doubt(record, None);
    };
    match resolve(intent, &plan.profile.provider.policy, record.validity.as_ref(), &now) {
        Resolution::Send(_) => in_doubt(record, Some(record.waits_until(&now).unwrap_or(now.wall))),
        Resolution::Wait(at) => in_doubt(record, record.waits_until(&now).max(Some(at))),
        Resolution::GiveUpAtExpiry(_) => in_doubt(record, None),
        Resolution::Exhausted => give_up(plan, vault),
    }
}

/// The answer to whoever asks while a doubt is open.
pub fn in_doubt(record: &Record, retry_at: Option<Timestamp>) -> Outcome {
    let known = record.last_attempt.as_ref().and_then(|a| a.error.clone()).filter(|f| f.kind == ErrorKind::InDoubt);
    let failure = known.unwrap_or_else(|| {
        Failure::new(
            ErrorKind::InDoubt,
            "the refresh token may have been consumed: it was sent, but no usable response arrived",
        )
    });
    let next = match retry_at {
        Some(at) => format!(
            "keepalive retries once at {}, or at its first run after that; to avoid the risk",
            at.to_the_second()
        ),
        None => "this server allows no retry: to continue".into(),
    };
    let mut outcome = Outcome::new(OutcomeKind::InDoubt)
        .because(failure.hint(format!("{next}, sign in again: keepalive login {}", record.profile)));
    outcome.retry_at = retry_at;
    outcome
}

/// The last send has been made: the token counts as dead.
pub fn give_up(plan: &Flightplan, vault: &mut Vault<'_, '_>) -> Outcome {
    let outcome = presume_spent(plan, vault);
    note_attempt(plan, &mut vault.record, &outcome);
    if let Err(e) = vault.save() {
        tracing::error!(profile = %plan.profile.name, error = %e, "cannot write the journal");
    }
    outcome
}

fn presume_spent(plan: &Flightplan, vault: &mut Vault<'_, '_>) -> Outcome {
    let failure = Failure::new(
        ErrorKind::PresumedSpent,
        "the refresh token must be considered consumed: no attempt got a usable response",
    )
    .hint(format!("sign in again: keepalive login {}", plan.profile.name));
    reject(vault, plan.now().wall, failure)
}

/// The same of a token of which it was never said why it is refused, once nothing is left to wait for.
fn presume_dead(plan: &Flightplan, vault: &mut Vault<'_, '_>, said: &str) -> Outcome {
    let times = vault.record.unclassified;
    let failure = Failure::new(
        ErrorKind::PresumedDead,
        format!(
            "the refresh token is probably no longer valid: {times} rejections in a row without a reason; last: {said}"
        ),
    )
    .hint(format!("sign in again: keepalive login {}", plan.profile.name));
    reject(vault, plan.now().wall, failure)
}

/// Rule 22: keyed to the token, so a login clears it and nothing else can, not even the loss of this journal.
fn reject(vault: &mut Vault<'_, '_>, at: Timestamp, failure: Failure) -> Outcome {
    let mut outcome = Outcome::new(OutcomeKind::NeedsLogin).because(failure.clone());
    if let Some(fingerprint) = vault.record.fingerprint.clone() {
        if let Err(e) = vault.note_consumed(&fingerprint) {
            unwritten(&mut outcome, &e);
        }
        vault.record.rejected = Some(Rejection { fingerprint, at, failure });
    }
    vault.record.intent = None;
    outcome
}

/// Nothing was sent.
pub fn unsent(plan: &Flightplan, vault: &mut Vault<'_, '_>, why: Unsent) -> Outcome {
    match why {
        Unsent::Gate(GateError::Journal(error)) => Outcome::new(OutcomeKind::StoreUnavailable).because(
            Failure::new(ErrorKind::Io, format!("cannot write the journal: {error}"))
                .hint("check free space and permissions of the state directory"),
        ),
        Unsent::Gate(GateError::Refused(reason) | GateError::Overtaken(reason)) => Outcome::new(OutcomeKind::Deferred)
            .because(Failure::new(ErrorKind::Interrupted, format!("nothing was sent: {reason}"))),
        Unsent::Network(reason) | Unsent::Early(reason) => {
            let record = &mut vault.record;
            record.failures += 1;
            let now = plan.now();
            let at = now.wall.plus(plan.back_off(record, None));
            record.pause_until(Some(at), Some(&now));
            let failure = Failure::new(
                ErrorKind::Network,
                format!("cannot reach {}: {reason}", plan.prepared.token_endpoint.origin().ascii_serialization()),
            )
            .hint(format!("nothing was sent; no attempt before {}", at.to_the_second()));
            let outcome = Outcome::new(OutcomeKind::Deferred).retry_at(at).because(failure);
            note_attempt(plan, record, &outcome);
            match vault.save() {
                Ok(()) => outcome,
                Err(e) => e.outcome(),
            }
        }
    }
}

/// There is nothing to refresh with.
pub fn no_credential(name: &ProfileName) -> Outcome {
    Outcome::new(OutcomeKind::NeedsLogin).because(
        Failure::new(ErrorKind::NoCredential, format!("there is no credential for profile {name}"))
            .hint(format!("keepalive login {name}, or keepalive import {name}")),
    )
}

/// Notes the outcome for followers and for `status`.
pub fn note_attempt(plan: &Flightplan, record: &mut Record, outcome: &Outcome) {
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
