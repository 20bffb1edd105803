//! How a client proves who it is: with nothing, with a secret (RFC 6749 §2.3.1), or with an assertion made for one request.

use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::outcome::{ErrorKind, Failure};
use crate::profile::{Audience, ClientAuth, Provider, SecretSource};
use crate::provider::client_assertion::{AssertionClaims, ClientKey};

/// Reads a secret from where the user keeps it; the second argument names the profile for which that is done.
pub type SecretReader = Box<dyn Fn(&SecretSource, &str) -> Result<Zeroizing<String>, String> + Send + Sync>;

/// What a [`SecretReader`] says of a place that has an empty secret.
pub const EMPTY_SECRET: &str = "it is empty";

/// The secrets that a client authenticates with.
#[derive(Clone)]
pub enum ClientCredentials {
    Public,
    Secret(Zeroizing<String>),
    Key(Arc<ClientKey>),
}

/// The client authentication of one request.
pub enum ClientAuthentication {
    /// The client's name alone.
    None,
    /// `client_secret_basic`.
    Basic(Zeroizing<String>),
    /// `client_secret_basic_raw`.
    RawBasic(Zeroizing<String>),
    /// `client_secret_post`.
    Post(Zeroizing<String>),
    /// `private_key_jwt`.
    Assertion(Zeroizing<String>),
}

impl ClientCredentials {
    /// Reads what `client_auth` asks for, and makes sure that it can be used.
    pub fn load(provider: &Provider, secrets: &SecretReader, within: &str) -> Result<Self, Failure> {
        let read = || read_with(provider, |source| secrets(source, within));
        match provider.client_auth {
            ClientAuth::None => Ok(Self::Public),
            ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretBasicRaw | ClientAuth::ClientSecretPost => {
                read().map(Self::Secret)
            }
            ClientAuth::PrivateKeyJwt => {
                let pem = read()?;
                let section = format!("[provider.{}]", provider.name);
                let key = ClientKey::from_pem(&pem, provider.client_key_id.clone()).map_err(|bad| {
                    let message = format!("client_key in {section} cannot be used to sign: {bad}");
                    Failure::new(ErrorKind::ClientKey, message).with_hint(bad.hint())
                })?;
                Ok(Self::Key(Arc::new(key)))
            }
        }
    }

    /// Whether what `client_auth` asks for is there, by `look`, which reads no secret.
    pub fn look_for(provider: &Provider, look: impl Fn(&SecretSource) -> Result<(), String>) -> Result<(), Failure> {
        if provider.client_auth == ClientAuth::None { Ok(()) } else { read_with(provider, look) }
    }

    /// The client authentication for one request that is made `now`.
    pub fn authenticate(
        &self,
        provider: &Provider,
        audience: &str,
        now: Timestamp,
    ) -> Result<ClientAuthentication, Failure> {
        let key = match (self, provider.client_auth) {
            (Self::Public, _) => return Ok(ClientAuthentication::None),
            (Self::Secret(secret), ClientAuth::ClientSecretBasic) => {
                return Ok(ClientAuthentication::Basic(secret.clone()));
            }
            (Self::Secret(secret), ClientAuth::ClientSecretBasicRaw) => {
                return Ok(ClientAuthentication::RawBasic(secret.clone()));
            }
            (Self::Secret(secret), _) => return Ok(ClientAuthentication::Post(secret.clone())),
            (Self::Key(key), _) => key,
        };
        let mut jti = [0; 16];
        let assertion = SystemRandom::new()
            .fill(&mut jti)
            .and_then(|()| key.assertion(&AssertionClaims { client_id: &provider.client_id, audience, now, jti }));
        // Only a system without random numbers cannot sign with a key that was tried when it was read.
        assertion
            .map(ClientAuthentication::Assertion)
            .map_err(|_| Failure::new(ErrorKind::ClientKey, "cannot sign the client assertion"))
    }

    /// For a keyed hash of the client's settings, and nothing else.
    pub(super) fn fingerprint_input(&self) -> &[u8] {
        match self {
            Self::Public => &[],
            Self::Secret(secret) => secret.as_bytes(),
            Self::Key(key) => key.fingerprint_input(),
        }
    }
}

/// Reads, in the way of `read`, the one secret that the client authenticates with.
fn read_with<T>(provider: &Provider, read: impl Fn(&SecretSource) -> Result<T, String>) -> Result<T, Failure> {
    let (kind, what, source) = match provider.client_auth {
        ClientAuth::PrivateKeyJwt => (ErrorKind::ClientKey, "client's private key", &provider.client_key),
        _ => (ErrorKind::ClientSecret, "client secret", &provider.client_secret),
    };
    let (section, key) = (format!("[provider.{}]", provider.name), kind.word().to_owned());
    let lacks = || Err(format!("{section} has no {key}"));
    source.as_ref().map_or_else(lacks, read).map_err(|why| {
        let is_empty_secret = kind == ErrorKind::ClientSecret && why == EMPTY_SECRET;
        let or = if is_empty_secret { "; if the client has an empty secret: client_secret = \"\"" } else { "" };
        Failure::new(kind, format!("cannot read the {what} of {}: {why}", provider.name))
            .with_hint(format!("check {key} in {section}{or}"))
    })
}

/// The `aud` claim of an assertion for `provider`.
pub fn assertion_audience<'a>(provider: &'a Provider, issuer: Option<&'a str>, token_endpoint: &'a str) -> &'a str {
    match &provider.assertion_audience {
        Audience::Issuer => issuer.unwrap_or(token_endpoint),
        Audience::TokenEndpoint => token_endpoint,
        Audience::Other(text) => text,
    }
}
