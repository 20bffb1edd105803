//! The token endpoint over HTTP: one request on one fresh connection, whose body is the send gate.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::{Host, Url};
use zeroize::Zeroizing;

use super::discovery::{self, IssuerPolicy, Metadata, MetadataResponse};
use super::resolver::ThreadResolver;
use super::{BeforeSend, ExchangeResult, PrepareError, PreparedProvider, RawResponse, TokenEndpoint};
use crate::clock::{Clock, Moment, Timestamp};
use crate::credential::content_coding;
use crate::credential::redaction::SentSecrets;
use crate::events;
use crate::guard::LockedCredential;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::Provider;
use crate::provider::client_auth::{ClientCredentials, SecretReader};
use crate::provider::request_encoding;
use crate::provider::response_body::body_of_challenge;
use crate::provider::send_gate::SendGate;
use crate::provider::{proxy, tls};
use crate::sys::background::BackgroundRuntime;
use crate::sys::durable;

/// The time, beyond the connect timeout, for a connection that stands but whose body has not been asked for.
pub const CONNECT_SLACK: Duration = Duration::from_secs(5);

/// How long the endpoints of an issuer are looked for, in all; less if a request for a token has less.
const METADATA_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a response that has already arrived is still read after the time limit. A stopped run, or a machine that
/// slept, finds its time up before it finds the response that lies in the socket.
pub const LATE_READ_TIME: Duration = Duration::from_secs(1);
/// The late read goes in steps, so that being stopped once more costs one step and not the rest.
const LATE_READ_STEPS: u32 = 10;

/// A response is read however many headers a proxy has added, within hyper's bound of some 400 KiB.
const MAX_HEADERS: usize = 8192;

/// Token endpoints reached by reqwest, on a small runtime of its own.
pub struct HttpEndpoint {
    runtime: BackgroundRuntime,
    clients: Mutex<HashMap<ClientCacheKey, CachedClient>>,
    secrets: SecretReader,
    clock: Arc<dyn Clock>,
    metadata_dir: PathBuf,
}

/// What two providers must share to share a client; connections are never shared.
type ClientCacheKey = (Option<PathBuf>, Duration, bool);

/// A client, and the content of the `ca_file` that it was made with.
struct CachedClient {
    client: reqwest::Client,
    ca_pem: Option<Vec<u8>>,
    built_at: Moment,
}

/// A client is rebuilt after this time, with the roots that the system trusts by then.
const MAX_CLIENT_AGE: Duration = Duration::from_secs(3600);

impl std::fmt::Debug for HttpEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpEndpoint")
    }
}

impl HttpEndpoint {
    /// `metadata` is the directory where discovered metadata is kept.
    pub fn new(secrets: SecretReader, clock: Arc<dyn Clock>, metadata: &Path) -> std::io::Result<Self> {
        Ok(Self {
            runtime: BackgroundRuntime::start("http")?,
            clients: Mutex::default(),
            secrets,
            clock,
            metadata_dir: metadata.to_owned(),
        })
    }

    /// The runtime of the exchanges, for code that must wait for signals or sockets beside them.
    pub fn runtime(&self) -> &tokio::runtime::Runtime {
        &self.runtime
    }

