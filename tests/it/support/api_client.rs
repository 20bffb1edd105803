//! A client of the daemon's socket and of its TCP listener that does only what a test tells it: one connection, raw requests, whole responses.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::PATIENCE;
use super::sandbox::Sandbox;

pub struct ApiClient {
    pub stream: UnixStream,
    received: Vec<u8>,
    host: String,
}

/// A port of this machine that no program listens on at this moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl ApiClient {
    pub fn connect(sandbox: &Sandbox) -> Self {
        Self::on(UnixStream::connect(sandbox.path("run/keepalive/keepalive.sock")).unwrap(), "k".into())
    }

    pub fn connect_tcp(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // Both are descriptors that bytes go through.
        Self::on(UnixStream::from(OwnedFd::from(stream)), format!("127.0.0.1:{port}"))
    }

    fn on(stream: UnixStream, host: String) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, received: Vec::new(), host }
    }

    /// One request on a connection of its own.
    pub fn get(sandbox: &Sandbox, target: &str) -> Reply {
        Self::connect(sandbox).request("GET", target, "")
    }

    /// `fields`: whole lines.
    pub fn request(&mut self, method: &str, target: &str, fields: &str) -> Reply {
        self.send(method, target, fields);
        self.reply()
    }

    pub fn send(&mut self, method: &str, target: &str, fields: &str) {
        let host = &self.host;
        let head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n");
        self.stream.write_all(head.as_bytes()).unwrap();
    }

    /// A request with whatever bytes.
    pub fn raw(&mut self, request: &str) -> Reply {
        self.stream.write_all(request.as_bytes()).unwrap();
        self.reply()
    }

    /// `content_type`: none if it is empty.
    pub fn post(&mut self, target: &str, content_type: &str, body: &str) -> Reply {
        let content_type =
            if content_type.is_empty() { String::new() } else { format!("content-type: {content_type}\r\n") };
        let host = &self.host;
        let head = format!("POST {target} HTTP/1.1\r\nhost: {host}\r\n{content_type}content-length: {}", body.len());
        self.raw(&format!("{head}\r\n\r\n{body}"))
    }

    /// The next response; panics if the connection ends before it.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("the connection was closed")
    }

    /// `None`: the connection was closed.
    pub fn try_reply(&mut self) -> Option<Reply> {
        loop {
            if let Some(reply) = self.take_reply() {
                return Some(reply);
            }
            let mut part = [0; 4096];
            match self.stream.read(&mut part) {
                Ok(0) => return None,
                Ok(length) => self.received.extend_from_slice(&part[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next response, if it comes within this time.
    pub fn reply_within(&mut self, time: std::time::Duration) -> Option<Reply> {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let mut part = [0; 4096];
        while let Ok(length) = self.stream.read(&mut part) {
            assert!(length > 0, "the connection was closed");
            self.received.extend_from_slice(&part[..length]);
            if let Some(reply) = self.take_reply() {
                return Some(reply);
            }
        }
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        None
    }

    fn take_reply(&mut self) -> Option<Reply> {
        let end = self.received.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8(self.received[..end].to_vec()).unwrap();
        let status = head[9..12].parse().unwrap();
        let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let body = self.received.get(end + 4..end + 4 + length)?;
        let body = String::from_utf8(body.to_vec()).unwrap();
        self.received.drain(..end + 4 + length);
        Some(Reply { status, head, body })
    }
}

impl Reply {
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
