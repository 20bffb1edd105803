//! Requests to the token endpoint (RFC 6749 §§4.1.3 and 6, RFC 8628) as bytes: body, headers, client authentication. (pure)

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::credential::secret::{AccessToken, OneTime, RefreshToken};
use crate::profile::{BodyForm, ClientAuth, Provider};

/// A request, ready for the fence.
pub struct TokenRequest {
    pub content_type: &'static str,
    /// The value of `Authorization`, for `client_secret_basic`.
    pub authorization: Option<Zeroizing<String>>,
    pub body: Zeroizing<Vec<u8>>,
}

/// The request that spends `token` at `provider`.
pub fn refresh_request(provider: &Provider, secret: Option<&str>, token: &RefreshToken) -> TokenRequest {
    let members = vec![("grant_type", "refresh_token"), ("refresh_token", token.expose())];
    authenticated(provider, secret, members)
}

/// The request that revokes `token` at `provider` (RFC 7009 §2.1).
pub fn revocation_request(provider: &Provider, secret: Option<&str>, token: &RefreshToken) -> TokenRequest {
    authenticated(provider, secret, vec![("token", token.expose()), ("token_type_hint", "refresh_token")])
}

/// What a sign-in or a logout asks of a server. None of it carries a refresh token: those go through a lease.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// The token endpoint: an authorization code for tokens (RFC 6749 §4.1.3, RFC 7636 §4.5).
    Code { code: &'a OneTime, verifier: &'a OneTime, redirect_uri: &'a str, state: &'a str },
    /// The device authorization endpoint: a code for a person (RFC 8628 §3.1).
    Device,
    /// The token endpoint: whether the person is done (RFC 8628 §3.4).
    Poll { device_code: &'a OneTime },
    /// The revocation endpoint: that an access token end now (RFC 7009 §2.1).
    Revoke { access: &'a AccessToken },
}

/// The request that asks `ask` of `provider`.
pub fn sign_in_request(provider: &Provider, secret: Option<&str>, ask: Ask<'_>) -> TokenRequest {
    let scope = provider.scopes.join(" ");
    let mut members = Vec::new();
    match ask {
        Ask::Code { code, verifier, redirect_uri, state } => {
            members.push(("grant_type", "authorization_code"));
            members.push(("code", code.expose()));
            members.push(("redirect_uri", redirect_uri));
            members.push(("code_verifier", verifier.expose()));
            if provider.body == BodyForm::Json {
                // Who departs from the form wants the state again; RFC 6749 §3.2 lets all others ignore it.
                members.push(("state", state));
            }
        }
        Ask::Device if scope.is_empty() => {}
        Ask::Device => members.push(("scope", &scope)),
        Ask::Poll { device_code } => {
            members.push(("grant_type", "urn:ietf:params:oauth:grant-type:device_code"));
            members.push(("device_code", device_code.expose()));
        }
        Ask::Revoke { access } => {
            members.push(("token", access.expose()));
            members.push(("token_type_hint", "access_token"));
        }
    }
    authenticated(provider, secret, members)
}

fn authenticated<'a>(
    provider: &'a Provider,
    secret: Option<&'a str>,
    mut members: Vec<(&'a str, &'a str)>,
) -> TokenRequest {
    let secret = secret.unwrap_or_default();
    let mut authorization = None;
    match provider.client_auth {
        ClientAuth::None | ClientAuth::PrivateKeyJwt => members.push(("client_id", &provider.client_id)),
        ClientAuth::ClientSecretPost => {
            members.push(("client_id", &provider.client_id));
            members.push(("client_secret", secret));
        }
        ClientAuth::ClientSecretBasic => authorization = Some(basic(&provider.client_id, secret)),
    }
    let (content_type, body) = match provider.body {
        BodyForm::Form => ("application/x-www-form-urlencoded", form(&members)),
        BodyForm::Json => ("application/json", json(&members)),
    };
    TokenRequest { content_type, authorization, body }
}

/// RFC 6749 §2.3.1: id and secret are form-encoded first, and only then joined and written in base64.
fn basic(id: &str, secret: &str) -> Zeroizing<String> {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encode(id), encode(secret)));
    Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
}

fn form(members: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(members).finish();
    Zeroizing::new(text.into_bytes())
}

