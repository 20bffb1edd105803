//! The paths of the API, and what each of them does.

use std::collections::BTreeMap;
use std::fmt;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::routing::{any, get, post};
use axum::{Extension, Router};
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode, Uri};
use serde_json::{Value, json};

use super::azure;
use super::caller::{Caller, HandleRefusal, forbidden, noted};
use super::grants::Ungranted;
use super::limits::ListenerKind;
use super::oauth;
use super::query::{self, TokenQuery};
use super::responses::{self, ApiResponse};
use super::state::{Broker, TokenAnswer};
use super::wire::PROTOCOL;
use crate::config;
use crate::outcome::{ErrorKind, Failure, Outcome};
use crate::profile::ProfileName;
use crate::store::handles::{HandleRecord, TokenGrant};

const TOKEN: &str = "/v1/profiles/{profile}/token";
const PROFILE: &str = "/v1/profiles/{profile}";
const PROFILES: &str = "/v1/profiles";
const PING: &str = "/v1/ping";
const HEALTH: &str = "/v1/health";
const METRICS: &str = "/metrics";
/// What stands before the paths of a metadata server.
const GCE: &str = "/computeMetadata/";

const PATHS: [&str; 6] = [PING, HEALTH, METRICS, PROFILES, PROFILE, TOKEN];
/// What there is on TCP alone.
const TCP_PATHS: [&str; 7] =
    [oauth::TOKEN, oauth::REVOKE, oauth::METADATA, oauth::AUTHORIZE, oauth::DEVICE, oauth::REGISTER, azure::IDENTITY];

/// On the socket.
pub(super) fn router(broker: Broker) -> Router {
    Router::new()
        .route(TOKEN, get(token))
        .route(PROFILE, get(profile))
        .route(PROFILES, get(profiles))
        .route(PING, get(ping))
        .route(HEALTH, get(health))
        .route(METRICS, get(metrics))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(broker)
}

/// On TCP, where a handle is for one profile or for the metrics.
pub(super) fn tcp_router(broker: Broker) -> Router {
    Router::new()
        .route(TOKEN, get(token))
        .route(PROFILE, get(only_on_socket))
        .route(PROFILES, get(only_on_socket))
        .route(PING, get(ping))
        .route(HEALTH, get(only_on_socket))
        .route(METRICS, get(metrics))
        .route(oauth::TOKEN, post(oauth::token))
        .route(oauth::REVOKE, post(oauth::revoke))
        .route(oauth::METADATA, get(oauth::metadata))
        .route(oauth::AUTHORIZE, any(oauth::no_authorization))
        .route(oauth::DEVICE, any(oauth::no_client))
        .route(oauth::REGISTER, any(oauth::no_client))
        .route(azure::IDENTITY, get(azure::token))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(broker)
}

/// The path as the log and the metrics name it: without the name of a profile, and without what is not known.
pub(super) fn label(path: &str) -> &'static str {
    if let Some(known) = PATHS.into_iter().chain(TCP_PATHS).find(|known| *known == path) {
        return known;
    }
    if path.starts_with(GCE) {
        return GCE;
    }
    match path.strip_prefix("/v1/profiles/").map(|rest| rest.split_once('/')) {
        Some(None) => PROFILE,
        Some(Some((_, "token"))) => TOKEN,
        Some(Some(_)) | None => "other",
    }
}

type ProfilePath = Result<Path<String>, PathRejection>;

fn profile_name(path: ProfilePath) -> Result<ProfileName, ApiResponse> {
    let text = path.map(|Path(text)| text).map_err(|_| "the name of the profile is not UTF-8".to_owned());
    let name = text.and_then(|text| text.parse::<ProfileName>().map_err(|wrong| wrong.to_string()));
    name.map_err(bad_request)
}

