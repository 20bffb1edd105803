//! An authorization server on loopback, faithful to the answers of real ones, that misbehaves on demand.

use std::collections::{HashSet, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::PATIENCE;
use super::token_family::{RefreshResult, RotationMode, TokenFamily};

/// One thing that goes wrong with one token request; requests beyond the script are served well.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection ends before the request is looked at.
    DropBefore,
    /// The request is processed, and the connection ends without an answer.
    DropAfter,
    /// Drops the connection after this many bytes of the response.
    Truncate(usize),
    /// An answer without processing: status, headers, body.
    Respond(u16, &'static str, &'static str),
    /// Processed, and then this status and body instead of the tokens.
    CommitThen(u16, &'static str),
    /// An answer as soon as the head was read, before the body is.
    RespondEarly(u16, &'static str),
    /// Members that replace those of a good answer; null removes one.
    ReplaceMembers(Value),
    /// A body of this many bytes around the tokens.
    Oversized(usize),
    /// Whatever bytes, from the status line on.
    Custom(CustomResponse),
}

/// Makes the bytes of an answer.
pub type CustomResponseFn = Arc<dyn Fn(&Issued) -> Vec<u8> + Send + Sync>;

/// An answer made of bytes.
#[derive(Clone)]
pub struct CustomResponse {
    /// Whether the request is processed first.
    pub commits: bool,
    pub response: CustomResponseFn,
}

/// What an answer can speak of: the new tokens, made up where nothing was issued, and the refresh token that was sent.
#[derive(Clone, Debug)]
pub struct Issued {
    pub access: String,
    pub refresh: String,
    pub sent: String,
}

impl std::fmt::Debug for CustomResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wire(commits: {})", self.commits)
    }
}

/// Where a request can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldPoint {
    BeforeProcessing,
    AfterCommit,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub refresh_requests: usize,
    pub refresh_ok: usize,
    /// Requests carrying a refresh token that an earlier request had carried.
    pub presented_again: usize,
    pub families_revoked: usize,
}

/// One refresh that was asked for, as the server's log has it.
#[derive(Clone, Copy, Debug)]
pub struct LoggedRefresh {
    pub at: Instant,
    /// Counted from 0 in the order of sign-ins.
    pub family: usize,
    /// An earlier request had carried this token.
    pub is_replay: bool,
    /// It was answered with tokens.
    pub ok: bool,
}

struct ServerState {
    mode: RotationMode,
    events: Vec<LoggedRefresh>,
    families: Vec<TokenFamily>,
    access_life: Duration,
    response_delay: Duration,
    keeps_old_access: bool,
    script: VecDeque<Fault>,
    /// `None`: there is no revocation endpoint.
    revocation: Option<VecDeque<Fault>>,
    /// What came to it: kind and token.
    revoked: Vec<(String, String)>,
    /// What the server says the time is, in the form of RFC 9110.
    date: Option<String>,
    hold: Option<HoldPoint>,
    held: usize,
    released: bool,
    presented: HashSet<String>,
    counts: Counts,
    /// `None`: public; else the secret that `client_secret_basic` must carry.
    secret: Option<String>,
    client: String,
    last_form: Vec<(String, String)>,
    last_headers: Vec<(String, String)>,
    metadata: MetadataBehaviour,
    metadata_requests: usize,
}

/// What the server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataBehaviour {
    /// Its own address, and the token endpoint there.
    Plain,
    /// Headers, and a document.
    Custom(&'static str, Value),
    /// Nothing: the connection ends.
    Down,
}

impl ServerState {
    fn mint(&mut self) -> Value {
        let name = format!("f{}", self.families.len());
        let mut family = TokenFamily::new(&name, self.mode);
        family.kill_old_access_token = !self.keeps_old_access;
        let life = self.access_life;
        let answer = tokens(&family.issue_access(life), Some(&family.current), life);
        self.families.push(family);
        answer
    }
}

/// The server. Its threads end when it is dropped and its connections close.
pub struct AuthServer {
    url: String,
    shared: Arc<SharedServer>,
}

struct SharedServer {
    state: Mutex<ServerState>,
    changed: Condvar,
    stop: AtomicBool,
    /// Connections that were accepted and are not done with.
    open_connections: AtomicUsize,
}

/// A request that stands still until it is released; dropping it releases too.
pub struct HeldRequests<'a>(&'a AuthServer);

