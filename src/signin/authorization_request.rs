//! The authorization request, and how the redirect or a pasted code is read (RFC 6749 §4.1, RFC 7636, RFC 9207). (pure)

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use url::{Url, form_urlencoded};

use crate::credential::error_response::ErrorResponse;
use crate::credential::redaction::SentSecrets;
use crate::credential::secret::OneTimeSecret;
use crate::profile::Provider;
use crate::provider::sign_in_server::SignInEndpoints;

/// What each authorization request sets itself; no parameter of a provider replaces it.
const REQUEST_PARAMETERS: &[&str] =
    &["response_type", "client_id", "redirect_uri", "state", "code_challenge", "code_challenge_method"];

/// One sign-in attempt: the state ties the redirect to the request, the verifier ties the code to this process.
#[derive(Debug)]
pub struct AuthorizationRequest {
    pub state: String,
    pub verifier: OneTimeSecret,
    pub redirect_uri: Url,
}

/// Why a redirect gives no code.
#[derive(Debug)]
pub enum RedirectError {
    /// The state belongs to another attempt, or is missing.
    StateMismatch,
    /// The state is ours, but the redirect is not from the server that was asked (RFC 9207).
    IssuerMismatch(String),
    /// The server's own error.
    Denied(ErrorResponse),
    /// The state is ours, but the redirect cannot be read.
    Unreadable(&'static str),
}

impl AuthorizationRequest {
    /// An attempt from 64 random bytes.
    pub fn new(state: [u8; 32], verifier: [u8; 32], redirect_uri: Url) -> Option<Self> {
        let verifier = OneTimeSecret::new(URL_SAFE_NO_PAD.encode(verifier))?;
        Some(Self { state: URL_SAFE_NO_PAD.encode(state), verifier, redirect_uri })
    }

    /// The URL where a person signs in: the endpoint with its own query, and this request.
    pub fn url(&self, sites: &SignInEndpoints, endpoint: &Url, provider: &Provider) -> Url {
        let mut url = endpoint.clone();
        let own: Vec<String> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
        // RFC 8707 §2.1 wants `resource` here as well, and servers that ask for an audience want it first of all here.
        let is_free = |name: &str| !REQUEST_PARAMETERS.contains(&name) && !own.iter().any(|there| there == name);
        let extra: Vec<_> = provider.parameters.iter().filter(|(name, _)| is_free(name)).collect();
        let is_extra = |name: &str| extra.iter().any(|(there, _)| there == name);
        let scope = provider.scopes.join(" ");
        let has = |name: &str| provider.scopes.iter().any(|s| s == name);
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("response_type", "code");
            query.append_pair("client_id", &provider.client_id);
            query.append_pair("redirect_uri", self.redirect_uri.as_str());
            if !scope.is_empty() {
                query.append_pair("scope", &scope);
            }
            for (name, value) in extra.iter().filter(|(name, _)| name != "scope" || scope.is_empty()) {
                query.append_pair(name, value);
            }
            query.append_pair("state", &self.state);
            query.append_pair("code_challenge", &code_challenge(&self.verifier));
            query.append_pair("code_challenge_method", "S256");
            // OpenID Connect Core §11: without it the server ignores offline_access.
            let wants_consent = sites.is_authorization_discovered && has("openid") && has("offline_access");
            if wants_consent && !is_extra("prompt") {
                query.append_pair("prompt", "consent");
            }
        }
        url
    }

    /// Whether the query of a redirect carries this attempt's state.
    pub fn has_state(state: &str, query: &str) -> bool {
        single_parameter(query, "state").is_ok_and(|found| found.as_deref() == Some(state))
    }

    /// The code in the query of a redirect.
    pub fn parse_redirect(&self, query: &str, sites: &SignInEndpoints) -> Result<OneTimeSecret, RedirectError> {
        if !Self::has_state(&self.state, query) {
            return Err(RedirectError::StateMismatch);
        }
        self.parse_own_redirect(query, sites)
    }

    fn parse_own_redirect(&self, query: &str, sites: &SignInEndpoints) -> Result<OneTimeSecret, RedirectError> {
        let iss = single_parameter(query, "iss")?;
        match (&iss, &sites.issuer) {
            // RFC 9207 §2.4: simple string comparison, so a slash at the end makes another issuer.
            (Some(iss), Some(issuer)) if *iss != issuer.as_str() => {
                return Err(RedirectError::IssuerMismatch(self.sent_secrets(query).printable(iss)));
            }
            (None, _) if sites.requires_iss => return Err(RedirectError::IssuerMismatch("an unnamed server".into())),
            _ => {}
        }
        if let Some(code) = single_parameter(query, "error")? {
            let description = single_parameter(query, "error_description")?;
            let sent = self.sent_secrets(query);
            return Err(RedirectError::Denied(ErrorResponse::new(&code, description.as_deref(), &sent)));
        }
        let code = single_parameter(query, "code")?.ok_or(RedirectError::Unreadable("it has no code"))?;
        OneTimeSecret::new(code).ok_or(RedirectError::Unreadable("its code is empty or not text"))
    }

