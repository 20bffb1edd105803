//! Gives a token to a caller whose token an API has rejected: a newer one if there is one, else after one refresh, unless
//! one was made for that reason a moment ago (rule 41).

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::credential::Generation;
use crate::credential::freshness::Demand;
use crate::engine::access_token::TokenResult;
use crate::engine::{Engine, TrustJournal, status};
use crate::outcome::OutcomeKind;
use crate::profile::Profile;
use crate::store::journal::Journal;

/// What a caller says of the token that was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectionReport {
    /// Whose token it was; `None`: the newest one.
    pub generation: Option<Generation>,
    /// The caller saw the API reject it. Else it only takes that to be the cause of a failure.
    pub is_proven: bool,
}

impl RejectionReport {
    pub fn proven(generation: Generation) -> Self {
        Self { generation: Some(generation), is_proven: true }
    }

    pub fn unproven(generation: Option<Generation>) -> Self {
        Self { generation, is_proven: false }
    }
}

/// What was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectionAnswer {
    /// There was a newer token.
    Newer,
    /// A refresh brought one.
    Refreshed,
    /// The token is new, or a refresh for this reason was made a moment ago, or it failed: the same one is given.
    TooSoon,
}

/// The report names a generation that there never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownGeneration(pub Generation);

impl Engine {
    /// A token after a report, waiting for a refresh for at most `limit`.
    pub fn access_token_after_rejection(
        &self,
        profile: &Arc<Profile>,
        report: RejectionReport,
        min_valid: Duration,
        limit: Duration,
        on_long_wait: &dyn Fn(),
    ) -> Result<(TokenResult, RejectionAnswer), UnknownGeneration> {
        let view = self.store().view(&profile.name).ok();
        let journal = view.as_ref().and_then(|view| view.journal.as_ref());
        let meant = meant_generation(report, journal)?;
        let mut obtained = None;
        if let Some(demand) = demand_of(report, meant, journal, profile, min_valid, &self.clock().now()) {
            let (outcome, _) = self.refresh_until_met(profile, demand, TrustJournal::Yes, view, limit, on_long_wait);
            if outcome.kind != OutcomeKind::Fresh {
                obtained = Some(self.token_from_store(profile, min_valid, outcome, None));
            }
        }
        let obtained = obtained.unwrap_or_else(|| self.access_token(profile, min_valid, limit, on_long_wait));
        let is_newer = obtained.token.as_ref().is_some_and(|token| Some(token.generation) > meant);
        let answer = match (obtained.outcome.kind, is_newer) {
            (OutcomeKind::Refreshed, true) => RejectionAnswer::Refreshed,
            (_, true) => RejectionAnswer::Newer,
            (_, false) => RejectionAnswer::TooSoon,
        };
        Ok((obtained, answer))
    }
}

/// The generation whose token was rejected. `None`: there is no credential. (pure)
fn meant_generation(
    report: RejectionReport,
    journal: Option<&Journal>,
) -> Result<Option<Generation>, UnknownGeneration> {
    let current = journal.filter(|journal| journal.has_credential()).map(|journal| journal.generation);
    match (report.generation, current) {
        (Some(named), Some(current)) if named <= current => Ok(Some(named)),
        (Some(named), Some(_)) => Err(UnknownGeneration(named)),
        (Some(_) | None, current) => Ok(current),
    }
}

/// The demand that the report makes. `None`: an ordinary one is enough, because there is a newer token, or because the
/// newest one has to be refreshed in any case. (pure)
fn demand_of(
    report: RejectionReport,
    meant: Option<Generation>,
    journal: Option<&Journal>,
    profile: &Profile,
    min_valid: Duration,
    now: &Moment,
) -> Option<Demand> {
    let seen = meant?;
    let is_meant = |journal: &&Journal| journal.generation == seen;
    let is_valid = |journal: &&Journal| status::meets_demand(journal, Demand::ValidFor(min_valid), profile, now);
    journal.filter(is_meant).filter(is_valid)?;
    Some(Demand::Rejected { seen, is_proven: report.is_proven })
}
