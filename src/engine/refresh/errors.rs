//! Settles a refresh without tokens: the response was an error, the outcome is in doubt, or nothing was sent.

use std::time::Duration;

use crate::clock::{Moment, Timestamp};
use crate::credential::content_coding;
use crate::credential::token_response;
use crate::credential::token_response::{ErrorResponse, ParsedResponse};
use crate::engine::explain;
use crate::engine::refresh::backoff::{CLIENT_PROBE_INTERVAL, UNCLASSIFIED_DELAY};
use crate::engine::refresh::context::RefreshContext;
use crate::engine::refresh::retry_policy::{RetryDecision, decide};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::ProfileName;
use crate::provider::classify;
use crate::provider::classify::ResponseClass;
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
    let class = classify::classify(response.status, denied, &ctx.profile.provider);
    explain::response_class(&ctx.profile, response.status, &class, denied.map(|denied| denied.code.as_str()));
    let retry_after = response.retry_after.as_deref().and_then(|h| classify::retry_after(h, ctx.now().wall));
    if class == ResponseClass::Ambiguous {
        let why = format!("the server returned {}{}", response.status, error_text(denied));
        return settle_in_doubt_until(ctx, locked, &why, retry_after);
    }
    let said = FailedResponse { status: response.status, error: denied, retry_after, is_before_body: false };
    let sent = locked.journal.intent.as_ref().map(|i| i.fingerprint.clone());
    let mut outcome = apply_error_class(ctx, locked, class, &said);
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
    let denied = match body.map(|body| token_response::parse(response.status, &body.bytes, response.is_complete)) {
        Ok(ParsedResponse::Denied(denied)) => Some(denied),
        Ok(ParsedResponse::Granted(_) | ParsedResponse::Unreadable) | Err(content_coding::BodyTooLarge) => None,
    };
    let class = match classify::classify(response.status, denied.as_ref(), &ctx.profile.provider) {
        // A server cannot judge a token that it has not seen.
        ResponseClass::TokenRejected | ResponseClass::Ambiguous => ResponseClass::Throttled,
        class @ (ResponseClass::Throttled | ResponseClass::ClientRejected | ResponseClass::Unclassified) => class,
    };
    explain::response_class(&ctx.profile, response.status, &class, denied.as_ref().map(|denied| denied.code.as_str()));
    let retry_after = response.retry_after.as_deref().and_then(|h| classify::retry_after(h, ctx.now().wall));
    let said = FailedResponse { status: response.status, error: denied.as_ref(), retry_after, is_before_body: true };
    let outcome = apply_error_class(ctx, locked, class, &said);
    match locked.save_journal() {
        Ok(()) => outcome,
        Err(e) => e.outcome(),
    }
}

/// The parts of a response that grants nothing.
struct FailedResponse<'a> {
    status: u16,
    error: Option<&'a ErrorResponse>,
    retry_after: Option<Duration>,
    /// The response came before the server had the token.
    is_before_body: bool,
}

/// Changes the journal (not saved yet) by the class of a refusal.
fn apply_error_class(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, '_>,
    class: ResponseClass,
    said: &FailedResponse<'_>,
) -> Outcome {
    let FailedResponse { status, error: denied, retry_after, is_before_body: is_early } = *said;
    let now = ctx.now();
    let name = &ctx.profile.name;
    let said = format!("{} returned {status}{}", ctx.profile.provider.name, error_text(denied));
    let is_unexplained = class == ResponseClass::Unclassified && !is_early;
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
        presume_rejected(ctx, locked, &said)
    } else if class == ResponseClass::TokenRejected {
        let code: &str = denied.map_or("invalid_grant", |d| &d.code);
        let failure = Failure::new(ErrorKind::of_provider(code), said)
            .with_hint(format!("sign in again: keepalive login {name}"));
        reject_token(locked, now.wall, failure)
    } else if class == ResponseClass::ClientRejected {
        block_client(ctx, journal, &now, said, is_early)
    } else {
        put_off(ctx, journal, &now, class, said, retry_after, is_early)
    };
    set_last_attempt(ctx, &mut locked.journal, &outcome);
    outcome
}

/// The provider refuses the client: requests stop until the configuration changes, but for a few probes (rule 24).
fn block_client(ctx: &RefreshContext, journal: &mut Journal, now: &Moment, said: String, is_early: bool) -> Outcome {
    let failure = Failure::new(ErrorKind::ClientRefused, said).with_hint(format!(
        "check client_id, client_auth, client_secret and the endpoint in [provider.{}]{}",
        ctx.profile.provider.name,
        ctx.prepared.encoding_hint()
    ));
    let held = journal.block(Cause::Client).filter(|block| ctx.is_held_by(block));
    let probe_count = held.and_then(|block| block.client.as_ref()).map_or(0, |client| client.probe_count);
    let client = RefusedClient { config_fingerprint: ctx.client_mark().to_owned(), probe_count };
    let block = Block { client: Some(client), ..Block::new(Cause::Client, failure.clone()) };
    journal.set_block(block.until(now.wall.plus(CLIENT_PROBE_INTERVAL), now));
    undo_send(journal, now, is_early);
    Outcome::new(OutcomeKind::ConfigError).with_error(failure)
}

/// The request was turned away and the token is unaffected: no process sends before a time that the journal keeps.
fn put_off(
    ctx: &RefreshContext,
    journal: &mut Journal,
    now: &Moment,
    class: ResponseClass,
    said: String,
    retry_after: Option<Duration>,
    is_early: bool,
) -> Outcome {
    journal.consecutive_failures += 1;
    let (kind, wait) = match class {
        ResponseClass::Unclassified => (ErrorKind::Refused, UNCLASSIFIED_DELAY.max(retry_after.unwrap_or_default())),
        _ => (ErrorKind::Throttled, ctx.next_retry_delay(journal, retry_after)),
    };
    let at = now.wall.plus(wait);
    journal.set_not_before(Some(at), Some(now));
    undo_send(journal, now, is_early);
    let stands = match journal.intent {
        Some(_) => "the outcome of an earlier request is still in doubt",
        None => "the refresh token is unaffected",
    };
    let failure = Failure::new(kind, said).with_hint(format!("{stands}; no attempt before {}", at.to_the_second()));
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

/// The outcome of an attempt that leaves a doubt: its cause, and the decision of the table right after it.
pub fn set_in_doubt(ctx: &RefreshContext, locked: &mut LockedProfile<'_, '_>, why: &str) -> Outcome {
    let error = Some(Failure::new(ErrorKind::InDoubt, format!("the refresh token may have been consumed: {why}")));
    let at = ctx.now().wall;
    locked.journal.last_attempt = Some(LastAttempt { at, outcome: OutcomeKind::InDoubt, retry_at: None, error });
    resolve_doubt(ctx, locked)
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
    let failure = Failure::new(
        ErrorKind::PresumedSpent,
        "the refresh token must be considered consumed: no attempt got a usable response",
    )
    .with_hint(format!("sign in again: keepalive login {}", ctx.profile.name));
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
        locked.journal.rejected = Some(Rejection { fingerprint, at, failure });
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

fn error_text(denied: Option<&ErrorResponse>) -> String {
    match denied {
        None => String::new(),
        Some(ErrorResponse { code, description: None }) => format!(" {code}"),
        Some(ErrorResponse { code, description: Some(text) }) => format!(" {code}: {text}"),
    }
}
