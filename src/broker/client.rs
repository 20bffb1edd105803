//! Asks a running daemon for a token: blocking requests without runtime, TLS or D-Bus, so that `token` starts fast. Only the
//! wait for a newer token can be given up at any moment.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

use super::query::MAX_TIMEOUT;
use super::wire::{BrokerRequest, BrokerResponse, DaemonPlaces, FailureBody, TokenBody};
use crate::clock::{Clock, Timestamp};
use crate::credential::Generation;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::ProfileName;
use crate::sys::socket;

/// A daemon that does not respond within this time counts as absent. One on a busy machine takes some time, and may be
/// the only process with the key. A stopped daemon costs its callers this time, but not more than they have.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
const MIN_PING_TIMEOUT: Duration = Duration::from_millis(300);
/// The time, beyond the caller's own limit, for the response to come across.
const SLACK: Duration = Duration::from_secs(1);
/// The longest response: a token of a megabyte and its JSON.
const MAX_RESPONSE_BYTES: usize = 2 * 1024 * 1024;

/// Why a daemon settles nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// There is none for this configuration, or it does not respond.
    NoDaemon(String),
    /// It does not take the request.
    Refused(Failure),
}

impl NoAnswer {
    /// Why the store is used instead.
    pub fn reason(&self) -> &str {
        match self {
            Self::NoDaemon(reason) => reason,
            Self::Refused(failure) => &failure.message,
        }
    }
}

impl From<&str> for NoAnswer {
    fn from(reason: &str) -> Self {
        Self::NoDaemon(reason.to_owned())
    }
}

impl From<io::Error> for NoAnswer {
    fn from(error: io::Error) -> Self {
        Self::NoDaemon(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the daemon does not respond in time".to_owned(),
            _ => format!("the daemon cannot be asked: {error}"),
        })
    }
}

/// Asks the daemon for a token.
pub fn request_token(
    places: &DaemonPlaces,
    clock: &dyn Clock,
    request: &BrokerRequest,
) -> Result<BrokerResponse, NoAnswer> {
    let (limit, began) = (Duration::from_millis(request.timeout_ms), clock.now());
    let time_left = || limit.saturating_sub(clock.now().time_since(&began));
    // Who waits for nothing waits for the response all the same.
    let least = if limit.is_zero() { SLACK } else { MIN_PING_TIMEOUT };
    let mut timeout = time_for_daemon(limit);
    let mut connection = DaemonConnection::open(places, clock, limit, &token_request(request, timeout, places))?;
    loop {
        let asked = clock.now();
        // A daemon that says no more must not cost more than the caller has.
        let response = connection.receive(time_left().min(timeout + SLACK).max(least))?;
        let response = response.read(&request.profile, clock.now().wall)?;
        let is_busy = response.error.as_ref().is_some_and(|error| error.kind == ErrorKind::Busy);
        let has_waited = clock.now().time_since(&asked) >= timeout;
        let left = time_left();
        if !(response.token.is_none() && is_busy && has_waited) || left < MIN_PING_TIMEOUT {
            return Ok(response);
        }
        timeout = time_for_daemon(left);
        connection.send(&token_request(request, timeout, places), sign_of_life(left))?;
    }
}

/// How long the daemon waits, for a caller that has so much time: the response must come across, too.
fn time_for_daemon(left: Duration) -> Duration {
    left.saturating_sub(SLACK.min(left / 2)).min(MAX_TIMEOUT)
}

