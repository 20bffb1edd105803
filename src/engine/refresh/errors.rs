//! Settles a refresh without tokens: the response was an error, the outcome is in doubt, or nothing was sent. (pure)

use std::time::Duration;

use crate::clock::Timestamp;
use crate::credential::content_coding;
use crate::credential::error_response::ErrorResponse;
use crate::credential::token_response::{ParsedResponse, parse_response};
use crate::engine::explain;
use crate::engine::refresh::backoff::{CLIENT_PROBE_INTERVAL, UNCLASSIFIED_DELAY, UNSENT_MAX_DELAY};
use crate::engine::refresh::context::Facts;
use crate::engine::refresh::refusal_text::{RefusalText, trust_503_hint};
use crate::engine::refresh::retry_policy::{RetryDecision, decide_doubt};
use crate::engine::refresh::settle::{Changes, End, LedgerWrite, Settlement};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::ProfileName;
use crate::provider::classify;
use crate::provider::classify::{Refusal, ResponseClass, Verdict};
use crate::provider::{BeforeSendError, RawResponse};
use crate::store::disk::sealed_content::SealedResponse;
use crate::store::journal::block::{Block, Cause, RefusedClient};
use crate::store::journal::{Journal, LastAttempt, PauseCause, Rejection};

/// How many unexplained refusals in a row make the token count as rejected, once the access token has expired.
const MAX_CONSECUTIVE_UNCLASSIFIED: u32 = 5;

/// A response that grants nothing.
struct FailedResponse<'a> {
    text: RefusalText<'a>,
    retry_after: Option<Duration>,
    /// The response came before the server had the token.
    is_early: bool,
}

impl FailedResponse<'_> {
    fn class(&self) -> &ResponseClass {
        &self.text.verdict.class
    }
}

/// The verdict on a refusal, which is told to the log.
fn judge(facts: &Facts<'_>, refusal: &Refusal<'_>, is_early: bool) -> Verdict {
    let mut verdict = classify::classify(refusal, &facts.profile.provider);
    // A server cannot judge a token that it has not seen.
    if is_early
        && matches!(
            verdict.class,
            ResponseClass::TokenRejected | ResponseClass::LoginRequired | ResponseClass::Ambiguous
        )
    {
        verdict.class = ResponseClass::Throttled;
    }
    let code = refusal.error.map(|error| error.code.as_str());
    explain::response_class(facts.profile, refusal.status, &verdict.class, code);
    verdict
}

/// Settles a response that granted nothing.
pub fn settle_error_response(
    facts: &Facts<'_>,
    journal: Journal,
    response: &SealedResponse,
    denied: Option<&ErrorResponse>,
) -> Settlement {
    let body = content_coding::decode(response.content_encoding.as_deref(), &response.decode_body());
    let refusal = Refusal {
        status: response.status,
        content_type: response.content_type.as_deref(),
        body: &body.map(|body| body.bytes).unwrap_or_default(),
        error: denied,
        was_granted_before: journal.is_request_known(),
    };
    let verdict = judge(facts, &refusal, false);
    let text = RefusalText { profile: facts.profile, status: response.status, error: denied, verdict: &verdict };
    let retry_after = retry_after(facts, response.retry_after.as_deref());
    match verdict.class {
        ResponseClass::Ambiguous => {
            settle_in_doubt(facts, journal, &format!("the server {}", text.returned()), retry_after)
        }
        _ => settle_refusal(facts, journal, &FailedResponse { text, retry_after, is_early: false }),
    }
}

/// Settles a response that came before the server had the token: the token is unspent whatever the response says.
pub fn settle_early_response(facts: &Facts<'_>, journal: Journal, response: &RawResponse) -> Settlement {
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
    let verdict = judge(facts, &refusal, true);
    let (status, error) = (response.status, denied.as_ref());
    let text = RefusalText { profile: facts.profile, status, error, verdict: &verdict };
    let retry_after = retry_after(facts, response.retry_after.as_deref());
    settle_refusal(facts, journal, &FailedResponse { text, retry_after, is_early: true })
}

