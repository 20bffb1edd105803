//! The rehearsal's authorization server on loopback: one token family, strict rotation, and counts of what it saw.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use url::form_urlencoded;

use crate::store::keys::sealing_key::random_bytes;

/// The client that the rehearsal's profile is registered as.
pub const CLIENT_ID: &str = "keepalive-rehearsal";
/// A client that sends nothing is disconnected.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The size limit of a request.
const MAX_REQUEST_BYTES: u64 = 64 * 1024;

/// A server with one token family. Its threads end with the process.
#[derive(Debug)]
pub struct RehearsalServer {
    url: String,
    family: Arc<Mutex<RehearsalFamily>>,
}

/// Counts of what the server saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounts {
    /// Token requests, good or bad.
    pub requests: u64,
    /// Requests that got new tokens.
    pub refreshes: u64,
    /// Requests with a refresh token that an earlier request had carried: this must never happen.
    pub presented_again: u64,
    pub is_family_alive: bool,
}

#[derive(Debug)]
struct RehearsalFamily {
    access_lifetime: Duration,
    response_delay: Duration,
    current: String,
    presented: HashSet<String>,
    access_tokens: HashSet<String>,
    counts: ServerCounts,
}

/// A response: status and body.
type HttpResponse = (u16, String);

impl RehearsalServer {
    /// Starts on a free port of 127.0.0.1. Each response takes `response_delay`, so that callers meet during a refresh.
    pub fn start(access_lifetime: Duration, answer_delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let family = Arc::new(Mutex::new(RehearsalFamily {
            access_lifetime,
            response_delay: answer_delay,
            current: String::new(),
            presented: HashSet::new(),
            access_tokens: HashSet::new(),
            counts: ServerCounts { is_family_alive: true, ..ServerCounts::default() },
        }));
        let shared = Arc::clone(&family);
        thread::Builder::new().name("rehearsal server".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let family = Arc::clone(&shared);
                let serve = move || serve_connection(stream, &family);
                let _refused = thread::Builder::new().spawn(serve).is_err();
            }
        })?;
        Ok(Self { url, family })
    }

    /// The token endpoint.
    pub fn token_endpoint(&self) -> String {
        format!("{}/token", self.url)
    }

    /// The response to a sign-in: the family's first tokens.
    pub fn mint(&self) -> String {
        self.family().issue()
    }

    pub fn counts(&self) -> ServerCounts {
        self.family().counts
    }

    /// Whether this access token was ever issued here.
    pub fn has_issued(&self, access_token: &str) -> bool {
        self.family().access_tokens.contains(access_token)
    }

    fn family(&self) -> MutexGuard<'_, RehearsalFamily> {
        self.family.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RehearsalFamily {
    fn issue(&mut self) -> String {
        let token = || URL_SAFE_NO_PAD.encode(random_bytes::<24>());
        let access = token();
        self.current = token();
        self.access_tokens.insert(access.clone());
        json!({
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.access_lifetime.as_secs(),
            "refresh_token": self.current,
            "scope": "rehearsal",
        })
        .to_string()
    }

    /// RFC 9700: a second use of a refresh token is theft, and ends the family.
    fn refresh(&mut self, token: &str) -> HttpResponse {
        let is_first = self.presented.insert(token.to_owned());
        if !is_first {
            self.counts.presented_again += 1;
            self.counts.is_family_alive = false;
        }
        if !self.counts.is_family_alive || token != self.current {
            return (
                400,
                json!({"error": "invalid_grant", "error_description": "this refresh token was already used"})
                    .to_string(),
            );
        }
        self.counts.refreshes += 1;
        (200, self.issue())
    }

    fn handle(&mut self, path: &str, body: &str) -> HttpResponse {
        if path != "/token" {
            return (404, json!({"error": "not_found"}).to_string());
        }
        self.counts.requests += 1;
        let member =
            |name: &str| form_urlencoded::parse(body.as_bytes()).find(|(k, _)| k == name).map(|(_, v)| v.into_owned());
        let fault = match (member("grant_type").as_deref(), member("client_id").as_deref()) {
            (Some("refresh_token"), Some(CLIENT_ID)) => None,
            (Some("refresh_token"), _) => Some((401, "invalid_client")),
            _ => Some((400, "unsupported_grant_type")),
        };
        match (fault, member("refresh_token")) {
            (Some((status, code)), _) => (status, json!({ "error": code }).to_string()),
            (None, None) => (400, json!({"error": "invalid_request"}).to_string()),
            (None, Some(token)) => self.refresh(&token),
        }
    }
}

fn serve_connection(stream: TcpStream, family: &Mutex<RehearsalFamily>) {
    // A client that goes away in the middle is not the server's concern.
    let _gone = handle_connection(stream, family);
}

fn handle_connection(stream: TcpStream, family: &Mutex<RehearsalFamily>) -> io::Result<()> {
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    let mut reader = BufReader::new(stream.take(MAX_REQUEST_BYTES));
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; usize::try_from(length).unwrap_or(0).min(usize::try_from(MAX_REQUEST_BYTES).unwrap_or(0))];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let (answer, delay) = {
        let mut family = family.lock().unwrap_or_else(PoisonError::into_inner);
        (family.handle(&path, &body), family.response_delay)
    };
    #[expect(clippy::disallowed_methods, reason = "a server that takes its time is what is played")]
    thread::sleep(delay);
    let (status, text) = answer;
    let mut stream = reader.into_inner().into_inner();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncache-control: no-store\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    )?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refresh_token(answer: &str) -> String {
        serde_json::from_str::<serde_json::Value>(answer).unwrap()["refresh_token"].as_str().unwrap().to_owned()
    }

    fn server() -> RehearsalServer {
        RehearsalServer::start(Duration::from_secs(60), Duration::ZERO).unwrap()
    }

    fn post(server: &RehearsalServer, token: &str) -> String {
        let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
        let body = format!("grant_type=refresh_token&client_id={CLIENT_ID}&refresh_token={token}");
        write!(stream, "POST /token HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn rehearsal_server_revokes_the_family_on_token_reuse() {
        let server = server();
        let first = refresh_token(&server.mint());
        let answer = post(&server, &first);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let second = refresh_token(answer.split("\r\n\r\n").nth(1).unwrap());
        assert_eq!(
            server.counts(),
            ServerCounts { requests: 1, refreshes: 1, presented_again: 0, is_family_alive: true }
        );
        assert!(post(&server, &first).contains("invalid_grant"));
        assert!(post(&server, &second).contains("invalid_grant"), "the family is dead");
        assert_eq!(
            server.counts(),
            ServerCounts { requests: 3, refreshes: 1, presented_again: 1, is_family_alive: false }
        );
    }

    #[test]
    fn rehearsal_server_keeps_the_token_on_a_bad_request() {
        let server = server();
        let token = refresh_token(&server.mint());
        let mut family = server.family();
        assert_eq!(
            family.handle("/token", &format!("grant_type=refresh_token&client_id=x&refresh_token={token}")).0,
            401
        );
        assert_eq!(family.handle("/token", "grant_type=password").0, 400);
        assert_eq!(family.handle("/else", "").0, 404);
        assert_eq!(family.counts.presented_again, 0);
        assert!(family.counts.is_family_alive);
    }
}
