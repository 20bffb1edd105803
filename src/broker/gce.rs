//! The metadata server of Google's cloud for one profile, as Google's libraries and the Gemini CLI ask it for a token. There is
//! no room for a handle in what they send, so the client must run as the user of the daemon.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Router};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Response, StatusCode, Uri};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::caller::Caller;
use super::listener::{self, ListenerReports};
use super::query::{Condition, TokenQuery};
use super::responses::{self, ApiResponse};
use super::server;
use super::state::{Broker, TokenAnswer};
use crate::config::GceSettings;
use crate::credential::freshness::Validity;
use crate::outcome::{Outcome, OutcomeKind};

/// The header that both sides must send, and its value.
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
const GOOGLE: HeaderValue = HeaderValue::from_static("Google");
/// Google's libraries ask again when less than five minutes are left.
const MIN_VALID: Duration = Duration::from_secs(10 * 60);
const LIMIT: Duration = Duration::from_secs(10);
/// For a profile whose provider names no scopes.
const USUAL_SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GceQuestion {
    Root,
    Instance,
    Account { is_recursive: bool },
    Token,
    Email,
    Scopes,
    Project,
}

/// The account may be called by any name: the libraries use the one that they were told.
fn question(path: &str, query: &str) -> Option<GceQuestion> {
    let is_recursive = query.split('&').any(|part| part.eq_ignore_ascii_case("recursive=true"));
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    Some(match parts[..] {
        [] => GceQuestion::Root,
        ["computeMetadata", "v1", "instance"] => GceQuestion::Instance,
        ["computeMetadata", "v1", "project", "project-id"] => GceQuestion::Project,
        ["computeMetadata", "v1", "instance", "service-accounts", _account] => GceQuestion::Account { is_recursive },
        ["computeMetadata", "v1", "instance", "service-accounts", _account, "token"] => GceQuestion::Token,
        ["computeMetadata", "v1", "instance", "service-accounts", _account, "email"] => GceQuestion::Email,
        ["computeMetadata", "v1", "instance", "service-accounts", _account, "scopes"] => GceQuestion::Scopes,
        _ => return None,
    })
}

#[derive(Clone)]
struct GceServer {
    broker: Broker,
    settings: Arc<GceSettings>,
}

/// Serves as the newest wish says, until dropped.
pub async fn run(
    broker: Broker,
    reports: Arc<ListenerReports>,
    mut wishes: watch::Receiver<Vec<GceSettings>>,
    retry: Duration,
) -> Infallible {
    loop {
        let wanted = wishes.borrow_and_update().clone();
        let mut serving = JoinSet::new();
        for settings in wanted.iter().cloned() {
            serving.spawn(serve(broker.clone(), Arc::clone(&reports), settings, retry));
        }
        while *wishes.borrow_and_update() == wanted {
            listener::changed(&mut wishes).await;
        }
        // Their ports are free only when they have ended.
        serving.shutdown().await;
    }
}

async fn serve(broker: Broker, reports: Arc<ListenerReports>, settings: GceSettings, retry: Duration) -> Infallible {
    let address = settings.listen;
    let note = reports.note(address, "[[broker.gce]]");
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => note.tell_failure(&error),
        }
        tokio::time::sleep(retry).await;
    };
    note.tell(None);
    let state = GceServer { broker: broker.clone(), settings: Arc::new(settings) };
    let router = Router::new().fallback(answer).with_state(state);
    server::serve_tcp(&broker, &listener, address, router).await
}

