//! Step 7: a response is stored before anything else is done with it, and is not given up while this process may live.

use std::sync::Arc;
use std::time::Duration;

use crate::credential::secret::RefreshToken;
use crate::engine::refresh::context::RefreshContext;
use crate::engine::refresh::errors::settle_in_doubt;
use crate::guard::SpentCredential;
use crate::outcome::{Outcome, OutcomeKind, Publication};
use crate::profile::{GraceSemantics, Policy, Provider, Rotation};
use crate::provider::RawResponse;
use crate::store::disk::sealed_content::{ResponseContent, SealedGrant, SealedResponse, SecretText};
use crate::store::journal::Intent;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::{LockedProfile, StoreError};
use crate::sys::durable::StagedFile;

const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// How often it is tried where little is lost without it, or little time is left: for a quarter of a minute.
const FEW_TRIES: u32 = 60;
/// How often it is tried where only this process has the tokens: for nearly as long as a drain waits. It counts from the
/// stop for a daemon, and from the first failure for any other run.
const ALL_TRIES: u32 = 160;
/// How often a daemon says again that it has tokens which no store takes: once a minute.
const TRIES_PER_ALARM: u32 = 240;

/// A token that was sent, the intent under which it was, and the credential that it came from.
pub struct SentRefresh<'l> {
    pub intent: Intent,
    pub refresh_token: RefreshToken,
    pub spent: SpentCredential<'l>,
    pub response: RawResponse,
}

/// Seals the response before anything reads it. An error does not make the run give up a response in hand: where the disk
/// does not take it, the keyring may.
pub(super) fn seal_response(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, '_>,
    key: &Arc<SealingKey>,
    space: StagedFile,
    sent_refresh: SentRefresh<'_>,
) -> Result<SealedResponse, Outcome> {
    let (generation, attempt) = (sent_refresh.intent.generation.next(), sent_refresh.intent.attempt_id.clone());
    let response = to_sealed_response(&ctx.profile.provider, sent_refresh);
    let Err(mut error) = locked.seal_response(space, &response, generation, &attempt, key) else {
        return Ok(response);
    };
    let credential = match response.parse(generation) {
        ResponseContent::Granted { credential, .. } => Some(credential),
        _ => None,
    };
    let mut patience = Patience { tries: 0, final_tries: 0, is_short: credential.is_none() || ctx.is_stopping() };
    let mut is_published = false;
    while patience.try_again(!ctx.is_long_lived || ctx.is_stopping(), is_published) {
        if patience.is_alarm_due() {
            let profile = &ctx.profile.name;
            tracing::error!(event = "store.unavailable", %profile, %error, "cannot write the response, retrying");
        }
        if let (false, Some(credential)) = (is_published, &credential) {
            is_published =
                locked.publish(credential, key).is_ok() && locked.journal.publication == Publication::Published;
        }
        #[expect(clippy::disallowed_methods, reason = "no event says that the disk accepts writes again")]
        std::thread::sleep(RETRY_INTERVAL);
        let space = locked.reserve_response_space();
        match space.and_then(|space| locked.seal_response(space, &response, generation, &attempt, key)) {
            Ok(()) => return Ok(response),
            Err(e) => error = e,
        }
    }
    Err(give_up(ctx, locked, key, &error, is_published))
}

/// What is sealed of a response.
fn to_sealed_response(provider: &Provider, sent_refresh: SentRefresh<'_>) -> SealedResponse {
    let SentRefresh { intent, refresh_token: sent, spent, response } = sent_refresh;
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    SealedResponse {
        status: response.status,
        content_type: response.content_type,
        content_encoding: response.content_encoding,
        retry_after: response.retry_after,
        body: SealedResponse::encode_body(&response.body),
        is_complete: response.is_complete,
        further_secrets: response.sent.iter().filter(|s| *s != sent.expose()).map(|s| SecretText(s.into())).collect(),
        sent_refresh_token: SecretText(sent.expose().into()),
        cooldown_ms: millis(cooldown_after_grace(&provider.policy, &intent)),
        sent_at: intent.last_sent,
        send_count: intent.send_count,
        binding: spent.binding,
        previous_grant: SealedGrant::from_grant(&spent.grant),
        default_lifetime_ms: millis(provider.default_lifetime),
        max_lifetime_ms: provider.max_lifetime.map(millis),
    }
}

/// Rule 20: after a grace retry the abandoned first request may still be under way, so the next generation waits until
/// it cannot be.
fn cooldown_after_grace(policy: &Policy, intent: &Intent) -> Duration {
    let rests = policy.rotation == Rotation::Grace
        && matches!(policy.grace_semantics, GraceSemantics::Same | GraceSemantics::Multi);
    if rests && intent.send_count > 1 { policy.settle } else { Duration::ZERO }
}

/// How often it was tried.
struct Patience {
    tries: u32,
    /// Of these, how many count for a run that must end.
    final_tries: u32,
    is_short: bool,
}

impl Patience {
    /// `must_end`: this run has not the time of a daemon that goes on.
    fn try_again(&mut self, must_end: bool, is_published: bool) -> bool {
        self.tries = self.tries.saturating_add(1);
        self.final_tries += u32::from(must_end);
        match self.is_short || is_published {
            true => self.tries <= FEW_TRIES,
            false => self.final_tries <= ALL_TRIES,
        }
    }

    fn is_alarm_due(&self) -> bool {
        self.tries % TRIES_PER_ALARM == 1
    }
}

/// No store took it. The tokens are in the keyring, or the refresh token is in doubt, and the journal says so if it can be
/// written.
fn give_up(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, '_>,
    key: &Arc<SealingKey>,
    error: &StoreError,
    is_published: bool,
) -> Outcome {
    if !is_published {
        let why = format!("its response could not be stored: {error}");
        return settle_in_doubt(&ctx.facts(), locked.journal.clone(), &why, None).apply(ctx, locked, key);
    }
    let mut outcome = Outcome { kind: OutcomeKind::Refreshed, ..error.outcome() };
    outcome.warnings.push("the new token is only in the keyring; the next refresh will write it to disk".into());
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 9.
    #[test]
    fn daemon_keeps_tokens_in_hand_until_it_must_end() {
        let mut patience = Patience { tries: 0, final_tries: 0, is_short: false };
        assert!((0..100_000).all(|_| patience.try_again(false, false)));
        assert_eq!((0..).take_while(|_| patience.try_again(true, false)).count(), 160);
        let mut patience = Patience { tries: 0, final_tries: 0, is_short: false };
        assert_eq!((0..).take_while(|_| patience.try_again(false, true)).count(), 60, "the keyring has them");
        let mut patience = Patience { tries: 0, final_tries: 0, is_short: true };
        assert_eq!((0..).take_while(|_| patience.try_again(false, false)).count(), 60, "there are none");
    }
}
