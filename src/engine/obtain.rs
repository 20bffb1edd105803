//! An access token for whoever needs one: the stored one if it lives long enough, else a refreshed one, else whatever
//! still lives.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::standing::{self, Terms};
use super::{Belief, Engine};
use crate::clock::Timestamp;
use crate::credential::Generation;
use crate::credential::freshness::{self, Demand};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind, State};
use crate::profile::Profile;

/// An access token as it is handed out; the shape of `token --json`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Token {
    pub access_token: String,
    pub token_type: String,
    pub expires_at: Option<Timestamp>,
    pub scope: Option<String>,
    pub generation: Generation,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(generation {})", self.generation)
    }
}

/// What came of asking for a token.
#[derive(Debug)]
pub struct Obtained {
    pub token: Option<Token>,
    pub outcome: Outcome,
    /// What the caller should know although it has a token.
    pub warnings: Vec<String>,
}

impl Engine {
    /// A token valid for `min_valid`, waiting for a refresh for at most `limit`.
    pub fn obtain(&self, profile: &Arc<Profile>, min_valid: Duration, limit: Duration, explain: &dyn Fn()) -> Obtained {
        let demand = Demand::ValidFor(min_valid);
        let outcome = self.refresh(profile, demand, limit, explain);
        let is_believed = outcome.kind == OutcomeKind::Fresh;
        let obtained = self.hand_out(profile, min_valid, outcome);
        if !(is_believed && obtained.outcome.lasts) {
            return obtained;
        }
        // What the journal believes in cannot be opened. A flight mends it, or notes that it cannot.
        let outcome = self.meet(profile, demand, Belief::Nothing, limit, explain);
        self.hand_out(profile, min_valid, outcome)
    }

    /// The same for a task.
    pub async fn obtain_async(&self, profile: &Arc<Profile>, min_valid: Duration, limit: Duration) -> Obtained {
        let meet = async |belief| {
            let meet = self.meet_async(profile, Demand::ValidFor(min_valid), belief);
            tokio::time::timeout(limit, meet).await.unwrap_or_else(|_| self.busy(profile))
        };
        let outcome = meet(Belief::Journal).await;
        let is_believed = outcome.kind == OutcomeKind::Fresh;
        let obtained = self.hand_out(profile, min_valid, outcome);
        if !(is_believed && obtained.outcome.lasts) {
            return obtained;
        }
        let outcome = meet(Belief::Nothing).await;
        self.hand_out(profile, min_valid, outcome)
    }

    /// What there is to hand out now, if anything: after [`Engine::drain`], what a flight brought for which the caller had
    /// no more time.
    pub fn landed(&self, profile: &Profile, min_valid: Duration) -> Option<Obtained> {
        let obtained = self.hand_out(profile, min_valid, Outcome::new(OutcomeKind::Fresh));
        obtained.token.is_some().then_some(obtained)
    }

    fn hand_out(&self, profile: &Profile, min_valid: Duration, outcome: Outcome) -> Obtained {
        let snapshot = match self.store().snapshot(&profile.name) {
            Ok(snapshot) => snapshot,
            Err(e) => return Obtained { token: None, outcome: worse(outcome, e.outcome()), warnings: Vec::new() },
        };
        let now = self.clock().now();
        let alive = snapshot.and_then(|s| {
            let validity = s.grant.validity.clone()?;
            let left = validity.left(&now);
            (!left.is_zero()).then_some((s, validity, left))
        });
        let Some((snapshot, validity, left)) = alive else {
            return Obtained { token: None, outcome: expired(profile, outcome), warnings: Vec::new() };
        };
        let mut warnings = outcome.warnings.clone();
        match (&outcome.error, self.trouble(profile)) {
            (Some(error), _) => warnings.push(format!("not refreshed: {}", error.message)),
            (None, Some(error)) => warnings.push(format!("refresh is failing: {}", error.message)),
            (None, None) => {}
        }
        if left < min_valid {
            let reach = if freshness::is_reachable(min_valid, &validity) {
                ""
            } else {
                "; no token of this provider lasts that long"
            };
            warnings.push(format!(
                "the token is valid for {} s, less than the requested {} s{reach}",
                left.as_secs(),
                min_valid.as_secs()
            ));
        }
        let expires_at = snapshot.expires_at();
        let token = snapshot.grant.access.as_ref().map(|access| Token {
            access_token: access.expose().to_owned(),
            token_type: snapshot.grant.token_type.clone(),
            expires_at,
            scope: snapshot.grant.scope.clone(),
            generation: snapshot.generation,
        });
        Obtained { token, outcome, warnings }
    }
}

impl Engine {
    /// What stands in the way of the next refresh, although the token still lives.
    fn trouble(&self, profile: &Profile) -> Option<Failure> {
        let record = self.store().peek(&profile.name).ok().flatten()?;
        let terms = Terms {
            policy: &profile.provider.policy,
            margin: profile.margin,
            early: Duration::ZERO,
            is_followed: false,
        };
        let standing = standing::standing(Some(&record), terms, &self.clock().now());
        match standing.state {
            State::NeedsLogin | State::ConfigError => standing.error,
            // A doubt is open while any flight is in the air; `status` tells the two apart.
            State::InDoubt | State::Fresh | State::Due | State::Expired | State::Deferred | State::NoCredential => None,
        }
    }
}

/// A refresh that found nothing to complain about, but left no live token.
fn expired(profile: &Profile, outcome: Outcome) -> Outcome {
    if outcome.error.is_some() {
        return outcome;
    }
    let failure = Failure::new(ErrorKind::Expired, format!("the access token of {} has expired", profile.name))
        .hint(format!("keepalive refresh -p {}", profile.name));
    Outcome { kind: OutcomeKind::Deferred, ..outcome }.because(failure)
}

fn worse(first: Outcome, second: Outcome) -> Outcome {
    if first.error.is_some() { first } else { second }
}
