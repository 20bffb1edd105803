//! The token request (RFC 6749 §6) as bytes: body, headers, client authentication. (pure)

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::credential::secret::RefreshToken;
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
    let mut members = vec![("grant_type", "refresh_token"), ("refresh_token", token.expose())];
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
