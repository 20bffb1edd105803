//! Tells the log why the engine decides as it does. It decides nothing itself.

use crate::clock::Moment;
use crate::credential::Generation;
use crate::credential::freshness;
use crate::credential::freshness::{Demand, DueReason, Freshness};
use crate::engine::refresh::retry_policy::SendKind;
use crate::engine::status;
use crate::events;
use crate::outcome::{ErrorKind, Outcome, OutcomeKind, ProfileState};
use crate::profile::Profile;
use crate::provider::classify::ResponseClass;
use crate::provider::{BeforeSendError, ExchangeResult, NotSentReason};
use crate::store::journal::Journal;

/// A refresh is needed. `journal`: what is known, and believed. `state`: how the profile stands.
pub(super) fn due(
    profile: &Profile,
    demand: Demand,
    journal: Option<&Journal>,
    now: &Moment,
    state: impl FnOnce() -> ProfileState,
) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let generation = journal.map_or(Generation::NONE, |journal| journal.generation);
    let reason = match journal.map(|journal| status::freshness_for(journal, demand, profile, now)) {
        None => "nothing usable is stored",
        Some(Freshness::Due(DueReason::NoAccessToken)) => "there is no access token",
        Some(Freshness::Due(DueReason::Expired)) => "the access token has expired",
        Some(Freshness::Due(DueReason::Unproven)) => {
            "the access token was imported, and its age or its end is not known"
        }
        Some(Freshness::Due(DueReason::WithinMargin)) => "the access token is within its margin",
        Some(Freshness::Due(DueReason::TooShort)) => "the access token does not last as long as requested",
        Some(Freshness::Due(DueReason::Rejected)) => "an API has rejected the access token",
        Some(Freshness::Due(DueReason::Forced)) => "it was requested with --force",
        Some(Freshness::Fresh) => match state() {
            ProfileState::Fresh | ProfileState::Due => "something is left to settle or to publish",
            state => &format!("the access token is fresh, but the profile is {state}"),
        },
    };
    events::due(profile, generation, reason);
}

/// No refresh is needed.
pub(super) fn fresh(profile: &Profile, demand: Demand, journal: &Journal) {
    let reason = match demand {
        Demand::Margin { .. } => "the access token is not within its margin",
        Demand::ValidFor(_) => "the access token is valid for as long as requested",
        Demand::NewerThan(_) => "a newer generation is stored",
        Demand::Rejected { .. } => "a newer generation is stored, or the access token is too new to be refreshed again",
    };
    let expires_at = journal.validity.as_ref().map(freshness::Validity::expires_at);
    events::fresh(profile, journal.generation, expires_at, reason);
}

/// Whether a request may be made, and under which rule.
pub(super) fn admission(profile: &Profile, admitted: Result<SendKind, Outcome>) -> Result<SendKind, Outcome> {
    match &admitted {
        Ok(kind) => {
            let (rule, reason) = match kind {
                SendKind::First => (None, "the token was never sent"),
                SendKind::Retry => (None, "a retry, which this server does not punish"),
                SendKind::Grace { .. } => (Some(19), "a retry within the grace of the server"),
                SendKind::LastChance => (Some(18), "the last chance"),
                SendKind::Overruled => (Some(22), "a person insists on a token that was rejected"),
            };
            events::send_admitted(&profile.name, rule, reason);
        }
        Err(outcome) => {
            let rule = match (outcome.kind, outcome.error.as_ref().map(|error| &error.kind)) {
                (OutcomeKind::InDoubt, _) => Some(17),
                (OutcomeKind::NeedsLogin, _) => Some(22),
                (OutcomeKind::ConfigError, Some(ErrorKind::ClientRefused)) => Some(24),
                (OutcomeKind::Deferred, _) => Some(25),
                (_, _) => None,
            };
            events::send_denied(&profile.name, rule, outcome);
        }
    }
    admitted
}

/// What came of an exchange: whether the check before the send passed, and whether a response arrived.
pub(super) fn exchange(profile: &Profile, result: &ExchangeResult<'_>) {
    match result {
        ExchangeResult::Responded { answer, .. } => events::sent(&profile.name, answer.status),
        ExchangeResult::ResponseLost { why, .. } => events::response_lost(&profile.name, why),
        ExchangeResult::NotSent { why, .. } => events::not_sent(
            &profile.name,
            match why {
                NotSentReason::Network(reason) | NotSentReason::EarlyResponse(reason) => reason,
                NotSentReason::BeforeSend(BeforeSendError::Refused(reason)) => reason,
                NotSentReason::BeforeSend(BeforeSendError::RefusedAfterIntent(reason)) => reason,
                NotSentReason::BeforeSend(BeforeSendError::Journal(reason)) => reason,
            },
        ),
    }
}

/// What a response without tokens means.
pub(super) fn response_class(profile: &Profile, status: u16, class: &ResponseClass, code: Option<&str>) {
    let class = match class {
        ResponseClass::TokenRejected => "token_rejected",
        ResponseClass::LoginRequired => "login_required",
        ResponseClass::Throttled => "throttled",
        ResponseClass::Conditional => "conditional",
        ResponseClass::NotFromServer => "not_from_server",
        ResponseClass::ClientRejected => "client_rejected",
        ResponseClass::Unclassified => "unclassified",
        ResponseClass::Ambiguous => "ambiguous",
    };
    events::response_class(profile, status, class, code);
}
