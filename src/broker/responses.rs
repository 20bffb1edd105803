//! The responses of the API: their status, their JSON and their headers. (pure)

use std::time::Duration;

use axum::body::Body;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, PRAGMA, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::wire::{FailureBody, PROTOCOL, PROTOCOL_HEADER, TokenBody};
use crate::clock::{Moment, Timestamp};
use crate::credential::Generation;
use crate::engine::access_token::{TokenOutput, TokenResult};
use crate::outcome::{ErrorKind, Failure, Outcome, OutcomeKind};
use crate::profile::ProfileName;

pub(super) type ApiResponse = Response<Body>;

/// What every response says: it is never stored, and taken for nothing but what it says it is.
const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (PRAGMA, HeaderValue::from_static("no-cache")),
    (HeaderName::from_static(PROTOCOL_HEADER), HeaderValue::from_static(PROTOCOL)),
    (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    // Less than the time after which an idle connection is closed, so that no request meets the close.
    (HeaderName::from_static("keep-alive"), HeaderValue::from_static("timeout=10")),
];

/// How long a client waits before it asks again, where nothing says when it will be tried again.
const USUAL_RETRY: Duration = Duration::from_secs(5);
const STORE_RETRY: Duration = Duration::from_secs(30);
const MIN_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(300);

/// Adds what every response has.
pub(super) fn finish(response: &mut ApiResponse) {
    response.headers_mut().extend(HEADERS);
}