fn retry_after(facts: &Facts<'_>, header: Option<&str>) -> Option<Duration> {
    header.and_then(|header| classify::retry_after(header, facts.now.wall))
}

/// Settles a refusal by its class.
fn settle_refusal(facts: &Facts<'_>, journal: Journal, failed: &FailedResponse<'_>) -> Settlement {
    let mut changes = Changes::from(journal);
    let journal = &mut changes.journal;
    let is_unexplained = *failed.class() == ResponseClass::Unclassified && !failed.is_early;
    let is_spent = journal.intent.as_ref().is_some_and(|i| i.is_last_chance_used);
    let is_alive = journal.validity.as_ref().is_some_and(|v| !v.max_remaining(&facts.now).is_zero());
    let sent = journal.intent.as_ref().map(|i| i.fingerprint.clone());
    count_client_probe(facts, journal);
    journal.note_forced_send();
    if !failed.is_early {
        // A server that did not get the token says nothing about it.
        journal.consecutive_unclassified = if is_unexplained { journal.consecutive_unclassified + 1 } else { 0 };
    }
    let times = journal.consecutive_unclassified;
    let end = if failed.is_early { End::Unsent } else { End::Refused };
    let outcome = if is_unexplained && is_spent {
        // After the last chance, a refusal without a reason counts: some servers refuse a consumed token in these
        // words.
        presume_consumed(facts, &mut changes)
    } else if is_unexplained && times >= MAX_CONSECUTIVE_UNCLASSIFIED && !is_alive {
        let why = format!(
            "the refresh token is probably no longer valid: {times} rejections in a row without a reason; last: {}",
            failed.text.said()
        );
        reject_token(facts, &mut changes, Failure::new(ErrorKind::PresumedDead, why).with_hint(sign_in_again(facts)))
    } else if matches!(failed.class(), ResponseClass::TokenRejected | ResponseClass::LoginRequired) {
        reject_token(facts, &mut changes, failed.text.rejected())
    } else if *failed.class() == ResponseClass::ClientRejected {
        block_client(facts, &mut changes.journal, failed)
    } else {
        put_off(facts, &mut changes.journal, failed)
    };
    // The request was turned away, and nothing was sent before it.
    if let Some(sent) = sent.filter(|_| changes.journal.intent.is_none() && !changes.journal.is_rejected()) {
        changes.ledger.push(LedgerWrite::ClearDoubt(sent));
    }
    changes.end(end, outcome, &facts.now)
}

/// The provider refuses the client: requests stop until the configuration changes, but for a few probes (rule 24).
fn block_client(facts: &Facts<'_>, journal: &mut Journal, failed: &FailedResponse<'_>) -> Outcome {
    let failure = failed.text.client_refused(facts.prepared.encoding_hint());
    let held = facts.client_block(journal).and_then(|block| block.client.as_ref());
    let client = RefusedClient {
        config_fingerprint: facts.client_mark.to_owned(),
        probe_count: held.map_or(0, |client| client.probe_count),
    };
    let block = Block { client: Some(client), ..Block::new(Cause::Client, failure.clone()) };
    journal.set_block(block.until(facts.now.wall.plus(CLIENT_PROBE_INTERVAL), &facts.now));
    undo_send(facts, journal, failed.is_early);
    Outcome::new(OutcomeKind::ConfigError).with_error(failure)
}

