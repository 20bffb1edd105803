//! Where the server sends the browser when a person has signed in (RFC 8252 §7.3). (pure)

use std::net::IpAddr;

use url::{Host, Url};

/// The default redirect: any port of 127.0.0.1.
const DEFAULT_REDIRECT: &str = "http://127.0.0.1/callback";

/// A redirect as it was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// A loopback address of this machine.
    Loopback { url: Url, place: LoopbackHost },
    /// To a page of the provider, which shows the code.
    External(Url),
}

/// Which loopback addresses the browser may try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopbackHost {
    Ip(IpAddr),
    /// `localhost`: the browser tries either.
    Localhost,
}

impl Redirect {
    /// The redirect that a provider's `redirect_uri` stands for.
    pub fn of(registered: Option<&Url>) -> Self {
        let Some(url) = registered.cloned().or_else(|| Url::parse(DEFAULT_REDIRECT).ok()) else {
            unreachable!("a constant URL parses");
        };
        if url.scheme() != "http" {
            return Self::External(url);
        }
        let place = match url.host() {
            Some(Host::Ipv4(address)) => LoopbackHost::Ip(address.into()),
            Some(Host::Ipv6(address)) => LoopbackHost::Ip(address.into()),
            Some(Host::Domain(_)) | None => LoopbackHost::Localhost,
        };
        Self::Loopback { url, place }
    }

    /// The redirect with `port`, where the registered one leaves it open.
    pub fn with_port(&self, port: u16) -> Url {
        match self {
            Self::External(url) => url.clone(),
            Self::Loopback { url, .. } => {
                let mut url = url.clone();
                if url.port().is_none() {
                    // Refused only for URLs without a host, which no redirect is.
                    let _always_ok = url.set_port(Some(port));
                }
                url
            }
        }
    }

    /// The port that was registered, if one was.
    pub fn fixed_port(&self) -> Option<u16> {
        match self {
            Self::Loopback { url, .. } => url.port(),
            Self::External(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Redirect {
        Redirect::of(Some(&text.parse().unwrap()))
    }

    #[test]
    fn redirect_keeps_a_registered_port() {
        assert_eq!(
            of("http://localhost:1455/auth/callback").with_port(9).as_str(),
            "http://localhost:1455/auth/callback"
        );
        assert_eq!(of("http://localhost/callback").with_port(9).as_str(), "http://localhost:9/callback");
        assert_eq!(of("http://[::1]/cb").with_port(9).as_str(), "http://[::1]:9/cb");
        assert_eq!(Redirect::of(None).with_port(9).as_str(), "http://127.0.0.1:9/callback");
        assert_eq!(of("https://acme.example/code").with_port(9).as_str(), "https://acme.example/code");
    }

    #[test]
    fn redirect_host_decides_where_to_listen() {
        let place = |text| match of(text) {
            Redirect::Loopback { place, .. } => Some(place),
            Redirect::External(_) => None,
        };
        let one = |address: &str| Some(LoopbackHost::Ip(address.parse().unwrap()));
        assert_eq!(place("http://127.0.0.2/"), one("127.0.0.2"));
        assert_eq!(place("http://[::1]:80/"), one("::1"));
        assert_eq!(place("http://localhost/"), Some(LoopbackHost::Localhost));
        assert_eq!(place("https://localhost/"), None);
    }
}
