//! Asks a running daemon for a token: blocking requests without runtime, TLS or D-Bus, so that `token` starts fast.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::query::MAX_TIMEOUT;
use super::wire::{BrokerRequest, BrokerResponse, DaemonPlaces, FailureBody, TokenBody};
use crate::clock::Clock;
use crate::events;
use crate::outcome::ErrorKind;
use crate::sys::socket;

/// A daemon that does not respond within this time counts as absent. One on a busy machine takes some time, and may be
/// the only process with the key. A stopped daemon costs its callers this time, but not more than they have.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
const MIN_PING_TIMEOUT: Duration = Duration::from_millis(300);
/// The time, beyond the caller's own limit, for the response to come across.
const SLACK: Duration = Duration::from_secs(1);
/// The longest response: a token of a megabyte and its JSON.
const MAX_RESPONSE_BYTES: usize = 2 * 1024 * 1024;

/// Asks the daemon for a token. `None`: there is no daemon for this configuration, so the store must be used directly.
pub fn request_token(places: &DaemonPlaces, clock: &dyn Clock, request: &BrokerRequest) -> Option<BrokerResponse> {
    match ask(places, clock, request) {
        Ok(response) => Some(response),
        Err(reason) => {
            events::token_from_store(&reason);
            None
        }
    }
}

/// `Err`: why no daemon is used.
fn ask(places: &DaemonPlaces, clock: &dyn Clock, request: &BrokerRequest) -> Result<BrokerResponse, String> {
    if !places.socket.exists() {
        return Err("there is no socket of a daemon".into());
    }
    let (limit, began) = (Duration::from_millis(request.timeout_ms), clock.now());
    let sign_of_life = limit.clamp(MIN_PING_TIMEOUT, PING_TIMEOUT);
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the daemon does not respond in time".to_owned(),
        _ => format!("the daemon cannot be asked: {e}"),
    };
    let stream = socket::connect(&places.socket, sign_of_life).map_err(failed)?;
    let stream = stream.ok_or("no daemon listens on the socket")?;
    let mut connection = DaemonConnection { stream, received: Vec::new(), clock };
    let mut timeout = limit.min(MAX_TIMEOUT);
    // The system accepts connections on behalf of a daemon that is stopped, so its sign of life comes first.
    let both = http_request("/v1/ping", places) + &token_request(request, timeout, places);
    connection.send(&both, sign_of_life).map_err(failed)?;
    match connection.receive(sign_of_life).map_err(failed)?.status {
        200 => {}
        412 => return Err("the daemon has another configuration, state directory or protocol".into()),
        status => return Err(format!("the daemon refused the connection with status {status}")),
    }
    loop {
        let asked = clock.now();
        let response = connection.receive(timeout + SLACK).map_err(failed)?.read()?;
        let is_busy = response.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Busy);
        let has_waited = clock.now().time_since(&asked) >= timeout;
        let left = limit.saturating_sub(clock.now().time_since(&began));
        if !(response.token.is_none() && is_busy && has_waited) || left.is_zero() {
            return Ok(response);
        }
        timeout = left.min(MAX_TIMEOUT);
        connection.send(&token_request(request, timeout, places), sign_of_life).map_err(failed)?;
    }
}

fn token_request(request: &BrokerRequest, timeout: Duration, places: &DaemonPlaces) -> String {
    let BrokerRequest { profile, min_valid_ms, id_token, .. } = request;
    let timeout = timeout.as_millis();
    let rejected = request.rejected.map_or(String::new(), |generation| format!("&rejected={generation}"));
    let query = format!("min_valid={min_valid_ms}ms&timeout={timeout}ms&id_token={id_token}{rejected}");
    http_request(&format!("/v1/profiles/{profile}/token?{query}"), places)
}

fn http_request(target: &str, places: &DaemonPlaces) -> String {
    let mut request = format!("GET {target} HTTP/1.1\r\nhost: keepalive\r\n");
    for (name, value) in places.headers() {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request
}

/// One connection, for one request after the other.
struct DaemonConnection<'c> {
    stream: UnixStream,
    received: Vec<u8>,
    clock: &'c dyn Clock,
}

/// A response: its status and its body.
#[derive(Debug)]
struct DaemonResponse {
    status: u16,
    body: Vec<u8>,
}

impl DaemonConnection<'_> {
    /// Sends one request or more.
    fn send(&mut self, requests: &str, within: Duration) -> io::Result<()> {
        self.stream.set_write_timeout(Some(within))?;
        self.stream.write_all(requests.as_bytes())
    }

    /// Waits for the next whole response.
    fn receive(&mut self, within: Duration) -> io::Result<DaemonResponse> {
        let began = self.clock.now();
        let mut part = vec![0; 16 * 1024];
        loop {
            if let Some((response, length)) = parse_response(&self.received)? {
                self.received.drain(..length);
                return Ok(response);
            }
            let left = within.saturating_sub(self.clock.now().time_since(&began));
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut part)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.received.extend_from_slice(&part[..length]),
            }
        }
    }
}

