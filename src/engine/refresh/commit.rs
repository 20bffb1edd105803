//! Handles the end of an exchange: seals the response, reads it, and settles the journal.

use std::sync::Arc;

use crate::credential::external::{AccountIdentity, AccountMatch};
use crate::credential::secret::{AccessToken, Fingerprint};
use crate::credential::{Credential, Grant};
use crate::engine::refresh::context::{Facts, RefreshContext};
use crate::engine::refresh::errors;
use crate::engine::refresh::errors::{resolve_doubt, settle_in_doubt};
use crate::engine::refresh::seal_response::{SentRefresh, seal_response};
use crate::engine::refresh::settle::{Changes, End, LedgerWrite, Settlement};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::Provider;
use crate::store::disk::sealed_content::{GrantWarning, ResponseContent, SealedResponse};
use crate::store::journal::Journal;
use crate::store::journal::block::{Block, Cause};
use crate::store::journal::transitions::GrantEffects;
use crate::store::keys::sealing_key::SealingKey;
use crate::store::{LockedProfile, PendingResponse};
use crate::sys::durable::StagedFile;

/// Steps 7 to 9. `lost`: why the response was cut or did not arrive. What arrived is sealed as evidence all the same, and
/// counts if it does hold the tokens.
pub fn settle_exchange(
    ctx: &RefreshContext,
    locked: &mut LockedProfile<'_, '_>,
    key: &Arc<SealingKey>,
    space: StagedFile,
    sent_refresh: SentRefresh<'_>,
    lost: Option<&str>,
) -> Outcome {
    let generation = sent_refresh.intent.generation.next();
    // As the gate has written it.
    locked.journal.intent = Some(sent_refresh.intent.clone());
    let settlement = match lost {
        Some(why) if sent_refresh.response.body.is_empty() => {
            drop(space);
            settle_in_doubt(&ctx.facts(), locked.journal.clone(), why, None)
        }
        _ => {
            let response = match seal_response(ctx, locked, key, space, sent_refresh) {
                Ok(response) => response,
                Err(outcome) => return outcome,
            };
            let (facts, journal) = (ctx.facts(), locked.journal.clone());
            match (lost, response.parse(generation)) {
                (Some(why), content) if !matches!(content, ResponseContent::Granted { .. }) => {
                    settle_in_doubt(&facts, journal, why, None)
                }
                (_, content) => settle_response(&facts, journal, key, &response, content, false),
            }
        }
    };
    settlement.apply(ctx, locked, key)
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
    let (facts, mut journal) = (ctx.facts(), locked.journal.clone());
    let is_ours = journal.intent.as_ref().is_some_and(|i| Some(&i.attempt_id) == attempt_id.as_ref());
    let settlement = match content {
        content @ ResponseContent::Granted { .. } => {
            // An older journal was restored, perhaps.
            let asked = || response.to_intent(attempt_id.as_deref(), journal.generation, key);
            journal.intent = journal.intent.take().or_else(asked);
            settle_response(&facts, journal, key, &response, content, is_promoted)
        }
        // Nothing that grants no tokens is given that name: it is damaged, which its loading tells.
        _ if is_promoted => return Ok(None),
        // It answers an attempt that the journal has settled since.
        _ if !is_ours => return locked.discard_response().map(|()| None).map_err(Outcome::from),
        // Judged as it would have been by the run that received it.
        content if response.is_complete => settle_response(&facts, journal, key, &response, content, false),
        _ => settle_in_doubt(&facts, journal, "its response could not be read", None),
    };
    let outcome = settlement.apply(ctx, locked, key);
    Ok((outcome.kind != OutcomeKind::Refreshed).then_some(outcome))
}

/// Settles the journal by a sealed response, which says `content`. `is_promoted`: it has its final name. (pure)
fn settle_response(
    facts: &Facts<'_>,
    journal: Journal,
    key: &SealingKey,
    response: &SealedResponse,
    content: ResponseContent,
    is_promoted: bool,
) -> Settlement {
    match content {
        ResponseContent::Granted { credential, is_rotated, warnings } => {
            let fingerprint = key.fingerprint(&credential.refresh);
            let effects = response.grant_effects(warnings);
            let stranger = other_account(&journal, &response.previous_grant.to_grant(), &credential);
            let settled = settle_grant(facts, journal, credential, fingerprint, is_rotated, is_promoted, &effects);
            match stranger {
                Some(failure) => settled.blocked_by(Block::new(Cause::OtherAccount, failure)),
                None => settled,
            }
        }
        ResponseContent::Denied(denied) => errors::settle_error_response(facts, journal, response, Some(&denied)),
        ResponseContent::Unreadable => errors::settle_error_response(facts, journal, response, None),
        ResponseContent::TooLarge => settle_in_doubt(facts, journal, "the decompressed response exceeds 1 MiB", None),
    }
}