impl AuthServer {
    pub fn start(mode: RotationMode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = ServerState {
            mode,
            events: Vec::new(),
            families: Vec::new(),
            access_life: Duration::from_secs(600),
            response_delay: Duration::ZERO,
            keeps_old_access: false,
            script: VecDeque::new(),
            revocation: None,
            revoked: Vec::new(),
            date: None,
            hold: None,
            held: 0,
            released: true,
            presented: HashSet::new(),
            counts: Counts::default(),
            secret: None,
            client: "public".to_owned(),
            last_form: Vec::new(),
            last_headers: Vec::new(),
            metadata: MetadataBehaviour::Plain,
            metadata_requests: 0,
        };
        let shared = Arc::new(SharedServer {
            state: Mutex::new(state),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            open_connections: AtomicUsize::new(0),
        });
        let server = Arc::clone(&shared);
        let base = url.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if server.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, base) = (Arc::clone(&server), base.clone());
                shared.open_connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    drop(serve_connection(stream, &shared, &base));
                    shared.open_connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { url, shared }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The provider's section of a configuration, under the name `acme`.
    pub fn provider(&self, extra: &str) -> String {
        format!("[provider.acme]\ntoken_endpoint = \"{}/token\"\nclient_id = \"public\"\n{extra}\n", self.url)
    }

    /// As `provider`, with a revocation endpoint; its requests go wrong one by one as `faults` says.
    pub fn provider_with_revocation(&self, faults: impl IntoIterator<Item = Fault>) -> String {
        self.revocation_script(faults);
        self.provider(&format!("revocation_endpoint = \"{}/revoke\"", self.url))
    }

    pub fn revocation_script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().revocation.get_or_insert_default().extend(faults);
    }

    /// What was sent to be revoked, in order: the hint, and the token.
    pub fn revoked(&self) -> Vec<(String, String)> {
        self.state().revoked.clone()
    }

    /// A sign-in: a new family and its first token response.
    pub fn mint(&self) -> Value {
        self.state().mint()
    }

    pub fn set_access_life(&self, life: Duration) {
        self.state().access_life = life;
    }

    /// A refresh lets the access token before it live to its end, in the families that are signed in from now on.
    pub fn keep_old_access_tokens(&self) {
        self.state().keeps_old_access = true;
    }

    pub fn set_response_delay(&self, delay: Duration) {
        self.state().response_delay = delay;
    }

    /// Sets the `Date` of responses to `HEAD` requests.
    pub fn set_date(&self, date: &str) {
        self.state().date = Some(date.to_owned());
    }

    pub fn require_secret(&self, secret: &str) {
        self.state().secret = Some(secret.to_owned());
    }

    /// The one client that is registered, instead of `public`.
    pub fn set_client(&self, id: &str) {
        self.state().client = id.to_owned();
    }

    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().script.extend(faults);
    }

    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// The counts once every request that was sent before this call has been processed: the client may be dead by then.
    pub fn settled_counts(&self) -> Counts {
        // Connections are accepted in their order, so behind this one there is none that came earlier.
        let mut last = TcpStream::connect(self.url.trim_start_matches("http://")).unwrap();
        last.write_all(b"GET /nothing HTTP/1.1\r\n\r\n").unwrap();
        last.read_to_end(&mut Vec::new()).unwrap();
        super::eventually("the requests are processed", || {
            (self.shared.open_connections.load(Ordering::SeqCst) == 0).then(|| self.counts())
        })
    }

    /// The log, from the `n`th entry on.
    pub fn events_from(&self, n: usize) -> Vec<LoggedRefresh> {
        self.state().events.get(n..).unwrap_or_default().to_vec()
    }

    pub fn is_live(&self, access_token: &str) -> bool {
        self.state().families.iter().any(|f| f.is_live(access_token))
    }

    /// Ends an access token before its time, as a provider does that revokes it.
    pub fn end_access(&self, access_token: &str) {
        self.state().families.iter_mut().for_each(|family| family.end_access(access_token));
    }

    pub fn is_family_alive(&self, n: usize) -> bool {
        self.state().families[n].is_alive
    }

    pub fn current_refresh_token(&self, n: usize) -> String {
        self.state().families[n].current.clone()
    }

    /// The form of the newest token request.
    pub fn last_form(&self) -> Vec<(String, String)> {
        self.state().last_form.clone()
    }

    /// The headers of the newest token request, their names in small letters.
    pub fn last_headers(&self) -> Vec<(String, String)> {
        self.state().last_headers.clone()
    }

    pub fn set_metadata(&self, metadata: MetadataBehaviour) {
        self.state().metadata = metadata;
    }

    /// How often metadata was asked for.
    pub fn metadata_requests(&self) -> usize {
        self.state().metadata_requests
    }

    /// Holds the token requests from now on, at a point of their processing.
    pub fn hold(&self, point: HoldPoint) -> HeldRequests<'_> {
        let mut state = self.state();
        state.hold = Some(point);
        state.held = 0;
        state.released = false;
        HeldRequests(self)
    }

    /// Waits until the counts satisfy a condition.
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&Counts) -> bool) {
        let state = self.state();
        let (state, timeout) = self
            .shared
            .changed
            .wait_timeout_while(state, PATIENCE, |s| !is_so(&s.counts))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "waited in vain for {what}: {:?}", state.counts);
    }

    fn state(&self) -> MutexGuard<'_, ServerState> {
        self.shared.lock()
    }
}

