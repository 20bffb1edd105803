//! The loopback redirect (RFC 8252 §7.3 and RFC 8252 §8.3): listens until the browser brings the redirect of this attempt, then closes.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
};
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use url::Url;

use crate::credential::redaction::SentSecrets;
use crate::credential::secret::OneTimeSecret;
use crate::outcome::{ErrorKind, Failure};
use crate::signin::authorization_request::AuthorizationRequest;
use crate::signin::redirect_uri::{LoopbackHost, Redirect};

/// A browser opens connections ahead of need; one that says nothing for this long is closed.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How often another free port is tried.
const BIND_ATTEMPTS: usize = 8;
/// The time limit for the last page to reach the browser.
const LAST_PAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// The open port. Dropping it closes it.
#[derive(Debug)]
pub struct LoopbackListener {
    runtime: Handle,
    listeners: Vec<TcpListener>,
    tasks: Vec<AbortHandle>,
    port: u16,
}

/// The browser's request with our state; the browser waits for a page.
#[derive(Debug)]
pub struct PendingBrowser {
    pub query: OneTimeSecret,
    page_sender: oneshot::Sender<Response<Full<Bytes>>>,
    served: oneshot::Receiver<Infallible>,
    runtime: Handle,
}

/// What can happen while a login waits.
#[derive(Debug)]
pub enum LoginEvent {
    /// The browser came back.
    Redirected(PendingBrowser),
    /// A browser came without our state; the text says what it asked for.
    StrayRedirect(String),
    /// No browser shows the page; the text says why.
    BrowserFailed(String),
    /// A line was typed or pasted; `None` if it can be neither URL nor code.
    Pasted(Option<OneTimeSecret>),
    /// A line without text was typed.
    EmptyLine,
    /// Nothing more will be typed.
    PasteEnded,
    /// Ctrl-C.
    Interrupted,
}

/// The state that all connections share.
struct ListenerState {
    path: String,
    /// What a Host header may say: the redirect's own host or an address that is listened on, with the port.
    hosts: Vec<String>,
    state: String,
    is_taken: AtomicBool,
    events: Sender<LoginEvent>,
    runtime: Handle,
}