pub(super) fn json(status: StatusCode, body: &impl Serialize) -> ApiResponse {
    let mut response = match serde_json::to_vec(body) {
        Ok(bytes) => Response::new(Body::from(bytes)),
        Err(_) => Response::new(Body::empty()),
    };
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn metrics(page: String) -> ApiResponse {
    let mut response = Response::new(Body::from(page));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}

pub(super) fn empty(status: StatusCode) -> ApiResponse {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A token, or why there is none. The ID token names a person, so only who asks for it gets it.
pub(super) fn token(profile: &ProfileName, obtained: TokenResult, has_id_token: bool, now: &Moment) -> ApiResponse {
    let Some(token) = obtained.token else {
        return failure(profile.as_str(), obtained.outcome, now.wall);
    };
    let token = TokenOutput { id_token: token.id_token.filter(|_| has_id_token), ..token };
    let left = obtained.validity.map_or(Duration::ZERO, |validity| validity.remaining(now));
    let generation = token.generation;
    let body = TokenBody {
        profile: profile.clone(),
        token,
        expires_in: left.as_secs(),
        outcome: obtained.outcome.kind,
        warnings: obtained.warnings,
    };
    let mut response = json(StatusCode::OK, &body);
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{generation}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// How a request for a token ended without one.
pub(super) fn failure(profile: &str, outcome: Outcome, now: Timestamp) -> ApiResponse {
    ended(Some(profile.to_owned()), outcome, now)
}

/// As [`failure`], of a request that was given up before a profile was looked at.
pub(super) fn unserved(outcome: Outcome, now: Timestamp) -> ApiResponse {
    ended(None, outcome, now)
}

fn ended(profile: Option<String>, outcome: Outcome, now: Timestamp) -> ApiResponse {
    let error = outcome.error.unwrap_or_else(|| Failure::new(ErrorKind::NoToken, "there is no valid access token"));
    let status = failure_status(outcome.kind, &error.kind);
    let body = FailureBody {
        profile,
        outcome: Some(outcome.kind),
        generation: (outcome.generation != Generation::NONE).then_some(outcome.generation),
        retry_at: outcome.retry_at,
        error,
    };
    let mut response = json(status, &body);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        set_retry_after(&mut response, retry_after(outcome.kind, outcome.retry_at, now));
    }
    response
}

/// A request that no profile has to do with, or that cannot be served at all.
pub(super) fn refusal(status: StatusCode, error: Failure) -> ApiResponse {
    let mut response =
        json(status, &FailureBody { profile: None, outcome: None, generation: None, retry_at: None, error });
    if status == StatusCode::SERVICE_UNAVAILABLE {
        set_retry_after(&mut response, MIN_RETRY);
    }
    response
}

/// A client with another protocol, configuration or state directory.
pub(super) fn other_daemon(header: &str) -> ApiResponse {
    let message = format!("{header} is not that of this daemon");
    let hint = match header {
        PROTOCOL_HEADER => format!("this daemon speaks protocol {PROTOCOL}; leave the header out"),
        _ => "leave the header out, or ask the daemon that has this configuration and this state directory".into(),
    };
    refusal(StatusCode::PRECONDITION_FAILED, Failure::new(ErrorKind::Usage, message).with_hint(hint))
}

/// What only a person can end is 409, so that no client tries it again; what may pass is 503.
fn failure_status(outcome: OutcomeKind, kind: &ErrorKind) -> StatusCode {
    match (kind, outcome) {
        (ErrorKind::UnknownProfile, _) => StatusCode::NOT_FOUND,
        (_, OutcomeKind::NeedsLogin | OutcomeKind::ConfigError) => StatusCode::CONFLICT,
        (_, OutcomeKind::Deferred | OutcomeKind::InDoubt | OutcomeKind::StoreUnavailable) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        (_, OutcomeKind::Fresh | OutcomeKind::Refreshed) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn retry_after(outcome: OutcomeKind, retry_at: Option<Timestamp>, now: Timestamp) -> Duration {
    match (outcome, retry_at) {
        (OutcomeKind::StoreUnavailable, _) => STORE_RETRY,
        (_, Some(at)) => at.since(now).clamp(MIN_RETRY, MAX_RETRY),
        (_, None) => USUAL_RETRY,
    }
}

/// Says when to ask again, if that helps.
pub(super) fn set_retry_of(response: &mut ApiResponse, outcome: &Outcome, now: Timestamp) {
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        set_retry_after(response, retry_after(outcome.kind, outcome.retry_at, now));
    }
}

fn set_retry_after(response: &mut ApiResponse, wait: Duration) {
    // Rounded up, so that a client that obeys does not come too early.
    let seconds = wait.as_millis().div_ceil(1000);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

    fn told(kind: OutcomeKind, error: ErrorKind, retry_in: Option<u64>) -> (u16, Option<String>) {
        let outcome = Outcome {
            retry_at: retry_in.map(|s| NOW.plus(Duration::from_secs(s))),
            ..Outcome::new(kind).with_error(Failure::new(error, "x"))
        };
        let response = failure("demo", outcome, NOW);
        let wait = response.headers().get(RETRY_AFTER).map(|v| v.to_str().unwrap().to_owned());
        (response.status().as_u16(), wait)
    }

    #[test]
    fn status_says_whether_asking_again_helps() {
        let wait = |seconds: &str| Some(seconds.to_owned());
        for (kind, error, retry_in, expected) in [
            (OutcomeKind::Deferred, ErrorKind::Throttled, Some(90), (503, wait("90"))),
            (OutcomeKind::Deferred, ErrorKind::Throttled, Some(9000), (503, wait("300"))),
            (OutcomeKind::InDoubt, ErrorKind::InDoubt, Some(0), (503, wait("1"))),
            (OutcomeKind::Deferred, ErrorKind::Busy, None, (503, wait("5"))),
            (OutcomeKind::StoreUnavailable, ErrorKind::Io, Some(1), (503, wait("30"))),
            (OutcomeKind::NeedsLogin, ErrorKind::Consumed, None, (409, None)),
            (OutcomeKind::ConfigError, ErrorKind::Config, None, (409, None)),
            (OutcomeKind::NeedsLogin, ErrorKind::UnknownProfile, None, (404, None)),
        ] {
            assert_eq!(told(kind, error, retry_in), expected, "{kind}");
        }
    }
}
