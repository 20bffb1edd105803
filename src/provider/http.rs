//! The token endpoint over HTTP: one request on one fresh connection, with the fence as its body.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::{Host, Url};
use zeroize::Zeroizing;

use super::client::{Identity, SecretReader};
use super::discovery::{self, Document, Metadata, Whom};
use super::fence::{Crossing, Fence, FencedBody};
use super::runtime::Background;
use super::wire::{self, TokenRequest};
use super::{Exchange, Gate, GateError, PrepareError, Prepared, RawAnswer, TokenEndpoint, Unsent};
use crate::clock::{Clock, Moment, Timestamp};
use crate::credential::encoding;
use crate::guard::Held;
use crate::outcome::Failure;
use crate::profile::Provider;

/// Beyond the connect timeout, for a connection that stands but whose body is not asked for.
pub const SLACK: Duration = Duration::from_secs(5);

/// Past the time that an exchange has, how long what has arrived by then is still read: a run that was stopped, or whose
/// machine slept, finds its time up before it finds the answer that lies in the socket.
pub const READ_ON: Duration = Duration::from_secs(1);
/// Read on in steps: being stopped once more costs one of them, and not the rest.
const READ_ON_STEPS: u32 = 10;

/// An answer is read however many headers a proxy on the way has added, within hyper's bound of some 400 KiB.
const MOST_HEADERS: usize = 8192;

/// Token endpoints reached by reqwest, on a small runtime of its own.
pub struct HttpEndpoint {
    runtime: Background,
    clients: Mutex<HashMap<ClientKey, Kept>>,
    secrets: SecretReader,
    clock: Arc<dyn Clock>,
    metadata: PathBuf,
}

/// What two providers must share to share a client; connections are never shared.
type ClientKey = (Option<PathBuf>, Duration, bool);

/// A client, and the content of the `ca_file` that it was made with.
struct Kept {
    client: reqwest::Client,
    authorities: Option<Vec<u8>>,
    built: Moment,
}

/// A client is made anew after this time, with the roots that the system trusts by then.
const OLDEST_CLIENT: Duration = Duration::from_secs(3600);

impl std::fmt::Debug for HttpEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpEndpoint")
    }
}

impl HttpEndpoint {
    /// `metadata` is the directory where discovered metadata is kept.
    pub fn new(secrets: SecretReader, clock: Arc<dyn Clock>, metadata: &Path) -> std::io::Result<Self> {
        // Only the first caller of a process installs it; that it is there already is no error.
        let _already = rustls::crypto::ring::default_provider().install_default();
        Ok(Self {
            runtime: Background::start()?,
            clients: Mutex::default(),
            secrets,
            clock,
            metadata: metadata.to_owned(),
        })
    }

    /// The runtime that the exchanges run on, for whoever needs to wait for signals or sockets beside them.
    pub fn runtime(&self) -> &tokio::runtime::Runtime {
        &self.runtime
    }