impl Drop for AuthServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.lock().released = true;
        self.shared.changed.notify_all();
        // Wakes the accept loop.
        drop(TcpStream::connect(self.url.trim_start_matches("http://")));
    }
}

impl HeldRequests<'_> {
    /// Waits until a request has come as far as the gate.
    pub fn wait_reached(&self) {
        let state = self.0.state();
        let (_state, timeout) = self
            .0
            .shared
            .changed
            .wait_timeout_while(state, PATIENCE, |s| s.held == 0)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "no request came");
    }
}

impl Drop for HeldRequests<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.released = true;
        state.hold = None;
        drop(state);
        self.0.shared.changed.notify_all();
    }
}

impl SharedServer {
    fn lock(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_if_held(&self, point: HoldPoint) {
        let mut state = self.lock();
        if state.hold != Some(point) || state.released {
            return;
        }
        state.held += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |s| !s.released));
    }
}

struct ReceivedRequest {
    path: String,
    authorization: Option<String>,
    form: Vec<(String, String)>,
}

impl ReceivedRequest {
    fn get(&self, name: &str) -> Option<&str> {
        self.form.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}

/// Headers that a question without content has not.
const CONTENT_HEADERS: [&str; 4] = ["authorization", "cookie", "content-length", "transfer-encoding"];

fn serve_connection(stream: TcpStream, shared: &SharedServer, base: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (method, path, headers) = head(&mut reader)?;
    if method == "HEAD" {
        let date = shared.lock().date.as_ref().map_or(String::new(), |date| format!("date: {date}\r\n"));
        // A probe carries no content and no header of its own.
        let says = |(name, _): &(String, String)| name.starts_with("x-") || CONTENT_HEADERS.contains(&name.as_str());
        let status = if headers.iter().any(says) || path.contains('?') { 500 } else { 405 };
        return respond(&stream, status, &date, "");
    }
    if path == "/token" {
        let mut state = shared.lock();
        if let Some(Fault::RespondEarly(status, headers)) = state.script.front().cloned() {
            state.script.pop_front();
            drop(state);
            respond(&stream, status, headers, "")?;
            return stream.shutdown(Shutdown::Both);
        }
    }
    let header = |name: &str| headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
    let length = header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let is_json = header("content-type").is_some_and(|kind| kind == "application/json");
    let form = if is_json { members(&body) } else { url::form_urlencoded::parse(&body).into_owned().collect() };
    if path == "/token" {
        shared.lock().last_headers = headers.clone();
    }
    let request = ReceivedRequest { path, authorization: header("authorization"), form };
    match request.path.as_str() {
        "/token" => token(&stream, shared, &request),
        "/revoke" => revoke(&stream, shared, &request),
        // Each user is signed in at the first poll, unless the script says otherwise.
        "/device" => {
            let page = format!("{base}/page");
            let code = json!({"device_code": "device", "user_code": "AB-CD", "verification_uri": page,
                              "expires_in": 20, "interval": 1});
            respond(&stream, 200, JSON, &code.to_string())
        }
        "/.well-known/oauth-authorization-server" => {
            let metadata = {
                let mut state = shared.lock();
                state.metadata_requests += 1;
                state.metadata.clone()
            };
            match metadata {
                MetadataBehaviour::Plain => {
                    let mut metadata = json!({"issuer": base, "token_endpoint": format!("{base}/token")});
                    if shared.lock().revocation.is_some() {
                        metadata["revocation_endpoint"] = format!("{base}/revoke").into();
                    }
                    respond(&stream, 200, "content-type: application/json\r\n", &metadata.to_string())
                }
                MetadataBehaviour::Custom(headers, document) => respond(&stream, 200, headers, &document.to_string()),
                MetadataBehaviour::Down => stream.shutdown(Shutdown::Both),
            }
        }
        _ => respond(&stream, 404, "", ""),
    }
}

/// The members of a JSON body.
fn members(body: &[u8]) -> Vec<(String, String)> {
    let object: serde_json::Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    object.into_iter().map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned())).collect()
}