    /// What no text of this redirect may show: what ties it to this attempt, and a code that came along.
    fn sent_secrets(&self, query: &str) -> SentSecrets {
        let codes = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "code").map(|(_, code)| code);
        let mut sent = codes.collect::<SentSecrets>();
        sent.add(self.verifier.expose());
        sent.add(&self.state);
        sent
    }

    /// The code in what a person pasted: the whole redirected URL, its query, or the code alone, which some pages show
    /// with the state after a `#`. A bare code has no state to check; only the verifier ties it to this process.
    pub fn parse_pasted(
        &self,
        text: Option<&OneTimeSecret>,
        sites: &SignInEndpoints,
    ) -> Result<OneTimeSecret, RedirectError> {
        let text = text.ok_or(RedirectError::Unreadable("it is neither a URL nor a code"))?.expose();
        if let Ok(url) = Url::parse(text)
            && url.has_host()
        {
            return self.parse_redirect(url.query().unwrap_or_default(), sites);
        }
        if let Some(query) = text.strip_prefix('?') {
            return self.parse_redirect(query, sites);
        }
        if ["code=", "state=", "iss=", "error="].iter().any(|start| text.starts_with(start)) && text.contains('&') {
            return self.parse_redirect(text, sites);
        }
        let (code, state) = text.split_once('#').map_or((text, None), |(code, state)| (code, Some(state)));
        if state.is_some_and(|state| state != self.state) {
            return Err(RedirectError::StateMismatch);
        }
        if code.contains(char::is_whitespace) {
            return Err(RedirectError::Unreadable("it is neither a URL nor a code"));
        }
        OneTimeSecret::new(code).ok_or(RedirectError::Unreadable("it is neither a URL nor a code"))
    }
}

/// RFC 7636 §4.2, S256.
fn code_challenge(verifier: &OneTimeSecret) -> String {
    let hash: [u8; 32] = Sha256::digest(verifier.expose().as_bytes()).into();
    URL_SAFE_NO_PAD.encode(hash)
}