    /// A client for `provider`, with its `ca_file` as it is now. If that file cannot be used any more, the previous
    /// client stays in use, as a broken configuration leaves the previous one in force.
    pub(super) fn client(&self, provider: &Provider, url: &Url) -> Result<reqwest::Client, Failure> {
        if !is_loopback(url) {
            proxy::for_url(url)?;
        }
        let key = (provider.ca_file.clone(), provider.policy.connect_timeout, is_loopback(url));
        let read = |path: &PathBuf| durable::read_foreign(path).map_err(|e| ca_file_error(path, &e.to_string()));
        let authorities = provider.ca_file.as_ref().map(read).transpose();
        let now = self.clock.now();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = clients.get(&key);
        let is_good =
            |k: &&CachedClient| Ok(&k.ca_pem) == authorities.as_ref() && now.time_since(&k.built_at) < MAX_CLIENT_AGE;
        if let Some(kept) = kept.filter(is_good) {
            return Ok(kept.client.clone());
        }
        let made = authorities.and_then(|pem| build_client(&key, pem.as_deref()).map(|client| (client, pem)));
        match (made, kept) {
            (Ok((client, authorities)), _) => {
                clients.insert(key, CachedClient { client: client.clone(), ca_pem: authorities, built_at: now });
                Ok(client)
            }
            (Err(failure), Some(kept)) => {
                let hint = failure.hint.as_deref();
                tracing::warn!(
                    event = "provider.warning",
                    hint,
                    "{}; still using its previous content",
                    failure.message
                );
                Ok(kept.client.clone())
            }
            (Err(failure), None) => Err(failure),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now().wall
    }

    /// The token endpoint, and the issuer's own name if it is known.
    fn endpoint(&self, provider: &Provider) -> Result<(Url, Option<String>), PrepareError> {
        if let Some(url) = &provider.token_endpoint {
            // The URL parser adds a trailing slash; few issuers without a path have one in their name.
            let issuer = provider.issuer.as_ref().map(|issuer| match issuer.path() {
                "/" => issuer.as_str().trim_end_matches('/').to_owned(),
                _ => issuer.as_str().to_owned(),
            });
            return Ok((url.clone(), issuer));
        }
        let Some(issuer) = &provider.issuer else {
            return Err(PrepareError::Config(
                Failure::new(ErrorKind::Config, format!("provider {} has no token endpoint", provider.name))
                    .with_hint(format!("set issuer or token_endpoint in [provider.{}]", provider.name)),
            ));
        };
        self.discover(provider, issuer).map(|m| (m.token_endpoint, Some(m.issuer)))
    }

    pub(super) fn discover(&self, provider: &Provider, issuer: &Url) -> Result<Metadata, PrepareError> {
        let fetch = |url: Url| self.fetch_metadata(provider, url);
        let sent = request_encoding::secret_headers(provider);
        let whom = IssuerPolicy { issuer, endpoint_domain: provider.endpoint_domain.as_deref(), sent: &sent };
        discovery::load_metadata(whom, &self.metadata_dir, self.now(), &fetch)
    }

    /// A plain GET for metadata, with the same cap as a token request. There are two documents to try, and each has half of
    /// the time.
    pub(super) fn fetch_metadata(&self, provider: &Provider, url: Url) -> Result<MetadataResponse, String> {
        events::provider_step(&provider.name, "requesting the metadata of the server");
        let client = self.client(provider, &url).map_err(|f| f.message)?;
        let limit = (provider.policy.connect_timeout + provider.policy.timeout).min(METADATA_TIMEOUT) / 2;
        self.runtime.block_on(async {
            let request = with_headers(client.get(url), provider).send();
            let exchange = async {
                let response = request.await.map_err(|e| error_text(&e))?;
                let status = response.status().as_u16();
                let mut body = Zeroizing::new(Vec::new());
                let named = joined_header(response.headers(), CONTENT_ENCODING);
                let fresh_for = discovery::max_age(joined_header(response.headers(), CACHE_CONTROL).as_deref());
                read_body(response, &mut body).await?;
                let unpacked = content_coding::decode(named.as_deref(), &body)
                    .map_err(|_| "the response is too large".to_owned())?;
                Ok(MetadataResponse { status, body: unpacked.bytes.to_vec(), max_age: fresh_for })
            };
            with_timeout(limit, exchange).await
        })
    }
}

impl TokenEndpoint for HttpEndpoint {
    fn prepare(&self, provider: &Arc<Provider>, within: &str) -> Result<PreparedProvider, PrepareError> {
        events::provider_step(&provider.name, "preparing the request: client credentials and endpoints");
        let identity = ClientCredentials::load(provider, &self.secrets, within).map_err(PrepareError::Config)?;
        // A `ca_file` that cannot be used is found here, and not while the lock is held.
        if let Some(url) = provider.token_endpoint.as_ref().or(provider.issuer.as_ref()) {
            self.client(provider, url).map_err(PrepareError::Config)?;
        }
        let (token_endpoint, issuer) = self.endpoint(provider)?;
        Ok(PreparedProvider { provider: Arc::clone(provider), token_endpoint, issuer, credentials: identity })
    }

    fn exchange<'l>(
        &self,
        prepared: &PreparedProvider,
        held: LockedCredential<'l>,
        gate: BeforeSend,
    ) -> ExchangeResult<'l> {
        self.send_refresh_token(prepared, &prepared.token_endpoint, held, gate, request_encoding::refresh_request)
    }
}

/// A request with the headers of its provider; those take precedence over ours of the same name.
pub(super) fn with_headers(request: reqwest::RequestBuilder, provider: &Provider) -> reqwest::RequestBuilder {
    let extra = provider.headers.iter().filter_map(|(name, value)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
    });
    request.header(ACCEPT, "application/json").headers(extra.collect())
}

