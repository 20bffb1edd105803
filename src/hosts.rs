//! The servers that may be given a profile's access token: patterns as the configuration has them, and the server that a
//! request names. A name is compared after it was read as a URL, so that two spellings of one server are one.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use url::{Host, Url};

/// What a URL says of a server: how it is spoken to, its name in lower case, and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName {
    is_https: bool,
    host: String,
    port: u16,
}

/// A server, or several whose names differ in one label: `git.corp.example`, `*.pkg.corp.example`, `reg.example:5000`,
/// `http://127.0.0.1:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(ServerName);

/// Why a text is no pattern, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadHostPattern {
    pub message: String,
    pub hint: &'static str,
}

/// How many labels of a pattern must be written out, after the last `*`: below a registry's own names anyone can have one.
const LITERAL_LABELS: usize = 2;

impl ServerName {
    /// The server of `scheme://authority`, as a program names the two parts. `None`: it is no server that a token may be
    /// sent to, or the authority has more in it than a name and a port.
    pub fn of_parts(scheme: &str, authority: &str) -> Option<Self> {
        let is_plain = |c: char| c.is_alphanumeric() || ".-_:[]*".contains(c);
        if authority.is_empty() || !authority.chars().all(is_plain) {
            return None;
        }
        let is_https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let url = Url::parse(&format!("{}://{authority}/", if is_https { "https" } else { "http" })).ok()?;
        Some(Self { is_https, host: url.host_str()?.to_owned(), port: url.port_or_known_default()? })
    }

    /// The server of a URL; a path and a query may follow. A user name in it is refused: programs disagree about what is
    /// the host then.
    pub fn of_url(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        Self::of_parts(scheme, authority)
    }

    /// What a registry without a scheme can be: a server over https, and on this machine one over http, too.
    pub fn candidates(authority: &str) -> Vec<Self> {
        let plain = Self::of_parts("http", authority).filter(Self::is_loopback);
        Self::of_parts("https", authority).into_iter().chain(plain).collect()
    }

    fn is_loopback(&self) -> bool {
        match Host::parse(&self.host) {
            Ok(Host::Domain(name)) => name == "localhost",
            Ok(Host::Ipv4(address)) => address.is_loopback(),
            Ok(Host::Ipv6(address)) => address.is_loopback(),
            Err(_) => false,
        }
    }

    fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.host.split('.')
    }

    fn has_default_port(&self) -> bool {
        self.port == if self.is_https { 443 } else { 80 }
    }

    /// The name with its port, unless that is the usual one.
    pub fn authority(&self) -> String {
        if self.has_default_port() { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// As the configuration writes it: without a scheme for https.
impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_https { "" } else { "http://" }, self.authority())
    }
}

impl HostPattern {
    /// Whether a server is one of those that are meant.
    pub fn matches(&self, server: &ServerName) -> bool {
        let Self(own) = self;
        own.is_https == server.is_https
            && own.port == server.port
            && own.labels().count() == server.labels().count()
            && own.labels().zip(server.labels()).all(|(wanted, given)| match wanted {
                "*" => !given.is_empty() && given != "*",
                literal => literal == given,
            })
    }

    /// The one server that is meant; `None` if there are several.
    pub fn server(&self) -> Option<&ServerName> {
        self.0.labels().all(|label| label != "*").then_some(&self.0)
    }
}

impl FromStr for HostPattern {
    type Err = BadHostPattern;

    fn from_str(text: &str) -> Result<Self, BadHostPattern> {
        let bad = |message: &str, hint| BadHostPattern { message: message.to_owned(), hint };
        let (scheme, authority) = text.split_once("://").unwrap_or(("https", text));
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains(['/', '?', '#', '@']) {
            return Err(bad(
                "is a host and a port, and nothing else",
                "leave out the path, the query and the user name",
            ));
        }
        let server = ServerName::of_parts(scheme, authority)
            .ok_or_else(|| bad("is no host", "write it like \"git.acme.example\" or \"registry.acme.example:5000\""))?;
        if !server.is_https && !server.is_loopback() {
            let hint = "leave out http://, which means https";
            return Err(bad("must be https: http is accepted only for loopback addresses", hint));
        }
        let labels: Vec<&str> = server.labels().collect();
        if labels.iter().any(|label| label.contains('*') && *label != "*") {
            return Err(bad("has a * that is only a part of a label", "write * for one whole label"));
        }
        let literal = labels.iter().rev().take_while(|label| **label != "*").count();
        if literal < LITERAL_LABELS && labels.contains(&"*") {
            return Err(bad("means too many hosts", "write two labels or more after *, as in \"*.pkg.acme.example\""));
        }
        Ok(Self(server))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse().unwrap_or_else(|bad: BadHostPattern| panic!("{text}: {}", bad.message))
    }

