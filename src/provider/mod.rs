//! The interface to an authorization server's token endpoint: what a refresh needs of it, and how an exchange can end.

pub mod classify;
pub mod client_assertion;
pub mod client_auth;
mod client_words;
mod condition_words;
pub mod discovery;
pub mod http;
pub mod probe;
mod proxy;
mod refusal_codes;
pub mod request_encoding;
mod resolver;
pub mod response_body;
pub mod revocation;
pub mod send_gate;
mod send_token;
pub mod sign_in_server;
mod tls;

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use url::Url;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::credential::Binding;
use crate::credential::redaction::SentSecrets;
use crate::credential::secret::RefreshToken;
use crate::guard::{LockedCredential, SpentCredential};
use crate::outcome::{Failure, Outcome, OutcomeKind};
use crate::profile::{ClientAuth, Provider};
use crate::provider::client_auth::{ClientAuthentication, ClientCredentials};
pub use crate::provider::send_gate::{BeforeSend, BeforeSendError};

/// The refresh request (RFC 6749 §6) at one authorization server.
pub trait TokenEndpoint: Send + Sync {
    /// Resolves all that a refresh needs besides the credential: endpoint, client secret or key. It may run commands
    /// and use the network, so it comes before any lock.
    fn prepare(&self, provider: &Arc<Provider>, within: &str) -> Result<PreparedProvider, PrepareError>;

    /// Spends a refresh token, once. `gate` runs after the connection stands and before the first byte of the body.
    ///
    /// Blocks until the response is complete, or has failed to come within the provider's `timeout`. It never retries,
    /// follows no redirect, and uses a connection of its own.
    fn exchange<'l>(
        &self,
        prepared: &PreparedProvider,
        held: LockedCredential<'l>,
        gate: BeforeSend,
    ) -> ExchangeResult<'l>;
}

/// A provider with everything resolved.
#[derive(Clone)]
pub struct PreparedProvider {
    pub provider: Arc<Provider>,
    pub token_endpoint: Url,
    /// The issuer's own name, if it is known.
    pub issuer: Option<String>,
    pub credentials: ClientCredentials,
}

impl std::fmt::Debug for PreparedProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prepared({} at {})", self.provider.name, self.token_endpoint)
    }
}

impl PreparedProvider {
    /// The server and the client that a credential obtained here belongs to.
    pub fn binding(&self) -> Binding {
        Binding {
            provider: self.provider.name.clone(),
            origin: self.token_endpoint.origin().ascii_serialization(),
            client_id: self.provider.client_id.clone(),
        }
    }

    /// The client authentication for one request that is made `now`. Each request needs one of its own.
    pub fn authenticate(&self, now: Timestamp) -> Result<ClientAuthentication, Failure> {
        let audience =
            client_auth::assertion_audience(&self.provider, self.issuer.as_deref(), self.token_endpoint.as_str());
        self.credentials.authenticate(&self.provider, audience, now)
    }

    /// A further hint where the server refuses the client: that it may not decode what was encoded for it.
    pub fn encoding_hint(&self) -> &'static str {
        let ClientCredentials::Secret(secret) = &self.credentials else { return "" };
        let is_changed =
            [self.provider.client_id.as_str(), secret].iter().any(|t| request_encoding::is_changed_by_encoding(t));
        match self.provider.client_auth {
            ClientAuth::ClientSecretBasic if is_changed => {
                "; client_id or secret has characters that client_secret_basic encodes (RFC 6749): a server that does not \
                 decode them needs client_auth = \"client_secret_basic_raw\""
            }
            _ => "",
        }
    }

    /// What a server judges the client by, in bytes that stay the same from build to build: if any of it changes, a
    /// refused client may be tried again. Holds the client secret, so it is for a keyed hash and nothing else.
    pub fn client_bytes(&self) -> Zeroizing<Vec<u8>> {
        let p = &self.provider;
        let settings = Zeroizing::new(
            serde_json::json!([
                self.token_endpoint,
                p.client_id,
                p.client_auth,
                p.client_key_id,
                p.assertion_audience,
                p.body,
                p.headers,
                p.parameters,
            ])
            .to_string(),
        );
        let secret = self.credentials.fingerprint_input();
        let length = (settings.len() as u64).to_le_bytes();
        Zeroizing::new([length.as_slice(), settings.as_bytes(), secret].concat())
    }
}