/// The request was turned away: no process sends before a time that the journal keeps.
fn put_off(facts: &Facts<'_>, journal: &mut Journal, failed: &FailedResponse<'_>) -> Outcome {
    journal.consecutive_failures += 1;
    let retry_after = failed.retry_after;
    let (wait, pause) = match (failed.class(), retry_after) {
        (ResponseClass::Throttled, _) => (facts.next_retry_delay(journal, retry_after), None),
        (_, Some(told)) => (UNCLASSIFIED_DELAY.max(told), None),
        (_, None) => (UNCLASSIFIED_DELAY, Some(facts.pause(PauseCause::Unexplained))),
    };
    undo_send(facts, journal, failed.is_early);
    let stands = failed.text.stands(journal.intent.is_some(), failed.is_early);
    let at = facts.now.wall.plus(wait);
    journal.set_not_before(Some(at), Some(&facts.now));
    journal.pause = pause;
    let exception = match &journal.pause {
        Some(_) if journal.intent.is_none() => "; `--force` tries again after a minute",
        Some(_) | None => "",
    };
    let hint = format!("{stands}; no attempt before {}{exception}", at.to_the_second());
    let failure = failed.text.put_off().with_hint(hint);
    Outcome::new(OutcomeKind::Deferred).with_retry_at(at).with_error(failure)
}

/// Rule 24: a probe of a refused client counts if the server responded or may have got it. One that was not sent says
/// nothing, and one that was turned away for another reason is not repeated sooner than the others.
fn count_client_probe(facts: &Facts<'_>, journal: &mut Journal) {
    if facts.is_forced() || facts.client_block(journal).is_none() {
        return;
    }
    if let Some(block) = journal.block_mut(Cause::Client)
        && let Some(client) = &mut block.client
    {
        client.probe_count += 1;
        block.next_check = Some(facts.now.wall.plus(CLIENT_PROBE_INTERVAL));
        block.set_at = Some(facts.now.clone());
    }
}

/// A request that was turned away did nothing to the token. It says nothing about an earlier one, whose doubt stays as
/// it was, with its grace retry and its last chance.
fn undo_send(facts: &Facts<'_>, journal: &mut Journal, is_early: bool) {
    if is_early {
        // The journal in memory does not have this request.
        return;
    }
    journal.intent = journal.intent.take().filter(|intent| intent.send_count > 1);
    if let Some(intent) = &mut journal.intent {
        intent.send_count -= 1;
        // The end of that attempt was not recorded, because its process died.
        intent.gave_up_at = Some(intent.previous_gave_up_at.take().unwrap_or_else(|| facts.now.clone()));
        intent.is_last_chance_used = false;
    }
}

/// The token was sent and the outcome is unknown. The intent stays. `retry_after` of the server binds the grace retry and
/// the last chance too (rule 25).
pub fn settle_in_doubt(
    facts: &Facts<'_>,
    mut journal: Journal,
    why: &str,
    retry_after: Option<Duration>,
) -> Settlement {
    count_client_probe(facts, &mut journal);
    journal.note_forced_send();
    if journal.intent.as_ref().is_some_and(|intent| intent.is_forced) {
        return settle_forced_doubt(facts, journal, why);
    }
    if let Some(intent) = &mut journal.intent {
        intent.gave_up_at = Some(facts.now.clone());
    }
    let wait = if facts.punishes_reuse() {
        retry_after
    } else {
        journal.consecutive_failures += 1;
        Some(facts.next_retry_delay(&journal, retry_after))
    };
    if let Some(wait) = wait {
        journal.set_not_before(Some(facts.now.wall.plus(wait)), Some(&facts.now));
    }
    let mut changes = Changes::from(journal);
    let outcome = resolve_doubt(facts, &mut changes, why);
    // A journal can be lost or replaced by an older one, so the store's ledger keeps the doubt too.
    if let Some(intent) = changes.journal.open_intent().filter(|_| facts.punishes_reuse()) {
        changes.ledger.push(LedgerWrite::InDoubt(intent.fingerprint.clone(), facts.now.wall));
    }
    changes.end(End::InDoubt, outcome, &facts.now)
}