/// Why the response is not handed out: it belongs to another account than the credential that was refreshed. Tokens of a
/// kind are compared with each other, because servers name one person differently in different kinds.
fn other_account(journal: &Journal, before: &Grant, new: &Credential) -> Option<Failure> {
    let of = |token: &Option<AccessToken>| token.as_ref().map(AccountIdentity::from_jwt).unwrap_or_default();
    let imported = journal.origin.as_ref().map(|origin| origin.identity.clone()).unwrap_or_default();
    let (told, access) = (of(&new.grant.id_token), of(&new.grant.access));
    let unnamed = AccountIdentity { subject: None, ..access.clone() };
    let pairs = [
        (of(&before.id_token), told.clone()),
        (imported.clone(), told),
        (of(&before.access), access),
        (imported, unnamed),
    ];
    let (old, found) = pairs.into_iter().find(|(old, found)| old.compare(found) == AccountMatch::Different)?;
    let profile = &journal.profile;
    let (old, found) = old.distinct_names(&found);
    let message = format!("the response to the refresh belongs to {found}, but the credential of {profile} to {old}");
    let hint = format!(
        "it is kept and not handed out; sign in with the account that is meant: keepalive login {profile}, or import with \
         --replace"
    );
    Some(Failure::new(ErrorKind::Conflict, message).with_hint(hint))
}

/// Settles a response with tokens. The token that was sent is consumed, or unspent, or in doubt.
fn settle_grant(
    facts: &Facts<'_>,
    journal: Journal,
    credential: Box<Credential>,
    fingerprint: Fingerprint,
    is_rotated: bool,
    is_promoted: bool,
    effects: &GrantEffects,
) -> Settlement {
    let mut changes = Changes::from(journal);
    let journal = &mut changes.journal;
    if let Some(intent) = &mut journal.intent {
        let sent = intent.fingerprint.clone();
        intent.is_reusable = !facts.punishes_reuse();
        changes.ledger.extend((intent.is_forced && !is_rotated).then(|| LedgerWrite::ClearRejected(sent.clone())));
        changes.ledger.extend(match (is_rotated, effects.doubt_cause()) {
            (true, _) => Some(LedgerWrite::Consumed(sent)),
            (false, Some(_)) => facts.punishes_reuse().then_some(LedgerWrite::InDoubt(sent, facts.now.wall)),
            (false, None) => Some(LedgerWrite::ClearDoubt(sent)),
        });
    }
    journal.apply_grant(&credential, fingerprint, effects, &facts.now, |j| facts.next_retry_delay(j, None));
    let doubtful = effects.doubt_cause().filter(|_| journal.intent.is_some());
    let mut outcome = match (doubtful, journal.block(Cause::AccessToken)) {
        (Some(note), _) => resolve_doubt(facts, &mut changes, &warning_text(note, &facts.profile.provider)),
        (None, Some(block)) => {
            let outcome = Outcome::new(OutcomeKind::ConfigError).with_error(block.failure.clone());
            Outcome { retry_at: journal.not_before, ..outcome }
        }
        (None, None) => Outcome::new(OutcomeKind::Refreshed),
    };
    outcome.warnings = effects.warnings.iter().map(|note| warning_text(*note, &facts.profile.provider)).collect();
    changes.end(End::Granted { credential, is_promoted }, outcome, &facts.now)
}

fn warning_text(note: GrantWarning, provider: &Provider) -> String {
    match note {
        GrantWarning::NoUsableAccessToken => "the response has no usable access token; keeping the previous one".into(),
        GrantWarning::NotBearer => "the token type is not Bearer".into(),
        GrantWarning::ScopeChanged => "the granted scope has changed".into(),
        GrantWarning::LifetimeAssumed => {
            let assumed = provider.lifetime_bounds().assumed();
            format!("no credible expires_in in the response; assuming {} s", assumed.as_secs())
        }
        GrantWarning::RefreshTokenUnreadable => "the refresh token in the response is unusable".into(),
        GrantWarning::OldTokenAfterRetry => "the server returned the old refresh token after a second attempt".into(),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::credential::external::ImportSource;
    use crate::store::test_samples::{credential, journal};

    /// An access token names a person by another number than the tool that the credential came from.
    #[test]
    fn subject_of_an_access_token_is_not_compared_with_an_import() {
        let identity = AccountIdentity { subject: Some("ada".into()), ..AccountIdentity::default() };
        let origin = ImportSource {
            tool: "codex".into(),
            location: None,
            account: None,
            identity,
            provider: None,
            is_in_keyring: false,
        };
        let journal = Journal { origin: Some(origin), ..journal() };
        let before = credential(2, "a").grant;
        let claims = |text: &str| AccessToken::new(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(text)));
        let mut new = credential(3, "b");
        new.grant.access = claims(r#"{"sub":"0815"}"#);
        assert!(new.grant.access.is_some() && other_account(&journal, &before, &new).is_none());
        new.grant.id_token = claims(r#"{"sub":"bob"}"#);
        assert!(other_account(&journal, &before, &new).is_some());
    }
}
