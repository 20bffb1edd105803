//! The server loop: it accepts connections, holds each to its limits, and hands its requests to the routes.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_service::Service;

use super::caller::{Caller, RequestNote};
use super::limits::{ConnectionPlace, ListenerKind};
use super::oauth;
use super::progress::WriteDeadline;
use super::responses::{self, ApiResponse};
use super::routes;
use super::state::Broker;
use super::tcp_rules;
use crate::events;
use crate::outcome::{ErrorKind, Failure};
use crate::sys::{peer_user, socket};

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

/// Serves the socket until dropped. Every connection has a task of its own, so a silent client delays no other.
pub async fn serve(broker: Broker, listener: UnixListener) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let router = routes::router(broker.clone());
    let mut connections = JoinSet::new();
    connections.spawn(count_refreshes(broker.clone()));
    loop {
        let Some(stream) = accepted(listener.accept().await).await else { continue };
        while connections.try_join_next().is_some() {}
        if !socket::is_same_user(&stream).unwrap_or(false) {
            broker.metrics.count_refused_connection(ListenerKind::Socket, "other_user");
            tracing::warn!(event = "socket.warning", "rejected a connection from another user");
            continue;
        }
        match enter(&broker, ListenerKind::Socket) {
            Some(place) => {
                connections.spawn(serve_connection(broker.clone(), router.clone(), stream, place, Caller::Local));
            }
            // It is not waited for a client that does not take it.
            None => drop(stream.try_write(FULL)),
        }
    }
}

/// Serves TCP connections until dropped.
pub(super) async fn serve_tcp(
    broker: &Broker,
    listener: &TcpListener,
    listen: SocketAddr,
    router: Router,
) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        let Some(stream) = accepted(listener.accept().await).await else { continue };
        while connections.try_join_next().is_some() {}
        match enter(broker, ListenerKind::Tcp) {
            Some(place) => {
                connections.spawn(serve_tcp_connection(broker.clone(), router.clone(), stream, place, listen));
            }
            None => drop(stream.try_write(FULL)),
        }
    }
}

async fn serve_tcp_connection(
    broker: Broker,
    router: Router,
    stream: TcpStream,
    place: Arc<ConnectionPlace>,
    listen: SocketAddr,
) {
    // An answer is one small packet, which nothing must hold back.
    let _slower = stream.set_nodelay(true);
    let ends = stream.peer_addr().and_then(|client| Ok((client, stream.local_addr()?)));
    let is_our_user = match ends {
        Ok((client, server)) => broker.on_thread(move |_| peer_user::is_ours(client, server)).await.unwrap_or(false),
        Err(_) => false,
    };
    serve_connection(broker, router, stream, place, Caller::Tcp { listen, is_our_user }).await;
}

async fn accepted<S, A>(accepted: io::Result<(S, A)>) -> Option<S> {
    match accepted {
        Ok((stream, _)) => Some(stream),
        Err(error) => {
            // Out of descriptors, most likely: wait for some to come back.
            tracing::warn!(event = "socket.warning", %error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

fn enter(broker: &Broker, kind: ListenerKind) -> Option<Arc<ConnectionPlace>> {
    let place = broker.connections.enter(kind);
    if place.is_none() {
        broker.metrics.count_refused_connection(kind, "full");
        tracing::warn!(event = "socket.warning", "rejected a connection: too many requests are being answered");
    }
    place
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

async fn serve_connection(
    broker: Broker,
    router: Router,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    place: Arc<ConnectionPlace>,
    caller: Caller,
) {
    let service = service_fn(|request| {
        let (busy, broker, router) = (place.begin_request(), broker.clone(), router.clone());
        async move {
            let response = respond(&broker, router, request, caller).await;
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

async fn respond(broker: &Broker, router: Router, request: Request<Incoming>, caller: Caller) -> ApiResponse {
    let (label, began) = (routes::label(request.uri().path()), Instant::now());
    let mut response = answer(broker, router, request, caller, label).await;
    responses::finish(&mut response);
    let note = response.extensions_mut().remove::<RequestNote>().unwrap_or_default();
    let status = response.status().as_u16();
    broker.metrics.count_request(label, status, began.elapsed());
    events::socket_request(caller.kind().word(), label, status, note.profile.as_ref(), note.handle.as_deref());
    response
}

async fn answer(
    broker: &Broker,
    mut router: Router,
    mut request: Request<Incoming>,
    caller: Caller,
    label: &'static str,
) -> ApiResponse {
    if let Caller::Tcp { listen, .. } = caller
        && let Err((status, failure)) = tcp_rules::check(&request, listen)
    {
        return oauth::refusal_for(label, status, failure, true);
    }
    let foreign = request.headers().iter().find(|(name, value)| !broker.places.agrees(name.as_str(), value.as_bytes()));
    if let Some((header, _)) = foreign {
        return responses::other_daemon(header.as_str());
    }
    request.extensions_mut().insert(caller);
    match with_body(request).await {
        Ok(request) => match router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Err((status, message)) => oauth::refusal_for(label, status, Failure::new(ErrorKind::Usage, message), true),
    }
}

/// The request with its whole body.
async fn with_body(request: Request<Incoming>) -> Result<Request<Body>, (StatusCode, &'static str)> {
    const TOO_LONG: (StatusCode, &str) = (StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 16 KiB");
    let (head, body) = request.into_parts();
    // One that says so itself is not waited for.
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(TOO_LONG);
    }
    let whole = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(whole)) => Ok(Request::from_parts(head, Body::from(whole.to_bytes()))),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(TOO_LONG),
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "the body cannot be read")),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 5 s")),
    }
}
