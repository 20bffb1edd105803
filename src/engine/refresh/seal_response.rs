//! Step 7: a response is stored before anything else is done with it, and is not given up while this process may live.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::refresh::commit::{SentRefresh, to_sealed_response};
use crate::engine::refresh::context::RefreshContext;
use crate::engine::refresh::errors::settle_in_doubt;
use crate::outcome::{Outcome, OutcomeKind, Publication};
use crate::store::disk::sealed_content::{ResponseContent, SealedResponse};
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
    while patience.try_again(ctx, is_published, &error) {
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

/// How often it was tried.
struct Patience {
    tries: u32,
    /// Of these, how many count for a run that must end.
    final_tries: u32,
    is_short: bool,
}

impl Patience {
    fn try_again(&mut self, ctx: &RefreshContext, is_published: bool, error: &StoreError) -> bool {
        if self.tries.is_multiple_of(TRIES_PER_ALARM) {
            let profile = &ctx.profile.name;
            tracing::error!(event = "store.unavailable", %profile, %error, "cannot write the response, retrying");
        }
        self.tries = self.tries.saturating_add(1);
        if !ctx.is_long_lived || ctx.is_stopping() {
            self.final_tries += 1;
        }
        match self.is_short || is_published {
            true => self.tries <= FEW_TRIES,
            false => self.final_tries <= ALL_TRIES,
        }
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
