//! Settles a refresh without tokens: the response was an error, the outcome is in doubt, or nothing was sent.

use std::time::Duration;

use crate::clock::{Moment, Timestamp};
use crate::credential::content_coding;
use crate::credential::error_response::ErrorResponse;
use crate::credential::token_response::ParsedResponse;
use crate::credential::token_response::parse_response;
use crate::engine::explain;
use crate::engine::refresh::backoff::{CLIENT_PROBE_INTERVAL, UNCLASSIFIED_DELAY};
use crate::engine::refresh::context::RefreshContext;
use crate::engine::refresh::refusal_text::{RefusalText, trust_503_hint};
use crate::engine::refresh::retry_policy::{RetryDecision, decide};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::ProfileName;
use crate::provider::classify;
use crate::provider::classify::{Refusal, ResponseClass};
use crate::provider::{BeforeSendError, NotSentReason, RawResponse};
use crate::store::disk::sealed_content::SealedResponse;
use crate::store::journal::block::{Block, Cause, RefusedClient};
use crate::store::journal::{Journal, LastAttempt, Rejection};
use crate::store::{LockedProfile, StoreError};

/// How many unexplained refusals in a row make the token count as rejected, once the access token has expired.
const MAX_CONSECUTIVE_UNCLASSIFIED: u32 = 5;

/// Settles a response that granted nothing.
pub fn settle_error_response(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, '_>,
    response: &SealedResponse,
    denied: Option<&ErrorResponse>,
) -> Outcome {
    let packed = response.decode_body();
    let body = content_coding::decode(response.content_encoding.as_deref(), &packed).map(|body| body.bytes);
    let refusal = Refusal {
        status: response.status,
        content_type: response.content_type.as_deref(),
        body: &body.unwrap_or_default(),
        error: denied,
        was_granted_before: locked.journal.is_request_known(),
    };
    let verdict = classify::classify(&refusal, &ctx.profile.provider);
    explain::response_class(&ctx.profile, response.status, &verdict.class, denied.map(|denied| denied.code.as_str()));
    let retry_after = response.retry_after.as_deref().and_then(|h| classify::retry_after(h, ctx.now().wall));
    let text = RefusalText { profile: &ctx.profile, status: response.status, error: denied, verdict: &verdict };
    if verdict.class == ResponseClass::Ambiguous {
        let why = format!("the server {}", text.returned());
        return settle_in_doubt_until(ctx, locked, &why, retry_after);
    }
    let said = FailedResponse { text, retry_after, is_before_body: false };
    let sent = locked.journal.intent.as_ref().map(|i| i.fingerprint.clone());
    let mut outcome = apply_error_class(ctx, locked, &said);
    // The request was turned away, and nothing was sent before it.
    if let Some(sent) = sent.filter(|_| locked.journal.intent.is_none() && !locked.journal.is_rejected())
        && let Err(e) = locked.clear_in_doubt(&sent)
    {
        add_ledger_warning(&mut outcome, &e);
    }
    let saved = locked.save_journal().and_then(|()| locked.discard_response());
    match saved {
        Ok(()) => outcome,
        Err(e) => e.outcome(),
    }
}

/// Settles a response that came before the server had the token: the token is unspent whatever the response says.
pub fn settle_early_response(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, '_>,
    response: &RawResponse,
) -> Outcome {
    let body = content_coding::decode(response.content_encoding.as_deref(), &response.body);
    let body = body.map(|body| body.bytes).unwrap_or_default();
    let denied = match parse_response(response.status, &body, response.is_complete, &response.sent) {
        ParsedResponse::Denied(denied) => Some(denied),
        ParsedResponse::Granted(_) | ParsedResponse::Unreadable => None,
    };
    let refusal = Refusal {
        status: response.status,
        content_type: response.content_type.as_deref(),
        body: &body,
        error: denied.as_ref(),
        was_granted_before: false,
    };
    let mut verdict = classify::classify(&refusal, &ctx.profile.provider);
    // A server cannot judge a token that it has not seen.
    if matches!(verdict.class, ResponseClass::TokenRejected | ResponseClass::LoginRequired | ResponseClass::Ambiguous) {
        verdict.class = ResponseClass::Throttled;
    }
    let code = denied.as_ref().map(|denied| denied.code.as_str());
    explain::response_class(&ctx.profile, response.status, &verdict.class, code);
    let retry_after = response.retry_after.as_deref().and_then(|h| classify::retry_after(h, ctx.now().wall));
    let text =
        RefusalText { profile: &ctx.profile, status: response.status, error: denied.as_ref(), verdict: &verdict };
    let said = FailedResponse { text, retry_after, is_before_body: true };
    let outcome = apply_error_class(ctx, locked, &said);
    match locked.save_journal() {
        Ok(()) => outcome,
        Err(e) => e.outcome(),
    }
}

