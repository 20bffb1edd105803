//! The proxy that the environment names for a URL: whether it can be used, and what messages call it.

use std::borrow::Cow;

use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use crate::outcome::{ErrorKind, Failure};
use crate::sys::paths;

const SCHEMES: &str = "http, https, socks4, socks4a, socks5 or socks5h";

/// A proxy, and the variable that names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedProxy {
    variable: &'static str,
    /// Scheme, host and port, without a password.
    address: String,
}

impl std::fmt::Display for NamedProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.address, self.variable)
    }
}

/// The proxy for `url` by the environment. An error if it cannot be used: a client would leave it out in silence, and
/// connect in a way that the user did not want.
pub(super) fn for_url(url: &Url) -> Result<Option<NamedProxy>, Failure> {
    find(url, &paths::user_variable)
}

fn find(url: &Url, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<NamedProxy>, Failure> {
    // The client lets a server's headers name no proxy (CGI).
    if variable("REQUEST_METHOD").is_some() {
        return Ok(None);
    }
    let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, variable(name)?)));
    let exceptions = first(["NO_PROXY", "no_proxy"]).map_or(String::new(), |(_, text)| text);
    let Ok(target) = url.as_str().parse::<hyper::Uri>() else { return Ok(None) };
    let proxy_by =
        |text: &str| Matcher::builder().all(text.to_owned()).no(exceptions.clone()).build().intercept(&target);
    if proxy_by("http://proxy").is_none() {
        return Ok(None);
    }
    let own = if url.scheme() == "https" { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
    let named = [first(own), first(["ALL_PROXY", "all_proxy"])];
    let Some((name, text)) = named.into_iter().flatten().find(|(_, text)| !text.is_empty()) else { return Ok(None) };
    match proxy_by(&with_lower_scheme(&text)) {
        Some(proxy) => {
            let uri = proxy.uri();
            let address =
                format!("{}://{}", uri.scheme_str().unwrap_or("http"), uri.authority().map_or("", |a| a.as_str()));
            Ok(Some(NamedProxy { variable: name, address }))
        }
        // Its value is not repeated: it may hold a password.
        None => Err(Failure::new(ErrorKind::Config, format!("{name} does not name a proxy that can be used"))
            .with_hint(format!("write it as SCHEME://HOST:PORT; the schemes are {SCHEMES}"))),
    }
}

/// Schemes have no case (RFC 3986 §3.1), but the client reads only those in lower case.
fn with_lower_scheme(text: &str) -> Cow<'_, str> {
    match text.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().any(|b| b.is_ascii_uppercase()) => {
            format!("{}://{rest}", scheme.to_ascii_lowercase()).into()
        }
        _ => text.into(),
    }
}

/// The proxies of the environment, where the client would not read one of them by itself; else none.
pub(super) fn unread_by_client() -> Vec<reqwest::Proxy> {
    proxies(&paths::user_variable)
}

fn proxies(variable: &dyn Fn(&str) -> Option<String>) -> Vec<reqwest::Proxy> {
    let first = |names: [&str; 2]| names.into_iter().find_map(variable).filter(|text| !text.is_empty());
    let all = || first(["ALL_PROXY", "all_proxy"]);
    let https = first(["HTTPS_PROXY", "https_proxy"]).or_else(all);
    let http = first(["HTTP_PROXY", "http_proxy"]).or_else(all);
    let is_read =
        |text: &Option<String>| text.as_ref().is_none_or(|text| matches!(with_lower_scheme(text), Cow::Borrowed(_)));
    if variable("REQUEST_METHOD").is_some() || (is_read(&https) && is_read(&http)) {
        return Vec::new();
    }
    let except = reqwest::NoProxy::from_string(&first(["NO_PROXY", "no_proxy"]).unwrap_or_default());
    let https = https.and_then(|text| reqwest::Proxy::https(&*with_lower_scheme(&text)).ok());
    let http = http.and_then(|text| reqwest::Proxy::http(&*with_lower_scheme(&text)).ok());
    https.into_iter().chain(http).map(|proxy| proxy.no_proxy(except.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(url: &str, variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let read = |name: &str| variables.iter().find(|(there, _)| *there == name).map(|(_, text)| (*text).to_owned());
        find(&url.parse().unwrap(), &read).map(|proxy| proxy.map(|p| p.to_string())).map_err(|f| f.message)
    }

    #[test]
    fn proxy_is_named_by_variable_and_without_its_password() {
        let url = "https://auth.example/token";
        for (variables, expected) in [
            (&[("ALL_PROXY", "socks5h://me:secret@127.0.0.1:1080")][..], Some("socks5h://127.0.0.1:1080 (ALL_PROXY)")),
            (&[("ALL_PROXY", "SOCKS5H://127.0.0.1:1080")], Some("socks5h://127.0.0.1:1080 (ALL_PROXY)")),
            (&[("https_proxy", "proxy.example:3128")], Some("http://proxy.example:3128 (https_proxy)")),
            (&[("HTTPS_PROXY", ""), ("all_proxy", "http://p:1")], Some("http://p:1 (all_proxy)")),
            (&[("HTTP_PROXY", "http://p:1")], None),
            (&[("HTTPS_PROXY", "socks6://p:1"), ("NO_PROXY", "auth.example")], None),
            (&[], None),
        ] {
            assert_eq!(found(url, variables), Ok(expected.map(str::to_owned)), "{variables:?}");
        }
    }

    #[test]
    fn proxy_that_cannot_be_used_is_an_error_and_not_left_out() {
        for text in ["socks6://p:1", "ftp://p", "://", "socks5h://", "a b"] {
            let error = found("https://auth.example/token", &[("HTTPS_PROXY", text)]).unwrap_err();
            assert_eq!(error, "HTTPS_PROXY does not name a proxy that can be used", "{text}");
        }
    }
}
