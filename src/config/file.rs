//! The configuration file's shapes, and nothing else: every key that can be written, each optional.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};
use url::{Host, Url};

use crate::credential::freshness::Margin;
use crate::profile::{BodyForm, ClientAuth, GraceSemantics, Rotation};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub margin: Option<MarginText>,
    pub schedule: Option<String>,
    pub timezone: Option<Zone>,
    #[serde(default)]
    pub store: Store,
    #[serde(default)]
    pub provider: BTreeMap<String, Provider>,
    #[serde(default)]
    pub profile: BTreeMap<String, Profile>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Zone {
    #[serde(rename = "UTC", alias = "utc")]
    Utc,
    #[serde(rename = "local")]
    Local,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    pub kind: Option<StoreKind>,
    pub path: Option<PathBuf>,
    pub key: Option<Key>,
    pub service: Option<String>,
    pub allow_network_filesystem: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    Keyring,
    File,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Key {
    Credential(String),
    File(PathBuf),
    Command(Vec<String>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Secret {
    Env(String),
    File(PathBuf),
    Command(Vec<String>),
    Keyring(String),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    pub issuer: Option<Endpoint>,
    pub authorization_endpoint: Option<Endpoint>,
    pub token_endpoint: Option<Endpoint>,
    pub device_authorization_endpoint: Option<Endpoint>,
    pub revocation_endpoint: Option<Endpoint>,
    pub client_id: Option<String>,
    pub client_auth: Option<ClientAuth>,
    pub client_secret: Option<Secret>,
    pub scopes: Option<Vec<String>>,
    pub rotation: Option<Rotation>,
    pub reuse_grace: Option<DurationText>,
    pub grace_semantics: Option<GraceSemantics>,
    pub last_chance: Option<bool>,
    pub trust_503: Option<bool>,
    pub concurrency: Option<usize>,
    pub settle: Option<DurationText>,
    pub timeout: Option<DurationText>,
    pub connect_timeout: Option<DurationText>,
    pub headers: Option<BTreeMap<String, String>>,
    pub body: Option<BodyForm>,
    pub ca_file: Option<PathBuf>,
    pub margin: Option<MarginText>,
    pub default_lifetime: Option<DurationText>,
    /// Where the facts come from; for the built-in ones.
    pub source: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub provider: Option<String>,
    pub margin: Option<MarginText>,
    pub schedule: Option<String>,
    pub timezone: Option<Zone>,
    pub follow: Option<bool>,
}

impl Provider {
    /// This provider with the gaps filled from another: how a built-in one is overridden key by key.
    pub fn over(self, base: Self) -> Self {
        Self {
            issuer: self.issuer.or(base.issuer),
            authorization_endpoint: self.authorization_endpoint.or(base.authorization_endpoint),
            token_endpoint: self.token_endpoint.or(base.token_endpoint),
            device_authorization_endpoint: self.device_authorization_endpoint.or(base.device_authorization_endpoint),
            revocation_endpoint: self.revocation_endpoint.or(base.revocation_endpoint),
            client_id: self.client_id.or(base.client_id),
            client_auth: self.client_auth.or(base.client_auth),
            client_secret: self.client_secret.or(base.client_secret),
            scopes: self.scopes.or(base.scopes),
            rotation: self.rotation.or(base.rotation),
            reuse_grace: self.reuse_grace.or(base.reuse_grace),
            grace_semantics: self.grace_semantics.or(base.grace_semantics),
            last_chance: self.last_chance.or(base.last_chance),
            trust_503: self.trust_503.or(base.trust_503),
            concurrency: self.concurrency.or(base.concurrency),
            settle: self.settle.or(base.settle),
            timeout: self.timeout.or(base.timeout),
            connect_timeout: self.connect_timeout.or(base.connect_timeout),
            headers: self.headers.or(base.headers),
            body: self.body.or(base.body),
            ca_file: self.ca_file.or(base.ca_file),
            margin: self.margin.or(base.margin),
            default_lifetime: self.default_lifetime.or(base.default_lifetime),
            source: self.source.or(base.source),
        }
    }
}

/// A duration as people write it.
#[derive(Clone, Copy, Debug)]
pub struct DurationText(pub Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        humantime::parse_duration(text.trim()).map(Self).map_err(|_| {
            D::Error::custom(format!("{text:?} is no duration: write \"90s\", \"15m\", \"2h\" or \"1d 12h\""))
        })
    }
}

/// A margin: a duration, or a share of the token's lifetime.
#[derive(Clone, Copy, Debug)]
pub struct MarginText(pub Margin);

impl<'de> Deserialize<'de> for MarginText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let bad = || {
            D::Error::custom(format!(
                "{text:?} is no margin: write a duration (\"2h\") or a share (\"20%\", above 0% and below 100%)"
            ))
        };
        let margin = match text.trim().strip_suffix('%') {
            Some(share) => {
                let percent: f64 = share.trim().parse().map_err(|_| bad())?;
                let thousandths = (percent * 10.0).round();
                if !(1.0..1000.0).contains(&thousandths) {
                    return Err(bad());
                }
                Margin::Share(thousandths as u16)
            }
            None => match humantime::parse_duration(text.trim()) {
                Ok(d) if !d.is_zero() => Margin::Fixed(d),
                Ok(_) | Err(_) => return Err(bad()),
            },
        };
        Ok(Self(margin))
    }
}

/// An endpoint: https, or http to this machine.
#[derive(Clone, Debug)]
pub struct Endpoint(pub Url);

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let url = Url::parse(&text).map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &"a URL"))?;
        let is_loopback = match url.host() {
            Some(Host::Ipv4(a)) => a.is_loopback(),
            Some(Host::Ipv6(a)) => a.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        let fault = match url.scheme() {
            "https" => None,
            "http" if is_loopback => None,
            "http" => Some("must be https (http is for this machine only)"),
            _ => Some("must be https"),
        };
        let has_extras = !url.username().is_empty() || url.password().is_some() || url.fragment().is_some();
        match fault.or(has_extras.then_some("cannot carry a user name, a password or a fragment")) {
            Some(fault) => Err(D::Error::custom(format!("{text:?} {fault}"))),
            None => Ok(Self(url)),
        }
    }
}
