//! The daemon's socket: it gives access tokens, and never a refresh token, to programs of the same user over HTTP.
//!
//! There is one request: `POST /v1/token` with [`BrokerRequest`] as JSON; the response is [`BrokerResponse`]. The
//! client names its protocol version and its store. If they are not the daemon's, the response is 409 and the client
//! uses the store itself.

pub mod client;

use std::convert::Infallible;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::engine::access_token::TokenOutput;
use crate::outcome::{Failure, OutcomeKind};
use crate::profile::{ProfileLookup, ProfileName};
use crate::sys::socket;

/// Changes when a client and a daemon of different versions would misunderstand each other.
pub const PROTOCOL: &str = "1";
pub const PROTOCOL_HEADER: &str = "keepalive-protocol";
pub const STORE_HEADER: &str = "keepalive-store";
/// The longest request.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// A client that has not sent its request by then is disconnected. It does not delay other clients meanwhile.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// A request for a token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerRequest {
    pub profile: ProfileName,
    pub min_valid_ms: u64,
    pub timeout_ms: u64,
    /// With the ID token, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub id_token: bool,
}

/// The response to it.
#[derive(Debug, Serialize, Deserialize)]
pub struct BrokerResponse {
    pub outcome: OutcomeKind,
    pub token: Option<TokenOutput>,
    pub error: Option<Failure>,
    pub warnings: Vec<String>,
}

/// What the broker needs to serve requests.
#[derive(Clone)]
pub struct Broker {
    pub engine: Engine,
    pub profiles: ProfileLookup,
    /// UUID of the store, once it has one.
    pub store_id: Arc<dyn Fn() -> Option<String> + Send + Sync>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Broker({:?})", self.engine)
    }
}

impl Broker {
    /// Serves until dropped. Every connection has a task of its own, so a silent client delays no other.
    pub async fn serve(self, listener: UnixListener) -> std::io::Result<Infallible> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: wait for some to come back.
                    tracing::warn!(event = "socket.warning", %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            if !socket::is_same_user(&stream).unwrap_or(false) {
                tracing::warn!(event = "socket.warning", "rejected a connection from another user");
                continue;
            }
            connections.spawn(self.clone().serve_connection(stream));
        }
    }

    async fn serve_connection(self, stream: tokio::net::UnixStream) {
        let service = service_fn(move |request| {
            let broker = self.clone();
            async move { Ok::<_, Infallible>(broker.handle(request).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(READ_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(event = "socket.closed", %error, "a client closed the connection");
        }
    }

    async fn handle(&self, request: hyper::Request<Incoming>) -> Response<Full<Bytes>> {
        let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        if header(PROTOCOL_HEADER).as_deref() != Some(PROTOCOL) || header(STORE_HEADER) != (self.store_id)() {
            return json_response(
                StatusCode::CONFLICT,
                &serde_json::json!({"error": "different protocol version or store"}),
            );
        }
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/v1/token") => self.handle_token(request).await,
            (&Method::GET, "/v1/ping") => {
                json_response(StatusCode::OK, &serde_json::json!({"pid": std::process::id()}))
            }
            _ => json_response(StatusCode::NOT_FOUND, &serde_json::json!({"error": "not found"})),
        }
    }

    async fn handle_token(&self, request: hyper::Request<Incoming>) -> Response<Full<Bytes>> {
        let body = Limited::new(request.into_body(), MAX_REQUEST_BYTES).collect();
        let bytes = match tokio::time::timeout(READ_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) | Err(_) => {
                return json_response(StatusCode::BAD_REQUEST, &serde_json::json!({"error": "no request body"}));
            }
        };
        let wish: BrokerRequest = match serde_json::from_slice(&bytes) {
            Ok(wish) => wish,
            Err(e) => return json_response(StatusCode::BAD_REQUEST, &serde_json::json!({"error": e.to_string()})),
        };
        json_response(StatusCode::OK, &self.token_response(&wish).await)
    }

    async fn token_response(&self, wish: &BrokerRequest) -> BrokerResponse {
        let profile = match (self.profiles)(&wish.profile) {
            Ok(profile) => profile,
            Err(error) => {
                return BrokerResponse {
                    outcome: OutcomeKind::ConfigError,
                    token: None,
                    error: Some(error),
                    warnings: vec![],
                };
            }
        };
        let min_valid = Duration::from_millis(wish.min_valid_ms);
        let obtained =
            self.engine.access_token_async(&profile, min_valid, Duration::from_millis(wish.timeout_ms)).await;
        let mut token = obtained.token;
        if let Some(token) = token.as_mut().filter(|_| !wish.id_token) {
            token.id_token = None;
        }
        BrokerResponse {
            outcome: obtained.outcome.kind,
            token,
            error: obtained.outcome.error,
            warnings: obtained.warnings,
        }
    }
}

fn json_response(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}