/// The one value of a parameter; RFC 6749 §3.1 allows no second.
fn single_parameter<'q>(query: &'q str, name: &str) -> Result<Option<Cow<'q, str>>, RedirectError> {
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(k, _)| k == name).map(|(_, v)| v);
    let first = values.next();
    match values.next() {
        Some(_) => Err(RedirectError::Unreadable("it has a parameter twice")),
        None => Ok(first.filter(|v| !v.is_empty())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn attempt() -> AuthorizationRequest {
        AuthorizationRequest::new([1; 32], [2; 32], "http://127.0.0.1:7/callback".parse().unwrap()).unwrap()
    }

    fn sites(is_iss_promised: bool) -> SignInEndpoints {
        SignInEndpoints {
            issuer: Some("https://a.example".into()),
            requires_iss: is_iss_promised,
            ..SignInEndpoints::default()
        }
    }

    fn outcome_text(found: Result<OneTimeSecret, RedirectError>) -> String {
        match found {
            Ok(code) => format!("code {}", code.expose()),
            Err(RedirectError::StateMismatch) => "state".into(),
            Err(RedirectError::IssuerMismatch(iss)) => format!("iss {iss}"),
            Err(RedirectError::Denied(d)) => format!("denied {}", d.code),
            Err(RedirectError::Unreadable(_)) => "unreadable".into(),
        }
    }

    #[test]
    fn pkce_challenge_matches_the_example_of_rfc_7636() {
        let verifier = OneTimeSecret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").unwrap();
        assert_eq!(code_challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn authorization_url_keeps_endpoint_query_and_hides_verifier() {
        let text = "[provider.a]\nissuer = \"https://a.example\"\nclient_id = \"me\"\nscopes = [\"openid\", \"offline_access\"]\n";
        let config = Config::parse(text, std::path::Path::new("c"), None).unwrap();
        let a = attempt();
        let endpoint: Url = "https://a.example/auth?audience=api".parse().unwrap();
        let mut sites = sites(true);
        let url = a.url(&sites, &endpoint, &config.providers["a"]);
        let query = url.query().unwrap();
        assert!(query.starts_with("audience=api&response_type=code&client_id=me&redirect_uri=http%3A%2F%2F127"));
        assert!(
            query.contains("&scope=openid+offline_access&state=") && query.ends_with("&code_challenge_method=S256")
        );
        assert!(!query.contains(a.verifier.expose()));
        sites.is_authorization_discovered = true;
        assert!(a.url(&sites, &endpoint, &config.providers["a"]).as_str().ends_with("&prompt=consent"));
    }

    #[test]
    fn authorization_request_has_the_parameters_of_the_provider() {
        let text = "[provider.a]\nissuer = \"https://a.example\"\nclient_id = \"me\"\nscopes = [\"openid\", \"offline_access\"]\n\
                    parameters = { resource = \"https://api\", audience = \"other\", prompt = \"login\", state = \"x\", scope = \"y\" }\n";
        let config = Config::parse(text, std::path::Path::new("c"), None).unwrap();
        let endpoint: Url = "https://a.example/auth?audience=api".parse().unwrap();
        let sites = SignInEndpoints { is_authorization_discovered: true, ..sites(true) };
        let url = attempt().url(&sites, &endpoint, &config.providers["a"]);
        let values =
            |name: &str| url.query_pairs().filter(|(n, _)| n == name).map(|(_, v)| v.into_owned()).collect::<Vec<_>>();
        assert_eq!(values("resource"), ["https://api"]);
        assert_eq!((values("audience"), values("prompt")), (vec!["api".to_owned()], vec!["login".to_owned()]));
        assert_eq!(
            (values("state"), values("scope")),
            (vec![attempt().state], vec!["openid offline_access".to_owned()])
        );
    }

    #[test]
    fn state_and_issuer_are_checked_before_anything_else() {
        let a = attempt();
        let state = &a.state;
        for (query, promised, expected) in [
            (format!("code=c&state={state}"), false, "code c"),
            (format!("code=c&state={state}"), true, "iss an unnamed server"),
            (format!("code=c&state={state}&iss=https%3A%2F%2Fa.example"), true, "code c"),
            (format!("code=c&state={state}&iss=https%3A%2F%2Fevil.example"), false, "iss https://evil.example"),
            (format!("code=c&state={state}&iss=https%3A%2F%2Fa.example%2F"), false, "iss https://a.example/"),
            (format!("code=c&state={state}&iss=https%3A%2F%2FA.example"), false, "iss https://A.example"),
            (format!("error=access_denied&state={state}&iss=https%3A%2F%2Fa.example"), true, "denied access_denied"),
            ("code=c&state=other".into(), false, "state"),
            ("code=c".into(), false, "state"),
            (format!("code=c&state={state}&state={state}"), false, "state"),
            (format!("code=c&code=d&state={state}"), false, "unreadable"),
            (format!("state={state}"), false, "unreadable"),
        ] {
            assert_eq!(outcome_text(a.parse_redirect(&query, &sites(promised))), expected, "{query}");
        }
    }

    #[test]
    fn pasted_code_query_or_url_is_accepted() {
        let a = attempt();
        let state = &a.state;
        for (text, expected) in [
            (format!("http://127.0.0.1:7/callback?code=c&state={state}"), "code c"),
            (format!("?code=c&state={state}"), "code c"),
            (format!("code=c&state={state}"), "code c"),
            (format!("c#{state}"), "code c"),
            ("c".into(), "code c"),
            ("4/0Ab_c".into(), "code 4/0Ab_c"),
            ("c#other".into(), "state"),
            ("http://127.0.0.1:7/callback?code=c&state=other".into(), "state"),
            ("two words".into(), "unreadable"),
            ("".into(), "unreadable"),
        ] {
            assert_eq!(
                outcome_text(a.parse_pasted(OneTimeSecret::new(text.as_str()).as_ref(), &sites(false))),
                expected,
                "{text}"
            );
        }
    }

    /// Rule 37.
    #[test]
    fn redirect_error_quotes_neither_code_nor_verifier() {
        let a = attempt();
        let (state, verifier) = (&a.state, a.verifier.expose());
        let query = format!(
            "error=bad_{state}&error_description=code+the-code+verifier+{verifier}+gone%E2%80%AE&code=the-code&state={state}"
        );
        let Err(RedirectError::Denied(error)) = a.parse_redirect(&query, &sites(false)) else { panic!("not denied") };
        assert_eq!((error.code.as_str(), error.description.as_deref()), ("bad_…", Some("code … verifier … gone ")));
    }

    proptest::proptest! {
        #[test]
        fn redirect_without_our_state_never_gives_a_code(query in "[ -~]{0,80}|code=[a-z]{1,9}&state=[a-z0-9]{0,43}") {
            proptest::prop_assume!(!query.contains(&attempt().state));
            proptest::prop_assert!(attempt().parse_redirect(&query, &sites(false)).is_err());
            let url = format!("http://127.0.0.1:7/callback?{query}");
            proptest::prop_assert!(attempt().parse_pasted(OneTimeSecret::new(url).as_ref(), &sites(false)).is_err());
        }
    }
}