type Headers = Vec<(String, String)>;

/// Method, path, headers.
fn head(reader: &mut impl BufRead) -> io::Result<(String, String, Headers)> {
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok((method, path, headers));
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

const JSON: &str = "content-type: application/json; charset=utf-8\r\ncache-control: no-store\r\n";

fn token(stream: &TcpStream, shared: &SharedServer, request: &ReceivedRequest) -> io::Result<()> {
    shared.wait_if_held(HoldPoint::BeforeProcessing);
    let (fault, delay) = {
        let mut state = shared.lock();
        state.last_form = request.form.clone();
        (state.script.pop_front(), state.response_delay)
    };
    if let Some(Fault::DropBefore) = fault {
        count_presented(&mut shared.lock(), request);
        shared.changed.notify_all();
        return stream.shutdown(Shutdown::Both);
    }
    if let Some(Fault::Respond(status, headers, body)) = &fault {
        count_presented(&mut shared.lock(), request);
        shared.changed.notify_all();
        return respond(stream, *status, headers, body);
    }
    if let Some(Fault::Custom(wire)) = &fault {
        let answer = if wire.commits {
            process(&mut shared.lock(), request).1
        } else {
            count_presented(&mut shared.lock(), request);
            Value::Null
        };
        shared.changed.notify_all();
        let text = |name: &str| answer[name].as_str().map_or_else(|| format!("canary-no-{name}"), str::to_owned);
        let sent = request.get("refresh_token").unwrap_or_default().to_owned();
        let issued = Issued { access: text("access_token"), refresh: text("refresh_token"), sent };
        let mut stream = stream;
        stream.write_all(&(wire.response)(&issued))?;
        return stream.shutdown(Shutdown::Both);
    }
    let (status, answer) = process(&mut shared.lock(), request);
    shared.changed.notify_all();
    shared.wait_if_held(HoldPoint::AfterCommit);
    std::thread::sleep(delay);
    let text = answer.to_string();
    match fault {
        Some(Fault::DropAfter) => stream.shutdown(Shutdown::Both),
        Some(Fault::Truncate(n)) => {
            let head = format!("HTTP/1.1 200 OK\r\n{JSON}content-length: {}\r\n\r\n", text.len());
            let mut stream = stream;
            stream.write_all(head.as_bytes())?;
            stream.write_all(&text.as_bytes()[..n.min(text.len())])?;
            stream.shutdown(Shutdown::Both)
        }
        Some(Fault::CommitThen(status, body)) => respond(stream, status, "content-type: text/html\r\n", body),
        Some(Fault::ReplaceMembers(members)) => {
            respond(stream, status, JSON, &with_members(answer, &members).to_string())
        }
        Some(Fault::Oversized(n)) => {
            let padded = with_members(answer, &json!({"padding": "x".repeat(n)}));
            respond(stream, status, JSON, &padded.to_string())
        }
        Some(Fault::DropBefore | Fault::Respond(..) | Fault::RespondEarly(..) | Fault::Custom(_)) | None => {
            respond(stream, status, JSON, &text)
        }
    }
}

/// RFC 7009: a refresh token ends its family, an access token itself alone; of what it does not know it says nothing.
fn revoke(stream: &TcpStream, shared: &SharedServer, request: &ReceivedRequest) -> io::Result<()> {
    shared.wait_if_held(HoldPoint::BeforeProcessing);
    let fault = match &mut shared.lock().revocation {
        None => return respond(stream, 404, "", ""),
        Some(faults) => faults.pop_front(),
    };
    match fault {
        Some(Fault::DropBefore) => return stream.shutdown(Shutdown::Both),
        Some(Fault::Respond(status, headers, body)) => return respond(stream, status, headers, body),
        _ => {}
    }
    let text = |name: &str| request.get(name).unwrap_or_default().to_owned();
    let token = text("token");
    let mut state = shared.lock();
    let is_client = match &state.secret {
        Some(secret) => {
            let expected = format!("Basic {}", STANDARD.encode(format!("public:{secret}")));
            request.authorization.as_deref() == Some(&expected)
        }
        None => request.get("client_id") == Some("public"),
    };
    if !is_client {
        drop(state);
        return respond(stream, 401, JSON, r#"{"error":"invalid_client"}"#);
    }
    state.revoked.push((text("token_type_hint"), token.clone()));
    for family in &mut state.families {
        if family.knows(&token) {
            family.is_alive = false;
        } else if family.has_issued(&token) {
            family.end_access(&token);
        }
    }
    drop(state);
    shared.changed.notify_all();
    shared.wait_if_held(HoldPoint::AfterCommit);
    match fault {
        Some(Fault::DropAfter) => stream.shutdown(Shutdown::Both),
        _ => respond(stream, 200, "", ""),
    }
}

fn with_members(mut answer: Value, members: &Value) -> Value {
    if let (Some(answer), Some(members)) = (answer.as_object_mut(), members.as_object()) {
        for (key, value) in members {
            if value.is_null() {
                answer.remove(key);
            } else {
                answer.insert(key.clone(), value.clone());
            }
        }
    }
    answer
}

/// Gives whether an earlier request had carried this token.
fn count_presented(state: &mut ServerState, request: &ReceivedRequest) -> bool {
    state.counts.refresh_requests += 1;
    let Some(token) = request.get("refresh_token") else { return false };
    let is_again = !state.presented.insert(token.to_owned());
    state.counts.presented_again += usize::from(is_again);
    is_again
}

fn process(state: &mut ServerState, request: &ReceivedRequest) -> (u16, Value) {
    let again = count_presented(state, request);
    let error = |code: &str| json!({"error": code, "error_description": format!("{code} by the test server")});
    if let Some(secret) = &state.secret {
        let expected = format!("Basic {}", STANDARD.encode(format!("public:{secret}")));
        if request.authorization.as_deref() != Some(&expected) {
            return (401, error("invalid_client"));
        }
    } else if request.get("client_id") != Some(&state.client) {
        return (401, error("invalid_client"));
    }
    match request.get("grant_type") {
        Some("refresh_token") => {}
        Some("urn:ietf:params:oauth:grant-type:device_code") if request.get("device_code") == Some("device") => {
            state.counts.refresh_requests -= 1;
            return (200, state.mint());
        }
        // Any code is good: that it is checked is shown with real servers.
        Some("authorization_code") => {
            state.counts.refresh_requests -= 1;
            return (200, state.mint());
        }
        _ => return (400, error("unsupported_grant_type")),
    }
    let Some(token) = request.get("refresh_token") else {
        return (400, error("invalid_request"));
    };
    let life = state.access_life;
    let Some(number) = state.families.iter().position(|f| f.knows(token)) else {
        return (400, error("invalid_grant"));
    };
    let family = &mut state.families[number];
    let was_alive = family.is_alive;
    let verdict = family.refresh(token, life);
    let is_revoked = was_alive && !family.is_alive;
    state.counts.families_revoked += usize::from(is_revoked);
    state.events.push(LoggedRefresh {
        at: Instant::now(),
        family: number,
        is_replay: again,
        ok: verdict != RefreshResult::Dead,
    });
    match verdict {
        RefreshResult::Dead => (400, error("invalid_grant")),
        RefreshResult::Pair { access, refresh } => {
            state.counts.refresh_ok += 1;
            (200, tokens(&access, refresh.as_deref(), life))
        }
    }
}

fn tokens(access: &str, refresh: Option<&str>, life: Duration) -> Value {
    let mut answer =
        json!({"access_token": access, "token_type": "Bearer", "expires_in": life.as_secs(), "scope": "a b"});
    if let (Some(refresh), Some(members)) = (refresh, answer.as_object_mut()) {
        members.insert("refresh_token".into(), refresh.into());
    }
    answer
}

fn respond(mut stream: &TcpStream, status: u16, headers: &str, body: &str) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}
