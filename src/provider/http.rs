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
use crate::clock::{Clock, Timestamp};
use crate::credential::encoding;
use crate::guard::Held;
use crate::outcome::Failure;
use crate::profile::Provider;

/// Beyond the connect timeout, for a connection that stands but whose body is not asked for.
pub const SLACK: Duration = Duration::from_secs(5);

/// An answer is read however many headers a proxy on the way has added, within hyper's bound of some 400 KiB.
const MOST_HEADERS: usize = 8192;

/// Token endpoints reached by reqwest, on a small runtime of its own.
pub struct HttpEndpoint {
    runtime: Background,
    clients: Mutex<HashMap<ClientKey, reqwest::Client>>,
    secrets: SecretReader,
    clock: Arc<dyn Clock>,
    metadata: PathBuf,
}

/// What two providers must share to share a client; connections are never shared.
type ClientKey = (Option<PathBuf>, Duration, bool);

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

    pub(super) fn client(&self, provider: &Provider, url: &Url) -> Result<reqwest::Client, Failure> {
        let key = (provider.ca_file.clone(), provider.policy.connect_timeout, is_loopback(url));
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = build(&key)?;
        clients.insert(key, client.clone());
        Ok(client)
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
            tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err("no answer in time".into()))
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
    };
    tokio::pin!(overdue);
    let response = tokio::select! {
        response = request.send() => response,
        () = &mut overdue => { fence.shut(); return Err("no answer in time".into()) }
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
        read = read_body(response, &mut answer.body) => read.is_ok(),
        () = &mut overdue => false,
    };
    Ok(answer)
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
fn build((ca_file, connect_timeout, is_loopback): &ClientKey) -> Result<reqwest::Client, Failure> {
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
    if *is_loopback {
        builder = builder.no_proxy();
    }
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).map_err(|e| unusable(path, &e.to_string()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| unusable(path, &e.to_string()))?;
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
