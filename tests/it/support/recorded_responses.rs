//! The recorded answers of token endpoints (`tests/responses/table.toml`), made into the bytes of a connection.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use keepalive::clock::Timestamp;
use serde::Deserialize;

use super::auth_server::Issued;
use super::root;

/// One recorded answer, and what it must lead to; the table says what each member means.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedResponse {
    pub name: String,
    /// At whom it was seen; for the reader of the table.
    #[serde(default, rename = "seen")]
    _seen: String,
    #[serde(default = "yes")]
    pub commits: bool,
    #[serde(default = "ok")]
    pub status: u16,
    #[serde(default)]
    pub headers: Vec<String>,
    pub body: String,
    #[serde(default)]
    pub encoded: Vec<String>,
    pub total: Option<usize>,
    #[serde(default = "length")]
    pub frame: String,
    #[serde(default = "refreshed")]
    pub outcome: String,
    #[serde(default)]
    pub exit: i32,
    state: Option<String>,
    keeps: Option<String>,
    pub life: Option<u64>,
    #[serde(default = "yes")]
    pub access: bool,
    pub login_by: Option<u64>,
    pub not_before: Option<u64>,
    pub warns: Option<String>,
    pub says: Option<String>,
}

fn yes() -> bool {
    true
}

fn ok() -> u16 {
    200
}

fn length() -> String {
    "length".into()
}

fn refreshed() -> String {
    "refreshed".into()
}

#[derive(Deserialize)]
struct ResponseTable {
    response: Vec<RecordedResponse>,
}

/// All of the table.
pub fn recorded_responses() -> Vec<RecordedResponse> {
    let text = std::fs::read_to_string(root().join("tests/responses/table.toml")).unwrap();
    toml::from_str::<ResponseTable>(&text).unwrap().response
}

impl RecordedResponse {
    pub fn is_granted(&self) -> bool {
        self.outcome == "refreshed" || !self.access
    }

    /// What `status` shows afterwards.
    pub fn state(&self) -> &str {
        match (&self.state, self.outcome.as_str()) {
            (Some(state), _) => state,
            (None, "refreshed" | "deferred") => "fresh",
            (None, other) => other,
        }
    }

    /// The refresh token that is held afterwards.
    pub fn keeps(&self, issued: &Issued) -> String {
        let default = if self.is_granted() { "{RT}" } else { "{OLD}" };
        let text = fill_placeholders(self.keeps.as_deref().unwrap_or(default), issued, Timestamp::from_secs(0));
        // TOML's literal strings leave the escapes of JSON alone.
        serde_json::from_str(&format!("\"{text}\"")).unwrap()
    }

    /// The body as it goes over the wire.
    pub fn encoded_body(&self, issued: &Issued, now: Timestamp) -> Vec<u8> {
        let mut bytes = fill_placeholders(&self.body, issued, now).into_bytes();
        if let Some(total) = self.total {
            bytes.resize(total, b' ');
        }
        self.encoded.iter().fold(bytes, |bytes, coding| encode(coding, &bytes))
    }

    /// `Content-Encoding` as a reader of the answer sees it.
    pub fn content_encoding(&self) -> Option<String> {
        let lines = self.headers.iter().filter_map(|h| h.strip_prefix("Content-Encoding: "));
        let lines: Vec<_> = lines.collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }

    /// The whole answer, from the status line on.
    pub fn bytes(&self, body: &[u8]) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} X\r\n", self.status);
        for header in &self.headers {
            head += header;
            head += "\r\n";
        }
        match self.frame.as_str() {
            "length" => head += &format!("Content-Length: {}\r\n", body.len()),
            "short" => head += &format!("Content-Length: {}\r\n", body.len() + 100),
            "chunked" => head += "Transfer-Encoding: chunked\r\n",
            "close" | "none" => {}
            other => panic!("{}: no such frame: {other}", self.name),
        }
        let mut bytes = (head + "Connection: close\r\n\r\n").into_bytes();
        if self.frame == "chunked" {
            for chunk in body.chunks(if body.len() > 4096 { 65536 } else { 7 }) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
        } else {
            bytes.extend(body);
        }
        bytes
    }
}

/// Puts tokens and instants in their places.
fn fill_placeholders(text: &str, issued: &Issued, now: Timestamp) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        filled += before;
        let place = after.split_once('}').and_then(|(place, rest)| Some((value(place, issued, now)?, rest)));
        (filled, rest) = match place {
            Some((value, rest)) => (filled + &value, rest),
            None => (filled + "{", after),
        };
    }
    filled + rest
}

fn value(place: &str, issued: &Issued, now: Timestamp) -> Option<String> {
    let at = |seconds: &str| Timestamp::from_millis(now.as_millis() + seconds.parse::<i64>().unwrap() * 1000);
    Some(match place.split_once('+') {
        None => match place {
            "AT" => issued.access.clone(),
            "RT" => issued.refresh.clone(),
            "OLD" => issued.sent.clone(),
            _ => return None,
        },
        Some(("S", seconds)) => (at(seconds).as_millis() / 1000).to_string(),
        Some(("MS", seconds)) => at(seconds).as_millis().to_string(),
        Some(("T", seconds)) => at(seconds).to_string(),
        Some(("AT:exp", seconds)) => {
            let exp = at(seconds.trim_matches('\'')).as_millis() / 1000;
            let exp = if seconds.starts_with('\'') { format!("\"{exp}\"") } else { exp.to_string() };
            let claims = format!("{{\"jti\":\"{}\",\"exp\":{exp}}}", issued.access);
            format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
        }
        Some(_) => return None,
    })
}

fn encode(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let text = || String::from_utf8(bytes.to_vec()).unwrap();
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "zlib" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        "br" => stored_in_brotli(bytes),
        "bom" => [b"\xef\xbb\xbf", bytes].concat(),
        "utf16le" => "\u{feff}".encode_utf16().chain(text().encode_utf16()).flat_map(u16::to_le_bytes).collect(),
        "utf16be" => "\u{feff}".encode_utf16().chain(text().encode_utf16()).flat_map(u16::to_be_bytes).collect(),
        "latin1" => text().chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect(),
        other => panic!("no such coding: {other}"),
    }
}

/// RFC 7932 §9.2: one meta-block that is not compressed, and an empty last one. There is no encoder in the tree.
fn stored_in_brotli(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() {
        return vec![0x06];
    }
    assert!((1..=65536).contains(&bytes.len()));
    let header = (bytes.len() as u32 - 1) << 4 | 1 << 20;
    [&header.to_le_bytes()[..3], bytes, &[0x03]].concat()
}
