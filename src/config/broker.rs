//! `[broker]`: where the daemon listens besides its socket, and what its metrics show.

use std::net::{IpAddr, SocketAddr};

use super::error::ValueError;
use super::keys;
use super::section::{Entry, Section};
use super::values;
use crate::profile::{BadProfileName, ProfileName};

/// What the daemon offers to other programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerSettings {
    /// The loopback address and port of the TCP listener; `None`: there is none.
    pub listen: Option<SocketAddr>,
    /// Metadata servers of Google's cloud, one for each profile that needs one.
    pub gce: Vec<GceSettings>,
    /// Whether the metrics have series for each profile; `None`: unless there are very many.
    pub metrics_per_profile: Option<bool>,
}

/// A metadata server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GceSettings {
    pub listen: SocketAddr,
    pub profile: ProfileName,
    /// The project that its clients are told.
    pub project: Option<String>,
}

/// The settings. Mistakes are noted, and the default then stands for what has them.
pub(super) fn read(section: &Section<'_>) -> BrokerSettings {
    section.reject_unknown(&[keys::BROKER]);
    let listen = section.read("listen", |e| e.parse(loopback_address));
    let metrics_per_profile = section.read("metrics_per_profile", Entry::flag);
    let mut gce: Vec<GceSettings> = Vec::new();
    for section in section.read("gce", |e| e.tables()).unwrap_or_default() {
        let Some(settings) = read_gce(&section) else { continue };
        let owner = match listen == Some(settings.listen) {
            true => Some("[broker]".to_owned()),
            false => gce
                .iter()
                .find(|other| other.listen == settings.listen)
                .map(|other| format!("[[broker.gce]] of {}", other.profile)),
        };
        if let Some(owner) = owner {
            let message = format!("listen is the address of {owner}, too");
            section
                .document
                .note(section.diagnostic("listen", message, "write another port for one of the two").into());
        }
        gce.push(settings);
    }
    BrokerSettings { listen, gce, metrics_per_profile }
}

fn read_gce(section: &Section<'_>) -> Option<GceSettings> {
    section.reject_unknown(&[keys::GCE]);
    if !cfg!(target_os = "linux") {
        let message = "works only on Linux: elsewhere no system tells the user of a client";
        section.document.note(section.diagnostic("listen", message, "remove this section").into());
    }
    let listen = section.read("listen", |e| e.parse(loopback_address));
    let profile = section.read("profile", |e| e.parse(profile_name));
    let project = section.read("project", |e| e.parse(|text| values::external_name(text, "")));
    let needed = [("listen", "127.0.0.1:8766", listen.is_some()), ("profile", "google", profile.is_some())];
    for (key, example, is_there) in needed {
        if !is_there && !section.has(key) && !section.has_mistake_about(&[key], keys::GCE) {
            let message = format!("{key} is missing");
            let hint = format!("write {key} = {example:?}");
            section.document.note(section.diagnostic("", message, hint).into());
        }
    }
    Some(GceSettings { listen: listen?, profile: profile?, project })
}

fn profile_name(text: &str) -> Result<ProfileName, ValueError> {
    text.parse().map_err(|e: BadProfileName| ValueError::new(format!("is not a profile: {e}")))
}

/// An address that stands in the configurations of other programs, so it is one that is known before the start.
fn loopback_address(text: &str) -> Result<SocketAddr, ValueError> {
    const HINT: &str = "write listen = \"127.0.0.1:8765\", with a port that no other program uses";
    let wrong = |why: &str| ValueError::new(why).hint(HINT);
    let address: SocketAddr = text
        .parse()
        .map_err(|_| wrong("must be a loopback address with a port, as \"127.0.0.1:8765\" or \"[::1]:8765\""))?;
    let is_literal = match address.ip() {
        IpAddr::V4(ip) => ip == std::net::Ipv4Addr::LOCALHOST,
        IpAddr::V6(ip) => ip == std::net::Ipv6Addr::LOCALHOST,
    };
    match (is_literal, address.port()) {
        (false, _) => Err(wrong("must be 127.0.0.1 or [::1]: tokens are given to this machine alone")),
        (true, 0) => Err(wrong("needs a fixed port: other programs have it in their configuration")),
        (true, _) => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_is_a_literal_loopback_address_with_a_port() {
        for right in ["127.0.0.1:8765", "[::1]:1"] {
            assert_eq!(loopback_address(right).unwrap().to_string(), right);
        }
        for wrong in [
            "127.0.0.1",
            "127.0.0.1:0",
            "127.0.0.2:80",
            "0.0.0.0:80",
            "localhost:80",
            ":80",
            "[::]:80",
            "10.0.0.1:80",
            "[::1%lo]:1",
        ] {
            assert!(loopback_address(wrong).unwrap_err().hint.is_some(), "{wrong}");
        }
    }
}