/// The parts of a response that grants nothing.
struct FailedResponse<'a> {
    text: RefusalText<'a>,
    retry_after: Option<Duration>,
    /// The response came before the server had the token.
    is_before_body: bool,
}

/// Changes the journal (not saved yet) by the class of a refusal.
fn apply_error_class(ctx: &RefreshContext, locked: &mut LockedProfile<'_, '_>, said: &FailedResponse<'_>) -> Outcome {
    let FailedResponse { text, is_before_body: is_early, .. } = said;
    let (class, is_early) = (&text.verdict.class, *is_early);
    let now = ctx.now();
    let is_unexplained = *class == ResponseClass::Unclassified && !is_early;
    let is_spent = locked.journal.intent.as_ref().is_some_and(|i| i.is_last_chance_used);
    let is_alive = locked.journal.validity.as_ref().is_some_and(|v| !v.max_remaining(&now).is_zero());
    let journal = &mut locked.journal;
    count_client_probe(ctx, journal, &now);
    if !is_early {
        // A server that did not get the token says nothing about it.
        journal.consecutive_unclassified = if is_unexplained { journal.consecutive_unclassified + 1 } else { 0 };
    }
    let outcome = if is_unexplained && is_spent {
        // After the last chance, a refusal without a reason counts: some servers refuse a consumed token in these
        // words.
        presume_consumed(ctx, locked)
    } else if is_unexplained && journal.consecutive_unclassified >= MAX_CONSECUTIVE_UNCLASSIFIED && !is_alive {
        presume_rejected(ctx, locked, &text.said())
    } else if matches!(class, ResponseClass::TokenRejected | ResponseClass::LoginRequired) {
        reject_token(locked, now.wall, text.rejected())
    } else if *class == ResponseClass::ClientRejected {
        block_client(ctx, journal, &now, text.client_refused(), is_early)
    } else {
        put_off(ctx, journal, &now, said)
    };
    set_last_attempt(ctx, &mut locked.journal, &outcome);
    outcome
}

/// The provider refuses the client: requests stop until the configuration changes, but for a few probes (rule 24).
fn block_client(
    ctx: &RefreshContext,
    journal: &mut Journal,
    now: &Moment,
    failure: Failure,
    is_early: bool,
) -> Outcome {
    let held = journal.block(Cause::Client).filter(|block| ctx.is_held_by(block));
    let probe_count = held.and_then(|block| block.client.as_ref()).map_or(0, |client| client.probe_count);
    let client = RefusedClient { config_fingerprint: ctx.client_mark().to_owned(), probe_count };
    let block = Block { client: Some(client), ..Block::new(Cause::Client, failure.clone()) };
    journal.set_block(block.until(now.wall.plus(CLIENT_PROBE_INTERVAL), now));
    undo_send(journal, now, is_early);
    Outcome::new(OutcomeKind::ConfigError).with_error(failure)
}