/// Why a refresh could not even be prepared. Nothing was sent.
#[derive(Debug)]
pub enum PrepareError {
    /// The configuration must change.
    Config(Failure),
    /// The network failed, or the discovery document could not be fetched.
    Unreachable(Failure),
}

impl From<PrepareError> for Outcome {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Config(failure) => Self::new(OutcomeKind::ConfigError).with_error(failure),
            PrepareError::Unreachable(failure) => Self::new(OutcomeKind::Deferred).with_error(failure),
        }
    }
}

/// How an exchange ended.
#[derive(Debug)]
pub enum ExchangeResult<'l> {
    /// The token was certainly not sent; it is returned here. `may_have_intent`: an intent may be in the journal and
    /// must be erased. The response, if any, came before the server could have read the token.
    NotSent { held: LockedCredential<'l>, may_have_intent: bool, why: NotSentReason, answer: Option<RawResponse> },
    /// The server responded.
    Responded { sent: RefreshToken, predecessor: SpentCredential<'l>, answer: RawResponse },
    /// The token was sent, and no complete response came.
    ResponseLost { sent: RefreshToken, predecessor: SpentCredential<'l>, partial: Option<RawResponse>, why: String },
}

/// Why nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSentReason {
    /// The connection failed.
    Network(String),
    /// The server responded, or closed the connection, before it had the token.
    EarlyResponse(String),
    /// The gate refused.
    BeforeSend(BeforeSendError),
}

/// A response as bytes.
#[derive(Clone)]
pub struct RawResponse {
    pub status: u16,
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    pub retry_after: Option<String>,
    /// Where a redirect points. None is followed.
    pub location: Option<String>,
    pub body: Zeroizing<Vec<u8>>,
    /// The body ended as announced, within the cap.
    pub is_complete: bool,
    /// What the request carried, and no text of this response may show.
    pub sent: SentSecrets,
}

impl RawResponse {
    /// The host that a redirect points to, or the words that it names none.
    pub fn redirect_host(&self) -> Option<String> {
        if !(300..400).contains(&self.status) {
            return None;
        }
        let host = self.location.as_ref().and_then(|text| Some(url::Url::parse(text).ok()?.host_str()?.to_owned()));
        Some(host.map_or("another path".into(), |host| self.sent.printable(&host)))
    }

    /// The value for a response whose head did not arrive.
    pub fn empty() -> Self {
        Self {
            status: 0,
            content_type: None,
            content_encoding: None,
            retry_after: None,
            location: None,
            body: Zeroizing::new(Vec::new()),
            is_complete: false,
            sent: SentSecrets::default(),
        }
    }
}

impl std::fmt::Debug for RawResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawAnswer({}, {} bytes)", self.status, self.body.len())
    }
}

/// The instant that a header names in any of the three forms of HTTP (RFC 9110 §5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::from_secs(i64::try_from(since.as_secs()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hold outlives an upgrade only if these bytes do.
    #[test]
    fn client_bytes_stay_the_same_from_build_to_build() {
        let mut provider = Provider::named("acme");
        provider.client_id = "me".into();
        provider.headers = vec![("X-Tenant".into(), "7".into())];
        let prepared = PreparedProvider {
            provider: Arc::new(provider),
            token_endpoint: Url::parse("https://acme.example/token").expect("an URL"),
            issuer: None,
            credentials: ClientCredentials::Secret("4711".to_owned().into()),
        };
        let settings = r#"["https://acme.example/token","me","none",null,"issuer","form",[["X-Tenant","7"]],[]]"#;
        assert_eq!(prepared.client_bytes()[..8], (settings.len() as u64).to_le_bytes());
        assert_eq!(prepared.client_bytes()[8..], *format!("{settings}4711").as_bytes());
    }
}
