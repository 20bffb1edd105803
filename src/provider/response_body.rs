//! Names the bodies that no token endpoint writes: pages of a CDN, a portal or a gateway. (pure)

/// What a body without tokens and without an error looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignBody {
    Empty,
    /// A web page: of a CDN, a captive portal, a proxy, or at a wrong address.
    Html,
    Xml,
    /// Text that is neither JSON nor a form.
    Text,
}

impl ForeignBody {
    /// What the body is; `None` if it is JSON or a form, whatever it says.
    pub fn of(content_type: Option<&str>, body: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(body);
        let text = text.trim_start_matches('\u{feff}').trim();
        let start = text.get(..text.len().min(512)).unwrap_or(text).to_ascii_lowercase();
        let named = content_type.unwrap_or_default().to_ascii_lowercase();
        if text.is_empty() {
            return Some(Self::Empty);
        }
        if !start.starts_with('<') {
            let is_text = named.starts_with("text/plain") && !start.starts_with(['{', '[']) && !start.contains('=');
            return is_text.then_some(Self::Text);
        }
        let is_page = start.contains("<html") || start.contains("<!doctype html") || named.contains("html");
        Some(if is_page { Self::Html } else { Self::Xml })
    }

    /// Its name in a message.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Empty => "an empty body",
            Self::Html => "a web page (HTML)",
            Self::Xml => "an XML document",
            Self::Text => "plain text",
        }
    }

    /// Whether it comes from something between here and the token endpoint, or from another address.
    pub fn is_from_elsewhere(&self) -> bool {
        matches!(self, Self::Html | Self::Xml)
    }
}

/// What a gateway sends with a 503 only when no server took the request. Texts that can follow a send ("upstream connect
/// error or disconnect/reset before headers", "upstream request timeout") are never here.
const UNTAKEN_503: [&str; 3] = [
    // Envoy and Istio.
    "no healthy upstream",
    // Traefik.
    "no available server",
    // HAProxy, as a web page.
    "no server is available to handle this request",
];

/// Whether the body of a 503 says that no server took the request.
pub fn is_untaken_503(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    if text.len() > 1024 {
        return false;
    }
    let mut words = String::new();
    let mut is_tag = false;
    for c in text.chars() {
        match c {
            '<' => is_tag = true,
            '>' => is_tag = false,
            _ if !is_tag => words.push(c),
            _ => {}
        }
    }
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = words.trim_end_matches('.');
    let words = words.strip_prefix("503 service unavailable").unwrap_or(words).trim();
    UNTAKEN_503.contains(&words)
}

/// The body that a refusal of the client has in a challenge alone (`WWW-Authenticate: Basic error="invalid_client"`): a
/// form of its error. Other challenges may be of a gateway, and speak of another token.
pub fn body_of_challenge(header: &str) -> Option<Vec<u8>> {
    let error = challenge_parameter(header, "error").filter(|code| {
        ["invalid_client", "unauthorized_client"].iter().any(|known| code.eq_ignore_ascii_case(known))
    })?;
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("error", error);
    if let Some(text) = challenge_parameter(header, "error_description") {
        form.append_pair("error_description", text);
    }
    Some(form.finish().into_bytes())
}

/// A parameter of a challenge (RFC 9110 §11.2).
fn challenge_parameter<'a>(header: &'a str, wanted: &str) -> Option<&'a str> {
    let mut rest = header;
    while let Some(at) = rest.find('=') {
        let name = rest[..at].rsplit([' ', ',', '\t']).next().unwrap_or_default();
        let value = rest[at + 1..].trim_start();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => value.split_once(',').unwrap_or((value, "")),
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value.trim());
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_client_is_read_from_a_challenge() {
        let read = |header: &str| body_of_challenge(header).map(|body| String::from_utf8(body).unwrap());
        assert_eq!(read("Basic realm=\"a, b\", error=\"invalid_client\"").as_deref(), Some("error=invalid_client"));
        assert_eq!(
            read("Basic error=invalid_client, error_description=\"Unknown client\"").as_deref(),
            Some("error=invalid_client&error_description=Unknown+client")
        );
        for other in ["Basic realm=\"x\"", "Bearer error=\"invalid_token\"", "", "=", "Basic error=\""] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn body_of_no_token_endpoint_is_named() {
        for (kind, body, named) in [
            (None, "", Some(ForeignBody::Empty)),
            (Some("application/json"), " \n", Some(ForeignBody::Empty)),
            (Some("text/html"), "<!DOCTYPE html><html><title>Just a moment...</title>", Some(ForeignBody::Html)),
            (Some("application/json"), "<html>hello", Some(ForeignBody::Html)),
            (Some("text/html; charset=utf-8"), "<h1>Sign in to the hotel</h1>", Some(ForeignBody::Html)),
            (None, "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", Some(ForeignBody::Xml)),
            (Some("text/plain"), "upstream request timeout", Some(ForeignBody::Text)),
            (Some("text/plain"), "error=invalid_grant", None),
            (Some("text/html"), "{\"error\":\"invalid_grant\"}", None),
            (None, "{}", None),
        ] {
            assert_eq!(ForeignBody::of(kind, body.as_bytes()), named, "{body}");
        }
    }

    #[test]
    fn gateway_without_a_server_is_known_by_its_text() {
        for untaken in [
            "no healthy upstream",
            "no available server\n",
            "<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.\n</body></html>",
        ] {
            assert!(is_untaken_503(untaken.as_bytes()), "{untaken}");
        }
        for taken in [
            "",
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
            "upstream request timeout",
            "<html><h1>503 Service Temporarily Unavailable</h1><center>nginx</center></html>",
            r#"{"error":"temporarily_unavailable","error_description":"no healthy upstream"}"#,
        ] {
            assert!(!is_untaken_503(taken.as_bytes()), "{taken}");
        }
    }
}
