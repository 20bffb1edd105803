//! The API of a model on loopback, as far as an agent program needs it for one turn: it takes an access token that the
//! authorization server holds valid, and answers a request with one word. It leads to the token endpoint of that server, too:
//! some programs have the address of theirs built in.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

use super::PATIENCE;
use super::auth_server::AuthServer;

/// One that runs until the test ends.
pub struct ModelApi {
    pub url: String,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    served: Vec<(String, u16)>,
    /// Requests that a program sent to the token endpoint by way of its own address.
    token_requests: usize,
    /// Turns wait before their token is looked at.
    is_held: bool,
    waiting: usize,
}

/// Turns that stand still; dropping it releases them.
pub struct HeldTurns<'a>(&'a Log);

impl ModelApi {
    pub fn start(server: &Arc<AuthServer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::<Log>::default();
        let (kept, server) = (Arc::clone(&log), Arc::clone(server));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, server) = (Arc::clone(&kept), Arc::clone(&server));
                // A client that leaves early is that client's business.
                std::thread::spawn(move || drop(serve(&stream, &server, &log)));
            }
        });
        Self { url, log }
    }

    /// The access tokens of the turns so far, each with the status that it got.
    pub fn served(&self) -> Vec<(String, u16)> {
        self.log.state.lock().unwrap().served.clone()
    }

    /// How many requests came for the token endpoint.
    pub fn token_requests(&self) -> usize {
        self.log.state.lock().unwrap().token_requests
    }

    /// From now on a turn waits before its token is looked at.
    pub fn hold(&self) -> HeldTurns<'_> {
        self.log.state.lock().unwrap().is_held = true;
        HeldTurns(&self.log)
    }
}

impl HeldTurns<'_> {
    /// Waits until a turn has come.
    pub fn wait_reached(&self) {
        let state = self.0.state.lock().unwrap();
        let (_state, timeout) = self.0.changed.wait_timeout_while(state, PATIENCE * 3, |s| s.waiting == 0).unwrap();
        assert!(!timeout.timed_out(), "no turn came");
    }
}

impl Drop for HeldTurns<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().is_held = false;
        self.0.changed.notify_all();
    }
}

impl Log {
    fn wait_if_held(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |s| s.is_held).unwrap());
    }
}

struct ApiRequest {
    method: String,
    path: String,
    token: String,
    content_type: String,
    body: Vec<u8>,
}

fn read_request(stream: &TcpStream) -> std::io::Result<ApiRequest> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut token, mut content_type, mut length) = (String::new(), String::new(), String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => token = value.trim_start_matches("Bearer ").to_owned(),
            "content-type" => content_type = value.to_owned(),
            "content-length" => length = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    let mut words = first.split([' ', '?']).map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    Ok(ApiRequest { method, path, token, content_type, body })
}

fn serve(stream: &TcpStream, server: &AuthServer, log: &Log) -> std::io::Result<()> {
    let request = read_request(stream)?;
    let is_turn = |end: &str| request.method == "POST" && request.path.ends_with(end);
    if is_turn("/oauth/token") {
        log.state.lock().unwrap().token_requests += 1;
        return forward(stream, server, &request);
    }
    if request.path.ends_with("/oauth/profile") {
        return respond(stream, 200, "application/json", &account().to_string());
    }
    let turn: fn() -> Vec<Value> = match () {
        () if is_turn("/responses") => turn_of_responses,
        () if is_turn("/v1/messages") => turn_of_messages,
        () => return respond(stream, 404, "application/json", "{}"),
    };
    log.wait_if_held();
    let status = if server.is_live(&request.token) { 200 } else { 401 };
    log.state.lock().unwrap().served.push((request.token, status));
    if status != 200 {
        let error = json!({"type": "error", "error": {"type": "authentication_error", "message": "invalid token"}});
        return respond(stream, status, "application/json", &error.to_string());
    }
    let events = turn();
    let event = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap());
    respond(stream, 200, "text/event-stream", &events.iter().map(event).collect::<String>())
}

/// Asks the authorization server, and gives what it answers.
fn forward(mut stream: &TcpStream, server: &AuthServer, request: &ApiRequest) -> std::io::Result<()> {
    let mut onward = TcpStream::connect(server.url().trim_start_matches("http://"))?;
    let (kind, length) = (&request.content_type, request.body.len());
    write!(onward, "POST /token HTTP/1.1\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n")?;
    onward.write_all(&request.body)?;
    std::io::copy(&mut onward, &mut stream).map(drop)
}

fn respond(mut stream: &TcpStream, status: u16, kind: &str, body: &str) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Without an account Claude Code does not store what it refreshed.
fn account() -> Value {
    json!({
        "account": {"uuid": "u1", "email": "ada@acme.example", "display_name": "Ada", "has_claude_max": true},
        "organization": {"uuid": "o1", "name": "acme", "organization_type": "claude_max"},
    })
}

/// One turn of the Responses API.
fn turn_of_responses() -> Vec<Value> {
    let message = json!({"type": "message", "role": "assistant", "id": "m1",
        "content": [{"type": "output_text", "text": "hello", "annotations": []}]});
    let begun = json!({"type": "message", "role": "assistant", "id": "m1", "content": [], "status": "in_progress"});
    let usage = json!({"input_tokens": 1, "input_tokens_details": null, "output_tokens": 1,
        "output_tokens_details": null, "total_tokens": 2});
    vec![
        json!({"type": "response.created", "response": {"id": "r1", "created_at": 1, "model": "x"}}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": begun}),
        json!({"type": "response.output_text.delta", "item_id": "m1", "output_index": 0, "content_index": 0, "delta": "hello"}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": message}),
        json!({"type": "response.completed", "response": {"id": "r1", "usage": usage}}),
    ]
}

/// One turn of the Messages API.
fn turn_of_messages() -> Vec<Value> {
    let message = json!({"id": "m1", "type": "message", "role": "assistant", "model": "x", "content": [],
        "stop_reason": null, "usage": {"input_tokens": 1, "output_tokens": 1}});
    vec![
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}),
        json!({"type": "message_stop"}),
    ]
}
