//! The server loop: it accepts connections, holds each to its limits, and hands its requests to the routes.

use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_service::Service;

use super::limits::ConnectionPlace;
use super::progress::WriteDeadline;
use super::responses::{self, ApiResponse};
use super::routes;
use super::state::Broker;
use crate::events;
use crate::outcome::{ErrorKind, Failure};
use crate::sys::socket;

/// The longest head of a request, and the most fields in it.
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEAD_FIELDS: usize = 64;
/// How long a head may take to arrive, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_BODY_BYTES: usize = 16 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take nothing of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection whose place is needed may take to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// What a newcomer is told when every place is taken.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Serves until dropped. Every connection has a task of its own, so a silent client delays no other.
pub async fn serve(broker: Broker, listener: UnixListener) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let router = routes::router(broker.clone());
    let mut connections = JoinSet::new();
    connections.spawn(count_refreshes(broker.clone()));
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
            broker.metrics.count_refused_connection("other_user");
            tracing::warn!(event = "socket.warning", "rejected a connection from another user");
            continue;
        }
        match broker.connections.enter() {
            Some(place) => {
                connections.spawn(serve_connection(broker.clone(), router.clone(), stream, place));
            }
            None => {
                // It is not waited for a client that does not take it.
                let _told = stream.try_write(FULL);
                broker.metrics.count_refused_connection("full");
                tracing::warn!(event = "socket.warning", "rejected a connection: too many requests are being answered");
            }
        }
    }
}

async fn count_refreshes(broker: Broker) {
    let mut ends = broker.engine.flight_ends();
    loop {
        match ends.recv().await {
            Ok(end) => broker.metrics.count_refresh(&end),
            // So many ended at once that some are not counted.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

async fn serve_connection(broker: Broker, router: Router, stream: UnixStream, place: Arc<ConnectionPlace>) {
    let service = service_fn(|request| {
        let (busy, broker, router) = (place.begin_request(), broker.clone(), router.clone());
        async move {
            let response = respond(&broker, router, request).await;
            drop(busy);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEAD_FIELDS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(WriteDeadline::new(stream, WRITE_TIMEOUT)), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = place.is_needed() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(CLOSE_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        tracing::debug!(event = "socket.closed", %error, "a connection ended early");
    }
}

async fn respond(broker: &Broker, mut router: Router, request: Request<Incoming>) -> ApiResponse {
    let (label, began) = (routes::label(request.uri().path()), Instant::now());
    let foreign = request.headers().iter().find(|(name, value)| !broker.places.agrees(name.as_str(), value.as_bytes()));
    let foreign = foreign.map(|(name, _)| name.clone());
    let mut response = match foreign {
        Some(header) => responses::other_daemon(header.as_str()),
        None => match with_body(request).await {
            Ok(request) => match router.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Err(refused) => refused,
        },
    };
    responses::finish(&mut response);
    let status = response.status().as_u16();
    broker.metrics.count_request(label, status, began.elapsed());
    events::socket_request(label, status);
    response
}

/// The request with its whole body.
async fn with_body(request: Request<Incoming>) -> Result<Request<Body>, ApiResponse> {
    let (head, body) = request.into_parts();
    let whole = Limited::new(body, MAX_BODY_BYTES).collect();
    let refused =
        |status, message: &str| Err(responses::refusal_and_close(status, Failure::new(ErrorKind::Usage, message)));
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(whole)) => Ok(Request::from_parts(head, Body::from(whole.to_bytes()))),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 16 KiB")
        }
        Ok(Err(_)) => refused(StatusCode::BAD_REQUEST, "the body cannot be read"),
        Err(_) => refused(StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 5 s"),
    }
}
