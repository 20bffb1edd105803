//! A token as a handle grants it: of the account that the handle was made for, and long enough alive.

use std::time::Duration;

use super::query::{Condition, TokenQuery};
use super::state::{Broker, TokenAnswer};
use crate::credential::external::{AccountIdentity, AccountMatch};
use crate::credential::secret::AccessToken;
use crate::engine::access_token::{TokenOutput, TokenResult};
use crate::engine::rejected_token::RejectionReport;
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::store::handles::{HandleRecord, TokenGrant};

/// How long a refresh is waited for: the clients of this do not wait long.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a handle that is shown gives no token.
#[derive(Debug)]
pub(super) enum Ungranted {
    /// There is no token, or none above the floor.
    Nothing(Box<Outcome>),
    /// The profile has a credential of another account than the handle was made for.
    OtherAccount,
    /// The handle was revoked meanwhile.
    Revoked,
}

#[derive(Debug)]
pub(super) struct GrantedToken {
    pub token: TokenOutput,
    /// How long it lives: a second at least.
    pub left: Duration,
}

impl Broker {
    /// A token for a client that shows its handle. `is_rejected`: an API has rejected the token that it has, as it takes it;
    /// it cannot show which.
    pub(super) async fn granted_token(
        &self,
        handle: &HandleRecord,
        grant: &TokenGrant,
        is_rejected: bool,
    ) -> Result<GrantedToken, Ungranted> {
        let asked = match is_rejected {
            true => self.token_after_complaint(handle, grant).await,
            false => {
                let (min_valid, condition) = (grant.min_valid(), Condition::Valid);
                let query = TokenQuery { min_valid, timeout: LIMIT, condition, has_id_token: grant.id_token };
                self.token(&grant.profile, query).await
            }
        };
        let nothing = |outcome| Ungranted::Nothing(Box::new(outcome));
        match asked.map_err(nothing)? {
            TokenAnswer::Obtained(obtained) => {
                let left = self.within_grant(handle, grant, &obtained).await?;
                let token = obtained.token.ok_or_else(|| nothing(no_token()))?;
                Ok(GrantedToken { token, left })
            }
            TokenAnswer::NothingNewer | TokenAnswer::UnknownGeneration(_) => Err(nothing(no_token())),
        }
    }

    /// The generation meant is the newest one that was given for the handle. After the store was replaced there may have been
    /// none of its number.
    async fn token_after_complaint(&self, handle: &HandleRecord, grant: &TokenGrant) -> Result<TokenAnswer, Outcome> {
        let ask =
            |meant| self.token_after_report(&grant.profile, RejectionReport::unproven(meant), grant.min_valid(), LIMIT);
        match ask(self.given.of(&handle.sha256)).await? {
            TokenAnswer::UnknownGeneration(_) => ask(None).await,
            answer => Ok(answer),
        }
    }

    /// How long a token lives that was obtained, if the handle allows it.
    pub(super) async fn within_grant(
        &self,
        handle: &HandleRecord,
        grant: &TokenGrant,
        obtained: &TokenResult,
    ) -> Result<Duration, Ungranted> {
        let Some(token) = &obtained.token else { return Err(Ungranted::Nothing(Box::new(obtained.outcome.clone()))) };
        // The wait for the token may have been long.
        let hash = handle.sha256.clone();
        let still = self.on_thread(move |broker| broker.engine.store().handles().find(&hash)).await;
        if matches!(still, Ok(Ok(None))) {
            return Err(Ungranted::Revoked);
        }
        if self.is_of_other_account(grant, token).await {
            return Err(Ungranted::OtherAccount);
        }
        let now = self.engine.clock().now();
        let left = obtained.validity.as_ref().map_or(Duration::ZERO, |validity| validity.remaining(&now));
        if left < grant.floor().max(Duration::from_secs(1)) {
            return Err(Ungranted::Nothing(Box::new(below_floor(obtained.outcome.clone()))));
        }
        self.given.note(&handle.sha256, token.generation);
        Ok(left)
    }

    /// Whether the token is of another account. Where the tokens do not tell, the tool that it was imported from may.
    async fn is_of_other_account(&self, grant: &TokenGrant, token: &TokenOutput) -> bool {
        if grant.account == AccountIdentity::default() {
            return false;
        }
        let told = account_of(token);
        match grant.account.compare(&told) {
            AccountMatch::Same => false,
            AccountMatch::Different => true,
            AccountMatch::Unknown => {
                let name = grant.profile.clone();
                let journal = self.on_thread(move |broker| broker.engine.store().peek(&name).ok().flatten()).await;
                let origin = journal.ok().flatten().and_then(|journal| journal.origin);
                let imported = origin.map(|origin| origin.identity).unwrap_or_default();
                grant.account.compare(&told.merged_with(imported)) == AccountMatch::Different
            }
        }
    }
}

fn account_of(token: &TokenOutput) -> AccountIdentity {
    let id_token = token.id_token.clone().and_then(AccessToken::new);
    AccountIdentity::of_tokens(id_token.as_ref(), AccessToken::new(token.access_token.clone()).as_ref())
}

fn no_token() -> Outcome {
    Outcome::new(OutcomeKind::Deferred).with_error(Failure::new(ErrorKind::NoToken, "there is no valid access token"))
}

/// A token that is refused for its short life counts as none. What failed is told; if nothing did, the next refresh is near.
fn below_floor(outcome: Outcome) -> Outcome {
    match (outcome.kind, &outcome.error) {
        (OutcomeKind::Fresh | OutcomeKind::Refreshed, _) | (_, None) => {
            let failure = Failure::new(ErrorKind::NoToken, "the access token ends too soon for this handle");
            Outcome { kind: OutcomeKind::Deferred, ..outcome }.with_error(failure)
        }
        _ => outcome,
    }
}
