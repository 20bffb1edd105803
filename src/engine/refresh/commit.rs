//! Handles the end of an exchange: seals the response, reads it, and settles the journal.

use std::sync::Arc;
use std::time::Duration;

use crate::credential::secret::RefreshToken;
use crate::credential::{Credential, Generation};
use crate::engine::refresh::context::RefreshContext;
use crate::engine::refresh::errors;
use crate::engine::refresh::errors::{set_last_attempt, settle_in_doubt};
use crate::events;
use crate::guard::SpentCredential;
use crate::outcome::{Outcome, OutcomeKind, Publication};
use crate::profile::{GraceSemantics, Rotation};
use crate::provider::RawResponse;
use crate::store::disk::sealed_content::{GrantWarning, ResponseContent, SealedGrant, SealedResponse, SecretText};
use crate::store::journal::Journal;
use crate::store::journal::block::Cause;
use crate::store::journal::transitions::GrantEffects;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::{LockedProfile, PendingResponse, StoreError};
use crate::sys::durable::StagedFile;

/// How often a received response is tried to be saved before the run gives up: for a quarter of a minute.
const SEAL_TRIES: u32 = 60;
const SEAL_RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// A token that was sent, and the credential that it came from.
pub struct SentRefresh<'l> {
    pub refresh_token: RefreshToken,
    pub spent: SpentCredential<'l>,
    pub response: RawResponse,
}

/// Steps 7 to 9 for a complete response.
pub fn settle_exchange(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, '_>,
    key: &Arc<SealingKey>,
    space: StagedFile,
    sent_refresh: SentRefresh<'_>,
) -> Outcome {
    let response = match seal_response(ctx, locked, key, space, sent_refresh) {
        Ok(response) => response,
        Err(outcome) => return outcome,
    };
    let content = response.parse(next_generation(&locked.journal));
    settle_response(ctx, locked, key, &response, content, false)
}

/// Steps 7 to 9 for a response that was cut or did not arrive. What arrived is sealed as evidence, and counts if it
/// does hold the tokens.
pub fn settle_lost_exchange(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, '_>,
    key: &Arc<SealingKey>,
    space: StagedFile,
    sent_refresh: SentRefresh<'_>,
    why: &str,
) -> Outcome {
    if sent_refresh.response.body.is_empty() {
        drop(space);
        return settle_in_doubt(ctx, locked, why);
    }
    match seal_response(ctx, locked, key, space, sent_refresh) {
        Err(outcome) => outcome,
        Ok(response) => match response.parse(next_generation(&locked.journal)) {
            content @ ResponseContent::Granted { .. } => settle_response(ctx, locked, key, &response, content, false),
            ResponseContent::Denied(_) | ResponseContent::Unreadable | ResponseContent::TooLarge => {
                settle_in_doubt(ctx, locked, why)
            }
        },
    }
}

/// Settles a sealed response of a run that died before it could. Tokens in it become the newest generation, or already
/// are, and the refresh goes on from there (`None`); a refusal or a doubt is the outcome of this run too.
pub fn settle_recovered(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, '_>,
    key: &Arc<SealingKey>,
    pending: PendingResponse,
) -> Result<Option<Outcome>, Outcome> {
    let PendingResponse { response, content, attempt_id, is_promoted, .. } = pending;
    let is_ours = locked.journal.intent.as_ref().is_some_and(|i| Some(&i.attempt_id) == attempt_id.as_ref());
    let generation = locked.journal.generation;
    match content {
        content @ ResponseContent::Granted { .. } => {
            // An older journal was restored, perhaps.
            let asked = || response.to_intent(attempt_id.as_deref(), generation, key);
            locked.journal.intent = locked.journal.intent.take().or_else(asked);
            let settled = settle_response(ctx, locked, key, &response, content, is_promoted);
            Ok((settled.kind != OutcomeKind::Refreshed).then_some(settled))
        }
        // Nothing that grants no tokens is given that name: it is damaged, which its loading tells.
        ResponseContent::Denied(_) | ResponseContent::Unreadable | ResponseContent::TooLarge if is_promoted => Ok(None),
        // It answers an attempt that the journal has settled since.
        ResponseContent::Denied(_) | ResponseContent::Unreadable | ResponseContent::TooLarge if !is_ours => {
            locked.discard_response()?;
            Ok(None)
        }
        // Judged as it would have been by the run that received it.
        content if response.is_complete => Ok(Some(settle_response(ctx, locked, key, &response, content, false))),
        ResponseContent::Denied(_) | ResponseContent::Unreadable | ResponseContent::TooLarge => {
            Ok(Some(settle_in_doubt(ctx, locked, "its response could not be read")))
        }
    }
}

