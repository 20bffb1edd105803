//! The interface to an authorization server for a sign-in: its endpoints, and requests without a refresh token.

use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use url::Url;
use zeroize::Zeroizing;

use crate::credential::content_coding;
use crate::profile::Provider;
use crate::provider::http::{HttpEndpoint, error_text, joined_header, read_body, with_headers, with_timeout};
use crate::provider::request_encoding;
use crate::provider::request_encoding::AuthServerRequest;
use crate::provider::{PrepareError, PreparedProvider, RawResponse};

/// The endpoints of a sign-in, and the issuer's own name.
#[derive(Clone, Debug, Default)]
pub struct SignInEndpoints {
    /// The issuer, if it is known: the value that `iss` in a redirect must have (RFC 9207).
    pub issuer: Option<String>,
    /// The server promised to send `iss`, so its absence is an attack.
    pub requires_iss: bool,
    pub authorization: Option<Url>,
    /// The authorization endpoint was discovered, so its query was not written by the user.
    pub is_authorization_discovered: bool,
    pub device: Option<Url>,
    /// The scopes that the metadata lists; `None`: nothing was discovered.
    pub supported_scopes: Option<Vec<String>>,
}

/// The side of an authorization server that a person signs in at.
pub trait SignInServer: Send + Sync {
    /// The endpoints: as configured, and otherwise as discovered.
    fn sign_in_endpoints(&self, provider: &Provider) -> Result<SignInEndpoints, PrepareError>;

    /// Sends one request. Blocks until the response is complete, or has failed to come within the provider's timeouts.
    fn request(
        &self,
        prepared: &PreparedProvider,
        url: &Url,
        ask: AuthServerRequest<'_>,
    ) -> Result<RawResponse, String>;
}

impl SignInServer for HttpEndpoint {
    fn sign_in_endpoints(&self, provider: &Provider) -> Result<SignInEndpoints, PrepareError> {
        let mut sites = SignInEndpoints {
            issuer: provider.issuer_name.clone(),
            requires_iss: false,
            authorization: provider.authorization_endpoint.clone(),
            is_authorization_discovered: false,
            device: provider.device_authorization_endpoint.clone(),
            supported_scopes: None,
        };
        let Some(issuer) = &provider.issuer else { return Ok(sites) };
        let metadata = match self.discover(provider, issuer) {
            Ok(metadata) => metadata,
            // The endpoint that is needed most is configured; the others may be missing.
            Err(_) if sites.authorization.is_some() => return Ok(sites),
            Err(why) => return Err(why),
        };
        sites.supported_scopes = Some(metadata.scopes_supported.clone());
        sites.issuer = Some(metadata.issuer.clone());
        sites.requires_iss = metadata.authorization_response_iss_parameter_supported;
        sites.is_authorization_discovered = sites.authorization.is_none();
        sites.authorization =
            sites.authorization.or_else(|| metadata.safe_endpoint(metadata.authorization_endpoint.as_ref()));
        sites.device = sites.device.or_else(|| metadata.safe_endpoint(metadata.device_authorization_endpoint.as_ref()));
        Ok(sites)
    }

    fn request(
        &self,
        prepared: &PreparedProvider,
        url: &Url,
        ask: AuthServerRequest<'_>,
    ) -> Result<RawResponse, String> {
        let provider = &prepared.provider;
        let client = self.client(provider, url).map_err(|f| f.message)?;
        let proof = prepared.authenticate(self.now()).map_err(|f| f.message)?;
        let wire = request_encoding::sign_in_request(provider, &proof, ask);
        let mut request = with_headers(client.post(url.clone()), provider).header(CONTENT_TYPE, wire.content_type);
        if let Some(authorization) = &wire.authorization {
            request = request.header(AUTHORIZATION, authorization.as_str());
        }
        let request = request.body(wire.body.to_vec()).send();
        let exchange = async {
            let response = request.await.map_err(|e| error_text(&e))?;
            let mut answer = RawResponse { status: response.status().as_u16(), ..RawResponse::empty() };
            let mut body = Zeroizing::new(Vec::new());
            let named = joined_header(response.headers(), CONTENT_ENCODING);
            read_body(response, &mut body).await?;
            let unpacked =
                content_coding::decode(named.as_deref(), &body).map_err(|_| "the response is too large".to_owned())?;
            answer.body = unpacked.bytes;
            answer.is_complete = true;
            answer.sent = wire.sent;
            Ok(answer)
        };
        let limit = provider.policy.connect_timeout + provider.policy.timeout;
        self.runtime().block_on(with_timeout(limit, exchange))
    }
}