    fn matches(text: &str, url: &str) -> bool {
        ServerName::of_url(url).is_some_and(|server| pattern(text).matches(&server))
    }

    #[test]
    fn pattern_without_a_scheme_means_https() {
        assert!(matches("git.acme.example", "https://git.acme.example/a/b.git"));
        assert!(matches("git.acme.example", "https://GIT.acme.example:443"));
        assert!(!matches("git.acme.example", "http://git.acme.example/"));
        assert!(!matches("git.acme.example", "ssh://git.acme.example/"));
        assert!(!matches("git.acme.example", "https://git.acme.example:8443/"));
        assert!(matches("reg.example:5000", "https://reg.example:5000/v2/"));
        assert!(!matches("reg.example:5000", "https://reg.example/v2/"));
    }

    #[test]
    fn http_is_for_loopback_only() {
        assert!(matches("http://127.0.0.1:8080", "http://127.0.0.1:8080/x"));
        assert!(matches("http://[::1]:80", "http://[::1]/"));
        assert!(matches("http://localhost:8080", "http://localhost:8080"));
        assert!(!matches("http://127.0.0.1:8080", "https://127.0.0.1:8080/x"));
        for wrong in ["http://git.acme.example", "http://localhost.evil.example", "http://128.0.0.1"] {
            assert!(wrong.parse::<HostPattern>().unwrap_err().message.contains("loopback"), "{wrong}");
        }
    }

    #[test]
    fn star_stands_for_one_whole_label() {
        assert!(matches("*.pkg.acme.example", "https://eu.pkg.acme.example/"));
        assert!(!matches("*.pkg.acme.example", "https://pkg.acme.example/"));
        assert!(!matches("*.pkg.acme.example", "https://a.b.pkg.acme.example/"));
        assert!(!matches("*.pkg.acme.example", "https://.pkg.acme.example/"));
        assert!(matches("a.*.acme.example", "https://a.b.acme.example/"));
        for wrong in ["*", "*.com", "https://*.com", "*.*.example", "x*.acme.example", "a.*"] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong}");
        }
        assert!(pattern("*.pkg.acme.example").server().is_none());
    }

    #[test]
    fn look_alikes_of_a_server_do_not_match() {
        for url in [
            "https://git.acme.example@evil.example/",
            "https://evil.example/git.acme.example",
            "https://evil.example#git.acme.example",
            "https://evil.example\\git.acme.example",
            "https://git.acme.example.evil.example/",
            "https://git.acme.example%2eevil.example/",
            "https://xgit.acme.example/",
            "https://git.acme.example./",
            "git.acme.example",
            "https://",
        ] {
            assert!(!matches("git.acme.example", url), "{url}");
        }
        // The part before the at sign would be the user name.
        assert_eq!(ServerName::of_parts("https", "u@git.acme.example"), None);
        assert_eq!(ServerName::of_parts("https", "git.acme.example/x"), None);
        assert_eq!(ServerName::of_parts("https", "git.acme.example\n"), None);
    }

    #[test]
    fn pattern_is_a_host_and_nothing_else() {
        for wrong in ["", "git.acme.example/team", "u:p@git.acme.example", "ftp://git.acme.example", "a b", "x:99999"] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong}");
        }
        for (text, shown) in [
            ("https://Git.Acme.Example/", "git.acme.example"),
            ("http://127.1:80", "http://127.0.0.1"),
            ("b\u{fc}cher.example:5000", "xn--bcher-kva.example:5000"),
        ] {
            assert_eq!(pattern(text).to_string(), shown);
        }
    }

    #[test]
    fn registry_without_a_scheme_may_be_plain_on_loopback() {
        let found =
            |authority: &str| ServerName::candidates(authority).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("reg.example:5000"), ["reg.example:5000"]);
        assert_eq!(found("localhost:5000"), ["localhost:5000", "http://localhost:5000"]);
        assert!(found("reg.example/x").is_empty());
    }
}
