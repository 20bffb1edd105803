//! Requests to the token endpoint (RFC 6749 §§4.1.3 and 6, RFC 8628) as bytes: body, headers, client authentication. (pure)

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::credential::redaction::SentSecrets;
use crate::credential::secret::{AccessToken, OneTimeSecret, RefreshToken};
use crate::profile::{BodyEncoding, Provider};
use crate::provider::client_assertion;
use crate::provider::client_auth::ClientAuthentication;

/// A request, ready for the send gate.
pub struct EncodedRequest {
    pub content_type: &'static str,
    /// The value of `Authorization`, for `client_secret_basic`.
    pub authorization: Option<Zeroizing<String>>,
    pub body: Zeroizing<Vec<u8>>,
    /// What of it no server text may show.
    pub sent: SentSecrets,
}

/// The request that spends `token` at `provider`.
pub fn refresh_request(provider: &Provider, proof: &ClientAuthentication, token: &RefreshToken) -> EncodedRequest {
    let members = vec![("grant_type", "refresh_token"), ("refresh_token", token.expose())];
    authenticated(provider, proof, with_parameters(provider, members))
}

/// The request that revokes `token` at `provider` (RFC 7009 §2.1).
pub fn revocation_request(provider: &Provider, proof: &ClientAuthentication, token: &RefreshToken) -> EncodedRequest {
    authenticated(provider, proof, vec![("token", token.expose()), ("token_type_hint", "refresh_token")])
}

/// The requests of a sign-in or a logout. None of them carries a refresh token: those go through a lease.
#[derive(Clone, Copy, Debug)]
pub enum AuthServerRequest<'a> {
    /// The token endpoint: an authorization code for tokens (RFC 6749 §4.1.3, RFC 7636 §4.5).
    AuthorizationCode { code: &'a OneTimeSecret, verifier: &'a OneTimeSecret, redirect_uri: &'a str, state: &'a str },
    /// The device authorization endpoint: a code for a person (RFC 8628 §3.1).
    DeviceAuthorization,
    /// The token endpoint: has the person finished (RFC 8628 §3.4)?
    DeviceToken { device_code: &'a OneTimeSecret },
    /// The revocation endpoint: end an access token now (RFC 7009 §2.1).
    RevokeAccessToken { access: &'a AccessToken },
}

/// The encoded request for `ask` at `provider`.
pub fn sign_in_request(
    provider: &Provider,
    proof: &ClientAuthentication,
    ask: AuthServerRequest<'_>,
) -> EncodedRequest {
    let scope = provider.scopes.join(" ");
    let mut members = Vec::new();
    match ask {
        AuthServerRequest::AuthorizationCode { code, verifier, redirect_uri, state } => {
            members.push(("grant_type", "authorization_code"));
            members.push(("code", code.expose()));
            members.push(("redirect_uri", redirect_uri));
            members.push(("code_verifier", verifier.expose()));
            if provider.body == BodyEncoding::Json {
                // Some providers depart from the form and want the state again; RFC 6749 §3.2 lets all others ignore
                // it.
                members.push(("state", state));
            }
        }
        AuthServerRequest::DeviceAuthorization if scope.is_empty() => {}
        AuthServerRequest::DeviceAuthorization => members.push(("scope", &scope)),
        AuthServerRequest::DeviceToken { device_code } => {
            members.push(("grant_type", "urn:ietf:params:oauth:grant-type:device_code"));
            members.push(("device_code", device_code.expose()));
        }
        // The extra parameters of a provider are meant for requests of tokens.
        AuthServerRequest::RevokeAccessToken { access } => {
            let members = vec![("token", access.expose()), ("token_type_hint", "access_token")];
            return authenticated(provider, proof, members);
        }
    }
    authenticated(provider, proof, with_parameters(provider, members))
}

/// The members and the extra parameters of the provider; none of those replaces a member.
fn with_parameters<'a>(provider: &'a Provider, mut members: Vec<(&'a str, &'a str)>) -> Vec<(&'a str, &'a str)> {
    for (name, value) in &provider.parameters {
        if !members.iter().any(|(there, _)| there == name) {
            members.push((name, value));
        }
    }
    members
}

