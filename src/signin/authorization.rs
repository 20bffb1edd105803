//! The authorization request and what the redirect answers (RFC 6749 §4.1, RFC 7636, RFC 9207). (pure)

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use url::{Url, form_urlencoded};

use crate::credential::response::{Denied, printable};
use crate::credential::secret::OneTime;
use crate::profile::Provider;
use crate::provider::signin::Sites;

/// One attempt at a sign-in: what ties the redirect to the request, and the code to this process.
#[derive(Debug)]
pub struct Attempt {
    pub state: String,
    pub verifier: OneTime,
    pub redirect_uri: Url,
}

/// Why a redirect gives no code.
#[derive(Debug)]
pub enum BadRedirect {
    /// It belongs to another attempt, or to none.
    State,
    /// It is ours, and not from the server that was asked (RFC 9207).
    Issuer(String),
    /// The server's own error.
    Denied(Denied),
    /// It is ours, and makes no sense.
    Unreadable(&'static str),
}

impl Attempt {
    /// An attempt from 64 random bytes.
    pub fn new(state: [u8; 32], verifier: [u8; 32], redirect_uri: Url) -> Option<Self> {
        let verifier = OneTime::new(URL_SAFE_NO_PAD.encode(verifier))?;
        Some(Self { state: URL_SAFE_NO_PAD.encode(state), verifier, redirect_uri })
    }

    /// Where a person signs in: the endpoint with its own query, and this request.
    pub fn url(&self, sites: &Sites, endpoint: &Url, provider: &Provider) -> Url {
        let mut url = endpoint.clone();
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
            query.append_pair("state", &self.state);
            query.append_pair("code_challenge", &challenge(&self.verifier));
            query.append_pair("code_challenge_method", "S256");
            // OpenID Connect Core §11: without it the server ignores offline_access.
            if sites.is_discovered && has("openid") && has("offline_access") {
                query.append_pair("prompt", "consent");
            }
        }
        url
    }

    /// Whether the query of a redirect carries this attempt's state.
    pub fn is_mine(state: &str, query: &str) -> bool {
        only(query, "state").is_ok_and(|found| found.as_deref() == Some(state))
    }

    /// The code in the query of a redirect.
    pub fn read(&self, query: &str, sites: &Sites) -> Result<OneTime, BadRedirect> {
        if !Self::is_mine(&self.state, query) {
            return Err(BadRedirect::State);
        }
        self.read_mine(query, sites)
    }

    fn read_mine(&self, query: &str, sites: &Sites) -> Result<OneTime, BadRedirect> {
        let iss = only(query, "iss")?;
        match (&iss, &sites.issuer) {
            (Some(iss), Some(issuer)) if iss.trim_end_matches('/') != issuer.trim_end_matches('/') => {
                return Err(BadRedirect::Issuer(printable(iss)));
            }
            (None, _) if sites.is_iss_promised => return Err(BadRedirect::Issuer("an unnamed server".into())),
            _ => {}
        }
        if let Some(code) = only(query, "error")? {
            let description = only(query, "error_description")?.map(|d| printable(&d));
            return Err(BadRedirect::Denied(Denied { code: printable(&code), description }));
        }
        let code = only(query, "code")?.ok_or(BadRedirect::Unreadable("it has no code"))?;
        OneTime::new(code).ok_or(BadRedirect::Unreadable("its code is empty or not text"))
    }

    /// The code in what a person pasted: the whole redirected URL, its query, or the code alone, which some pages show
    /// with the state after a `#`. A bare code has no state to check; the verifier alone ties it to us.
    pub fn read_pasted(&self, text: Option<&OneTime>, sites: &Sites) -> Result<OneTime, BadRedirect> {
        let text = text.ok_or(BadRedirect::Unreadable("it is neither a URL nor a code"))?.expose();
        if let Ok(url) = Url::parse(text)
            && url.has_host()
        {
            return self.read(url.query().unwrap_or_default(), sites);
        }
        if let Some(query) = text.strip_prefix('?') {
            return self.read(query, sites);
        }
        if ["code=", "state=", "iss=", "error="].iter().any(|start| text.starts_with(start)) && text.contains('&') {
            return self.read(text, sites);
        }
        let (code, state) = text.split_once('#').map_or((text, None), |(code, state)| (code, Some(state)));
        if state.is_some_and(|state| state != self.state) {
            return Err(BadRedirect::State);
        }
        if code.contains(char::is_whitespace) {
            return Err(BadRedirect::Unreadable("it is neither a URL nor a code"));
        }
        OneTime::new(code).ok_or(BadRedirect::Unreadable("it is neither a URL nor a code"))
    }
}

/// RFC 7636 §4.2, S256.
fn challenge(verifier: &OneTime) -> String {
    let hash: [u8; 32] = Sha256::digest(verifier.expose().as_bytes()).into();
    URL_SAFE_NO_PAD.encode(hash)
}

/// The one value of a parameter; RFC 6749 §3.1 allows no second.
fn only<'q>(query: &'q str, name: &str) -> Result<Option<Cow<'q, str>>, BadRedirect> {
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(k, _)| k == name).map(|(_, v)| v);
    let first = values.next();
    match values.next() {
        Some(_) => Err(BadRedirect::Unreadable("it has a parameter twice")),
        None => Ok(first.filter(|v| !v.is_empty())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn attempt() -> Attempt {
        Attempt::new([1; 32], [2; 32], "http://127.0.0.1:7/callback".parse().unwrap()).unwrap()
    }

    fn sites(is_iss_promised: bool) -> Sites {
        Sites { issuer: Some("https://a.example/".into()), is_iss_promised, ..Sites::default() }
    }

    fn said(found: Result<OneTime, BadRedirect>) -> String {
        match found {
            Ok(code) => format!("code {}", code.expose()),
            Err(BadRedirect::State) => "state".into(),
            Err(BadRedirect::Issuer(iss)) => format!("iss {iss}"),
            Err(BadRedirect::Denied(d)) => format!("denied {}", d.code),
            Err(BadRedirect::Unreadable(_)) => "unreadable".into(),
        }
    }

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        let verifier = OneTime::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").unwrap();
        assert_eq!(challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn the_request_keeps_the_endpoints_own_query_and_not_the_verifier() {
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
        sites.is_discovered = true;
        assert!(a.url(&sites, &endpoint, &config.providers["a"]).as_str().ends_with("&prompt=consent"));
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
            (format!("error=access_denied&state={state}&iss=https%3A%2F%2Fa.example"), true, "denied access_denied"),
            ("code=c&state=other".into(), false, "state"),
            ("code=c".into(), false, "state"),
            (format!("code=c&state={state}&state={state}"), false, "state"),
            (format!("code=c&code=d&state={state}"), false, "unreadable"),
            (format!("state={state}"), false, "unreadable"),
        ] {
            assert_eq!(said(a.read(&query, &sites(promised))), expected, "{query}");
        }
    }

    #[test]
    fn what_people_paste_is_understood() {
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
            assert_eq!(said(a.read_pasted(OneTime::new(text.as_str()).as_ref(), &sites(false))), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_redirect_without_our_state_brings_a_code(query in "[ -~]{0,80}") {
            proptest::prop_assume!(!query.contains(&attempt().state));
            proptest::prop_assert!(attempt().read(&query, &sites(false)).is_err());
            let url = format!("http://127.0.0.1:7/callback?{query}");
            proptest::prop_assert!(attempt().read_pasted(OneTime::new(url).as_ref(), &sites(false)).is_err());
        }
    }
}