/// The request was turned away: no process sends before a time that the journal keeps.
fn put_off(ctx: &RefreshContext, journal: &mut Journal, now: &Moment, said: &FailedResponse<'_>) -> Outcome {
    journal.consecutive_failures += 1;
    let wait = match said.text.verdict.class {
        ResponseClass::Throttled => ctx.next_retry_delay(journal, said.retry_after),
        _ => UNCLASSIFIED_DELAY.max(said.retry_after.unwrap_or_default()),
    };
    let at = now.wall.plus(wait);
    journal.set_not_before(Some(at), Some(now));
    undo_send(journal, now, said.is_before_body);
    let failure = said.text.put_off(at, journal.intent.is_some(), said.is_before_body);
    Outcome::new(OutcomeKind::Deferred).with_retry_at(at).with_error(failure)
}

/// Rule 24: a probe of a refused client counts if the server responded or may have got it. One that was not sent says
/// nothing, and one that was turned away for another reason is not repeated sooner than the others.
fn count_client_probe(ctx: &RefreshContext, journal: &mut Journal, now: &Moment) {
    let held = journal.block_mut(Cause::Client).filter(|block| ctx.is_held_by(block) && !ctx.is_forced());
    if let Some(block) = held
        && let Some(client) = &mut block.client
    {
        client.probe_count += 1;
        block.next_check = Some(now.wall.plus(CLIENT_PROBE_INTERVAL));
        block.set_at = Some(now.clone());
    }
}

/// A request that was turned away did nothing to the token. It says nothing about an earlier one, whose doubt stays as
/// it was, with its grace retry and its last chance.
fn undo_send(journal: &mut Journal, now: &Moment, is_early: bool) {
    if is_early {
        // The journal in memory does not have this request.
        return;
    }
    journal.intent = journal.intent.take().filter(|intent| intent.send_count > 1);
    if let Some(intent) = &mut journal.intent {
        intent.send_count -= 1;
        // The end of that attempt was not recorded, because its process died.
        intent.gave_up_at = Some(intent.previous_gave_up_at.take().unwrap_or_else(|| now.clone()));
        intent.is_last_chance_used = false;
    }
}

/// The token was sent and the outcome is unknown. The intent stays.
pub fn settle_in_doubt(ctx: &RefreshContext, locked: &mut LockedProfile<'_, '_>, why: &str) -> Outcome {
    settle_in_doubt_until(ctx, locked, why, None)
}

/// Settles as in doubt, with `retry_after` of the server, which also binds the grace retry and the last chance (rule
/// 25).
fn settle_in_doubt_until(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, '_>,
    why: &str,
    retry_after: Option<Duration>,
) -> Outcome {
    let now = ctx.now();
    count_client_probe(ctx, &mut locked.journal, &now);
    if let Some(intent) = &mut locked.journal.intent {
        intent.gave_up_at = Some(now.clone());
    }
    let wait = if ctx.punishes_reuse() {
        retry_after
    } else {
        locked.journal.consecutive_failures += 1;
        Some(ctx.next_retry_delay(&locked.journal, retry_after))
    };
    if let Some(wait) = wait {
        locked.journal.set_not_before(Some(now.wall.plus(wait)), Some(&now));
    }
    let mut outcome = set_in_doubt(ctx, locked, why);
    set_last_attempt(ctx, &mut locked.journal, &outcome);
    // A journal can be lost or replaced by an older one, so the store's ledger keeps the doubt too.
    if let Some(intent) = locked.journal.open_intent().filter(|_| ctx.punishes_reuse())
        && let Err(e) = locked.mark_in_doubt(&intent.fingerprint, now.wall)
    {
        add_ledger_warning(&mut outcome, &e);
    }
    if let Err(e) = locked.save_journal() {
        outcome.warnings.push(e.to_string());
    }
    outcome
}

/// Adds a warning that the ledger could not be written. The outcome stays: the journal has the token, and the next run
/// writes it.
fn add_ledger_warning(outcome: &mut Outcome, error: &StoreError) {
    tracing::error!(event = "store.unavailable", %error, "cannot write the ledger");
    outcome.warnings.push(format!("cannot write the ledger: {error}"));
}

/// How the message of a doubt begins; its cause follows.
const IN_DOUBT: &str = "the refresh token may have been consumed";

