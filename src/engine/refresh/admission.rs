//! Whether a request may be made for the loaded credential now, and under which rule. (pure)

use crate::credential::Binding;
use crate::credential::freshness::Demand;
use crate::engine::refresh::context::Facts;
use crate::engine::refresh::errors::{in_doubt_outcome, paused};
use crate::engine::refresh::retry_policy::{RetryDecision, SendKind, decide_doubt, decide_doubt_as_expired};
use crate::engine::status;
use crate::engine::status_failures::with_other_server;
use crate::outcome::{Failure, Outcome, OutcomeKind};
use crate::store::journal::Journal;
use crate::store::journal::block::Cause;

/// Why no request may be made.
#[derive(Debug)]
pub enum Denied {
    /// Not now, or not by this run.
    Ended(Outcome),
    /// The last allowed send has been made: the token is to be given up.
    GiveUp,
}

impl From<Outcome> for Denied {
    fn from(outcome: Outcome) -> Self {
        Self::Ended(outcome)
    }
}

/// Decides for the credential that `belongs` to a server and a client.
pub fn admit(facts: &Facts<'_>, journal: &Journal, belongs: &Binding) -> Result<SendKind, Denied> {
    let other_server = status::other_server(belongs, &facts.prepared.binding());
    check_rejection(facts, journal, other_server.as_ref())?;
    if let Some(block) = journal.block(Cause::OtherAccount) {
        return Err(Outcome::new(block.outcome).with_error(block.failure.clone()).into());
    }
    // A credential is never sent to another server than its own.
    if let Some(failure) = other_server {
        return Err(Outcome::new(OutcomeKind::ConfigError).with_error(failure).into());
    }
    check_client_block(facts, journal)?;
    let kind = match doubt(facts, journal)? {
        None if journal.is_rejected() => SendKind::Overruled,
        None => SendKind::First,
        Some(RetryDecision::Send(kind)) => kind,
        Some(RetryDecision::Exhausted) => return Err(Denied::GiveUp),
        Some(later) => return Err(in_doubt_outcome(facts, journal, later.retry_at(journal, &facts.now)).into()),
    };
    let pause = journal.blocked_until(&facts.now).filter(|_| !facts.may_ignore_pause(journal));
    let Some(at) = pause else { return Ok(kind) };
    if matches!(kind, SendKind::Grace { .. } | SendKind::LastChance) {
        // A try was turned away, with a time before which no other is allowed.
        return Err(in_doubt_outcome(facts, journal, Some(at)).into());
    }
    Err(paused(journal, at).into())
}

/// What may be done about a doubt, if there is one. Rule 41: that an API has rejected the access token counts as its end, but
/// only if it is proven.
fn doubt(facts: &Facts<'_>, journal: &Journal) -> Result<Option<RetryDecision>, Outcome> {
    let doubt = decide_doubt(journal, facts.policy(), &facts.now);
    match (facts.demand, doubt) {
        (Demand::Rejected { is_proven: true, .. }, Some(_)) => {
            Ok(decide_doubt_as_expired(journal, facts.policy(), &facts.now))
        }
        (Demand::Rejected { is_proven: false, .. }, Some(later)) => {
            Err(in_doubt_outcome(facts, journal, later.retry_at(journal, &facts.now)))
        }
        (_, doubt) => Ok(doubt),
    }
}

/// Rule 22: a rejected token is sent once more if a person insists, at most once a minute; but none that was in doubt or
/// given up, because that may be consumed.
fn check_rejection(facts: &Facts<'_>, journal: &Journal, other_server: Option<&Failure>) -> Result<(), Denied> {
    let Some(rejected) = journal.rejected.as_ref().filter(|_| journal.is_rejected()) else { return Ok(()) };
    let mut failure = rejected.failure.clone();
    if facts.is_forced() && rejected.may_be_sent_again() {
        if journal.intent.as_ref().is_some_and(|intent| intent.is_forced && !intent.is_reusable) {
            // The run that sent it once more died, so now it is in doubt.
            return Err(Denied::GiveUp);
        }
        let Some(at) = journal.forced_until(&facts.now) else { return Ok(()) };
        failure.message = format!(
            "{}; it was sent once more a moment ago, the next time can be at {}",
            failure.message,
            at.to_the_second()
        );
    }
    if let Some(other) = other_server {
        failure = with_other_server(failure, other);
    }
    Err(Outcome::new(OutcomeKind::NeedsLogin).with_error(failure).into())
}

/// Rule 24: a refused client is tried again when the configuration changes, by `--force` once, and automatically three
/// times at most.
fn check_client_block(facts: &Facts<'_>, journal: &Journal) -> Result<(), Outcome> {
    let Some(block) = facts.client_block(journal) else { return Ok(()) };
    let (next_probe, may_probe) = (block.blocked_until(&facts.now), status::has_probes_left(block));
    if facts.is_forced() || (may_probe && next_probe.is_none()) {
        return Ok(());
    }
    let outcome = Outcome::new(OutcomeKind::ConfigError).with_error(block.failure.clone());
    Err(Outcome { retry_at: next_probe.filter(|_| may_probe), ..outcome })
}