/// The only function that adds the client's authentication to a request.
fn authenticated<'a>(
    provider: &'a Provider,
    proof: &'a ClientAuthentication,
    mut members: Vec<(&'a str, &'a str)>,
) -> EncodedRequest {
    let mut authorization = None;
    match proof {
        ClientAuthentication::None => members.push(("client_id", &provider.client_id)),
        ClientAuthentication::Basic(secret) => authorization = Some(basic_authorization(&provider.client_id, secret)),
        ClientAuthentication::RawBasic(secret) => authorization = Some(raw_basic(&provider.client_id, secret)),
        ClientAuthentication::Post(secret) => {
            members.push(("client_id", &provider.client_id));
            members.push(("client_secret", secret));
        }
        ClientAuthentication::Assertion(assertion) => {
            members.push(("client_id", &provider.client_id));
            members.push(("client_assertion_type", client_assertion::ASSERTION_TYPE));
            members.push(("client_assertion", assertion));
        }
    }
    let (content_type, body) = match provider.body {
        BodyEncoding::Form => ("application/x-www-form-urlencoded", form_body(&members)),
        BodyEncoding::Json => ("application/json", json_body(&members)),
    };
    let mut sent = secret_members(members.iter().copied());
    sent.extend(secret_headers(provider));
    if let ClientAuthentication::Basic(secret) = proof {
        sent.add(secret);
    }
    if let Some(authorization) = &authorization {
        add_header(&mut sent, authorization);
    }
    EncodedRequest { content_type, authorization, body, sent }
}

/// The secrets in the headers that the user adds to every request.
pub(super) fn secret_headers(provider: &Provider) -> SentSecrets {
    secret_members(provider.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The values of members or headers that are secret, by their names.
fn secret_members<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> SentSecrets {
    let mut sent = SentSecrets::default();
    for (_, value) in members.filter(|(name, _)| is_secret_name(name)) {
        add_header(&mut sent, value);
    }
    sent
}

/// Whether a member or header of this name has a secret for its value.
fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_public = ["_type", "_hint", "_method"].iter().any(|end| name.ends_with(end));
    let words = ["token", "secret", "password", "assertion", "code", "verifier", "key", "auth", "cookie", "credential"];
    !is_public && (name == "state" || words.iter().any(|word| name.contains(word)))
}

/// A value, and what is within it if it is one of `Authorization`: `Basic` has a name and a password in base64.
fn add_header(sent: &mut SentSecrets, value: &str) {
    sent.add(value);
    let Some((scheme, credentials)) = value.split_once(' ') else { return };
    sent.add(credentials);
    let pair = STANDARD.decode(credentials.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"));
    if let Some(pair) = pair.map(Zeroizing::new)
        && let Some((_, password)) = std::str::from_utf8(&pair).ok().and_then(|pair| pair.split_once(':'))
    {
        sent.add(password);
    }
}

/// RFC 6749 §2.3.1: id and secret are form-encoded first, and only then joined and written in base64.
fn basic_authorization(id: &str, secret: &str) -> Zeroizing<String> {
    raw_basic(&form_encoded(id), &form_encoded(secret))
}

/// RFC 7617 alone: id and secret as they are.
fn raw_basic(id: &str, secret: &str) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("{id}:{secret}"));
    Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
}

fn form_encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect())
}

/// Whether Basic credentials differ between a server that decodes them (RFC 6749) and one that does not.
pub(super) fn is_changed_by_encoding(text: &str) -> bool {
    *form_encoded(text) != text
}

fn form_body(members: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(members).finish();
    Zeroizing::new(text.into_bytes())
}

