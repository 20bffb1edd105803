//! Checks single values before a request is made with them: URLs, headers, scopes, names. (pure)

use std::path::{Path, PathBuf};

use url::{Host, Url};

use super::error::{ValueError, quoted};

/// An endpoint: https, or http to this machine; no user, no fragment.
pub(super) fn endpoint(text: &str) -> Result<Url, ValueError> {
    let url = Url::parse(text).map_err(|e| match e {
        url::ParseError::RelativeUrlWithoutBase => ValueError::new("is not a URL: it does not begin with https://"),
        e => ValueError::new(format!("is not a URL: {e}")),
    })?;
    // Nothing of the URL is repeated: it may hold a password.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ValueError::new("must not hold a user name or password").hint("use client_auth and client_secret"));
    }
    if url.fragment().is_some() {
        return Err(ValueError::new("must not have a fragment").hint("leave out # and what follows"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(ValueError::new("must be https: http is accepted only for loopback addresses")),
        other => Err(ValueError::new(format!("must be https, not {}", quoted(other)))),
    }
}

/// An issuer: an endpoint without a query (RFC 8414 §2).
pub(super) fn issuer(text: &str) -> Result<Url, ValueError> {
    let url = endpoint(text)?;
    match url.query() {
        Some(_) => Err(ValueError::new("must not have a query").hint("leave out ? and what follows")),
        None => Ok(url),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// A client identifier: visible ASCII and spaces (RFC 6749 appendix A.1).
pub(super) fn client_id(text: &str) -> Result<String, ValueError> {
    match text.chars().find(|c| !matches!(c, ' '..='~')) {
        _ if text.is_empty() => {
            Err(ValueError::new("is empty").hint("write the value that the provider gave to your client"))
        }
        Some(c) => Err(ValueError::new(format!("cannot contain {c:?}"))),
        None => Ok(text.into()),
    }
}

/// One scope (RFC 6749 §3.3).
pub(super) fn scope(text: &str) -> Result<String, ValueError> {
    if text.contains(' ') {
        return Err(ValueError::new(format!("has several scopes in one string: {}", quoted(text)))
            .hint("quote each scope separately, with commas between them"));
    }
    match text.chars().find(|c| !matches!(c, '!' | '#'..='[' | ']'..='~')) {
        _ if text.is_empty() => Err(ValueError::new("has an empty string")),
        Some(c) => Err(ValueError::new(format!("cannot contain {c:?}"))),
        None => Ok(text.into()),
    }
}

/// Headers that the request sets itself; a second one would break it.
const RESERVED_HEADERS: &[&str] = &["host", "content-type", "content-length", "transfer-encoding", "connection"];

/// Whether a text is a token of HTTP (RFC 9110 §5.6.2).
pub(super) fn is_header_token(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(fits)
}

/// The name of a header (RFC 9110 §5.1).
pub(super) fn header_name(name: &str) -> Result<(), ValueError> {
    if !is_header_token(name) {
        return Err(ValueError::new(format!("has {}, which is not a header name", quoted(name))));
    }
    if RESERVED_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        return Err(ValueError::new(format!("cannot set {name}: each request sets its own")).hint("leave it out"));
    }
    Ok(())
}

/// The value of a header; it is never repeated in a message, for it may be a secret.
pub(super) fn header_value(name: &str, value: &str) -> Result<(), ValueError> {
    let fits = |b: u8| matches!(b, b'\t' | b' '..=b'~');
    if value.bytes().all(fits) && value.trim() == value {
        return Ok(());
    }
    Err(ValueError::new(format!("has a value for {name} that is not plain text"))
        .hint("use visible ASCII, without line breaks and without spaces at the ends"))
}

/// Text for a request: visible ASCII and spaces.
pub(super) fn visible_ascii(text: &str) -> Result<String, ValueError> {
    match text.chars().find(|c| !matches!(c, ' '..='~')) {
        _ if text.is_empty() => Err(ValueError::new("has an empty value")),
        Some(c) => Err(ValueError::new(format!("cannot contain {c:?}"))),
        None => Ok(text.into()),
    }
}

/// Members of a token request that keepalive sets itself.
const RESERVED_PARAMETERS: &[&str] = &[
    "grant_type",
    "refresh_token",
    "code",
    "code_verifier",
    "redirect_uri",
    "device_code",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
];

/// The name of a further member of a token request.
pub(super) fn parameter_name(name: &str) -> Result<(), ValueError> {
    if RESERVED_PARAMETERS.contains(&name) {
        return Err(ValueError::new(format!("cannot set {name}: each request sets its own")).hint("leave it out"));
    }
    visible_ascii(name).map(drop)
}

/// A host name below which endpoints must lie.
pub(super) fn domain(text: &str) -> Result<String, ValueError> {
    let as_url = Url::parse(&format!("https://{text}/")).ok();
    match as_url.as_ref().and_then(Url::host_str) {
        Some(host) if host.eq_ignore_ascii_case(text) => Ok(host.into()),
        Some(_) | None => Err(ValueError::new(format!("is not a host name: {}", quoted(text)))),
    }
}

/// A name in another system (an environment variable, a keyring item), without characters that such names cannot have.
pub(super) fn external_name(text: &str, forbidden: &str) -> Result<String, ValueError> {
    match text.chars().find(|c| c.is_control() || forbidden.contains(*c)) {
        _ if text.is_empty() => Err(ValueError::new("is empty")),
        Some(c) => Err(ValueError::new(format!("cannot contain {c:?}"))),
        None => Ok(text.into()),
    }
}

/// A path: absolute, `~/` for the home directory, or relative to the directory of the configuration file.
pub(super) fn path(text: &str, file: &Path, home: Option<&Path>) -> Result<PathBuf, ValueError> {
    if text.is_empty() || text.contains('\0') {
        return Err(ValueError::new("is not a path"));
    }
    if let Some(rest) = text.strip_prefix("~/") {
        let home = home.ok_or_else(|| {
            ValueError::new("begins with ~/, but the home directory is not known").hint("write the whole path")
        })?;
        return Ok(home.join(rest));
    }
    if text.starts_with('~') {
        return Err(ValueError::new("begins with ~, which is expanded only in ~/").hint("write the whole path"));
    }
    Ok(file.parent().unwrap_or(Path::new("")).join(text))
}