impl LoopbackListener {
    /// Takes the registered port, or a free one.
    pub fn bind(redirect: &Redirect, runtime: &Handle) -> Result<Self, Failure> {
        let (place, fixed) = match redirect {
            Redirect::Loopback { place, .. } => (*place, redirect.fixed_port()),
            Redirect::External(url) => {
                return Err(Failure::new(
                    ErrorKind::RedirectUri,
                    format!("cannot listen on {url}: it is not on this machine"),
                )
                .with_hint("use --paste"));
            }
        };
        let mut bound = bind(place, fixed.unwrap_or(0));
        // A port that is free in one family may be taken in the other.
        for _ in 0..if fixed.is_some() { 0 } else { BIND_ATTEMPTS } {
            bound = bound.or_else(|_| bind(place, 0));
        }
        let listeners = bound.map_err(|e| cannot_listen(&e, fixed))?;
        let port = listeners.first().and_then(|l| l.local_addr().ok()).map_or(0, |a| a.port());
        Ok(Self { runtime: runtime.clone(), listeners, tasks: Vec::new(), port })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn hosts(&self, redirect_uri: &Url) -> Vec<String> {
        let addresses = self.listeners.iter().filter_map(|listener| listener.local_addr().ok());
        let mut hosts: Vec<_> = addresses.map(|address| address.to_string()).collect();
        let host = redirect_uri.host_str().unwrap_or_default();
        hosts.push(format!("{host}:{}", self.port));
        // A browser leaves out the default port.
        hosts.extend((self.port == 80).then(|| host.to_owned()));
        hosts
    }

    /// Starts to serve the redirect of `attempt`; requests are reported to `events`.
    pub fn serve(&mut self, attempt: &AuthorizationRequest, events: Sender<LoginEvent>) -> io::Result<()> {
        let post = Arc::new(ListenerState {
            path: attempt.redirect_uri.path().to_owned(),
            hosts: self.hosts(&attempt.redirect_uri),
            state: attempt.state.clone(),
            is_taken: AtomicBool::new(false),
            events,
            runtime: self.runtime.clone(),
        });
        let _inside = self.runtime.enter();
        for listener in self.listeners.drain(..) {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            self.tasks.push(self.runtime.spawn(accept(listener, Arc::clone(&post))).abort_handle());
        }
        Ok(())
    }
}

impl Drop for LoopbackListener {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl PendingBrowser {
    /// Gives the browser its page, and waits a little until it has it.
    pub fn respond(self, is_signed_in: bool, text: &str) {
        let status = if is_signed_in { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        let title = if is_signed_in { "Signed in" } else { "Not signed in" };
        // A browser that has gone needs no page.
        if self.page_sender.send(page(status, title, text)).is_ok() {
            let served = self.served;
            let _gone = self.runtime.block_on(async { tokio::time::timeout(LAST_PAGE_TIMEOUT, served).await });
        }
    }
}

/// Free ports for `localhost` must be the same in both families; a family that this machine lacks is no hindrance.
fn bind(place: LoopbackHost, port: u16) -> io::Result<Vec<TcpListener>> {
    let v4 = |port| TcpListener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    let v6 = |port| TcpListener::bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port));
    match place {
        LoopbackHost::Ip(address) => Ok(vec![TcpListener::bind(SocketAddr::new(address, port))?]),
        LoopbackHost::Localhost => {
            let first = match v4(port) {
                Ok(first) => first,
                Err(e) if is_absent(&e) => return Ok(vec![v6(port)?]),
                Err(e) => return Err(e),
            };
            match v6(first.local_addr()?.port()) {
                Ok(second) => Ok(vec![first, second]),
                Err(e) if is_absent(&e) => Ok(vec![first]),
                Err(e) => Err(e),
            }
        }
    }
}

/// This machine has no such addresses. Any other error may mean that another program has the port and would get the
/// code.
fn is_absent(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

fn cannot_listen(error: &io::Error, fixed: Option<u16>) -> Failure {
    match fixed {
        Some(port) => Failure::new(
            ErrorKind::Port,
            format!("cannot listen on port {port}, which the provider registered: {error}"),
        )
        .with_hint("stop the program that uses it (another login?), or use --device or --paste"),
        None => Failure::new(ErrorKind::Port, format!("cannot listen on the loopback address: {error}"))
            .with_hint("use --device or --paste"),
    }
}

async fn accept(listener: tokio::net::TcpListener, post: Arc<ListenerState>) {
    loop {
        match listener.accept().await {
            #[expect(
                clippy::disallowed_methods,
                reason = "each ends with its connection, or with the runtime of the login"
            )]
            Ok((stream, _)) => drop(tokio::spawn(serve_connection(stream, Arc::clone(&post)))),
            // Out of descriptors, most likely: wait for some to come back.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve_connection(stream: tokio::net::TcpStream, post: Arc<ListenerState>) {
    // The sender is dropped when the connection ends, which tells the waiting side that the page has arrived.
    let (_connection, served) = oneshot::channel();
    let served = Mutex::new(Some(served));
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let outcome = match_request(&post, &request, &served);
        async move {
            let response = match outcome {
                Ok(page) => page.await.unwrap_or_else(|_| gone_page()),
                Err(response) => *response,
            };
            Ok::<_, Infallible>(response)
        }
    });
    let _hung_up = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

type PendingPage = oneshot::Receiver<Response<Full<Bytes>>>;

/// Whether this request is the redirect of the attempt. If so, its page comes later, when the outcome of the sign-in is
/// known.
fn match_request<B>(
    post: &ListenerState,
    request: &hyper::Request<B>,
    served: &Mutex<Option<oneshot::Receiver<Infallible>>>,
) -> Result<PendingPage, Box<Response<Full<Bytes>>>> {
    let (method, uri) = (request.method(), request.uri());
    // A page of the web whose name was made to lead here (DNS rebinding) has the name of another host.
    if !is_named(&post.hosts, uri, request.headers()) {
        if uri.path() == post.path {
            let _ending =
                post.events.send(LoginEvent::StrayRedirect("it is for another host than this machine".into()));
        }
        return Err(Box::new(page(
            StatusCode::MISDIRECTED_REQUEST,
            "Wrong host",
            "This address is not of this machine.",
        )));
    }
    if method != Method::GET || uri.path() != post.path {
        return Err(Box::new(page(StatusCode::NOT_FOUND, "Not found", "There is nothing here.")));
    }
    let query = uri.query().unwrap_or_default();
    if !AuthorizationRequest::has_state(&post.state, query) {
        // The main thread is gone only when the process ends.
        let _ending = post.events.send(LoginEvent::StrayRedirect(describe_stray(query)));
        let text = "This login was not started here, or a newer one has been started. Go back to the terminal and start again.";
        return Err(Box::new(page(StatusCode::BAD_REQUEST, "Not signed in", text)));
    }
    let served = served.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (served, OneTimeSecret::new(query)) {
        (Some(served), Some(query)) if !post.is_taken.swap(true, Ordering::SeqCst) => {
            let (sender, later) = oneshot::channel();
            let browser = PendingBrowser { query, page_sender: sender, served, runtime: post.runtime.clone() };
            let _ending = post.events.send(LoginEvent::Redirected(browser));
            Ok(later)
        }
        _ => Err(Box::new(gone_page())),
    }
}

/// Whether a request names one of `hosts`, once.
fn is_named(hosts: &[String], uri: &hyper::Uri, headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let is_ours = |named: &str| hosts.iter().any(|host| host.eq_ignore_ascii_case(named));
    let is_target_ours = uri.authority().is_none_or(|authority| is_ours(authority.as_str()));
    is_target_ours && named.next().is_some_and(is_ours) && named.next().is_none()
}

/// What a redirect without our state asked for, without anything that may be a code.
fn describe_stray(query: &str) -> String {
    let parameters = || url::form_urlencoded::parse(query.as_bytes());
    let secrets: SentSecrets = parameters().filter(|(k, _)| k == "code" || k == "state").map(|(_, v)| v).collect();
    let error = parameters().find(|(k, _)| k == "error").map(|(_, v)| secrets.printable(&v));
    error.map_or("it has an unknown state".into(), |error| format!("it has an unknown state, and the error {error}"))
}

fn gone_page() -> Response<Full<Bytes>> {
    page(StatusCode::GONE, "Over", "This login is over. You can close this page.")
}

/// A page without anything that could run, load or tell.
fn page(status: StatusCode, title: &str, text: &str) -> Response<Full<Bytes>> {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <style>body{{font:1.1em sans-serif;margin:20vh auto;max-width:32em;padding:0 1em;color-scheme:light dark}}</style>\
         <h1>{title}</h1><p>{escaped}</p></html>\n"
    );
    let mut response = Response::new(Full::new(Bytes::from(html)));
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (CONNECTION, "close"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("content-security-policy"), "default-src 'none'; style-src 'unsafe-inline'"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A port that probably has no listener, for a redirect that a person will copy from the browser's address bar.
pub fn unserved_port(random: [u8; 2]) -> u16 {
    // The dynamic ports of RFC 6335.
    49152 + (u16::from_le_bytes(random) & 0x3fff)
}

/// Opens the loopback listener, and returns it with its redirect URL.
pub fn listen(redirect: &Redirect, runtime: &Handle) -> Result<(LoopbackListener, Url), Failure> {
    let doorstep = LoopbackListener::bind(redirect, runtime)?;
    let url = redirect.with_port(doorstep.port());
    Ok((doorstep, url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_for_another_host_is_refused() {
        let own = ["127.0.0.1:7".to_owned(), "[::1]:7".into(), "localhost:7".into()];
        let named = |uri: &str, hosts: &[&str]| {
            let mut request = hyper::Request::builder().uri(uri);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            let request = request.body(()).unwrap();
            is_named(&own, request.uri(), request.headers())
        };
        for host in ["127.0.0.1:7", "[::1]:7", "localhost:7", "LocalHost:7"] {
            assert!(named("/callback", &[host]), "{host}");
        }
        for hosts in [
            &["evil.example:7"][..],
            &["127.0.0.1"],
            &["127.0.0.1:8"],
            &["localhost:7.evil.example"],
            &["127.0.0.1.evil.example:7"],
            &[""],
            &[],
            &["localhost:7", "evil.example"],
        ] {
            assert!(!named("/callback", hosts), "{hosts:?}");
        }
        assert!(!named("http://evil.example:7/callback", &["localhost:7"]));
    }
}