/// The outcome of an attempt that leaves a doubt: its cause, and the decision of the table right after it.
pub fn set_in_doubt(ctx: &RefreshContext, locked: &mut LockedProfile<'_, '_>, why: &str) -> Outcome {
    let error = Some(Failure::new(ErrorKind::InDoubt, format!("{IN_DOUBT}: {why}")));
    let at = ctx.now().wall;
    locked.journal.last_attempt = Some(LastAttempt { at, outcome: OutcomeKind::InDoubt, retry_at: None, error });
    let mut outcome = resolve_doubt(ctx, locked);
    if let Some(failure) = outcome.error.as_mut().filter(|failure| failure.kind == ErrorKind::InDoubt)
        && let Some(hint) = &mut failure.hint
    {
        hint.push_str(&trust_503_hint(&ctx.profile, why));
    }
    outcome
}

fn resolve_doubt(ctx: &RefreshContext, locked: &mut LockedProfile<'_, '_>) -> Outcome {
    let now = ctx.now();
    let journal = &locked.journal;
    let Some(intent) = journal.open_intent() else {
        return in_doubt_outcome(journal, None);
    };
    match decide(intent, &ctx.profile.provider.policy, journal.validity.as_ref(), &now) {
        RetryDecision::Send(_) => in_doubt_outcome(journal, Some(journal.blocked_until(&now).unwrap_or(now.wall))),
        RetryDecision::Wait(at) => in_doubt_outcome(journal, journal.blocked_until(&now).max(Some(at))),
        RetryDecision::GiveUpAtExpiry(_) => in_doubt_outcome(journal, None),
        RetryDecision::Exhausted => give_up_token(ctx, locked),
    }
}

/// The outcome for a caller while a doubt is open.
pub fn in_doubt_outcome(journal: &Journal, retry_at: Option<Timestamp>) -> Outcome {
    let known = journal.last_attempt.as_ref().and_then(|a| a.error.clone()).filter(|f| f.kind == ErrorKind::InDoubt);
    let failure = known.unwrap_or_else(|| {
        Failure::new(ErrorKind::InDoubt, format!("{IN_DOUBT}: it was sent, but no usable response arrived"))
    });
    let next = match retry_at {
        Some(at) => format!(
            "keepalive retries once at {}, or at its first run after that; to avoid the risk",
            at.to_the_second()
        ),
        None => "this server allows no retry: to continue".into(),
    };
    let mut outcome = Outcome::new(OutcomeKind::InDoubt)
        .with_error(failure.with_hint(format!("{next}, sign in again: keepalive login {}", journal.profile)));
    outcome.retry_at = retry_at;
    outcome
}

/// Gives the token up: the last allowed send has been made.
pub fn give_up_token(ctx: &RefreshContext, locked: &mut LockedProfile<'_, '_>) -> Outcome {
    let outcome = presume_consumed(ctx, locked);
    set_last_attempt(ctx, &mut locked.journal, &outcome);
    if let Err(e) = locked.save_journal() {
        tracing::error!(event = "store.unavailable", profile = %ctx.profile.name, error = %e, "cannot write the journal");
    }
    outcome
}

fn presume_consumed(ctx: &RefreshContext, locked: &mut LockedProfile<'_, '_>) -> Outcome {
    let last = locked.journal.last_attempt.as_ref().and_then(|attempt| attempt.error.as_ref());
    let why = last.map(|error| error.message.as_str()).unwrap_or_default();
    let why = why.strip_prefix(IN_DOUBT).unwrap_or_default().to_owned();
    let last = if why.is_empty() { String::new() } else { format!("; last{why}") };
    let failure = Failure::new(
        ErrorKind::PresumedSpent,
        format!("the refresh token must be considered consumed: no attempt got a usable response{last}"),
    )
    .with_hint(format!(
        "sign in again: keepalive login {}{}",
        ctx.profile.name,
        trust_503_hint(&ctx.profile, &last)
    ));
    reject_token(locked, ctx.now().wall, failure)
}

