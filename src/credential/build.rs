//! Makes a credential of a token response that did not come from a refresh.

use std::time::Duration;

use crate::clock::Moment;
use crate::credential::freshness::{Lifetime, Validity};
use crate::credential::token_response::TokenResponse;
use crate::credential::{Binding, Credential, Generation, Grant};

/// The credential that a token response makes; `None` if it holds no refresh token. `told` is how long the access token
/// lives from `since` on, if that is known.
pub fn build_credential(
    granted: TokenResponse,
    binding: Binding,
    since: &Moment,
    told: Option<Lifetime>,
    default_lifetime: Duration,
) -> Option<Credential> {
    let (lifetime, is_rest) = match told {
        Some(Lifetime::Whole(life)) => (life, false),
        Some(Lifetime::Remaining(left)) => (left, true),
        None => (default_lifetime, false),
    };
    let validity = granted.access.is_some().then(|| Validity {
        obtained: since.clone(),
        lifetime_ms: u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX),
        assumed: told.is_none(),
        is_remainder: is_rest,
    });
    // Zero is Keycloak's way to say that an offline token does not end.
    let not_before = granted.earliest_refresh(since.wall, validity.as_ref().map(Validity::expires_at));
    let login_by = granted.refresh_expires_in.filter(|s| *s > 0).map(|s| since.wall.plus(Duration::from_secs(s)));
    Some(Credential {
        // It gets its number when it is stored.
        generation: Generation::NONE,
        binding,
        refresh: granted.refresh?,
        grant: Grant {
            access: granted.access,
            validity,
            token_type: granted.token_type.unwrap_or_else(|| "Bearer".into()),
            scope: granted.scope,
            id_token: granted.id_token,
            login_by,
            not_before,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::credential::secret::{AccessToken, RefreshToken};

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn made_of(granted: TokenResponse, told: Option<Lifetime>) -> (Moment, Credential) {
        let now = ManualClock::new(Timestamp::from_secs(1_790_000_000)).now();
        let granted = TokenResponse { refresh: RefreshToken::new("r"), ..granted };
        let binding = Binding { provider: "acme".into(), origin: "https://a".into(), client_id: "c".into() };
        let made = build_credential(granted, binding, &now, told, S(3600)).unwrap();
        (now, made)
    }

    #[test]
    fn login_deadline_is_set_only_if_refresh_token_expires() {
        let end = |secs| {
            let (now, made) = made_of(TokenResponse { refresh_expires_in: secs, ..TokenResponse::default() }, None);
            made.grant.login_by.map(|at| at.since(now.wall))
        };
        assert_eq!([None, Some(0), Some(1), Some(90)].map(end), [None, None, Some(S(1)), Some(S(90))]);
    }

    #[test]
    fn access_token_lifetime_is_the_given_or_the_default() {
        let life = |access: Option<AccessToken>, told| {
            let (_, made) = made_of(TokenResponse { access, ..TokenResponse::default() }, told);
            made.grant.validity.map(|v| (v.lifetime(), v.assumed, v.is_remainder))
        };
        let access = || AccessToken::new("a");
        let (whole, rest) = (Some(Lifetime::Whole(S(60))), Some(Lifetime::Remaining(S(60))));
        assert_eq!(life(access(), whole), Some((S(60), false, false)));
        assert_eq!(life(access(), rest), Some((S(60), false, true)));
        assert_eq!(life(access(), None), Some((S(3600), true, false)));
        assert_eq!(life(None, whole), None);
    }
}