/// Waits at a daemon for a token after `seen`, for at most `wait`. `None`: there is no newer one yet. Dropping the future
/// ends the wait at the daemon, too. It needs a runtime of tokio with several threads, one of which waits for the sign of life.
pub async fn wait_for_newer(
    places: &DaemonPlaces,
    clock: &dyn Clock,
    profile: &ProfileName,
    seen: Generation,
    wait: Duration,
) -> Result<Option<BrokerResponse>, NoAnswer> {
    let target = format!("/v1/profiles/{profile}/token?min_valid=0s&newer_than={seen}&wait={}ms", wait.as_millis());
    let request = http_request(&target, places);
    let connection = tokio::task::block_in_place(|| DaemonConnection::open(places, clock, PING_TIMEOUT, &request))?;
    let receive = async {
        connection.stream.set_nonblocking(true)?;
        let mut stream = tokio::net::UnixStream::from_std(connection.stream)?;
        let mut received = connection.received;
        loop {
            if let Some((response, _)) = parse_response(&received)? {
                return Ok::<_, io::Error>(response);
            }
            if stream.read_buf(&mut *received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    let response = tokio::time::timeout(wait + SLACK, receive).await;
    let response = response.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    if response.status == 204 { Ok(None) } else { response.read(profile, clock.now().wall).map(Some) }
}

fn token_request(request: &BrokerRequest, timeout: Duration, places: &DaemonPlaces) -> String {
    let BrokerRequest { profile, min_valid_ms, id_token, rejected, .. } = request;
    let timeout = timeout.as_millis();
    let rejected = rejected.map_or(String::new(), |generation| format!("&rejected={generation}"));
    let query = format!("min_valid={min_valid_ms}ms&timeout={timeout}ms&id_token={id_token}{rejected}");
    http_request(&format!("/v1/profiles/{profile}/token?{query}"), places)
}

/// How long a daemon may take to show that it runs, for a caller that has so much time.
fn sign_of_life(limit: Duration) -> Duration {
    limit.clamp(MIN_PING_TIMEOUT, PING_TIMEOUT)
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
    received: Zeroizing<Vec<u8>>,
    clock: &'c dyn Clock,
}

/// A response: its status and its body.
#[derive(Debug)]
struct DaemonResponse {
    status: u16,
    body: Zeroizing<Vec<u8>>,
}

impl<'c> DaemonConnection<'c> {
    /// A connection to a daemon that runs and has the places of this process; the request is sent with the question for that.
    /// `limit`: the time that the caller has.
    fn open(places: &DaemonPlaces, clock: &'c dyn Clock, limit: Duration, request: &str) -> Result<Self, NoAnswer> {
        if !places.socket.exists() {
            return Err("there is no socket of a daemon".into());
        }
        let sign_of_life = sign_of_life(limit);
        let stream = socket::connect(&places.socket, sign_of_life)?.ok_or("no daemon listens on the socket")?;
        let mut connection = Self { stream, received: Zeroizing::default(), clock };
        // The system accepts connections on behalf of a daemon that is stopped, so its sign of life comes first.
        connection.send(&(http_request("/v1/ping", places) + request), sign_of_life)?;
        match connection.receive(sign_of_life)?.status {
            200 => Ok(connection),
            412 => Err("the daemon has another configuration, state directory or protocol".into()),
            status => Err(NoAnswer::NoDaemon(format!("the daemon refused the connection with status {status}"))),
        }
    }

    /// Sends one request or more.
    fn send(&mut self, requests: &str, within: Duration) -> io::Result<()> {
        self.stream.set_write_timeout(Some(within))?;
        self.stream.write_all(requests.as_bytes())
    }

    /// Waits for the next whole response.
    fn receive(&mut self, within: Duration) -> io::Result<DaemonResponse> {
        let began = self.clock.now();
        let mut part = Zeroizing::new(vec![0; 16 * 1024]);
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
    /// What it says of the token of a profile.
    fn read(self, profile: &ProfileName, now: Timestamp) -> Result<BrokerResponse, NoAnswer> {
        let incomplete = || NoAnswer::from("the response of the daemon cannot be read");
        if self.status == 200 {
            let body: TokenBody = serde_json::from_slice(&self.body).map_err(|_| incomplete())?;
            if body.profile != *profile {
                return Err("the daemon gave a token of another profile".into());
            }
            if body.token.expires_at.is_some_and(|end| end <= now) {
                return Err("the daemon gave a token that has expired".into());
            }
            let (outcome, token, warnings) = (body.outcome, Some(body.token), body.warnings);
            return Ok(BrokerResponse { outcome, token, error: None, retry_at: None, warnings });
        }
        let body: FailureBody = serde_json::from_slice(&self.body).map_err(|_| incomplete())?;
        match (body.outcome, self.status) {
            (Some(outcome), _) => Ok(BrokerResponse {
                outcome,
                token: None,
                error: Some(body.error),
                retry_at: body.retry_at,
                warnings: Vec::new(),
            }),
            (None, 400..500) => Err(NoAnswer::Refused(body.error)),
            (None, status) => Err(NoAnswer::NoDaemon(format!("the daemon refused the request with status {status}"))),
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
    Ok(body.map(|body| (DaemonResponse { status, body: Zeroizing::new(body.to_vec()) }, whole)))
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
        let (profile, now) = ("p".parse().unwrap(), Timestamp::from_secs(1_790_000_000));
        let token = token.read(&profile, now).unwrap();
        assert_eq!((token.outcome, token.warnings.len()), (OutcomeKind::Fresh, 1));
        assert_eq!(token.token.unwrap().access_token, "t");
        let (failure, _) = parse_response(&both.as_bytes()[length..]).unwrap().unwrap();
        let failure = failure.read(&profile, now).unwrap();
        assert_eq!((failure.outcome, failure.error.unwrap().kind), (OutcomeKind::Deferred, ErrorKind::Busy));
    }

    #[test]
    fn response_that_settles_nothing_is_no_answer() {
        let (profile, now) = ("p".parse().unwrap(), Timestamp::from_secs(1_790_000_000));
        let read =
            |status, body: &str| DaemonResponse { status, body: Zeroizing::new(body.into()) }.read(&profile, now);
        assert_eq!(read(400, REFUSAL).unwrap_err(), NoAnswer::Refused(Failure::new(ErrorKind::Usage, "m")));
        assert!(read(503, REFUSAL).unwrap_err().reason().contains("status 503"));
        assert!(read(200, &TOKEN[..20]).unwrap_err().reason().contains("cannot be read"));
        for (from, to, why) in [
            (r#""profile":"p""#, r#""profile":"q""#, "of another profile"),
            (r#""expires_at":null"#, r#""expires_at":"2020-01-01T00:00:00Z""#, "has expired"),
        ] {
            assert!(read(200, &TOKEN.replace(from, to)).unwrap_err().reason().contains(why), "{why}");
        }
        for strange in ["SSH-2.0\r\n\r\n", "HTTP/1.1 200 OK\r\na: b\r\n\r\n", "HTTP/1.1 x\r\ncontent-length: 0\r\n\r\n"]
        {
            assert!(parse_response(strange.as_bytes()).is_err(), "{strange}");
        }
    }

    fn request(timeout_ms: u64) -> BrokerRequest {
        BrokerRequest { profile: "p".parse().unwrap(), min_valid_ms: 0, timeout_ms, id_token: false, rejected: None }
    }

    #[test]
    fn silent_daemon_is_treated_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        // The test accepts no connection, so the system does.
        let _silent = socket::listen(&path).unwrap();
        assert!(request_token(&DaemonPlaces::for_test(&path), &SystemClock, &request(3_600_000)).is_err());
    }

    /// What was lost: five seconds of a caller that had three, to a daemon that answered the question whether it runs, and no more.
    #[test]
    fn daemon_that_falls_silent_costs_no_more_than_the_caller_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = socket::listen(&path).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(response("200 OK", "{}").as_bytes()).unwrap();
            // Until the caller gives up.
            drop(io::copy(&mut stream, &mut io::sink()));
        });
        let began = SystemClock.now();
        let limit = Duration::from_millis(1500);
        assert!(request_token(&DaemonPlaces::for_test(&path), &SystemClock, &request(1500)).is_err());
        let took = SystemClock.now().time_since(&began);
        assert!(took < limit + SLACK / 2, "{took:?}");
        daemon.join().unwrap();
    }

    #[test]
    fn missing_socket_is_treated_as_no_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let ask = |path: &std::path::Path| request_token(&DaemonPlaces::for_test(path), &SystemClock, &request(0));
        assert!(ask(&dir.path().join("none")).is_err());
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(ask(&dir.path().join("file")).is_err());
    }
}
