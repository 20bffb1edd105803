//! Another program that holds the same refresh token and uses it when it likes, as a client of the same server.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::auth_server::AuthServer;

/// Refreshes behind our back; the server's answer.
pub fn refresh(server: &AuthServer, token: &str) -> Value {
    let host = server.url().trim_start_matches("http://");
    let body = format!("grant_type=refresh_token&client_id=public&refresh_token={token}");
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!(
        "POST /token HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (_head, body) = text.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// The refresh token of an answer.
pub fn token(answer: &Value) -> &str {
    answer["refresh_token"].as_str().unwrap()
}