async fn answer(
    State(server): State<GceServer>,
    Extension(caller): Extension<Caller>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> ApiResponse {
    let mut response = match (caller, headers.get(&FLAVOR)) {
        _ if method != Method::GET => text(StatusCode::METHOD_NOT_ALLOWED, "use GET"),
        (Caller::Tcp { is_our_user: true, .. }, Some(flavor)) if flavor == GOOGLE => {
            match question(uri.path(), uri.query().unwrap_or_default()) {
                Some(question) => server.tell(question).await,
                None => text(StatusCode::NOT_FOUND, "there is no such entry"),
            }
        }
        (Caller::Tcp { is_our_user: true, .. }, _) => {
            text(StatusCode::FORBIDDEN, "the header Metadata-Flavor: Google is missing")
        }
        _ => text(StatusCode::FORBIDDEN, "this is for programs of the daemon's user"),
    };
    response.headers_mut().insert(FLAVOR, GOOGLE);
    response
}

impl GceServer {
    async fn tell(&self, question: GceQuestion) -> ApiResponse {
        let ok = |body: &str| text(StatusCode::OK, body);
        match question {
            GceQuestion::Root => ok("computeMetadata/\n"),
            GceQuestion::Instance => ok("service-accounts/\n"),
            GceQuestion::Account { is_recursive: false } => ok("aliases\nemail\nscopes\ntoken\n"),
            GceQuestion::Account { is_recursive: true } => {
                let scopes = self.scopes().await;
                responses::json(StatusCode::OK, &json!({"aliases": ["default"], "email": "default", "scopes": scopes}))
            }
            GceQuestion::Email => ok("default"),
            GceQuestion::Scopes => ok(&(self.scopes().await.join("\n") + "\n")),
            GceQuestion::Project => match &self.settings.project {
                Some(project) => ok(project),
                None => text(StatusCode::NOT_FOUND, "no project is configured"),
            },
            GceQuestion::Token => self.token().await,
        }
    }

    /// The scopes of the profile's logins.
    async fn scopes(&self) -> Vec<String> {
        let name = self.settings.profile.clone();
        let profile = self.broker.on_thread(move |broker| broker.directory.profile(&name)).await;
        let scopes = profile.ok().and_then(Result::ok).map(|profile| profile.provider.scopes.clone());
        scopes.filter(|scopes| !scopes.is_empty()).unwrap_or_else(|| vec![USUAL_SCOPE.to_owned()])
    }

    async fn token(&self) -> ApiResponse {
        let query =
            TokenQuery { min_valid: MIN_VALID, timeout: LIMIT, condition: Condition::Valid, has_id_token: false };
        let now = || self.broker.engine.clock().now();
        let outcome = match self.broker.token(&self.settings.profile, query).await {
            Ok(TokenAnswer::Obtained(obtained)) => {
                let left = obtained.validity.as_ref().map_or(Duration::ZERO, |v: &Validity| v.remaining(&now()));
                match obtained.token.filter(|_| left >= Duration::from_secs(1)) {
                    Some(token) => {
                        let (token, left) = (token.access_token, left.as_secs());
                        let body = json!({"access_token": token, "expires_in": left, "token_type": "Bearer"});
                        return responses::json(StatusCode::OK, &body);
                    }
                    None => obtained.outcome,
                }
            }
            Ok(TokenAnswer::NothingNewer | TokenAnswer::UnknownGeneration(_)) => Outcome::new(OutcomeKind::Deferred),
            Err(outcome) => outcome,
        };
        self.failure(&outcome)
    }

    /// What only a person can end is 404, which the libraries do not try again.
    fn failure(&self, outcome: &Outcome) -> ApiResponse {
        let told = outcome.error.as_ref().map_or("there is no valid access token".into(), |e| e.in_one_line());
        let status = match outcome.kind {
            OutcomeKind::NeedsLogin => StatusCode::NOT_FOUND,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = text(status, &told);
        responses::set_retry_of(&mut response, outcome, self.broker.engine.clock().now().wall);
        response
    }
}

fn text(status: StatusCode, body: &str) -> ApiResponse {
    let mut response = Response::new(body.to_owned().into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/text"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_the_libraries_are_understood() {
        let account = "/computeMetadata/v1/instance/service-accounts/default";
        for (path, query, expected) in [
            ("/", "", Some(GceQuestion::Root)),
            ("/computeMetadata/v1/instance", "", Some(GceQuestion::Instance)),
            ("/computeMetadata/v1/instance/", "alt=json", Some(GceQuestion::Instance)),
            (&format!("{account}/"), "recursive=true", Some(GceQuestion::Account { is_recursive: true })),
            (account, "", Some(GceQuestion::Account { is_recursive: false })),
            (&format!("{account}/token"), "scopes=a", Some(GceQuestion::Token)),
            (&format!("{account}/email"), "", Some(GceQuestion::Email)),
            ("/computeMetadata/v1/project/project-id", "", Some(GceQuestion::Project)),
            (&format!("{account}/identity"), "audience=x", None),
            ("/computeMetadata/v2/instance", "", None),
        ] {
            assert_eq!(question(path, query), expected, "{path}");
        }
    }
}