    /// A client for `provider`, with its `ca_file` as that is now. Where that cannot be used any more, the client from
    /// before serves on, as a broken configuration does not end the one before it.
    pub(super) fn client(&self, provider: &Provider, url: &Url) -> Result<reqwest::Client, Failure> {
        let key = (provider.ca_file.clone(), provider.policy.connect_timeout, is_loopback(url));
        let read = |path: &PathBuf| std::fs::read(path).map_err(|e| unusable(path, &e.to_string()));
        let authorities = provider.ca_file.as_ref().map(read).transpose();
        let now = self.clock.now();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = clients.get(&key);
        let is_good = |k: &&Kept| Ok(&k.authorities) == authorities.as_ref() && now.age_of(&k.built) < OLDEST_CLIENT;
        if let Some(kept) = kept.filter(is_good) {
            return Ok(kept.client.clone());
        }
        let made = authorities.and_then(|pem| build(&key, pem.as_deref()).map(|client| (client, pem)));
        match (made, kept) {
            (Ok((client, authorities)), _) => {
                clients.insert(key, Kept { client: client.clone(), authorities, built: now });
                Ok(client)
            }
            (Err(failure), Some(kept)) => {
                let hint = failure.hint.as_deref();
                tracing::warn!(hint, "{}; what was in it before stays in force", failure.message);
                Ok(kept.client.clone())
            }
            (Err(failure), None) => Err(failure),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now().wall
    }

    /// The token endpoint, and how the server calls itself if that is known.
    fn endpoint(&self, provider: &Provider) -> Result<(Url, Option<String>), PrepareError> {
        if let Some(url) = &provider.token_endpoint {
            // The slash is the parser's: few servers without a path have it in their name.
            let issuer = provider.issuer.as_ref().map(|issuer| match issuer.path() {
                "/" => issuer.as_str().trim_end_matches('/').to_owned(),
                _ => issuer.as_str().to_owned(),
            });
            return Ok((url.clone(), issuer));
        }
        let Some(issuer) = &provider.issuer else {
            return Err(PrepareError::Config(
                Failure::new("config", format!("provider {} names no token endpoint", provider.name))
                    .hint(format!("set issuer or token_endpoint in [provider.{}]", provider.name)),
            ));
        };
        self.discover(provider, issuer).map(|m| (m.token_endpoint, Some(m.issuer)))
    }

    pub(super) fn discover(&self, provider: &Provider, issuer: &Url) -> Result<Metadata, PrepareError> {
        let fetch = |url: Url| self.get(provider, url);
        let whom = Whom { issuer, domain: provider.endpoint_domain.as_deref() };
        discovery::metadata(whom, &self.metadata, self.now(), &fetch)
    }

    /// A plain GET for metadata, with the same cap and timeouts as a token request.
    pub(super) fn get(&self, provider: &Provider, url: Url) -> Result<Document, String> {
        let client = self.client(provider, &url).map_err(|f| f.message)?;
        let limit = provider.policy.connect_timeout + provider.policy.timeout;
        self.runtime.block_on(async {
            let request = dressed(client.get(url), provider).send();
            let exchange = async {
                let response = request.await.map_err(|e| describe(&e))?;
                let status = response.status().as_u16();
                let mut body = Zeroizing::new(Vec::new());
                let named = lines(response.headers(), CONTENT_ENCODING);
                let fresh_for = discovery::fresh_for(lines(response.headers(), CACHE_CONTROL).as_deref());
                read_body(response, &mut body).await?;
                let unpacked = encoding::decode(named.as_deref(), &body).map_err(|_| "it is too large".to_owned())?;
                Ok(Document { status, body: unpacked.bytes.to_vec(), fresh_for })
            };
            bounded(limit, exchange).await
        })
    }
}

impl TokenEndpoint for HttpEndpoint {
    fn prepare(&self, provider: &Arc<Provider>, within: &str) -> Result<Prepared, PrepareError> {
        let identity = Identity::read(provider, &self.secrets, within).map_err(PrepareError::Config)?;
        // A `ca_file` that cannot be used is found out here, and not with the lock in hand.
        if let Some(url) = provider.token_endpoint.as_ref().or(provider.issuer.as_ref()) {
            self.client(provider, url).map_err(PrepareError::Config)?;
        }
        let (token_endpoint, issuer) = self.endpoint(provider)?;
        Ok(Prepared { provider: Arc::clone(provider), token_endpoint, issuer, identity })
    }

    fn exchange<'l>(&self, prepared: &Prepared, held: Held<'l>, gate: Gate) -> Exchange<'l> {
        let client = match self.client(&prepared.provider, &prepared.token_endpoint) {
            Ok(client) => client,
            Err(f) => return unsent(held, false, Unsent::Network(f.message), None),
        };
        // A proof of its own for each send: servers accept an assertion once.
        let Ok(proof) = prepared.prove(self.now()) else {
            let why = Unsent::Gate(GateError::Refused("the client assertion cannot be signed"));
            return unsent(held, false, why, None);
        };
        let (token, predecessor) = held.spend();
        let fence = Fence::new(gate);
        let wire = wire::refresh_request(&prepared.provider, &proof, &token);
        let request = fenced(&client, &prepared.token_endpoint, &prepared.provider, &wire, &fence);
        let arrival = self.runtime.block_on(arrive(request, &fence, &prepared.provider));
        match (fence.settle(), arrival) {
            (Crossing::Sent, Ok(answer)) if answer.is_complete => {
                Exchange::Answered { sent: token, predecessor, answer }
            }
            (Crossing::Sent, Ok(partial)) => Exchange::Lost {
                sent: token,
                predecessor,
                why: format!("the answer was cut off or is larger than {} bytes", encoding::LARGEST),
                partial: Some(partial),
            },
            (Crossing::Sent, Err(why)) => Exchange::Lost { sent: token, predecessor, partial: None, why },
            (Crossing::Withheld { proof, may_have_intent, gate }, arrival) => {
                let why = match (&arrival, gate) {
                    (_, Some(error)) => Unsent::Gate(error),
                    (Ok(answer), None) => Unsent::Early(format!("the server answered {} at once", answer.status)),
                    (Err(why), None) => Unsent::Network(why.clone()),
                };
                unsent(predecessor.unspent(token, proof), may_have_intent, why, arrival.ok())
            }
        }
    }
}

