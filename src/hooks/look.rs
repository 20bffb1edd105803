//! One look at a profile: how it stands, and what a hook is told of it.

use std::time::Duration;

use crate::clock::Moment;
use crate::engine::status::{self, ProfileStatus};
use crate::hooks::decision::{HookNews, HookPlan, Standing, Wishes, decide};
use crate::hooks::message::HookMessage;
use crate::hooks::record::WaitingEvent;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind, ProfileState};
use crate::profile::{HookEvent, Profile};
use crate::store::Store;
use crate::store::journal::Journal;
use crate::store::keyring::KeyringService;
use crate::sys::machine;

/// What was seen, and what follows from it.
pub(super) struct HookLook {
    pub journal: Journal,
    pub plan: HookPlan,
    status: ProfileStatus,
    now: Moment,
}

impl HookLook {
    /// Looks at the journal. `None`: nothing was ever stored, or it cannot be read, or a request is under way, after which
    /// there is another look. `outcome`: how a flight of this process has just ended.
    pub(super) fn at(
        store: &Store,
        profile: &Profile,
        outcome: Option<&Outcome>,
        wishes: &Wishes,
        now: Moment,
    ) -> Option<Self> {
        let journal = store.peek(&profile.name).ok()?;
        let status = status::status_of(store, &Ok(journal.clone()), Ok(profile), &now);
        let journal = journal.filter(|_| !status.is_in_flight)?;
        let plan = decide(&standing(&journal, &status, profile, outcome, &now), &journal.hooks, wishes, &now);
        Some(Self { journal, plan, status, now })
    }

    /// Whether anything is to be told or noted.
    pub(super) fn is_news(&self) -> bool {
        self.plan.stamps != self.journal.hooks
    }

    /// What is told of an event.
    pub(super) fn message(
        &self,
        event: HookEvent,
        store: &Store,
        profile: &Profile,
        outcome: Option<&Outcome>,
    ) -> HookMessage {
        let brought = outcome.filter(|outcome| outcome.kind == OutcomeKind::Refreshed);
        let kind = match event {
            HookEvent::NeedsLogin => OutcomeKind::NeedsLogin,
            HookEvent::Deferred if self.status.state == ProfileState::InDoubt => OutcomeKind::InDoubt,
            HookEvent::Deferred => OutcomeKind::Deferred,
            HookEvent::Refreshed => OutcomeKind::Refreshed,
            HookEvent::Recovered | HookEvent::LoginDue => brought.map_or(OutcomeKind::Fresh, |o| o.kind),
        };
        let failed = matches!(event, HookEvent::NeedsLogin | HookEvent::Deferred);
        let just_now = outcome.filter(|outcome| outcome.kind == kind);
        let known = || self.status.error.clone().or_else(|| self.status.last_failure.clone());
        let error = just_now.and_then(|outcome| outcome.error.clone()).or_else(known).filter(|_| failed);
        let retry_at = just_now.and_then(|outcome| outcome.retry_at).or(self.status.refresh_at);
        let named = |e: Failure| e.with_names(profile.name.as_str(), store.keyring().map(KeyringService::service));
        HookMessage {
            event,
            profile: profile.name.clone(),
            provider: profile.provider.name.clone(),
            outcome: kind,
            generation: self.journal.generation,
            expires_at: self.journal.validity.as_ref().map(|validity| validity.expires_at()),
            retry_at: retry_at.filter(|_| failed),
            error: error.map(named),
            host: machine::host_name(),
            at: self.now.wall,
            login_by: self.journal.login_by.filter(|_| event == HookEvent::LoginDue),
        }
    }

    /// What is told of all of its news.
    pub(super) fn messages(&self, store: &Store, profile: &Profile, outcome: Option<&Outcome>) -> Vec<WaitingEvent> {
        let told = |news: &HookNews| WaitingEvent {
            message: self.message(news.event, store, profile, outcome),
            is_shown: news.is_shown,
        };
        self.plan.told.iter().map(told).collect()
    }
}

fn standing(
    journal: &Journal,
    status: &ProfileStatus,
    profile: &Profile,
    outcome: Option<&Outcome>,
    now: &Moment,
) -> Standing {
    let has_failed = |outcome: &Outcome| outcome.kind == OutcomeKind::Deferred && !is_of_this_run(outcome);
    let last = journal.last_attempt.as_ref().filter(|last| last.outcome == OutcomeKind::Deferred);
    let is_noted = last.is_some() && status.last_failure.is_some();
    let validity = journal.validity.as_ref();
    let half = |validity: &crate::credential::freshness::Validity| {
        let lifetime = validity.full_lifetime().unwrap_or(Duration::ZERO);
        validity.remaining(now) <= profile.margin.of(lifetime) / 2
    };
    Standing {
        state: status.state,
        is_failing: is_noted || outcome.is_some_and(has_failed),
        failures: journal.consecutive_failures,
        is_half_margin_gone: validity.is_none_or(half),
        login_by: journal.login_by.filter(|_| journal.is_login_by_final),
    }
}

/// Whether a refresh was put off for a reason that says nothing of the provider.
fn is_of_this_run(outcome: &Outcome) -> bool {
    let kind = outcome.error.as_ref().map(|error| &error.kind);
    kind.is_some_and(|kind| matches!(kind, ErrorKind::Busy | ErrorKind::Interrupted | ErrorKind::ToolFirst))
}
