//! The identity endpoint of Azure App Service, which the Azure libraries ask: a handle in a header, and a token for a resource.

use std::borrow::Cow;

use axum::Extension;
use axum::extract::{RawQuery, State};
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde_json::json;
use url::form_urlencoded;

use super::caller::{Caller, HandleRefusal, noted};
use super::grants::Ungranted;
use super::oauth;
use super::responses::{self, ApiResponse};
use super::state::Broker;
use crate::store::handles::HandleGrant;

pub(super) const IDENTITY: &str = "/msi/token";
/// What the libraries send the handle in.
const IDENTITY_HEADER: &str = "x-identity-header";

/// The resource is repeated and not checked: the profile decides which one its token is for.
pub(super) async fn token(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> ApiResponse {
    let query = query.unwrap_or_default();
    let Some(resource) = resource(&query) else {
        return failed(StatusCode::BAD_REQUEST, "invalid_request", "the parameter resource is missing");
    };
    let Caller::Tcp { is_our_user, .. } = caller else {
        return failed(StatusCode::BAD_REQUEST, "invalid_request", "this is for TCP alone");
    };
    let Some(presented) = headers.get(IDENTITY_HEADER).and_then(|value| value.to_str().ok()) else {
        let missing = "the header X-IDENTITY-HEADER with a handle is missing (IDENTITY_HEADER)";
        return failed(StatusCode::BAD_REQUEST, "invalid_request", missing);
    };
    let handle = match broker.admit(is_our_user, presented).await {
        Ok(handle) => handle,
        Err(refused) => {
            let status = match refused {
                HandleRefusal::Unreadable(_) => StatusCode::SERVICE_UNAVAILABLE,
                HandleRefusal::OtherUser => StatusCode::FORBIDDEN,
                _ => StatusCode::BAD_REQUEST,
            };
            return failed(status, "invalid_grant", &refused.failure().in_one_line());
        }
    };
    let HandleGrant::Token(grant) = &handle.grants else {
        return noted(failed(StatusCode::BAD_REQUEST, "invalid_grant", oauth::METRICS_ONLY), &handle);
    };
    let response = match broker.granted_token(&handle, grant, false).await {
        Ok(granted) => {
            let end = broker.engine.clock().now().wall.plus(granted.left).as_millis() / 1000;
            responses::json(
                StatusCode::OK,
                &json!({
                    "access_token": granted.token.access_token,
                    "expires_on": end.to_string(),
                    "resource": resource,
                    "token_type": "Bearer",
                }),
            )
        }
        Err(Ungranted::Nothing(outcome)) => {
            let (status, code, text) = oauth::verdict(&grant.profile, &outcome);
            let mut response = failed(status, code, &text);
            responses::set_retry_of(&mut response, &outcome, broker.engine.clock().now().wall);
            response
        }
        Err(Ungranted::Revoked) => {
            failed(StatusCode::BAD_REQUEST, "invalid_grant", &HandleRefusal::Unknown.failure().in_one_line())
        }
        Err(Ungranted::OtherAccount) => {
            failed(StatusCode::BAD_REQUEST, "invalid_grant", &oauth::other_account(&grant.profile))
        }
    };
    noted(response, &handle)
}

fn resource(query: &str) -> Option<Cow<'_, str>> {
    let mut found = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "resource");
    found.next().map(|(_, value)| value).filter(|value| !value.is_empty())
}

fn failed(status: StatusCode, code: &str, message: &str) -> ApiResponse {
    let error = json!({ "code": code, "message": message });
    responses::json(status, &json!({ "statusCode": status.as_u16(), "message": message, "error": error }))
}