async fn token(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    path: ProfilePath,
    RawQuery(query): RawQuery,
) -> ApiResponse {
    let name = match profile_name(path) {
        Ok(name) => name,
        Err(refused) => return refused,
    };
    let admitted = match broker.admit_to_token(caller, &headers, &name).await {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    let query = match TokenQuery::parse(&query.unwrap_or_default()) {
        Ok(query) => query,
        Err(wrong) => return responses::refusal(StatusCode::BAD_REQUEST, wrong),
    };
    let response = token_response(&broker, &name, query, admitted.as_ref()).await;
    match admitted {
        Some((handle, _)) => noted(response, &handle),
        None => response,
    }
}

async fn token_response(
    broker: &Broker,
    name: &ProfileName,
    query: TokenQuery,
    admitted: Option<&(HandleRecord, TokenGrant)>,
) -> ApiResponse {
    let has_id_token = query.has_id_token && admitted.is_none_or(|(_, grant)| grant.id_token);
    let obtained = broker.token(name, query).await;
    let now = broker.engine.clock().now();
    match obtained {
        Ok(TokenAnswer::Obtained(obtained)) => {
            let refused = match admitted {
                Some((handle, grant)) => broker.within_grant(handle, grant, &obtained).await.err(),
                None => None,
            };
            match refused {
                None => responses::token(name, *obtained, has_id_token, &now),
                Some(Ungranted::Nothing(outcome)) => responses::failure(name.as_str(), *outcome, now.wall),
                Some(Ungranted::OtherAccount) => forbidden(&oauth::other_account(name)),
                Some(Ungranted::Revoked) => HandleRefusal::Unknown.response(now.wall),
            }
        }
        Ok(TokenAnswer::NothingNewer) => responses::empty(StatusCode::NO_CONTENT),
        Ok(TokenAnswer::UnknownGeneration(generation)) => {
            bad_request(format!("there has been no generation {generation} of {name}"))
        }
        Err(outcome) => responses::failure(name.as_str(), outcome, now.wall),
    }
}

async fn only_on_socket(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> ApiResponse {
    match broker.admit_bearer(caller, &headers).await {
        Ok(Some(handle)) => noted(forbidden("only programs on the socket of the daemon are told this"), &handle),
        Ok(None) => forbidden("only programs on the socket of the daemon are told this"),
        Err(refused) => refused,
    }
}

async fn profile(State(broker): State<Broker>, path: ProfilePath, RawQuery(query): RawQuery) -> ApiResponse {
    let name = match (profile_name(path), query::expect_none(&query.unwrap_or_default())) {
        (Ok(name), Ok(())) => name,
        (Err(refused), _) => return refused,
        (_, Err(wrong)) => return responses::refusal(StatusCode::BAD_REQUEST, wrong),
    };
    match broker.status(name.clone()).await {
        Ok(status) => responses::json(StatusCode::OK, &status),
        Err(outcome) => failure(&broker, name.as_str(), outcome),
    }
}

async fn profiles(State(broker): State<Broker>, RawQuery(query): RawQuery) -> ApiResponse {
    if let Err(wrong) = query::expect_none(&query.unwrap_or_default()) {
        return responses::refusal(StatusCode::BAD_REQUEST, wrong);
    }
    match broker.all_statuses().await {
        Ok(profiles) => {
            let mut document = broker.listeners().await;
            document["profiles"] = json!(profiles);
            responses::json(StatusCode::OK, &document)
        }
        Err(outcome) => responses::unserved(outcome, broker.engine.clock().now().wall),
    }
}

/// Without a handle no more is told than which protocol is spoken.
async fn ping(Extension(caller): Extension<Caller>, RawQuery(query): RawQuery) -> ApiResponse {
    match (query::expect_none(&query.unwrap_or_default()), caller) {
        (Ok(()), Caller::Tcp { .. }) => responses::json(StatusCode::OK, &json!({ "protocol": PROTOCOL })),
        (Ok(()), Caller::Local) => responses::json(
            StatusCode::OK,
            &json!({"pid": std::process::id(), "version": env!("CARGO_PKG_VERSION"), "protocol": PROTOCOL}),
        ),
        (Err(wrong), _) => responses::refusal(StatusCode::BAD_REQUEST, wrong),
    }
}

/// A profile that needs a login is no ill health: starting the daemon again would not help it.
async fn health(State(broker): State<Broker>, RawQuery(query): RawQuery) -> ApiResponse {
    if let Err(wrong) = query::expect_none(&query.unwrap_or_default()) {
        return responses::refusal(StatusCode::BAD_REQUEST, wrong);
    }
    let (uptime, is_stuck) = broker.pulse();
    let profiles = match broker.all_statuses().await {
        Ok(profiles) => profiles,
        Err(outcome) => return responses::unserved(outcome, broker.engine.clock().now().wall),
    };
    let body = json!({
        "status": if is_stuck { "stuck" } else { "ok" },
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": uptime.as_secs(),
        "profiles": count_states(&profiles),
    });
    responses::json(if is_stuck { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &body)
}

async fn metrics(
    State(broker): State<Broker>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> ApiResponse {
    if let Err(refused) = broker.admit_to_metrics(caller, &headers).await {
        return refused;
    }
    if let Err(wrong) = query::expect_none(&query.unwrap_or_default()) {
        return responses::refusal(StatusCode::BAD_REQUEST, wrong);
    }
    let profiles = match broker.all_statuses().await {
        Ok(profiles) => profiles,
        Err(outcome) => return responses::unserved(outcome, broker.engine.clock().now().wall),
    };
    match broker.metrics.render(&profiles, broker.directory.metrics_per_profile(), &broker.connections) {
        Ok(page) => responses::metrics(page),
        Err(fmt::Error) => responses::empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// How many profiles are in each state.
fn count_states(profiles: &[Value]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for state in profiles.iter().filter_map(|profile| profile["state"].as_str()) {
        *counts.entry(state).or_default() += 1;
    }
    counts
}

async fn no_such_path(Extension(caller): Extension<Caller>, uri: Uri) -> ApiResponse {
    let mut paths = PATHS.to_vec();
    if caller.kind() == ListenerKind::Tcp {
        paths.extend(TCP_PATHS);
    }
    let meant = config::nearest(uri.path(), paths.iter().copied())
        .map_or(String::new(), |path| format!("; did you mean {path}?"));
    let failure = Failure::new(ErrorKind::Usage, format!("there is no such path{meant}"));
    responses::refusal(StatusCode::NOT_FOUND, failure.with_hint(format!("the paths are {}", paths.join(", "))))
}

async fn wrong_method(method: Method, uri: Uri) -> ApiResponse {
    oauth::wrong_method(label(uri.path()), method.as_str())
}

fn bad_request(message: String) -> ApiResponse {
    responses::refusal(StatusCode::BAD_REQUEST, Failure::new(ErrorKind::Usage, message))
}

fn failure(broker: &Broker, profile: &str, outcome: Outcome) -> ApiResponse {
    responses::failure(profile, outcome, broker.engine.clock().now().wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_explains_every_path() {
        for path in PATHS {
            assert!(crate::broker::MANUAL.contains(&format!(".B \"GET {path}\"\n")), "{path}");
        }
        for path in
            TCP_PATHS.into_iter().filter(|path| ![oauth::AUTHORIZE, oauth::DEVICE, oauth::REGISTER].contains(path))
        {
            assert!(crate::broker::MANUAL.replace("\\-", "-").contains(&format!(" {path}\"\n")), "{path}");
        }
    }

    #[test]
    fn label_of_a_path_has_no_profile() {
        for (path, expected) in [
            ("/v1/ping", PING),
            ("/v1/profiles", PROFILES),
            ("/v1/profiles/demo", PROFILE),
            ("/v1/profiles/demo/token", TOKEN),
            ("/v1/profiles/demo/secret", "other"),
            ("/kah_x", "other"),
        ] {
            assert_eq!(label(path), expected, "{path}");
        }
    }
}
