//! What a sign-in needs of an authorization server: where its endpoints are, and requests without a refresh token.

use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use url::Url;
use zeroize::Zeroizing;

use super::http::{HttpEndpoint, bounded, describe, dressed, lines, read_body};
use super::wire::{self, Ask};
use super::{PrepareError, Prepared, RawAnswer};
use crate::credential::encoding;
use crate::profile::Provider;

/// The endpoints of a sign-in, and how the server names itself.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// The issuer, if it is known: what `iss` in a redirect must say (RFC 9207).
    pub issuer: Option<String>,
    /// The server promised to send `iss`, so its absence is an attack.
    pub is_iss_promised: bool,
    pub authorization: Option<Url>,
    /// The authorization endpoint was discovered, so no person has written a query for it.
    pub is_discovered: bool,
    pub device: Option<Url>,
}

/// The side of an authorization server that a person signs in at.
pub trait SignInServer: Send + Sync {
    /// Where to sign in: as configured, and for the rest as discovered.
    fn sites(&self, provider: &Provider) -> Result<Sites, PrepareError>;

    /// Asks once. Blocks until the answer is complete, or has failed to come within the provider's timeouts.
    fn ask(&self, prepared: &Prepared, url: &Url, ask: Ask<'_>) -> Result<RawAnswer, String>;
}

impl SignInServer for HttpEndpoint {
    fn sites(&self, provider: &Provider) -> Result<Sites, PrepareError> {
        let mut sites = Sites {
            issuer: provider.issuer.as_ref().map(|i| i.as_str().to_owned()),
            is_iss_promised: false,
            authorization: provider.authorization_endpoint.clone(),
            is_discovered: false,
            device: provider.device_authorization_endpoint.clone(),
        };
        let Some(issuer) = &provider.issuer else { return Ok(sites) };
        let metadata = match self.discover(provider, issuer) {
            Ok(metadata) => metadata,
            // Somebody wrote down what is needed most; then the rest can be missing.
            Err(_) if sites.authorization.is_some() => return Ok(sites),
            Err(why) => return Err(why),
        };
        sites.is_iss_promised = metadata.authorization_response_iss_parameter_supported;
        sites.is_discovered = sites.authorization.is_none();
        sites.authorization = sites.authorization.or_else(|| metadata.safe(metadata.authorization_endpoint.as_ref()));
        sites.device = sites.device.or_else(|| metadata.safe(metadata.device_authorization_endpoint.as_ref()));
        Ok(sites)
    }

    fn ask(&self, prepared: &Prepared, url: &Url, ask: Ask<'_>) -> Result<RawAnswer, String> {
        let provider = &prepared.provider;
        let client = self.client(provider, url).map_err(|f| f.message)?;
        let proof = prepared.prove(self.now()).map_err(|f| f.message)?;
        let wire = wire::sign_in_request(provider, &proof, ask);
        let mut request = dressed(client.post(url.clone()), provider).header(CONTENT_TYPE, wire.content_type);
        if let Some(authorization) = &wire.authorization {
            request = request.header(AUTHORIZATION, authorization.as_str());
        }
        let request = request.body(wire.body.to_vec()).send();
        let exchange = async {
            let response = request.await.map_err(|e| describe(&e))?;
            let mut answer = RawAnswer { status: response.status().as_u16(), ..RawAnswer::nothing() };
            let mut body = Zeroizing::new(Vec::new());
            let named = lines(response.headers(), CONTENT_ENCODING);
            read_body(response, &mut body).await?;
            let unpacked =
                encoding::decode(named.as_deref(), &body).map_err(|_| "the response is too large".to_owned())?;
            answer.body = unpacked.bytes;
            answer.is_complete = true;
            Ok(answer)
        };
        let limit = provider.policy.connect_timeout + provider.policy.timeout;
        self.runtime().block_on(bounded(limit, exchange))
    }
}
