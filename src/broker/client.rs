//! Asks a running daemon for a token: blocking requests without runtime, TLS or D-Bus, so that `token` starts fast.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::{BrokerRequest, BrokerResponse, PROTOCOL, PROTOCOL_HEADER, STORE_HEADER};
use crate::events;
use crate::sys::socket;

/// A daemon that does not respond within this time counts as absent. One on a busy machine takes some time, and may be
/// the only process with the key. A stopped daemon costs its callers this time, but not more than they have.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
const MIN_PING_TIMEOUT: Duration = Duration::from_millis(300);
/// The time, beyond the caller's own limit, for the response to come across.
const SLACK: Duration = Duration::from_secs(1);
const OK: &[u8] = b"HTTP/1.1 200 ";
/// The longest response: a token of a megabyte and its JSON.
const MAX_RESPONSE_BYTES: u64 = 2 * 1024 * 1024;

/// Asks the daemon on `path`. `None`: there is no daemon for this store, so the store must be used directly.
pub fn request_token(path: &Path, store: &str, request: &BrokerRequest) -> Option<BrokerResponse> {
    if !path.exists() {
        return unused("there is no socket of a daemon");
    }
    let limit = Duration::from_millis(request.timeout_ms);
    let (sign_of_life, patience) = (limit.clamp(MIN_PING_TIMEOUT, PING_TIMEOUT), limit + SLACK);
    let body = serde_json::to_string(request).ok()?;
    let (ping, wish) = (http_request("GET /v1/ping", store, ""), http_request("POST /v1/token", store, &body));
    let (send, receive) = mpsc::channel();
    let path = path.to_owned();
    // Connecting to a stopped daemon blocks once its queue is full, and a Unix socket has no connect timeout; before
    // that the system connects on behalf of a daemon that will never respond. So a thread pings it first, and is left
    // behind if it does not come back.
    let spawned = std::thread::Builder::new().name("daemon client".into()).spawn(move || {
        for (http_request, patience) in [(ping, sign_of_life), (wish, patience)] {
            let answer = exchange(&path, &http_request, patience).ok().filter(|answer| answer.starts_with(OK));
            let is_ok = answer.is_some();
            if send.send(answer).is_err() || !is_ok {
                return;
            }
        }
    });
    if spawned.is_err() {
        return unused("no thread can be started to ask a daemon");
    }
    match receive.recv_timeout(sign_of_life) {
        Ok(Some(_pong)) => {}
        Ok(None) => return unused("no daemon listens on the socket, or it serves another store"),
        Err(_) => return unused("the daemon does not respond"),
    }
    match receive.recv_timeout(patience) {
        Ok(Some(answer)) => parse_response(&answer).or_else(|| unused("the response of the daemon is not complete")),
        Ok(None) => unused("the daemon refused the request"),
        Err(_) => unused("the daemon did not respond in time"),
    }
}

/// No daemon is used, and the log says why.
fn unused(reason: &str) -> Option<BrokerResponse> {
    events::token_from_store(reason);
    None
}

fn http_request(what: &str, store: &str, body: &str) -> String {
    format!(
        "{what} HTTP/1.1\r\nhost: keepalive\r\n{PROTOCOL_HEADER}: {PROTOCOL}\r\n{STORE_HEADER}: {store}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn exchange(path: &Path, request: &str, patience: Duration) -> io::Result<Vec<u8>> {
    let mut stream = socket::connect(path)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The JSON of a 200; anything else counts as no daemon. Our own server responds with `content-length`, never in
/// chunks, and closes.
fn parse_response(answer: &[u8]) -> Option<BrokerResponse> {
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let (head, body) = answer.split_at(split);
    let is_ok = head.starts_with(OK);
    serde_json::from_slice(body.get(4..)?).ok().filter(|_| is_ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_200_response_is_accepted() {
        let json = r#"{"outcome":"fresh","token":null,"error":null,"warnings":[]}"#;
        let answer =
            |status: &str, body: &str| parse_response(format!("HTTP/1.1 {status}\r\na: b\r\n\r\n{body}").as_bytes());
        assert!(answer("200 OK", json).is_some());
        assert!(answer("409 Conflict", json).is_none());
        assert!(answer("200 OK", &json[..20]).is_none());
        assert!(parse_response(b"HTTP/1.1 200 OK\r\n").is_none());
    }

    #[test]
    fn silent_daemon_is_treated_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        // The test accepts no connection, so the system does.
        let _silent = socket::listen(&path).unwrap();
        let an_hour =
            BrokerRequest { profile: "p".parse().unwrap(), min_valid_ms: 0, timeout_ms: 3_600_000, id_token: false };
        assert!(request_token(&path, "s", &an_hour).is_none());
    }

    #[test]
    fn missing_socket_is_treated_as_no_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let request = BrokerRequest { profile: "p".parse().unwrap(), min_valid_ms: 0, timeout_ms: 0, id_token: false };
        assert!(request_token(&dir.path().join("none"), "s", &request).is_none());
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(request_token(&dir.path().join("file"), "s", &request).is_none());
    }
}