/// Sends, and reads the response to its end or to the cap. `timeout` runs from the moment the token is let through;
/// until then the connect timeout applies. The gate is closed before the result is looked at.
pub(super) async fn send_and_read(
    request: reqwest::RequestBuilder,
    send_gate: &SendGate,
    provider: &Provider,
) -> Result<RawResponse, String> {
    let overdue = async {
        let connecting = provider.policy.connect_timeout + CONNECT_SLACK;
        if tokio::time::timeout(connecting, send_gate.released()).await.is_err() {
            // The gate may be at work on a slow disk. Closing it settles the outcome either way.
            send_gate.close();
        }
        tokio::time::sleep(provider.policy.timeout).await;
        // Nothing more is let through. What was let through may have been answered.
        send_gate.close();
        read_late().await;
    };
    tokio::pin!(overdue);
    let response = tokio::select! {
        biased;
        response = request.send() => response,
        () = &mut overdue => return Err("no response in time".into()),
    };
    send_gate.close();
    let response = response.map_err(|e| error_text(&e))?;
    let text = |headers: &HeaderMap, name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let mut answer = RawResponse {
        status: response.status().as_u16(),
        content_type: text(response.headers(), CONTENT_TYPE),
        content_encoding: joined_header(response.headers(), CONTENT_ENCODING),
        retry_after: text(response.headers(), RETRY_AFTER),
        location: text(response.headers(), LOCATION),
        body: Zeroizing::new(Vec::new()),
        is_complete: false,
        sent: SentSecrets::default(),
    };
    let challenge = text(response.headers(), WWW_AUTHENTICATE).filter(|_| answer.status == 401);
    answer.is_complete = tokio::select! {
        biased;
        read = read_body(response, &mut answer.body) => read.is_ok(),
        () = &mut overdue => false,
    };
    if let Some(body) = challenge.as_deref().and_then(body_of_challenge).filter(|_| answer.body.is_empty()) {
        answer.body = Zeroizing::new(body);
        answer.content_encoding = None;
    }
    Ok(answer)
}

/// The result of an exchange within `limit`, or of reading on for a moment after that.
pub(super) async fn with_timeout<T>(
    limit: Duration,
    exchange: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    tokio::select! {
        biased;
        done = exchange => done,
        () = async { tokio::time::sleep(limit).await; read_late().await } => Err("no response in time".into()),
    }
}

/// Waits a moment. The connection is a task of its own and must get a turn after the time was found to be up.
async fn read_late() {
    for _ in 0..LATE_READ_STEPS {
        tokio::time::sleep(LATE_READ_TIME / LATE_READ_STEPS).await;
    }
}