/// A person had a rejected token sent once more, and it is unknown whether the server has accepted it now. If that can
/// have used it up, it is given up; else it is rejected as before.
fn settle_forced_doubt(facts: &Facts<'_>, journal: Journal, why: &str) -> Settlement {
    let mut changes = Changes::from(journal);
    let failure = match (facts.punishes_reuse(), &changes.journal.rejected) {
        (false, Some(rejected)) => {
            let message = format!("{}; it was sent once more, but {why}", rejected.failure.message);
            Failure { message, ..rejected.failure.clone() }
        }
        (true, _) | (false, None) => {
            let message =
                format!("the rejected refresh token was sent once more and must be considered consumed: {why}");
            Failure::new(ErrorKind::PresumedSpent, message).with_hint(sign_in_again(facts))
        }
    };
    let outcome = match failure.kind {
        ErrorKind::PresumedSpent => reject_token(facts, &mut changes, failure),
        _ => {
            changes.journal.intent = None;
            Outcome::new(OutcomeKind::NeedsLogin).with_error(failure)
        }
    };
    changes.end(End::InDoubt, outcome, &facts.now)
}

/// How the message of a doubt begins; its cause follows.
const IN_DOUBT: &str = "the refresh token may have been consumed";

/// The outcome of an attempt that leaves a doubt: its cause, and the decision of the table right after it.
pub fn resolve_doubt(facts: &Facts<'_>, changes: &mut Changes, why: &str) -> Outcome {
    let error = Some(Failure::new(ErrorKind::InDoubt, format!("{IN_DOUBT}: {why}")));
    let (at, outcome) = (facts.now.wall, OutcomeKind::InDoubt);
    changes.journal.last_attempt = Some(LastAttempt { at, outcome, retry_at: None, error });
    match decide_doubt(&changes.journal, facts.policy(), &facts.now) {
        Some(RetryDecision::Exhausted) => presume_consumed(facts, changes),
        other => {
            let retry_at = other.and_then(|decision| decision.retry_at(&changes.journal, &facts.now));
            in_doubt_outcome(facts, &changes.journal, retry_at)
        }
    }
}

/// The outcome for a caller while a doubt is open.
pub fn in_doubt_outcome(facts: &Facts<'_>, journal: &Journal, retry_at: Option<Timestamp>) -> Outcome {
    let known = journal.last_attempt.as_ref().and_then(|a| a.error.clone()).filter(|f| f.kind == ErrorKind::InDoubt);
    let unknown = "the refresh token may have been consumed: it was sent, but no usable response arrived";
    let failure = known.unwrap_or_else(|| Failure::new(ErrorKind::InDoubt, unknown));
    let next = match retry_at {
        Some(at) => format!(
            "keepalive retries once at {}, or at its first run after that; to avoid the risk",
            at.to_the_second()
        ),
        None => "this server allows no retry: to continue".into(),
    };
    let trust = trust_503_hint(facts.profile, &failure.message);
    let failure = failure.with_hint(format!("{next}, sign in again: keepalive login {}{trust}", journal.profile));
    Outcome { retry_at, ..Outcome::new(OutcomeKind::InDoubt).with_error(failure) }
}

/// Gives the token up: the last allowed send has been made.
pub fn give_up_token(facts: &Facts<'_>, journal: Journal) -> Settlement {
    let mut changes = Changes::from(journal);
    let outcome = presume_consumed(facts, &mut changes);
    changes.end(End::InDoubt, outcome, &facts.now)
}

fn presume_consumed(facts: &Facts<'_>, changes: &mut Changes) -> Outcome {
    let last = changes.journal.last_attempt.as_ref().and_then(|attempt| attempt.error.as_ref());
    let cause = last.and_then(|error| error.message.strip_prefix(IN_DOUBT)?.strip_prefix(": "));
    let last = cause.map_or(String::new(), |cause| format!("; last: {cause}"));
    let message = format!("the refresh token must be considered consumed: no attempt got a usable response{last}");
    let hint = format!("{}{}", sign_in_again(facts), trust_503_hint(facts.profile, &last));
    reject_token(facts, changes, Failure::new(ErrorKind::PresumedSpent, message).with_hint(hint))
}

