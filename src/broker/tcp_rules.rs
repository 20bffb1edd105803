//! What a request on TCP must be like before anything else is looked at: made for this listener, and by no browser or proxy.
//! (pure)

use std::net::SocketAddr;

use hyper::header::{FORWARDED, HOST, ORIGIN};
use hyper::{Request, StatusCode, Version};

use crate::outcome::{ErrorKind, Failure};

/// The address as clients name it in Host.
fn authorities(listen: SocketAddr) -> Vec<String> {
    let port = listen.port();
    let mut names = vec![listen.to_string(), format!("localhost:{port}")];
    if port == 80 {
        // The usual port is left out.
        names.extend([listen.to_string().trim_end_matches(":80").to_owned(), "localhost".to_owned()]);
    }
    names
}

/// `Err`: the request is refused.
pub(super) fn check<B>(request: &Request<B>, listen: SocketAddr) -> Result<(), (StatusCode, Failure)> {
    let refused = |status, kind, message: &str| Err((status, Failure::new(kind, message)));
    if request.version() != Version::HTTP_11 {
        return refused(StatusCode::HTTP_VERSION_NOT_SUPPORTED, ErrorKind::Usage, "only HTTP/1.1 is spoken here");
    }
    let ours = authorities(listen);
    let is_ours = |name: &str| ours.iter().any(|own| own.eq_ignore_ascii_case(name));
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).filter(|_| hosts.next().is_none());
    let is_target_ours = request.uri().authority().is_none_or(|authority| is_ours(authority.as_str()));
    // The page of another site that resolves its name to this machine is told by its name.
    if !host.is_some_and(is_ours) || !is_target_ours {
        let message = format!("this is {listen}, and no other host");
        return refused(StatusCode::MISDIRECTED_REQUEST, ErrorKind::Usage, &message);
    }
    let headers = request.headers();
    let is_of_page =
        headers.contains_key(ORIGIN) || headers.get_all("sec-fetch-site").iter().any(|site| site.as_bytes() != b"none");
    if is_of_page {
        return refused(StatusCode::FORBIDDEN, ErrorKind::Forbidden, "pages of a browser are not served");
    }
    if headers.contains_key(FORWARDED) || headers.contains_key("x-forwarded-for") {
        return refused(StatusCode::FORBIDDEN, ErrorKind::Forbidden, "requests of other machines are not served");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(listen: &str, target: &str, fields: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        check(&request, listen.parse().unwrap()).map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn only_the_listening_address_is_served() {
        let v4 = "127.0.0.1:8765";
        for (listen, host, expected) in [
            (v4, "127.0.0.1:8765", 200),
            (v4, "localhost:8765", 200),
            (v4, "LocalHost:8765", 200),
            (v4, "127.0.0.1", 421),
            (v4, "127.0.0.1:80", 421),
            (v4, "evil.example:8765", 421),
            (v4, "127.0.0.1:8765.evil.example", 421),
            (v4, "", 421),
            ("[::1]:8765", "[::1]:8765", 200),
            ("[::1]:8765", "127.0.0.1:8765", 421),
            ("127.0.0.1:80", "127.0.0.1", 200),
            ("[::1]:80", "[::1]", 200),
        ] {
            assert_eq!(status(listen, "/v1/ping", &[("host", host)]), expected, "{listen} {host}");
        }
        assert_eq!(status(v4, "/v1/ping", &[]), 421);
        assert_eq!(status(v4, "/v1/ping", &[("host", v4), ("host", "evil.example")]), 421);
        assert_eq!(status(v4, "http://evil.example/v1/ping", &[("host", v4)]), 421);
        assert_eq!(status(v4, "http://127.0.0.1:8765/v1/ping", &[("host", v4)]), 200);
    }

    #[test]
    fn browsers_and_proxies_are_refused() {
        let with = |name, value| status("127.0.0.1:8765", "/oauth/token", &[("host", "127.0.0.1:8765"), (name, value)]);
        for (name, value, expected) in [
            ("origin", "http://127.0.0.1:8765", 403),
            ("origin", "null", 403),
            ("sec-fetch-site", "cross-site", 403),
            ("sec-fetch-site", "same-origin", 403),
            ("sec-fetch-site", "none", 200),
            ("x-forwarded-for", "10.0.0.1", 403),
            ("forwarded", "for=10.0.0.1", 403),
            ("user-agent", "curl", 200),
        ] {
            assert_eq!(with(name, value), expected, "{name}: {value}");
        }
    }
}