fn json_body(members: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    let object: serde_json::Map<_, _> = members.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    Zeroizing::new(serde_json::Value::Object(object).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    fn provider(body: BodyEncoding) -> Provider {
        Provider { client_id: "conf:odd id".into(), body, ..Provider::named("acme") }
    }

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.into())
    }

    fn body(r: &EncodedRequest) -> &str {
        std::str::from_utf8(&r.body).unwrap()
    }

    #[test]
    fn public_client_sends_its_id_in_the_form() {
        let token = RefreshToken::new("a+b/c=&d").unwrap();
        let r = refresh_request(&provider(BodyEncoding::Form), &ClientAuthentication::None, &token);
        assert_eq!(body(&r), "grant_type=refresh_token&refresh_token=a%2Bb%2Fc%3D%26d&client_id=conf%3Aodd+id");
        assert!(r.authorization.is_none());
    }

    #[test]
    fn basic_authentication_form_encodes_before_base64() {
        let token = RefreshToken::new("r").unwrap();
        let r = refresh_request(
            &provider(BodyEncoding::Form),
            &ClientAuthentication::Basic(secret("a+b/c=d%2B:e&f?g h")),
            &token,
        );
        let sent = r.authorization.clone().unwrap();
        let pair = STANDARD.decode(sent.strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(String::from_utf8(pair).unwrap(), "conf%3Aodd+id:a%2Bb%2Fc%3Dd%252B%3Ae%26f%3Fg+h");
        assert_eq!(body(&r), "grant_type=refresh_token&refresh_token=r");
    }

    #[test]
    fn raw_basic_authentication_sends_the_secret_as_it_is() {
        let sent = |id: &str, text: &str| {
            let acme = Provider { client_id: id.into(), ..provider(BodyEncoding::Form) };
            let proof = ClientAuthentication::RawBasic(secret(text));
            let request = refresh_request(&acme, &proof, &RefreshToken::new("r").unwrap());
            let header = request.authorization.clone().unwrap();
            assert_eq!(body(&request), "grant_type=refresh_token&refresh_token=r");
            String::from_utf8(STANDARD.decode(header.strip_prefix("Basic ").unwrap()).unwrap()).unwrap()
        };
        assert_eq!(sent("an id", "a+b/c=d%2B:e&f?g h"), "an id:a+b/c=d%2B:e&f?g h");
        assert_eq!(sent("app", ""), "app:");
        assert!(is_changed_by_encoding("a/b") && !is_changed_by_encoding("a-b_c.d*"));
    }

    #[test]
    fn client_secret_post_sends_the_secret_in_the_body() {
        let token = RefreshToken::new("r").unwrap();
        let r = refresh_request(&provider(BodyEncoding::Form), &ClientAuthentication::Post(secret("s e")), &token);
        assert_eq!(body(&r), "grant_type=refresh_token&refresh_token=r&client_id=conf%3Aodd+id&client_secret=s+e");
    }

    /// Rule 37.
    #[test]
    fn every_secret_of_a_request_is_known_as_sent() {
        let token = RefreshToken::new("the-refresh-token").unwrap();
        let one = |text: &str| OneTimeSecret::new(text).unwrap();
        let (code, verifier, device) = (one("the-code"), one("the-verifier"), one("the-device-code"));
        let mut acme = provider(BodyEncoding::Form);
        acme.headers = vec![("Authorization".into(), "Basic aWQ6cGFzcw==".into()), ("X-Tenant".into(), "7".into())];
        acme.parameters = vec![("resource".into(), "urn:r".into()), ("api_key".into(), "the-key".into())];
        let sent = |request: EncodedRequest| request.sent.iter().map(str::to_owned).collect::<Vec<_>>();
        let none = ClientAuthentication::None;
        let headers = ["Basic aWQ6cGFzcw==", "aWQ6cGFzcw==", "pass"];
        assert_eq!(
            sent(refresh_request(&acme, &none, &token)),
            [&["the-refresh-token", "the-key"][..], &headers].concat()
        );
        let assertion = ClientAuthentication::Assertion(secret("the-assertion"));
        let sent_with = sent(revocation_request(&acme, &assertion, &token));
        assert_eq!(sent_with, [&["the-refresh-token", "the-assertion"][..], &headers].concat());
        acme.headers.clear();
        let redirect_uri = "http://127.0.0.1/";
        let ask =
            AuthServerRequest::AuthorizationCode { code: &code, verifier: &verifier, redirect_uri, state: "the-state" };
        let post = ClientAuthentication::Post(secret("the-secret"));
        assert_eq!(sent(sign_in_request(&acme, &post, ask)), ["the-code", "the-verifier", "the-key", "the-secret"]);
        let ask = AuthServerRequest::DeviceToken { device_code: &device };
        let basic = ClientAuthentication::Basic(secret("the-secret"));
        let sent_with = sent(sign_in_request(&acme, &basic, ask));
        assert_eq!(sent_with[..3], ["the-device-code", "the-key", "the-secret"]);
        assert!(sent_with[3].starts_with("Basic ") && sent_with[3].ends_with(&sent_with[4]));
    }

    #[test]
    fn sign_in_requests_have_the_standard_parameters() {
        let once = |text: &str| OneTimeSecret::new(text).unwrap();
        let mut public = provider(BodyEncoding::Form);
        public.scopes = vec!["openid".into(), "a:b".into()];
        assert_eq!(
            body(&sign_in_request(&public, &ClientAuthentication::None, AuthServerRequest::DeviceAuthorization)),
            "scope=openid+a%3Ab&client_id=conf%3Aodd+id"
        );
        let poll = AuthServerRequest::DeviceToken { device_code: &once("d") };
        let sent = sign_in_request(&public, &ClientAuthentication::None, poll);
        let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
        assert_eq!(body(&sent), format!("{grant}&device_code=d&client_id=conf%3Aodd+id"));
        let (code, verifier) = (once("c&"), once("v"));
        let ask = AuthServerRequest::AuthorizationCode {
            code: &code,
            verifier: &verifier,
            redirect_uri: "http://127.0.0.1:5/x",
            state: "s",
        };
        let sent = sign_in_request(&provider(BodyEncoding::Form), &ClientAuthentication::Basic(secret("s")), ask);
        assert!(sent.authorization.is_some());
        let redirect = "redirect_uri=http%3A%2F%2F127.0.0.1%3A5%2Fx";
        assert_eq!(body(&sent), format!("grant_type=authorization_code&code=c%26&{redirect}&code_verifier=v"));
        let sent = sign_in_request(&provider(BodyEncoding::Json), &ClientAuthentication::None, ask);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&sent.body).unwrap()["state"], "s");
    }

    #[test]
    fn client_assertion_is_sent_in_every_request() {
        let proof = ClientAuthentication::Assertion(secret("h.b.s"));
        let tail = "client_id=conf%3Aodd+id&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3A\
                    client-assertion-type%3Ajwt-bearer&client_assertion=h.b.s";
        let r = refresh_request(&provider(BodyEncoding::Form), &proof, &RefreshToken::new("r").unwrap());
        assert_eq!(body(&r), format!("grant_type=refresh_token&refresh_token=r&{tail}"));
        assert!(r.authorization.is_none());
        assert_eq!(
            body(&sign_in_request(&provider(BodyEncoding::Form), &proof, AuthServerRequest::DeviceAuthorization)),
            tail
        );
    }

    #[test]
    fn provider_parameters_are_added_but_replace_nothing() {
        let mut acme = provider(BodyEncoding::Form);
        acme.scopes = vec!["openid".into()];
        acme.parameters = [("resource", "https://api"), ("scope", "x"), ("refresh_token", "y")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let r = refresh_request(&acme, &ClientAuthentication::None, &RefreshToken::new("r").unwrap());
        let start = "grant_type=refresh_token&refresh_token=r&resource=https%3A%2F%2Fapi&scope=x&client_id=";
        assert!(body(&r).starts_with(start), "{}", body(&r));
        let asked = sign_in_request(&acme, &ClientAuthentication::None, AuthServerRequest::DeviceAuthorization);
        assert!(body(&asked).starts_with("scope=openid&resource=https%3A%2F%2Fapi&refresh_token=y&client_id="));
    }

    #[test]
    fn revocation_request_names_the_token_and_authenticates() {
        let (token, access) = (RefreshToken::new("r&").unwrap(), AccessToken::new("a").unwrap());
        let mut acme = provider(BodyEncoding::Form);
        acme.parameters = vec![("resource".into(), "https://api".into())];
        let r = revocation_request(&acme, &ClientAuthentication::None, &token);
        assert_eq!(body(&r), "token=r%26&token_type_hint=refresh_token&client_id=conf%3Aodd+id");
        let r = sign_in_request(
            &acme,
            &ClientAuthentication::Basic(secret("s")),
            AuthServerRequest::RevokeAccessToken { access: &access },
        );
        assert_eq!(body(&r), "token=a&token_type_hint=access_token");
        assert!(r.authorization.is_some());
    }

    #[test]
    fn json_body_has_the_same_members_as_the_form() {
        let token = RefreshToken::new("r\"x").unwrap();
        let r = refresh_request(&provider(BodyEncoding::Json), &ClientAuthentication::None, &token);
        let v: serde_json::Value = serde_json::from_slice(&r.body).unwrap();
        assert_eq!(
            v,
            serde_json::json!({"grant_type":"refresh_token","refresh_token":"r\"x","client_id":"conf:odd id"})
        );
        assert_eq!(r.content_type, "application/json");
    }
}
