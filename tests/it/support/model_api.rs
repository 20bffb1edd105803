//! The API of a model on loopback, as far as an agent program needs it for one turn: it takes an access token that the
//! authorization server holds valid, and answers a request with one word.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::auth_server::AuthServer;

/// One that runs until the test ends.
pub struct ModelApi {
    pub url: String,
    served: Arc<Mutex<Vec<(String, u16)>>>,
}

impl ModelApi {
    pub fn start(server: &Arc<AuthServer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::new(Mutex::new(Vec::new()));
        let (log, server) = (Arc::clone(&served), Arc::clone(server));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, server) = (Arc::clone(&log), Arc::clone(&server));
                // A client that leaves early is that client's business.
                std::thread::spawn(move || drop(serve(&stream, &server, &log)));
            }
        });
        Self { url, served }
    }

    /// The access tokens of the turns so far, each with the status that it got.
    pub fn served(&self) -> Vec<(String, u16)> {
        self.served.lock().unwrap().clone()
    }
}

fn serve(stream: &TcpStream, server: &AuthServer, log: &Mutex<Vec<(String, u16)>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut request, mut token, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => token = value.trim_start_matches("Bearer ").to_owned(),
            "content-length" => length = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    reader.take(length).read_to_end(&mut Vec::new())?;
    let is_turn = request.starts_with("POST") && request.contains("/responses ");
    let status = match (is_turn, server.is_live(&token)) {
        (false, _) => 404,
        (true, false) => 401,
        (true, true) => 200,
    };
    if is_turn {
        log.lock().unwrap().push((token, status));
    }
    let body = if status == 200 { turn() } else { "{}".to_owned() };
    let kind = if status == 200 { "text/event-stream" } else { "application/json" };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// One turn of the Responses API, as server-sent events.
fn turn() -> String {
    let message = json!({"type": "message", "role": "assistant", "id": "m1",
        "content": [{"type": "output_text", "text": "hello"}]});
    let usage = json!({"input_tokens": 1, "input_tokens_details": null, "output_tokens": 1,
        "output_tokens_details": null, "total_tokens": 2});
    let events = [
        json!({"type": "response.created", "response": {"id": "r1"}}),
        json!({"type": "response.output_item.done", "item": message}),
        json!({"type": "response.completed", "response": {"id": "r1", "usage": usage}}),
    ];
    events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())).collect()
}