/// A header that is a list, which may come in several lines.
pub(super) fn joined_header(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let lines: Vec<_> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

pub(super) async fn read_body(mut response: reqwest::Response, into: &mut Vec<u8>) -> Result<(), String> {
    while let Some(chunk) = response.chunk().await.map_err(|e| error_text(&e))? {
        let room = content_coding::MAX_BODY_BYTES - into.len();
        into.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if chunk.len() > room {
            return Err(format!("the response exceeds {} bytes", content_coding::MAX_BODY_BYTES));
        }
    }
    Ok(())
}

/// A client that makes every request on a connection of its own, follows nothing and repeats nothing.
fn build_client(key: &ClientCacheKey, authorities: Option<&[u8]>) -> Result<reqwest::Client, Failure> {
    let (ca_file, connect_timeout, is_loopback) = key;
    #[expect(clippy::disallowed_methods, reason = "the one place that makes clients")]
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("keepalive/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        // The connection serves one exchange, so a faulty header can confuse nothing and must not cost the response.
        .http1_ignore_invalid_headers_in_responses(true)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_max_headers(MAX_HEADERS)
        .dns_resolver(ThreadResolver)
        .connect_timeout(*connect_timeout);
    #[cfg(target_os = "linux")]
    {
        // `timeout` alone says how long a response is waited for: the kernel must not end the connection before.
        builder = builder.tcp_user_timeout(None);
    }
    if *is_loopback {
        builder = builder.no_proxy();
    } else {
        builder = proxy::unread_by_client().into_iter().fold(builder, reqwest::ClientBuilder::proxy);
    }
    let failed = |why: &str| match ca_file {
        Some(path) => ca_file_error(path, why),
        None => Failure::new(ErrorKind::Tls, format!("cannot set up TLS: {why}")),
    };
    let tls = tls::client_config(authorities).map_err(|why| failed(&why))?;
    builder.tls_backend_preconfigured(tls).build().map_err(|e| failed(&error_text(&e)))
}

/// That the `ca_file` of a provider, if it has one, can be read and has certificates. The roots of the platform, which take
/// long to load, are not.
pub fn check_ca_file(provider: &Provider) -> Result<(), Failure> {
    let Some(path) = &provider.ca_file else { return Ok(()) };
    let pem = durable::read_foreign(path).map_err(|e| ca_file_error(path, &e.to_string()))?;
    tls::certificates(&pem).map(drop).map_err(|why| ca_file_error(path, &why))
}

fn ca_file_error(ca_file: &Path, why: &str) -> Failure {
    let message = format!("cannot use {}: {why}", ca_file.display());
    Failure::new(ErrorKind::CaFile, message).with_hint("ca_file must be a file with certificates in PEM")
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
pub(super) fn error_text(error: &reqwest::Error) -> String {
    let by_proxy = |url: &Url| proxy::for_url(url).ok().flatten().filter(|_| !is_loopback(url));
    let mut text = match error.url().and_then(by_proxy) {
        Some(proxy) if error.is_timeout() => format!("timed out through the proxy {proxy}"),
        Some(proxy) if error.is_connect() => format!("cannot connect through the proxy {proxy}"),
        _ if error.is_timeout() => "timed out".to_owned(),
        _ if error.is_connect() => "cannot connect".to_owned(),
        _ => "the request failed".to_owned(),
    };
    let mut source = std::error::Error::source(error);
    let mut last = String::new();
    while let Some(cause) = source {
        if let Some(refusal) = tls::refusal_text(cause) {
            last = refusal;
            break;
        }
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
    use crate::provider::request_encoding::EncodedRequest;
    use crate::provider::send_gate::{SendOutcome, exchange_ends};
    use crate::provider::send_token::gated_request;

    const TIMEOUT: Duration = Duration::from_secs(2);
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";

    /// One exchange with a server that behaves as `serve` says once it has the token.
    fn exchange<F>(timeout: Duration, serve: F) -> Result<RawResponse, String>
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
        let wire = EncodedRequest {
            content_type: "text/plain",
            authorization: None,
            body: Zeroizing::new(b"the token".to_vec()),
            sent: SentSecrets::default(),
        };
        let send_gate = SendGate::new(Box::new(|| Ok(())));
        let (flight, connection, body) = exchange_ends(&send_gate, bytes::Bytes::copy_from_slice(&wire.body));
        let request = gated_request(&client, &url, &provider, &wire, body);
        let (gate, served) = (Arc::clone(&send_gate), provider);
        let exchange = async move { connection.finish(send_and_read(request, &gate, &served).await) };
        drop(endpoint.runtime().spawn(exchange));
        let response = flight.wait(|| {}).unwrap();
        assert!(matches!(send_gate.close_and_report(), SendOutcome::Sent));
        server.join().unwrap();
        response
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
    fn response_that_arrived_while_stopped_is_read() {
        let response = exchange(TIMEOUT, |mut stream, runtime| {
            stopped(&runtime, || stream.write_all(format!("{HEAD}body").as_bytes()).unwrap());
        });
        let answer = response.unwrap();
        assert_eq!((answer.is_complete, answer.body.as_slice()), (true, &b"body"[..]));
    }

    #[test]
    fn rest_of_a_response_that_arrived_while_stopped_is_read() {
        let response = exchange(TIMEOUT, |mut stream, runtime| {
            stream.write_all(format!("{HEAD}bo").as_bytes()).unwrap();
            stopped(&runtime, || stream.write_all(b"dy").unwrap());
        });
        let answer = response.unwrap();
        assert_eq!((answer.is_complete, answer.body.as_slice()), (true, &b"body"[..]));
    }

    #[test]
    fn response_that_trickles_is_given_up_at_the_timeout() {
        let response = exchange(Duration::from_millis(1), |mut stream, _| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        assert!(!response.unwrap().is_complete);
    }

    #[test]
    fn silent_server_is_given_up_at_the_timeout() {
        let response = exchange(Duration::from_millis(1), |mut stream, _| {
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "we hang up");
        });
        assert_eq!(response.unwrap_err(), "no response in time");
    }
}