/// Gives up a token that was refused without a reason, once nothing is left to wait for.
fn presume_rejected(ctx: &RefreshContext, locked: &mut LockedProfile<'_, '_>, said: &str) -> Outcome {
    let times = locked.journal.consecutive_unclassified;
    let failure = Failure::new(
        ErrorKind::PresumedDead,
        format!(
            "the refresh token is probably no longer valid: {times} rejections in a row without a reason; last: {said}"
        ),
    )
    .with_hint(format!("sign in again: keepalive login {}", ctx.profile.name));
    reject_token(locked, ctx.now().wall, failure)
}

/// Rule 22: the rejection is kept by fingerprint, so only a login clears it, and not even the loss of this journal
/// does.
fn reject_token(locked: &mut LockedProfile<'_, '_>, at: Timestamp, failure: Failure) -> Outcome {
    let mut outcome = Outcome::new(OutcomeKind::NeedsLogin).with_error(failure.clone());
    if let Some(fingerprint) = locked.journal.fingerprint.clone() {
        if let Err(e) = locked.mark_consumed_or_queue(&fingerprint) {
            add_ledger_warning(&mut outcome, &e);
        }
        // A token that may have been consumed is not sent again, whoever asks for it.
        let is_refused = failure.kind != ErrorKind::PresumedSpent;
        let sent_by = locked.journal.intent.as_ref().and_then(|intent| intent.client_mark.clone());
        let client = sent_by.filter(|_| is_refused);
        locked.journal.rejected = Some(Rejection { fingerprint, at, failure, client });
    }
    locked.journal.intent = None;
    outcome
}

/// Settles an attempt that sent nothing.
pub fn settle_unsent(ctx: &RefreshContext, locked: &mut LockedProfile<'_, '_>, why: NotSentReason) -> Outcome {
    match why {
        NotSentReason::BeforeSend(BeforeSendError::Journal(error)) => Outcome::new(OutcomeKind::StoreUnavailable)
            .with_error(
                Failure::new(ErrorKind::Io, format!("cannot write the journal: {error}"))
                    .with_hint("check free space and permissions of the state directory"),
            ),
        NotSentReason::BeforeSend(BeforeSendError::Refused(reason) | BeforeSendError::RefusedAfterIntent(reason)) => {
            Outcome::new(OutcomeKind::Deferred)
                .with_error(Failure::new(ErrorKind::Interrupted, format!("nothing was sent: {reason}")))
        }
        NotSentReason::Network(reason) | NotSentReason::EarlyResponse(reason) => {
            let journal = &mut locked.journal;
            journal.consecutive_failures += 1;
            let now = ctx.now();
            let at = now.wall.plus(ctx.next_retry_delay(journal, None));
            journal.set_not_before(Some(at), Some(&now));
            let failure = Failure::new(
                ErrorKind::Network,
                format!("cannot reach {}: {reason}", ctx.prepared.token_endpoint.origin().ascii_serialization()),
            )
            .with_hint(format!("nothing was sent; no attempt before {}", at.to_the_second()));
            let outcome = Outcome::new(OutcomeKind::Deferred).with_retry_at(at).with_error(failure);
            set_last_attempt(ctx, journal, &outcome);
            match locked.save_journal() {
                Ok(()) => outcome,
                Err(e) => e.outcome(),
            }
        }
    }
}

/// There is no credential to refresh.
pub fn no_credential(name: &ProfileName) -> Outcome {
    Outcome::new(OutcomeKind::NeedsLogin).with_error(
        Failure::new(ErrorKind::NoCredential, format!("there is no credential for profile {name}"))
            .with_hint(format!("keepalive login {name}, or keepalive import {name}")),
    )
}

/// Records the outcome for followers and for `status`.
pub fn set_last_attempt(ctx: &RefreshContext, journal: &mut Journal, outcome: &Outcome) {
    journal.sequence += 1;
    journal.last_attempt = Some(LastAttempt {
        at: ctx.now().wall,
        outcome: outcome.kind,
        retry_at: outcome.retry_at,
        error: outcome.error.clone(),
    });
}
