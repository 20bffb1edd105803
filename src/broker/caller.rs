//! Who makes a request, and which handle admits it: on the socket the peer's user is enough, on TCP a handle is needed.

use std::net::SocketAddr;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};

use super::limits::ListenerKind;
use super::responses::{self, ApiResponse};
use super::state::Broker;
use crate::clock::Timestamp;
use crate::outcome::{ErrorKind, Failure, Outcome};
use crate::profile::ProfileName;
use crate::store::handles::{Handle, HandleGrant, HandleRecord, HandleTextError, TokenGrant};

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Caller {
    /// The socket, and this user.
    Local,
    /// The TCP listener at this address.
    Tcp { listen: SocketAddr, is_our_user: bool },
}

impl Caller {
    pub(super) fn kind(self) -> ListenerKind {
        match self {
            Self::Local => ListenerKind::Socket,
            Self::Tcp { .. } => ListenerKind::Tcp,
        }
    }
}

/// What the log may name of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestNote {
    pub handle: Option<String>,
    pub profile: Option<ProfileName>,
}

/// Why a handle admits nothing.
#[derive(Debug)]
pub(super) enum HandleRefusal {
    Missing,
    Malformed(HandleTextError),
    /// It never was, or it was revoked.
    Unknown,
    /// `None`: it was for the metrics.
    Expired(Option<ProfileName>),
    OtherUser,
    /// The handles cannot be read.
    Unreadable(Box<Outcome>),
}

impl HandleRefusal {
    /// What is told of it. The handle is not repeated.
    pub(super) fn failure(&self) -> Failure {
        let new_one = "make one: keepalive handle create PROFILE";
        let unauthorized = |message: &str| Failure::new(ErrorKind::Unauthorized, message);
        match self {
            Self::Missing => unauthorized("a handle is needed, as Authorization: Bearer kah_...").with_hint(new_one),
            Self::Malformed(error) => unauthorized(&error.to_string()).with_hint(new_one),
            Self::Unknown => unauthorized("the handle is not known, or is revoked").with_hint(new_one),
            Self::Expired(profile) => {
                let what = profile.as_ref().map_or("--metrics", ProfileName::as_str);
                unauthorized("the handle has expired").with_hint(format!("make one: keepalive handle create {what}"))
            }
            Self::OtherUser => {
                let message = "the handle is for programs of its user, and this client is not known to be one";
                Failure::new(ErrorKind::Forbidden, message)
                    .with_hint("keepalive handle create --any-user makes one for other users and containers")
            }
            Self::Unreadable(outcome) => {
                outcome.error.clone().unwrap_or_else(|| Failure::new(ErrorKind::Io, "the handles cannot be read"))
            }
        }
    }

    /// As `/v1` tells it.
    pub(super) fn response(&self, now: Timestamp) -> ApiResponse {
        match self {
            Self::Unreadable(outcome) => responses::unserved(Outcome::clone(outcome).with_error(self.failure()), now),
            Self::OtherUser => responses::refusal(StatusCode::FORBIDDEN, self.failure()),
            Self::Missing | Self::Malformed(_) | Self::Unknown | Self::Expired(_) => {
                let mut response = responses::refusal(StatusCode::UNAUTHORIZED, self.failure());
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
        }
    }
}

/// The words behind `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| rest.trim())
}

impl Broker {
    /// The handle that a TCP client presents.
    pub(super) async fn admit(&self, is_our_user: bool, presented: &str) -> Result<HandleRecord, HandleRefusal> {
        let hash = Handle::parse(presented).map_err(HandleRefusal::Malformed)?.hash();
        let found = self.on_thread(move |broker| {
            let (handles, now) = (broker.engine.store().handles(), broker.engine.clock().now());
            let record = handles.find(&hash).map_err(|e| HandleRefusal::Unreadable(Box::new(e.outcome())))?;
            let record = record.ok_or(HandleRefusal::Unknown)?;
            if record.is_expired(&now) {
                return Err(HandleRefusal::Expired(record.profile().cloned()));
            }
            if !record.any_user && !is_our_user {
                return Err(HandleRefusal::OtherUser);
            }
            if let Err(error) = handles.note_use(&record, &now) {
                tracing::warn!(event = "socket.warning", %error, handle = record.id(), "cannot note the use of a handle");
            }
            Ok(record)
        });
        found.await.map_err(|outcome| HandleRefusal::Unreadable(Box::new(outcome)))?
    }

    /// Admits a request for the token of a profile. `None`: it comes by the socket. The response is that of `/v1`.
    pub(super) async fn admit_to_token(
        &self,
        caller: Caller,
        headers: &HeaderMap,
        name: &ProfileName,
    ) -> Result<Option<(HandleRecord, TokenGrant)>, ApiResponse> {
        let Some(record) = self.admit_bearer(caller, headers).await? else { return Ok(None) };
        match &record.grants {
            HandleGrant::Token(grant) if grant.profile == *name => {
                let grant = grant.clone();
                Ok(Some((record, grant)))
            }
            HandleGrant::Token(_) | HandleGrant::Metrics => {
                Err(noted(forbidden("the handle is not for the token of this profile"), &record))
            }
        }
    }

    /// Admits a request for the metrics.
    pub(super) async fn admit_to_metrics(&self, caller: Caller, headers: &HeaderMap) -> Result<(), ApiResponse> {
        match self.admit_bearer(caller, headers).await? {
            Some(record) if record.grants != HandleGrant::Metrics => {
                let message = "the handle is not for the metrics; keepalive handle create --metrics makes one";
                Err(noted(forbidden(message), &record))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whatever the handle is for.
    pub(super) async fn admit_bearer(
        &self,
        caller: Caller,
        headers: &HeaderMap,
    ) -> Result<Option<HandleRecord>, ApiResponse> {
        let Caller::Tcp { is_our_user, .. } = caller else { return Ok(None) };
        let now = self.engine.clock().now().wall;
        let Some(presented) = bearer(headers) else { return Err(HandleRefusal::Missing.response(now)) };
        self.admit(is_our_user, presented).await.map(Some).map_err(|refused| refused.response(now))
    }
}

pub(super) fn forbidden(message: &str) -> ApiResponse {
    responses::refusal(StatusCode::FORBIDDEN, Failure::new(ErrorKind::Forbidden, message))
}

/// The response, with what the log names of it.
pub(super) fn noted<B>(mut response: Response<B>, record: &HandleRecord) -> Response<B> {
    let note = RequestNote { handle: Some(record.id().to_owned()), profile: record.profile().cloned() };
    response.extensions_mut().insert(note);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_is_read_whatever_the_case_of_its_scheme() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read("Bearer kah_x").as_deref(), Some("kah_x"));
        assert_eq!(read("bearer  kah_x ").as_deref(), Some("kah_x"));
        assert_eq!((read("Basic eA=="), read("kah_x"), bearer(&HeaderMap::new())), (None, None, None));
    }
}