impl DaemonResponse {
    /// What it says of the token. `Err`: why the store is used.
    fn read(self) -> Result<BrokerResponse, String> {
        let incomplete = || "the response of the daemon cannot be read".to_owned();
        if self.status == 200 {
            let body: TokenBody = serde_json::from_slice(&self.body).map_err(|_| incomplete())?;
            let (outcome, token, warnings) = (body.outcome, Some(body.token), body.warnings);
            return Ok(BrokerResponse { outcome, token, error: None, warnings });
        }
        let body: FailureBody = serde_json::from_slice(&self.body).map_err(|_| incomplete())?;
        match (self.status, body.outcome) {
            // It may have been configured a moment ago.
            (404, _) => Err("the daemon does not know the profile".into()),
            (_, Some(outcome)) => {
                Ok(BrokerResponse { outcome, token: None, error: Some(body.error), warnings: Vec::new() })
            }
            (status, None) => Err(format!("the daemon refused the request with status {status}")),
        }
    }
}

/// The first response of what was received, and its length. `None`: it is not complete yet. Our own server always sends
/// `content-length`, never chunks.
fn parse_response(received: &[u8]) -> io::Result<Option<(DaemonResponse, usize)>> {
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "this is no response of a daemon");
    if received.len() > MAX_RESPONSE_BYTES {
        return Err(strange());
    }
    let Some(end) = received.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&received[..end]).map_err(|_| strange())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let (Some(status), Some(length)) = (status, length) else { return Err(strange()) };
    let body = end + 4;
    let whole = usize::checked_add(body, length).ok_or_else(strange)?;
    let body = received.get(body..whole);
    Ok(body.map(|body| (DaemonResponse { status, body: body.to_vec() }, whole)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::OutcomeKind;
    use crate::sys::clock::SystemClock;

    fn response(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    const TOKEN: &str = r#"{"profile":"p","access_token":"t","token_type":"Bearer","expires_at":null,"expires_in":9,
        "scope":null,"generation":7,"outcome":"fresh","warnings":["w"]}"#;
    const FAILURE: &str = r#"{"profile":"p","outcome":"deferred","generation":7,"retry_at":null,
        "error":{"kind":"busy","message":"m","hint":null}}"#;
    const REFUSAL: &str = r#"{"profile":null,"outcome":null,"generation":null,"retry_at":null,
        "error":{"kind":"usage","message":"m","hint":null}}"#;

    #[test]
    fn response_is_read_once_it_is_complete() {
        let both = response("200 OK", TOKEN) + &response("503 Service Unavailable", FAILURE);
        let first = response("200 OK", TOKEN).len();
        assert!(parse_response(&both.as_bytes()[..first - 1]).unwrap().is_none());
        let (token, length) = parse_response(both.as_bytes()).unwrap().unwrap();
        assert_eq!(length, first);
        let token = token.read().unwrap();
        assert_eq!((token.outcome, token.warnings.len()), (OutcomeKind::Fresh, 1));
        assert_eq!(token.token.unwrap().access_token, "t");
        let (failure, _) = parse_response(&both.as_bytes()[length..]).unwrap().unwrap();
        let failure = failure.read().unwrap();
        assert_eq!((failure.outcome, failure.error.unwrap().kind), (OutcomeKind::Deferred, ErrorKind::Busy));
    }

    #[test]
    fn store_is_used_for_a_response_that_settles_nothing() {
        let read = |status, body: &str| DaemonResponse { status, body: body.into() }.read();
        assert!(read(404, FAILURE).unwrap_err().contains("does not know the profile"));
        assert!(read(400, REFUSAL).unwrap_err().contains("status 400"));
        assert!(read(200, &TOKEN[..20]).unwrap_err().contains("cannot be read"));
        for strange in ["SSH-2.0\r\n\r\n", "HTTP/1.1 200 OK\r\na: b\r\n\r\n", "HTTP/1.1 x\r\ncontent-length: 0\r\n\r\n"]
        {
            assert!(parse_response(strange.as_bytes()).is_err(), "{strange}");
        }
    }

    fn no_wait() -> BrokerRequest {
        let profile = "p".parse().unwrap();
        BrokerRequest { profile, min_valid_ms: 0, timeout_ms: 0, id_token: false, rejected: None }
    }

    #[test]
    fn silent_daemon_is_treated_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        // The test accepts no connection, so the system does.
        let _silent = socket::listen(&path).unwrap();
        let an_hour = BrokerRequest { timeout_ms: 3_600_000, ..no_wait() };
        assert!(request_token(&DaemonPlaces::for_test(&path), &SystemClock, &an_hour).is_none());
    }

    #[test]
    fn missing_socket_is_treated_as_no_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let request = no_wait();
        let ask = |path: &std::path::Path| request_token(&DaemonPlaces::for_test(path), &SystemClock, &request);
        assert!(ask(&dir.path().join("none")).is_none());
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(ask(&dir.path().join("file")).is_none());
    }
}