fn json(members: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let object: serde_json::Map<_, _> = members.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    Zeroizing::new(serde_json::Value::Object(object).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Policy;
    use std::time::Duration;

    fn provider(client_auth: ClientAuth, body: BodyForm) -> Provider {
        Provider {
            name: "acme".into(),
            issuer: None,
            authorization_endpoint: None,
            token_endpoint: None,
            device_authorization_endpoint: None,
            revocation_endpoint: None,
            redirect_uri: None,
            client_id: "conf:odd id".into(),
            client_auth,
            client_secret: None,
            scopes: vec![],
            policy: Policy::default(),
            headers: vec![],
            body,
            ca_file: None,
            margin: None,
            default_lifetime: Duration::from_secs(3600),
            concurrency: 8,
            source: String::new(),
        }
    }

    fn body(r: &TokenRequest) -> &str {
        std::str::from_utf8(&r.body).unwrap()
    }

    #[test]
    fn a_public_client_names_itself_in_the_form() {
        let token = RefreshToken::new("a+b/c=&d").unwrap();
        let r = refresh_request(&provider(ClientAuth::None, BodyForm::Form), None, &token);
        assert_eq!(body(&r), "grant_type=refresh_token&refresh_token=a%2Bb%2Fc%3D%26d&client_id=conf%3Aodd+id");
        assert!(r.authorization.is_none());
    }

    #[test]
    fn basic_authentication_form_encodes_before_base64() {
        let token = RefreshToken::new("r").unwrap();
        let provider = provider(ClientAuth::ClientSecretBasic, BodyForm::Form);
        let r = refresh_request(&provider, Some("a+b/c=d%2B:e&f?g h"), &token);
        let sent = r.authorization.clone().unwrap();
        let pair = STANDARD.decode(sent.strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(String::from_utf8(pair).unwrap(), "conf%3Aodd+id:a%2Bb%2Fc%3Dd%252B%3Ae%26f%3Fg+h");
        assert_eq!(body(&r), "grant_type=refresh_token&refresh_token=r");
    }

    #[test]
    fn a_secret_goes_into_the_body_only_for_post() {
        let token = RefreshToken::new("r").unwrap();
        let r = refresh_request(&provider(ClientAuth::ClientSecretPost, BodyForm::Form), Some("s e"), &token);
        assert_eq!(body(&r), "grant_type=refresh_token&refresh_token=r&client_id=conf%3Aodd+id&client_secret=s+e");
    }

    #[test]
    fn a_sign_in_sends_what_its_rfc_says() {
        let secret = |text: &str| OneTime::new(text).unwrap();
        let mut public = provider(ClientAuth::None, BodyForm::Form);
        public.scopes = vec!["openid".into(), "a:b".into()];
        assert_eq!(body(&sign_in_request(&public, None, Ask::Device)), "scope=openid+a%3Ab&client_id=conf%3Aodd+id");
        let poll = Ask::Poll { device_code: &secret("d") };
        let sent = sign_in_request(&public, None, poll);
        let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
        assert_eq!(body(&sent), format!("{grant}&device_code=d&client_id=conf%3Aodd+id"));
        let (code, verifier) = (secret("c&"), secret("v"));
        let ask = Ask::Code { code: &code, verifier: &verifier, redirect_uri: "http://127.0.0.1:5/x", state: "s" };
        let sent = sign_in_request(&provider(ClientAuth::ClientSecretBasic, BodyForm::Form), Some("s"), ask);
        assert!(sent.authorization.is_some());
        let redirect = "redirect_uri=http%3A%2F%2F127.0.0.1%3A5%2Fx";
        assert_eq!(body(&sent), format!("grant_type=authorization_code&code=c%26&{redirect}&code_verifier=v"));
        let sent = sign_in_request(&provider(ClientAuth::None, BodyForm::Json), None, ask);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&sent.body).unwrap()["state"], "s");
    }

    #[test]
    fn a_revocation_says_what_it_revokes_and_authenticates_as_a_refresh_does() {
        let (token, access) = (RefreshToken::new("r&").unwrap(), AccessToken::new("a").unwrap());
        let r = revocation_request(&provider(ClientAuth::None, BodyForm::Form), None, &token);
        assert_eq!(body(&r), "token=r%26&token_type_hint=refresh_token&client_id=conf%3Aodd+id");
        let confidential = provider(ClientAuth::ClientSecretBasic, BodyForm::Form);
        let r = sign_in_request(&confidential, Some("s"), Ask::Revoke { access: &access });
        assert_eq!(body(&r), "token=a&token_type_hint=access_token");
        assert!(r.authorization.is_some());
    }

    #[test]
    fn a_json_body_has_the_same_members() {
        let token = RefreshToken::new("r\"x").unwrap();
        let r = refresh_request(&provider(ClientAuth::None, BodyForm::Json), None, &token);
        let v: serde_json::Value = serde_json::from_slice(&r.body).unwrap();
        assert_eq!(
            v,
            serde_json::json!({"grant_type":"refresh_token","refresh_token":"r\"x","client_id":"conf:odd id"})
        );
        assert_eq!(r.content_type, "application/json");
    }
}
