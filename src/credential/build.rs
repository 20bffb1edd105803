//! Makes a credential of a token response that did not come from a refresh.

use crate::credential::freshness::Validity;
use crate::credential::token_response::TokenResponse;
use crate::credential::{Binding, Credential, Generation, Grant};

/// The credential that a token response makes; `None` if it holds no refresh token. `validity` is that of its access
/// token, if it has one.
pub fn build_credential(granted: TokenResponse, binding: Binding, validity: Validity) -> Option<Credential> {
    let since = validity.obtained.wall;
    let issued = granted.expiry.issue_time().filter(|at| validity.is_remainder && *at < since).unwrap_or(since);
    let login_by = granted.refresh_end.and_then(|end| end.instant(issued));
    let validity = granted.access.is_some().then_some(validity);
    let not_before = granted.earliest_refresh(since, validity.as_ref().map(Validity::expires_at));
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
    use std::time::Duration;

    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::credential::expiry::{ExpiryClaims, RefreshTokenEnd};
    use crate::credential::secret::{AccessToken, RefreshToken};

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn made_of(granted: TokenResponse, is_remainder: bool) -> Credential {
        let obtained = ManualClock::new(Timestamp::from_secs(1_790_000_000)).now();
        let validity = Validity { obtained, lifetime_ms: 60_000, assumed: false, is_remainder, expired_at: None };
        let granted = TokenResponse { refresh: RefreshToken::new("r"), ..granted };
        let binding = Binding { provider: "acme".into(), origin: "https://a".into(), client_id: "c".into() };
        build_credential(granted, binding, validity).unwrap()
    }

    #[test]
    fn login_deadline_is_set_only_if_refresh_token_expires() {
        let end = |end| made_of(TokenResponse { refresh_end: end, ..TokenResponse::default() }, false).grant.login_by;
        let at = Timestamp::from_secs(1_790_000_090);
        assert_eq!(
            [None, Some(RefreshTokenEnd::Never), Some(RefreshTokenEnd::After(S(90))), Some(RefreshTokenEnd::At(at))]
                .map(end),
            [None, None, Some(at), Some(at)]
        );
    }

    #[test]
    fn imported_refresh_token_is_as_old_as_its_response() {
        let end = |is_import| {
            let expiry =
                ExpiryClaims { issued_at: Some(Timestamp::from_secs(1_789_999_950)), ..ExpiryClaims::default() };
            let refresh_end = Some(RefreshTokenEnd::After(S(90)));
            made_of(TokenResponse { expiry, refresh_end, ..TokenResponse::default() }, is_import).grant.login_by
        };
        assert_eq!([true, false].map(end), [1_790_000_040, 1_790_000_090].map(|s| Some(Timestamp::from_secs(s))));
    }

    #[test]
    fn validity_is_of_an_access_token_alone() {
        let life = |access| made_of(TokenResponse { access, ..TokenResponse::default() }, false).grant.validity;
        assert_eq!(life(AccessToken::new("a")).map(|v| v.lifetime()), Some(S(60)));
        assert_eq!(life(None), None);
    }
}