fn sign_in_again(facts: &Facts<'_>) -> String {
    format!("sign in again: keepalive login {}", facts.profile.name)
}

/// Rule 22: the rejection is kept by fingerprint, and not even the loss of this journal clears it.
fn reject_token(facts: &Facts<'_>, changes: &mut Changes, failure: Failure) -> Outcome {
    let intent = changes.journal.intent.take();
    if let Some(fingerprint) = changes.journal.fingerprint.clone() {
        // A token that may have been consumed is not sent again, whatever the configuration or a person says.
        let was_in_doubt = facts.punishes_reuse() && intent.as_ref().is_some_and(|intent| intent.send_count > 1);
        let is_refused = failure.kind != ErrorKind::PresumedSpent && !was_in_doubt;
        changes.ledger.push(match is_refused {
            true => LedgerWrite::Rejected(fingerprint.clone()),
            false => LedgerWrite::Consumed(fingerprint.clone()),
        });
        let client = intent.and_then(|intent| intent.client_mark).filter(|_| is_refused);
        let (at, failure) = (facts.now.wall, failure.clone());
        changes.journal.rejected = Some(Rejection { fingerprint, at, failure, client, was_in_doubt });
    }
    Outcome::new(OutcomeKind::NeedsLogin).with_error(failure)
}

/// Settles a flight that could not reach the server. The pause is the daemon's: a person may try at once (rule 6).
pub fn settle_unreachable(facts: &Facts<'_>, mut journal: Journal, reason: &str) -> Settlement {
    journal.consecutive_failures += 1;
    let at = facts.now.wall.plus(facts.next_retry_delay(&journal, None).min(UNSENT_MAX_DELAY));
    journal.pause(at, &facts.now, facts.pause(PauseCause::Unsent));
    let origin = facts.prepared.token_endpoint.origin().ascii_serialization();
    let failure = Failure::new(ErrorKind::Network, format!("cannot reach {origin}: {reason}")).with_hint(format!(
        "nothing was sent; no run tries by itself before {}, a command does at once",
        at.to_the_second()
    ));
    let outcome = Outcome::new(OutcomeKind::Deferred).with_retry_at(at).with_error(failure);
    Changes::from(journal).end(End::Unsent, outcome, &facts.now)
}

/// What a caller is told who is held back by a pause: what it came from, and that it is no news.
pub fn paused(journal: &Journal, until: Timestamp) -> Outcome {
    let (kind, error) = match journal.block(Cause::AccessToken) {
        Some(block) => (block.outcome, Some(block.failure.clone())),
        None => (OutcomeKind::Deferred, journal.last_attempt.as_ref().and_then(|a| a.error.clone())),
    };
    let error = match (error, &journal.last_attempt) {
        (Some(error), Some(last)) => Failure {
            message: format!("{}; not tried again since {}", error.message, last.at.to_the_second()),
            ..error
        },
        (Some(error), None) => error,
        (None, _) => Failure::new(ErrorKind::NotBefore, "no request is allowed yet"),
    };
    Outcome::new(kind).with_retry_at(until).with_error(error)
}

/// The send gate did not let the token through.
pub fn withheld(why: BeforeSendError) -> Outcome {
    match why {
        BeforeSendError::Journal(error) => Outcome::new(OutcomeKind::StoreUnavailable).with_error(
            Failure::new(ErrorKind::Io, format!("cannot write the journal: {error}"))
                .with_hint("check free space and permissions of the state directory"),
        ),
        BeforeSendError::Refused(reason) | BeforeSendError::RefusedAfterIntent(reason) => {
            Outcome::new(OutcomeKind::Deferred)
                .with_error(Failure::new(ErrorKind::Interrupted, format!("nothing was sent: {reason}")))
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