fn next_generation(journal: &Journal) -> Generation {
    journal.intent.as_ref().map_or(journal.generation, |i| i.generation).next()
}

/// Step 7: seals the response before anything reads it. An error does not make the run give up a response in hand:
/// where the disk does not take it, the keyring may.
fn seal_response(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, '_>,
    key: &Arc<SealingKey>,
    space: StagedFile,
    sent_refresh: SentRefresh<'_>,
) -> Result<SealedResponse, Outcome> {
    let generation = next_generation(&locked.journal);
    let (attempt, response) = to_sealed_response(ctx, &locked.journal, sent_refresh);
    let first = locked.seal_response(space, &response, generation, &attempt, key);
    let Err(mut error) = first else {
        return Ok(response);
    };
    tracing::error!(event = "store.unavailable", profile = %ctx.profile.name, %error, "cannot write the response, retrying");
    let mut is_published = false;
    for _ in 0..SEAL_TRIES {
        if let (false, ResponseContent::Granted { credential, .. }) = (is_published, response.parse(generation)) {
            is_published =
                locked.publish(&credential, key).is_ok() && locked.journal.publication == Publication::Published;
        }
        #[expect(clippy::disallowed_methods, reason = "no event says that the disk accepts writes again")]
        std::thread::sleep(SEAL_RETRY_INTERVAL);
        let space = match locked.reserve_response_space() {
            Ok(space) => space,
            Err(e) => {
                error = e;
                continue;
            }
        };
        match locked.seal_response(space, &response, generation, &attempt, key) {
            Ok(()) => return Ok(response),
            Err(e) => error = e,
        }
    }
    let mut outcome = error.outcome();
    outcome.kind = OutcomeKind::InDoubt;
    if is_published {
        outcome.kind = OutcomeKind::Refreshed;
        outcome.warnings.push("the new token is only in the keyring; the next refresh will write it to disk".into());
    }
    Err(outcome)
}

fn to_sealed_response(
    ctx: &RefreshContext,
    journal: &Journal,
    sent_refresh: SentRefresh<'_>,
) -> (String, SealedResponse) {
    let SentRefresh { refresh_token: sent, spent, response } = sent_refresh;
    let intent = journal.intent.as_ref();
    let now = ctx.now();
    let sealed = SealedResponse {
        status: response.status,
        content_type: response.content_type,
        content_encoding: response.content_encoding,
        retry_after: response.retry_after,
        body: SealedResponse::encode_body(&response.body),
        is_complete: response.is_complete,
        sent_refresh_token: SecretText(sent.expose().into()),
        sent_at: intent.map_or(now, |i| i.last_sent.clone()),
        send_count: intent.map_or(1, |i| i.send_count),
        binding: spent.binding,
        previous_grant: SealedGrant::from_grant(&spent.grant),
        default_lifetime_ms: u64::try_from(ctx.profile.provider.default_lifetime.as_millis()).unwrap_or(u64::MAX),
        further_secrets: response.sent.iter().filter(|s| *s != sent.expose()).map(|s| SecretText(s.into())).collect(),
        cooldown_ms: Some(u64::try_from(cooldown_after_grace(ctx, journal).as_millis()).unwrap_or(u64::MAX)),
    };
    (intent.map_or_else(String::new, |i| i.attempt_id.clone()), sealed)
}

/// Settles the journal by a sealed answer, which says `content`. `is_promoted`: it has its final name.
fn settle_response(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, '_>,
    key: &Arc<SealingKey>,
    response: &SealedResponse,
    content: ResponseContent,
    is_promoted: bool,
) -> Outcome {
    match content {
        ResponseContent::Granted { credential, is_rotated, warnings: notes } => {
            let warnings = notes.iter().map(|note| warning_text(*note, ctx)).collect();
            let after = response.grant_effects(notes);
            commit_grant(
                ctx,
                locked,
                key,
                &GrantToCommit { credential: *credential, is_rotated, is_promoted, effects: after },
                warnings,
            )
        }
        ResponseContent::Denied(denied) => errors::settle_error_response(ctx, locked, response, Some(&denied)),
        ResponseContent::Unreadable => errors::settle_error_response(ctx, locked, response, None),
        ResponseContent::TooLarge => settle_in_doubt(ctx, locked, "the decompressed response exceeds 1 MiB"),
    }
}