/// A request that carries a refresh token, with the fence for a body.
pub(super) fn fenced(
    client: &reqwest::Client,
    url: &Url,
    provider: &Provider,
    wire: &TokenRequest,
    fence: &Arc<Fence>,
) -> reqwest::RequestBuilder {
    let mut request = dressed(client.post(url.clone()), provider).header(CONTENT_TYPE, wire.content_type);
    if let Some(authorization) = &wire.authorization {
        request = request.header(AUTHORIZATION, authorization.as_str());
    }
    let bytes = Bytes::copy_from_slice(&wire.body);
    request.body(reqwest::Body::wrap(FencedBody::new(Arc::clone(fence), bytes)))
}

/// A request with the headers of its provider; those go before ours of the same name.
pub(super) fn dressed(request: reqwest::RequestBuilder, provider: &Provider) -> reqwest::RequestBuilder {
    let extra = provider.headers.iter().filter_map(|(name, value)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
    });
    request.header(ACCEPT, "application/json").headers(extra.collect())
}

fn unsent(held: Held<'_>, may_have_intent: bool, why: Unsent, answer: Option<RawAnswer>) -> Exchange<'_> {
    Exchange::Unsent { held, may_have_intent, why, answer }
}

/// Sends, and reads the answer to its end or to the cap. `timeout` runs from the moment the token is let through; until
/// then the connect timeout rules. The fence is shut before anything is made of what happened.
pub(super) async fn arrive(
    request: reqwest::RequestBuilder,
    fence: &Fence,
    provider: &Provider,
) -> Result<RawAnswer, String> {
    let overdue = async {
        let connecting = provider.policy.connect_timeout + SLACK;
        if tokio::time::timeout(connecting, fence.yielded()).await.is_err() {
            // The gate may be at work on a slow disk: shutting the fence settles it either way.
            fence.shut();
        }
        tokio::time::sleep(provider.policy.timeout).await;
        // Nothing more is let through; what was may have been answered.
        fence.shut();
        read_on().await;
    };
    tokio::pin!(overdue);
    let response = tokio::select! {
        biased;
        response = request.send() => response,
        () = &mut overdue => return Err("no answer in time".into()),
    };
    fence.shut();
    let response = response.map_err(|e| describe(&e))?;
    let text = |headers: &HeaderMap, name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let mut answer = RawAnswer {
        status: response.status().as_u16(),
        content_type: text(response.headers(), CONTENT_TYPE),
        content_encoding: lines(response.headers(), CONTENT_ENCODING),
        retry_after: text(response.headers(), RETRY_AFTER),
        body: Zeroizing::new(Vec::new()),
        is_complete: false,
    };
    answer.is_complete = tokio::select! {
        biased;
        read = read_body(response, &mut answer.body) => read.is_ok(),
        () = &mut overdue => false,
    };
    Ok(answer)
}

/// What comes of an exchange in `limit`, or of reading on after that.
pub(super) async fn bounded<T>(
    limit: Duration,
    exchange: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    tokio::select! {
        biased;
        done = exchange => done,
        () = async { tokio::time::sleep(limit).await; read_on().await } => Err("no answer in time".into()),
    }
}

/// The connection is another task than whoever waits for it, and must have its turn after the time was found to be up.
async fn read_on() {
    for _ in 0..READ_ON_STEPS {
        tokio::time::sleep(READ_ON / READ_ON_STEPS).await;
    }
}

/// A header that is a list, which may come in several lines.
pub(super) fn lines(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let lines: Vec<_> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

pub(super) async fn read_body(mut response: reqwest::Response, into: &mut Vec<u8>) -> Result<(), String> {
    while let Some(chunk) = response.chunk().await.map_err(|e| describe(&e))? {
        let room = encoding::LARGEST - into.len();
        into.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if chunk.len() > room {
            return Err(format!("the answer is larger than {} bytes", encoding::LARGEST));
        }
    }
    Ok(())
}

/// A client that makes every request on a connection of its own, follows nothing and repeats nothing.
fn build(key: &ClientKey, authorities: Option<&[u8]>) -> Result<reqwest::Client, Failure> {
    let (ca_file, connect_timeout, is_loopback) = key;
    #[expect(clippy::disallowed_methods, reason = "the one place that makes clients")]
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("keepalive/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        // The connection serves one exchange, so a fault in a header can confuse nothing, and must not cost the answer.
        .http1_ignore_invalid_headers_in_responses(true)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_max_headers(MOST_HEADERS)
        .connect_timeout(*connect_timeout);
    #[cfg(target_os = "linux")]
    {
        // How long an answer is waited for is `timeout`'s to say: the kernel must not end the connection before.
        builder = builder.tcp_user_timeout(None);
    }
    if *is_loopback {
        builder = builder.no_proxy();
    }
    if let (Some(path), Some(pem)) = (ca_file, authorities) {
        let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|e| unusable(path, &e.to_string()))?;
        if certificates.is_empty() {
            return Err(unusable(path, "there is no certificate in it"));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|e| match ca_file {
        Some(path) => unusable(path, &describe(&e)),
        None => Failure::new("tls", format!("cannot set up TLS: {}", describe(&e))),
    })
}

fn unusable(ca_file: &Path, why: &str) -> Failure {
    let message = format!("cannot use {}: {why}", ca_file.display());
    Failure::new("ca_file", message).hint("ca_file must name certificates in PEM")
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(a)) => a.is_loopback(),
        Some(Host::Ipv6(a)) => a.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The whole chain of causes, without the URL: it can carry secrets.
pub(super) fn describe(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "cannot connect"
    } else {
        "the exchange failed"
    }
    .to_owned();
    let mut source = std::error::Error::source(error);
    let mut last = String::new();
    while let Some(cause) = source {
        last = cause.to_string();
        source = cause.source();
    }
    if !last.is_empty() {
        text.push_str(": ");
        text.push_str(&last);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;

    use super::*;
    use crate::clock::ManualClock;

    const TIMEOUT: Duration = Duration::from_secs(2);
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";

    /// One exchange with a server that behaves as `serve` says once it has the token.
    fn exchange<F>(timeout: Duration, serve: F) -> Result<RawAnswer, String>
    where
        F: FnOnce(TcpStream, tokio::runtime::Handle) + Send + 'static,
    {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_790_000_000)));
        let endpoint = HttpEndpoint::new(Box::new(|_, _| Err("none".into())), clock, dir.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/token", listener.local_addr().unwrap())).unwrap();
        let handle = endpoint.runtime().handle().clone();
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut request = Vec::new();
            while !request.ends_with(b"the token") {
                let mut part = [0; 1024];
                let n = stream.read(&mut part).unwrap();
                request.extend_from_slice(&part[..n]);
            }
            serve(stream, handle);
        });
        let mut provider = Provider::named("acme");
        provider.policy.timeout = timeout;
        let client = endpoint.client(&provider, &url).unwrap();
        let wire = TokenRequest {
            content_type: "text/plain",
            authorization: None,
            body: Zeroizing::new(b"the token".to_vec()),
        };
        let fence = Fence::new(Box::new(|| Ok(())));
        let request = fenced(&client, &url, &provider, &wire, &fence);
        let arrival = endpoint.runtime().block_on(arrive(request, &fence, &provider));
        assert!(matches!(fence.settle(), Crossing::Sent));
        server.join().unwrap();
        arrival
    }

    /// Nothing that the runtime has runs while `meanwhile` does, as when the process is stopped, until `TIMEOUT` is over.
    fn stopped(runtime: &tokio::runtime::Handle, meanwhile: impl FnOnce()) {
        let (stands, is_still) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        runtime.spawn(async move {
            stands.send(()).unwrap();
            wait.recv().unwrap();
        });
        is_still.recv().unwrap();
        meanwhile();
        std::thread::sleep(TIMEOUT + TIMEOUT / 4);
        go.send(()).unwrap();
    }

    #[test]
    fn an_answer_that_came_while_we_were_stopped_is_read() {
        let arrival = exchange(TIMEOUT, |mut stream, runtime| {
            stopped(&runtime, || stream.write_all(format!("{HEAD}body").as_bytes()).unwrap());
        });
        let answer = arrival.unwrap();
        assert_eq!((answer.is_complete, answer.body.as_slice()), (true, &b"body"[..]));
    }

    #[test]
    fn the_rest_of_an_answer_that_came_while_we_were_stopped_is_read() {
        let arrival = exchange(TIMEOUT, |mut stream, runtime| {
            stream.write_all(format!("{HEAD}bo").as_bytes()).unwrap();
            stopped(&runtime, || stream.write_all(b"dy").unwrap());
        });
        let answer = arrival.unwrap();
        assert_eq!((answer.is_complete, answer.body.as_slice()), (true, &b"body"[..]));
    }

    #[test]
    fn an_answer_that_comes_in_drops_is_given_up() {
        let arrival = exchange(Duration::from_millis(1), |mut stream, _| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        assert!(!arrival.unwrap().is_complete);
    }

    #[test]
    fn a_server_that_never_answers_is_given_up() {
        let arrival = exchange(Duration::from_millis(1), |mut stream, _| {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "we hang up");
        });
        assert_eq!(arrival.unwrap_err(), "no answer in time");
    }
}