struct GrantToCommit {
    credential: Credential,
    is_rotated: bool,
    is_promoted: bool,
    effects: GrantEffects,
}

/// Steps 7b to 9: the response becomes the sealed credential; the keyring gets it; ledger and journal are updated. From
/// the first of these steps on the new token is safe, so errors are warnings.
fn commit_grant(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, '_>,
    key: &Arc<SealingKey>,
    granted: &GrantToCommit,
    mut warnings: Vec<String>,
) -> Outcome {
    let now = ctx.now();
    let credential = &granted.credential;
    let mut report = |what: &str, error: String| {
        tracing::error!(event = "store.unavailable", profile = %ctx.profile.name, %error, "{what}");
        warnings.push(format!("{what}: {error}"));
    };
    if !granted.is_promoted
        && let Err(e) = locked.promote_response()
    {
        report("the new token is stored, but not under its final file name yet", e.to_string());
    }
    if let Err(e) = locked.publish(credential, key) {
        report("the new token is not in the keyring yet", e.to_string());
    }
    if let Err(e) = update_ledger(ctx, locked, granted) {
        report("cannot write the ledger", e.to_string());
    }
    if let Some(intent) = &mut locked.journal.intent {
        intent.is_reusable = !ctx.punishes_reuse();
    }
    let journal = &mut locked.journal;
    let fingerprint = key.fingerprint(&credential.refresh);
    journal.apply_grant(credential, fingerprint, &granted.effects, &now, |journal| ctx.next_retry_delay(journal, None));
    let doubtful = granted.effects.doubt_cause().filter(|_| journal.intent.is_some());
    let mut outcome = match (doubtful, journal.block(Cause::AccessToken).map(|block| block.failure.clone())) {
        (Some(note), _) => errors::set_in_doubt(ctx, locked, &warning_text(note, ctx)),
        (None, Some(failure)) => {
            let outcome = Outcome::new(OutcomeKind::ConfigError).with_error(failure);
            Outcome { retry_at: journal.not_before, ..outcome }
        }
        (None, None) => Outcome::new(OutcomeKind::Refreshed),
    };
    set_last_attempt(ctx, &mut locked.journal, &outcome);
    if let Err(e) = locked.save_journal() {
        report("cannot write the journal; the next refresh will update it", e.to_string());
    }
    outcome.warnings = warnings;
    events::refreshed(&ctx.profile, credential.generation);
    outcome
}

/// Updates the ledger: the token that was sent is consumed, or unspent, or in doubt.
fn update_ledger(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, '_>,
    granted: &GrantToCommit,
) -> Result<(), StoreError> {
    let Some(sent) = locked.journal.intent.as_ref().map(|i| i.fingerprint.clone()) else { return Ok(()) };
    match (granted.is_rotated, granted.effects.doubt_cause()) {
        (true, _) => locked.mark_consumed_or_queue(&sent),
        (false, Some(_)) if ctx.punishes_reuse() => locked.mark_in_doubt(&sent, ctx.now().wall),
        (false, Some(_)) => Ok(()),
        (false, None) => locked.clear_in_doubt(&sent),
    }
}

/// Rule 20: after a grace retry the abandoned first request may still be under way, so the next generation waits until
/// it cannot be.
fn cooldown_after_grace(ctx: &RefreshContext, journal: &Journal) -> Duration {
    let policy = &ctx.profile.provider.policy;
    let was_retried = journal.intent.as_ref().is_some_and(|i| i.send_count > 1);
    let rests = policy.rotation == Rotation::Grace
        && matches!(policy.grace_semantics, GraceSemantics::Same | GraceSemantics::Multi);
    if was_retried && rests { policy.settle } else { Duration::ZERO }
}

fn warning_text(note: GrantWarning, ctx: &RefreshContext) -> String {
    match note {
        GrantWarning::NoUsableAccessToken => "the response has no usable access token; keeping the previous one".into(),
        GrantWarning::NotBearer => "the token type is not Bearer".into(),
        GrantWarning::ScopeChanged => "the granted scope has changed".into(),
        GrantWarning::LifetimeAssumed => {
            format!("no expires_in in the response; assuming {} s", ctx.profile.provider.default_lifetime.as_secs())
        }
        GrantWarning::RefreshTokenUnreadable => "the refresh token in the response is unusable".into(),
        GrantWarning::OldTokenAfterRetry => "the server returned the old refresh token after a second attempt".into(),
    }
}
